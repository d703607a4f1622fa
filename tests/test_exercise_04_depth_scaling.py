"""Exercise 4: torchvision's networks, torch's flop counter, and numbers by hand are the judges."""

import contextlib
import copy
import functools
import itertools
import json
import math
import time
import weakref
from collections import Counter
from types import SimpleNamespace

import numpy
import pytest
import torch
import torchvision
from cifar10 import load_cifar10, train_some_epochs
from diagnosis import (
    BOTTLENECK_MISTAKES,
    IN_EVAL,
    IN_TRAIN,
    bottleneck_convolutions,
    bottleneck_parts,
    convolution_pairs,
    extra,
    first_difference,
    layer_difference,
    lost_digits,
    matching,
    other_mode_of_one,
    other_padding,
    takes_stride,
    what_is_kept,
    wrong_between,
    wrong_bottleneck,
    wrong_channels,
    wrong_head,
    wrong_network,
)
from messages import (
    Wrong,
    advice,
    calling,
    check_close,
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
    number,
    numbers,
    plain,
    shape,
)
from torch import equal, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from unchanged import (
    LAYOUTS,
    Everything,
    check_seeds_nothing,
    check_settings_stay,
    disturb,
    fresh_copy,
    hash_in_another_process,
)
from what_ran import (
    Recorder,
    check_registered,
    conv_name,
    convolutions,
    copy_to_oracle,
    first,
    kernel,
    norm_after,
    of_kind,
    pair_ops,
    randomise,
    record,
    run_backwards,
    tensors,
)

DEPTHS = (18, 34, 50, 101)
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
CASES = [  # in_channels, channels, stride, height, width
    pytest.param((24, 6, 1, 8, 8), id="same-shape"),
    pytest.param((24, 6, 1, 7, 9), id="same-shape-odd-size"),
    pytest.param((6, 6, 1, 8, 5), id="first-stage-of-ResNet-50"),
    pytest.param((24, 10, 2, 8, 8), id="more-channels-stride-2"),
    pytest.param((24, 10, 2, 7, 9), id="more-channels-stride-2-odd-size"),
    pytest.param((24, 6, 2, 5, 8), id="stride-2"),
    pytest.param((32, 4, 1, 6, 7), id="fewer-channels"),
    pytest.param((40, 6, 2, 7, 8), id="fewer-channels-stride-2"),
    pytest.param((24, 6, 3, 8, 10), id="stride-3"),
    pytest.param((64, 64, 1, 5, 4), id="first-block-of-ResNet-50"),
]
ANY_INPUT_CASES = [
    CASES[0],
    pytest.param((32, 16, 2, 7, 9), id="more-channels-stride-2-odd-size"),
]


# Task 4.1


def like_the_authors(ops):
    """Whether bottlenecks have their stride on the first 1x1 convolution, as in the authors' code.

    torchvision has it on the 3x3 convolution.
    """
    strides = [first(op.stride) for op in convolutions(ops, 3)]
    if not strides or any(stride != 1 for stride in strides):
        return False
    ones = convolutions(ops, 1)
    narrow = [op for op in ones if len(op.weight) < 4 * op.weight.shape[1]]
    return any(first(op.stride) > 1 for op in narrow)


def move_strides(oracle):
    """Put each of torchvision's strides where the authors' code has it."""
    for module in oracle.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride = module.conv2.stride
            module.conv2.stride = (1, 1)


def needs_projection(in_channels, channels, stride):
    """Whether a bottleneck's shortcut is a projection."""
    return stride != 1 or in_channels != 4 * channels


def block_twins(lesson, case, training):
    """A bottleneck of the learner's and torchvision's with the same random weights."""
    in_channels, channels, stride, height, width = case
    call = f"Bottleneck({in_channels}, {channels}, stride={stride})"
    torch.manual_seed(draw(0))
    with calling(call):
        block = lesson.Bottleneck(in_channels, channels, stride=stride)
    if not isinstance(block, nn.Module):
        raise Wrong(f"{call} is a {type(block).__name__}, not an nn.Module.")
    projection = None
    if needs_projection(in_channels, channels, stride):
        conv = nn.Conv2d(in_channels, 4 * channels, 1, stride, bias=False)
        projection = nn.Sequential(conv, nn.BatchNorm2d(4 * channels))
    oracle = Bottleneck(in_channels, channels, stride, projection)
    block.train(training)
    oracle.train(training)
    x = torch.randn(4, in_channels, height, width)
    what = f"{call} on an input {shape(x)}"
    output, ops = record_block(block, x, what, case)
    for name, parameter in block.named_parameters():
        check_tensor(parameter, parameter, f"{call}: {name}")
    if like_the_authors(ops):
        move_strides(oracle)
    expected, oracle_ops = record(oracle, x, "")
    check_tensor(output, expected, what, hint_at_shape(output, case))
    check_registered(block, ops, what)
    randomise(ops)
    before = weights_of(ops)
    _, ops = record(block, x.clone(), what)
    check_weights_stay(before, what)
    pairs = pair_block(ops, oracle_ops, x, what, case)
    copy_to_oracle(pairs)
    return SimpleNamespace(
        block=block,
        oracle=oracle,
        x=x,
        pairs=pairs,
        what=what,
        ops=ops,
        channels=channels,
    )


