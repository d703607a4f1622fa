"""Exercise 2: formulas for block and lesion, the paper's parameter counts, numbers by hand."""

import contextlib
import copy
import functools
import itertools
import math
import statistics

import numpy
import pytest
import torch
import torch.nn.functional as F
from diagnosis import (
    BlockParts,
    extra,
    other_mode_of_one,
    repeated,
    weighted,
    wide,
    wrong_channels,
)
from messages import (
    Wrong,
    advice,
    calling,
    check_dry_run,
    check_lets_errors_through,
    check_module,
    check_tensor,
    counted,
    draw,
    dtype,
    in_words,
    is_close,
    likeliest,
    mode_name,
    no_return,
    number,
    plain,
    rounded_like,
    shape,
)
from torch import equal, nn
from unchanged import (
    LAYOUTS,
    Everything,
    check_seeds_nothing,
    disturb,
    fresh_copy,
    hash_in_another_process,
)
from what_ran import (
    check_made_in_train_mode,
    check_registered,
    check_shares_nothing,
    check_start,
    convolutions,
    norm_after,
    of_kind,
    record,
    run_backwards,
)

MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
SKIPS = pytest.mark.parametrize("skip", [True, False], ids=["residual", "plain"])
SAME_SHAPE = (4, 4, 1, 8, 8)  # in_channels, out_channels, stride, height, width
OTHER_SHAPE = (4, 8, 2, 7, 9)
CASES = [
    pytest.param(SAME_SHAPE, id="same-shape"),
    pytest.param((4, 8, 2, 8, 8), id="stride-2"),
    pytest.param(OTHER_SHAPE, id="stride-2-odd-size"),
    pytest.param((4, 8, 1, 8, 8), id="more-channels"),
    pytest.param((4, 4, 2, 8, 8), id="stride-2-same-channels"),
    pytest.param((4, 6, 2, 9, 5), id="half-as-many-more-channels"),
    pytest.param((4, 12, 3, 7, 10), id="stride-3-three-times-the-channels"),
]
TWO_CASES = pytest.mark.parametrize(
    "case", [SAME_SHAPE, OTHER_SHAPE], ids=["same-shape", "other-shape"]
)


def option_a(x, new_channels, stride):
    """The paper's option A shortcut."""
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, new_channels))


def randomise(model, seed=0):
    """Give every parameter and buffer random values: no layer is by chance the identity or 0."""
    generator = torch.Generator().manual_seed(draw(seed))

    def draw_between(tensor, low, high):
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    def draw_normal(tensor, deviation):
        tensor.copy_(deviation * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                draw_between(module.weight, 0.6, 1.4)
                draw_between(module.bias, -0.4, 0.4)
                draw_between(module.running_mean, -0.3, 0.3)
                draw_between(module.running_var, 0.6, 1.4)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                draw_normal(module.weight, (2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    draw_normal(module.bias, 0.3)
    return model


def make_network(lesson, skip, blocks=2, width=4, seed=0):
    """A network as task 2.2 describes it, with random weights, made without build_network.

    blocks: how many each stage has.
    """
    stem_conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
    stem = nn.Sequential(stem_conv, nn.BatchNorm2d(width), nn.ReLU())
    stages = nn.Sequential()
    in_channels = width
    for out_channels in (width, 2 * width, 4 * width):
        for _ in range(blocks):
            stride = out_channels // in_channels
            stages.append(lesson.Block(in_channels, out_channels, stride, skip))
            in_channels = out_channels
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))
    return randomise(nn.Sequential(stem, stages, head), seed).eval()


# Task 2.1

KEPT = "something is kept from an earlier call; compute everything from x, in each call"


def make_block(lesson, case, skip, training):
    """A block with random weights, an input for it, and how to call it."""
    in_channels, out_channels, stride, height, width = case
    call = f"Block({in_channels}, {out_channels}, stride={stride}, skip={skip})"
    torch.manual_seed(draw(0))
    with calling(call):
        block = lesson.Block(in_channels, out_channels, stride, skip)
    randomise(block).train(training)
    x = 4 * torch.randn(3, in_channels, height, width)  # some are above 6, where ReLU6 ends
    return block, x, f"{call} on an input {shape(x)}"


def run_block(block, x, what, case, training):
    """A block's output, what its branch and its shortcut should give, and what ran."""
    in_channels, out_channels, stride, _, width = case
    given = x.clone()
    skip = block.skip
    shortcut = option_a(x, out_channels - in_channels, stride)
    check_given_shortcut(block, x, shortcut, what)
    try:
        output, ops = record(block, given, what)
    except Wrong as wrong:
        cause = wrong_addend(str(wrong), width, stride)
        if cause and only_uneven_sizes_fail(block, case, training):
            cause = (
                "what is added fits only where the stride divides height and width; of any others "
                "self.shortcut(x) takes every stride-th pixel, too"
            )
        raise wrong.because(cause) from None
    check_tensor(output, shortcut, what)
    if output.dtype != x.dtype:
        raise Wrong(f"{what} returned {dtype(output)}, expected {dtype(x)}, the dtype of x.")
    if block.skip != skip:
        raise Wrong(f"{what} sets self.skip to {block.skip}. Ask it, and leave it as it was.")
    if not equal(given, x):
        raise Wrong(
            f"{what} changes x itself. Avoid +=, relu_ and inplace=True on x and on what the "
            "shortcut gives: whoever called still needs it."
        )
    if given.requires_grad != x.requires_grad:
        raise Wrong(f"{what} changes requires_grad of x. Leave x as it was.")
    if convolutions(ops, 1):
        raise Wrong(
            f"{what} ran a 1x1 convolution. The shortcut of this exercise, option A, has no "
            "parameters: add self.shortcut(x)."
        )
    for name, _ in block.named_parameters():
        if not name.startswith("branch."):
            raise Wrong(
                f"{what} has the parameter {name}. A block has no parameters but those of its "
                "branch. Leave __init__ as it stands."
            )
    ran = {"batch norm": of_kind(ops, "batch_norm"), "3x3 convolution": convolutions(ops, 3)}
    for layer, found in ran.items():
        if len(found) != 2:
            raise Wrong(
                f"{what} ran {counted(len(found), layer)} of torch's, expected the 2 of "
                "self.branch: call self.branch(x) once."
            )
    if None in [norm_after(ops, conv) for conv in convolutions(ops, 3)]:
        raise Wrong(
            f"{what}: a batch norm of the branch takes something else than what the convolution "
            "before it outputs. Call self.branch(x) as a whole, and add the shortcut to what it "
            "returns."
        )
    branch = BlockParts(x, ops, training).branch
    return output, branch, shortcut, ops


def check_given_shortcut(block, x, expected, what):
    """Raise Wrong unless self.shortcut, which __init__ makes in any block, is option A."""
    shortcut = getattr(block, "shortcut", None)
    if not isinstance(shortcut, nn.Module):
        raise Wrong(
            f"{what} has no self.shortcut that is a module. A plain block has one, too, for "
            "without_block. Leave __init__ as it stands."
        )
    with calling(f"self.shortcut of {what}"):
        got = shortcut(x.clone())
    check_tensor(got, expected, f"self.shortcut of {what}", " Leave __init__ as it stands.")
    if not torch.allclose(got, expected, equal_nan=True):
        raise Wrong(
            f"self.shortcut of {what} is not option A: every stride-th pixel, and zeros for the "
            "new channels, which come last. Leave __init__ and Shortcut as they stand."
        )


def wrong_addend(error, width, stride):
    """What was added to the branch and does not fit, in words, or None."""
    if "size of tensor" not in error:
        return None
    if f"({width})" in error and "dimension 3" in error and stride > 1:
        return (
            "x itself, or something as large, is added; "
            "add self.shortcut(x), which has the branch's shape"
        )
    return (
        "what is added does not have the branch's shape; self.shortcut(x) has, "
        "the shortcut of anything else may not"
    )


def only_uneven_sizes_fail(block, case, training):
    """Whether a residual block is right if its stride divides height and width, as here it fails.

    block: one that is wrong for an image of this case's size.
    """
    in_channels, out_channels, stride, height, width = case
    if height % stride == width % stride == 0:
        return False
    x = torch.randn(3, in_channels, 4 * stride, 6 * stride)
    with contextlib.suppress(Exception), torch.no_grad():
        output, ops = record(block, x, "Block")
        shortcut = option_a(x, out_channels - in_channels, stride)
        return is_close(output, F.relu(BlockParts(x, ops, training).branch + shortcut))
    return False


def is_random(block, x):
    """Whether what a block gives depends on torch's random numbers."""
    outputs = []
    with contextlib.suppress(Exception):
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            outputs.append(copy.deepcopy(block)(x.repeat(16, 1, 1, 1)))
        first, again, other = outputs
        return equal(first, again) and not equal(first, other)
    return False


@pytest.mark.task("2.1")
@MODES
@SKIPS
@pytest.mark.parametrize("case", CASES)
def test_block_adds_the_shortcut_or_not(lesson, case, skip, training):
    block, x, what = make_block(lesson, case, skip, training)
    what = f"{what} in {mode_name(training)} mode"
    with torch.no_grad():
        first_output, *earlier, _ = run_block(block, torch.randn_like(x), what, case, training)
        as_it_came = first_output.clone()
        output, branch, shortcut, ops = run_block(block, x, what, case, training)
        before_relu = branch + shortcut if skip else branch
        if is_close(output, F.relu(before_relu)):
            if equal(first_output, as_it_came):
                return
            raise Wrong(
                f"{what}, called a second time, changes what the first call returned, which "
                "whoever called still needs. Return a new tensor in each call."
            )
        mistakes = block_mistakes(branch, shortcut, before_relu)
        mistakes |= branch_mistakes(BlockParts(x, ops, training), shortcut, skip)
        if skip:
            mistakes |= shortcut_mistakes(x, branch, shortcut, case[2])
        earlier_branch, earlier_shortcut = earlier
        if is_close(output, F.relu(branch + earlier_shortcut)):
            mistakes = {KEPT: output}
        if is_close(output, F.relu(earlier_branch + shortcut if skip else earlier_branch)):
            mistakes = {KEPT: output}
        random = is_random(block, x)
    cause = wrong_switch(lesson, case, training)
    if random:
        cause = extra(ops) or (
            "it is random: the same x gives other numbers in another call. A block has neither "
            "dropout nor drop_path"
        )
    if other_mode_of_one(ops, training):
        cause = (
            "a batch norm of the branch runs in another mode than the block; call self.branch(x), "
            "and change no modes"
        )
    named = advice(cause) or likeliest(mistakes, functools.partial(is_close, output))
    if not named and skip and output.isfinite().all():
        parts = BlockParts(x, ops, training)
        parts.shortcut = shortcut
        named = advice(weighted(parts, output))
    if not named and skip and only_uneven_sizes_fail(block, case, training):
        named = advice(
            "it is right where the stride divides height and width, and takes other pixels than "
            "every stride-th one where it does not. Add self.shortcut(x)"
        )
    if not named and skip and not calls_shortcut(block, x):
        named = advice(
            "self.shortcut(x) is never called; add that, and nothing else, to the branch"
        )
    raise Wrong(f"{what} gives wrong numbers." + (named or advice(extra(ops))))


@pytest.mark.task("2.1")
@pytest.mark.parametrize("case", CASES)
def test_block_computes_anew_where_x_has_changed(lesson, case):
    block, x, what = make_block(lesson, case, True, False)
    with calling(what), torch.no_grad():
        block(x)
        x.neg_()
        got = block(x)
        expected = block(x.clone())
    if not is_close(got, expected):
        raise Wrong(f"{what}, called again after x has changed in place, still uses the old x.")


def block_mistakes(branch, shortcut, before_relu):
    """What the known wrong ways give for a block."""
    return {
        "the shortcut is not added": F.relu(branch),
        "the shortcut is added although skip is false": F.relu(branch + shortcut),
        "the last ReLU is missing": before_relu,
        "the last ReLU comes before the addition; it belongs after it": F.relu(branch) + shortcut,
        "a ReLU is applied to the branch before the addition": F.relu(F.relu(branch) + shortcut),
        "a ReLU is applied to the shortcut before the addition": F.relu(branch + F.relu(shortcut)),
        "the last ReLU is a ReLU6, which ends at 6": F.relu6(before_relu),
        "the shortcut is subtracted": F.relu(branch - shortcut),
        "the branch is subtracted": F.relu(shortcut - branch),
        "the shortcut is added twice": F.relu(branch + 2 * shortcut),
        "the shortcut is taken of the branch; call self.shortcut(x)": F.relu(2 * branch),
        "branch and shortcut are averaged, not added": F.relu((branch + shortcut) / 2),
        "branch and shortcut are multiplied, not added": F.relu(branch * shortcut),
        "the larger of branch and shortcut comes out; add them": F.relu(
            torch.maximum(branch, shortcut)
        ),
        "only the shortcut comes out": F.relu(shortcut),
        "without skip the block gives back its input; its branch should still work": shortcut,
    }


def branch_mistakes(parts, shortcut, skip):
    """What the known wrong ways inside the branch give for a block."""
    features = parts.after_norm1
    addend = shortcut if skip else 0
    mistakes = {
        "the ReLU inside the branch is missing; call self.branch(x) as a whole": F.relu(
            parts.second_half(features) + addend
        )
    }
    sums = {
        "before its ReLU": F.relu(features + shortcut),
        "after its ReLU": F.relu(features) + shortcut,
    }
    for place, total in sums.items():
        words = f"the shortcut is added inside the branch, {place}; add it to self.branch(x)"
        mistakes[words] = F.relu(parts.second_half(total))
    return mistakes


def shortcut_mistakes(x, branch, shortcut, stride):
    """What a block gives that adds another shortcut than its own."""
    new_channels = shortcut.shape[1] - x.shape[1]
    half = new_channels // 2
    channels = shortcut[:, : x.shape[1]]
    others = {
        "averages over pixels, where self.shortcut takes every stride-th": option_a(
            F.avg_pool2d(x, stride, ceil_mode=True), new_channels, 1
        ),
        "is a max pooling, where self.shortcut takes every stride-th pixel": option_a(
            F.max_pool2d(x, stride, ceil_mode=True), new_channels, 1
        ),
        "has half of its zeros before the channels of x; all come after them": F.pad(
            channels, (0, 0, 0, 0, half, new_channels - half)
        ),
        "has its zeros before the channels of x; they come after them": F.pad(
            channels, (0, 0, 0, 0, new_channels, 0)
        ),
    }
    return {
        f"what is added {words}. Add self.shortcut(x) in its place": F.relu(branch + other)
        for words, other in others.items()
    }


def calls_shortcut(block, x):
    """Whether a block calls its shortcut."""
    calls = []
    forward = block.shortcut.forward

    def note(x):
        calls.append(x)
        return forward(x)

    block.shortcut.forward = note
    with contextlib.suppress(Exception), torch.no_grad():
        block(x)
    del block.shortcut.forward
    return bool(calls)


def wrong_switch(lesson, case, training):
    """Whether the block adds the shortcut where it should not, and not where it should, or None."""
    if adds_shortcut(lesson, case, True, training) is not False:
        return None
    if adds_shortcut(lesson, case, False, training):
        return (
            "the switch is the wrong way round: "
            "skip=True should add the shortcut, skip=False should not"
        )
    if adds_shortcut(lesson, SAME_SHAPE, True, training):
        return (
            "the shortcut is added only where x has the shape of the branch's output; "
            "add self.shortcut(x), which always has it"
        )
    return None


def adds_shortcut(lesson, case, skip, training):
    """Whether the block with this switch adds the shortcut; None if it does something else."""
    block, x, what = make_block(lesson, case, skip, training)
    with torch.no_grad(), contextlib.suppress(Wrong):
        output, branch, shortcut, _ = run_block(block, x, what, case, training)
        if is_close(output, F.relu(branch + shortcut)):
            return True
        if is_close(output, F.relu(branch)):
            return False
    return None


@pytest.mark.task("2.1")
@TWO_CASES
def test_block_has_the_same_parameters_without_skip(lesson, case):
    shapes = {}
    for skip in (True, False):
        block, x, what = make_block(lesson, case, skip, training=True)
        _, ops = record(block, x, what)
        parameters = block.named_parameters()
        shapes[skip] = {name: tuple(parameter.shape) for name, parameter in parameters}
        check_count(block, ops, case, what)
    if shapes[True] != shapes[False]:
        raise Wrong(f"{what} has other parameters than with skip=True, expected the same.")


def check_count(block, ops, case, what):
    """Raise Wrong unless a block has four layers of its own, and their parameters."""
    repeat = repeated(wide(ops))
    norms = [op.weight for op in of_kind(ops, "batch_norm")]
    if len(norms) == 2 and norms[0] is norms[1]:
        repeat = "one batch norm runs twice; each place needs a layer of its own"
    if repeat:
        raise Wrong(f"{what}: {repeat}.")
    in_channels, out_channels, *_ = case
    expected = 9 * in_channels * out_channels + 9 * out_channels**2 + 4 * out_channels
    count = sum(parameter.numel() for parameter in block.parameters())
    if count != expected:
        raise Wrong(
            f"{what} has {count} parameters, expected {expected}: those of two convolutions "
            "without bias and of two batch norms."
        )


@pytest.mark.task("2.1")
@SKIPS
def test_block_follows_its_switch(lesson, skip):
    block, x, what = make_block(lesson, SAME_SHAPE, not skip, training=False)
    with torch.no_grad():
        run_block(block, x, what, SAME_SHAPE, training=False)
    block.skip = skip
    what = f"{what}, after block.skip = {skip},"
    with torch.no_grad():
        output, branch, shortcut, _ = run_block(block, x, what, SAME_SHAPE, training=False)
    others = F.relu(branch if skip else branch + shortcut)
    if is_close(output, others):
        raise Wrong(f"{what} does as before. Ask self.skip in forward, each time.")


@pytest.mark.task("2.1")
@SKIPS
def test_block_changes_nothing_in_eval_mode(lesson, skip):
    block, x, what = make_block(lesson, (4, 8, 2, 8, 8), skip, training=False)
    unused = copy.deepcopy(block)
    before = Everything(block, x=x)
    with calling(what):
        block(x)
    before.check(what, "attributes")
    try:
        with calling(f"{what}, then called with fewer and smaller images,"):
            block(x[:2, :, :5])
    except Wrong as wrong:
        raise wrong.because(KEPT if runs(unused, x[:2, :, :5]) else None) from None


def runs(layer, x):
    """Whether a layer takes an input without an error."""
    with contextlib.suppress(Exception):
        layer(x)
        return True
    return False


@pytest.mark.task("2.1")
@SKIPS
def test_block_moves_its_statistics_once_per_step(lesson, skip):
    block, x, what = make_block(lesson, SAME_SHAPE, skip, training=True)
    unused = copy.deepcopy(block)
    branch_only = copy.deepcopy(block)
    for _ in range(2):
        with calling(f"the backward pass through {what}"):
            block(x.clone().requires_grad_()).sum().backward()
        with torch.no_grad():
            branch_only.branch(x)
    for name, expected in branch_only.named_buffers():
        got = block.get_buffer(name)
        if name.endswith("num_batches_tracked") or is_close(got, expected, 1e-4):
            continue
        if equal(got, unused.get_buffer(name)):
            raise Wrong(
                f"{what}: in train mode {name} stays as it was. Call self.branch(x), whose batch "
                "norms move their running statistics."
            )
        raise Wrong(
            f"{what}: after two steps, forward and backward, {name} is not what two forward "
            "passes make it. The branch runs once per step."
        )


@pytest.mark.task("2.1")
@SKIPS
@pytest.mark.parametrize("count", [1, 3])
def test_block_keeps_its_mode(lesson, skip, count):
    block, x, what = make_block(lesson, (4, 8, 2, 8, 8), skip, training=True)
    block.branch[1].eval()
    before = Everything(block)
    twin = copy.deepcopy(block)
    if count == 1:
        what += ", of which it gets 1"
    with calling(what):
        output = block(x[:count])
    expected = twin.branch(x[:count])
    if skip:
        expected = expected + option_a(x[:count], 4, 2)
    if not is_close(output, F.relu(expected)):
        raise Wrong(
            f"{what}, in train mode but for its first batch norm, which is in eval mode, gives "
            "wrong numbers. Call self.branch(x), in which each layer goes by its own mode."
        )
    before.check_modes(what)


@pytest.mark.task("2.1")
@SKIPS
def test_block_with_a_zero_branch(lesson, skip):
    block, x, what = make_block(lesson, (4, 8, 2, 7, 9), skip, training=False)
    last_norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last_norm.weight)
    nn.init.zeros_(last_norm.bias)
    with calling(what), torch.no_grad():
        output = block(x.clone())
    expected = F.relu(option_a(x, 4, 2)) if skip else torch.zeros(3, 8, 4, 5)
    check_tensor(output, expected, what)
    if not is_close(output, expected):
        name = "relu(shortcut(x))" if skip else "zeros"
        raise Wrong(f"{what}, its branch set to zero, should give {name}.")


