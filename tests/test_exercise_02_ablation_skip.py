"""Exercise 2: closed forms for the block and the lesion, the paper's parameter counts, numbers by hand for the rest."""

import contextlib
import copy
import functools
import itertools

import numpy
import pytest
import torch
import torch.nn.functional as F
from diagnosis import block_parts, extra, repeated, wide, wrong_channels
from messages import Wrong, advice, calling, check_tensor, is_close, likeliest, number, plain, said, shape
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
                if module.bias is not None:
                    module.bias.copy_(0.3 * torch.randn(module.bias.shape, generator=generator))
    return model


def make_network(lesson, skip, blocks=2, width=4):
    """A network with so many blocks a stage as task 2.2 describes it, with random weights, without build_network."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    outputs = [width] * blocks + [2 * width] * blocks + [4 * width] * blocks
    inputs = [width, *outputs[:-1]]
    stages = nn.Sequential(*(lesson.Block(i, o, o // i, skip) for i, o in zip(inputs, outputs)))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))
    return randomise(nn.Sequential(stem, stages, head)).eval()


def make_block(lesson, case, skip, training):
    """A block with random weights, an input of it, and how to call it."""
    in_channels, out_channels, stride, height, width = case
    call = f"Block({in_channels}, {out_channels}, stride={stride}, skip={skip})"
    torch.manual_seed(0)
    with calling(call):
        block = lesson.Block(in_channels, out_channels, stride, skip)
    randomise(block).train(training)
    x = 4 * torch.randn(3, in_channels, height, width)  # some numbers are above 6, where ReLU6 ends
    return block, x, f"{call} on an input {shape(x)}"


def run_block(block, x, what, case, training):
    """What a block gives, what its branch and its shortcut should give, and what ran."""
    try:
        output, ops = record(block, x.clone(), what)
    except Wrong as wrong:
        raise wrong.because(wrong_addend(str(wrong), case)) from None
    s = option_a(x, case[1] - case[0], case[2])
    check_tensor(output, s, what)
    norms = sum(op.kind == "batch_norm" for op in ops)
    if norms != 2:
        raise Wrong(f"{what} ran {norms} batch norms, expected the 2 of self.branch: call self.branch(x) once.")
    return output, block_parts(x, ops, training).n2, s, ops


def wrong_addend(error, case):
    """What was added to the branch and does not fit, in words, or None."""
    if "size of tensor" not in error:
        return None
    if f"({case[4]})" in error:
        return "x itself is added; add self.shortcut(x), which has the branch's shape"
    return "what is added has not the branch's shape; self.shortcut(x) has, the shortcut of anything else may not"


@pytest.mark.task("2.1")
@MODES
@SKIPS
@pytest.mark.parametrize("case", CASES)
def test_block_adds_the_shortcut_or_not(lesson, case, skip, training):
    block, x, what = make_block(lesson, case, skip, training)
    with torch.no_grad():
        output, f, s, ops = run_block(block, x, what, case, training)
        if is_close(output, F.relu(f + s) if skip else F.relu(f)):
            return
        mistakes = {
            "the shortcut is never added": F.relu(f),
            "the shortcut is added although skip is false": F.relu(f + s),
            "the last ReLU is missing": f + s if skip else f,
            "the last ReLU comes before the addition; it belongs after it": F.relu(f) + s,
            "a ReLU is applied to the branch before the addition": F.relu(F.relu(f) + s),
            "a ReLU is applied to the shortcut before the addition": F.relu(f + F.relu(s)),
            "the last ReLU is a ReLU6, which ends at 6": F.relu6(f + s if skip else f),
            "the shortcut is subtracted": F.relu(f - s),
            "the branch is subtracted": F.relu(s - f),
            "the shortcut is added twice": F.relu(f + 2 * s),
            "the shortcut is taken of the branch; call self.shortcut(x)": F.relu(2 * f),
            "branch and shortcut are averaged, not added": F.relu((f + s) / 2),
            "branch and shortcut are multiplied, not added": F.relu(f * s),
            "only the shortcut comes out": F.relu(s),
            "without skip the block gives back its input; its branch should still work": s,
        }
    cause = wrong_switch(lesson, case, training)
    named = advice(cause) or likeliest(mistakes, functools.partial(is_close, output)) or advice(extra(ops))
    raise Wrong(f"{what} gives wrong numbers." + named)


def wrong_switch(lesson, case, training):
    """Where the block adds the shortcut and should not, or the other way round, in words; None if that says nothing."""
    same = CASES[0].values[0]
    residual, bare = adds(lesson, case, True, training), adds(lesson, case, False, training)
    if residual is False and bare:
        return "the switch is the wrong way round: skip=True should add the shortcut, skip=False should not"
    if residual is False and adds(lesson, same, True, training):
        return (
            "the shortcut is added only where x has the shape of what the branch puts out; add self.shortcut(x), "
            "which has it always"
        )
    return None


def adds(lesson, case, skip, training):
    """Whether the block with this switch adds the shortcut; None if it does something else."""
    block, x, what = make_block(lesson, case, skip, training)
    with torch.no_grad(), contextlib.suppress(Wrong):
        output, f, s, _ = run_block(block, x, what, case, training)
        return next((added for added in (True, False) if is_close(output, F.relu(f + added * s))), None)
    return None


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
    output, f, s, _ = run_block(block, x.requires_grad_(), what, (4, 4, 1, 8, 8), training=False)
    if not output.requires_grad:
        raise Wrong(f"{what}: no gradient comes back through it. Is something detached or under no_grad?")
    right = F.relu(f + s if skip else f)
    if not is_close(output, right):
        return  # the test of the numbers says more
    (got,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
    (expected,) = torch.autograd.grad(right.sum(), x)
    if not is_close(got, expected, 1e-4):
        raise Wrong(f"{what} gives a wrong gradient for its input. Is the shortcut or the branch detached?")


TABLE_6 = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


def build(lesson, depth, **settings):
    """A network of build_network's, and how it was called."""
    call = f"build_network({depth}, {', '.join(f'{name}={value}' for name, value in settings.items())})"
    with calling(call):
        network = lesson.build_network(depth, **settings)
    if not isinstance(network, nn.Module):
        raise Wrong(
            f"{call} returned {said(network)}, expected nn.Sequential(stem, blocks, head). Does it end with a return?"
        )
    if any(isinstance(part, nn.ModuleList) for part in (network, *network.children())):
        raise Wrong(f"{call}: an nn.ModuleList cannot be called. Put the blocks in nn.Sequential(*blocks).")
    return network, call