def hint_at_shape(output, case):
    """What to say of the shape of a bottleneck's output, if it is wrong."""
    _, channels, stride, *size = case
    if type(output) is not torch.Tensor or output.dim() != 4:
        return ""
    if output.shape[1] != 4 * channels:
        return " It outputs expansion * channels = 4 * channels channels."
    got = list(output.shape[2:])
    mistakes = {
        f"height and width are divided by {stride} and rounded down; round them up": [
            length // stride for length in size
        ],
        f"the stride {stride} is taken for 2": [(length + 1) // 2 for length in size],
    }
    return likeliest(mistakes, lambda known: got == known)


def pair_block(ops, oracle_ops, x, what, case):
    """What pair_ops gives for a bottleneck; a mistake in the way to its shortcut is named."""
    channels = case[1]
    try:
        return pair_ops(ops, oracle_ops, what)
    except Wrong as wrong:
        narrow = bottleneck_convolutions(ops, channels).narrow
        if narrow is not None and is_output_of_a_norm(narrow.input, ops):
            raise Wrong(
                f"{what}: the first 1x1 convolution of its branch takes {shape(narrow.input)}, "
                f"expected the input itself, {shape(x)}.",
                "the branch starts from what the shortcut outputs; both start from the input",
            ) from None
        raise wrong.because(wrong_shortcut(ops, x, case)) from None


def is_output_of_a_norm(value, ops):
    """Whether a tensor is what one of the batch norms that ran gives."""
    return any(is_close(op.output, value) for op in of_kind(ops, "batch_norm"))


def wrong_shortcut(ops, x, case):
    """What the layers of a bottleneck's shortcut should be, in words; None if they are right."""
    in_channels, channels, stride, _, _ = case
    is_needed = needs_projection(in_channels, channels, stride)
    maker = f"make_shortcut({in_channels}, {4 * channels}, {stride})"
    parts = bottleneck_convolutions(ops, channels)
    if parts.narrow is None or parts.last is None:
        return None
    if parts.projection is None and is_needed:
        larger = len(of_kind(ops, "conv2d")) > 3
        finding = "convolution is larger than 1x1" if larger else "runs no convolution"
        return f"the shortcut {finding}; {maker} makes the right one"
    from_input = [op for op in parts.ones if op is not parts.narrow and is_close(op.input, x)]
    if len(from_input) != 1:
        return None
    if not is_needed:
        return f"the shortcut is a convolution; where the shape stays it is the identity, {maker}"
    if norm_after(ops, from_input[0]) is None:
        return f"the shortcut's convolution has no batch norm; {maker} makes the right one"
    return None


def weights_of(ops):
    """The weights and biases of what ran, each with a copy."""
    pairs = []
    for op in ops:
        for name, tensor in tensors(op).items():
            if name in ("weight", "bias"):
                pairs.append((op.kind, name, tensor, tensor.detach().clone()))
    return pairs


def check_weights_stay(before, what):
    """Raise Wrong if a forward pass has changed weights."""
    for kind, name, tensor, value in before:
        if not equal(tensor, value):
            cause = None
            if kind == "batch_norm" and not tensor.any():
                cause = "forward sets it to zero each time, so it never learns; do it in __init__"
            raise Wrong(
                f"{what} changes the {name} of a {kind.replace('_', ' ')} in its forward pass.",
                cause,
            )


def record_block(block, x, what, case):
    """A bottleneck's output and what ran; a crash where a projection is missing is named.

    Raises Wrong if it changes its input.
    """
    own_x = x.clone()
    try:
        output, ops = record(block, own_x, what)
    except Wrong as wrong:
        in_channels, channels, stride, _, _ = case
        cause = wrong_bottleneck(wrong.ops, channels)
        if not cause and "size of tensor" in str(wrong):
            cause = missing_projection(in_channels, channels, stride)
        raise wrong.because(cause or wrong_channels(wrong)) from None
    check_input_stays(own_x, x, what)
    return output, ops


def check_input_stays(own_x, x, what):
    """Raise Wrong unless a bottleneck's input is still x."""
    if not equal(own_x, x) or own_x.grad_fn is not None:  # += 0 leaves only the latter
        raise Wrong(f"{what} changed the input itself. Avoid += and inplace=True on x.")
    if own_x.requires_grad:
        raise Wrong(
            f"{what} leaves requires_grad of its input at True; it was False. "
            "That is for the caller to say."
        )


def missing_projection(in_channels, channels, stride):
    """Why a bottleneck's shortcut does not fit its branch, in words, or None."""
    if not needs_projection(in_channels, channels, stride):
        return None
    return (
        f"the shortcut does not lead from {in_channels} to {4 * channels} channels, with stride "
        f"{stride}; make_shortcut({in_channels}, {4 * channels}, {stride}) makes one that does"
    )


def explain_block(twins, got, training):
    """The known mistake that gives what a bottleneck gave, or None."""
    if draws_random_numbers(twins):
        return extra(twins.ops) or (
            "it draws random numbers each time it is called; nothing in a bottleneck is random"
        )
    if of_kind(twins.ops, "avg_pool2d") and got.shape[2:] != twins.x.shape[2:]:
        return averaged_pixels(bottleneck_convolutions(twins.ops, twins.channels))
    if other_padding(twins.ops):
        return other_padding(twins.ops)
    in_other_mode = bottleneck_parts(twins.x, twins.ops, not training)
    if is_close(got, in_other_mode.output, 1e-4) or other_mode_of_one(twins.ops, training):
        return IN_TRAIN if training else IN_EVAL
    parts = bottleneck_parts(twins.x, twins.ops, training)
    if is_close(got, parts.output, 1e-4):
        return wrong_bottleneck(twins.ops, twins.channels) or other_settings(twins.pairs)
    return (
        matching(BOTTLENECK_MISTAKES, parts, got)
        or wrong_bottleneck(twins.ops, twins.channels)
        or extra(twins.ops)
    )


def averaged_pixels(parts):
    """Where a bottleneck averages pixels, in words; its convolutions should take the stride."""
    in_branch = not any(takes_stride(op) for op in parts.branch)
    in_shortcut = not takes_stride(parts.projection)
    if in_branch == in_shortcut:
        return "pixels are averaged; leave the stride to the convolutions, and the pooling out"
    if in_branch:
        return "pixels are averaged in the branch; let the 3x3 convolution take the stride itself"
    return "pixels are averaged; let make_shortcut's 1x1 convolution take the stride itself"


def draws_random_numbers(twins):
    """Whether a forward pass of a bottleneck moves torch's random state."""
    before = torch.get_rng_state()
    with torch.no_grad():
        twins.block(twins.x.clone())
    return not equal(torch.get_rng_state(), before)


def other_settings(pairs):
    """In which settings convolutions differ from the oracle's, in words, or None."""
    found = []
    for own, oracle in pairs:
        if own.kind == "conv2d" and layer_difference(own, oracle):
            found.append(f"the {conv_name(own)} {layer_difference(own, oracle)}")
    return "; ".join(found) or None


@pytest.mark.task("4.1")
@MODES
@pytest.mark.parametrize("case", CASES)
def test_bottleneck_computes_what_torchvisions_does(lesson, case, training):
    twins = block_twins(lesson, case, training)
    x = twins.x.clone()
    with calling(twins.what), torch.no_grad():
        got = twins.block(x)
    check_input_stays(x, twins.x, twins.what)
    with torch.no_grad():
        expected = twins.oracle(twins.x)
    what = f"{twins.what} in {mode_name(training)} mode"
    check_close(got, expected, what, lambda: explain_block(twins, got, training))


def call_twins(twins, x, what):
    """What the learner's bottleneck and torchvision's give for x, without gradients."""
    with torch.no_grad():
        expected = twins.oracle(x)
    with calling(what), torch.no_grad():
        got = twins.block(x)
    check_tensor(got, expected, what)
    return got, expected


@pytest.mark.task("4.1")
@pytest.mark.parametrize("case", [CASES[0], CASES[3]])
def test_bottleneck_keeps_nothing_of_other_calls(lesson, case):
    twins = block_twins(lesson, case, training=False)
    in_channels, channels, stride, _, _ = case
    other_call = f"Bottleneck({in_channels}, {channels}, stride={3 - stride})"
    with calling(other_call), torch.no_grad():
        lesson.Bottleneck(in_channels, channels, stride=3 - stride).eval()(twins.x)
    what = f"{twins.what} in eval mode, after another block, {other_call}, was made and called,"
    x = twins.x.clone()
    first_output, expected = call_twins(twins, x, what)
    check_close(first_output, expected, what, lambda: explain_block(twins, first_output, False))
    kept = first_output.clone()
    x.copy_(twins.x.flip(0))
    what = f"{twins.what} in eval mode, called again with other numbers,"
    output, expected = call_twins(twins, x, what)
    if not equal(first_output, kept):
        raise Wrong(f"{what} changes what the first call returned. Return a new tensor each time.")
    check_close(output, expected, what, lambda: what_is_kept(output, kept, "output"))
    randomise([own for own, _ in twins.pairs], seed=1)
    copy_to_oracle(twins.pairs)
    what = f"{twins.what} in eval mode, called again after its weights have changed,"
    new_output, expected = call_twins(twins, x, what)
    check_close(new_output, expected, what, lambda: what_is_kept(new_output, output, "weights"))


@pytest.mark.task("4.1")
@MODES
@pytest.mark.parametrize("count", [1, 3])
def test_bottleneck_leaves_its_mode(lesson, count, training):
    twins = block_twins(lesson, CASES[3].values[0], training)
    twins.x = twins.x[:count]
    what = f"{twins.what} in {mode_name(training)} mode, then on {counted(count, 'image')},"
    got, expected = call_twins(twins, twins.x, what)
    if any(module.training != training for module in twins.block.modules()):
        raise Wrong(
            f"{what} leaves parts of the block in {mode_name(not training)} mode. "
            "Leave the mode to the caller; batch norm can train on one image with many positions."
        )
    _, twins.ops = record(twins.block, twins.x, what)
    check_close(got, expected, what, lambda: explain_block(twins, got, training))


@pytest.mark.task("4.1")
@pytest.mark.parametrize("case", ANY_INPUT_CASES)
def test_bottleneck_takes_inputs_however_they_lie_in_memory(lesson, case):
    twins = block_twins(lesson, case, training=False)
    for layout, lay_out in LAYOUTS.items():
        what = f"{twins.what} {layout},"
        x = lay_out(twins.x)
        got, expected = call_twins(twins, x, what)
        check_input_stays(x, twins.x, what)
        check_close(got, expected, what, tolerance=1e-4)


@pytest.mark.task("4.1")
@pytest.mark.parametrize("case", ANY_INPUT_CASES)
def test_bottleneck_computes_in_float64_if_asked_to(lesson, case):
    twins = block_twins(lesson, case, training=False)
    what = f"{twins.what}, both in float64,"
    twins.block.double()
    twins.oracle.double()
    got, expected = call_twins(twins, twins.x.double() / 3, what)
    if got.dtype != torch.float64:
        raise Wrong(f"{what} returned {dtype(got)}. Leave the dtype as it comes.")
    check_close(got, expected, what, lambda: lost_digits(got, expected), tolerance=1e-10)


@pytest.mark.task("4.1")
@pytest.mark.parametrize("case", ANY_INPUT_CASES)
def test_bottleneck_hides_neither_nan_nor_infinity(lesson, case):
    twins = block_twins(lesson, case, training=False)
    x = twins.x.clone()
    x[0, 0] = torch.nan
    x[1, 0] = torch.inf
    x[2, 1] = -torch.inf
    what = f"{twins.what} in eval mode, with NaN in one image and infinity in two others,"
    got, expected = call_twins(twins, x, what)
    hidden = got.isfinite() & ~expected.isfinite()
    if hidden.any():
        raise Wrong(
            f"{what} returned {got[hidden][0]:.4g} where relu(branch(x) + shortcut(x)) is "
            f"{expected[hidden][0]}. Leave NaN and infinity: they show that a network has diverged."
        )
    check_close(got[3:], expected[3:], f"the output of the image without them of {twins.what}")


@pytest.mark.task("4.1")
@pytest.mark.parametrize("case", [CASES[0], *CASES[2:4]])
def test_bottleneck_passes_gradients_on(lesson, case):
    twins = block_twins(lesson, case, training=True)
    own_weights = [own.weight for own, _ in twins.pairs]
    oracle_weights = [oracle.weight for _, oracle in twins.pairs]
    with calling(f"{twins.what}, backwards,"):
        got, gradients = run_backwards(twins.block, twins.x, own_weights, twins.what)
    expected, oracle_gradients = run_backwards(twins.oracle, twins.x, oracle_weights, "")
    check_close(got, expected, twins.what, lambda: explain_block(twins, got, True))
    for i, (gradient, oracle_gradient) in enumerate(zip(gradients, oracle_gradients)):
        if gradient is None or not is_close(gradient, oracle_gradient, 1e-4):
            where = "its input" if i == 0 else "its weights"
            raise Wrong(
                f"{twins.what} gives the correct output, but a wrong gradient for {where}.",
                detached_part(twins, gradients[1:]),
            )


def detached_part(twins, gradients):
    """Which part of a bottleneck no gradient goes through, in words."""
    convs = []
    idle = []
    for (own, _), gradient in zip(twins.pairs, gradients):
        if own.kind == "conv2d":
            convs.append(own)
            if gradient is None:
                idle.append(own)
    projections = convolutions(convs, 1)[2:]
    part = ""
    if projections and len(idle) == 1 and idle[0] is projections[0]:
        part = ": here the shortcut"
    elif any(kernel(op) == 3 for op in idle):
        part = ": here the branch"
    return f"the shortcut or the branch is detached (.detach(), .data, no_grad){part}"


@pytest.mark.task("4.1")
def test_bottleneck_stride_is_1_unless_given(lesson):
    with calling("Bottleneck(8, 2)"):
        output = lesson.Bottleneck(8, 2)(torch.randn(1, 8, 6, 6))
    check_tensor(output, torch.empty(1, 8, 6, 6), "Bottleneck(8, 2) on an input (1, 8, 6, 6)")


def check_start(ops, oracle_ops, what):
    """Raise Wrong unless new batch norms start as the oracle's: the last of a branch at zero."""
    pairs = [pair for pair in pair_ops(ops, oracle_ops, what) if pair[0].kind == "batch_norm"]
    own_zeros = 0
    zeros = 0
    wrong = []
    for own, oracle in pairs:
        own_zeros += not own.weight.any()
        zeros += not oracle.weight.any()
        if not equal(own.weight, oracle.weight):
            wrong.append((own.weight, oracle.weight))
        if not equal(own.bias, oracle.bias):
            raise Wrong(
                f"{what}: the bias of a new batch norm is {own.bias[0].item():.4g}, expected 0."
            )
    if not wrong:
        return
    got, expected = wrong[0]
    differing = got != expected
    message = (
        f"{what}: the weight of a new batch norm is {got[differing][0].item():.4g}, "
        f"expected {expected[differing][0].item():.4g}. Of {len(pairs)} batch norms {own_zeros} "
        f"start at zero, expected {zeros}: the last one of each residual branch."
    )
    raise Wrong(message, start_cause(wrong, own_zeros, zeros))


STATISTICS = {  # of a new batch norm
    "running_mean": 0,
    "running_var": 1,
    "num_batches_tracked": 0,
}


def check_statistics(module, what):
    """Raise Wrong unless the running statistics are those of new batch norms."""
    for name, buffer in module.named_buffers():
        *_, last_name = name.split(".")
        if last_name not in STATISTICS or is_lazy(buffer):
            continue
        expected = STATISTICS[last_name]
        if not (buffer == expected).all():
            raise Wrong(
                f"{what}: {name} is not {expected}. Something has run in train mode, where the "
                "statistics move; make the layers only."
            )


def start_cause(wrong, own_zeros, zeros):
    """Why new batch norms do not start as they should, in words, or None."""
    if own_zeros == 0 and all((got == 1).all() for got, _ in wrong):
        return (
            "the weight of the last batch norm is not set to zero, as BasicBlock does, or is set "
            "to another number afterwards"
        )
    partly_zero = [got for got, expected in wrong if not expected.any() and not got.all()]
    if len(partly_zero) == len(wrong):
        got = partly_zero[0]
        return (
            f"the weight of the last batch norm is zero in {int((got == 0).sum())} of its "
            f"{len(got)} channels only; set all of it to zero"
        )
    if own_zeros > zeros and len(wrong) == own_zeros - zeros:
        return "more batch norms start at zero than the branches' last ones"
    starts_at_one = any((expected == 1).all() and (got != 0).all() for got, expected in wrong)
    if own_zeros == zeros and len(wrong) == 2 * zeros and not starts_at_one:
        return "another batch norm starts at zero, not the last one of the branch"
    return None


@pytest.mark.task("4.1")
@pytest.mark.parametrize("case", CASES[2:4])
def test_new_bottleneck_is_its_shortcut(lesson, case):
    in_channels, channels, stride, height, width = case
    call = f"a new Bottleneck({in_channels}, {channels}, stride={stride})"
    torch.manual_seed(draw(0))
    with calling(call):
        block = lesson.Bottleneck(in_channels, channels, stride=stride)
    if not isinstance(block, nn.Module):
        raise Wrong(f"{call} is a {type(block).__name__}, not an nn.Module.")
    conv = nn.Conv2d(in_channels, 4 * channels, 1, stride, bias=False)
    projection = nn.Sequential(conv, nn.BatchNorm2d(4 * channels))
    oracle = Bottleneck(in_channels, channels, stride, projection)
    nn.init.zeros_(oracle.bn3.weight)
    if any(module.training is not True for module in block.modules()):
        raise Wrong(f"{call} has parts in eval mode. New modules are in train mode: leave it.")
    check_statistics(block, call)
    starts_at_zero = has_zero_weight(block) or any(map(is_lazy, block.parameters()))
    x = torch.randn(4, in_channels, height, width)
    output, ops = record_block(block, x, call, case)
    expected, oracle_ops = record(oracle, x, "")
    check_tensor(output, expected, call)
    check_registered(block, ops, call)
    try:
        check_start(ops, oracle_ops, call)
    except Wrong as wrong:
        raise wrong.because(zero_under_a_condition(lesson, block)) from None
    if not starts_at_zero:
        raise Wrong(
            f"{call} sets the last batch norm's weight to zero in its first forward pass, which "
            "spoils weights that were loaded before. Set it in __init__."
        )
    for op in of_kind(ops, "conv2d"):
        if not op.weight.any():
            raise Wrong(
                f"{call}: the weights of a {kernel(op)}x{kernel(op)} convolution are all zero.",
                "only the last batch norm's weight starts at zero; "
                "with a zero before it nothing in the branch can learn",
            )


def zero_under_a_condition(lesson, block):
    """That another bottleneck starts at zero where this one does not, in words, or None."""
    with calling("Bottleneck(24, 6)"):
        other = lesson.Bottleneck(24, 6)
    if has_zero_weight(block) or not has_zero_weight(other):
        return None
    return (
        "the last batch norm's weight is set to zero under a condition, as it is in "
        "Bottleneck(24, 6); set it in every block"
    )


def has_zero_weight(block):
    """Whether the weight of a batch norm in a block is zero."""
    for name, parameter in block.named_parameters():
        if is_lazy(parameter) or parameter.ndim != 1 or not name.endswith("weight"):
            continue
        if not parameter.any():
            return True
    return False


@pytest.mark.task("4.1")
def test_bottlenecks_share_nothing(lesson):
    check_share_nothing(lesson, lambda file: file.Bottleneck(8, 4), "Bottleneck(8, 4)")


def drawn_parameters(module):
    """A module's parameters; without those of lazy layers, which have no numbers yet."""
    lazy = nn.UninitializedParameter
    return [parameter for parameter in module.parameters() if not isinstance(parameter, lazy)]


def check_share_nothing(lesson, make, call):
    """Raise Wrong if new modules share a parameter, or start from the same random weights.

    make(file) makes one with the learner's file; call is that in words. The last two of three are
    compared: a seed that the first call sets after its work shows in these only.
    """
    with calling(call):
        modules = [make(lesson) for _ in range(3)]
    what = f"{call}, called three times,"
    first_one, second_one = [drawn_parameters(module) for module in modules[-2:]]
    ids = {id(parameter) for parameter in first_one}
    shared = [name for name, own in modules[-1].named_parameters() if id(own) in ids]
    if shared:
        raise Wrong(
            f"{what} gives some that share weights: {len(shared)} of {len(first_one)} parameters, "
            f"such as {shared[0]}.",
            "what was made before is kept and returned again; make new layers in every call",
        )
    drawn = [pair for pair in zip(first_one, second_one) if pair[0].ndim == 4]
    if drawn and all(equal(a, b) for a, b in drawn):
        raise Wrong(f"{what} gives the same random weights again.", same_draw(lesson, make))


def same_draw(lesson, make):
    """Why make(file) gives the same random weights in every call, in words, or None.

    A fresh copy of the file gives others after another seed, unless it seeds torch.
    """
    draws = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        file = fresh_copy(lesson)
        make(file)  # which may seed torch when its work is done
        draws.append(drawn_parameters(make(file)))
    if all_equal(*draws):
        return "it seeds torch, or a generator of its own; leave that out"
    return "it returns copies of what was made before; make new layers in every call"


# Task 4.2

BLOCKS = {  # for each stage
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
PARAMETERS = {  # of torchvision's networks; the tests of the tests compare
    ("imagenet", 1000): {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160},
    ("cifar", 10): {18: 11_173_962, 34: 21_282_122, 50: 23_520_842, 101: 42_512_970},
}


@functools.cache
def make_oracle(depth, stem):
    """torchvision's network for ten classes, in eval mode; "cifar" is the stem for small images."""
    oracle = ResNet(BasicBlock if depth < 50 else Bottleneck, BLOCKS[depth], num_classes=10)
    if stem == "cifar":
        oracle.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        oracle.maxpool = nn.Identity()
    return oracle.eval()


@pytest.mark.task("4.2")
@pytest.mark.parametrize("stem, classes", PARAMETERS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_network_has_the_right_size(lesson, depth, stem, classes):
    call = f"build_resnet({depth}, num_classes={classes}, stem={stem!r})"
    with calling(call):
        model = lesson.build_resnet(depth, num_classes=classes, stem=stem)
        model = check_module(model, call).eval()
        parameters = list(model.parameters())
        if any(isinstance(parameter, nn.UninitializedParameter) for parameter in parameters):
            model(torch.zeros(1, 3, 33, 33))  # lazy layers take their shapes
        count = sum(parameter.numel() for parameter in model.parameters())
    expected = PARAMETERS[stem, classes][depth]
    if count != expected:
        with calling(f"{call}, a second time,"):
            again = lesson.build_resnet(depth, num_classes=classes, stem=stem)
            more = sum(parameter.numel() for parameter in again.parameters()) > count
        raise Wrong(
            f"{call} has {count:,} parameters, expected {expected:,} ({count - expected:+,}).",
            "layers of earlier calls are among them; make a new list in each call"
            if more
            else name_network_mistake(model, depth, stem, classes),
        )


def name_network_mistake(model, depth, stem, classes):
    """What is wrong with the layers of a network, in words, or None."""
    oracle = copy.deepcopy(make_oracle(depth, stem))
    oracle.fc = nn.Linear(oracle.fc.in_features, classes)
    x = torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        try:
            _, ops = record(model.eval(), x, "")
        except Wrong as wrong:
            return wrong_block(wrong.ops, depth) or wrong_channels(wrong)
        _, oracle_ops = record(oracle, x, "")
    check_layers(model, ops, f"build_resnet({depth})")
    cause = wrong_layers(ops, oracle_ops, depth)
    if not cause and any(op.bias is None for op in of_kind(ops, "linear")):
        return "the linear layer has no bias"
    return cause or surplus_norm(ops, oracle_ops)


def surplus_norm(ops, oracle_ops):
    """That a network has a batch norm too many, which follows no convolution; or None."""
    norms = of_kind(ops, "batch_norm")
    if len(norms) != len(of_kind(oracle_ops, "batch_norm")) + 1:
        return None
    in_place = [norm_after(ops, conv) for conv in of_kind(ops, "conv2d")]
    for op in norms:
        if not any(op is norm for norm in in_place):
            return (
                f"a batch norm of {op.input.shape[1]} channels follows no convolution; each "
                "convolution has one, and nothing else has"
            )
    return None


def check_layers(model, ops, what):
    """Raise Wrong unless a network's parameters are what ran; a block that it repeats is named."""
    try:
        check_registered(model, ops, what)
    except Wrong as wrong:
        raise wrong.because(repeated_block(model)) from None


def repeated_block(model):
    """Which two blocks of a network are the same, in words, or None."""
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if module in names and list(module.children()) and list(module.parameters()):
            return (
                f"model.{names[module]} and model.{name} are one and the same block; "
                "make one for each place, for [block(...)] * n is one block n times"
            )
        names.setdefault(module, name)
    return None


def wrong_layers(ops, oracle_ops, depth):
    """What is wrong with the layers that ran, in words, or None."""
    other_block = wrong_block(ops, depth)
    if other_block or like_the_authors(ops):
        return other_block
    place = functools.partial(place_of_convolution, depth=depth)
    return wrong_network(ops, oracle_ops, BLOCKS[depth], place)


def wrong_block(ops, depth):
    """Which kind of block a network has instead of its own, in words, or None.

    The network may have crashed after its first block.
    """
    kernels = [kernel(op) for op in of_kind(ops, "conv2d")]
    if depth >= 50 and kernels[1:3] == [3, 3]:
        return f"its blocks are basic blocks; for depth {depth} LAYERS says Bottleneck"
    if depth < 50 and kernels[1:4].count(1) >= 2:  # a projection is one
        return f"its blocks are bottlenecks; for depth {depth} LAYERS says BasicBlock"
    return None


def place_of_convolution(index, depth):
    """Which of the convolutions larger than 1x1 has this index, in words; 0 is the stem's."""
    if index == 0:
        return "the stem's convolution"
    convs_per_block = 2 if depth < 50 else 1
    block, conv = divmod(index - 1, convs_per_block)
    which = "" if depth >= 50 else ("first ", "second ")[conv]
    for stage, count in enumerate(BLOCKS[depth], 1):
        if block < count:
            return f"stage {stage}, block {block + 1}'s {which}3x3 convolution"
        block -= count
    return "the end of the stages"


NETWORKS = [  # depth, stem, train mode, images, height and width
    (18, "cifar", False, 2, (9, 14)),
    (34, "cifar", False, 2, (9, 14)),
    (101, "cifar", False, 2, (9, 14)),
    (18, "cifar", True, 3, (16, 19)),
    (50, "cifar", True, 3, (16, 19)),
    (18, "cifar", False, 1, (43, 38)),
    (50, "imagenet", False, 2, (65, 50)),
]


@pytest.mark.task("4.2")
@pytest.mark.timeout(90)
@pytest.mark.parametrize("depth, stem, training, count, size", NETWORKS, ids=str)
def test_network_computes_what_torchvisions_does(lesson, depth, stem, training, count, size):
    call = f"build_resnet({depth}, stem={stem!r})"
    oracle = copy.deepcopy(make_oracle(depth, stem)).train(training)
    torch.manual_seed(draw(0))
    with calling(call):
        model = check_module(lesson.build_resnet(depth, stem=stem), call).train(training)
    x = torch.randn(count, 3, *size)
    what = f"{call} on images {shape(x)} in {mode_name(training)} mode"
    with torch.no_grad():
        output, ops = record_network(model, x, what, depth)
        if like_the_authors(ops):
            move_strides(oracle)
        expected, oracle_ops = record(oracle, x, "")
        check_tensor(output, expected, what)
        check_layers(model, ops, what)
        randomise(ops)
        before = weights_of(ops)
        _, ops = record_network(model, x, what, depth)
        check_weights_stay(before, what)
        copy_to_oracle(pair_ops(ops, oracle_ops, what))
        got, ops = record_network(model, x, what, depth)
        expected, oracle_ops = record(oracle, x, "")

    def explain():
        pairs = pair_ops(ops, oracle_ops, what)
        index = first_difference(pairs)
        if index is None:
            return (
                multiple_of_mean(ops, oracle_ops)
                or wrong_mean(ops, oracle, x)
                or wrong_head(got, expected, ops, oracle_ops)
            )
        is_stem_counted = stem == "cifar"  # whose convolution is a 3x3 one, too
        place = place_of_convolution(index + (not is_stem_counted), depth)
        layers = wrong_layers(ops, oracle_ops, depth)
        if layers:
            return layers
        own, oracle_conv = convolution_pairs(pairs)[index]
        if own.input.shape != oracle_conv.input.shape:
            return (
                f"what reaches {place} is {shape(own.input)}, expected {shape(oracle_conv.input)}"
            )
        return (
            wrong_between(pairs, ops, oracle_ops, lambda index: place, index)
            or f"what reaches {place} is not correct"
        )

    check_close(got, expected, what, explain, tolerance=1e-3)


def multiple_of_mean(ops, oracle_ops):
    """That the linear layer gets a multiple of the mean over all positions, in words, or None."""
    got = of_kind(ops, "linear")[0].input
    mean = of_kind(oracle_ops, "linear")[0].input
    factor = (got.sum() / mean.sum()).item()
    if not is_close(got, factor * mean, 1e-3) or abs(factor - 1) < 1e-3:
        return None
    return (
        f"what reaches the linear layer is {factor:.3g} times the mean over all positions; divide "
        "by the number of positions that this image has"
    )


MEANS = {  # what may stand in the place of the mean over all positions: what that gives
    "the maximum over the width of the means over the height": lambda y: y.mean(2).amax(2),
    "the maximum over the height of the means over the width": lambda y: y.mean(3).amax(2),
    "a mean over numbers of several channels (reshape does not swap dimensions)": (
        lambda y: y.flatten(1).unflatten(1, (-1, y.shape[1])).mean(1)
    ),
}


def wrong_mean(ops, oracle, x):
    """What reaches the linear layer in the place of the mean, in words, or None."""
    features = []
    hook = oracle.layer4.register_forward_hook(lambda layer, inputs, y: features.append(y))
    with torch.no_grad():
        oracle(x)
    hook.remove()
    got = of_kind(ops, "linear")[0].input
    found = [words for words, mean in MEANS.items() if is_close(got, mean(features[0]), 1e-3)]
    if len(found) != 1:
        return None
    return (
        f"what reaches the linear layer is, for each channel, {found[0]}; "
        "take the mean over all positions"
    )


def record_network(model, x, what, depth):
    """A network's output and what ran; a layer that does not fit is named.

    Raises Wrong if it changes its images.
    """
    images = x.clone()
    try:
        output, ops = record(model, images, what)
    except Wrong as wrong:
        raise wrong.because(wrong_block(wrong.ops, depth) or wrong_channels(wrong)) from None
    if not equal(images, x):
        raise Wrong(
            f"{what} changed the images themselves. "
            "Avoid inplace=True and methods that end in _ on them."
        )
    return output, ops


WIDTHS = [  # depth, width, classes, stem
    (18, 4, 7, "cifar"),
    (50, 4, 7, "cifar"),
    (10, 80, 7, "cifar"),
    (10, 4, 1, "cifar"),
    (10, 4, 1000, "cifar"),
    (10, 16, 10, "imagenet"),
    (50, 16, 7, "imagenet"),
]


@pytest.mark.task("4.2")
@pytest.mark.parametrize("depth, width, classes, stem", WIDTHS)
def test_network_takes_a_width(lesson, depth, width, classes, stem):
    call = f"build_resnet({depth}, width={width}, num_classes={classes}, stem={stem!r})"
    with calling(call):
        model = lesson.build_resnet(depth, width=width, num_classes=classes, stem=stem)
        model = check_module(model, call).eval()
    size = 16 if stem == "cifar" else 40
    x = torch.randn(2, 3, size, size)
    what = f"{call} on images {shape(x)}"
    with torch.no_grad():
        output, ops = record_network(model, x, what, depth)
        _, oracle_ops = record(make_oracle(depth, stem), x, "")
    check_tensor(output, torch.empty(2, classes), what)
    check_stem(ops, oracle_ops, width, call)
    convs = convolutions(ops, 3)
    oracle_convs = convolutions(oracle_ops, 3)
    channels = [len(conv.weight) for conv in convs]
    expected = [len(conv.weight) * width // 64 for conv in oracle_convs]
    if channels != expected:
        raise Wrong(
            f"{call}: its 3x3 convolutions output {channels} channels, expected {expected}: "
            "width, 2 * width, 4 * width and 8 * width in the four stages."
        )
    heights = [conv.output.shape[2] for conv in convs]
    expected = [conv.output.shape[2] for conv in oracle_convs]
    if heights != expected:
        raise Wrong(
            f"{what}: the outputs of its 3x3 convolutions are {heights} high, expected {expected}. "
            "At any width, the first block of each stage but the first has stride 2."
        )


def check_stem(ops, oracle_ops, width, call):
    """Raise Wrong unless a network's first convolution has the stem's kernel and channels."""
    got = [kernel(op) for op in of_kind(ops, "conv2d")[:1]]
    expected = kernel(of_kind(oracle_ops, "conv2d")[0])
    if got not in ([], [expected]):
        raise Wrong(
            f"{call} starts with a {got[0]}x{got[0]} convolution, expected one of "
            f"{expected}x{expected}: the stem is make_stem(stem, width), whatever the depth, the "
            "width and num_classes are."
        )
    channels = [len(op.weight) for op in of_kind(ops, "conv2d")[:1]]
    if channels not in ([], [width]):
        raise Wrong(
            f"{call}: the stem's convolution outputs {counted(channels[0], 'channel')}, expected "
            f"width = {width}: the stem is make_stem(stem, width)."
        )


@pytest.mark.task("4.2")
@pytest.mark.parametrize("depth", [18, 50])
def test_copy_of_a_network_computes_with_its_own_layers(lesson, depth):
    call = f"build_resnet({depth}, width=16)"
    with calling(call):
        model = check_module(lesson.build_resnet(depth, width=16), call).eval()
    x = torch.randn(2, 3, 9, 8)
    what = f"copy.deepcopy(model) of model = {call}"
    with calling(f"{what}, called on images {shape(x)},"), torch.no_grad():
        model(x)  # lazy layers take their shapes
        copied = copy.deepcopy(model)
        before = copied(x)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(2)
        after = copied(x)
    check_tensor(before, torch.empty(2, 10), what)
    if not is_close(after, before):
        raise Wrong(
            f"{what} gives other logits after the weights of model have changed. Keep layers as "
            "attributes of modules, and take them from self in forward, so that a copy has its own."
        )


@pytest.mark.task("4.2")
@pytest.mark.parametrize("depth", [18, 50])
def test_new_network_starts_from_its_shortcuts(lesson, depth):
    call = f"build_resnet({depth}, width=16)"
    check_share_nothing(lesson, lambda file: file.build_resnet(depth, width=16), call)
    call = f"a new network of build_resnet({depth})"
    make = getattr(torchvision.models, f"resnet{depth}")
    oracle = make(num_classes=10, zero_init_residual=True)
    oracle.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    oracle.maxpool = nn.Identity()
    with calling(call):
        model = check_module(lesson.build_resnet(depth), call)
    if any(module.training is not True for module in model.modules()):
        raise Wrong(f"{call} has parts in eval mode. New modules are in train mode: leave it.")
    check_statistics(model, call)
    x = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        logits, ops = record_network(model, x, call, depth)
        expected, oracle_ops = record(oracle, x, "")
    check_tensor(logits, expected, call)
    if not logits.isfinite().all():
        raise Wrong(f"{call} outputs logits that are not finite. Leave the layers as they start.")
    check_registered(model, ops, call)
    check_start(ops, oracle_ops, call)


@pytest.mark.task("4.2")
@pytest.mark.parametrize("depth", [18, 50])
def test_new_network_does_not_seed_torch(lesson, depth):
    call = f"build_resnet({depth}, width=4)"
    check_seeds_nothing(lambda: lesson.build_resnet(depth, width=4), call)


@pytest.mark.task("4.2")
@pytest.mark.parametrize("depth", [20, 18.7, "18", 152])
def test_network_refuses_other_depths(lesson, depth):
    if depth in lesson.LAYERS:  # somebody has added it
        return
    with calling("build_resnet(18, width=16)"):
        lesson.build_resnet(18, width=16)
    call = f"build_resnet({depth!r}, width=16)"
    raised = "nothing"
    try:
        lesson.build_resnet(depth, width=16)
    except ValueError:
        return
    except Exception as error:
        raised = type(error).__name__
    raise Wrong(
        f"{call} raised {raised}, expected a ValueError. "
        "Leave the lines above the TODO as they are."
    )


# Task 4.3


class Odd(nn.Module):
    """A network with layers that are easily miscounted.

    It has grouped, dilated and strided convolutions with biases, a layer that runs twice, and a
    linear layer on a sequence, which it holds in two places. It takes images of any dtype. It
    notes what it is run on: (images, whether gradients are on).
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 7), stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8))
        self.tokens = nn.Linear(8, 12)
        self.again = nn.ModuleList([self.tokens])
        self.last = nn.Linear(12, 5, bias=False)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.runs = []

    def forward(self, x):
        self.runs.append((len(x), torch.is_grad_enabled()))
        x = x.to(self.scale.dtype) * self.scale
        x = self.grouped(self.grouped(self.first(x)))
        x = self.depthwise(x).flatten(2).transpose(1, 2)
        return self.last(self.tokens(x).relu().mean(dim=1))


class Standardised(nn.Conv2d):
    """A convolution with weights of mean zero (weight standardisation)."""

    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, padding=self.padding)


def expected_macs(model, size):
    """Half of what torch's own flop counter says."""
    model = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *size, device="meta"))
    return counter.get_total_flops() // 2


def layer_sum(model, size, count, layers):
    """The sum of count(layer, input, output) over every run of these layers, on a copy."""
    twin = copy.deepcopy(model).to("meta").eval()
    counts = []

    def add(layer, inputs, output):
        counts.append(count(layer, inputs[0], output))

    for own, layer in zip(model.modules(), twin.modules()):
        if any(own is wanted for wanted in layers) and hasattr(layer, "weight"):
            layer.register_forward_hook(add)
    twin(torch.zeros(1, *size, device="meta"))
    return sum(counts)


def layers_of(model, *kinds):
    """All layers of these kinds in a model."""
    return [module for module in model.modules() if isinstance(module, kinds)]


def multiply_adds(layer, x, y):
    """What a run of a layer should count."""
    return y.numel() * layer.weight[0].numel()


def with_square_images(layer, x, y, side=-1):
    if y.dim() < 4:
        return multiply_adds(layer, x, y)
    return layer.weight.numel() * y.shape[side] ** 2


def with_square_kernel(layer, x, y):
    height, width = getattr(layer, "kernel_size", (1, 1))
    return multiply_adds(layer, x, y) * height // width


def with_positions_of_input(layer, x, y):
    if x.dim() < 4:
        return multiply_adds(layer, x, y)
    return layer.weight.numel() * x[0, 0].numel()


def with_linear_once(layer, x, y):
    positions = 1 if isinstance(layer, nn.Linear) else y[0, 0].numel()
    return layer.weight.numel() * positions


def with_later_dimensions(layer, x, y):
    return layer.weight.numel() * math.prod(y.shape[2:])


def mac_mistakes(model, size, expected):
    """What the known wrong ways give for count_macs."""
    layers = layers_of(model, nn.Conv2d, nn.Linear)
    convs = layers_of(model, nn.Conv2d)
    norms = layers_of(model, nn.BatchNorm2d)
    childless = [layer for layer in layers if not list(layer.children())]
    inside = [layer for layer in layers if layer is not model]
    trainable = [layer for layer in layers if layer.weight.requires_grad]
    torchs_own = [layer for layer in layers if type(layer) in (nn.Conv2d, nn.Linear)]

    def of(count, layers=layers):
        return lambda: layer_sum(model, size, count, layers)

    def counting_each_layer_once():
        counts = {}

        def note(layer, x, y):
            counts[layer] = multiply_adds(layer, x, y)
            return 0

        layer_sum(model, size, note, layers)
        return sum(counts.values())

    def counting_norms():
        return expected + layer_sum(model, size, lambda layer, x, y: y.numel(), norms)

    def hooking_each_name():
        names = Counter(id(layer) for _, layer in model.named_modules(remove_duplicate=False))
        held_twice = [layer for layer in layers if names[id(layer)] > 1]
        return expected + layer_sum(model, size, multiply_adds, held_twice)

    def with_bias_once():
        return expected + sum(layer.bias.numel() for layer in layers if layer.bias is not None)

    own_layers = list(model.children())
    return {
        "the sum is kept in int32, which ends at 2,147,483,647": (
            (expected + 2**31) % 2**32 - 2**31 if expected >= 2**31 else math.nan
        ),
        "it counts operations, two for each multiply-add": 2 * expected,
        "the result is divided by a million; return multiply-adds": expected / 1e6,
        "the result is divided by 10^9; return multiply-adds": expected / 1e9,
        "it adds the sizes of the biases; they are left out": with_bias_once,
        "a layer that the model holds in two places gets two hooks; model.modules() has it once": (
            hooking_each_name
        ),
        "it counts the additions only, one fewer in each row": of(
            lambda layer, x, y: y.numel() * (layer.weight[0].numel() - 1)
        ),
        "it takes the positions of what reaches a convolution; take those of what it outputs": of(
            with_positions_of_input
        ),
        "it multiplies by the whole weight; take one row, weight[0]": of(
            lambda layer, x, y: y.numel() * layer.weight.numel()
        ),
        "it leaves the linear layers out": of(multiply_adds, convs),
        "it leaves out layers that have modules inside, as weight norm adds one": of(
            multiply_adds, childless
        ),
        "it leaves out classes that are made from nn.Conv2d; take isinstance": of(
            multiply_adds, torchs_own
        ),
        "the model itself can be such a layer: model.modules() has it, too, and "
        "model(image) runs its hooks, which model.forward does not": of(multiply_adds, inside),
        "it counts parameters, not multiply-adds": (
            sum(parameter.numel() for parameter in model.parameters())
        ),
        "it takes the size of what reaches a layer; take that of what it outputs": of(
            lambda layer, x, y: x.numel() * layer.weight[:, 0].numel()
        ),
        "it takes images to be as high as wide; height and width can differ": of(
            with_square_images
        ),
        "it takes images to be as wide as high; height and width can differ": of(
            functools.partial(with_square_images, side=-2)
        ),
        "it leaves out frozen layers": of(multiply_adds, trainable),
        "it leaves out the size of the kernel": of(
            lambda layer, x, y: y.numel() * layer.weight.shape[1]
        ),
        "it counts one output channel of each convolution; there are many": of(
            lambda layer, x, y: multiply_adds(layer, x, y) // (len(y[0]) if y.dim() == 4 else 1)
        ),
        "it adds the biases; they are left out": of(
            lambda layer, x, y: y.numel() * (layer.weight[0].numel() + (layer.bias is not None))
        ),
        "a layer that runs twice counts once; "
        "count in a list, not for each layer": counting_each_layer_once,
        "it takes kernels to be as high as wide; height and width can differ": of(
            with_square_kernel
        ),
        "a linear layer counts once, though it runs at every position of a sequence: "
        "take output.numel()": of(with_linear_once),
        "a linear layer's positions are taken from the dimensions after the second, but its "
        "numbers are the last dimension; take output.numel()": of(with_later_dimensions),
        "it counts batch norms, too": counting_norms,
        "it does not use shape": lambda: expected_macs(model, (3, 32, 32)),
        "it looks at the model's own layers only, not at those inside its parts: "
        "take model.modules()": of(multiply_adds, own_layers) if own_layers else math.nan,
        "groups are forgotten: each output sees in_channels / groups channels": of(
            lambda layer, x, y: multiply_adds(layer, x, y) * getattr(layer, "groups", 1)
        ),
    }


def whole_number(value, what):
    """A count that the learner's code returned, as an int."""
    count = number(value, what)
    if type(count) is float:
        raise Wrong(f"{what} returned a float, {count:.10g}, expected a whole number.")
    return count


def check_macs(lesson, model, size, name):
    """Raise Wrong unless count_macs gives what torch's flop counter does."""
    what = f"count_macs({name}, {size})"
    skeleton = copy.deepcopy(model).to("meta")
    images = []
    watch = model.register_forward_pre_hook(lambda model, inputs: images.append(inputs[0]))
    with calling(what):
        got = whole_number(lesson.count_macs(model, size), what)
    watch.remove()
    expected = expected_macs(skeleton, size)
    if got == expected or any(tuple(image.shape[1:]) != size for image in images):
        check_is_one_image(images, size, what)
        return
    with calling(f"{what}, a second time,"), Recorder() as recorder:
        again = lesson.count_macs(model, size)
    if again != got:
        raise Wrong(
            f"{what} is {got:,}, expected {expected:,}.",
            f"something is kept from call to call: called again, it gives {again:,}",
        )
    mistakes = mac_mistakes(skeleton, size, expected)
    if [len(image) for image in images] == [2]:
        mistakes = {"it runs two images, so it counts twice": 2 * expected}
    hint = likeliest(mistakes, lambda known: got == known)
    if not hint and not recorder.ops:
        hint = advice("the model is not run in this call; run it, with a hook on each layer")
    if not hint:
        hint = (
            " It is the sum, over every run of a convolution or linear layer, "
            "of the numbers that it outputs times those of one filter, weight[0]."
        )
    raise Wrong(f"{what} is {got:,}, expected {expected:,}.{hint}")


def check_is_one_image(images, size, what):
    """Raise Wrong if the model has run on more than one image, or on images of another shape."""
    for image in images:
        if tuple(image.shape) != (1, *size):
            todo = " In eval mode, one is enough for batch norm." if len(image) > 1 else ""
            raise Wrong(
                f"{what} runs the model on images {shape(image)}, expected one image of this "
                f"shape: {(1, *size)}.{todo}"
            )


@pytest.mark.task("4.3")
def test_parameters_are_all_and_each_once(lesson):
    model = Odd()
    model.last.weight.requires_grad_(False)
    model.again = model.tokens
    model.other = nn.Linear(8, 12, bias=False)
    model.other.weight = model.tokens.weight  # one parameter of two layers
    before = Everything(disturb(model))
    with calling("count_parameters(model)"):
        got = whole_number(lesson.count_parameters(model), "count_parameters(model)")
    before.check("count_parameters(model)")
    expected = sum(parameter.numel() for parameter in model.parameters())
    if got == expected:
        return
    buffers = sum(buffer.numel() for buffer in model.buffers())
    convs_and_linear = dict.fromkeys(
        parameter
        for layer in layers_of(model, nn.Conv2d, nn.Linear)
        for parameter in layer.parameters()
    )
    tokens = sum(parameter.numel() for parameter in model.tokens.parameters())
    mistakes = {
        "it leaves out what is frozen": expected - model.last.weight.numel(),
        "a parameter that two layers share counts twice": expected + model.tokens.weight.numel(),
        "a parameter counts once for each layer that has it, and a layer that the model holds "
        "twice counts twice": expected + tokens + model.tokens.weight.numel(),
        "it counts layer by layer, so that what two layers share counts twice, "
        "and what is in no layer is left out; take model.parameters()": (
            expected + model.tokens.weight.numel() - model.scale.numel()
        ),
        "it counts weights of two dimensions and more only": sum(
            parameter.numel() for parameter in model.parameters() if parameter.ndim > 1
        ),
        "it leaves out the biases": sum(
            parameter.numel() for name, parameter in model.named_parameters() if "bias" not in name
        ),
        "it leaves out the batch norms, and what is in no layer": sum(
            parameter.numel() for parameter in convs_and_linear
        ),
        "parameters of equal size count once": sum(
            {parameter.numel() for parameter in model.parameters()}
        ),
        "it counts a layer again for each module that holds it; take model.parameters()": sum(
            parameter.numel() for module in model.modules() for parameter in module.parameters()
        ),
        "it counts bytes, four for each number": 4 * expected,
        "it counts buffers, too": expected + buffers,
        "it counts a layer twice that the model holds twice": expected + tokens,
        "it leaves out model.scale, which is in no layer; take model.parameters()": (
            expected - model.scale.numel()
        ),
        "it counts tensors, not the numbers in them": len(list(model.parameters())),
        "it counts all of state_dict(): buffers, too, and shared parameters twice": sum(
            tensor.numel() for tensor in model.state_dict().values()
        ),
        "it counts what is in state_dict(): running statistics, too, and shared parameters twice": (
            sum(t.numel() for t in model.state_dict().values() if t.is_floating_point())
        ),
    }
    cause = likeliest(mistakes, lambda known: got == known)
    raise Wrong(f"count_parameters(model) is {got}, expected {expected}.{cause}")


@pytest.mark.task("4.3")
def test_parameters_count_wherever_they_lie(lesson):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    model.to(memory_format=torch.channels_last)
    call = "count_parameters(model) of a model in the memory format channels_last"
    with calling(call):
        got = whole_number(lesson.count_parameters(model), call)
    if got != 128:
        cause = None
        if got == 120:
            cause = "parameters of equal values count as one; shared ones are the same object"
        raise Wrong(f"{call} is {got}, expected 128.", cause)
    call = 'count_parameters(model) of a model on another device, torch\'s "meta" here,'
    with calling(call):
        got = whole_number(lesson.count_parameters(model.to("meta")), call)
    if got != 128:
        raise Wrong(f"{call} is {got}, expected 128. Tell parameters apart by id, if at all.")
    model = nn.Linear(3, 4).double()
    model.gain = nn.Parameter(torch.tensor(1.0))
    call = "count_parameters(model) of 16 numbers in float64 and a parameter without dimensions"
    with calling(call):
        got = number(lesson.count_parameters(model), call)  # numpy's product of no sizes is 1.0
    if got != 17:
        cause = "it counts bytes, and takes each number for four" if got == 33 else None
        raise Wrong(f"{call} is {got}, expected 17.", cause)
    call = "count_parameters(model) of a linear layer from 5,000 to 4,999 numbers"
    with calling(call):
        got = lesson.count_parameters(nn.Linear(5_000, 4_999, device="meta"))
    expected = 4_999 * 5_001
    if whole_number(got, call) != expected:
        raise Wrong(
            f"{call} is {got:,}, expected {expected:,}. Count in Python's whole numbers: float32 "
            "has none that is odd and larger than 16,777,216."
        )


@pytest.mark.task("4.3")
@pytest.mark.parametrize("size", [(3, 32, 32), (3, 17, 29)], ids=str)
def test_macs_of_odd_networks(lesson, size):
    name = "a network with groups and dilation, and a layer that runs twice"
    model = Odd()
    model.last.requires_grad_(False)
    check_macs(lesson, model, size, name)
    channels, height, width = size
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 4))
    check_macs(lesson, classifier, size, "a linear classifier")
    convs = nn.Sequential(
        Standardised(3, 4, 3, padding="same"),
        weight_norm(nn.Conv2d(4, 5, 3)),
        nn.Conv2d(5, 6, 3),
    )
    name = "a network with a class made from nn.Conv2d, padding='same' and weight norm"
    check_macs(lesson, convs, size, name)