@pytest.mark.task("2.1")
@SKIPS
@TWO_CASES
@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["usual", "channels_last"]
)
def test_block_passes_gradients_through_branch_and_shortcut(lesson, case, skip, memory_format):
    block, x, what = make_block(lesson, case, skip, training=False)
    x = x.contiguous(memory_format=memory_format)
    if memory_format == torch.channels_last:
        what += " in channels_last"
    output, branch, shortcut, _ = run_block(block, x, what, case, training=False)
    if not is_close(output, F.relu(branch + shortcut if skip else branch)):
        return  # the tests of the numbers say more
    _, (got,) = run_backwards(block, x, [], what)
    if got is None:
        raise Wrong(
            f"{what}: no gradient comes back to its input. Is x hidden from autograd, by detach(), "
            ".data or no_grad()?"
        )

    def by_hand(join, x):
        _, branch, shortcut, _ = run_block(block, x, what, case, training=False)
        return join(branch, shortcut if skip else torch.zeros_like(shortcut))

    def gradient(join):
        _, (by_x,) = run_backwards(functools.partial(by_hand, join), x, [], what)
        return by_x

    if is_close(got, gradient(lambda branch, shortcut: F.relu(branch + shortcut)), 1e-4):
        return
    mistakes = {
        words: functools.partial(gradient, join) for words, join in GRADIENT_MISTAKES.items()
    }
    named = likeliest(mistakes, lambda known: is_close(got, known, 1e-4))
    raise Wrong(f"{what} gives a wrong gradient for its input.{named}")


GRADIENT_MISTAKES = {  # what a block would be whose gradient the learner's has
    "the shortcut is hidden from autograd, by detach(), .data or no_grad()": (
        lambda branch, shortcut: F.relu(branch + shortcut.detach())
    ),
    "the branch, or a part of it, is hidden from autograd, by detach(), .data or no_grad()": (
        lambda branch, shortcut: F.relu(branch.detach() + shortcut)
    ),
    "the last ReLU lets all gradients through; leave its backward pass to F.relu": (
        lambda branch, shortcut: branch + shortcut
    ),
    "the last ReLU lets gradients through where the branch is above 0, and not where branch + "
    "shortcut is; leave its backward pass to F.relu": (
        lambda branch, shortcut: (branch + shortcut) * (branch > 0)
    ),
}


@pytest.mark.task("2.1")
@SKIPS
@TWO_CASES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_block_takes_any_order_in_memory(lesson, case, skip, layout):
    block, x, what = make_block(lesson, case, skip, training=False)
    what = f"{what} {layout}"
    with torch.no_grad(), calling(what):
        got = block(LAYOUTS[layout](x))
        expected = block(x)
    check_tensor(got, expected, what)
    if not is_close(got, expected):
        raise Wrong(
            f"{what} gives other numbers than for the same numbers in torch's usual order. Where "
            "in memory each number of x lies (x.stride()) should not matter."
        )


