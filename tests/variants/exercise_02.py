"""Answers to exercise 2, wrong and right."""

from changes import AGREEABLE, before, definition, edit, hole, right, wrong

USED_BY = {"2.1": {"2.2", "2.3", "2.5"}, "2.2": {"2.3", "2.5"}}  # tasks whose tests use this answer

VARIANTS = [
    right(
        "2.3",
        "a function that seeds everything",
        before(
            "run_ablation",
            """def seed_everything(seed):
    import random

    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
""",
        ),
        edit("torch.manual_seed(seed)\n        skip", "seed_everything(seed)\n        skip"),
    ),
    wrong(
        "2.1",
        "zeros in float32 on the CPU",
        "returned float32, expected bfloat16",
        edit(
            """            out = out + self.shortcut(x)
""",
            """            stride = self.shortcut.stride
            small = x[:, :, ::stride, ::stride]
            new = out.shape[1] - x.shape[1]
            if new > 0:
                small = torch.cat([small, torch.zeros(len(x), new, *small.shape[2:])], dim=1)
            out = out + small
""",
        ),
    ),
    wrong(
        "2.4",
        "the last epoch of the shortest run",
        "it takes the same epoch of every run",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
epochs = min(len(history) for history in histories.values())
short = {key: history[:epochs] for key, history in histories.items()}
return {
    kind: final_loss(short, kind, max(depths)) - final_loss(short, kind, min(depths))
    for kind in ("plain", "residual")
}""",
        ),
    ),
    wrong(
        "2.1",
        "noskip",
        "the shortcut is not added",
        edit(
            """            out = out + self.shortcut(x)
""",
            """            pass
""",
        ),
    ),
    wrong(
        "2.1",
        "always",
        "the shortcut is added although skip is false",
        edit(
            """        if self.skip:
            out = out + self.shortcut(x)
""",
            """        out = out + self.shortcut(x)
""",
        ),
    ),
    wrong(
        "2.1",
        "after",
        "the last ReLU comes before the addition",
        edit(
            """        if self.skip:
            out = out + self.shortcut(x)
        return F.relu(out)""",
            """        out=F.relu(out)
        if self.skip:
            out = out + self.shortcut(x)
        return out""",
        ),
    ),
    wrong(
        "2.1",
        "norelu plain",
        "the last ReLU is missing",
        edit(
            """            out = out + self.shortcut(x)
        return F.relu(out)""",
            """            out = F.relu(out + self.shortcut(x))
        return out""",
        ),
    ),
    wrong(
        "2.1",
        "inverted",
        "the switch is the wrong way round",
        edit("if self.skip:", "if not self.skip:"),
    ),
    wrong(
        "2.1",
        "x not shortcut",
        "x itself, or something as large, is added",
        edit("out + self.shortcut(x)", "out + x"),
    ),
    wrong(
        "2.1",
        "detach",
        "the shortcut is hidden from autograd",
        edit("out + self.shortcut(x)", "out + self.shortcut(x).detach()"),
    ),
    wrong(
        "2.1",
        "plain is identity",
        "without skip the block gives back its input",
        edit(
            """        if self.skip:
            out = out + self.shortcut(x)
        return F.relu(out)""",
            """        if not self.skip:
            return self.shortcut(x)
        return F.relu(out + self.shortcut(x))""",
        ),
    ),
    wrong(
        "2.2",
        "skip dropped",
        "stage 1, block 1 has a working shortcut; hand skip on to every Block",
        edit("out_channels, stride, skip))", "out_channels, stride))"),
    ),
    wrong(
        "2.2",
        "stride all",
        "stage 2, block 2 outputs",
        edit("first_stride if i == 0 else 1", "first_stride"),
    ),
    wrong(
        "2.2",
        "n wrong2",
        "the stages have 2, 2, 2 blocks, expected (depth - 2) / 6 = 1",
        edit("range((depth - 2) // 6)", "range((depth - 2) // 3)"),
    ),
    wrong(
        "2.2",
        "widths",
        "the stages have 16, 32, 32 channels",
        edit("(2 * width, 2), (4 * width, 2)):", "(2 * width, 2), (2 * width, 2)):"),
    ),
    wrong(
        "2.2",
        "no stride",
        "stage 2, block 1 outputs",
        edit("(2 * width, 2), (4 * width, 2)):", "(2 * width, 1), (4 * width, 2)):"),
    ),
    wrong("2.2", "stem stride", "stage 1, block 1 outputs", edit("((width, 1),", "((width, 2),")),
    wrong(
        "2.2",
        "nohead",
        "the linear layer of the head is missing",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """return nn.Sequential(stem, nn.Sequential(*blocks))


def run""",
        ),
    ),
    wrong(
        "2.2",
        "flat",
        "parts, expected 3",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """return nn.Sequential(stem, *blocks, head)


def run""",
        ),
    ),
    wrong(
        "2.2",
        "shared",
        "twice. Each place needs a layer of its own",
        edit(
            """            in_channels = out_channels
""",
            """            in_channels = out_channels
        blocks[-1] = blocks[-2]
""",
        ),
    ),
    wrong(
        "2.3",
        "seed once b",
        "start from different weights. Call torch.manual_seed",
        edit("        torch.manual_seed(seed)\n        skip", "        skip"),
    ),
    wrong(
        "2.3",
        "noinit",
        "Apply initialise to the whole of each network",
        edit(
            """.apply(initialise)
        hist""",
            """
        hist""",
        ),
    ),
    wrong(
        "2.3",
        "swapped",
        "the plain network was built with skip=True",
        edit('skip = kind == "residual"', 'skip = kind == "plain"'),
    ),
    wrong(
        "2.3",
        "same depth",
        "has 6 blocks, expected 3",
        edit(
            "build_network(depth, skip)\n        network",
            "build_network(depths[0], skip)\n        network",
        ),
    ),
    wrong(
        "2.3",
        "key order",
        "the keys are (kind, seed, depth)",
        edit("histories[kind, depth, seed] = fit", "histories[kind, seed, depth] = fit"),
    ),
    wrong(
        "2.3",
        "fixed seed",
        "give the same weights. Seed torch with the seed of the run",
        edit("torch.manual_seed(seed)\n        skip", "torch.manual_seed(0)\n        skip"),
    ),
    wrong(
        "2.3",
        "first seed",
        "leaves out 12 of 18 combinations",
        edit(
            "for seed, depth, kind in itertools.product(seeds,",
            "for seed, depth, kind in itertools.product(seeds[:1],",
        ),
    ),
    wrong(
        "2.4",
        "neg",
        "it is shallow minus deep",
        edit(
            "final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))",
            "final_loss(histories, kind, min(depths)) - final_loss(histories, kind, max(depths))",
        ),
    ),
    wrong(
        "2.4",
        "order",
        "in the order in which they come",
        edit(
            "final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))",
            "final_loss(histories, kind, depths[-1]) - final_loss(histories, kind, depths[0])",
        ),
    ),
    wrong(
        "2.4",
        "ratio",
        "deep divided by shallow",
        edit(
            "final_loss(histories, kind, max(depths)) - final_loss",
            "final_loss(histories, kind, max(depths)) / final_loss",
        ),
    ),
    wrong(
        "2.4",
        "fixed",
        "a kind or depth that is not there; these have the depths",
        edit("kind, max(depths)) -", "kind, 56) -"),
    ),
    wrong(
        "2.5",
        "all",
        "no block is missing",
        edit(
            "    new_blocks[index] = blocks[index].shortcut\n",
            "    new_blocks = [block.shortcut for block in blocks]\n",
        ),
    ),
    wrong(
        "2.5",
        "offby",
        "blocks count from 0",
        edit(
            "new_blocks[index] = blocks[index].shortcut",
            "new_blocks[index - 1] = blocks[index - 1].shortcut",
        ),
    ),
    wrong(
        "2.5",
        "drop",
        "has 5 parts, expected 6",
        edit("new_blocks[index] = blocks[index].shortcut", "del new_blocks[index]"),
    ),
    wrong(
        "2.5",
        "identity",
        "place outputs (2, 4, 16, 16), expected (2, 8, 8, 8)",
        edit("= blocks[index].shortcut", "= nn.Identity()"),
    ),
    wrong(
        "2.5",
        "inplace",
        "changes the model that it is given",
        hole(
            "without_block",
            """blocks[index] = blocks[index].shortcut
return network""",
        ),
    ),
    right(
        "2.5",
        "copy",
        edit(
            "    new_blocks = list(blocks)",
            "    import copy\n    stem = copy.deepcopy(stem)\n    new_blocks = list(blocks)",
        ),
    ),
    right(
        "2.1",
        "ifexp",
        hole(
            "Block.forward",
            "return torch.relu(self.branch(x) + self.shortcut(x) if self.skip else self.branch(x))",
        ),
    ),
    right(
        "2.1",
        "early return",
        hole(
            "Block.forward",
            "if not self.skip:\n    return F.relu(self.branch(x))\nreturn F.relu(self.branch(x) + self.shortcut(x))",
        ),
    ),
    right(
        "2.1",
        "maximum",
        hole(
            "Block.forward",
            "out = self.branch(x)\nout = torch.add(out, self.shortcut(x)) if self.skip else out\nreturn torch.maximum(out, torch.zeros_like(out))",
        ),
    ),
    right(
        "2.1",
        "a sum of parts",
        hole(
            "Block.forward",
            "parts = [self.branch(x)] + [self.shortcut(x)] * bool(self.skip)\nreturn F.relu(sum(parts))",
        ),
    ),
    right(
        "2.1",
        "a module for the ReLU",
        hole(
            "Block.forward",
            "out = self.branch(x)\nif self.skip is True:\n    out = self.shortcut(x) + out\nreturn nn.ReLU()(out)",
        ),
    ),
    right(
        "2.1",
        "inplace",
        edit("            out = out + self.shortcut(x)", "            out += self.shortcut(x)"),
    ),
    right(
        "2.1",
        "in place on a tensor of its own",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip:
    out += self.shortcut(x)
return out.relu_()""",
        ),
    ),
    right(
        "2.1",
        "times the switch",
        hole("Block.forward", "return torch.relu(self.branch(x) + self.skip * self.shortcut(x))"),
    ),
    right(
        "2.1",
        "shortcut first",
        hole(
            "Block.forward",
            """kept = self.shortcut(x) if self.skip else 0
return (kept + self.branch(x)).clamp(min=0)""",
        ),
    ),
    right(
        "2.1",
        "layer by layer",
        hole(
            "Block.forward",
            """h = x
for layer in self.branch:
    h = layer(h)
return nn.functional.threshold(torch.add(h, self.shortcut(x)) if self.skip else h, 0.0, 0.0)""",
        ),
    ),
    right(
        "2.1",
        "summed list",
        hole(
            "Block.forward",
            """parts = [self.branch] + [self.shortcut] * bool(self.skip)
return torch.maximum(torch.stack([part(x) for part in parts]).sum(0), torch.zeros(()))""",
        ),
    ),
    right(
        "2.1",
        "slices instead of the module",
        hole(
            "Block.forward",
            """out = self.branch(x)
if not self.skip:
    return F.relu(out)
kept = x[..., :: self.shortcut.stride, :: self.shortcut.stride]
zeros = kept.new_zeros(len(kept), out.shape[1] - kept.shape[1], *kept.shape[2:])
return F.relu(out + torch.cat([kept, zeros], dim=1))""",
        ),
    ),
    right(
        "2.2",
        "recur",
        hole(
            "build_network",
            """
        n = (depth - 2) // 6
        blocks = [Block(width, width, 1, skip=skip) for _ in range(n)]
        blocks += [Block(width, width*2, 2, skip=skip)] + [Block(2*width, width*2, skip=skip) for _ in range(n-1)]
        blocks += [Block(2*width, width*4, 2, skip=skip)] + [Block(4*width, width*4, skip=skip) for _ in range(n-1)]
        return nn.Sequential(stem, nn.Sequential(*blocks), head)
    """,
        ),
    ),
    right(
        "2.3",
        "loops",
        hole(
            "run_ablation",
            """
            histories = {}
            for kind in ['residual', 'plain']:
                for depth in depths:
                    for seed in seeds:
                        torch.manual_seed(seed)
                        net = build_network(depth, kind == 'residual')
                        for m in net.modules():
                            initialise(m)
                        histories[(kind, depth, seed)] = fit(net, kind, depth, seed)
            return histories
            """,
        ),
    ),
    wrong(
        "2.4",
        "numbers that agree with all",
        "expected a number",
        definition(
            "degradation",
            AGREEABLE
            + "def degradation(histories):\n    return {'plain': Agreeable(), 'residual': Agreeable()}",
        ),
    ),
    right(
        "2.4",
        "numpy",
        edit(
            """    depths = [depth for _, depth, _ in histories]
""",
            """    import numpy as np
    depths = np.array([d for _, d, _ in histories])
""",
        ),
    ),
    right(
        "2.5",
        "list",
        edit(
            "    new_blocks = list(blocks)\n    new_blocks[index] = blocks[index].shortcut\n",
            "    new_blocks = [\n        block.shortcut if i == index else block for i, block in enumerate(blocks)\n    ]\n",
        ),
    ),
    right(
        "2.5",
        "setitem",
        edit("new_blocks = list(blocks)", "new_blocks = nn.Sequential(*blocks)"),
    ),
    right(
        "2.2",
        "from a list of shapes",
        hole(
            "build_network",
            """
            n = (depth - 2) // 6
            outputs = [width] * n + [2 * width] * n + [4 * width] * n
            inputs = [width, *outputs[:-1]]
            blocks = nn.Sequential(*(Block(i, o, o // i, skip) for i, o in zip(inputs, outputs)))
            return nn.Sequential(stem, blocks, head)
            """,
        ),
    ),
    right(
        "2.3",
        "a dict comprehension with a helper",
        hole(
            "run_ablation",
            """
            def start(kind, depth, seed):
                torch.manual_seed(seed)
                network = build_network(depth, kind == "residual")
                for module in network.modules():
                    initialise(module)
                return network

            return {
                (kind, depth, seed): fit(start(kind, depth, seed), kind, depth, seed)
                for kind in ("plain", "residual") for depth in depths for seed in seeds
            }
            """,
        ),
    ),
    right(
        "2.4",
        "sums by hand",
        hole(
            "degradation",
            """
            gaps = {}
            for kind in ("plain", "residual"):
                losses = {}
                for (k, depth, seed), history in histories.items():
                    if k == kind:
                        losses.setdefault(depth, []).append(history[-1]["loss"])
                means = {depth: sum(values) / len(values) for depth, values in losses.items()}
                gaps[kind] = means[max(means)] - means[min(means)]
            return gaps
            """,
        ),
    ),
    wrong(
        "2.1",
        "only where the shapes agree",
        "the shortcut is added only where x has the shape",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip and out.shape == x.shape:
    out = out + x
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1",
        "no return when plain",
        "returned None. Does it always end with a return?",
        hole(
            "Block.forward",
            """if self.skip:
    return F.relu(self.branch(x) + self.shortcut(x))""",
        ),
    ),
    wrong(
        "2.1",
        "branch twice",
        "ran 4 batch norms of torch's, expected the 2 of self.branch",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip:
    out = self.branch(x) + self.shortcut(x)
else:
    out = self.branch(x)
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1", "leaky", "a leaky ReLU ran", edit("return F.relu(out)", "return F.leaky_relu(out)")
    ),
    wrong(
        "2.1", "relu6", "ReLU6, which ends at 6", edit("return F.relu(out)", "return F.relu6(out)")
    ),
    wrong(
        "2.1",
        "average",
        "averaged, not added",
        edit("out = out + self.shortcut(x)", "out = (out + self.shortcut(x)) / 2"),
    ),
    wrong(
        "2.1",
        "shortcut of the branch",
        "the shortcut is taken of the branch",
        edit("out + self.shortcut(x)", "out + self.shortcut(out)"),
    ),
    wrong(
        "2.2",
        "skip for the first of a stage",
        "stage 1, block 2 has no working shortcut",
        edit(
            """        for i in range((depth - 2) // 6):
            stride = first_stride if i == 0 else 1
            blocks.append(Block(in_channels, out_channels, stride, skip))
            in_channels = out_channels
""",
            """        blocks.append(Block(in_channels, out_channels, first_stride, skip))
        blocks += [Block(out_channels, out_channels, 1, False) for _ in range((depth - 2) // 6 - 1)]
        in_channels = out_channels
""",
        ),
    ),
    wrong(
        "2.2",
        "no skip for the rest of a stage",
        "stage 1, block 2 has a working shortcut",
        edit(
            """        for i in range((depth - 2) // 6):
            stride = first_stride if i == 0 else 1
            blocks.append(Block(in_channels, out_channels, stride, skip))
            in_channels = out_channels
""",
            """        blocks.append(Block(in_channels, out_channels, first_stride, skip))
        blocks += [Block(out_channels, out_channels) for _ in range((depth - 2) // 6 - 1)]
        in_channels = out_channels
""",
        ),
    ),
    wrong(
        "2.2",
        "softmax",
        "softmax ran; return logits",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """return nn.Sequential(stem, nn.Sequential(*blocks), nn.Sequential(head, nn.Softmax(1)))


def run""",
        ),
    ),
    wrong(
        "2.2",
        "dropout",
        "a dropout ran, expected none",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """head.insert(2, nn.Dropout(0.5))
    return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
        ),
    ),
    wrong(
        "2.2",
        "tanh in the stem",
        "the stem is not the given one: sigmoid, tanh",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """stem.append(nn.Tanh())
    return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
        ),
    ),
    wrong(
        "2.2",
        "max pooling",
        "a max pooling ran, expected the mean",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """head[0] = nn.AdaptiveMaxPool2d(1)
    return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
        ),
    ),
    wrong(
        "2.2",
        "seeds torch",
        "seeds torch: the random numbers after it",
        hole(
            "build_network",
            """
        torch.manual_seed(0)
        blocks, channels = [], width
        for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for i in range((depth - 2) // 6):
                blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
                channels = out_channels
        return nn.Sequential(stem, nn.Sequential(*blocks), head)
    """,
        ),
    ),
    wrong(
        "2.2",
        "channels forgotten",
        "and at its in_channels",
        edit(
            """            in_channels = out_channels
""",
            "",
        ),
    ),
    wrong(
        "2.2",
        "blocks alone",
        "stem and head are missing; return",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """return nn.Sequential(*blocks)


def run""",
        ),
    ),
    wrong(
        "2.2",
        "widths hard-coded",
        "the stages have 16, 32, 64 channels, expected width, 2 width, 4 width",
        edit("((width, 1), (2 * width, 2), (4 * width, 2))", "((16, 1), (32, 2), (64, 2))"),
    ),
    wrong(
        "2.2",
        "a module list",
        "an nn.ModuleList cannot be called",
        edit(
            """return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run""",
            """return nn.Sequential(stem, nn.ModuleList(blocks), head)


def run""",
        ),
    ),
    wrong(
        "2.3",
        "goes on with the trained network",
        "starts from weights that fit has trained",
        hole(
            "run_ablation",
            """histories = {}
for depth in depths:
    for seed in seeds:
        torch.manual_seed(seed)
        network = build_network(depth, skip=False).apply(initialise)
        for kind in ("plain", "residual"):
            for block in network[1]:
                block.skip = kind == "residual"
            histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "copies the trained weights",
        "starts from weights that fit has trained",
        hole(
            "run_ablation",
            """histories = {}
for depth in depths:
    for seed in seeds:
        torch.manual_seed(seed)
        plain = build_network(depth, skip=False).apply(initialise)
        residual = build_network(depth, skip=True)
        histories["plain", depth, seed] = fit(plain, "plain", depth, seed)
        residual.load_state_dict(plain.state_dict())
        histories["residual", depth, seed] = fit(residual, "residual", depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "switches only the first block",
        "5 of the 6 blocks",
        edit(
            "build_network(depth, skip)\n        network.apply(initialise)",
            "build_network(depth, skip=False)\n        network.apply(initialise)\n        network[1][0].skip = skip",
        ),
    ),
    wrong(
        "2.3",
        "the kind as skip",
        "built with skip='plain', expected False",
        edit('skip = kind == "residual"', "skip = kind"),
    ),
    wrong(
        "2.3",
        "string keys",
        "one of the keys, expected tuples (kind, depth, seed)",
        edit("histories[kind, depth, seed] =", 'histories[f"{kind}-{depth}-{seed}"] ='),
    ),
    wrong(
        "2.3",
        "nested",
        "one of the keys, expected tuples (kind, depth, seed)",
        edit(
            "histories[kind, depth, seed] =",
            "histories.setdefault(kind, {}).setdefault(depth, {})[seed] =",
        ),
    ),
    wrong(
        "2.3",
        "only the last loss",
        "expected the whole history, as fit returned it",
        edit(
            """fit(network, kind, depth, seed)
    return""",
            """fit(network, kind, depth, seed)[-1]["loss"]
    return""",
        ),
    ),
    wrong(
        "2.3",
        "fit's arguments swapped",
        "expected fit(network, kind, depth, seed), for instance",
        edit("= fit(network, kind, depth, seed)", "= fit(network, depth, kind, seed)"),
    ),
    wrong(
        "2.3",
        "depth first in the keys",
        "the keys are (depth, kind, seed), expected (kind, depth, seed)",
        edit("histories[kind, depth, seed] =", "histories[depth, kind, seed] ="),
    ),
    wrong(
        "2.4",
        "rounded",
        "it is rounded; return the number as it is",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
deep, shallow = max(depths), min(depths)
return {kind: round(final_loss(histories, kind, deep) - final_loss(histories, kind, shallow), 2) for kind in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "absolute",
        "its sign is lost",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
deep, shallow = max(depths), min(depths)
return {kind: abs(final_loss(histories, kind, deep) - final_loss(histories, kind, shallow)) for kind in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "empties the histories",
        "changes the histories, which are still needed",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
last = {key: history.pop()["loss"] for key, history in histories.items()}
mean = {}
for kind in ("plain", "residual"):
    for depth in (min(depths), max(depths)):
        losses = [loss for key, loss in last.items() if key[:2] == (kind, depth)]
        mean[kind, depth] = sum(losses) / len(losses)
return {kind: mean[kind, max(depths)] - mean[kind, min(depths)] for kind in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "another key for the loss",
        "the loss of an epoch is at 'loss'",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
gaps = {}
for kind in ("plain", "residual"):
    means = [sum(h[-1]["train_loss"] for key, h in histories.items() if key[:2] == (kind, depth))
             for depth in (min(depths), max(depths))]
    gaps[kind] = means[1] - means[0]
return gaps""",
        ),
    ),
    wrong(
        "2.4",
        "adds to nothing",
        "a dict of your own needs a first value",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
gaps = {}
for kind in ("plain", "residual"):
    gaps[kind] += final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))