@pytest.mark.task("4.3")
@pytest.mark.parametrize("size", [(3, 32, 32), (3, 17, 29)], ids=str)
def test_macs_of_a_model_that_is_a_layer(lesson, size):
    check_macs(lesson, nn.Conv2d(3, 6, 3, groups=3), size, "a single convolution")
    check_macs(lesson, nn.Linear(size[-1], 5), size, "a single linear layer")


@pytest.mark.task("4.3")
@pytest.mark.parametrize("depth", DEPTHS)
def test_macs_are_the_flop_counters(lesson, depth):
    name = f"torchvision's ResNet-{depth} with the stem of stem='cifar'"
    model = copy.deepcopy(make_oracle(depth, "cifar"))  # which may come back changed
    check_macs(lesson, model, (3, 32, 32), name)
    if depth == 50:
        model = copy.deepcopy(make_oracle(depth, "imagenet"))
        check_macs(lesson, model, (3, 63, 95), "torchvision's ResNet-50")


@pytest.mark.task("4.3")
@MODES
def test_counting_leaves_no_trace(lesson, training):
    model = Odd().to(torch.bfloat16).train(training)
    model.tokens.weight.requires_grad_(False)
    model.first.bias.requires_grad_(False)
    norm = model.depthwise[1]
    norm.running_mean.fill_(0.5)  # not what they are in a new network
    norm.running_var.fill_(2)
    model.tokens.norm = norm  # which two parts of the model hold now
    disturb(model)
    model.tokens.training = training
    norm.training = not training
    images = []
    watch = model.register_forward_pre_hook(lambda model, inputs: images.append(inputs[0].clone()))
    before = Everything(model)
    what = "count_macs(model)"
    with calling(what):
        counts = [whole_number(lesson.count_macs(model), what) for _ in range(2)]
    try:
        before.check(what)
    except Wrong as wrong:
        raise wrong.because(wrong_modes(lesson, model, training, wrong)) from None
    watch.remove()
    if any(gradients for _, gradients in model.runs):
        raise Wrong("count_macs(model) runs the model with gradients. Say: with torch.no_grad():")
    if counts[0] != counts[1]:
        raise Wrong(
            f"count_macs(model) says {counts[0]:,} first and {counts[1]:,} the second time. "
            "Start each count at 0, and remove the hooks."
        )
    check_is_run_once(images)
    check_settings_stay("count_macs(model)", lambda: lesson.count_macs(model))
    what = "count_macs(model), called within torch.no_grad(),"
    with torch.no_grad():
        before = Everything(model)
        with calling(what):
            lesson.count_macs(model)
        before.check_gradients_on(what)