@pytest.mark.task("2.1")
@SKIPS
@TWO_CASES
def test_block_computes_in_float64(lesson, case, skip):
    block, x, what = make_block(lesson, case, skip, training=False)
    block.double()
    x = 4 * torch.randn_like(x, dtype=torch.float64)  # has more digits than float32 holds
    what = f"{what}, both in float64,"
    with torch.no_grad():
        output, branch, shortcut, _ = run_block(block, x, what, case, training=False)
    expected = F.relu(branch + shortcut if skip else branch)
    if is_close(output, expected, 1e-9):
        return
    cause = None
    if is_close(output, expected):
        cause = "something is converted to float32 or less on the way; leave the dtype as it is"
    worst = (output - expected).abs().max()
    raise Wrong(f"{what} is off by {worst:.1g}, expected the digits of float64.", cause)


@pytest.mark.task("2.1")
@SKIPS
@TWO_CASES
def test_block_keeps_bfloat16(lesson, case, skip):
    block, x, what = make_block(lesson, case, skip, training=False)
    what = f"{what}, both in bfloat16,"
    with torch.no_grad():
        run_block(block.bfloat16(), x.bfloat16(), what, case, training=False)


@pytest.mark.task("2.1")
@SKIPS
@TWO_CASES
def test_block_hides_neither_nan_nor_infinity(lesson, case, skip):
    block, x, what = make_block(lesson, case, skip, training=False)
    with torch.no_grad():
        _, _, _, ops = run_block(block, x, what, case, training=False)
        x[0, 0, 2, 2] = math.nan
        x[1, 1, 4, 4] = math.inf
        what = f"{what} with NaN in one image and infinity in another one"
        with calling(what):
            output = block(x.clone())
        in_channels, out_channels, stride, _, _ = case
        expected = BlockParts(x, ops, training=False).branch
        if skip:
            expected = expected + option_a(x, out_channels - in_channels, stride)
        expected = F.relu(expected)
    check_tensor(output, expected, what)
    nan_lost = expected.isnan() & ~output.isnan()
    infinity_lost = expected.isinf() & output.isfinite()
    lost = nan_lost | infinity_lost
    if lost.any():
        raise Wrong(
            f"{what} gives {output[lost][0]:g} where the formula gives {expected[lost][0]:g}. "
            "The ReLU of NaN is NaN, and that of infinity is infinity: a network that diverges "
            "should not look healthy."
        )


# Task 2.2

# Table 6 of the paper, and the smallest network of the kind.
PARAMETERS = {8: 75_290, 20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}
WIDTHS = (16, 32, 64)  # of the paper's networks, for each stage
HEAD_PARAMETERS = 650


def build(lesson, depth, **settings):
    """A network of build_network's, and how it was called."""
    words = [f"{name}={value}" for name, value in settings.items()]
    call = f"build_network({depth}, {', '.join(words)})"
    try:
        with calling(call):
            network = lesson.build_network(depth, **settings)
    except Wrong as wrong:
        if isinstance(wrong.__cause__, ValueError) and "depth" in str(wrong.__cause__):
            n = (depth - 2) // 6
            raise wrong.because(f"6n+2 is refused; {depth} = 6 * {n} + 2 is right") from None
        raise
    if not isinstance(network, nn.Module):
        raise Wrong(
            f"{call} returned {in_words(network)}, expected nn.Sequential(stem, blocks, head)."
            f"{no_return(network)}"
        )
    if any(isinstance(part, nn.ModuleList) for part in (network, *network.children())):
        raise Wrong(
            f"{call}: an nn.ModuleList cannot be called. Put the blocks in nn.Sequential(*blocks)."
        )
    return network, call


USED_UP = (
    "something is kept from call to call: a default argument [] grows, for instance, or an "
    "iterator is used up. Make everything anew in each call"
)


@pytest.mark.task("2.2")
@SKIPS
def test_network_is_new_in_every_call(lesson, skip):
    network, call = build(lesson, 14, skip=skip)
    another, _ = build(lesson, 14, skip=skip)
    counts = [len(list(made.parameters())) for made in (network, another)]
    if counts[0] != counts[1]:
        raise Wrong(
            f"{call}, called twice, gives {counts[0]} parameter tensors, then {counts[1]}.", USED_UP
        )
    check_shares_nothing(network, another, call)
    twin, _ = build(lesson, 14, skip=not skip)
    check_shares_nothing(network, twin, "build_network(14, skip)")


@pytest.mark.task("2.2")
@SKIPS
@pytest.mark.parametrize("depth", sorted(PARAMETERS))
def test_network_has_the_papers_parameters(lesson, depth, skip):
    network, call = build(lesson, depth, skip=skip)
    count = sum(parameter.numel() for parameter in network.parameters())
    if count == PARAMETERS[depth]:
        return
    crash_cause = None
    try:
        _, ops = record(network, torch.randn(2, 3, 8, 8), call)
    except Wrong as wrong:
        crash_cause = wrong_channels(wrong)
    else:
        if ops:
            check_registered(network, ops, call)
    hint = advice(wrong_stages(network, depth, 16))
    if is_right_at_first(lesson, depth, skip):
        hint = advice(USED_UP)
    hint = hint or likeliest(size_mistakes(depth), lambda known: count == known)
    hint = hint or advice(crash_cause)
    raise Wrong(
        f"{call} has {count:,} parameters, expected {PARAMETERS[depth]:,}, "
        f"plain or residual: a difference of {count - PARAMETERS[depth]:+,}.{hint}"
    )


def is_right_at_first(lesson, depth, skip):
    """Whether the first network that the learner's file builds has the paper's parameters."""
    with contextlib.suppress(Exception):
        network = fresh_copy(lesson).build_network(depth, skip=skip)
        return PARAMETERS[depth] == sum(parameter.numel() for parameter in network.parameters())
    return False


def size_mistakes(depth):
    """How many parameters the known wrong ways of building a network give."""
    mistakes = {
        "the stem's convolution is 7x7; use the stem that is given": PARAMETERS[depth] + 40 * 3 * 16
    }
    for width in WIDTHS:
        words = f"there is a batch norm too many, over {width} channels"
        mistakes[words] = PARAMETERS[depth] + 2 * width
    whole = "return nn.Sequential(stem, nn.Sequential(*blocks), head)"
    expected = PARAMETERS[depth]
    stem_parameters = 464
    mistakes |= {
        f"the linear layer of the head is missing; {whole}": expected - HEAD_PARAMETERS,
        f"the stem is missing; {whole}": expected - stem_parameters,
        f"stem and head are missing; {whole}": expected - stem_parameters - HEAD_PARAMETERS,
    }
    return mistakes


@pytest.mark.task("2.2")
@SKIPS
def test_network_runs_its_layers_in_order(lesson, skip):
    network, call = build(lesson, 14, skip=skip, width=6)
    check_parts(network, 6, call)
    check_stages(network, 14, call)
    x = torch.randn(2, 3, 12, 16)
    what = f"{call} on images {shape(x)}"
    output, ops = run_network(network, x, what)
    check_tensor(output, torch.empty(2, 10), what)
    check_registered(network, ops, what)
    sizes = [tuple(op.output.shape[1:]) for op in of_kind(ops, "conv2d")]
    expected = 5 * [(6, 12, 16)] + 4 * [(12, 6, 8)] + 4 * [(24, 3, 4)]
    with calling(f"the first part of {call}"), torch.no_grad():
        of_stem = tuple(network[0](x).shape[1:])
    if sizes[:1] == expected[:1] and of_stem != expected[0]:
        raise Wrong(
            f"{what}: the stem outputs {of_stem} (channels, height, width), expected "
            f"{expected[0]}. It is the one above the TODO, with no pooling."
        )
    for index, (size, expected_size) in enumerate(zip(sizes, expected)):
        if size != expected_size:
            raise Wrong(
                f"{what}: {place_of_convolution(index)} outputs {size} "
                f"(channels, height, width), expected {expected_size}."
            )
    if len(sizes) != len(expected):
        raise Wrong(
            f"{what} ran {len(sizes)} convolutions, expected {len(expected)}: "
            "the stem and 6 blocks of 2."
        )


