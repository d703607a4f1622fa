"""Answers to exercise 2, wrong and right."""

from changes import AGREEABLE, definition, edit, hole, right, wrong

VARIANTS = [
    wrong(
        "2.1",
        "noskip",
        "the shortcut is never added",
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
    wrong("2.1", "inverted", "the switch is the wrong way round", edit("if self.skip:", "if not self.skip:")),
    wrong("2.1", "x not shortcut", "x itself is added", edit("out + self.shortcut(x)", "out + x")),
    wrong(
        "2.1",
        "detach",
        "gives a wrong gradient for its input. Is the shortcut or the branch",
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
        edit("stride if i == 0 else 1, skip))", "stride if i == 0 else 1))"),
    ),
    wrong("2.2", "stride all", "on pictures", edit("stride if i == 0 else 1, skip", "stride, skip")),
    wrong(
        "2.2",
        "n wrong2",
        "blocks in each of the three stages, expected (depth - 2) / 6",
        edit("range((depth - 2) // 6)", "range((depth - 2) // 3)"),
    ),
    wrong(
        "2.2",
        "widths",
        "the stages have the widths",
        edit("(2 * width, 2), (4 * width, 2)):", "(2 * width, 2), (2 * width, 2)):"),
    ),
    wrong(
        "2.2", "no stride", "on pictures", edit("(2 * width, 2), (4 * width, 2)):", "(2 * width, 1), (4 * width, 2)):")
    ),
    wrong("2.2", "stem stride", "on pictures", edit("((width, 1),", "((width, 2),")),
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
            """            channels = out_channels
""",
            """            channels = out_channels
        blocks[-1] = blocks[-2]
""",
        ),
    ),
    wrong(
        "2.3",
        "seed once b",
        "start from different weights. Call torch.manual_seed",
        edit(
            """        torch.manual_seed(seed)
        network = build""",
            "        network = build",
        ),
    ),
    wrong(
        "2.3",
        "noinit",
        "Apply initialise to each network: network.apply",
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
        edit('skip=kind == "residual")', 'skip=kind == "plain")'),
    ),
    wrong(
        "2.3",
        "same depth",
        "the network of depth",
        edit("build_network(depth, skip=kind", "build_network(depths[0], skip=kind"),
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
        edit(
            """torch.manual_seed(seed)
        network""",
            """torch.manual_seed(0)
        network""",
        ),
    ),
    wrong(
        "2.3",
        "first seed",
        "leaves out combinations",
        edit(
            "for seed, depth, kind in itertools.product(seeds,", "for seed, depth, kind in itertools.product(seeds[:1],"
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
        "2.5", "all", "no block is missing", edit("kept = [block.shortcut if i == index else block", "kept = [block")
    ),
    wrong("2.5", "offby", "blocks count from 0", edit("if i == index else", "if i == index - 1 else")),
    wrong(
        "2.5",
        "drop",
        "nothing is in the block's place, or nn.Identity()",
        edit(
            "kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]",
            "kept = [block for i, block in enumerate(blocks) if i != index]",
        ),
    ),
    wrong(
        "2.5",
        "identity",
        "nothing is in the block's place, or nn.Identity()",
        edit("block.shortcut if i == index", "nn.Identity() if i == index"),
    ),
    wrong(
        "2.5",
        "inplace",
        "changed the network itself: its modules",
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
            "    kept = [block.shortcut",
            """    import copy
    stem = copy.deepcopy(stem)
    kept = [block.shortcut""",
        ),
    ),
    right(
        "2.1",
        "ifexp",
        hole("Block.forward", "return torch.relu(self.branch(x) + self.shortcut(x) if self.skip else self.branch(x))"),
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
    right("2.1", "inplace", edit("            out = out + self.shortcut(x)", "            out += self.shortcut(x)")),
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
        edit(
            """    blocks, channels = [], width
    for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        for i in range((depth - 2) // 6):
            blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
            channels = out_channels
""",
            """    n = (depth - 2) // 6
    blocks = [Block(width, width, 1, skip=skip) for _ in range(n)]
    blocks += [Block(width, width*2, 2, skip=skip)] + [Block(2*width, width*2, skip=skip) for _ in range(n-1)]
    blocks += [Block(2*width, width*4, 2, skip=skip)] + [Block(4*width, width*4, skip=skip) for _ in range(n-1)]
""",
        ),
    ),
    right(
        "2.3",
        "loops",
        edit(
            """    for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
        torch.manual_seed(seed)
        network = build_network(depth, skip=kind == "residual").apply(initialise)
        histories[kind, depth, seed] = fit(network, kind, depth, seed)""",
            """    for kind in ['residual', 'plain']:
        for depth in depths:
            for seed in seeds:
                torch.manual_seed(seed)
                net = build_network(depth, kind == 'residual')
                for m in net.modules():
                    initialise(m)
                histories[(kind, depth, seed)] = fit(net, kind, depth, seed)""",
        ),
    ),
    wrong(
        "2.4",
        "numbers that agree with all",
        "expected a number",
        definition(
            "degradation",
            AGREEABLE + "def degradation(histories):\n    return {'plain': Agreeable(), 'residual': Agreeable()}",
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
            """    kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
""",
            """    kept = list(blocks)
    kept[index] = blocks[index].shortcut
""",
        ),
    ),
    right(
        "2.5",
        "setitem",
        edit(
            """    kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
""",
            """    kept = nn.Sequential(*blocks)
    kept[index] = kept[index].shortcut
""",
        ),
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
]