def wrong_modes(lesson, model, training, wrong):
    """Why a model's modes or running statistics are not as they were, in words, or None."""
    modes = {module.training for module in model.modules()}
    if training and modes == {True} and "in train mode; it was" in str(wrong):
        return (
            "model.train(mode) sets all parts below, too, so that all get the mode of the "
            "model itself; set module.training of each"
        )
    if training and modes == {False} and "in eval mode; it was" in str(wrong):
        return (
            "all of it stays in eval mode; note the mode of each module before model.eval(), and "
            "put it back at the end"
        )
    with contextlib.suppress(Exception):
        if "running_" in str(wrong) and lesson.count_macs(WithAuxiliaryHead(), (3, 9, 12)) == 7_560:
            return (
                "the model itself runs in eval mode, but a part of it does not; model.eval() "
                "switches all parts, whatever mode the model itself is in"
            )
    return None


@pytest.mark.task("4.3")
def test_a_large_count_is_exact(lesson):
    layer = nn.Linear(1001, 1001)
    model = nn.Sequential(nn.Flatten(), *[layer] * 17)
    what = "count_macs(model, (7, 11, 13)) of a linear layer that runs 17 times"
    with calling(what):
        got = whole_number(lesson.count_macs(model, (7, 11, 13)), what)
    expected = 17 * 1001**2
    if got != expected:
        cause = None
        if got == int(torch.tensor(float(expected))):
            cause = "the sum is kept in float32, which rounds numbers above 2**24"
        if got == 17 * expected:
            cause = "a layer that has several names gets a hook for each of them"
        raise Wrong(f"{what} returned {got:,}, expected {expected:,}.", cause)