def place_of_convolution(index):
    """Where in a network of two blocks per stage the convolution with this index is."""
    if index == 0:
        return "the stem"
    stage, block = divmod((index - 1) // 2, 2)
    return f"stage {stage + 1}, block {block + 1}"


def check_stages(network, depth, call, width=6):
    """Raise Wrong if the stages of a network have the wrong blocks."""
    cause = wrong_stages(network, depth, width)
    if cause:
        raise Wrong(f"{call}: {cause}.")


def wrong_stages(network, depth, width):
    """Which blocks a network's stages have, in words, if these are others; or None."""
    named = network.named_parameters(remove_duplicate=False)
    convs = [len(weight) for _, weight in named if weight.shape[2:] == (3, 3)]
    channels = convs[2::2]  # of each block's last convolution, after the stem
    n = (depth - 2) // 6
    widths = [width, 2 * width, 4 * width]
    expected = [width for width in widths for _ in range(n)]
    if channels == expected or len(convs) % 2 == 0:
        return None
    if n > 1 and channels == n * widths:
        return "the stages take turns, block by block; all blocks of a stage follow each other"
    if not channels:
        return f"it has no blocks, expected (depth - 2) / 6 = {n} in each stage"
    runs = [(number, len(list(run))) for number, run in itertools.groupby(channels)]
    stages = [set(channels[:n]), set(channels[n : 2 * n]), set(channels[2 * n :])]
    numbers = []
    if len(channels) == 3 * n and all(len(stage) == 1 for stage in stages):
        numbers = [number for stage in stages for number in stage]
    elif all(count == n for _, count in runs):
        numbers = [number for number, _ in runs]
    width_words = f"width, 2 width, 4 width: {', '.join(map(str, widths))}"
    if numbers:
        return f"the stages have {', '.join(map(str, numbers))} channels, expected {width_words}"
    if [number for number, _ in runs] == widths:
        return (
            f"the stages have {', '.join(str(count) for _, count in runs)} blocks, "
            f"expected (depth - 2) / 6 = {n} in each of the three stages"
        )
    found = [f"{counted(count, 'block')} with {number} channels" for number, count in runs]
    return (
        f"its stages are {', '.join(found)}; expected are (depth - 2) / 6 = {n} each with "
        f"{width_words}"
    )


def run_network(network, x, what):
    """A network's output, and what ran."""
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
    check_stages(network, 20, call)
    oracle = make_network(lesson, skip, blocks=3, width=6)  # of the learner's own blocks
    randomise(network).train(training)
    oracle.train(training)
    x = torch.randn(4, 3, 12, 16)
    what = f"{call} in {mode_name(training)} mode on images {shape(x)}"
    with torch.no_grad():
        output, ops = run_network(network, x, what)
        with calling("Block"):
            expected = oracle(x)
        check_tensor(output, expected, what)
        if not is_close(output, expected, 1e-4):
            opposite = make_network(lesson, not skip, blocks=3, width=6).train(training)
            cause = wrong_part(network, oracle, opposite, x) or extra(ops)
            other, _ = build(lesson, 20, skip=not skip, width=6)
            other = randomise(other).train(training)
            both_close = is_close(output, opposite(x), 1e-4) and is_close(other(x), expected, 1e-4)
            if both_close:
                cause = (
                    "it is the other way round: skip=True should give every Block a working "
                    "shortcut, skip=False should not"
                )
            other_eps = {op.eps for op in of_kind(ops, "batch_norm")} - {1e-5}
            if other_eps:
                cause = f"a batch norm has eps={min(other_eps):g}; leave it at torch's {1e-5:g}"
            raise Wrong(f"{what} gives wrong numbers.", cause)


def wrong_part(network, oracle, opposite, x):
    """The first part of a network that does not do what the oracle's does, in words, or None."""
    places = named_parts(network)
    expected_parts = named_parts(oracle)
    opposite_parts = named_parts(opposite)
    for place, part in places.items():
        output, ops = record(part, x, place)
        expected = expected_parts[place](x)
        if not is_close(output, expected, 1e-4):
            if place in ("the stem", "the head"):
                return f"{place} is not the given one: {extra(ops) or 'leave it as it stands'}"
            if output.shape != expected.shape:
                return f"{place} outputs {shape(output)}, expected {shape(expected)}"
            if is_close(output, opposite_parts[place](x), 1e-4):
                article = "no" if expected_parts[place].skip else "a"
                return f"{place} has {article} working shortcut; hand skip on to every Block"
            return f"{place} is not the Block that belongs there"
        x = expected
    return None


def named_parts(network):
    """{"the stem": stem, "stage 1, block 1": block, ...} of a network of three blocks per stage."""
    parts = {"the stem": network[0]}
    for index, block in enumerate(network[1]):
        parts[f"stage {index // 3 + 1}, block {index % 3 + 1}"] = block
    parts["the head"] = network[2]
    return parts


@pytest.mark.task("2.2")
@SKIPS
@pytest.mark.parametrize("depth", [14, 62, 110])
def test_network_starts_as_torch_makes_it(lesson, depth, skip):
    trained, _ = build(lesson, depth, skip=skip, width=5)  # no other test asks for this width
    randomise(trained)
    network, call = build(lesson, depth, skip=skip, width=5)
    check_shares_nothing(trained, network, call)
    check_made_in_train_mode(network, call)
    x = torch.randn(2, 3, 8, 8)
    _, ops = record(network.eval(), x, call)
    try:
        check_start(ops, call)
    except Wrong as wrong:
        has_run = "running" in str(wrong) and any(
            bool(buffer) for name, buffer in network.named_buffers() if "tracked" in name
        )
        cause = "images went through the network in train mode before it was returned"
        raise wrong.because(cause if has_run else None) from None
    _, ops = record(network.train(), x, call)
    for op in of_kind(ops, "batch_norm"):
        share = (op.running_mean / op.input.mean((0, 2, 3))).median().item()
        if not math.isclose(share, 0.1, rel_tol=1e-3):
            raise Wrong(
                f"{call}: a batch norm takes {share:.2g} of each batch's statistics, expected 0.1. "
                "Leave its momentum as torch makes it."
            )


@pytest.mark.task("2.2")
@SKIPS
def test_network_may_have_any_depth_of_6n_plus_2(lesson, skip):
    for depth in (26, 38, 74):  # other tests take other depths
        network, call = build(lesson, depth, skip=skip, width=2)
        check_parts(network, (depth - 2) // 2, call)
        check_stages(network, depth, call, width=2)


@pytest.mark.task("2.2")
@pytest.mark.parametrize("depth", [2, 12, 21])
def test_network_of_another_depth_is_refused(lesson, depth):
    build(lesson, 8, skip=True)
    call = f"build_network({depth}, skip=True)"
    try:
        with calling(call):
            lesson.build_network(depth, skip=True)
    except Wrong as wrong:
        if isinstance(wrong.__cause__, ValueError):
            return
        raise Wrong(f"{wrong.message}, expected a ValueError.") from None
    raise Wrong(
        f"{call} raised nothing, expected a ValueError: the depth is not 6n+2 for an n of at "
        "least 1."
    )


@pytest.mark.task("2.2")
def test_network_does_not_seed_torch(lesson):
    check_seeds_nothing(lambda: lesson.build_network(8, skip=True), "build_network(8, skip=True)")


@pytest.mark.task("2.2")
def test_network_comes_apart_into_stem_blocks_and_head(lesson):
    network, call = build(lesson, 14, skip=True)
    check_parts(network, 6, call)


@pytest.mark.task("2.2")
def test_plain_network_has_shortcuts_that_it_does_not_use(lesson):
    network, call = build(lesson, 14, skip=False, width=6)
    check_parts(network, 6, call)
    plain_one = make_network(lesson, skip=False, width=6)
    residual = make_network(lesson, skip=True, width=6)
    randomise(network).eval()
    x = torch.randn(2, 3, 12, 16)
    with torch.no_grad(), calling(call):
        output = network(x)
        if output.shape != (2, 10) or not is_close(output, plain_one(x), 1e-4):
            return  # the tests of the numbers say more
    for block in network[1]:
        block.skip = True
    what = f"{call}, after block.skip = True for every block,"
    cause = "a block has lost its shortcut, which without_block puts in the block's place"
    with torch.no_grad():
        try:
            with calling(what):
                output = network(x)
        except Wrong as wrong:
            raise wrong.because(cause) from None
        if not is_close(output, residual(x), 1e-4):
            message = f"{what} does not compute what the residual network with its weights does."
            raise Wrong(message, cause)


def check_parts(network, blocks, call):
    """Raise Wrong unless a network is nn.Sequential(stem, blocks, head) with so many blocks."""
    expected = "nn.Sequential(stem, blocks, head)"
    if not hasattr(type(network), "__len__"):
        raise Wrong(f"{call} returned {in_words(network)}, expected {expected}.")
    with calling(f"stem, blocks, head = {call}"):
        parts = len(network)
    if parts != 3:
        raise Wrong(
            f"{call} has {parts} parts, expected 3: nn.Sequential(stem, blocks, head), "
            "where blocks is an nn.Sequential of its own."
        )
    with calling(f"stem, blocks, head = {call}"):
        count = len(network[1])
    if count != blocks:
        raise Wrong(
            f"{call}: its second part has {count} parts, expected nn.Sequential of {blocks} blocks."
        )


@pytest.mark.task("2.2")
def test_network_takes_num_classes(lesson):
    network, call = build(lesson, 8, skip=True, num_classes=7)
    for count in (2, 1):
        what = f"{call} on images ({count}, 3, 8, 8)"
        with calling(what), torch.no_grad():
            logits = network(torch.randn(count, 3, 8, 8))
        check_tensor(logits, torch.empty(count, 7), what)


# Task 2.3

DEPTHS = (14, 8, 20)
SEEDS = (3, 0, 5)
USUAL_SEEDS = (0, 42, 1, 123, 1234)  # those that people write where none is given
LARGE_SEEDS = (1, 257, 1001, 65_537, 2**32 - 1)
COMBINATIONS = list(itertools.product(("plain", "residual"), DEPTHS, SEEDS))
TRAINED = 7  # what Fit sets every weight to


class Fit:
    """A stand-in for training: notes the network that it is given, and spoils it.

    Returns a history that tells the run apart.
    """

    def __init__(self, combinations):
        self.combinations = combinations
        self.weights = {}
        self.skips = {}
        self.histories = {}
        self.networks = []

    def __call__(self, network, kind, depth, seed):
        is_network = isinstance(network, nn.Module)
        key = (kind, depth, seed)
        if not is_network or key not in self.combinations:
            first = "network" if is_network else in_words(network)
            alike = [other for other in self.combinations if other[:2] == key[:2]]
            example = ", ".join(map(repr, (alike or self.combinations)[0]))
            cause = f"the seed {seed!r} is not one of seeds; hand on each of seeds as it is"
            raise Wrong(
                f"run_ablation called fit({first}, {kind!r}, {depth!r}, {seed!r}), expected "
                f"fit(network, kind, depth, seed), for instance fit(network, {example}).",
                cause if alike and is_network else None,
            )
        if key in self.weights:
            raise Wrong(f"run_ablation called fit(network, {kind!r}, {depth}, {seed}) twice.")
        frozen = [name for name, weight in network.named_parameters() if not weight.requires_grad]
        if frozen:
            raise Wrong(f"run_ablation: fit cannot train {frozen[0]}, whose requires_grad is off.")
        check_can_be_trained(network)
        if any(bool((tensor == TRAINED).all()) for tensor in network.state_dict().values()):
            is_new = not any(network is other for other in self.networks)
            copied = "Neither what state_dict() returns nor a view of a tensor is a copy."
            raise Wrong(
                f"run_ablation: the network for {key} starts from weights that fit has trained "
                "before. Build a new network, with weights of its own, for every call of fit."
                + (f" ({copied})" if is_new else "")
            )
        if any(network is other for other in self.networks):
            raise Wrong(
                f"run_ablation: the network for {key} is one that fit has had before, with other "
                "weights. Build a new one for every call of fit: the script still needs the first."
            )
        self.networks.append(network)
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d) and not bool((module.weight == 1).all()):
                raise Wrong(
                    f"run_ablation: in the network for {key} the weight of the batch norm {name} "
                    f"starts at {module.weight[0]:g}. Leave batch norms as torch makes them."
                )
        tensors = network.state_dict().values()
        skips = [module.skip for module in network.modules() if hasattr(module, "skip")]
        self.weights[key] = [tensor.clone() for tensor in tensors]
        self.skips[key] = skips or [None]
        torch.rand(len(self.weights))  # training uses up random numbers
        for tensor in tensors:  # and changes the network
            tensor.fill_(TRAINED)
        self.histories[key] = [epoch_row(epoch, len(self.weights)) for epoch in (1, 2, 3)]
        return copy.deepcopy(self.histories[key])


class FitFailed(Exception):
    """An error that nobody expects."""


def check_can_be_trained(network):
    """Raise Wrong unless gradients can be computed where fit is called, and for its network."""
    if not torch.is_grad_enabled():
        raise Wrong(
            "run_ablation calls fit with gradients switched off, so fit cannot train. End "
            "torch.no_grad() or torch.inference_mode() before fit is called."
        )
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not nn.parameter.is_lazy(tensor) and tensor.is_inference():
            raise Wrong(
                f"run_ablation: fit cannot train the network, for {name} was made in inference "
                "mode. Build the network outside of torch.inference_mode()."
            )


def epoch_row(epoch, run):
    """A row of a history, with all that a real one has."""
    return {
        "epoch": epoch,
        "loss": run + 1 / epoch,
        "accuracy": 1 - 1 / (run + epoch),
        "seconds": 0.5 * epoch,
        "test_error": 1 / (1 + run),
    }


def ablate(lesson, depths=DEPTHS, seeds=SEEDS):
    """The learner's histories, the stand-in for training, and the call in words."""
    combinations = list(itertools.product(("plain", "residual"), depths, seeds))
    fit = Fit(combinations)
    call = f"run_ablation(fit, depths={depths}, seeds={seeds})"
    with calling(call):
        histories = lesson.run_ablation(fit, depths, seeds)
    histories = plain(histories, call, dict)
    missing = [key for key in combinations if key not in fit.weights]
    if missing:
        kind, depth, seed = missing[0]
        cause = left_out(combinations, missing)
        if set(missing) <= set(histories):
            is_history = all(type(histories[key]) is list for key in missing)
            cause = "it keeps what an earlier call gave" if is_history else None
        raise Wrong(
            f"{call} leaves out {len(missing)} of {len(combinations)} combinations: "
            f"it never called fit(network, {kind!r}, {depth}, {seed}), for instance.",
            cause,
        )
    return histories, fit, call


def left_out(combinations, missing):
    """Which kinds, depths or seeds are missing altogether, in words, or None."""
    trained = [key for key in combinations if key not in missing]
    for place, name in enumerate(("kind", "depth", "seed")):
        absent = {key[place] for key in combinations} - {key[place] for key in trained}
        only_these = {key[place] for key in missing} == absent
        if trained and absent and only_these:
            values = " and ".join(map(str, sorted(absent)))
            return f"no network of the {name} {values} is trained"
    return None


@pytest.mark.task("2.3")
def test_ablation_trains_every_combination(lesson):
    histories, fit, call = ablate(lesson)
    check_keys(histories, call)
    for key in COMBINATIONS:
        history = histories[key]
        if type(history) not in (list, tuple):
            raise Wrong(
                f"{call}: at {key} is {in_words(history)}, "
                "expected the whole history, as fit returned it."
            )
        if list(history) == fit.histories[key]:
            continue
        if list(history) in fit.histories.values():
            raise Wrong(f"{call}: the history at {key} is that of another network.")
        raise Wrong(f"{call}: the history at {key} is not what fit returned, whole and unchanged.")


def check_keys(histories, call):
    """Raise Wrong unless the keys are (kind, depth, seed), for all eighteen."""
    names = ("kind", "depth", "seed")
    orders = list(itertools.permutations(range(3)))
    for order in orders[1:]:
        if set(histories) == {in_order(key, order) for key in COMBINATIONS}:
            got = ", ".join(in_order(names, order))
            raise Wrong(f"{call}: the keys are ({got}), expected (kind, depth, seed).")
    for key in histories:
        if key not in COMBINATIONS:
            raise Wrong(
                f"{call}: {key!r} is one of the keys, expected tuples (kind, depth, seed), "
                "for instance ('plain', 8, 3)."
            )
    missing = [key for key in COMBINATIONS if key not in histories]
    if missing:
        raise Wrong(
            f"{call} returned {len(histories)} of {len(COMBINATIONS)} histories; {missing[0]} is "
            "missing, for instance, though fit was called for it. Keep what fit returns."
        )


def in_order(values, order):
    """The values in another order, as a tuple."""
    return tuple(values[i] for i in order)


@pytest.mark.task("2.3")
@pytest.mark.parametrize(
    "history",
    [[{"loss": math.nan}], [{"loss": math.inf}], [], [{"epoch": 1, "loss": 2, "best": True}]],
    ids=["NaN", "infinite", "no epochs", "whole numbers"],
)
def test_ablation_keeps_whatever_fit_returns(lesson, history):
    calls = []

    def fit(network, kind, depth, seed):
        calls.append(kind)
        return history

    call = f"run_ablation(fit, [8], [0, 1]), where fit returns {history},"
    with calling(call):
        histories = plain(lesson.run_ablation(fit, [8], [0, 1]), call, dict)
    if len(calls) != 4:
        message = f"{call} called fit {len(calls)} times, expected once for each of 4 networks."
        calls.clear()
        with contextlib.suppress(Exception):
            fresh_copy(lesson).run_ablation(fit, [8], [0, 1])
        raise Wrong(message, "it keeps what an earlier call gave" if len(calls) == 4 else None)
    if sorted(map(str, calls)) != ["plain", "plain", "residual", "residual"]:
        raise Wrong(
            f"{call} called fit with the kinds {calls}, expected 'plain' and 'residual': the "
            "arguments are network, kind, depth, seed."
        )
    for key in itertools.product(("plain", "residual"), [8], [0, 1]):
        if key not in histories:
            raise Wrong(
                f"{call} has no key {key}; its keys are {list(histories)}. A key is (kind, depth, "
                "seed), and what fit returns belongs there, whatever it is."
            )
        if repr(histories.get(key)) != repr(history):
            raise Wrong(f"{call} has {histories.get(key)} at {key}, expected what fit returned.")


@pytest.mark.task("2.3")
@pytest.mark.parametrize("error", [FitFailed, RuntimeError])
def test_ablation_lets_errors_of_fit_through(lesson, error):
    failure = error("the error of fit")
    calls = []

    def fit(network, kind, depth, seed):
        calls.append(kind)
        if len(calls) == 1:
            raise failure
        return []

    call = f"run_ablation(fit, [8], [0]), where fit raises an error ({error.__name__}),"
    check_lets_errors_through(call, lambda: lesson.run_ablation(fit, [8], [0]), failure)


@pytest.mark.task("2.3")
def test_ablation_gives_each_kind_its_network(lesson):
    _, fit, call = ablate(lesson)
    for (kind, depth, seed), skips in fit.skips.items():
        expected = kind == "residual"
        others = [skip for skip in skips if not is_switch(skip) or bool(skip) != expected]
        if len(others) == len(skips):
            raise Wrong(
                f"{call}: the {kind} network was built with skip={others[0]!r}, "
                f"expected {expected}."
            )
        if others:
            raise Wrong(
                f"{call}: {len(others)} of the {len(skips)} blocks in the {kind} network of depth "
                f"{depth} have skip={others[0]!r}, expected {expected} for all."
            )
        weights = fit.weights[kind, depth, seed]
        check_sizes(weights, depth, f"{call}: the {kind} network of depth {depth}")


@pytest.mark.task("2.3")
def test_ablation_of_networks_as_deep_as_the_papers(lesson):
    call = "run_ablation(fit, [56, 110], [0])"
    weights = {}

    def fit(network, kind, depth, seed):
        weights[kind, depth] = list(network.state_dict().values())
        return []

    with calling(call):
        lesson.run_ablation(fit, [56, 110], [0])
    for kind, depth in itertools.product(("plain", "residual"), (56, 110)):
        if (kind, depth) not in weights:
            raise Wrong(f"{call} does not call fit for the {kind} network of depth {depth}.")
        what = f"{call}: the {kind} network of depth {depth}"
        check_sizes(weights[kind, depth], depth, what)


def check_sizes(weights, depth, what):
    """Raise Wrong unless a network has as many blocks, the width and the classes that it should."""
    blocks = (sum(weight.ndim == 4 for weight in weights) - 1) // 2
    expected_blocks = (depth - 2) // 2
    if blocks != expected_blocks:
        raise Wrong(f"{what} has {blocks} blocks, expected {expected_blocks}.")
    matrices = [weight for weight in weights if weight.ndim in (2, 4)]
    width = len(matrices[0])
    if width != WIDTHS[0]:
        raise Wrong(f"{what} has the width {width}. Leave width at its default, {WIDTHS[0]}.")
    classes = len(matrices[-1])
    if classes != 10:
        raise Wrong(f"{what} has {classes} classes. Leave num_classes at its default, 10.")


def is_switch(value):
    """Whether a value is true or false, or 1 or 0."""
    return type(value) in (bool, int, numpy.bool_)


def all_equal(tensors, others):
    """Whether two lists hold the same tensors."""
    return all(equal(tensor, other) for tensor, other in zip(tensors, others))


@pytest.mark.task("2.3")
def test_ablation_initialises_both_kinds_to_the_same_weights(lesson):
    _, fit, call = ablate(lesson)
    for key, weights in fit.weights.items():
        check_initialised(weights, f"{call}: the network for {key}")
    for depth in DEPTHS:
        twins = {
            seed: (fit.weights["plain", depth, seed], fit.weights["residual", depth, seed])
            for seed in SEEDS
        }
        differing = [seed for seed in SEEDS if not all_equal(*twins[seed])]
        if not differing:
            continue
        seed = differing[0]
        plain_weights, residual_weights = twins[seed]
        advice = "Call torch.manual_seed(seed) right before each network is built."
        if differing == [0]:
            advice = "With the other seeds they are the same: 'if seed' takes 0 for no seed."
        elif all_equal(plain_weights[:-2], residual_weights[:-2]):
            advice = (
                "Only their linear layers differ, which build_network draws. Seed torch right "
                "before each network is built, of both kinds."
            )
        elif equal(plain_weights[0], residual_weights[0]):
            advice = "Their first layers are the same: do to both kinds the same."
        raise Wrong(
            f"{call}: plain and residual of depth {depth}, seed {seed} start from "
            f"different weights. {advice}"
        )


@pytest.mark.task("2.3")
def test_ablation_starts_each_seed_from_its_own_weights(lesson):
    _, fit, call = ablate(lesson)
    check_seeds_differ(fit, fit, SEEDS, call)
    _, usual_fit, usual_call = ablate(lesson, depths=(14,), seeds=USUAL_SEEDS)
    check_seeds_differ(usual_fit, usual_fit, USUAL_SEEDS, usual_call)
    _, large_fit, large_call = ablate(lesson, depths=(14,), seeds=LARGE_SEEDS)
    check_seeds_differ(large_fit, large_fit, LARGE_SEEDS, large_call)
    histories, other_fit, other_call = ablate(lesson, depths=(8, 14), seeds=(2, 5))
    if set(histories) - set(other_fit.weights):
        raise Wrong(f"{other_call} gives histories of an earlier call, too. Start from none.")
    for kind in ("plain", "residual"):
        if not all_equal(fit.weights[kind, 14, 5], other_fit.weights[kind, 14, 5]):
            raise Wrong(
                f"{call} and {other_call} start {kind} of depth 14, seed 5 from different "
                "weights. Seed torch with the seed itself right before each network is built: "
                "neither its place in seeds, nor the other seeds, nor what ran before may count."
            )
    check_seeds_differ(fit, other_fit, (3, 2), f"{call} and {other_call}")


def check_seeds_differ(fit, other_fit, seeds, call):
    """Raise Wrong if two of these seeds give the same weights; the last one is other_fit's."""
    *first_seeds, last_seed = seeds
    weights = {seed: fit.weights["plain", 14, seed][0] for seed in first_seeds}
    weights[last_seed] = other_fit.weights["plain", 14, last_seed][0]
    for seed, other_seed in itertools.combinations(seeds, 2):
        if equal(weights[seed], weights[other_seed]):
            raise Wrong(
                f"{call}: seeds {seed} and {other_seed} give the same weights. "
                "Seed torch with the seed of the run, and draw the network's weights after that."
            )


@pytest.mark.task("2.3")
def test_ablation_repeats_itself(lesson, monkeypatch):
    settings = {"depths": (14, 8), "seeds": (5, 3)}
    _, first_fit, _ = ablate(lesson, **settings)
    _, second_fit, _ = ablate(lesson, **settings)
    for key, weights in first_fit.weights.items():
        if not all_equal(weights, second_fit.weights[key]):
            raise Wrong(
                f"run_ablation: called twice, it starts {key} from different weights. "
                "Seed torch for each network."
            )
    monkeypatch.setattr(lesson, "hash", hash_in_another_process, raising=False)
    _, later_fit, _ = ablate(lesson, **settings)
    for key, weights in first_fit.weights.items():
        if not all_equal(weights, later_fit.weights[key]):
            raise Wrong(
                f"run_ablation: run once more, as another process, it starts {key} from different "
                "weights. Python's hash() of a text is another number in each process: seed torch "
                "with a number that comes from depth and seed alone."
            )


def check_initialised(weights, what):
    """Raise Wrong unless a network starts with weights that initialise has drawn."""
    convs = [weight for weight in weights if weight.ndim == 4]
    for place, conv in enumerate(convs):
        deviation = conv.std()
        expected = (2 / (9 * len(conv))) ** 0.5  # He et al.: fan-out
        is_normal = conv.abs().max() > 2.2 * deviation  # uniform numbers end at 1.7
        if not 0.8 * expected < deviation < 1.2 * expected or not is_normal:
            kind = "normal" if is_normal else "uniform"
            raise Wrong(
                f"{what} starts its convolution number {place} (from 0) with {kind} weights of "
                f"standard deviation {deviation:.3f}, expected normal ones of {expected:.3f}. "
                "Apply initialise to the whole of each network: network.apply(initialise)."
            )


# Task 2.4


def made_up(final):
    """Histories of 35 to 38 epochs that end with these losses: {(kind, depth, seed): loss}.

    Their rows have all that real ones have. The loss falls and rises, and no two wrong ways of
    reading it agree.
    """
    histories = {}
    for run, (key, loss) in enumerate(final.items()):
        odd = run % 3 + run / 7  # other runs, other curves
        middle = [loss + 2.1 + odd] * (30 + run % 4)
        dip = [loss * (0.7 + 0.03 * odd), loss * (0.6 + 0.02 * odd)]
        losses = [9 + odd, *dip, *middle, loss + 1.3 + odd / 3, loss]
        histories[key] = []
        for epoch, value in enumerate(losses, 1):
            row = {
                "epoch": epoch,
                "loss": value,
                "accuracy": 0.02 * epoch + 0.01 * odd,
                "seconds": 1 + 0.1 * run,
                "test_error": 0.9 - 0.02 * epoch + 0.02 * odd,
            }
            names = list(row) if run % 2 else sorted(row)  # in no certain order
            histories[key].append({name: row[name] for name in names})
    return histories


def four_depths():
    """Last losses for four depths in no order, and six seeds.

    The first seed, the last, the smallest, the best and the worst are five different ones, and none
    of them has the mean or the median.
    """
    harm = {1: 1, 4: 0, 0: 2, 3: 9, 5: 5, 2: 4}  # by the seed; 3.5 in the mean
    losses = {}
    runs = list(itertools.product((32, 14, 110, 20), harm))
    for depth, seed in runs:
        losses["plain", depth, seed] = depth / 70 + harm[seed] + depth * harm[seed]
    for depth, seed in runs:
        losses["residual", depth, seed] = depth / 90 + (0.3 + depth / 200) * harm[seed]
    return losses


ONE_SEED = {
    ("plain", 20, 0): 0.5,
    ("plain", 32, 0): 0.6,
    ("plain", 44, 0): 0.7,
    ("plain", 56, 0): 2.0,
    ("residual", 20, 0): 0.4,
    ("residual", 32, 0): 0.45,
    ("residual", 44, 0): 0.05,
    ("residual", 56, 0): 0.1,
}
ANOTHER_ORDER = {
    ("residual", 56, 3): 1.0,
    ("plain", 56, 3): 1.25,
    ("residual", 110, 3): 1.5,
    ("plain", 110, 3): 1.9,
    ("residual", 20, 3): 0.5,
    ("plain", 20, 3): 1.03,
}
TWO_DEPTHS = {
    ("plain", 8, 7): 0.21,
    ("residual", 8, 7): 0.17,
    ("plain", 14, 7): 0.6,
    ("residual", 14, 7): 0.11,
}
EQUAL_LOSSES = {
    ("plain", 8, 0): 0.5,
    ("plain", 8, 1): 0.8,
    ("plain", 8, 2): 0.5,
    ("plain", 14, 0): 1.0,
    ("plain", 14, 1): 4.0,
    ("plain", 14, 2): 1.0,
    ("residual", 8, 0): 0.2,
    ("residual", 8, 1): 0.5,
    ("residual", 8, 2): 0.2,
    ("residual", 14, 0): 0.1,
    ("residual", 14, 1): 0.1,
    ("residual", 14, 2): 0.1,
}
SEED_BY_SEED = {  # of very deep networks; at the end two seeds follow each other
    ("plain", 1202, 2): 0.9,
    ("residual", 1202, 2): 0.6,
    ("plain", 1802, 2): 1.7,
    ("residual", 1802, 2): 0.5,
    ("plain", 1202, 0): 1.0,
    ("plain", 1202, 1): 0.8,
    ("residual", 1202, 0): 0.8,
    ("residual", 1202, 1): 0.1,
    ("plain", 1802, 0): 2.0,
    ("plain", 1802, 1): 3.2,
    ("residual", 1802, 0): 0.4,
    ("residual", 1802, 1): 0.9,
}
LOSSES_OF_0 = {
    ("plain", 8, 0): 0.0,
    ("plain", 8, 1): 0.3,
    ("plain", 14, 0): 0.5,
    ("plain", 14, 1): 0.4,
    ("residual", 8, 0): 0.2,
    ("residual", 8, 1): 0.6,
    ("residual", 14, 0): 0.0,
    ("residual", 14, 1): 0.0,
}
DEGRADATIONS = [  # the last losses, and the degradation that they show
    pytest.param(
        four_depths(),
        {"plain": 96 / 70 + 96 * 3.5, "residual": 96 / 90 + 96 / 200 * 3.5},
        id="four depths, six seeds",
    ),
    pytest.param(ONE_SEED, {"plain": 1.5, "residual": -0.3}, id="one seed"),
    pytest.param(ANOTHER_ORDER, {"plain": 0.87, "residual": 1.0}, id="another order"),
    pytest.param(TWO_DEPTHS, {"plain": 0.39, "residual": -0.06}, id="two depths"),
    pytest.param(EQUAL_LOSSES, {"plain": 1.4, "residual": -0.2}, id="equal losses"),
    pytest.param(SEED_BY_SEED, {"plain": 1.4, "residual": 0.1}, id="seed by seed"),
    pytest.param(LOSSES_OF_0, {"plain": 0.3, "residual": -0.4}, id="losses of 0"),
]


def known_degradations(final, kind, value):
    """What the known wrong ways give for a kind of network, where the learner's gives value."""
    histories = made_up(final)
    depths = list(dict.fromkeys(depth for _, depth, _ in final))
    deep = max(depths)
    shallow = min(depths)

    def read(depth, read_history=last_loss, over_seeds=mean, kind=kind):
        """What a way of reading a history and of joining the seeds makes of a kind and depth."""
        runs = [history for key, history in histories.items() if key[:2] == (kind, depth)]
        return over_seeds([read_history(history) for history in runs])

    def gap(read_history=last_loss, over_seeds=mean, deep=deep, shallow=shallow, kind=kind):
        settings = (read_history, over_seeds, kind)
        return read(deep, *settings) - read(shallow, *settings)

    other = "residual" if kind == "plain" else "plain"
    in_order = sorted(depths)
    as_text = sorted(depths, key=str)
    means = [read(depth) for depth in in_order]
    rises = [max(0, after - before) for before, after in itertools.pairwise(means)]
    points = [(depth, loss) for (other_kind, depth, _), loss in final.items() if other_kind == kind]
    slope, _ = statistics.linear_regression(*zip(*points))
    largest_difference = max(means) - min(means)
    ratio = read(deep) / read(shallow)
    seeds = {seed for _, _, seed in final}
    smallest = min(seeds)
    both_gaps = [gap() + gap(kind=other), (gap() + gap(kind=other)) / 2]
    last_in_a_row = {}
    for place, keys in itertools.groupby(final, key=lambda key: key[:2]):
        last_in_a_row[place] = list(keys)

    def loss_of_seed(seed):
        return mean([loss for key, loss in final.items() if key[::2] == (kind, seed)])

    first_run, *_, last_run = sorted(key for key in histories if key[0] == kind)
    return {
        "it is shallow minus deep; take deep minus shallow": -gap(),
        "it is rounded; return the number as it is": (
            rounded_like(value, gap(), 5) if value else math.nan  # 0 is cut off, rather
        ),
        "it looks at the first epoch, not at the last": gap(lambda rows: rows[0]["loss"]),
        "it looks at the second epoch, not at the last": gap(lambda rows: rows[1]["loss"]),
        "it looks at the last epoch but one, not at the last": gap(lambda rows: rows[-2]["loss"]),
        "it takes the same epoch of every run; take the last epoch of each": gap(
            lambda rows: rows[min(map(len, histories.values())) - 1]["loss"]
        ),
        "it takes the best epoch; take the last one": gap(
            lambda rows: min(row["loss"] for row in rows)
        ),
        "it takes the mean over the epochs; take the last one": nearest(
            value,
            gap(lambda rows: mean(losses_of(rows))),
            gap(losses_of, lambda runs: mean(sum(runs, []))),
        ),
        "it takes the mean over the last epochs of each run; take the last one alone": nearest(
            value, *[gap(functools.partial(mean_of_last, count)) for count in (2, 3, 4, 5, 10)]
        ),
        "a last loss of exactly 0 is taken for a missing one": gap(last_loss_but_0),
        "a last loss of exactly 0 is left out of the mean": gap(
            over_seeds=lambda runs: mean([loss for loss in runs if loss != 0] or [0])
        ),
        "it is deep divided by shallow; take the difference": ratio,
        "it is the difference divided by the shallow loss; return the difference": nearest(
            value, ratio - 1, 100 * (ratio - 1)
        ),
        "the depths are taken in the order in which they come; "
        "take the largest and the smallest": gap(deep=depths[-1], shallow=depths[0]),
        "the depths are sorted as text, where '110' comes before '20'": gap(
            deep=as_text[-1], shallow=as_text[0]
        ),
        "it takes the second deepest for the shallowest": gap(shallow=in_order[-2]),
        "it takes the second shallowest for the deepest": gap(deep=in_order[1]),
        "it sums over the seeds, where it should average": gap(over_seeds=sum),
        "it averages (a + b) / 2 again and again, in which the last seed weighs most": gap(
            over_seeds=lambda runs: functools.reduce(lambda a, b: (a + b) / 2, runs)
        ),
        "equal losses of several seeds count only once": gap(
            over_seeds=lambda runs: mean(list(set(runs)))
        ),
        "it averages plain and residual together": (gap() + gap(kind=other)) / 2,
        "it looks at the first seed only": gap(over_seeds=lambda runs: runs[0]),
        "it looks at the last seed only": gap(over_seeds=lambda runs: runs[-1]),
        "it looks at the smallest seed only": (
            last_loss(histories[kind, deep, smallest])
            - last_loss(histories[kind, shallow, smallest])
        ),
        "it subtracts one run from another; take the means over the seeds": (
            last_loss(histories[last_run]) - last_loss(histories[first_run])
        ),
        "it takes the median over the seeds; take the mean": gap(over_seeds=statistics.median),
        "the best seed counts, where all should be averaged": gap(over_seeds=min),
        "the worst seed counts, where all should be averaged": gap(over_seeds=max),
        "of runs of one kind and depth that do not follow one another only the last ones count; "
        "take the mean over all seeds": (
            mean([final[key] for key in last_in_a_row[kind, deep]])
            - mean([final[key] for key in last_in_a_row[kind, shallow]])
        ),
        "it compares the largest and the smallest seed; a key is (kind, depth, seed)": (
            loss_of_seed(max(seeds)) - loss_of_seed(min(seeds)) if len(seeds) > 1 else math.nan
        ),
        "it is the loss of the deepest networks alone; subtract the loss of the shallowest": read(
            deep
        ),
        "it compares plain and residual; compare deep and shallow of one kind": (
            read(deep) - read(deep, kind=other)
        ),
        "the two kinds are swapped": gap(kind=other),
        "the plain networks' degradation is subtracted from the residual ones'; "
        "each kind stands for itself": gap() - (gap(kind="plain") if kind == "residual" else 0),
        "the residual networks' degradation is subtracted from the plain ones'; "
        "each kind stands for itself": gap() - (gap(kind="residual") if kind == "plain" else 0),
        "the other kind's degradation is subtracted; each kind stands for itself": (
            gap() - gap(kind=other)
        ),
        "the residual networks' number has the plain ones in it, too; start each kind from 0": (
            nearest(value, *both_gaps) if kind == "residual" else gap()
        ),
        "the plain networks' number has the residual ones in it, too; start each kind from 0": (
            nearest(value, *both_gaps) if kind == "plain" else gap()
        ),
        "both are the degradation of the plain networks": gap(kind="plain"),
        "both are the degradation of the residual networks": gap(kind="residual"),
        "it reads the test error; take the loss": gap(lambda rows: rows[-1]["test_error"]),
        "it reads the accuracy; take the loss": gap(lambda rows: rows[-1]["accuracy"]),
        "it is in bits; the losses are in nats, so leave them as they are": gap() / math.log(2),
        "it is divided by the number of layers that are added": gap() / (deep - shallow),
        "it is the largest minus the smallest loss; take the deepest minus the shallowest": (
            largest_difference
        ),
        "it is the largest loss minus that of the shallowest; take the deepest's": (
            max(means) - means[0]
        ),
        "it sums only the rises from depth to depth; falls count, too, so take the deepest minus "
        "the shallowest": sum(rises),
        "it is the rise of a straight line through all depths; take the deepest minus the "
        "shallowest alone": slope * (deep - shallow),
        "it is in percent; return nats": 100 * gap(),
        "its sign is lost; it should be below 0 where depth helps": abs(gap()),
        "it is 0 where depth helps; it should be below 0": max(0, gap()),
    }


def last_loss(history):
    """The loss of a history's last epoch."""
    return history[-1]["loss"]


def losses_of(history):
    """The losses of all epochs."""
    return [row["loss"] for row in history]


def mean_of_last(count, history):
    """The mean loss of a history's last epochs."""
    return mean(losses_of(history[-count:]))


def nearest(value, *candidates):
    """That one of several numbers that is nearest to a value."""
    return min(candidates, key=lambda candidate: abs(candidate - value))


def last_loss_but_0(history):
    """The last of a history's losses that is not 0."""
    losses = [row["loss"] for row in history if row["loss"] != 0]
    return losses[-1]


def mean(values):
    """The mean of a list of numbers."""
    return sum(values) / len(values)


@pytest.mark.task("2.4")
@pytest.mark.parametrize("final, expected", DEGRADATIONS)
def test_degradation_by_hand(lesson, final, expected):
    what = "degradation(histories)"
    histories = made_up(final)
    try:
        with calling(what):
            got = lesson.degradation(histories)
    except Wrong as wrong:
        raise wrong.because(wrong_lookup(wrong.__cause__, final)) from None
    if histories != made_up(final):
        raise Wrong(
            f"{what} changes the histories, which are still needed for the figure. Only read them."
        )
    got = plain(got, what, dict)
    if set(got) != set(expected):
        keys = sorted(map(str, got))
        raise Wrong(f'{what} returned the keys {keys}, expected "plain" and "residual".')
    values = {kind: number(got[kind], f"{what}[{kind!r}]", whole=False) for kind in expected}
    wrong_kinds = [kind for kind in expected if not is_near(values[kind], expected[kind])]
    if not wrong_kinds:
        return
    kind = wrong_kinds[0]
    cause = (
        wrong_ends(lesson, final, expected)
        or degradation_mistake(final, values)
        or wrong_depths(final, values)
        or wrong_places(lesson, final, expected)
        or wrong_factor(values, expected)
    )
    digits = 4 if f"{values[kind]:.4g}" != f"{expected[kind]:.4g}" else 12
    raise Wrong(
        f"{what}[{kind!r}] is {values[kind]:.{digits}g}, expected {expected[kind]:.{digits}g}.",
        cause,
        f"\nThe last losses, seed by seed: {last_losses(final, kind)}.",
    )


def last_losses(final, kind):
    """The last losses of a kind's shallowest and deepest networks, in words."""
    depths = [depth for _, depth, _ in final]
    parts = []
    for depth in (min(depths), max(depths)):
        losses = [loss for key, loss in final.items() if key[:2] == (kind, depth)]
        numbers = ", ".join(f"{loss:.5g}" for loss in losses)
        parts.append(f"{numbers} with {depth} layers (mean {mean(losses):.5g})")
    return "; ".join(parts)


SMALL_DEPTHS = (8, 20, 26, 50)  # unevenly spaced, as a straight line must not fit


def wrong_ends(lesson, final, expected):
    """That degradation is right where the depths are small ones in the same order, or None."""
    depths = sorted({depth for _, depth, _ in final})
    small = dict(zip(depths, SMALL_DEPTHS))
    histories = {
        (kind, small[depth], seed): history
        for (kind, depth, seed), history in made_up(final).items()
    }
    if is_degradation(lesson, histories, expected):
        return (
            f"with {', '.join(map(str, small.values()))} in the place of the depths "
            f"{', '.join(map(str, depths))} it is right; take the smallest and the largest "
            "of the depths that are there"
        )
    return None


def is_degradation(lesson, histories, expected):
    """Whether degradation gives the expected numbers for these histories."""
    with contextlib.suppress(Exception):
        got = lesson.degradation(histories)
        return all(is_near(float(got[kind]), value) for kind, value in expected.items())
    return False


def wrong_places(lesson, final, expected):
    """That degradation is right where the keys are in another order, in words, or None."""
    histories = dict(sorted(made_up(final).items()))
    if is_degradation(lesson, histories, expected):
        return (
            "with the keys in order it is right; they come in any order, so go by what each key "
            "says (itertools.groupby wants them sorted)"
        )
    for places in itertools.permutations(range(3)):
        in_places = sorted(histories, key=lambda key: [key[place] for place in places])
        reordered = {key: histories[key] for key in in_places}
        if is_degradation(lesson, reordered, expected):
            return (
                "with the keys in another order it is right; they come in any order, so look each "
                "loss up by its key"
            )
    return None


def wrong_depths(final, values):
    """Which other depths degradation compares, in words, or None."""
    depths = sorted({depth for _, depth, _ in final})
    means = {}
    for kind in values:
        for depth in depths:
            losses = [loss for key, loss in final.items() if key[:2] == (kind, depth)]
            means[kind, depth] = mean(losses)
    ends = f"take the deepest, {depths[-1]}, and the shallowest, {depths[0]}"
    for deep, shallow in itertools.permutations(depths, 2):
        gaps = {kind: means[kind, deep] - means[kind, shallow] for kind in values}
        if all(is_near(values[kind], gaps[kind]) for kind in values):
            return f"it is the loss of {deep} layers minus that of {shallow}; {ends}"
    for kind, value in values.items():
        deeper = [means[kind, depth] for depth in depths[1:]]
        if not is_near(value, mean(deeper) - means[kind, depths[0]]):
            return None
    return f"it is the mean over all depths but {depths[0]}, minus that one; {ends}"


def wrong_factor(values, expected):
    """That degradation gives a multiple of what it should, in words, or None."""
    factors = [values[kind] / expected[kind] for kind in expected]
    if not is_near(*factors) or not factors[0]:
        return None
    return (
        f"it is {factors[0]:.6g} times what it should be, for both kinds: is a sum over the seeds "
        "divided by another number than that of the seeds?"
    )


def degradation_mistake(final, values):
    """The one mistake that gives what the learner's code gave for both kinds, or None."""
    explained = []
    for kind, value in values.items():
        mistakes = known_degradations(final, kind, value)
        explained.append({words for words, known in mistakes.items() if is_near(value, known)})
    common = set.intersection(*explained)
    return common.pop() if len(common) == 1 else None


@pytest.mark.task("2.4")
def test_degradation_called_twice(lesson):
    for param in (DEGRADATIONS[1], DEGRADATIONS[3]):
        final, expected = param.values
        for factor in (1, 3):  # the same keys with other losses
            check_degradation_again(lesson, final, expected, factor)


def check_degradation_again(lesson, final, expected, factor):
    """Raise Wrong unless degradation is right once more, where all losses are factor times so."""
    histories = {}
    for key, rows in made_up(final).items():
        histories[key] = [{"loss": factor * row["loss"]} for row in rows]
    with calling("degradation(histories), whose rows have nothing but the loss,"):
        got = lesson.degradation(histories)
    for kind, value in expected.items():
        nats = number(got[kind], "degradation(histories)", whole=False)
        if is_near(nats, factor * value):
            continue
        again = "degradation(histories), called again with other histories, gives wrong numbers."
        at_first = {kind: factor * value for kind, value in expected.items()}
        if is_degradation(fresh_copy(lesson), histories, at_first):
            raise Wrong(f"{again} Keep nothing from call to call.")
        raise Wrong(again)


@pytest.mark.task("2.4")
@pytest.mark.parametrize("depth", [20, 8])
@pytest.mark.parametrize("loss", [math.inf, math.nan], ids=["infinity", "NaN"])
def test_degradation_counts_a_network_that_diverged(lesson, loss, depth):
    ends = {0: 1.0, 1: 3.5}  # by the seed
    histories = {}
    for key in itertools.product(("plain", "residual"), (8, 20), ends):
        last = loss if key == ("plain", depth, 1) else ends[key[2]]
        histories[key] = [{"loss": 1.5}, {"loss": last}]
    what = (
        f"degradation(histories), in which one of two plain networks of depth {depth} ends at "
        f"a loss of {loss},"
    )
    with calling(what):
        got = lesson.degradation(histories)
        plain_gap = float(got["plain"])
    if math.isfinite(plain_gap):
        returned = f"{what} returned {plain_gap:.4g} for the plain ones."
        if is_near(abs(plain_gap), mean(list(ends.values())) - ends[0]):
            raise Wrong(
                f"{returned} The mean is over all seeds: if you leave out those that diverge, "
                "depth seems to do no harm."
            )
        raise Wrong(f"{returned} The mean over all seeds is {loss}, so no finite number is right.")


@pytest.mark.task("2.4")
@pytest.mark.parametrize("loss", [math.inf, math.nan], ids=["infinity", "NaN"])
def test_degradation_asks_only_the_deepest_and_the_shallowest(lesson, loss):
    final = {8: 1.0, 14: loss, 20: 1.5}
    histories = {}
    for key in itertools.product(("plain", "residual"), final, (0, 1)):
        histories[key] = [{"loss": final[key[1]]}]
    what = f"degradation(histories), in which the networks of depth 14 end at {loss}, not 8 and 20,"
    with calling(what):
        got = float(lesson.degradation(histories)["plain"])
    if not is_near(got, 0.5):
        raise Wrong(
            f"{what} returned {got:.4g}, expected 0.5: 20 layers minus 8. Leave out those between."
        )


def is_near(value, expected):
    """Whether two numbers are the same to six digits."""
    return abs(value - expected) <= 1e-6 * max(1, abs(expected))


def wrong_lookup(error, final):
    """Why degradation did not find a history, in words, or None. error: what it raised."""
    kinds, depths, seeds = [sorted(set(parts)) for parts in zip(*final)]
    there = f"these have the depths {depths} and the seeds {seeds}"
    if isinstance(error, ZeroDivisionError):
        return (
            "final_loss(histories, kind, depth) is asked for a kind or depth that is not there; "
            f"{there}"
        )
    if not isinstance(error, KeyError) or not error.args:
        return None
    key = error.args[0]
    if type(key) is tuple and len(key) == 3 and key[0] in kinds:
        missing = "seed" if key[1] in depths else "depth"
        return f"it asks for a {missing} that is not there; {there}"
    if type(key) is tuple:
        return (
            f"it asks for {key}, but the keys of histories are (kind, depth, seed), "
            f"for instance {next(iter(final))}"
        )
    if type(key) is str and key in kinds:
        return (
            f"it asks for {key!r} in a dict that has no such key: "
            "the keys of histories are (kind, depth, seed), "
            "and a dict of your own needs a first value before += can add to it"
        )
    if type(key) is int and key not in depths:
        return f"it asks for a depth or seed that is not there; {there}"
    if type(key) is str:
        return f"it asks for {key!r}, but the loss of an epoch is at 'loss'"
    return None


# Task 2.5


@pytest.mark.task("2.5")
@SKIPS
@pytest.mark.parametrize("index", [2, 1, 0, 5])
def test_lesion_leaves_only_the_shortcut(lesson, skip, index):
    network = make_network(lesson, skip, seed=index)
    check_lesion(lesson, network, index)


@pytest.mark.task("2.5")
def test_lesions_of_one_network_one_after_the_other(lesson):
    network = make_network(lesson, skip=True, seed=7)
    for index in (4, 1):
        check_lesion(lesson, network, index)
    check_lesion(lesson, make_network(lesson, skip=True, seed=8), 4)
    check_lesion(lesson, randomise(network, seed=9), 4)


@pytest.mark.task("2.5")
def test_lesion_stays_as_it_is_when_another_one_is_made(lesson):
    network = make_network(lesson, skip=True).eval()
    x = torch.randn(2, 3, 16, 16)
    call = "without_block(network, 4)"
    with calling(f"{call}(images)"), torch.no_grad():
        first = lesson.without_block(network, 4)
        before = first(x)
        lesson.without_block(network, 1)
        after = first(x)
    if not equal(before, after):
        raise Wrong(
            f"{call} returned a network that without_block(network, 1) changes later. Make a new "
            "nn.Sequential in every call."
        )


@pytest.mark.task("2.5")
def test_lesion_of_a_deep_network(lesson):
    network = make_network(lesson, skip=True, blocks=4)
    for index in (3, 1, 10):  # the names of blocks 10 and 11 begin with 1
        check_lesion(lesson, network, index)


@pytest.mark.task("2.5")
def test_lesion_passes_negative_features_on(lesson):
    """There are none in these networks, but the shortcut alone would let them through."""
    network = make_network(lesson, skip=True)
    network[0][2] = nn.Identity()
    check_lesion(lesson, network, 0)


@pytest.mark.task("2.5")
def test_lesion_of_a_network_in_float64(lesson):
    network = make_network(lesson, skip=True).double()
    for index in (2, 1):
        check_lesion(lesson, network, index)


@pytest.mark.task("2.5")
@SKIPS
@pytest.mark.parametrize("index", [1, 2])
def test_lesion_passes_gradients_on(lesson, skip, index):
    network = make_network(lesson, skip)
    call = f"without_block(network, {index})"
    with calling(call):
        lesioned = check_module(lesson.without_block(network, index), call).eval()
    x = torch.randn(2, 3, 16, 16)
    what = f"{call}(images)"
    output, (got,) = run_backwards(lesioned, x, [], what)

    def by_hand(x):
        return lesioned_by_hand(network, x, {index})

    expected_output, (expected,) = run_backwards(by_hand, x, [], "a network of Blocks")
    check_tensor(output, expected_output, what)
    if not is_close(output, expected_output, 1e-4):
        return  # the tests of the numbers say more
    if got is None:
        raise Wrong(
            f"{what}: no gradient comes back to the images. Is something detached or under no_grad?"
        )
    if not is_close(got, expected, 1e-4):
        raise Wrong(f"{what} gives a wrong gradient for the images. Is something detached?")


@pytest.mark.task("2.5")
def test_lesion_of_a_network_that_has_one(lesson):
    network = make_network(lesson, skip=True)
    x = torch.randn(2, 3, 16, 16)
    call = "without_block(without_block(network, 1), 4)"
    with calling("without_block(network, 1)"):
        once = lesson.without_block(network, 1)
    try:
        with calling(call), torch.no_grad():
            twice = lesson.without_block(once, 4).eval()
            got = twice(x)
    except Wrong as wrong:
        cause = None
        if getattr(wrong.__cause__, "name", None) == "shortcut":  # which every Block has
            cause = (
                "it looks for a shortcut in what the first call left in block 1's place; "
                "take the shortcut of the one block that goes"
            )
        raise wrong.because(cause) from None
    with torch.no_grad():
        expected = lesioned_by_hand(network, x, {1, 4})
    check_tensor(got, expected, f"{call}(images)")
    if not is_close(got, expected):
        mistakes = {
            "the second block is not missing": lambda: lesioned_by_hand(network, x, {1}),
            "the first block is back": lambda: lesioned_by_hand(network, x, {4}),
        }
        for other in (0, 2, 3, 5):
            words = (
                f"the second call takes out block {other}, not block 4; the shortcut in an "
                "earlier one's place counts, too"
            )
            mistakes[words] = functools.partial(lesioned_by_hand, network, x, {1, other})
        with torch.no_grad():
            cause = likeliest(mistakes, functools.partial(is_close, got))
        message = f"{call} gives wrong numbers, expected a network without both branches."
        raise Wrong(f"{message}{cause}")
    check_form(twice, len(network[1]), call)


@pytest.mark.task("2.5")
def test_lesion_of_blocks_that_halve_the_size_alone(lesson):
    network = make_network(lesson, skip=True)
    network[1][1] = lesson.Block(4, 4, 2)
    network[1][3] = lesson.Block(8, 8, 2)
    randomise(network)
    for index in (1, 3):
        check_lesion(lesson, network, index)


def check_lesion(lesson, network, index):
    """Raise Wrong unless the learner's without_block does what its docstring says."""
    call = f"without_block(network, {index})"
    original = copy.deepcopy(network).eval()
    disturb(network)
    before = Everything(network)
    kind = next(network.parameters()).dtype
    generator = torch.Generator().manual_seed(draw(0))
    x = torch.randn(2, 3, 16, 16, generator=generator, dtype=kind)
    try:
        with calling(call):
            lesioned = lesson.without_block(network, index)
    except Wrong as wrong:
        if "size mismatch" in str(wrong):
            cause = (
                "a network that is built anew has other sizes (width, num_classes); put the "
                "network's own parts together"
            )
            raise wrong.because(cause) from None
        raise
    try:
        before.check(call, "random state")
    except Wrong as wrong:
        raise changed_network(wrong, network, call) from None
    check_module(lesioned, call)
    check_form(lesioned, len(network[1]), call)
    same_blocks = lesioned[1] is network[1]
    for name, parameter in lesioned.named_parameters():
        if parameter.dtype != kind:
            raise Wrong(
                f"{call}: its parameter {name} is in {dtype(parameter)}, expected {dtype(x)}, as "
                "those of the network are."
            )
    lesioned = copy.deepcopy(lesioned).eval()
    try:
        with calling(f"{call}(images)"), torch.no_grad():
            got = lesioned(x)
    except Wrong as wrong:
        with torch.no_grad():
            cause = wrong_place(lesioned, original, x, index)
        cause = wrong_order(lesioned, original) or cause
        raise wrong.because(cause) from None
    with torch.no_grad():
        with calling("Block, in a network that still has every block,"):
            expected = lesioned_by_hand(original, x, {index})
        check_tensor(got, expected, f"{call}(images)")
        tolerance = 1e-9 if kind == torch.float64 else 1e-5
        if not is_close(got, expected, tolerance):
            mistakes = known_lesions(original, x, index)
            cause = likeliest(mistakes, functools.partial(is_close, got))
            if same_blocks and "no block is missing" in cause:
                cause = advice(
                    "no block is missing: its second part is the network's own nn.Sequential; "
                    "make a new one"
                )
            cause = cause or advice(wrong_order(lesioned, original))
            cause = cause or advice(wrong_weights(lesioned, original, index))
            cause = cause or advice(wrong_place(lesioned, original, x, index))
            raise Wrong(f"{call} gives wrong numbers.{cause}")


def changed_network(wrong, network, call):
    """What to say of a call that leaves the network that was given another one."""
    for end in (" Call remove()", ": keep it elsewhere"):
        finding, is_left, _ = wrong.message.partition(end)
        if is_left:
            return Wrong(
                f"{finding.rstrip('.')}. It changes the network that was given, too: put the "
                "block's shortcut in its place, in a new nn.Sequential."
            )
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if any(not norm.running_mean.any() and bool((norm.running_var == 1).all()) for norm in norms):
        return Wrong(
            f"{call} resets the running statistics of batch norms, which the two networks share. "
            "Leave them as they are."
        )
    return wrong


def wrong_order(lesioned, original):
    """That a network has the original one's blocks in another order, in words, or None."""
    first_weights = [next(block.parameters()) for block in original[1]]
    order = []
    for block in lesioned[1].children():
        for weight in itertools.islice(block.parameters(), 1):  # a shortcut has none
            order += [i for i, other in enumerate(first_weights) if equal(weight, other)]
    if order == sorted(order):
        return None
    as_text = ""
    if order == sorted(order, key=str):
        as_text = " (sorted as text, where '10' comes before '2')"
    return f"the blocks are in the order {', '.join(map(str, order))}{as_text}; keep the network's"


def wrong_weights(lesioned, original, index):
    """Whether a network has weights that are not the original network's, in words, or None."""
    known = list(original.parameters())
    for name, parameter in lesioned.named_parameters():
        if not any(equal(parameter, other) for other in known):
            if name.startswith(f"1.{index}.branch."):
                return (
                    f"the weights of {name} are not the network's, and block {index} is still "
                    "there; put its shortcut in its place"
                )
            if name.startswith(f"1.{index}."):
                return (
                    f"what stands in block {index}'s place has weights of its own ({name}); put "
                    "its shortcut there, which has none"
                )
            return f"the weights of {name} are not the network's; put its own parts together again"
    known = list(original.buffers())
    for name, buffer in lesioned.named_buffers():
        if not any(equal(buffer, other) for other in known):
            return (
                f"{name} is not what it is in the network; all parts but the block stay as they "
                "are, running statistics, too"
            )
    return None


def wrong_place(lesioned, original, x, index):
    """What is wrong with what stands in a block's place, in words, or None."""
    stem, blocks, _ = original
    with contextlib.suppress(Exception):
        features = blocks[:index](stem(x))
        expected = blocks[index](features)
        part = list(lesioned[1].children())[index]
        if not runs(part, features):
            return (
                f"what stands in block {index}'s place cannot take what the block gets; put the "
                "block's own shortcut there"
            )
        got = part(features)
        if got.shape != expected.shape:
            return (
                f"what stands in block {index}'s place outputs {shape(got)}, expected "
                f"{shape(expected)}, as the block does; its own shortcut does so, too"
            )
    return None


def check_form(lesioned, blocks, call):
    """Raise Wrong unless a network is nn.Sequential(stem, blocks, head) with so many blocks."""
    if not isinstance(lesioned, nn.Sequential):
        raise Wrong(
            f"{call} returned a {type(lesioned).__name__}, expected an nn.Sequential(stem, blocks, "
            "head), as the network is."
        )
    parts = list(lesioned.children())
    if len(parts) != 3:
        raise Wrong(
            f"{call} has {len(parts)} parts, expected 3, as the network has: "
            "nn.Sequential(stem, blocks, head)."
        )
    count = len(list(parts[1].children()))
    if count != blocks:
        place = ": a shortcut stands in the missing block's place" if count == blocks - 1 else ""
        raise Wrong(f"{call}: its second part has {count} parts, expected {blocks}{place}.")


def known_lesions(network, x, index):
    """What the known wrong ways of taking a block out give."""
    count = len(network[1])
    blocks = set(range(count))
    nothing = "no block is missing"
    if not getattr(network[1][index], "skip", True):
        nothing += " from the plain network; a plain block's shortcut takes its place, too"
    missing = {nothing: set()}
    for other in blocks - {index}:
        from_0 = "; blocks count from 0" if other == index - 1 else ""
        missing[f"block {other} is missing, not block {index}{from_0}"] = {other}
    if index > 0:
        missing[f"all blocks up to block {index} are missing"] = set(range(index + 1))
    if index < count - 1:
        missing[f"all blocks from block {index} on are missing"] = set(range(index, count))
    missing[f"all blocks but block {index} are missing"] = blocks - {index}
    named_alike = {other for other in blocks if str(other).startswith(str(index))}
    if named_alike != {index}:
        words = f"all blocks whose names begin with {index} are missing; compare the whole name"
        missing[words] = named_alike
    mistakes = {}
    for words, gone in missing.items():
        mistakes[words] = functools.partial(lesioned_by_hand, network, x, gone)

    def branch_only(x):
        stem, blocks, head = copy.deepcopy(network)
        blocks[index] = blocks[index].branch
        return head(blocks(stem(x)))

    def zeros_only(x):
        stem, blocks, head = copy.deepcopy(network)
        blocks[index].register_forward_hook(lambda block, inputs, output: 0 * output)
        return head(blocks(stem(x)))

    mistakes["the block gives zeros; put its shortcut, which passes x on, in its place"] = (
        functools.partial(zeros_only, x)
    )
    mistakes["the block's shortcut went and its branch stayed, without the last ReLU"] = (
        functools.partial(branch_only, x)
    )
    if getattr(network[1][index], "skip", False):
        without_shortcut = copy.deepcopy(network)
        without_shortcut[1][index].skip = False
        words = "the block's shortcut went and its branch stayed; it should be the other way round"
        mistakes[words] = without_shortcut(x)
    return mistakes


def lesioned_by_hand(network, x, gone):
    """The network's output when the blocks with these indices are replaced by their shortcuts."""
    stem, blocks, head = network
    features = stem(x)
    for index, block in enumerate(blocks):
        output = block(features)
        if index in gone:
            new_channels = output.shape[1] - features.shape[1]
            stride = features.shape[2] // output.shape[2]
            features = option_a(features, new_channels, stride)
        else:
            features = output
    return head(features)


@pytest.mark.task("2.5")
@pytest.mark.parametrize(
    "blocks, width, index", [(2, 4, 2), (90, 1, 263)], ids=["6 blocks", "270 blocks"]
)
def test_lesion_drops_the_blocks_parameters_and_no_others(lesson, blocks, width, index):
    network = make_network(lesson, skip=True, blocks=blocks, width=width)
    call = f"without_block(network, {index}), with a network of {3 * blocks} blocks,"
    with calling(call):
        lesioned = check_module(lesson.without_block(network, index), call)
        count = sum(parameter.numel() for parameter in lesioned.parameters())
    whole = sum(parameter.numel() for parameter in network.parameters())
    block = sum(parameter.numel() for parameter in network[1][index].parameters())
    if count != whole - block:
        raise Wrong(
            f"{call} has {count:,} parameters, expected {whole - block:,}: "
            f"the network's {whole:,} without block {index}'s {block:,}."
        )


@pytest.mark.task("2.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    check_dry_run(script, dry_run)


if __name__ == "__main__":  # by the Run button of an editor
    raise SystemExit(pytest.main([__file__]))