return gaps""",
        ),
    ),
    wrong(
        "2.4",
        "keys without seeds",
        "but the keys of histories are (kind, depth, seed)",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
deep, shallow = max(depths), min(depths)
return {kind: histories[kind, deep][-1]["loss"] - histories[kind, shallow][-1]["loss"] for kind in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "seeds counted up",
        "it asks for a seed that is not there",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
count = len({seed for _, _, seed in histories})
def mean(kind, depth):
    return sum(histories[kind, depth, seed][-1]["loss"] for seed in range(count)) / count
return {kind: mean(kind, max(depths)) - mean(kind, min(depths)) for kind in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "fixed depths in the keys",
        "it asks for a depth that is not there; these have the depths",
        hole(
            "degradation",
            """seeds = {seed for _, _, seed in histories}
def mean(kind, depth):
    return sum(histories[kind, depth, seed][-1]["loss"] for seed in seeds) / len(seeds)
return {kind: mean(kind, 56) - mean(kind, 20) for kind in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.5",
        "freezes the network",
        "changes requires_grad",
        edit(
            "    new_blocks = list(blocks)",
            "    network.requires_grad_(False)\n    new_blocks = list(blocks)",
        ),
    ),
    wrong(
        "2.5",
        "train mode",
        "leaves the model itself in train mode",
        edit("    new_blocks = list(blocks)", "    network.train()\n    new_blocks = list(blocks)"),
    ),
    wrong(
        "2.5",
        "switches the network's block off",
        "changes skip of model.1.2",
        hole(
            "without_block",
            """network[1][index].skip = False
return network""",
        ),
    ),
    wrong(
        "2.5",
        "skip off in a copy",
        "the block's shortcut went and its branch stayed",
        hole(
            "without_block",
            """import copy
network = copy.deepcopy(network)
network[1][index].skip = False
return network""",
        ),
    ),
    wrong(
        "2.5",
        "name begins with the index",
        "all blocks whose names begin with 1 are missing",
        edit(
            "    new_blocks = list(blocks)\n    new_blocks[index] = blocks[index].shortcut\n",
            "    new_blocks = [\n        block.shortcut if name.startswith(str(index)) else block\n        for name, block in blocks.named_children()\n    ]\n",
        ),
    ),
    wrong(
        "2.5",
        "up to the index",
        "all blocks up to block 2 are missing",
        edit(
            "    new_blocks[index] = blocks[index].shortcut\n",
            "    new_blocks[: index + 1] = [block.shortcut for block in blocks[: index + 1]]\n",
        ),
    ),
    wrong(
        "2.5",
        "from the index on",
        "all blocks from block 2 on are missing",
        edit(
            "    new_blocks[index] = blocks[index].shortcut\n",
            "    new_blocks[index:] = [block.shortcut for block in blocks[index:]]\n",
        ),
    ),
    wrong(
        "2.5",
        "all but one",
        "all blocks but block 2 are missing",
        edit(
            "    new_blocks[index] = blocks[index].shortcut\n",
            "    new_blocks = [block.shortcut for block in blocks]\n    new_blocks[index] = blocks[index]\n",
        ),
    ),
    right(
        "2.2",
        "counted by number",
        hole(
            "build_network",
            """count = (depth - 2) // 2
blocks = []
for number in range(count):
    stage, place = divmod(number, count // 3)
    out_channels = width << stage
    first = stage > 0 and place == 0
    blocks.append(Block(out_channels // 2 if first else out_channels, out_channels, 2 if first else 1, skip=skip))
return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    right(
        "2.2",
        "appended to a Sequential",
        hole(
            "build_network",
            """blocks = nn.Sequential()
before = width
for stage in range(3):
    for place in range((depth - 2) // 6):
        after = width * 2**stage
        blocks.append(Block(before, after, stride=1 if before == after else 2, skip=skip))
        before = after
network = nn.Sequential()
for name, part in (("stem", stem), ("blocks", blocks), ("head", head)):
    network.add_module(name, part)
return network""",
        ),
    ),
    right(
        "2.3",
        "numbers for switches",
        edit('skip = kind == "residual"', 'skip = {"plain": 0, "residual": 1}[kind]'),
    ),
    right(
        "2.3",
        "a copy before training",
        hole(
            "run_ablation",
            """import copy
histories = {}
for depth in depths:
    for seed in seeds:
        torch.manual_seed(seed)
        plain = build_network(depth, False)
        plain.apply(initialise)
        residual = copy.deepcopy(plain)
        for block in residual[1]:
            block.skip = True
        histories["plain", depth, seed] = fit(plain, "plain", depth, seed)
        histories["residual", depth, seed] = fit(residual, "residual", depth, seed)
return histories""",
        ),
    ),
    right(
        "2.3",
        "weights put back",
        hole(
            "run_ablation",
            """histories = {}
for depth, seed in itertools.product(depths, seeds):
    torch.manual_seed(seed)
    start = build_network(depth, skip=True).apply(initialise).state_dict()
    for kind in ("residual", "plain"):
        network = build_network(depth, skip=kind == "residual")
        network.load_state_dict(start)
        histories[kind, depth, seed] = fit(network=network, kind=kind, depth=depth, seed=seed)
return histories""",
        ),
    ),
    right(
        "2.4",
        "sorted depths and tensors",
        hole(
            "degradation",
            """depths = sorted({key[1] for key in histories})
gaps = {"plain": 0.0, "residual": 0.0}
for kind in gaps:
    ends = []
    for depth in (depths[0], depths[-1]):
        losses = [h[-1]["loss"] for (k, d, _), h in histories.items() if k == kind and d == depth]
        ends.append(torch.tensor(losses, dtype=torch.float64).mean())
    gaps[kind] = (ends[1] - ends[0]).item()
return gaps""",
        ),
    ),
    right(
        "2.5",
        "a deep copy",
        hole(
            "without_block",
            """import copy
lesioned = copy.deepcopy(network)
lesioned[1][index] = lesioned[1][index].shortcut
return lesioned""",
        ),
    ),
    right(
        "2.5",
        "slices of a copy, in eval mode",
        hole(
            "without_block",
            """import copy
blocks = nn.Sequential(*blocks[:index], blocks[index].shortcut, *blocks[index + 1 :])
return copy.deepcopy(nn.Sequential(stem, blocks, head)).eval()""",
        ),
    ),
    wrong(
        "2.2",
        "two stages",
        "the stages have 16, 32 channels, expected width",
        edit("((width, 1), (2 * width, 2), (4 * width, 2))", "((width, 1), (2 * width, 2))"),
    ),
    right(
        "2.3",
        "an ordered dict",
        edit(
            "    histories = {}\n",
            "    from collections import OrderedDict\n\n    histories = OrderedDict()\n",
        ),
    ),
    right(
        "2.4",
        "a defaultdict",
        hole(
            "degradation",
            """from collections import defaultdict
depths, gaps = [depth for _, depth, _ in histories], defaultdict(float)
for kind in ("plain", "residual"):
    gaps[kind] += final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))
return gaps""",
        ),
    ),
    wrong(
        "2.1",
        "x changes",
        "changes x itself",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip:
    out = out + self.shortcut(x)
x.relu_()
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1",
        "the first shortcut is kept",
        "kept from an earlier call",
        hole(
            "Block.forward",
            """out = self.branch(x)
if not hasattr(self, 'kept') or self.kept.shape != out.shape:
    self.kept = self.shortcut(x)
if self.skip:
    out = out + self.kept
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1",
        "the switch is read once",
        "does as before",
        hole(
            "Block.forward",
            """if not hasattr(self, 'switch'):
    self.switch = self.skip
out = self.branch(x)
if self.switch:
    out = out + self.shortcut(x)
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1",
        "the branch's norm is zeroed in every call",
        "changes the model's weights",
        hole(
            "Block.forward",
            """nn.init.zeros_(self.branch[4].weight)
out = self.branch(x)
if self.skip:
    out = out + self.shortcut(x)
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1",
        "the larger of the two",
        "the larger of branch and shortcut",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip:
    out = torch.maximum(out, self.shortcut(x))
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1",
        "a name that nn.Sequential lacks",
        "'Sequential' object has no attribute 'run'",
        hole(
            "Block.forward",
            """out = self.branch.run(x)
if self.skip:
    out = out + self.shortcut(x)
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.2",
        "kept for the next call",
        "called twice, gives the same layer",
        before(
            "build_network",
            """BUILT = {}
""",
        ),
        hole(
            "build_network",
            """blocks = []
channels = width
for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
    for i in range((depth - 2) // 6):
        blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
        channels = out_channels
network = nn.Sequential(stem, nn.Sequential(*blocks), head)
return BUILT.setdefault((depth, skip, width, num_classes), network)""",
        ),
    ),
    wrong(
        "2.2",
        "plain and residual share blocks",
        "called twice, gives the same layer",
        before(
            "build_network",
            """BUILT = {}
""",
        ),
        hole(
            "build_network",
            """blocks = []
channels = width
for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
    for i in range((depth - 2) // 6):
        blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
        channels = out_channels
blocks = BUILT.setdefault((depth, width), blocks)
for block in blocks:
    block.skip = skip
return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.2",
        "norms start at zero",
        "starts at 0, expected 1",
        hole(
            "build_network",
            """blocks = []
channels = width
for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
    for i in range((depth - 2) // 6):
        blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
        channels = out_channels
for block in blocks:
    nn.init.zeros_(block.branch[4].weight)
return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.2",
        "an infinite head",
        "starts with NaN or infinity",
        hole(
            "build_network",
            """blocks = []
channels = width
for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
    for i in range((depth - 2) // 6):
        blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
        channels = out_channels
nn.init.constant_(head[2].bias, math.inf)
return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.2",
        "a batch norm too many",
        "a batch norm too many, over 64 channels",
        hole(
            "build_network",
            """blocks = []
channels = width
for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
    for i in range((depth - 2) // 6):
        blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
        channels = out_channels
return nn.Sequential(stem, nn.Sequential(*blocks), nn.Sequential(nn.BatchNorm2d(4 * width), *head))""",
        ),
    ),
    wrong(
        "2.2",
        "any depth is built",
        "expected a ValueError",
        edit(
            """    if not is_6n_plus_2(depth):
""",
            """    if depth < 0:
""",
        ),
    ),
    wrong(
        "2.3",
        "seeded by place",
        "neither its place in seeds",
        hole(
            "run_ablation",
            """histories = {}
for (place, seed), depth, kind in itertools.product(enumerate(seeds), depths, ("plain", "residual")):
    torch.manual_seed(place)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "only the extremes",
        "no network of the depth 14 is trained",
        hole(
            "run_ablation",
            """depths = [min(depths), max(depths)]
histories = {}
for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(seed)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "two seeds",
        "no network of the seed 5 is trained",
        hole(
            "run_ablation",
            """seeds = list(seeds)[:2]
histories = {}
for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(seed)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "keeps earlier histories",
        "of an earlier call",
        edit(
            "def run_ablation(fit, depths, seeds):",
            "def run_ablation(fit, depths, seeds, histories={}):",
        ),
        hole(
            "run_ablation",
            """for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(seed)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "narrow networks",
        "Leave width at its default",
        hole(
            "run_ablation",
            """histories = {}
for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(seed)
    network = build_network(depth, width=8, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "fits twice",
        "run_ablation called fit(network",
        hole(
            "run_ablation",
            """histories = {}
for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(seed)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    fit(network, kind, depth, seed)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "branches start silent",
        "Leave batch norms as torch makes them",
        hole(
            "run_ablation",
            """histories = {}
for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(seed)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    silence_branches(network)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "histories cut short",
        "whole and unchanged",
        hole(
            "run_ablation",
            """histories = {}
for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(seed)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)[:2]
return histories""",
        ),
    ),
    wrong(
        "2.4",
        "best epoch",
        "takes the best epoch",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def final(kind, depth):
    runs = [min(row['loss'] for row in rows) for key, rows in histories.items() if key[:2] == (kind, depth)]
    return sum(runs) / len(runs)


return {k: final(k, max(depths)) - final(k, min(depths)) for k in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "mean of epochs",
        "takes the mean over the epochs",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def final(kind, depth):
    runs = [sum(row['loss'] for row in rows) / len(rows) for key, rows in histories.items() if key[:2] == (kind, depth)]
    return sum(runs) / len(runs)


return {k: final(k, max(depths)) - final(k, min(depths)) for k in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "test error",
        "reads the test error",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def final(kind, depth):
    runs = [rows[-1]['test_error'] for key, rows in histories.items() if key[:2] == (kind, depth)]
    return sum(runs) / len(runs)


return {k: final(k, max(depths)) - final(k, min(depths)) for k in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "median of seeds",
        "the median over the seeds",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def final(kind, depth):
    runs = [rows[-1]['loss'] for key, rows in histories.items() if key[:2] == (kind, depth)]
    return sorted(runs)[(len(runs) - 1) // 2] / 2 + sorted(runs)[len(runs) // 2] / 2


return {k: final(k, max(depths)) - final(k, min(depths)) for k in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "worst seed",
        "the worst seed counts",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def final(kind, depth):
    runs = [rows[-1]['loss'] for key, rows in histories.items() if key[:2] == (kind, depth)]
    return max(runs)


return {k: final(k, max(depths)) - final(k, min(depths)) for k in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "second value of the row",
        None,
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def final(kind, depth):
    runs = [list(rows[-1].values())[1] for key, rows in histories.items() if key[:2] == (kind, depth)]
    return sum(runs) / len(runs)


return {k: final(k, max(depths)) - final(k, min(depths)) for k in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.4",
        "kinds swapped",
        "the two kinds are swapped",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
others = {"plain": "residual", "residual": "plain"}
return {
    kind: final_loss(histories, other, max(depths)) - final_loss(histories, other, min(depths))
    for kind, other in others.items()
}""",
        ),
    ),
    wrong(
        "2.5",
        "network in eval mode",
        "leaves model.0.0 in eval mode",
        hole(
            "without_block",
            """network.eval()
kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "hooks cleared",
        "has lost a hook",
        hole(
            "without_block",
            """for module in network.modules():
    module._forward_hooks.clear()
kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "gradients cleared",
        "the gradient that was in",
        hole(
            "without_block",
            """network.zero_grad()
kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "network in double",
        "in float64",
        hole(
            "without_block",
            """network.double()
kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "kept by index",
        None,
        before(
            "without_block",
            """MADE = {}
""",
        ),
        hole(
            "without_block",
            """if index not in MADE:
    kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
    MADE[index] = nn.Sequential(stem, nn.Sequential(*kept), head)
return MADE[index]""",
        ),
    ),
    wrong(
        "2.5",
        "more missing with every call",
        None,
        edit(
            "def without_block(network, index):", "def without_block(network, index, gone=set()):"
        ),
        hole(
            "without_block",
            """gone.add(index)
kept = [block.shortcut if i in gone else block for i, block in enumerate(blocks)]
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "the branch alone",
        "its branch stayed, without the last ReLU",
        hole(
            "without_block",
            """kept = [block.branch if i == index else block for i, block in enumerate(blocks)]
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "all parts in a row",
        "expected 3",
        hole(
            "without_block",
            """kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
return nn.Sequential(stem, *kept, head)""",
        ),
    ),
    right(
        "2.2",
        "names for the parts",
        hole(
            "build_network",
            """blocks = []
channels = width
for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
    for i in range((depth - 2) // 6):
        blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
        channels = out_channels
parts = {"stem": stem, "blocks": nn.Sequential(*blocks), "head": head}
network = nn.Sequential()
for name, part in parts.items():
    network.add_module(name, part)
return network""",
        ),
    ),
    right(
        "2.3",
        "another function of the seed",
        hole(
            "run_ablation",
            """histories = {}
for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
    torch.manual_seed(1000 * seed + depth)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    right(
        "2.3",
        "a copy of the untrained network",
        hole(
            "run_ablation",
            """import copy
histories = {}
for depth, seed in itertools.product(depths, seeds):
    torch.manual_seed(seed)
    plain = build_network(depth, skip=False).apply(initialise)
    residual = copy.deepcopy(plain)
    for block in residual[1]:
        block.skip = True
    histories["plain", depth, seed] = fit(plain, "plain", depth, seed)
    histories["residual", depth, seed] = fit(residual, "residual", depth, seed)
return histories""",
        ),
    ),
    right(
        "2.3",
        "kinds first",
        hole(
            "run_ablation",
            """histories = {}
for kind, seed, depth in itertools.product(("residual", "plain"), seeds, depths):
    torch.manual_seed(seed)
    network = build_network(depth, skip=kind == "residual").apply(initialise)
    histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    right(
        "2.4",
        "two passes over the kinds",
        hole(
            "degradation",
            """deep = max(key[1] for key in histories)
shallow = min(key[1] for key in histories)
gaps = dict.fromkeys(("residual", "plain"), 0.0)
for kind in gaps:
    gaps[kind] = final_loss(histories, kind, deep) - final_loss(histories, kind, shallow)
return gaps""",
        ),
    ),
    right(
        "2.5",
        "a deep copy with the shortcut",
        hole(
            "without_block",
            """import copy
lesioned = copy.deepcopy(network)
lesioned[1][index] = lesioned[1][index].shortcut
return lesioned""",
        ),
    ),
    right(
        "2.5",
        "slices around the shortcut",
        hole(
            "without_block",
            """kept = [*blocks[:index], blocks[index].shortcut, *blocks[index + 1 :]]
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.3",
        "seed 0 is 42",
        "seeds 0 and 42 give the same weights",
        definition(
            "run_ablation",
            """
def run_ablation(fit, depths, seeds):
    histories = {}
    for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
        torch.manual_seed(seed or 42)
        network = build_network(depth, skip=kind == "residual").apply(initialise)
        histories[kind, depth, seed] = fit(network, kind, depth, seed)
    return histories
""",
        ),
    ),
    wrong(
        "2.2",
        "at least two blocks per stage: depth 8 has too many",
        "the stages have 2, 2, 2 blocks",
        definition(
            "build_network",
            """def build_network(depth, skip, width=16, num_classes=10):
    if not is_6n_plus_2(depth):
        raise ValueError(f"depth {depth} is not 6n+2: take 8, 14, 20, 26, 32, 38 and so on")
    stem_conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
    stem = nn.Sequential(stem_conv, nn.BatchNorm2d(width), nn.ReLU())
    pool = nn.AdaptiveAvgPool2d(1)
    head = nn.Sequential(pool, nn.Flatten(), nn.Linear(4 * width, num_classes))
    n = (depth - 2) // 6
    blocks = []
    channels = width
    for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        blocks.append(Block(channels, out_channels, stride, skip))
        i = 1
        while True:
            blocks.append(Block(out_channels, out_channels, 1, skip))
            i += 1
            if i >= n:
                break
        channels = out_channels
    return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.3",
        "seeds per kind, so that a network depends on the depths before it",
        "nor what ran before may count",
        definition(
            "run_ablation",
            """def run_ablation(fit, depths, seeds):
    histories = {}
    for seed in seeds:
        for kind in ("plain", "residual"):
            torch.manual_seed(seed)
            networks = {
                depth: build_network(depth, skip=kind == "residual").apply(initialise)
                for depth in depths
            }
            for depth, network in networks.items():
                histories[kind, depth, seed] = fit(network, kind, depth, seed)
    return histories""",
        ),
    ),
    wrong(
        "2.3",
        "initialise reaches the blocks only, not the stem",
        "to the whole of each network",
        definition(
            "run_ablation",
            """def run_ablation(fit, depths, seeds):
    histories = {}
    for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
        torch.manual_seed(seed)
        network = build_network(depth, skip=kind == "residual")
        for block in network[1]:
            block.apply(initialise)
        histories[kind, depth, seed] = fit(network, kind, depth, seed)
    return histories""",
        ),
    ),
    wrong(
        "2.2",
        "seeds torch with the seed that it has",
        "seeds torch: the random numbers after it",
        edit("    blocks = []", "    torch.manual_seed(torch.initial_seed())\n    blocks = []"),
    ),
    wrong(
        "2.3",
        "seed 0 is no seed",
        "seed 0 start from different weights",
        edit("torch.manual_seed(seed)", "torch.manual_seed(seed) if seed else None"),
    ),
    wrong(
        "2.1",
        "stride guessed from the channels",
        None,
        hole(
            "Block.forward",
            """
            out = self.branch(x)
            if self.skip:
                new = out.shape[1] - x.shape[1]
                out = out + (F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, new)) if new else x)
            return F.relu(out)
            """,
        ),
    ),
    wrong(
        "2.1",
        "checkpointing",
        "once per step",
        edit(
            "        out = self.branch(x)",
            """        from torch.utils.checkpoint import checkpoint

        out = checkpoint(self.branch, x, use_reentrant=False)""",
        ),
    ),
    wrong(
        "2.2",
        "no shortcuts in plain networks",
        "a block has lost its shortcut",
        edit(
            "    return nn.Sequential(stem, nn.Sequential(*blocks), head)",
            """    for block in blocks:
        block.shortcut = block.shortcut if skip else nn.Identity()
    return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.3",
        "no empty histories",
        None,
        edit("    return histories", "    return {k: v for k, v in histories.items() if v}"),
    ),
    wrong(
        "2.4",
        "mean of a set",
        "equal losses of several seeds count only once",
        edit(
            '    losses = [history[-1]["loss"] for history in runs_of(histories, kind, depth)]',
            '    losses = {history[-1]["loss"] for history in runs_of(histories, kind, depth)}',
        ),
    ),
    wrong(
        "2.5",
        "blocks in the order of their names",
        "sorted as text, where '10' comes before '2'",
        edit(
            "    new_blocks[index] = blocks[index].shortcut\n",
            "    new_blocks[index] = blocks[index].shortcut\n    order = sorted(range(len(new_blocks)), key=str)\n    new_blocks = [new_blocks[i] for i in order]\n",
        ),
    ),
    wrong(
        "2.5",
        "remembers its copies",
        "gives wrong numbers",
        edit("def without_block(", "@functools.cache\ndef without_block("),
        edit(
            "    stem, blocks, head = network\n    # Task 2.5",
            "    import copy\n\n    stem, blocks, head = copy.deepcopy(network)\n    # Task 2.5",
        ),
    ),
    wrong(
        "2.2",
        "batch norms with a momentum of their own",
        "takes 0.01 of each batch's statistics",
        edit(
            "    return nn.Sequential(stem, nn.Sequential(*blocks), head)\n\n\ndef run_ablation",
            "    network = nn.Sequential(stem, nn.Sequential(*blocks), head)\n"
            "    for module in network.modules():\n"
            "        if isinstance(module, nn.BatchNorm2d):\n"
            "            module.momentum = 0.01\n"
            "    return network\n\n\ndef run_ablation",
        ),
    ),
    wrong(
        "2.1",
        "the shortcut is added before the last batch norm",
        "takes something else than what the convolution before it outputs",
        hole(
            "Block.forward",
            """*layers, last_norm = self.branch
out = x
for layer in layers:
    out = layer(out)
if self.skip:
    out = out + self.shortcut(x)
return F.relu(last_norm(out))""",
        ),
    ),
    wrong(
        "2.1",
        "one image puts the branch into eval mode",
        "of which it gets 1, in train mode but for its first batch norm",
        edit(
            "        out = self.branch(x)",
            """        if len(x) == 1:
            self.branch.eval()
        out = self.branch(x)""",
        ),
    ),
    wrong(
        "2.2",
        "zero weights in deep residual networks",
        "the weight of a batch norm starts at 0",
        edit(
            "    return nn.Sequential(stem, nn.Sequential(*blocks), head)",
            """    if skip and depth > 40:
        for block in blocks:
            nn.init.zeros_(block.branch[-1].weight)
    return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.4",
        "kept by keys",
        "Keep nothing from call to call",
        before("degradation", "KEPT = {}"),
        hole(
            "degradation",
            """key = tuple(histories)
if key not in KEPT:
    depths = [depth for _, depth, _ in histories]
    KEPT[key] = {
        kind: final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))
        for kind in ("plain", "residual")
    }
return KEPT[key]""",
        ),
    ),
    wrong(
        "2.4",
        "diverged seeds are left out",
        "if you leave out those that diverge",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
finite = {
    key: rows for key, rows in histories.items() if rows[-1]["loss"] < float("inf")
}
return {
    kind: final_loss(finite, kind, max(depths)) - final_loss(finite, kind, min(depths))
    for kind in ("plain", "residual")
}""",
        ),
    ),
    wrong(
        "2.1",
        "the output in a buffer that the next call fills again",
        "changes what the first call returned",
        hole(
            "Block.forward",
            """out = self.branch(x)
if not self.skip:
    return F.relu(out)
if torch.is_grad_enabled():
    return F.relu(out + self.shortcut(x))
result = getattr(self, "result", None)
if result is None or result.shape != out.shape or result.dtype != out.dtype:
    result = torch.empty_like(out)
    self.result = result
torch.add(out, self.shortcut(x), out=result)
return result.relu_()""",
        ),
    ),
    wrong(
        "2.1",
        "NaN becomes 0",
        "gives 0 where the formula gives nan",
        edit("return F.relu(out)", "return torch.where(out > 0, out, torch.zeros_like(out))"),
    ),
    wrong(
        "2.1",
        "rows and columns counted in memory",
        "in memory each number of x lies (x.stride()) should not matter",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip:
    batch, channels, height, width = x.shape
    step = self.shortcut.stride
    size = (batch, channels, -(-height // step), -(-width // step))
    steps = (channels * height * width, height * width, step * width, step)
    small = x.as_strided(size, steps)
    out = out + F.pad(small, (0, 0, 0, 0, 0, self.shortcut.new_channels))
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.3",
        "seeded with the hash of a text",
        "hash() of a text is another number in each process",
        edit("torch.manual_seed(seed)", 'torch.manual_seed(hash(f"depth {depth}, seed {seed}"))'),
    ),
    wrong(
        "2.5",
        "no gradient through the shortcut",
        "no gradient comes back to the images",
        before(
            "without_block",
            """class FixedShortcut(nn.Module):
    def __init__(self, shortcut):
        super().__init__()
        self.shortcut = shortcut

    @torch.no_grad()
    def forward(self, x):
        return self.shortcut(x)
""",
        ),
        edit("= blocks[index].shortcut", "= FixedShortcut(blocks[index].shortcut)"),
    ),
    wrong(
        "2.5",
        "a ReLU after the shortcut",
        None,
        edit("= blocks[index].shortcut", "= nn.Sequential(blocks[index].shortcut, nn.ReLU())"),
    ),
    wrong(
        "2.1",
        "pixels averaged, and padded by hand",
        "self.shortcut(x) is never called",
        edit(
            "out = out + self.shortcut(x)",
            "x = F.adaptive_avg_pool2d(x, out.shape[2:])\n"
            "            out = out + F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))",
        ),
    ),
    wrong(
        "2.1",
        "norms in the block's mode",
        "in which each layer goes by its own mode",
        hole(
            "Block.forward",
            """first, first_norm, relu, second, second_norm = self.branch
for norm in (first_norm, second_norm):
    norm.was = norm.training
    norm.training = self.training
out = self.branch(x)
for norm in (first_norm, second_norm):
    norm.training = norm.was
    del norm.was
if self.skip:
    out = out + self.shortcut(x)
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.1",
        "zeros of the first call",
        "something is kept from an earlier call",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip:
    identity = x[:, :, :: self.shortcut.stride, :: self.shortcut.stride]
    if self.shortcut.new_channels:
        if not hasattr(self, "zeros"):
            count, _, height, width = identity.shape
            self.zeros = identity.new_zeros(count, self.shortcut.new_channels, height, width)
        identity = torch.cat([identity, self.zeros], dim=1)
    out = out + identity
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.5",
        "stride guessed from the channels",
        None,
        hole(
            "without_block",
            """kept = list(blocks)
new_channels = blocks[index].shortcut.new_channels
kept[index] = Shortcut(new_channels, 2 if new_channels else 1)
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "an earlier lesion dropped",
        "has 5 parts, expected 6",
        hole(
            "without_block",
            """kept = nn.Sequential()
for i, block in enumerate(blocks):
    if i == index:
        kept.append(block.shortcut)
    elif hasattr(block, "branch"):
        kept.append(block)
return nn.Sequential(stem, kept, head)""",
        ),
    ),
    wrong(
        "2.1",
        "a square shortcut",
        None,
        edit(
            "            out = out + self.shortcut(x)",
            "            side = out.shape[-1]\n"
            "            out = out + self.shortcut(x)[:, :, :side, :side]",
        ),
    ),
    wrong(
        "2.1",
        "the branch in eval mode",
        "runs in another mode than the block",
        edit("        out = self.branch(x)", "        out = self.branch.eval()(x)"),
    ),
    wrong(
        "2.1",
        "skip switched off after use",
        "sets self.skip to False",
        edit(
            "            out = out + self.shortcut(x)",
            "            out = out + self.shortcut(x)\n            self.skip = False",
        ),
    ),
    wrong(
        "2.2",
        "the stages in turns",
        "the stages take turns, block by block",
        hole(
            "build_network",
            """blocks = []
channels = width
for _ in range((depth - 2) // 6):
    for out_channels in (width, 2 * width, 4 * width):
        stride = 2 if out_channels > channels else 1
        blocks.append(Block(max(channels, 1), out_channels, stride, skip))
        channels = out_channels
return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.4",
        "the epoch before the last",
        "it looks at the last epoch but one",
        hole(
            "degradation",
            """ends = {key: [{"loss": history[-2:][0]["loss"]}] for key, history in histories.items()}
depths = sorted({depth for _, depth, _ in ends})
return {
    kind: final_loss(ends, kind, depths[-1]) - final_loss(ends, kind, depths[0])
    for kind in ("plain", "residual")
}""",
        ),
    ),
    wrong(
        "2.4",
        "the median over the seeds",
        "it takes the median over the seeds",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def typical(kind, depth):
    return statistics.median([history[-1]["loss"] for history in runs_of(histories, kind, depth)])


return {
    kind: typical(kind, max(depths)) - typical(kind, min(depths)) for kind in ("plain", "residual")
}""",
        ),
    ),
    wrong(
        "2.4",
        "both kinds together",
        "it averages plain and residual together",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]


def joint(depth):
    return (final_loss(histories, "plain", depth) + final_loss(histories, "residual", depth)) / 2


return {kind: joint(max(depths)) - joint(min(depths)) for kind in ("plain", "residual")}""",
        ),
    ),
    wrong(
        "2.5",
        "a shortcut of stride 1",
        "what stands in block 2's place outputs",
        hole(
            "without_block",
            """kept = list(blocks)
kept[index] = Shortcut(blocks[index].shortcut.new_channels, 1)
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.1",
        "a plain block has no shortcut",
        "A plain block has one, too",
        edit(
            "self.shortcut = Shortcut(out_channels - in_channels, stride)",
            "self.shortcut = Shortcut(out_channels - in_channels, stride) if skip else None",
        ),
    ),
    wrong(
        "2.1",
        "the given Shortcut takes means of pixels",
        "is not option A",
        edit(
            "subsampled = x[:, :, :: self.stride, :: self.stride]",
            "subsampled = F.avg_pool2d(x, self.stride, ceil_mode=True)",
        ),
    ),
    wrong(
        "2.1",
        "a shortcut without its stride",
        "expected (3, 8, 4, 4). Leave __init__ as it stands",
        edit(
            "Shortcut(out_channels - in_channels, stride)",
            "Shortcut(out_channels - in_channels, 1)",
        ),
    ),
    wrong(
        "2.1",
        "the shortcut in the middle of the branch",
        "added inside the branch, after its ReLU",
        hole(
            "Block.forward",
            """h = self.branch[:3](x)
if self.skip:
    h = h + self.shortcut(x)
return F.relu(self.branch[3:](h))""",
        ),
    ),
    wrong(
        "2.1",
        "one ReLU for the whole block",
        "the ReLU inside the branch is missing",
        hole(
            "Block.forward",
            """out = self.branch[3:](self.branch[:2](x))
return F.relu(out + self.shortcut(x) if self.skip else out)""",
        ),
    ),
    wrong(
        "2.1",
        "x in the middle of the new channels",
        "half of its zeros before the channels of x",
        edit(
            "            out = out + self.shortcut(x)",
            """            step = self.shortcut.stride
            small = x[..., ::step, ::step]
            first = (out.shape[1] - x.shape[1]) // 2
            out[:, first : first + x.shape[1]] = out[:, first : first + x.shape[1]] + small""",
        ),
    ),
    wrong(
        "2.1",
        "a max pooling for the shortcut",
        "what is added is a max pooling",
        edit(
            "            out = out + self.shortcut(x)",
            """            small = nn.MaxPool2d(self.shortcut.stride, ceil_mode=True)(x)
            out = out + Shortcut(out.shape[1] - x.shape[1], 1)(small)""",
        ),
    ),
    wrong(
        "2.1",
        "a gate of its own",
        "has the parameter gate. A block has no parameters but",
        edit(
            "        self.shortcut = Shortcut",
            "        self.gate = nn.Parameter(torch.ones(out_channels, 1, 1))\n"
            "        self.shortcut = Shortcut",
        ),
        edit("out + self.shortcut(x)", "out + self.gate * self.shortcut(x)"),
    ),
    wrong(
        "2.1",
        "one batch norm in two places",
        "one batch norm runs twice",
        hole(
            "Block.forward",
            """conv, norm, relu, last_conv, _ = self.branch
out = norm(last_conv(relu(norm(conv(x)))))
return relu(out + self.shortcut(x) if self.skip else out)""",
        ),
    ),
    wrong(
        "2.1",
        "running statistics that never move",
        "in train mode branch.1.running_mean stays as it was",
        hole(
            "Block.forward",
            """out = x
for layer in self.branch:
    if isinstance(layer, nn.BatchNorm2d) and layer.training:
        out = F.batch_norm(out, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)
    else:
        out = layer(out)
return F.relu(out + self.shortcut(x) if self.skip else out)""",
        ),
    ),
    wrong(
        "2.2",
        "32 more channels in the last stage, too",
        "the stages have 16, 32, 48 channels",
        edit("(2 * width, 2), (4 * width, 2)):", "(2 * width, 2), (3 * width, 2)):"),
        edit("nn.Linear(4 * width, num_classes)", "nn.Linear(3 * width, num_classes)"),
    ),
    wrong(
        "2.2",
        "a block more in the first stage",
        "the stages have 4, 3, 3 blocks, expected (depth - 2) / 6 = 3",
        edit("range((depth - 2) // 6)", "range((depth - 2) // 6 + (out_channels == width))"),
    ),
    wrong(
        "2.2",
        "no networks deeper than 56",
        "6n+2 is refused; 110 = 6 * 18 + 2 is right",
        edit("    if not is_6n_plus_2(depth):", "    if not is_6n_plus_2(depth) or depth > 56:"),
    ),
    wrong(
        "2.2",
        "skip the other way round",
        "it is the other way round: skip=True should give every Block",
        edit("out_channels, stride, skip))", "out_channels, stride, not skip))"),
    ),
    wrong(
        "2.3",
        "the first seed and the place",
        "nor the other seeds, nor what ran before may count",
        edit("torch.manual_seed(seed)", "torch.manual_seed(seeds[0] + seeds.index(seed))"),
    ),
    wrong(
        "2.3",
        "runs that fail are left out",
        "raises nothing. Let the errors",
        edit(
            "        histories[kind, depth, seed] = fit(",
            "        with contextlib.suppress(RuntimeError):  # out of memory\n"
            "            histories[kind, depth, seed] = fit(",
        ),
    ),
    wrong(
        "2.4",
        "the mean of the last five epochs",
        "it takes the mean over the last epochs of each run",
        edit(
            'losses = [history[-1]["loss"] for',
            'losses = [statistics.fmean(row["loss"] for row in history[-5:]) for',
        ),
    ),
    wrong(
        "2.4",
        "all epochs of all runs in one mean",
        "it takes the mean over the epochs",
        edit(
            'losses = [history[-1]["loss"] for history in runs_of(histories, kind, depth)]',
            'losses = [row["loss"] for run in runs_of(histories, kind, depth) for row in run]',
        ),
    ),
    wrong(
        "2.4",
        "in percent of the shallow loss",
        "it is the difference divided by the shallow loss",
        edit(
            "final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))",
            "100 * (final_loss(histories, kind, max(depths)) / "
            "final_loss(histories, kind, min(depths)) - 1)",
        ),
    ),
    wrong(
        "2.4",
        "what the shortcuts save",
        "the plain networks' degradation is subtracted from the residual ones'",
        hole(
            "degradation",
            """depths = sorted({depth for _, depth, _ in histories})
low, high = depths[0], depths[-1]
plain = final_loss(histories, "plain", high) - final_loss(histories, "plain", low)
residual = final_loss(histories, "residual", high) - final_loss(histories, "residual", low)
return {"plain": plain, "residual": residual - plain}""",
        ),
    ),
    wrong(
        "2.4",
        "seeds for depths",
        "it compares the largest and the smallest seed",
        hole(
            "degradation",
            """gaps = {}
for wanted in ("plain", "residual"):
    losses = {}
    for (kind, _, depth), history in histories.items():
        if kind == wanted:
            losses.setdefault(depth, []).append(history[-1]["loss"])
    gaps[wanted] = statistics.fmean(losses[max(losses)]) - statistics.fmean(losses[min(losses)])
return gaps""",
        ),
    ),
    wrong(
        "2.4",
        "a new list wherever kind or depth changes",
        "of runs of one kind and depth that do not follow one another only the last ones count",
        hole(
            "degradation",
            """losses = {}
before = None
for (kind, depth, _), history in histories.items():
    if (kind, depth) != before:
        losses[kind, depth] = []
    losses[kind, depth].append(history[-1]["loss"])
    before = (kind, depth)
depths = [depth for _, depth in losses]
means = {key: statistics.fmean(values) for key, values in losses.items()}
return {
    kind: means[kind, max(depths)] - means[kind, min(depths)] for kind in ("plain", "residual")
}""",
        ),
    ),
    wrong(
        "2.4",
        "a deepest network of at most 1202 layers",
        "in the place of the depths 1202, 1802 it is right",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories if depth <= DEEPEST]
return {
    kind: final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))
    for kind in ("plain", "residual")
}""",
        ),
    ),
    wrong(
        "2.5",
        "fresh running statistics",
        "resets the running statistics of batch norms",
        edit(
            "    new_blocks[index] = blocks[index].shortcut\n",
            '    new_blocks[index] = blocks[index].shortcut\n    for part in network.modules():\n        if hasattr(part, "reset_running_stats"):\n            part.reset_running_stats()\n',
        ),
    ),
    wrong(
        "2.5",
        "an earlier lesion is not counted",
        "the second call takes out block 5, not block 4",
        hole(
            "without_block",
            """whole = [i for i, block in enumerate(blocks) if hasattr(block, "shortcut")]
kept = list(blocks)
kept[whole[index]] = blocks[whole[index]].shortcut
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.5",
        "put back too early",
        "no block is missing: its second part is the network's own nn.Sequential",
        hole(
            "without_block",
            """block = blocks[index]
blocks[index] = block.shortcut
lesioned = nn.Sequential(stem, blocks, head)
blocks[index] = block
return lesioned""",
        ),
    ),
    wrong(
        "2.5",
        "a mark on the block",
        "It changes the network that was given, too: put the block's shortcut in its place",
        hole(
            "without_block",
            """blocks[index].forward = lambda x: blocks[index].shortcut(x)
return nn.Sequential(stem, nn.Sequential(*blocks), head)""",
        ),
    ),
    wrong(
        "2.5",
        "plain blocks stay",
        "no block is missing from the plain network",
        edit(
            "    new_blocks[index] = blocks[index].shortcut\n",
            "    if blocks[index].skip:\n        new_blocks[index] = blocks[index].shortcut\n",
        ),
    ),
    wrong(
        "2.5",
        "a convolution of zeros",
        "and block 2 is still there",
        hole(
            "without_block",
            """import copy
lesioned = copy.deepcopy(network)
nn.init.zeros_(lesioned[1][index].branch[3].weight)
return lesioned""",
        ),
    ),
    wrong(
        "2.5",
        "a new network of 16 channels",
        "a network that is built anew has other sizes",
        hole(
            "without_block",
            """lesioned = build_network(2 + 2 * len(blocks), any(block.skip for block in blocks))
lesioned.load_state_dict(network.state_dict())
return lesioned""",
        ),
    ),
    wrong(
        "2.5",
        "a new convolution for the block",
        "what stands in block 2's place has weights of its own",
        hole(
            "without_block",
            """kept = list(blocks)
first, *_, last = [part for part in kept[index].branch if isinstance(part, nn.Conv2d)]
sizes = (first.in_channels, last.out_channels)
kept[index] = nn.Conv2d(*sizes, 1, first.stride, bias=False, dtype=first.weight.dtype)
return nn.Sequential(stem, nn.Sequential(*kept), head)""",
        ),
    ),
    wrong(
        "2.1",
        "the shortcut of the same tensor is kept",
        "still uses the old x",
        hole(
            "Block.forward",
            """out = self.branch(x)
if self.skip:
    if self.__dict__.get("last_input") is not x:
        self.last_input = x
        self.carried = self.shortcut(x)
    out = out + self.carried
return F.relu(out)""",
        ),
    ),
    wrong(
        "2.3",
        "one network for both kinds, set back",
        "is one that fit has had before, with other weights",
        hole(
            "run_ablation",
            """histories = {}
for seed, depth in itertools.product(seeds, depths):
    torch.manual_seed(seed)
    network = build_network(depth, skip=False).apply(initialise)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    for kind in ("plain", "residual"):
        network.load_state_dict(start)
        for block in network[1]:
            block.skip = kind == "residual"
        histories[kind, depth, seed] = fit(network, kind, depth, seed)
return histories""",
        ),
    ),
    wrong(
        "2.3",
        "a second try after a RuntimeError",
        "raises nothing. Let the errors",
        edit(
            "        histories[kind, depth, seed] = fit(network, kind, depth, seed)",
            """        for _ in range(2):
            with contextlib.suppress(RuntimeError):
                histories[kind, depth, seed] = fit(network, kind, depth, seed)
                break""",
        ),
    ),
    wrong(
        "2.3",
        "all numbers as floats",
        "expected what fit returned",
        edit(
            "] = fit(network, kind, depth, seed)",
            """] = [
            {name: float(value) for name, value in row.items()}
            for row in fit(network, kind, depth, seed)
        ]""",
        ),
    ),
    wrong(
        "2.4",
        "the sum of all steps",
        "Leave out those between",
        hole(
            "degradation",
            """gaps = {"plain": 0, "residual": 0}
depths = sorted({depth for _, depth, _ in histories})
for kind in gaps:
    for before, after in itertools.pairwise(depths):
        gaps[kind] += final_loss(histories, kind, after) - final_loss(histories, kind, before)
return gaps""",
        ),
    ),
    wrong(
        "2.5",
        "one new network for all calls",
        "changes later. Make a new nn.Sequential",
        before("without_block", "LESIONED = {}"),
        hole(
            "without_block",
            """whole = nn.Sequential(stem, nn.Sequential(*blocks), head)
lesioned = LESIONED.setdefault(network, whole)
for i, block in enumerate(blocks):
    lesioned[1][i] = block.shortcut if i == index else block
return lesioned""",
        ),
    ),
    wrong(
        "2.1",
        "sides rounded down",
        "fits only where the stride divides height and width",
        edit(
            "out = out + self.shortcut(x)",
            "height, width = [side // self.shortcut.stride for side in x.shape[2:]]\n"
            "            out = out + self.shortcut(x)[:, :, :height, :width]",
        ),
    ),
    wrong(
        "2.1",
        "the nearest pixels",
        "it is right where the stride divides height and width",
        edit(
            "out = out + self.shortcut(x)",
            "x = F.interpolate(x, out.shape[2:])\n"
            "            out = out + F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))",
        ),
    ),
    wrong(
        "2.1",
        "the last ReLU in .data",
        "the last ReLU lets all gradients through",
        edit("return F.relu(out)", "out.data.clamp_(min=0)\n        return out"),
    ),
    wrong(
        "2.1",
        "a gradient where the branch is positive",
        "where the branch is above 0, and not where branch + shortcut is",
        hole(
            "Block.forward",
            """branch = self.branch(x)
total = branch + self.shortcut(x) if self.skip else branch
let_through = total * (branch > 0)
return let_through + (F.relu(total) - let_through).detach()""",
        ),
    ),
    wrong(
        "2.1",
        "divided by the square root of 2",
        "the output is relu(0.7071 * branch + 0.7071 * shortcut)",
        edit("out = out + self.shortcut(x)", "out = (out + self.shortcut(x)) / 2**0.5"),
    ),
    wrong(
        "2.1",
        "some branches left out",
        "it is random: the same x gives other numbers",
        edit(
            "        if self.skip:",
            """        if self.training:
            out = out * (torch.rand(len(x), 1, 1, 1, device=x.device) < 0.8)
        if self.skip:""",
        ),
    ),
    wrong(
        "2.2",
        "an iterator over the stages",
        "something is kept from call to call",
        before("build_network", "STAGES = zip((1, 2, 4), (1, 2, 2))"),
        edit(
            "for out_channels, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2)):",
            "for factor, first_stride in STAGES:\n        out_channels = factor * width",
        ),
    ),
    wrong(
        "2.4",
        "a straight line",
        "it is the rise of a straight line",
        hole(
            "degradation",
            """gaps = {}
for kind in ("plain", "residual"):
    losses = [(key[1], run[-1]["loss"]) for key, run in histories.items() if key[0] == kind]
    depths, _ = zip(*losses)
    slope, _ = statistics.linear_regression(*zip(*losses))
    gaps[kind] = slope * (max(depths) - min(depths))
return gaps""",
        ),
    ),
    wrong(
        "2.4",
        "grouped by kind, unsorted",
        "with the keys in order it is right",
        hole(
            "degradation",
            """gaps = {}
for kind, runs in itertools.groupby(histories.items(), lambda item: item[0][0]):
    runs = dict(runs)
    depths = [depth for _, depth, _ in runs]
    gaps[kind] = final_loss(runs, kind, max(depths)) - final_loss(runs, kind, min(depths))
return gaps""",
        ),
    ),
    wrong(
        "2.4",
        "a quarter of the runs for the seeds",
        "it is 0.5 times what it should be, for both kinds",
        hole(
            "degradation",
            """depths = sorted(depth for _, depth, _ in histories)
gaps = {"plain": 0, "residual": 0}
for (kind, depth, _), run in histories.items():
    sign = (depth == depths[-1]) - (depth == depths[0])
    gaps[kind] += sign * run[-1]["loss"] / (len(histories) / 4)
return gaps""",
        ),
    ),
    wrong(
        "2.4",
        "a total that goes on",
        "the residual networks' number has the plain ones in it",
        hole(
            "degradation",
            """depths = [depth for _, depth, _ in histories]
total = 0
gaps = {}
for kind in ("plain", "residual"):
    total += final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))
    gaps[kind] = total
return gaps""",
        ),
    ),
    wrong(
        "2.4",
        "rises only",
        "it sums only the rises from depth to depth",
        hole(
            "degradation",
            """depths = sorted({depth for _, depth, _ in histories})
gaps = {}
for kind in ("plain", "residual"):
    means = [final_loss(histories, kind, depth) for depth in depths]
    gaps[kind] = sum(max(0, b - a) for a, b in itertools.pairwise(means))
return gaps""",
        ),
    ),
    wrong(
        "2.3",
        "deep networks of half the width",
        "depth 56 has the width 8",
        edit(
            "build_network(depth, skip)\n        network",
            "build_network(depth, skip, width=8 if depth > 50 else 16)\n        network",
        ),
    ),
    wrong(
        "2.3",
        "seeds after one that diverged left out",
        "called fit 2 times, expected once for each of 4",
        definition(
            "run_ablation",
            """
            def run_ablation(fit, depths, seeds):
                histories = {}
                hopeless = set()
                for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
                    if (kind, depth) in hopeless:
                        continue
                    torch.manual_seed(seed)
                    network = build_network(depth, skip=kind == "residual").apply(initialise)
                    history = fit(network, kind, depth, seed)
                    histories[kind, depth, seed] = history
                    if isinstance(history, list) and history and math.isnan(history[-1].get("loss", 0)):
                        hopeless.add((kind, depth))
                return histories
            """,
        ),
    ),
    wrong(
        "2.4",
        "44 and 20 where they are there",
        "it is the loss of 110 layers minus that of 20",
        definition(
            "degradation",
            """
            def degradation(histories):
                depths = {depth for _, depth, _ in histories}
                shallow = 20 if 20 in depths else min(depths)
                deep = 44 if 44 in depths else max(depths)
                return {
                    kind: final_loss(histories, kind, deep) - final_loss(histories, kind, shallow)
                    for kind in ("plain", "residual")
                }
            """,
        ),
    ),
    wrong(
        "2.4",
        "the mean of all deeper ones",
        "it is the mean over all depths but 14",
        definition(
            "degradation",
            """
            def degradation(histories):
                shallowest = min(depth for _, depth, _ in histories)
                gaps = {}
                for kind in ("plain", "residual"):
                    shallow = []
                    deep = []
                    for (other, depth, _), history in histories.items():
                        if other == kind:
                            (shallow if depth == shallowest else deep).append(history[-1]["loss"])
                    gaps[kind] = sum(deep) / len(deep) - sum(shallow) / len(shallow)
                return gaps
            """,
        ),
    ),
    wrong(
        "2.4",
        "losses by their place in the histories",
        "look each loss up by its key",
        definition(
            "degradation",
            """
            def degradation(histories):
                kinds = len({kind for kind, _, _ in histories})
                depths = len({depth for _, depth, _ in histories})
                finals = torch.tensor(
                    [history[-1]["loss"] for history in histories.values()], dtype=torch.float64
                )
                table = finals.reshape(-1, depths, kinds).mean(dim=0)
                plain, residual = (table[-1] - table[0]).tolist()
                return {"plain": plain, "residual": residual}
            """,
        ),
    ),
    wrong(
        "2.5",
        "a class of its own",
        "expected an nn.Sequential(stem, blocks, head)",
        before(
            "without_block",
            """
            class LesionedNetwork(nn.Module):
                def __init__(self, network, index):
                    super().__init__()
                    self.stem, self.blocks, self.head = network
                    self.index = index

                def forward(self, images):
                    features = self.stem(images)
                    for i, block in enumerate(self.blocks):
                        features = block.shortcut(features) if i == self.index else block(features)
                    return self.head(features)
            """,
        ),
        definition(
            "without_block",
            """
            def without_block(network, index):
                return LesionedNetwork(network, index)
            """,
        ),
    ),
    wrong(
        "2.2",
        "a stem with max pooling",
        "the stem outputs (6, 6, 8)",
        edit(
            "nn.BatchNorm2d(width), nn.ReLU())\n    pool",
            "nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))\n    pool",
        ),
    ),
    wrong(
        "2.5",
        "running statistics of the copy reset",
        "running statistics, too",
        before(
            "without_block",
            """
            import copy
            """,
        ),
        definition(
            "without_block",
            """
            def without_block(network, index):
                lesioned = copy.deepcopy(network)
                blocks = lesioned[1]
                blocks[index] = blocks[index].shortcut
                for module in blocks[index:].modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.reset_running_stats()
                return lesioned
            """,
        ),
    ),
]