def check_is_run_once(images):
    """Raise Wrong if the model has run more than once in a call, or not on one image of zeros."""
    if len(images) > 2:
        raise Wrong("count_macs(model) runs the model more than once.")
    if any(image.any() for image in images):
        raise Wrong("count_macs(model) runs the model on other images than zeros.")
    check_is_one_image(images, (3, 32, 32), "count_macs(model)")
    for image in images:
        if image.dtype not in (torch.float32, torch.bfloat16):
            raise Wrong(
                "count_macs(model) of a model with bfloat16 weights runs it on an image of "
                f"{dtype(image)}, expected float32, or the dtype of the weights."
            )


class WithAuxiliaryHead(nn.Module):
    """A network with a second head, which runs in train mode only."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3)
        self.auxiliary = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return (self.head(x), self.auxiliary(x)) if self.training else self.head(x)


@pytest.mark.task("4.3")
def test_macs_are_those_of_eval_mode(lesson):
    what = "count_macs(a network in train mode, with a second head that runs in that mode only)"
    with calling(what):
        got = whole_number(lesson.count_macs(WithAuxiliaryHead(), (3, 9, 12)), what)
    if got != 7_560:
        mistake = "the network runs in train mode" if got == 17_010 else None
        raise Wrong(f"{what} is {got:,}, expected 7,560.", mistake)


@pytest.mark.task("4.3")
def test_macs_of_a_model_that_raises(lesson):
    failure = RuntimeError("from the model")

    def fail(*_):
        raise failure

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model[1].register_forward_pre_hook(fail)
    what = "count_macs(model), where the model raises an error,"
    check_lets_errors_through(what, lambda: lesson.count_macs(model), failure)


@pytest.mark.task("4.3")
def test_parameters_of_a_model_that_has_grown(lesson):
    model = nn.Sequential(nn.Linear(2, 3))
    what = "count_parameters(model)"
    with calling(what):
        lesson.count_parameters(model)
        model.append(nn.Linear(3, 4))
        got = whole_number(lesson.count_parameters(model), what)
    if got != 25:
        mistake = "what an earlier call found is kept and returned again" if got == 9 else None
        raise Wrong(f"{what} is {got} after a layer has been added, expected 25.", mistake)


@pytest.mark.task("4.3")
def test_macs_of_a_model_that_has_grown(lesson):
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)]
    model = nn.Sequential(*layers)
    size = (3, 9, 12)
    check_macs(lesson, model, size, "a model of two convolutions")
    model.append(nn.Conv2d(4, 7, 1))
    check_macs(lesson, model, size, "the same model with a third convolution")


class OnRows(nn.Module):
    """A linear layer on an image's positions, (positions, channels), without a batch dimension."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 7)

    def forward(self, x):
        return self.linear(x[0].flatten(1).T)


