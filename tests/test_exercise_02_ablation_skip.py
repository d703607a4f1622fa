"""Exercise 2: closed forms for the block and the lesion, the paper's parameter counts, numbers by hand for the rest."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from diagnosis import block_parts
from messages import Wrong, calling, check_tensor, is_close, likeliest, number, plain, shape
from torch import equal, nn
from what_ran import check_registered, record

MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
SKIPS = pytest.mark.parametrize("skip", [True, False], ids=["residual", "plain"])
CASES = [  # in_channels, out_channels, stride, height, width
    pytest.param((4, 4, 1, 8, 8), id="same-shape"),
    pytest.param((4, 8, 2, 8, 8), id="stride-2"),
    pytest.param((4, 8, 2, 7, 9), id="stride-2-odd-size"),
]


def option_a(x, new_channels, stride):
    """The paper's option A shortcut."""
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, new_channels))


def randomise(model, seed=0):
    """Give every parameter and buffer random values, so that no layer is by chance the identity or zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.6, 1.4),
                    (module.bias, -0.4, 0.4),
                    (module.running_mean, -0.3, 0.3),
                    (module.running_var, 0.6, 1.4),
                ):
                    tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
            elif isinstance(module, nn.Conv2d | nn.Linear):
                spread = (2 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(spread * torch.randn(module.weight.shape, generator=generator))
    return model


def make_block(lesson, case, skip, training):
    """A block with random weights, an input of it, and how to call it."""
    in_channels, out_channels, stride, height, width = case
    call = f"Block({in_channels}, {out_channels}, stride={stride}, skip={skip})"
    torch.manual_seed(0)
    with calling(call):
        block = lesson.Block(in_channels, out_channels, stride, skip)
    randomise(block).train(training)
    x = torch.randn(3, in_channels, height, width)
    return block, x, f"{call} on an input {shape(x)}"


@pytest.mark.task("2.1")
@MODES
@SKIPS
@pytest.mark.parametrize("case", CASES)
def test_block_adds_the_shortcut_or_not(lesson, case, skip, training):
    block, x, what = make_block(lesson, case, skip, training)
    with torch.no_grad():
        try:
            output, ops = record(block, x.clone(), what)
        except Wrong as wrong:
            hint = "\nThe likeliest mistake: x itself is added; add self.shortcut(x), which has the branch's shape."
            raise Wrong(f"{wrong}{hint if 'size of tensor' in str(wrong) else ''}") from None
        norms = [op for op in ops if op.kind == "batch_norm"]
        if len(norms) != 2:
            raise Wrong(
                f"{what} ran {len(norms)} batch norms, expected the 2 of self.branch: call self.branch(x) once."
            )
        f, s = block_parts(x, ops, training).n2, option_a(x, case[1] - case[0], case[2])
        expected = F.relu(f + s) if skip else F.relu(f)
        check_tensor(output, expected, what)
        if is_close(output, expected):
            return
        mistakes = {
            "the shortcut is never added": F.relu(f),
            "the shortcut is added although skip is false": F.relu(f + s),
            "the last ReLU is missing": f + s if skip else f,
            "the last ReLU comes before the addition; it belongs after it": F.relu(f) + s,
            "a ReLU is applied to the branch before the addition": F.relu(F.relu(f) + s),
            "the shortcut is subtracted": F.relu(f - s),
            "the branch is subtracted": F.relu(s - f),
            "the shortcut is added twice": F.relu(f + 2 * s),
            "only the shortcut comes out": F.relu(s),
            "without skip the block gives back its input; its branch should still work": s,
        }
    if is_inverted(lesson, case, training):
        mistakes = {
            "the switch is the wrong way round: skip=True should add the shortcut, skip=False should not": output
        }
    raise Wrong(f"{what} gives wrong numbers." + likeliest(mistakes, functools.partial(is_close, output)))


def is_inverted(lesson, case, training):
    """Whether the block does with skip what it should do without, and the other way round."""
    with torch.no_grad():
        for skip in (True, False):
            block, x, what = make_block(lesson, case, skip, training)
            output, ops = record(block, x.clone(), what)
            f, s = block_parts(x, ops, training).n2, option_a(x, case[1] - case[0], case[2])
            if not is_close(output, F.relu(f) if skip else F.relu(f + s)):
                return False
    return True


@pytest.mark.task("2.1")
@SKIPS
def test_block_with_a_zero_branch(lesson, skip):
    block, x, what = make_block(lesson, (4, 8, 2, 7, 9), skip, training=False)
    norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    nn.init.zeros_(norm.weight), nn.init.zeros_(norm.bias)
    with calling(what), torch.no_grad():
        output = block(x.clone())
    expected = F.relu(option_a(x, 4, 2)) if skip else torch.zeros(3, 8, 4, 5)
    check_tensor(output, expected, what)
    if not is_close(output, expected):
        raise Wrong(f"{what}, its branch set to zero, should give {'relu(shortcut(x))' if skip else 'zeros'}.")


@pytest.mark.task("2.1")
@SKIPS
def test_block_passes_gradients_through_branch_and_shortcut(lesson, skip):
    block, x, what = make_block(lesson, (4, 4, 1, 8, 8), skip, training=False)
    x.requires_grad_()
    output, ops = record(block, x, what)
    f = block_parts(x, ops, training=False).n2
    if not output.requires_grad:
        raise Wrong(f"{what}: no gradient comes back through it. Is something detached or under no_grad?")
    (got,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
    (expected,) = torch.autograd.grad(F.relu(f + x if skip else f).sum(), x)
    if not is_close(got, expected, 1e-4):
        raise Wrong(f"{what} gives a wrong gradient for its input. Is the shortcut or the branch detached?")


TABLE_6 = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


@pytest.mark.task("2.2")
@SKIPS
@pytest.mark.parametrize("depth", sorted(TABLE_6))
def test_network_has_the_papers_parameters(lesson, depth, skip):
    call = f"build_network({depth}, skip={skip})"
    with calling(call):
        network = lesson.build_network(depth, skip=skip)
        got = sum(p.numel() for p in network.parameters())
    if got != TABLE_6[depth]:
        try:
            ops = record(network, torch.randn(2, 3, 8, 8), call)[1]
        except Wrong:
            ops = []
        if ops:
            check_registered(network, ops, call)
        n = (depth - 2) // 6
        blocks = {
            f"there are {m} blocks in each of the three stages, expected (depth - 2) / 6 = {n}": parameters_of(m)
            for m in range(1, 4 * n)
        }
        widths = {
            f"the stages have the widths {', '.join(map(str, w))}, expected 16, 32, 64": parameters_of(n, w)
            for w in ((16, 16, 16), (16, 16, 32), (16, 32, 32), (16, 32, 48), (32, 64, 128), (64, 64, 64))
        }
        mistakes = widths | {"the linear layer of the head is missing": TABLE_6[depth] - 650}
        raise Wrong(
            f"{call} has {got:,} parameters, expected {TABLE_6[depth]:,} (table 6 of the paper), plain or residual."
            + (
                likeliest(blocks | mistakes, lambda known: got == known)
                or f" Are there {n} blocks in each of three stages of width, 2 width, 4 width?"
            )
        )


def parameters_of(blocks, widths=(16, 32, 64)):
    """How many parameters a network with so many blocks in each stage has."""
    total, before = 3 * 9 * widths[0] + 2 * widths[0] + 650, widths[0]
    for width in widths:
        total += 9 * before * width + (2 * blocks - 1) * 9 * width**2 + 4 * blocks * width
        before = width
    return total


@pytest.mark.task("2.2")
@SKIPS
def test_network_runs_its_layers_in_order(lesson, skip):
    call = f"build_network(14, skip={skip}, width=6)"
    with calling(call):
        network = lesson.build_network(14, skip=skip, width=6)
    x = torch.randn(2, 3, 12, 16)
    what = f"{call} on pictures {shape(x)}"
    output, ops = record(network, x, what)
    check_tensor(output, torch.empty(2, 10), what)
    check_registered(network, ops, what)
    got = [tuple(op.output.shape[1:]) for op in ops if op.kind == "conv2d"]
    expected = 5 * [(6, 12, 16)] + 4 * [(12, 6, 8)] + 4 * [(24, 3, 4)]
    for i, (ours, theirs) in enumerate(zip(expected, got)):
        if ours != theirs:
            stage, block = divmod(max(i - 1, 0) // 2, 2)
            place = "the stem" if i == 0 else f"stage {stage + 1}, block {block + 1}"
            raise Wrong(f"{what}: {place} puts out {theirs} (channels, height, width), expected {ours}.")
    if len(got) != len(expected):
        raise Wrong(f"{what} ran {len(got)} convolutions, expected {len(expected)}: the stem and 6 blocks of 2.")


@pytest.mark.task("2.2")
def test_network_is_residual_only_with_skip(lesson):
    with calling("build_network(8, skip)"):
        networks = {skip: lesson.build_network(8, skip=skip) for skip in (True, False)}
    x = torch.randn(2, 3, 8, 8)
    for skip, network in networks.items():
        for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)][1:]:
            nn.init.zeros_(norm.weight)  # every branch is zero: only shortcuts pass anything on
        with calling(f"build_network(8, skip={skip})"), torch.no_grad():
            logits = network.eval()(x)
        depends = not is_close(logits[:1], logits[1:], 1e-6)
        if depends != skip:
            has = "has" if depends else "has no"
            raise Wrong(f"build_network(8, skip={skip}) {has} working shortcuts. Hand skip on to Block.")


@pytest.mark.task("2.2")
def test_network_comes_apart_into_stem_blocks_and_head(lesson):
    with calling("build_network(14, skip=True)"):
        network = lesson.build_network(14, skip=True)
        parts = len(network)
    if parts != 3:
        raise Wrong(
            f"build_network(14, skip=True) has {parts} parts, expected 3: nn.Sequential(stem, blocks, head), where "
            "blocks is an nn.Sequential of its own."
        )
    with calling("stem, blocks, head = build_network(14, skip=True)"):
        count = len(network[1])
    if count != 6:
        raise Wrong(f"build_network(14, skip=True): its second part has {count} blocks, expected nn.Sequential of 6.")


@pytest.mark.task("2.2")
def test_network_takes_num_classes(lesson):
    with calling("build_network(8, True, num_classes=7)"), torch.no_grad():
        logits = lesson.build_network(8, True, num_classes=7)(torch.randn(2, 3, 8, 8))
    check_tensor(logits, torch.empty(2, 7), "build_network(8, True, num_classes=7) on two pictures")


class Fit:
    """A stand-in for training: notes what it is given, and returns a history that tells the run apart."""

    def __init__(self):
        self.runs = {}

    def __call__(self, network, kind, depth, seed):
        weights = [p.detach().clone() for p in network.parameters()]
        self.runs[kind, depth, seed] = weights, getattr(network[1][0], "skip", None)
        torch.rand(len(self.runs))  # training uses up random numbers
        return [{"epoch": 1, "loss": float(depth), "label": f"{kind} {depth} {seed}"}]


def ablate(lesson, depths=(8, 14), seeds=(3, 5)):
    fit = Fit()
    call = f"run_ablation(fit, depths={depths}, seeds={seeds})"
    with calling(call):
        histories = lesson.run_ablation(fit, depths, seeds)
    return plain(histories, call, dict), fit.runs, call


@pytest.mark.task("2.3")
def test_ablation_trains_every_combination(lesson):
    histories, runs, call = ablate(lesson)
    expected = {(kind, depth, seed) for kind in ("plain", "residual") for depth in (8, 14) for seed in (3, 5)}
    if {(seed, depth) for _, seed, depth in histories} == {(3, 8), (3, 14), (5, 8), (5, 14)}:
        raise Wrong(f"{call}: the keys are (kind, seed, depth), expected (kind, depth, seed).")
    missing = sorted(str(key) for key in expected - set(histories))
    if missing and set(histories) < expected:
        raise Wrong(f"{call} leaves out combinations: {', '.join(missing)}.")
    if set(histories) != expected:
        raise Wrong(
            f"{call} returned the keys {sorted(map(str, histories))}, expected (kind, depth, seed) for all eight."
        )
    for key in expected:
        if key not in runs:
            raise Wrong(f"{call} never called fit(network, {key[0]!r}, {key[1]}, {key[2]}).")
        if histories[key][0]["label"] != "{} {} {}".format(*key):
            raise Wrong(f"{call}: the history at {key} is that of another network.")


@pytest.mark.task("2.3")
def test_ablation_gives_each_kind_its_network(lesson):
    _, runs, call = ablate(lesson)
    for (kind, depth, _), (weights, skip) in runs.items():
        if skip is not (kind == "residual"):
            raise Wrong(f"{call}: the {kind} network was built with skip={skip}.")
        blocks = (sum(w.ndim == 4 for w in weights) - 1) // 2
        if blocks != (depth - 2) // 2:
            raise Wrong(f"{call}: the network of depth {depth} has {blocks} blocks, expected {(depth - 2) // 2}.")


@pytest.mark.task("2.3")
def test_ablation_starts_plain_and_residual_from_the_same_weights(lesson):
    _, runs, call = ablate(lesson)
    for depth in (8, 14):
        for seed in (3, 5):
            pairs = list(zip(runs["plain", depth, seed][0], runs["residual", depth, seed][0]))
            if not all(equal(a, b) for a, b in pairs):
                raise Wrong(
                    f"{call}: plain and residual of depth {depth}, seed {seed} start from different weights. "
                    "Call torch.manual_seed(seed) right before each network is built."
                )
        if equal(runs["plain", depth, 3][0][0], runs["plain", depth, 5][0][0]):
            raise Wrong(f"{call}: seeds 3 and 5 give the same weights. Seed torch with the seed of the run.")


@pytest.mark.task("2.3")
def test_ablation_repeats_itself_and_initialises(lesson):
    first, second = ablate(lesson)[1], ablate(lesson)[1]
    for key in first:
        if not all(equal(a, b) for a, b in zip(first[key][0], second[key][0])):
            raise Wrong(
                f"run_ablation: called twice, it starts {key} from different weights. Seed torch for each network."
            )
    last = [w for w in first["plain", 14, 3][0] if w.ndim == 4][-1]
    expected = (2 / (9 * last.shape[0])) ** 0.5  # He et al.: fan-out
    if not 0.8 * expected < last.std() < 1.2 * expected:
        raise Wrong(
            f"run_ablation: a convolution's weights have the deviation {last.std():.3f}, expected {expected:.3f}. "
            "Apply initialise to each network: network.apply(initialise)."
        )


def made_up(final):
    """Histories of two epochs that end with these losses: {(kind, depth, seed): loss}."""
    return {key: [{"epoch": 1, "loss": 9.0}, {"epoch": 2, "loss": loss}] for key, loss in final.items()}


DEGRADATIONS = [
    (
        {
            (k, d, s): d / 10 + s + (k == "plain") * d * s
            for k in ("plain", "residual")
            for d in (32, 8, 110, 20)
            for s in (0, 1, 4)
        },
        (10.2 + 102 * 5 / 3, 10.2),
    ),
    ({("plain", 20, 0): 0.5, ("plain", 56, 0): 2.0, ("residual", 20, 0): 0.4, ("residual", 56, 0): 0.1}, (1.5, -0.3)),
    ({("residual", 56, 0): 1.0, ("plain", 56, 0): 1.25, ("residual", 20, 0): 0.5, ("plain", 20, 0): 1.0}, (0.25, 0.5)),
]


def known_degradations(final, kind):
    """What the known wrong ways give for a kind of network."""
    losses = {}
    for (own, depth, _), loss in final.items():
        if own == kind:
            losses.setdefault(depth, []).append(loss)
    means = {depth: sum(values) / len(values) for depth, values in losses.items()}
    order, deep, shallow = list(means), means[max(means)], means[min(means)]
    return {
        "it is shallow minus deep; take deep minus shallow": shallow - deep,
        "it looks at the first epoch, not at the last": 0,
        "it is deep divided by shallow; take the difference": deep / shallow,
        "the depths are taken in the order in which they come; take the largest and the smallest": means[order[-1]]
        - means[order[0]],
        "it sums over the seeds, where it should average": sum(losses[max(means)]) - sum(losses[min(means)]),
        "it looks at the first seed only": losses[max(means)][0] - losses[min(means)][0],
        "it looks at the last seed only": losses[max(means)][-1] - losses[min(means)][-1],
        "it is the loss of the deepest networks alone; take that of the shallowest away": deep,
        "the best seed counts, where all should be averaged": min(losses[max(means)]) - min(losses[min(means)]),
    }


@pytest.mark.task("2.4")
@pytest.mark.parametrize("final, expected", DEGRADATIONS, ids=["four depths, three seeds", "one seed", "another order"])
def test_degradation_by_hand(lesson, final, expected):
    what = "degradation(histories)"
    depths = sorted({depth for _, depth, _ in final})
    try:
        with calling(what):
            got = lesson.degradation(made_up(final))
    except Wrong as wrong:
        fixed = "\nThe likeliest mistake: it asks for a depth that is not there; these have the depths "
        crashed = "ZeroDivisionError" in str(wrong) or "KeyError" in str(wrong)
        raise Wrong(f"{wrong}{f'{fixed}{depths}.' if crashed else ''}") from None
    if set(plain(got, what, dict)) != {"plain", "residual"}:
        raise Wrong(f'{what} returned the keys {sorted(map(str, got))}, expected "plain" and "residual".')
    for kind, expect in zip(("plain", "residual"), expected):
        value = number(got[kind], f"{what}[{kind!r}]")
        if abs(value - expect) > 1e-6 * max(1, abs(expect)):
            mistakes = known_degradations(final, kind)
            raise Wrong(
                f"{what}[{kind!r}] is {value:.3f}, expected {expect:.3f} for the last losses "
                f"{ {key: loss for key, loss in final.items() if key[0] == kind} }."
                + likeliest(mistakes, lambda known, value=value: abs(value - known) < 1e-6)
            )


@pytest.mark.task("2.5")
@SKIPS
@pytest.mark.parametrize("index", [2, 1, 0, 5])
def test_lesion_leaves_only_the_shortcut(lesson, skip, index):
    call = f"without_block(network, {index})"
    network = make_network(lesson, skip)
    original = copy.deepcopy(network)
    x = torch.randn(2, 3, 16, 16)
    with calling(call):
        lesioned = lesson.without_block(network, index)
    if not isinstance(lesioned, nn.Module):
        raise Wrong(f"{call} returned {type(lesioned).__name__}, expected a network.")
    try:
        with calling(f"{call}(pictures)"), torch.no_grad():
            got = lesioned.eval()(x)
    except Wrong as wrong:
        hint = ""
        if index == 2:
            hint = (
                "\nThe likeliest mistake: nothing is in the block's place, or nn.Identity(). Block 2 halves the "
                "size and doubles the channels; its shortcut does that, too, so put block.shortcut there."
            )
        raise Wrong(f"{wrong}{hint}") from None
    with torch.no_grad():
        before, whole, expected = original(x), network.eval()(x), lesioned_by_hand(original, x, index)
        check_tensor(got, expected, f"{call}(pictures)")
        if not is_close(whole, before):
            raise Wrong(f"{call} changed the network itself. Build a new one from its parts.")
        if not is_close(got, expected):
            others = {
                f"block {i} is missing; blocks count from 0": lambda i=i: lesioned_by_hand(original, x, i)
                for i in range(6)
                if i != index
            }
            mistakes = {"no block is missing": whole, **others}
            raise Wrong(f"{call} gives wrong numbers." + likeliest(mistakes, functools.partial(is_close, got)))


def make_network(lesson, skip):
    """A network of six blocks as task 2.2 describes it, with random weights, without build_network."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    shapes = [(4, 4, 1), (4, 4, 1), (4, 8, 2), (8, 8, 1), (8, 16, 2), (16, 16, 1)]
    blocks = nn.Sequential(*(lesson.Block(*shape, skip) for shape in shapes))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return randomise(nn.Sequential(stem, blocks, head)).eval()


def lesioned_by_hand(network, x, index):
    """What the network gives when a block is replaced by its shortcut."""
    stem, blocks, head = network
    h = stem(x)
    for i, block in enumerate(blocks):
        out = block(h)
        h = option_a(h, out.shape[1] - h.shape[1], h.shape[2] // out.shape[2]) if i == index else out
    return head(h)


@pytest.mark.task("2.5")
def test_lesion_drops_the_blocks_parameters_and_no_others(lesson):
    network = make_network(lesson, skip=True)
    with calling("without_block(network, 2)"):
        lesioned = lesson.without_block(network, 2)
        got, whole, gone = [sum(p.numel() for p in part.parameters()) for part in (lesioned, network, network[1][2])]
    if got != whole - gone:
        raise Wrong(
            f"without_block(network, 2) has {got:,} parameters, expected {whole - gone:,}: "
            f"the network's {whole:,} without block 2's {gone:,}."
        )


@pytest.mark.task("2.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    folder = dry_run.finish()
    for name in ("exercise_02.json", "exercise_02.png"):
        if not (folder / name).is_file():
            raise Wrong(f"python {script.name} --dry-run wrote no {name}")