@pytest.mark.task("2.2")
@SKIPS
@pytest.mark.parametrize("depth", sorted(TABLE_6))
def test_network_has_the_papers_parameters(lesson, depth, skip):
    network, call = build(lesson, depth, skip=skip)
    got, cause = sum(p.numel() for p in network.parameters()), None
    if got != TABLE_6[depth]:
        try:
            ops = record(network, torch.randn(2, 3, 8, 8), call)[1]
        except Wrong as wrong:
            ops, cause = [], wrong_widths(network, 16) or wrong_channels(wrong)
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
        whole = "return nn.Sequential(stem, nn.Sequential(*blocks), head)"
        parts = {
            f"the linear layer of the head is missing; {whole}": TABLE_6[depth] - 650,
            f"the stem is missing; {whole}": TABLE_6[depth] - 464,
            f"stem and head are missing; {whole}": TABLE_6[depth] - 464 - 650,
        }
        raise Wrong(
            f"{call} has {got:,} parameters, expected {TABLE_6[depth]:,} (table 6 of the paper), plain or residual."
            + (
                likeliest(blocks | widths | parts, lambda known: got == known)
                or advice(cause)
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
    network, call = build(lesson, 14, skip=skip, width=6)
    check_parts(network, 6, call)
    check_widths(network, call)
    x = torch.randn(2, 3, 12, 16)
    what = f"{call} on pictures {shape(x)}"
    output, ops = run_network(network, x, what)
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


def check_widths(network, call):
    """Raise Wrong if the stages of a network with width=6 have other channels than they should."""
    fault = wrong_widths(network, 6)
    if fault:
        raise Wrong(f"{call}: {fault}.")


def wrong_widths(network, width):
    """How many channels the stages of a network have, in words, if that is wrong; or None."""
    convs = [weight for weight in network.parameters() if weight.ndim == 4][1:]
    widths = [channels for channels, _ in itertools.groupby(len(weight) for weight in convs)]
    expected = [width, 2 * width, 4 * width]
    if not widths or widths == expected:
        return None
    got, due = [", ".join(map(str, channels)) for channels in (widths, expected)]
    return f"the stages have {got} channels, expected width, 2 width, 4 width: {due}"


def run_network(network, x, what):
    """What a network gives, and what ran."""
    try:
        return record(network, x, what)
    except Wrong as wrong:
        raise wrong.because(repeated(wide(wrong.ops)) or wrong_channels(wrong)) from None


@pytest.mark.task("2.2")
@MODES
@SKIPS
def test_network_computes_with_every_block_and_nothing_else(lesson, skip, training):
    network, call = build(lesson, 20, skip=skip, width=6)
    check_parts(network, 9, call)
    check_widths(network, call)
    oracle = make_network(lesson, skip, blocks=3, width=6)  # of the learner's blocks: these are another task
    randomise(network).train(training), oracle.train(training)
    x = torch.randn(4, 3, 12, 16)
    what = f"{call} in {'train' if training else 'eval'} mode on pictures {shape(x)}"
    with torch.no_grad():
        output, ops = run_network(network, x, what)
        with calling("Block"):
            expected = oracle(x)
        check_tensor(output, expected, what)
        if not is_close(output, expected, 1e-4):
            cause = wrong_part(network, oracle, make_network(lesson, not skip, blocks=3, width=6), x) or extra(ops)
            raise Wrong(f"{what} gives wrong numbers." + advice(cause))


def wrong_part(network, oracle, opposite, x):
    """The first part of a network that does not what the oracle's does, in words, or None."""

    def parts(model):
        return [model[0], *model[1], model[2]]

    opposite.train(oracle.training)
    places = [f"stage {stage}, block {block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
    for place, own, right, other in zip(
        ["the stem", *places, "the head"], parts(network), parts(oracle), parts(opposite)
    ):
        (got, ops), expected = record(own, x, place), right(x)
        if not is_close(got, expected, 1e-4):
            if place not in places:
                return f"{place} is not the given one: {extra(ops) or 'leave it as it stands'}"
            if got.shape != expected.shape:
                return f"{place} puts out {shape(got)}, expected {shape(expected)}"
            if is_close(got, other(x), 1e-4):
                return f"{place} has {'no' if right.skip else 'a'} working shortcut; hand skip on to every Block"
            return f"{place} is not the Block that belongs there"
        x = expected
    return None


@pytest.mark.task("2.2")
def test_network_does_not_seed_torch(lesson):
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        weights.append([weight for weight in build(lesson, 8, skip=True)[0].parameters() if weight.ndim == 4])
    if weights[0] and equal(weights[0][-1], weights[1][-1]):  # the last, since the stem's is drawn above the hole
        raise Wrong(
            "build_network(8, skip=True) draws the same weights whatever torch was seeded with. Leave "
            "torch.manual_seed to who calls it, as task 2.3 does."
        )


@pytest.mark.task("2.2")
def test_network_comes_apart_into_stem_blocks_and_head(lesson):
    network, call = build(lesson, 14, skip=True)
    check_parts(network, 6, call)


def check_parts(network, blocks, call):
    """Raise Wrong unless a network is nn.Sequential(stem, blocks, head) with so many blocks."""
    with calling(f"stem, blocks, head = {call}"):
        parts = len(network)
    if parts != 3:
        raise Wrong(
            f"{call} has {parts} parts, expected 3: nn.Sequential(stem, blocks, head), where blocks is an "
            "nn.Sequential of its own."
        )
    with calling(f"stem, blocks, head = {call}"):
        count = len(network[1])
    if count != blocks:
        raise Wrong(f"{call}: its second part has {count} blocks, expected nn.Sequential of {blocks}.")


@pytest.mark.task("2.2")
def test_network_takes_num_classes(lesson):
    network, call = build(lesson, 8, skip=True, num_classes=7)
    with calling(call), torch.no_grad():
        logits = network(torch.randn(2, 3, 8, 8))
    check_tensor(logits, torch.empty(2, 7), f"{call} on two pictures")


COMBINATIONS = list(itertools.product(("plain", "residual"), (8, 14), (3, 5)))
TRAINED = 7


class Fit:
    """A stand-in for training: notes what it is given, spoils it, and returns a history that tells the run apart."""

    def __init__(self):
        self.runs = {}

    def __call__(self, network, kind, depth, seed):
        if not isinstance(network, nn.Module) or (kind, depth, seed) not in COMBINATIONS:
            first = "network" if isinstance(network, nn.Module) else repr(network)
            raise Wrong(
                f"run_ablation called fit({first}, {kind!r}, {depth!r}, {seed!r}), expected fit(network, kind, depth, "
                "seed), for instance fit(network, 'plain', 8, 3)."
            )
        weights = [tensor.clone() for tensor in network.state_dict().values()]
        skips = [module.skip for module in network.modules() if hasattr(module, "skip")]
        self.runs[kind, depth, seed] = weights, skips or [None]
        torch.rand(len(self.runs))  # training uses up random numbers
        for tensor in network.state_dict().values():  # and changes the network
            tensor.fill_(TRAINED)
        return [{"epoch": i, "loss": depth / i, "label": f"{kind} {depth} {seed}"} for i in (1, 2)]


def ablate(lesson):
    fit = Fit()
    call = "run_ablation(fit, depths=(8, 14), seeds=(3, 5))"
    with calling(call):
        histories = lesson.run_ablation(fit, (8, 14), (3, 5))
    histories = plain(histories, call, dict)
    missing = [
        f"fit(network, {kind!r}, {depth}, {seed})"
        for kind, depth, seed in COMBINATIONS
        if (kind, depth, seed) not in fit.runs
    ]
    if missing:
        raise Wrong(f"{call} leaves out combinations: it never called {', '.join(missing)}.")
    return histories, fit.runs, call


@pytest.mark.task("2.3")
def test_ablation_trains_every_combination(lesson):
    histories, _, call = ablate(lesson)
    check_keys(histories, call)
    for key in COMBINATIONS:
        history = histories[key]
        if type(history) not in (list, tuple) or [type(epoch) for epoch in history] != [dict, dict]:
            raise Wrong(f"{call}: at {key} is {said(history)}, expected the whole history, as fit returned it.")
        if history[0].get("label") != "{} {} {}".format(*key):
            raise Wrong(f"{call}: the history at {key} is that of another network.")


def check_keys(histories, call):
    """Raise Wrong unless the keys are (kind, depth, seed), for all eight."""
    names = ("kind", "depth", "seed")
    for order in list(itertools.permutations(range(3)))[1:]:
        if set(histories) == {tuple(key[i] for i in order) for key in COMBINATIONS}:
            got = ", ".join(names[i] for i in order)
            raise Wrong(f"{call}: the keys are ({got}), expected (kind, depth, seed).")
    strange = [key for key in histories if key not in COMBINATIONS]
    if strange:
        raise Wrong(
            f"{call}: {strange[0]!r} is one of the keys, expected tuples (kind, depth, seed), for instance "
            "('plain', 8, 3)."
        )
    missing = [str(key) for key in COMBINATIONS if key not in histories]
    if missing:
        raise Wrong(f"{call} leaves out combinations: {', '.join(missing)}.")


@pytest.mark.task("2.3")
def test_ablation_gives_each_kind_its_network(lesson):
    _, runs, call = ablate(lesson)
    for (kind, depth, _), (weights, skips) in runs.items():
        expected = kind == "residual"
        others = [skip for skip in skips if type(skip) not in (bool, int, numpy.bool_) or bool(skip) != expected]
        if len(others) == len(skips):
            raise Wrong(f"{call}: the {kind} network was built with skip={others[0]!r}, expected {expected}.")
        if others:
            raise Wrong(
                f"{call}: {len(others)} of the {len(skips)} blocks in the {kind} network of depth {depth} have "
                f"skip={others[0]!r}, expected {expected} for all."
            )
        blocks = (sum(w.ndim == 4 for w in weights) - 1) // 2
        if blocks != (depth - 2) // 2:
            raise Wrong(f"{call}: the network of depth {depth} has {blocks} blocks, expected {(depth - 2) // 2}.")


@pytest.mark.task("2.3")
def test_ablation_starts_plain_and_residual_from_the_same_weights(lesson):
    _, runs, call = ablate(lesson)
    for key, (weights, _) in runs.items():
        if any(bool((tensor == TRAINED).all()) for tensor in weights):
            raise Wrong(
                f"{call}: the network for {key} starts from weights that fit has trained before. "
                "Build a new network for every call of fit."
            )
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
            (k, d, s): d / 70 + s + (k == "plain") * d * s
            for k in ("plain", "residual")
            for d in (32, 8, 110, 20)
            for s in (0, 1, 4)
        },
        (102 / 70 + 102 * 5 / 3, 102 / 70),  # not round, so that rounding shows
    ),
    ({("plain", 20, 0): 0.5, ("plain", 56, 0): 2.0, ("residual", 20, 0): 0.4, ("residual", 56, 0): 0.1}, (1.5, -0.3)),
    ({("residual", 56, 0): 1.0, ("plain", 56, 0): 1.25, ("residual", 20, 0): 0.5, ("plain", 20, 0): 1.0}, (0.25, 0.5)),
]