@pytest.mark.task("4.3")
def test_macs_of_a_linear_layer_on_every_position(lesson):
    what = "a linear layer whose input is (positions, channels)"
    check_macs(lesson, OnRows(), (3, 9, 12), what)


# Task 4.4


TRAINED = weakref.WeakSet()  # every network that a Fit was given
STARTED_AT_ZERO = set()  # the depths of which a network was seen to start so


class Fit:
    """A stand-in for training: notes the weights that it is given, and changes them."""

    def __init__(self, call, depths, seeds):
        self.call = call
        self.depths = depths
        self.seeds = seeds
        self.networks = []
        self.weights = {}  # (depth, seed): the weights that the network started from

    def __call__(self, network, depth, seed):
        if depth in self.seeds and seed in self.depths:
            raise Wrong(
                f"{self.call}: fit was called with depth {depth} and seed {seed}. "
                "Say fit(network, depth, seed)."
            )
        if (depth, seed) in self.weights:
            raise Wrong(f"train_depths trains depth {depth} from seed {seed} twice.")
        if any(network is other for other in self.networks):
            raise Wrong(
                f"{self.call}: for depth {depth} and seed {seed} fit was given a network that it "
                "has trained before. Build a new one for each run."
            )
        if network in TRAINED:
            raise Wrong(
                f"{self.call}: for depth {depth} and seed {seed} fit was given a network that was "
                "trained in an earlier call of train_depths. Build a new one for each run."
            )
        TRAINED.add(network)
        self.networks.append(network)
        if not all(module.training for module in network.modules()):
            raise Wrong(f"{self.call}: fit was given a network with parts in eval mode.")
        self.check_can_be_trained(network, depth)
        self.check_start(network, depth)
        network.eval()(torch.zeros(1, 3, 16, 16))  # lazy layers take their shapes
        weights = [parameter.detach().clone() for parameter in network.parameters()]
        for weight in weights:
            what = f"a parameter of the network of depth {depth} that fit is given"
            check_tensor(weight, weight, what)
        self.weights[depth, seed] = weights
        torch.rand(len(self.weights))  # training uses up random numbers
        with torch.no_grad():  # and changes the network
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.add_(1)
        return row_of(depth, seed)

    def check_can_be_trained(self, network, depth):
        """Raise Wrong unless gradients can be computed in fit, and for each parameter."""
        if not torch.is_grad_enabled():
            raise Wrong(
                f"{self.call} calls fit with gradients switched off, so fit cannot train. End "
                "torch.no_grad() or torch.inference_mode() before fit is called."
            )
        what = f"{self.call}: the network of depth {depth} that fit is given"
        tensors = [*drawn_parameters(network), *network.buffers()]
        if any(tensor.is_inference() for tensor in tensors):
            raise Wrong(
                f"{what} was made within torch.inference_mode(): no optimizer can train it."
            )
        if not all(parameter.requires_grad for parameter in network.parameters()):
            raise Wrong(f"{what} has parameters that do not require gradients. Freeze none.")

    def check_start(self, network, depth):
        """Raise Wrong unless the last batch norm of each block starts at zero."""
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        zeros = sum(not norm.weight.any() for norm in norms)
        if norms and zeros != sum(BLOCKS[depth]):
            cause = None
            if self.has_trained_weights(network):
                cause = (
                    "it has weights of a network that was trained before; draw new ones for each"
                )
            elif zeros == 0 and depth in STARTED_AT_ZERO:
                cause = (
                    "as they did in an earlier call, it has been trained in that call; build each "
                    "network anew (state_dict() gives a network's tensors themselves)"
                )
            raise Wrong(
                f"{self.call}: in the network of depth {depth} that fit is given, {zeros} batch "
                f"norms start at zero, expected {sum(BLOCKS[depth])}, one per block: "
                "initialise leaves them alone.",
                cause,
            )
        STARTED_AT_ZERO.add(depth)

    def has_trained_weights(self, network):
        """Whether a convolution of a network has the weights of one that was trained before."""
        trained = []
        for other in self.networks:
            if other is not network:
                trained += [weight for weight in other.parameters() if weight.ndim == 4]
        own = [weight for weight in drawn_parameters(network) if weight.ndim == 4]
        return any(equal(weight, other) for weight in own for other in trained)


def row_of(depth, seed):
    """What the stand-in returns for a run; a row may be empty, as for seed 0."""
    if seed == 0:
        return {}
    return {"row": (depth, seed)}


SWEPT_DEPTHS = (10, 18, 34)
SWEPT_SEEDS = (3, 5, 0)
FAR_SEEDS = (  # many of them agree in their last digits or bits, or in their first seven digits
    42,  # which people write where none is given
    1,
    1_001,
    10_001,
    1_000_001,
    2**16 + 1,
    2**24 + 8,
    2**24 + 9,
    2**31 + 4,  # 5 and this one differ by 2**31 - 1
    2**32 - 1,
)
ALL_RUNS = set(itertools.product(SWEPT_DEPTHS, SWEPT_SEEDS))


def sweep(lesson, depths=SWEPT_DEPTHS, seeds=SWEPT_SEEDS, **share):
    """What train_depths returns with a stand-in for training, that, and the call in words."""
    more = "".join(f", {name}={value}" for name, value in share.items())
    call = f"train_depths(fit, {tuple(depths)}, {tuple(seeds)}, width=4{more})"
    fit = Fit(call, depths, seeds)
    try:
        with calling(call):
            rows = lesson.train_depths(fit, depths, seeds, width=4, **share)
    except Wrong as wrong:
        cause = None
        if empties_its_lists(lesson, depths, seeds):
            cause = "depths and seeds belong to the caller; go through them, and change neither"
        raise wrong.because(cause) from None
    rows = plain(rows, call, dict)
    check_rows(rows, fit.weights, call)
    return rows, fit.weights, call


def empties_its_lists(lesson, depths, seeds):
    """Whether train_depths, if it is given lists, takes something off them."""
    own_depths = list(depths)
    own_seeds = list(seeds)
    with contextlib.suppress(Exception):
        lesson.train_depths(lambda *_: {}, own_depths, own_seeds, width=4)
    return len(own_depths) < len(depths) or len(own_seeds) < len(seeds)


def check_rows(rows, weights, call):
    """Raise Wrong unless there is a row for each network that was trained."""
    are_reversed = all(key[::-1] in weights for key in rows if type(key) is tuple)
    for key, row in rows.items():
        is_pair = type(key) is tuple and [type(part) for part in key] == [int, int]
        if not is_pair:
            raise Wrong(
                f"{call}: one of its keys is {in_words(key)}, expected (depth, seed), two ints."
            )
        is_fits = type(row) is dict and row == row_of(*key)
        if key not in weights and not is_fits and not are_reversed:
            raise Wrong(
                f"{call}: it has a row for {key}, for which it did not call fit. Return a row for "
                "each run that this process does, and for no other."
            )
        if type(row) is not dict:
            raise Wrong(f"{call}: one of its rows is {in_words(row)}, expected what fit returned.")
    if are_reversed and not all(key in weights for key in rows):
        raise Wrong(f"{call}: its keys are (seed, depth), expected (depth, seed).")
    for key, row in rows.items():
        if row == row_of(*key):
            continue
        if row.get("row") == key:
            raise Wrong(f"{call}: at {key} is {row}, not what fit returned, whole and unchanged.")
        cause = None
        if len(rows) > 1 and all(other is row for other in rows.values()):
            cause = "all keys have one and the same dict; keep each that fit returns"
        raise Wrong(f"{call}: at {key} it has what fit returned for another network, {row}.", cause)
    empty = {key for key in weights if not row_of(*key)}
    if empty and set(weights) - set(rows) == empty:
        raise Wrong(
            f"{call} leaves out {sorted(empty)}, for which fit returned an empty dict. "
            "Keep every row, whatever it holds."
        )
    if set(weights) > set(rows):
        raise Wrong(
            f"{call} trains all {len(weights)} networks and returns {len(rows)}. "
            "Train only those of this process's share."
        )
    if set(weights) != set(rows):
        cause = None
        if set(rows) > set(weights):  # only fit makes such rows
            cause = "rows of an earlier call are among them; start with an empty dict in each call"
        raise Wrong(
            f"{call}: it trained {sorted(weights)}, but returns rows for {sorted(rows)}.", cause
        )


@pytest.mark.task("4.4")
def test_sweep_trains_every_depth_from_every_seed(lesson):
    rows, weights, call = sweep(lesson)
    if set(rows) != ALL_RUNS:
        raise Wrong(
            f"{call} returned the keys {sorted(rows)}, "
            f"expected (depth, seed) for {sorted(ALL_RUNS)}."
        )
    for (depth, _), network_weights in weights.items():
        convs = [weight for weight in network_weights if weight.ndim == 4]
        count = sum(conv.shape[2] == 3 for conv in convs)
        convs_per_block = 1 if depth == 50 else 2
        expected_count = 1 + convs_per_block * sum(BLOCKS[depth])
        if count != expected_count:
            raise Wrong(
                f"{call}: for depth {depth} fit was given a network with {count} 3x3 convolutions, "
                f"expected {expected_count}."
            )
        check_width(network_weights, f"{call}: ResNet-{depth}")
        for conv in convs:
            expected = (2 / (conv.shape[2] ** 2 * len(conv))) ** 0.5
            if conv.numel() > 100 and not 0.65 < conv.std() / expected < 1.5:
                raise Wrong(
                    f"{call}: the convolutions, or some of them, are not drawn by initialise. "
                    "Say network.apply(initialise)."
                )


@pytest.mark.task("4.4")
def test_sweep_of_bottlenecks(lesson):
    _, weights, call = sweep(lesson, depths=(50, 101), seeds=(3,))
    for (depth, _), network_weights in weights.items():
        check_width(network_weights, f"{call}: ResNet-{depth}")


def check_width(weights, what):
    """Raise Wrong unless a network in a sweep has the width that the sweep asks for."""
    width = next(len(weight) for weight in weights if weight.ndim == 4 and weight.shape[1] == 3)
    if width != 4:
        raise Wrong(f"{what} has the width {width}, expected 4. Pass width on.")


@pytest.mark.task("4.4")
@pytest.mark.parametrize("world_size", [2, 4, 10])
def test_processes_share_the_sweep(lesson, world_size):
    rows_alone, weights_alone, _ = sweep(lesson)
    shares = [sweep(lesson, rank=rank, world_size=world_size) for rank in range(world_size)]
    trained = set()
    for rows, _, call in shares:
        for key in rows:
            if key in trained:
                raise Wrong(
                    f"{call}: {key} is in the share of another process, too.",
                    shared_twice([set(rows) for rows, _, _ in shares], set(rows_alone)),
                )
        trained |= set(rows)
    missing = set(rows_alone) - trained
    if missing:
        raise Wrong(f"train_depths: of {world_size} processes none trains {sorted(missing)}.")
    sizes = [len(rows) for rows, _, _ in shares]
    if max(sizes) - min(sizes) > 1:
        raise Wrong(
            f"train_depths: {world_size} processes get {sizes} runs. Deal them out evenly, "
            "from the list of all (depth, seed)."
        )
    check_every_nth(shares, world_size)
    for _, weights, call in shares:
        differing = [key for key in weights if not all_equal(weights[key], weights_alone[key])]
        if not differing:
            continue
        cause = None
        if len(differing) < len(weights) and {seed for _, seed in differing} == {0}:
            todo = "With the other seeds it does not: 'if seed' takes 0 for no seed."
        elif depends_on_rank([weights for _, weights, _ in shares], weights_alone):
            todo = "Only process 0 starts as it should: the seed must not depend on rank."
        else:
            todo = (
                "Call torch.manual_seed(seed), build_resnet and network.apply(initialise) right "
                "after one another, for each run."
            )
            cause = wrong_start(lesson, weights_alone, weights)
        raise Wrong(
            f"{call}: {differing[0]} starts from other weights than in a run by one process. "
            f"{todo}",
            cause,
        )


def wrong_start(lesson, expected, weights):
    """Why networks start from other weights than in another call, in words, or None."""
    if runs_at_once(lesson):
        return "runs go on at once, and draw from torch's one random generator; do one at a time"
    for one, other in itertools.combinations(expected, 2):
        if one[0] == other[0] and all_equal(expected[one], expected[other]):
            return (
                f"in one call {one} and {other} start from the same weights; each (depth, seed) "
                "needs a network of its own, drawn from its own seed"
            )
    if all(all_equal(linear(weights[key]), linear(expected[key])) for key in weights):
        return (
            "the linear layer, which build_resnet draws, starts as it should, but the "
            "convolutions, which initialise draws, do not; let nothing come between the two"
        )
    return None


def linear(weights):
    """The weights of a network's linear layer."""
    return [weight for weight in weights if weight.ndim == 2]


def runs_at_once(lesson):
    """Whether train_depths calls fit before an earlier call of fit has ended, as threads do."""
    running = []
    counts = []

    def fit(network, depth, seed):
        running.append(seed)
        counts.append(len(running))
        time.sleep(0.05)
        running.remove(seed)
        return {}

    with contextlib.suppress(Exception):
        lesson.train_depths(fit, (10,), SWEPT_SEEDS, width=4)
    return max(counts, default=0) > 1


def depends_on_rank(shares, weights_alone):
    """Whether process 0 alone starts networks, of which it has several, as one process would."""

    def agrees(weights):
        return [all_equal(weights[key], weights_alone[key]) for key in weights]

    if len(shares[0]) < 2 or not all(agrees(shares[0])):
        return False
    return not any(any(agrees(weights)) for weights in shares[1:])


def shared_twice(shares, runs):
    """Why several processes do the same runs, in words, or None."""
    if all(share == runs for share in shares):
        return "rank and world_size are not used; each process does all runs"
    if all(share == shares[0] for share in shares):
        return "rank is not used; process number rank begins with run number rank"
    world_size = len(shares)
    dealt = shares[: len(runs)]
    if world_size > len(runs) and sum(map(len, dealt)) == len(runs) == len(set().union(*dealt)):
        return (
            f"there are {len(runs)} runs for {world_size} processes, so the last ones have none; "
            "they return {}"
        )
    return None


def check_every_nth(shares, world_size):
    """Raise Wrong unless each process does every world_size-th run, by depth or by seed."""
    by_depth = list(itertools.product(SWEPT_DEPTHS, SWEPT_SEEDS))
    by_seed = sorted(by_depth, key=lambda key: SWEPT_SEEDS.index(key[1]))
    sets = [set(rows) for rows, _, _ in shares]
    for order in (by_depth, by_seed):
        if sets == [set(order[rank::world_size]) for rank in range(world_size)]:
            return
    _, _, call = shares[0]
    cause = None
    for order in (by_depth, by_seed):
        first_ones = set(order[: len(sets[0])])
        if sets[0] == first_ones and len(sets[0]) > 1:
            cause = (
                "each process takes neighbours in the list, so that one gets all the small "
                "networks; take every world_size-th"
            )
        dealt = [set(order[rank::world_size]) for rank in range(world_size)]
        if len(sets[0]) > 1 and sorted(map(sorted, sets)) == sorted(map(sorted, dealt)):
            cause = "it does another process's share; count from 0, so that rank 0 does run 0"
    raise Wrong(
        f"{call} trains {sorted(sets[0])}, expected every world_size-th run "
        f"of the list, such as {sorted(by_depth[0::world_size])}.",
        cause,
    )


def all_equal(tensors, others):
    """Whether two lists hold the same tensors."""
    return all(equal(tensor, other) for tensor, other in zip(tensors, others))


@pytest.mark.task("4.4")
@pytest.mark.parametrize("kind", [RuntimeError, OSError, KeyError])
def test_errors_of_fit_come_through(lesson, kind):
    failure = kind("from fit")
    seeds = []

    def fit(network, depth, seed):
        seeds.append(seed)
        if len(seeds) == 2:
            raise failure
        return {}

    call = f"train_depths(fit, [10], [3, 5, 0], width=4) with a fit that raises {failure!r}"
    check_lets_errors_through(
        call, lambda: lesson.train_depths(fit, [10], [3, 5, 0], width=4), failure
    )


@pytest.mark.task("4.4")
def test_seeds_differ_and_repeat(lesson):
    _, weights, _ = sweep(lesson)
    _, weights_again, _ = sweep(lesson)
    _, weights_far, _ = sweep(lesson, depths=(10,), seeds=FAR_SEEDS)
    missing = ALL_RUNS | set(itertools.product((10,), FAR_SEEDS))
    missing -= set(weights) | set(weights_far)
    if missing:
        raise Wrong(
            f"train_depths does not train (depth, seed) {sorted(missing)}: "
            "every depth from every seed."
        )
    check_repeats(lesson, weights, weights_again)
    weights.update(weights_far)
    for one, other in itertools.combinations(SWEPT_SEEDS + FAR_SEEDS, 2):
        if all_equal(weights[10, one], weights[10, other]):
            raise Wrong(
                f"train_depths: seeds {one} and {other} give the same weights. "
                "Seed torch with the seed of the run, and draw the weights after that."
            )


def check_repeats(lesson, weights, weights_again):
    """Raise Wrong unless a second call starts every network from the same weights."""
    for key in weights:
        if not all_equal(weights[key], weights_again[key]):
            raise Wrong(
                f"train_depths: called twice, it starts {key} from different weights. "
                "Seed torch for each.",
                wrong_start(lesson, weights, weights_again),
            )


@pytest.mark.task("4.4")
def test_weights_are_the_same_in_another_process(lesson, monkeypatch):
    some = {"depths": (10, 18), "seeds": (3, 5)}
    _, weights, call = sweep(lesson, **some)
    _, weights_again, _ = sweep(lesson, **some)
    check_same_runs(weights_again, weights, f"{call}, called twice,")
    check_repeats(lesson, weights, weights_again)
    if hasattr(lesson, "hash"):  # a function of the learner's own
        return
    monkeypatch.setattr(lesson, "hash", hash_in_another_process, raising=False)
    _, weights_there, _ = sweep(lesson, **some)
    check_same_runs(weights_there, weights, f"{call} in another process")
    for key in weights:
        if not all_equal(weights[key], weights_there[key]):
            raise Wrong(
                f"{call}: in another process {key} starts from other weights.",
                "the seed comes from hash() of a text, which differs from process to process; "
                "take the seed itself, or compute with numbers only",
            )


def check_same_runs(weights, expected, what):
    """Raise Wrong unless a call trains the networks that it should: those in expected."""
    if set(weights) != set(expected):
        raise Wrong(f"{what} trains {sorted(weights)}, expected {sorted(expected)}.")


ENVIRONMENT = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}