def known_degradations(final, kind, value):
    """What the known wrong ways give for a kind of network whose answer is value."""
    losses = {}
    for (own, depth, _), loss in final.items():
        if own == kind:
            losses.setdefault(depth, []).append(loss)
    means = {depth: sum(values) / len(values) for depth, values in losses.items()}
    order, deep, shallow = list(means), means[max(means)], means[min(means)]
    return {
        "it is shallow minus deep; take deep minus shallow": shallow - deep,
        "it is rounded; return the number as it is": lambda: next(
            round(deep - shallow, n) for n in range(5) if abs(value - round(deep - shallow, n)) < 1e-9
        ),
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
    what, histories = "degradation(histories)", made_up(final)
    try:
        with calling(what):
            got = lesson.degradation(histories)
    except Wrong as wrong:
        raise wrong.because(wrong_lookup(wrong.__cause__, final)) from None
    if histories != made_up(final):
        raise Wrong(f"{what} changes the histories, which are still needed for the figure. Only read them.")
    got = plain(got, what, dict)
    if set(got) != {"plain", "residual"}:
        raise Wrong(f'{what} returned the keys {sorted(map(str, got))}, expected "plain" and "residual".')
    values = [number(got[kind], f"{what}[{kind!r}]") for kind in ("plain", "residual")]
    right = [abs(value - expect) <= 1e-6 * max(1, abs(expect)) for value, expect in zip(values, expected)]
    for kind, value, expect, fine in zip(("plain", "residual"), values, expected, right):
        if not fine:
            mistakes = known_degradations(final, kind, value)
            if expect < 0 and any(right):
                mistakes = {"its sign is lost; it should be below 0 where depth helps": -expect} | {
                    words: known for words, known in mistakes.items() if "shallow minus deep" not in words
                }
            raise Wrong(
                f"{what}[{kind!r}] is {value:.3f}, expected {expect:.3f} for the last losses "
                f"{ {key: round(loss, 4) for key, loss in final.items() if key[0] == kind} }."
                + likeliest(mistakes, lambda known, value=value: abs(value - known) < 1e-6)
            )


def wrong_lookup(error, final):
    """Why degradation found nothing in the histories, in words, or None. error: what it raised."""
    kinds, depths, seeds = [sorted(set(parts)) for parts in zip(*final)]
    there = f"these have the depths {depths} and the seeds {seeds}"
    if isinstance(error, ZeroDivisionError):
        return f"final_loss(histories, kind, depth) is asked for a kind or depth that is not there; {there}"
    if not isinstance(error, KeyError) or not error.args:
        return None
    key = error.args[0]
    if type(key) is tuple and len(key) == 3 and key[0] in kinds:
        if key[1] in depths:
            return f"it asks for a seed that is not there; {there}"
        return f"it asks for a depth that is not there; {there}"
    if type(key) is tuple:
        return f"it asks for {key}, but the keys of histories are (kind, depth, seed), for instance {next(iter(final))}"
    if type(key) is str and key in kinds:
        return (
            f"it asks for {key!r} in a dict that has no such key: the keys of histories are (kind, depth, seed), and "
            f"a dict of your own needs a first value before += can add to it"
        )
    if type(key) is int and key not in depths:
        return f"it asks for a depth or seed that is not there; {there}"
    if type(key) is str:
        return f"it asks for {key!r}, but the loss of an epoch is at 'loss'"
    return None


@pytest.mark.task("2.5")
@SKIPS
@pytest.mark.parametrize("index", [2, 1, 0, 5])
def test_lesion_leaves_only_the_shortcut(lesson, skip, index):
    call = f"without_block(network, {index})"
    torch.manual_seed(0)
    network = make_network(lesson, skip)
    original, settings = copy.deepcopy(network), settings_of(network)
    x = torch.randn(2, 3, 16, 16)
    with calling("Block, in a network that still has every block,"), torch.no_grad():
        before = original(x)
    with calling(call):
        lesioned = lesson.without_block(network, index)
    changed = [name for name, value in settings_of(network).items() if value != settings[name]]
    if changed:
        raise Wrong(f"{call} changed the network itself: {changed[0]}. Build a new one from its parts.")
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
        whole, expected = network.eval()(x), lesioned_by_hand(original, x, {index})
        check_tensor(got, expected, f"{call}(pictures)")
        if not is_close(whole, before):
            raise Wrong(f"{call} changed the network itself: its weights. Build a new one from its parts.")
        if not is_close(got, expected):
            mistakes = known_lesions(original, x, index)
            raise Wrong(f"{call} gives wrong numbers." + likeliest(mistakes, functools.partial(is_close, got)))


def settings_of(network):
    """What without_block should leave as it is, but for the numbers."""
    return {
        "its modules": [id(module) for module in network.modules()],
        "train or eval mode": [module.training for module in network.modules()],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "skip": [getattr(module, "skip", None) for module in network.modules()],
    }


def known_lesions(network, x, index):
    """What the known wrong ways of taking a block out give."""
    others = {f"block {i} is missing; blocks count from 0": {i} for i in range(6) if i != index}
    sets = {
        "no block is missing": set(),
        **others,
        f"all blocks up to block {index} are missing": set(range(index + 1)) if index else None,
        f"all blocks from block {index} on are missing": set(range(index, 6)) if index < 5 else None,
        f"all blocks but block {index} are missing": set(range(6)) - {index},
    }
    mistakes = {
        words: functools.partial(lesioned_by_hand, network, x, gone) for words, gone in sets.items() if gone is not None
    }
    if getattr(network[1][index], "skip", False):
        bare = copy.deepcopy(network)
        bare[1][index].skip = False
        mistakes["the block's shortcut went and its branch stayed; it should be the other way round"] = bare(x)
    return mistakes


def lesioned_by_hand(network, x, gone):
    """What the network gives when the blocks with these numbers are replaced by their shortcuts."""
    stem, blocks, head = network
    h = stem(x)
    for i, block in enumerate(blocks):
        out = block(h)
        h = option_a(h, out.shape[1] - h.shape[1], h.shape[2] // out.shape[2]) if i in gone else out
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