@pytest.mark.task("4.4")
@pytest.mark.parametrize(
    "share",
    [{}, {"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2}],
    ids=["alone", "rank 0 of 2", "rank 1 of 2"],
)
def test_arguments_count_and_not_the_environment(lesson, share, monkeypatch):
    _, weights, call = sweep(lesson, **share)
    settings = ", ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    _, weights_there, _ = sweep(lesson, **share)
    if set(weights_there) != set(weights):
        raise Wrong(
            f"{call}, with {settings} in the environment, trains {sorted(weights_there)}, "
            f"expected {sorted(weights)}, as without. "
            "Its arguments rank and world_size say which process it is."
        )
    for key in weights:
        if not all_equal(weights[key], weights_there[key]):
            raise Wrong(
                f"{call}, with {settings} in the environment, starts {key} from other weights "
                "than without. They depend on this depth and seed only."
            )


@pytest.mark.task("4.4")
def test_weights_do_not_depend_on_the_other_runs(lesson):
    _, weights, _ = sweep(lesson)
    _, weights_there, call = sweep(lesson, depths=[34, 10], seeds=range(5, 7))
    for key in ((34, 5), (10, 5)):
        if key not in weights_there:
            raise Wrong(f"{call} does not train {key}.")
        if all_equal(weights_there[key], weights[key]):
            continue
        cause = None
        if all_equal(weights_there[key], weights[key[0], 3]):
            cause = (
                "torch is seeded with the seed's place in the list, so that every --seed gives "
                "the same run; take the seed itself"
            )
        raise Wrong(
            f"{call}: {key} starts from other weights than in a sweep over other "
            f"{what_decides(lesson, key, weights[key])}. They depend on this depth and seed only.",
            cause,
        )


def what_decides(lesson, key, weights):
    """Whether the other depths or the other seeds decide from which weights a run starts."""
    for words, depths, seeds in (
        ("depths", [34, 10], SWEPT_SEEDS),
        ("seeds", SWEPT_DEPTHS, range(5, 7)),
    ):
        _, weights_there, _ = sweep(lesson, depths=depths, seeds=seeds)
        if not all_equal(weights_there[key], weights):
            return words
    return "depths and seeds"


# Task 4.5

GAINS = [  # (multiply-adds, accuracy) of each network, and the gains of one after the other
    pytest.param(
        [(12_000_000_000, 0.9), (900_000_000, 0.5), (2_000_000_000, 0.61), (30_000_000_000, 0.99)],
        [10.0, 2.9, 0.5],
        id="whole numbers",
    ),
    pytest.param(
        [(8e9, 0.774), (1.8e9, 0.698), (4.1e9, 0.761), (3.6e9, 0.733)],
        [3.5 / 1.8, 5.6, 1.3 / 3.9],
        id="four, out of order",
    ),
    pytest.param(
        [(1e9, 0.5), (2e9, 0.6), (3e9, 0.6), (5e9, 0.5), (6e9, 0.55)],
        [10.0, 0.0, -5.0, 5.0],
        id="up and down",
    ),
    pytest.param(
        [(4e6, 0.9), (1e6, 0.8), (2e6, 0.95)],
        [15_000.0, -2_500.0],
        id="a loss",
    ),
    pytest.param(
        [(4e9, 1.0), (1e9, 0.0), (3e9, 0.5)],
        [25.0, 50.0],
        id="from 0 to 1",
    ),
    pytest.param(
        [(1e9, 0.5), (2e9, 0.6)],
        [10.0],
        id="two",
    ),
    pytest.param(
        [(1e9, 1 / 3), (4e9, 6 / 7)],
        [100 * (6 / 7 - 1 / 3) / 3],
        id="no round number",
    ),
    pytest.param(
        [(2_509_983_744, 0.5), (2_509_983_844, 0.500001)],
        [1000.0],
        id="close",
    ),
    pytest.param(
        [(5e9, 0.5)],
        [],
        id="one",
    ),
]


@pytest.mark.task("4.5")
@pytest.mark.parametrize("points, expected", GAINS)
def test_gains_by_hand(lesson, points, expected):
    rows = []
    for i, (macs, accuracy) in enumerate(points):
        rows.append({"depth": i, "macs": macs, "accuracy": accuracy, "extra": None})
    call = f"marginal_gains of (macs, accuracy) {points}"
    before = copy.deepcopy(rows)
    try:
        with calling(call):
            got = numbers(lesson.marginal_gains(rows), call)
    except Wrong as wrong:
        if len(points) > 1:
            raise
        raise wrong.because("with one network there is no step, so return []") from None
    if rows != before:
        same_rows = sorted(rows, key=str) == sorted(before, key=str)
        todo = "Take sorted(rows, ...), which makes a new list."
        if not same_rows:
            todo = "Neither the list nor the dicts in it may change."
        raise Wrong(f"{call} changes the rows that it is given. {todo}")
    if len(got) != len(expected):
        cause = wrong_length(points, got)
        if len(lesson.marginal_gains(rows)) > len(got):
            cause = "numbers of an earlier call are among them; make a new list in each call"
        raise Wrong(
            f"{call} returned {counted(len(got), 'number')}, expected {len(expected)}: "
            "one for each step to a larger network.",
            cause,
        )
    if same_gains(got, expected):
        return
    cause = likeliest(gain_mistakes(points, expected), functools.partial(same_gains, got))
    if not cause and any(got == gains for gains in single_gains(points)):
        cause = advice(
            "it computes in float32, which has seven digits; take Python's floats, or float64"
        )
    if not cause and any(same_gains(got, gains) for gains in central_gains(points)):
        cause = advice(NEIGHBOURS)
    if not cause and any(are_rounded(got, expected, places) for places in range(5)):
        cause = advice("the numbers are rounded; return them as they are")
    if not cause:
        cause = advice(one_divisor(points, got))
    raise Wrong(f"{call} returned {rounded(got)}, expected {rounded(expected)}.{cause}")


CALLS = [  # one after the other: (multiply-adds, accuracy) of each network, and the gains
    ([(1e9, 0.5), (2e9, 0.6), (4e9, 0.9)], [10.0, 15.0]),
    ([(1e9, 0.2), (2e9, 0.6), (4e9, 0.4)], [40.0, -10.0]),  # other accuracies
    ([(3e9, 0.6), (1e9, 0.2), (5e9, 0.4)], [20.0, -10.0]),  # other multiply-adds
    ([(1e9, 0.5), (2e9, 0.6), (4e9, 0.9)], [10.0, 15.0]),  # the first ones again
]


@pytest.mark.task("4.5")
def test_gains_follow_from_the_rows_of_each_call(lesson):
    rows = [{"depth": depth} for depth in (18, 34, 50)]
    earlier = []
    for points, expected in CALLS:
        for row, (macs, accuracy) in zip(rows, points):
            row["macs"] = macs
            row["accuracy"] = accuracy
        call = f"marginal_gains of (macs, accuracy) {points}"
        with calling(call):
            got = numbers(lesson.marginal_gains(rows), call)
        if not same_gains(got, expected):
            cause = None
            if any(same_gains(got, gains) for gains in earlier):
                cause = "it returns what an earlier call with other rows gave; compute anew"
            raise Wrong(f"{call} returned {rounded(got)}, expected {rounded(expected)}.", cause)
        earlier.append(expected)


def are_rounded(got, expected, places):
    """Whether the numbers are the expected ones, rounded to so many places."""
    return same_gains(got, [round(value, places) for value in expected])


def same_gains(got, expected):
    """Whether two lists hold the same numbers, to six digits."""
    if len(got) != len(expected):
        return False
    return all(abs(a - b) <= 1e-6 * max(1e-6, abs(b)) for a, b in zip(got, expected))


def rounded(values):
    """The values, to six places."""
    return [round(value, 6) for value in values]


def gain(before, after):
    """Percentage points per GMAC, from one point (multiply-adds, accuracy) to another."""
    macs_before, accuracy_before = before
    macs, accuracy = after
    return 100 * (accuracy - accuracy_before) / ((macs - macs_before) / 1e9)


def gains_of(points):
    """The gains from each of the points to the next."""
    return [gain(before, after) for before, after in itertools.pairwise(points)]


def wrong_length(points, got):
    """Which gains are left out, or are too many, in words, or None."""
    ordered = sorted(points)
    no_worse = ordered[:1]
    better = ordered[:1]
    for point in ordered[1:]:
        if point[1] >= no_worse[-1][1]:
            no_worse.append(point)
        if point[1] > better[-1][1]:
            better.append(point)
    gains = gains_of(ordered)
    of_equals = {accuracy: (macs, accuracy) for macs, accuracy in points}
    first_of_equals = {accuracy: (macs, accuracy) for macs, accuracy in reversed(points)}
    ways = {
        "a step to a less accurate network is left out; its gain is a number below 0": [
            gains_of(no_worse),
            gains_of(better),
            [value for value in gains if value >= 0],
            [value for value in gains if value > 0],
        ],
        "of networks of equal accuracy only one is left, as with accuracies as keys of a dict": [
            gains_of(sorted(of_equals.values())),
            gains_of(sorted(first_of_equals.values())),
        ],
        "every second step is left out; pair each network with the next": [gains[::2]],
        "the last step is left out": [gains[:-1]],
        "the first step is left out": [gains[1:]],
        NEIGHBOURS: central_gains(points),
    }
    causes = []
    for cause, lists in ways.items():
        if any(same_gains(got, known) for known in lists):
            causes.append(cause)
    return causes[0] if len(causes) == 1 else None


NEIGHBOURS = (
    "a number takes both neighbours of a network, as np.gradient does; "
    "take one network and the next, as np.diff does"
)


def central_gains(points):
    """Lists of gains from both neighbours of each network: all, without the first, or the last."""
    macs, accuracies = numpy.array(sorted(points)).T
    lists = []
    if len(points) < 3:  # there are no two neighbours
        return lists
    for gains in (
        numpy.gradient(100 * accuracies, macs / 1e9),
        numpy.gradient(100 * accuracies) / numpy.gradient(macs / 1e9),
    ):
        lists += [gains, gains[1:], gains[:-1]]
    return [gains.tolist() for gains in lists]


def single_gains(points):
    """Lists of gains as float32 gives them, in one order of the steps or another."""
    macs, accuracies = torch.tensor(sorted(points), dtype=torch.float64).float().T
    lists = []
    for added in ((macs / 1e9).diff(), macs.diff() / 1e9):
        for gained in ((100 * accuracies).diff(), 100 * accuracies.diff()):
            lists.append((gained / added).tolist())
        lists.append((100 * (accuracies.diff() / added)).tolist())
    return lists


def one_divisor(points, got):
    """That unlike steps are divided by one and the same number, in words, or None."""
    steps = list(itertools.pairwise(sorted(points)))
    added = [(after[0] - before[0]) / 1e9 for before, after in steps]
    if len(set(added)) < 2 or 0 in got:
        return None
    divisors = [100 * (after[1] - before[1]) / value for (before, after), value in zip(steps, got)]
    if not max(divisors) - min(divisors) <= 1e-6 * divisors[0]:
        return None
    return (
        f"every step is divided by {divisors[0]:.4g} GMACs, though they add {added[0]:.4g} and "
        f"{added[1]:.4g}; divide by what each adds, as it is"
    )


def gains_over_best(points, of_equals=0):
    """The gains of networks over the most accurate smaller one; of_equals: -1 takes the last."""
    ordered = sorted(points)
    gains = []
    for i, point in enumerate(ordered[1:], 1):
        best = max(accuracy for _, accuracy in ordered[:i])
        candidates = [smaller for smaller in ordered[:i] if smaller[1] == best]
        gains.append(gain(candidates[of_equals], point))
    return gains


def gain_in_percent(before, after):
    """The gain per GMAC in per cent of the accuracy before."""
    return gain(before, after) / before[1]


def gain_mistakes(points, expected):
    """What the known wrong ways give for marginal_gains."""
    smallest, *larger = sorted(points)
    best_so_far = itertools.accumulate([accuracy for _, accuracy in sorted(points)], max)
    by_accuracy = sorted(points, key=lambda point: point[1])
    return {
        "it is a hundredth of what it should be: take percentage points per 10^9 multiply-adds": (
            [value / 100 for value in expected]
        ),
        "it divides by multiply-adds; a GMAC is 10^9 of them": [value / 1e9 for value in expected],
        "smaller minus larger; take larger minus smaller": [-value for value in expected],
        "a GMAC is 10^9 multiply-adds; it divides by millions of them": [
            value / 1e3 for value in expected
        ],
        "multiply-adds are cut to whole GMACs; divide by /, not by //": lambda: [
            gain((macs // 1e9 * 1e9, before), (more // 1e9 * 1e9, after))
            for (macs, before), (more, after) in itertools.pairwise(sorted(points))
        ],
        "a GMAC is 10^9 multiply-adds, not 2^30": [value * 2**30 / 1e9 for value in expected],
        "it counts operations, two for each multiply-add": [value / 2 for value in expected],
        "it takes two multiply-adds for one": [value * 2 for value in expected],
        "shares and multiply-adds are in other units; "
        "a point is a hundredth, a GMAC 10^9 multiply-adds": [value / 1e11 for value in expected],
        "the quotient is upside down; divide points by GMACs": (
            [1 / value for value in expected if value]
        ),
        "a loss of accuracy counts as 0; it is a negative number": (
            [max(value, 0.0) for value in expected]
        ),
        "it is the change in per cent of the smaller network's accuracy; "
        "take the difference in percentage points": lambda: [
            gain_in_percent(before, after) for before, after in itertools.pairwise(sorted(points))
        ],
        "it divides a network's whole accuracy by its whole cost": [
            gain((0, 0), point) for point in larger
        ],
        "the rows are not sorted by multiply-adds": (
            [gain(before, after) for before, after in itertools.pairwise(points)]
        ),
        "the rows are sorted by accuracy; sort them by multiply-adds": (
            [gain(before, after) for before, after in itertools.pairwise(by_accuracy)]
        ),
        "the rows go from the largest network to the smallest; start with the smallest": (
            expected[::-1]
        ),
        "it drops the sign; where the larger network does worse, the gain is below 0": (
            [abs(value) for value in expected]
        ),
        "accuracies and multiply-adds are sorted each by itself; sort the rows": lambda: [
            gain(before, after)
            for before, after in itertools.pairwise(zip(*map(sorted, zip(*points))))
        ],
        "it divides by all GMACs of the larger network; divide by those it adds": lambda: [
            100 * (after - before) / (more / 1e9)
            for (_, before), (more, after) in itertools.pairwise(sorted(points))
        ],
        "accuracies over multiply-adds are subtracted; divide the difference by the difference": (
            lambda: [
                100 * (after / (more / 1e9) - before / (macs / 1e9))
                for (macs, before), (more, after) in itertools.pairwise(sorted(points))
            ]
        ),
        "the accuracies are rounded to whole per cents; take them as they are": lambda: [
            gain((macs, round(before, 2)), (more, round(after, 2)))
            for (macs, before), (more, after) in itertools.pairwise(sorted(points))
        ],
        "multiply-adds are sorted as text, where 12 comes before 9; sort them as numbers": [
            gain(before, after) for before, after in itertools.pairwise(sorted(points, key=str))
        ],
        "an accuracy of 1.0 is taken for one per cent": lambda: [
            gain(*[(macs, 0.01 if accuracy == 1 else accuracy) for macs, accuracy in pair])
            for pair in itertools.pairwise(sorted(points))
        ],
        "each network is compared with the most accurate smaller one, not with the one before": (
            gains_over_best(points)
        ),
        "each network is compared with the last of the most accurate smaller ones, "
        "not with the one before": gains_over_best(points, of_equals=-1),
        "accuracies are compared with the best so far, not with the network's before": [
            gain((before[0], best), after)
            for (before, after), best in zip(itertools.pairwise(sorted(points)), best_so_far)
        ],
        "each network is compared with the smallest, not with the one before": (
            [gain(smallest, point) for point in larger]
        ),
    }


# The whole exercise


@pytest.mark.task("4.4")
@pytest.mark.timeout(90)
def test_a_bottleneck_network_learns_cifar10(lesson, cifar10_dir):
    data = load_cifar10(lesson, cifar10_dir, epochs=6)
    histories = []

    def fit(network, depth, seed):
        histories.append(train_some_epochs(lesson, network, data, epochs=6))
        return {}

    with calling("train_depths(fit, [50], [0], width=16)"):
        lesson.train_depths(fit, [50], [0], width=16)
    if not histories:
        raise Wrong("train_depths(fit, [50], [0], width=16) never called fit.")
    losses = histories[0]
    if not losses[-1] < 0.95 * max(losses):
        raise Wrong(
            f"ResNet-50 of width 16: six epochs on 64 images of CIFAR-10 gave losses {losses}; "
            "they do not fall."
        )


@pytest.mark.task("4.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    folder = check_dry_run(script, dry_run)
    table = json.loads((folder / "exercise_04.json").read_text("utf-8"))["table"]
    depths = [row["depth"] for row in table]
    if depths != [10, *DEPTHS]:
        raise Wrong(f"python {script.name} --dry-run: exercise_04.json has the depths {depths}")


if __name__ == "__main__":  # by the Run button of an editor
    raise SystemExit(pytest.main([__file__]))
