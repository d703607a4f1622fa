"""Exercise 1: torchvision's block and network, with the learner's weights, are the judges."""

import contextlib
import copy
import math
import statistics
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from cifar10 import load_cifar10, train_some_epochs
from diagnosis import (
    IN_EVAL,
    IN_TRAIN,
    conv,
    extra,
    first_difference,
    lost_digits,
    name_block_mistake,
    norm,
    other_precision,
    place_in_block,
    place_in_resnet18,
    what_is_kept,
    wrong_between,
    wrong_block,
    wrong_channels,
    wrong_head,
    wrong_layer,
    wrong_network,
)
from messages import (
    Once,
    Wrong,
    advice,
    agreeing,
    calling,
    check_close,
    check_dry_run,
    check_lets_errors_through,
    check_module,
    check_tensor,
    counted,
    draw,
    in_words,
    is_close,
    likeliest,
    mode_name,
    no_return,
    number,
    rounded_like,
    shape,
)
from torch import equal, nn
from torch.nn.functional import cross_entropy, one_hot
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock
from unchanged import (
    LAYOUTS,
    Everything,
    check_seeds_nothing,
    check_settings_stay,
    disturb,
    fresh_copy,
)
from what_ran import (
    EXTRAS,
    check_made_in_train_mode,
    check_registered,
    check_shares_nothing,
    check_start,
    check_start_is_random,
    convolutions,
    copy_to_oracle,
    first,
    norm_after,
    of_kind,
    pair_ops,
    randomise,
    record,
    run_backwards,
)

SHAPES = [  # in_channels, out_channels, stride, height, width
    pytest.param((6, 6, 1, 8, 8), id="same-shape"),
    pytest.param((6, 6, 1, 7, 9), id="same-shape-odd-size"),
    pytest.param((6, 10, 2, 8, 8), id="more-channels-stride-2"),
    pytest.param((6, 10, 2, 7, 9), id="more-channels-stride-2-odd-size"),
    pytest.param((6, 10, 1, 8, 5), id="more-channels"),
    pytest.param((6, 6, 2, 5, 8), id="stride-2"),
    pytest.param((10, 6, 3, 9, 8), id="fewer-channels-stride-3"),
]
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
BLOCKS = (2, 2, 2, 2)  # of ResNet-18, for each stage
PARAMETERS = 11_173_962


def reference_shortcut(in_channels, out_channels, stride):
    """What task 1.3 asks for."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


@pytest.fixture
def lent(lesson, monkeypatch):
    """The lesson; until its make_shortcut is correct, ours stands in for it.

    So tasks 1.1 and 1.2 are judged alone.
    """
    try:
        for stride, height in ((1, 8), (2, 7)):
            check_identity(lesson, (6, 6))
            check_projection(lesson, (6, 10, stride, height, 8), training=True)
        check_projection(lesson, (6, 6, 2, 5, 8), training=True)
        check_projection(lesson, (6, 6, 2, 1, 1), training=True)
        check_projection(lesson, (10, 6, 3, 9, 8), training=True)
        check_fresh_projection(lesson, (6, 10, 2))
    except Exception:  # task 1.3's own tests say what is wrong with it
        monkeypatch.setattr(lesson, "make_shortcut", reference_shortcut, raising=False)
    return lesson


# Task 1.1


def block_twins(lesson, case, training):
    """A block of the learner's and torchvision's with the same random weights."""
    in_channels, out_channels, stride, height, width = case
    call = f"BasicBlock({in_channels}, {out_channels}, stride={stride})"
    torch.manual_seed(draw(0))
    with calling(call):
        block = lesson.BasicBlock(in_channels, out_channels, stride=stride)
    check_module(block, call)
    projection = reference_shortcut(in_channels, out_channels, stride)
    if isinstance(projection, nn.Identity):
        projection = None
    oracle = BasicBlock(in_channels, out_channels, stride, projection)
    block.train(training)
    oracle.train(training)
    x = torch.randn(130, in_channels, height, width)
    what = f"{call} on an input {shape(x)}"
    expected, oracle_ops = record(oracle, x, "")
    try:
        output, ops = record(block, x.clone(), what)
    except Wrong as wrong:
        cause = wrong_block(wrong, oracle_ops, in_channels, out_channels)
        raise wrong.because(cause) from None
    cause = wrong_width(output, out_channels) or wrong_size(output, x, ops, oracle_ops, stride)
    check_tensor(output, expected, what, advice(cause))
    check_registered(block, ops, what, oracle_ops)
    randomise(ops)
    _, ops = record(block, x.clone(), what)
    pairs = pair_layers(block, ops, oracle_ops, what)
    copy_to_oracle(pairs)
    return SimpleNamespace(
        block=block,
        oracle=oracle,
        x=x,
        pairs=pairs,
        what=what,
        ops=ops,
        make=lambda: lesson.BasicBlock(in_channels, out_channels, stride=stride),
    )


def wrong_width(output, out_channels):
    """Why a block's output has too many channels, in words, or None."""
    if type(output) is not torch.Tensor or output.dim() != 4:
        return None
    if output.shape[1] != 2 * out_channels:
        return None
    return "branch and shortcut are put side by side, as by torch.cat; add them"


def wrong_size(output, x, ops, oracle_ops, stride):
    """Why a block's output is too small where the stride does not divide x's size, or None."""
    if type(output) is not torch.Tensor or output.dim() != 4:
        return None
    rounded_down = [size // stride for size in x.shape[2:]]
    if list(output.shape[2:]) != rounded_down or not any(size % stride for size in x.shape[2:]):
        return None
    return wrong_layer(ops, oracle_ops, place_in_block) or (
        "the size is rounded down; round up, to ceil(height / stride) and ceil(width / stride)"
    )


def pair_layers(module, ops, oracle_ops, what):
    """What pair_ops gives, or more exact words about batch norms."""
    try:
        return pair_ops(ops, oracle_ops, what)
    except Wrong as wrong:
        if "no batch norm takes" in wrong.message or "batch norms, expected" in wrong.message:
            raise wrong.because(misplaced_norm(ops)) from None
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        has_none = any(part.momentum is None for part in norms)
        if not has_none or "a batch norm has momentum=" not in wrong.message:
            raise
        raise Wrong(
            f"{what}: a batch norm has momentum=None, so its running statistics are the average "
            "over all batches. Leave momentum at its default, 0.1."
        ) from None


def misplaced_norm(ops):
    """That a batch norm does not come right after a convolution, in words, or None."""
    in_place = [id(norm_after(ops, conv)) for conv in of_kind(ops, "conv2d")]
    for op in of_kind(ops, "batch_norm"):
        if id(op) not in in_place:
            return (
                f"a batch norm runs on an input {shape(op.input)} that no convolution outputs; it "
                "belongs right after one"
            )
    return None


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", SHAPES)
def test_block_gives_the_right_shape(lent, case):
    block_twins(lent, case, training=True)


@pytest.mark.task("1.1")
def test_block_stride_is_1_unless_given(lent):
    with calling("BasicBlock(6, 6)"):
        block = check_module(lent.BasicBlock(6, 6), "BasicBlock(6, 6)")
        output = block(torch.randn(1, 6, 8, 8))
    check_tensor(output, torch.empty(1, 6, 8, 8), "BasicBlock(6, 6) on an input (1, 6, 8, 8)")


@pytest.mark.task("1.1")
@MODES
@pytest.mark.parametrize("case", SHAPES)
def test_block_computes_what_torchvisions_does(lent, case, training):
    twins = block_twins(lent, case, training)
    twins.x = torch.randn_like(twins.x)  # not what the block has seen before
    x = twins.x.clone()
    with calling(twins.what), torch.no_grad():
        got = twins.block(x)
    if not equal(x, twins.x):
        raise Wrong(
            f"{twins.what} changed the input itself. "
            "Avoid +=, inplace=True and methods that end in _ on x, and on what the shortcut "
            "returns, which may be x itself: whoever called still needs it."
        )
    with torch.no_grad():
        expected = twins.oracle(twins.x)
    check_block(twins, got, expected, training)


def check_block(twins, got, expected, training):
    """Raise Wrong unless a block's output is that of torchvision's block."""

    def explain():
        if is_random(twins):
            return extra(twins.ops) or (
                "something random runs, such as stochastic depth: the same input gives another "
                "output in each call"
            )
        if new_one_is_right(twins.make, twins.block, twins.x, expected):
            return KEPT
        return name_block_mistake(got, twins.x, twins.ops, training)

    check_close(got, expected, f"{twins.what} in {mode_name(training)} mode", explain)


KEPT = (
    "something is kept from call to call: a new one with the same weights, called for the first "
    "time, is correct on this input; compute the output from this call's input alone"
)


def new_one_is_right(make, model, x, expected):
    """Whether what make() gives computes the expected output with the weights of a model.

    So an earlier call of the model has left something in it.
    """
    with contextlib.suppress(Exception), torch.no_grad():  # its weights may fit no other
        new_one = make().train(model.training)
        new_one.load_state_dict(model.state_dict())
        return is_close(new_one(x.clone()), expected, 1e-4)
    return False


def is_random(twins):
    """Whether a block's output depends on torch's seed, and on nothing else that changes."""

    def output(seed):
        torch.manual_seed(seed)
        return twins.block(twins.x.clone())

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        usual = output(0)
        others = [output(seed) for seed in range(1, 6)]
        again = output(0)
    return equal(usual, again) and not all(is_close(other, usual) for other in others)


@pytest.mark.task("1.1")
@MODES
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[5]])
@pytest.mark.parametrize("size", [(1, 8, 8), (3, 1, 1)], ids=["one-image", "tiny-images"])
def test_block_takes_any_batch_and_any_size(lent, case, size, training):
    twins = block_twins(lent, case, training)
    twins.x = torch.randn(size[0], case[0], *size[1:])
    twins.what = f"BasicBlock({case[0]}, {case[1]}, stride={case[2]}) on an input {shape(twins.x)}"
    before = Everything(twins.block)
    with calling(twins.what), torch.no_grad():
        got = twins.block(twins.x.clone())
        expected = twins.oracle(twins.x)
    check_block(twins, got, expected, training)
    before.check_modes(twins.what)


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_keeps_nothing_from_call_to_call(lent, case):
    twins = block_twins(lent, case, training=False)
    with calling(twins.what), torch.no_grad():
        first_output = twins.block(twins.x)
        copied = first_output.clone()
        lent.BasicBlock(6, 12, stride=3)
        twins.block(2 - twins.x)
        twins.x.neg_()
    if not equal(first_output, copied):
        raise Wrong(
            f"{twins.what}, called a second time, writes over what the first call returned. "
            "Make a new tensor in each call."
        )
    randomise(twins.ops, seed=2)
    copy_to_oracle(twins.pairs)
    with calling(twins.what), torch.no_grad():
        got = twins.block(twins.x)
        expected = twins.oracle(twins.x)
    what = f"{twins.what}, after x and its weights have changed and another block was made,"
    check_close(got, expected, f"{what} in eval mode", tolerance=1e-4)
    check_new_weights_count(twins.block, twins.oracle, twins.x, twins.ops, twins.pairs, twins.what)


def check_new_weights_count(model, oracle, x, ops, pairs, what):
    """Raise Wrong unless a model called again with the same tensor computes with new weights."""
    with calling(what), torch.no_grad():
        earlier = model(x).clone()
    randomise(ops, seed=3)
    copy_to_oracle(pairs)
    what = f"{what}, called again with the same tensor after its weights have changed,"
    with calling(what), torch.no_grad():
        got = model(x)
        expected = oracle(x)
    check_close(got, expected, what, lambda: what_is_kept(got, earlier, "output"), tolerance=1e-4)


def check_any_order_in_memory(model, oracle, x, what):
    """Raise Wrong unless a model computes the same however its input lies in memory."""
    with torch.no_grad():
        expected = oracle(x)
    for layout, lay_out in LAYOUTS.items():
        where = f"{what} {layout}"
        with calling(where), torch.no_grad():
            got = model(lay_out(x))
        check_close(got, expected, where, tolerance=1e-4)


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_takes_features_however_they_lie_in_memory(lent, case):
    twins = block_twins(lent, case, training=False)
    check_any_order_in_memory(twins.block, twins.oracle, twins.x, twins.what)


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_copy_of_a_block_has_layers_of_its_own(lent, case):
    twins = block_twins(lent, case, training=False)
    check_copy_is_independent(twins.block, twins.x, twins.ops, "BasicBlock(...)")


def check_copy_is_independent(model, x, ops, name):
    """Raise Wrong if a deep copy of a model computes with the model's own layers, those of ops."""
    try:
        copied = copy.deepcopy(model)
    except Exception:  # it may keep what cannot be copied, such as its last output
        return
    what = f"copy.deepcopy({name})"
    with calling(f"{what} on an input"), torch.no_grad():
        before = copied(x)
        randomise(ops, seed=1)
        after = copied(x)
    if not equal(before, after):
        raise Wrong(
            f"{what} computes with the layers of the one that it is a copy of.",
            "a function made in __init__ (a lambda, a partial) holds the layers; use self's",
        )


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_hides_nothing_that_is_not_finite(lent, case):
    twins = block_twins(lent, case, training=False)
    last_norm = norm_after(twins.ops, convolutions(twins.ops, 3)[-1])
    with torch.no_grad():
        last_norm.weight.fill_(math.nan)
    what = f"{twins.what}, whose last batch norm has weights that are NaN,"
    with calling(what), torch.no_grad():
        output = twins.block(twins.x)
    if not bool(output.isnan().all()):
        raise Wrong(f"{what} returned {output.flatten()[0]:.4g}, expected NaN: hide none.")


@pytest.mark.task("1.1")
@pytest.mark.parametrize(
    "case, training",
    [
        (*SHAPES[0].values, True),
        (*SHAPES[1].values, True),
        (*SHAPES[2].values, True),
        (*SHAPES[2].values, False),
    ],
)
def test_block_passes_gradients_on_as_torchvisions_does(lent, case, training):
    twins = block_twins(lent, case, training)
    own_weights = []
    oracle_weights = []
    for own, oracle in twins.pairs:
        own_weights += weights_of(own)
        oracle_weights += weights_of(oracle)
    try:
        output, gradients = run_backwards(twins.block, twins.x, own_weights, twins.what)
    except Wrong:
        if torch.is_grad_enabled():
            raise
        raise Wrong(
            f"{twins.what} in {mode_name(training)} mode switches torch's gradients off, for "
            "everybody and for good. Leave them as they are."
        ) from None
    expected, oracle_gradients = run_backwards(twins.oracle, twins.x, oracle_weights, "")
    check_block(twins, output, expected, training)
    for i, (gradient, oracle_gradient) in enumerate(zip(gradients, oracle_gradients)):
        if gradient is None or not is_close(gradient, oracle_gradient, 1e-4):
            where = "its input" if i == 0 else "its weights"
            raise Wrong(
                f"{twins.what} gives the correct output, but a wrong gradient for {where}. "
                "The likeliest mistake: something is hidden from autograd (.detach(), .data, "
                "no_grad): the shortcut, the branch or the last ReLU."
            )


def weights_of(op):
    """An op's weight, and its bias if it has one."""
    return [op.weight] if op.bias is None else [op.weight, op.bias]


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_registers_its_layers_and_uses_each_once(lent, case):
    twins = block_twins(lent, case, training=True)
    check_registered(twins.block, twins.ops, twins.what)


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_keeps_running_statistics(lent, case):
    twins = block_twins(lent, case, training=True)

    def explain():
        means = [own.running_mean for own, _ in twins.pairs if own.kind == "batch_norm"]
        output = twins.block(twins.x)
        after_forward = [mean.clone() for mean in means]
        output.sum().backward()
        if all(map(equal, means, after_forward)):
            return None
        return (
            "the backward pass runs batch norms once more (torch.utils.checkpoint?), so that their "
            "statistics move twice in each step"
        )

    for _ in range(2):
        run_backwards(twins.block, twins.x, [], twins.what)
        run_backwards(twins.oracle, twins.x, [], "")
    for own, oracle in twins.pairs:
        if own.kind == "batch_norm":
            what = f"{twins.what}: after two steps, forward and backward, a"
            for name in ("running_mean", "running_var"):
                got = getattr(own, name)
                check_close(got, getattr(oracle, name), f"{what} {name}", explain, tolerance=1e-4)


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_starts_ready_to_learn(lent, case):
    in_channels, out_channels, stride, height, width = case
    call = f"BasicBlock({in_channels}, {out_channels}, stride={stride})"
    with calling(call):
        block = lent.BasicBlock(in_channels, out_channels, stride).eval()
        another = lent.BasicBlock(in_channels, out_channels, stride)
    x = torch.randn(2, in_channels, height, width)
    _, ops = record(block, x, call)
    _, other_ops = record(another, x, call)
    check_shares_nothing(block, another, call)
    check_made_in_train_mode(another, call)
    check_start(ops, call, may_be_zero=[norm_after(ops, convolutions(ops, 3)[-1])])
    try:
        check_start_is_random(ops, other_ops, call)
    except Wrong:
        check_seeds_nothing(lambda: lent.BasicBlock(in_channels, out_channels, stride), call)
        raise


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_changes_nothing_in_eval_mode(lent, case):
    twins = block_twins(lent, case, training=False)
    randomise(twins.ops, seed=1)  # no weight is already what a call would make it
    before = Everything(twins.block, x=twins.x)
    with calling(twins.what):
        twins.block(twins.x)
    before.check(f"{twins.what} in eval mode", "attributes")


@pytest.mark.task("1.1")
@pytest.mark.parametrize("case", [SHAPES[0], SHAPES[2]])
def test_block_computes_in_float64_if_asked_to(lent, case):
    twins = block_twins(lent, case, training=False)
    what = f"{twins.what}, both in float64,"
    twins.block.double()
    twins.oracle.double()
    x = twins.x.double() / 3
    with calling(what), torch.no_grad():
        got = twins.block(x)
        expected = twins.oracle(x)
    check_close(got, expected, what, lambda: lost_digits(got, expected), tolerance=1e-10)


# Task 1.2


@pytest.fixture(scope="module")
def oracle():
    """torchvision's ResNet-18 with the stem for small images."""
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def record_network(model, x, what):
    """What a network gives and ran; a layer that does not fit is named."""
    try:
        return record(model, x, what)
    except Wrong as wrong:
        raise wrong.because(wrong_channels(wrong)) from None


def network_twins(lesson, oracle, training, count, height, width):
    """The learner's ResNet-18 and torchvision's with the same random weights."""
    torch.manual_seed(draw(0))
    with calling("ResNet18()"):
        model = lesson.ResNet18()
    x = torch.randn(count, 3, height, width)
    model.train(training)
    oracle.train(training)
    what = f"ResNet18() on images {shape(x)}"
    with torch.no_grad():
        output, ops = record_network(model, x.clone(), what)
        expected, oracle_ops = record(oracle, x, "")
        check_tensor(output, expected, what)
        check_registered(model, ops, what, oracle_ops)
        randomise(ops)
        _, ops = record(model, x.clone(), what)
        pairs = pair_layers(model, ops, oracle_ops, what)
        copy_to_oracle(pairs)
    return SimpleNamespace(model=model, x=x, what=what, ops=ops, pairs=pairs, make=lesson.ResNet18)


@pytest.mark.task("1.2")
@pytest.mark.parametrize("classes", [10, 7, 2, 1])
def test_network_gives_logits(lent, classes):
    with calling(f"ResNet18({classes})"):
        model = lent.ResNet18(num_classes=classes)
    what = f"ResNet18({classes}) on images (2, 3, 32, 32)"
    logits, _ = record_network(model, torch.randn(2, 3, 32, 32), what)
    check_tensor(logits, torch.empty(2, classes), what)
    ones = torch.ones(2)
    are_probabilities = bool((logits > 0).all()) and is_close(logits.sum(1), ones, 1e-3)
    # Of a single class the logarithm is 0, and so are all logits of a network that starts at zero.
    are_logarithms = classes > 1 and is_close(logits.exp().sum(1), ones, 1e-3)
    if are_probabilities or are_logarithms:
        raise Wrong(
            f"{what} returns probabilities{' as logarithms' if are_logarithms else ''}. "
            "Return logits: the loss (cross_entropy) applies softmax itself."
        )


@pytest.mark.task("1.2")
def test_network_has_the_right_size(lent, oracle):
    with calling("ResNet18()"):
        model = lent.ResNet18()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        _, ops = record_network(model, images, "ResNet18() on images (2, 3, 32, 32)")
    count = sum(parameter.numel() for parameter in model.parameters())
    if count == PARAMETERS:
        return
    _, oracle_ops = record(oracle, images, "")
    cause = one_part_twice(model, ops) or wrong_network(ops, oracle_ops, BLOCKS, place_in_resnet18)
    if cause is None:  # a layer may be missing, or none of the model's
        network_twins(lent, oracle, training=True, count=2, height=32, width=32)
    raise Wrong(
        f"ResNet18() has {count:,} parameters, expected {PARAMETERS:,} ({count - PARAMETERS:+,}).",
        cause,
    )


def one_part_twice(model, ops):
    """Which two parts of a network are one and the same, and run twice, in words, or None."""
    runs = Counter(id(op.weight) for op in of_kind(ops, "conv2d"))
    places = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if runs[id(parameter)] < 2:
            continue
        place = name.split(".")
        other = places.setdefault(id(parameter), place)
        if other is place:
            continue
        while place and other and place[-1] == other[-1]:
            place, other = place[:-1], other[:-1]
        if place and other:
            return f"{'.'.join(other)} and {'.'.join(place)} are one and the same; make two"
    return None


@pytest.mark.task("1.2")
@pytest.mark.parametrize(
    "training, size",  # of the batch: images, height, width
    [
        pytest.param(True, (3, 32, 32), id="train-(3, 32, 32)"),
        pytest.param(False, (3, 32, 32), id="eval-(3, 32, 32)"),
        pytest.param(True, (3, 19, 26), id="train-(3, 19, 26)"),
        pytest.param(False, (1, 19, 26), id="eval-(1, 19, 26)"),
        pytest.param(True, (130, 8, 9), id="train-(130, 8, 9)"),
        pytest.param(False, (1, 9, 270), id="eval-(1, 9, 270)"),
        pytest.param(False, (2, 3, 5), id="eval-(2, 3, 5)"),
    ],
)
def test_network_computes_what_torchvisions_does(lent, oracle, size, training):
    twins = network_twins(lent, oracle, training, *size)
    twins.x = 100 * torch.randn_like(twins.x)  # not what the network has seen before
    x = twins.x.clone()
    with torch.no_grad():
        got, ops = record(twins.model, x, twins.what)
        expected, oracle_ops = record(oracle, twins.x, "")
    if not equal(x, twins.x):
        raise Wrong(
            f"{twins.what} changed the images themselves. "
            "Avoid inplace=True and methods that end in _ on them."
        )

    def explain():
        if other_precision(ops):
            return other_precision(ops)
        if new_one_is_right(twins.make, twins.model, twins.x, expected):
            return KEPT
        pairs = pair_ops(ops, oracle_ops, twins.what)
        index = first_difference(pairs)
        if index is None:
            return wrong_end(twins, oracle, got, expected, ops, oracle_ops)
        if index == 0:
            return "the images are changed before the stem's 3x3 convolution gets them"
        return (
            wrong_network(ops, oracle_ops, BLOCKS, place_in_resnet18)
            or wrong_between(pairs, ops, oracle_ops, place_in_resnet18, index)
            or f"everything is correct up to {place_in_resnet18(index - 1)}; what reaches "
            f"{place_in_resnet18(index)} is not. Look at what comes between: "
            "ReLU, pooling, shortcut, stride"
        )

    what = f"{twins.what} in {mode_name(training)} mode"
    check_close(got, expected, what, explain, tolerance=1e-4)


def wrong_end(twins, oracle, got, expected, ops, oracle_ops):
    """What is wrong in a network that is right up to the last 3x3 convolution, in words."""
    cause = wrong_head(got, expected, ops, oracle_ops)
    is_vague = cause in EXTRAS.values() or cause.startswith("all is right up to")
    if not is_vague:  # it is one whose numbers agree
        return cause
    (linear,) = of_kind(ops, "linear")
    (oracle_linear,) = of_kind(oracle_ops, "linear")
    if is_close(linear.input, oracle_linear.input, 1e-4):
        return "the linear layer's output is changed; return it as it is"
    features = []
    handle = oracle.layer4.register_forward_hook(lambda *call: features.append(call[-1]))
    with torch.no_grad():
        oracle(twins.x)
    handle.remove()
    return wrong_mean(linear.input, features[0].flatten(2)) or cause


def wrong_mean(got, features):
    """What is wrong with a weighted sum of the features over all positions, in words, or None.

    got (batch, channels); features (batch, channels, positions).
    """
    count = features.shape[2]
    weights = torch.linalg.lstsq(features.flatten(0, 1), got.flatten()[:, None]).solution
    if not is_close((features @ weights).squeeze(2), got, 1e-3):
        return None
    left_out = int((weights.abs() < 1e-3 / count).sum())
    if left_out:
        return f"the mean leaves out {left_out} of {count} positions"
    factor = weights.sum().item()
    if is_close(weights, torch.full_like(weights, factor / count), 1e-3):
        return (
            f"what the linear layer gets is {factor:.4g} times the mean over all positions; divide "
            "by the number of positions, which differs between sizes"
        )
    return "some positions count more than others in what the linear layer gets; take their mean"


@pytest.mark.task("1.2")
def test_network_registers_its_layers_and_uses_each_once(lent):
    with calling("ResNet18()"):
        model = lent.ResNet18()
    what = "ResNet18() on images (2, 3, 32, 32)"
    _, ops = record(model, torch.randn(2, 3, 32, 32), what)
    check_registered(model, ops, what)


@pytest.mark.task("1.2")
def test_network_takes_images_however_they_lie_in_memory(lent, oracle):
    twins = network_twins(lent, oracle, False, 2, 16, 16)
    check_any_order_in_memory(twins.model, oracle, twins.x, twins.what)
    check_new_weights_count(twins.model, oracle, twins.x, twins.ops, twins.pairs, twins.what)


@pytest.mark.task("1.2")
def test_copy_of_a_network_has_layers_of_its_own(lent, oracle):
    twins = network_twins(lent, oracle, False, 1, 16, 16)
    check_copy_is_independent(twins.model, twins.x, twins.ops, "ResNet18()")


@pytest.mark.task("1.2")
def test_network_starts_ready_to_learn(lent):
    with calling("ResNet18()"):
        model = lent.ResNet18().eval()
        another = lent.ResNet18()
    with torch.no_grad():
        _, ops = record(model, torch.randn(1, 3, 32, 32), "ResNet18()")
    last_norms = [norm_after(ops, conv) for conv in convolutions(ops, 3)[2::2]]
    check_shares_nothing(model, another, "ResNet18()")
    check_made_in_train_mode(another, "ResNet18()")
    check_has_not_run(another, "ResNet18()")
    check_start(ops, "ResNet18()", may_be_zero=last_norms)


def check_has_not_run(network, call):
    """Raise Wrong if batch norms of a network that was just made have run in train mode."""
    for part in network.modules():
        if not isinstance(part, nn.BatchNorm2d) or not part.num_batches_tracked:
            continue
        if part.running_mean.any() or not (part.running_var == 1).all():
            raise Wrong(
                f"{call} runs its batch norms in train mode while it is made, which moves their "
                "running statistics. Run it in eval mode there, or not at all."
            )


@pytest.mark.task("1.2")
def test_network_does_not_seed_torch(lent):
    check_seeds_nothing(lambda: lent.ResNet18(), "ResNet18()")


@pytest.mark.task("1.2")
@pytest.mark.timeout(90)
def test_network_learns_cifar10(lent, cifar10_dir):
    data = load_cifar10(lent, cifar10_dir, train_images=48, test_images=16, epochs=4)
    torch.manual_seed(draw(0))
    with calling("ResNet18()"):
        model = lent.ResNet18()
    with calling("train(ResNet18(), ...)"):
        model(torch.zeros(2, 3, 32, 32))  # lazy layers take their shapes
        losses = train_some_epochs(lent, model, data, epochs=4)
    if not losses[-1] < 0.95 * losses[0]:
        raise Wrong(
            f"training ResNet18() on 48 images of CIFAR-10 took the loss from {losses[0]:.2f} to "
            f"{losses[-1]:.2f}, expected a fall by a twentieth or more."
        )
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            raise Wrong(f"ResNet18(): after training, no gradient has reached {name}.")


# Task 1.3


def check_identity(lesson, channels):
    """Raise Wrong unless make_shortcut is the identity for these channels at stride 1."""
    call = f"make_shortcut({channels[0]}, {channels[1]}, 1)"
    with calling(call):
        shortcut = lesson.make_shortcut(*channels, 1)
    if not isinstance(shortcut, nn.Module):
        raise Wrong(
            f"{call} returned {in_words(shortcut)}, "
            "expected an nn.Module that gives its input back, such as nn.Identity()."
            f"{no_return(shortcut)}"
        )
    x = torch.randn(2, channels[0], 5, 4).requires_grad_()
    what = f"{call} on an input {shape(x)}"
    output, ops = record(shortcut, x, what)
    if of_kind(ops, "conv2d") or of_kind(ops, "batch_norm"):
        raise Wrong(
            f"{call} is a projection, expected the identity: input and output have the same shape."
        )
    for name, _ in shortcut.named_parameters():
        raise Wrong(
            f"{call} has a parameter, {name}, expected none: it returns its input unchanged, also "
            "after training."
        )
    check_tensor(output, x, what)
    if extra(ops) and not equal(output, x):
        raise Wrong(f"{call} should be the identity.", extra(ops))
    if not equal(output, x):
        relu = (
            " A ReLU belongs to the block, not to the shortcut." if equal(output, x.relu()) else ""
        )
        raise Wrong(f"{call} changes its input, expected the identity.{relu}")
    _, gradients = run_backwards(shortcut, x.detach(), [], what)
    ones = torch.randn(x.shape, generator=torch.Generator().manual_seed(draw(1)))
    if not is_close(gradients[0], ones):
        raise Wrong(f"{what} gives its input back, but not the gradient. Is it detached?")
    with calling(what):
        output = shortcut(x.detach().double())
    if output.dtype != torch.float64:
        raise Wrong(f"{call} on a float64 input returned {output.dtype}, expected it unchanged.")


@pytest.mark.task("1.3")
@pytest.mark.parametrize(
    "channels",
    [(6, 6), (10, 10), (int("300"), int("300"))],  # equal, but not the same object
    ids=str,
)
def test_shortcut_is_the_identity_where_the_shape_stays(lesson, channels):
    check_identity(lesson, channels)


PROJECTIONS = [  # in_channels, out_channels, stride, height, width
    (6, 10, 2, 8, 8),
    (6, 10, 2, 7, 5),
    (6, 10, 1, 5, 8),
    (6, 6, 2, 7, 8),
    (10, 6, 3, 9, 7),
    (10, 6, 1, 5, 5),
    (6, 6, 3, 7, 7),
    (6, 6, 2, 1, 1),
]


@pytest.mark.task("1.3")
@MODES
@pytest.mark.parametrize("case", PROJECTIONS, ids=str)
def test_shortcut_is_a_projection_where_the_shape_changes(lesson, case, training):
    check_projection(lesson, case, training)


def check_projection(lesson, case, training):
    """Raise Wrong unless make_shortcut's projection is a 1x1 convolution and a batch norm."""
    in_channels, out_channels, stride, height, width = case
    call = f"make_shortcut({in_channels}, {out_channels}, {stride})"
    torch.manual_seed(draw(0))
    with calling(call):
        shortcut = lesson.make_shortcut(in_channels, out_channels, stride)
    if not isinstance(shortcut, nn.Module):
        raise Wrong(
            f"{call} returned {in_words(shortcut)}, "
            "expected an nn.Module: a 1x1 convolution, then batch norm."
            f"{no_return(shortcut)}"
        )
    oracle = reference_shortcut(in_channels, out_channels, stride)
    shortcut.train(training)
    oracle.train(training)
    x = torch.randn(4, in_channels, height, width)
    what = f"{call} on an input {shape(x)}"
    output, ops = record_network(shortcut, x.clone(), what)
    expected, oracle_ops = record(oracle, x, "")
    if not ops and output is not None and output.shape == x.shape:
        change = f"the stride is {stride}" if stride != 1 else "the channels change"
        has_layers = any(True for _ in shortcut.parameters())
        advice_on_size = " Use its layers on inputs of every size." if has_layers else ""
        raise Wrong(f"{what} is the identity, expected a projection: {change}.{advice_on_size}")
    check_tensor(output, expected, what, advice(wrong_projection(ops, stride)))
    check_registered(shortcut, ops, what)
    randomise(ops)
    _, ops_again = record(shortcut, x.clone(), what)
    pairs = pair_layers(shortcut, ops_again, oracle_ops, what)
    copy_to_oracle(pairs)
    own_weights = [own.weight for own, _ in pairs]
    oracle_weights = [oracle_op.weight for _, oracle_op in pairs]
    got, gradients = run_backwards(shortcut, x, own_weights, what)
    expected, oracle_gradients = run_backwards(oracle, x, oracle_weights, what)
    if is_close(got, expected.relu(), 1e-4):
        raise Wrong(
            f"{what} applies a ReLU. "
            "The shortcut has none: the block's last ReLU comes after the addition."
        )

    def explain():
        if other_precision(ops):
            return other_precision(ops)
        if of_kind(ops, "avg_pool2d"):
            return "pixels are averaged; let the 1x1 convolution take the stride itself"
        ((own, _), (own_norm, _)) = pairs
        takes_stride = "let the 1x1 convolution take the stride itself, before the batch norm"
        if own_norm.input.shape != expected.shape:
            return f"the batch norm takes pixels that are left out afterwards; {takes_stride}"
        other_mode = norm(conv(own.input, own), own_norm, not training)
        if is_close(got, other_mode, 1e-4):
            return IN_TRAIN if training else IN_EVAL
        if own.input.shape != x.shape:
            return (
                f"it takes other pixels than a stride of {stride}, which takes the first one of "
                f"every {stride}; {takes_stride}"
            )
        return None

    check_close(got, expected, f"{what} in {mode_name(training)} mode", explain)
    for gradient, oracle_gradient in zip(gradients, oracle_gradients):
        if gradient is None or not is_close(gradient, oracle_gradient, 1e-3):
            raise Wrong(
                f"{what} gives the correct output, but wrong gradients. "
                "Is something detached (.detach(), no_grad)?"
            )
    what = f"{what} whose memory is in the order channels_last"
    with calling(what), torch.no_grad():
        got = shortcut(x.contiguous(memory_format=torch.channels_last))
        expected = oracle(x)
    check_close(got, expected, what, tolerance=1e-4)


@pytest.mark.task("1.3")
@pytest.mark.parametrize("case", [(6, 10, 2), (6, 6, 2), (6, 10, 1)], ids=str)
def test_projection_starts_open_and_is_new_each_time(lesson, case):
    check_fresh_projection(lesson, case)


def check_fresh_projection(lesson, case):
    """Raise Wrong unless make_shortcut makes new layers in every call, which start open."""
    call = f"make_shortcut{case}"
    with calling(call):
        shortcut = check_module(lesson.make_shortcut(*case), call).eval()
        another = check_module(lesson.make_shortcut(*case), call)
    x = torch.randn(2, 6, 8, 8)
    _, ops = record(shortcut, x, call)
    _, other_ops = record(another, x, call)
    check_shares_nothing(shortcut, another, call)
    check_made_in_train_mode(another, call)
    check_start_is_random(ops, other_ops, call)
    check_start(ops, call)


def wrong_projection(ops, stride):
    """Why a projection's output has another shape, in words, or None."""
    convs = of_kind(ops, "conv2d")
    if not convs:
        return None
    padding = first(convs[0].padding)
    if padding not in (0, "valid"):
        return f"the convolution has padding {padding}; a 1x1 needs none"
    own_stride = first(convs[0].stride)
    if own_stride != stride:
        return (
            "the 1x1 convolution does not take the stride: "
            f"it has stride {own_stride}, expected {stride}"
        )
    return None


# Task 1.4


class Part(nn.Module):
    """A part of the rigged model, with parts of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.norm.bias.requires_grad_(False)
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(self.norm(self.conv(images)))


class Constant(nn.Module):
    """A model that gives fixed logits, one row for each image of numbered_images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        if len(images) != len(self.logits):
            raise Wrong(
                f"accuracy(model, batches) ran the model on {counted(len(images), 'image')} at "
                f"once, where each batch has {len(self.logits)}. Run it once per batch, on all of "
                "the batch's images and no others."
            )
        order = images[:, 0, 0, 0].long()
        in_order = equal(order, torch.arange(len(order)))
        return self.logits if in_order else self.logits[order]


def numbered_images(count):
    """So many images (count, 3, 2, 2), each with its place in the batch as every pixel."""
    return torch.arange(float(count))[:, None, None, None].expand(count, 3, 2, 2).clone()


def make_rigged(training=True):
    """A model that predicts what each image's first pixel says, and a note for each of its calls.

    The pixel's second channel says by how much the largest logit is the largest, its third which
    logit comes second. The notes are no attribute of the model, which the learner's code could
    change.
    """
    notes = []

    class Rigged(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1 / 3, dtype=torch.float64))
            self.stem = Part()
            self.stages = nn.Sequential(Part(), Part())

        def forward(self, images):
            first, margin, second = images[:, :, 0, 0].unbind(1)
            largest = margin[:, None] * one_hot(first.long().clamp(0, 9), 10)
            second_largest = margin[:, None] / 2 * one_hot(second.long().clamp(0, 9), 10)
            logits = 3 * self.weight * (largest + second_largest - 40)
            self.stages(self.stem(images[:4]))  # in train mode their statistics move
            in_train_mode = [name for name, part in self.named_modules() if part.training]
            note = SimpleNamespace(in_train_mode=in_train_mode, recorded=logits.requires_grad)
            note.thread = threading.get_ident()
            notes.append(note)
            return logits

    model = Rigged().train()
    for _ in range(3):
        model.stages(model.stem(torch.randn(4, 3, 2, 2)))  # statistics other than the first ones
    return disturb(model.train(training)), notes


def rigged_batches(sizes, correct, seed=0):
    """Batches of these sizes; the rigged model is correct on correct[i] images of each."""
    generator = torch.Generator().manual_seed(draw(seed))
    for size, correct_count in zip(sizes, correct):
        labels = torch.randint(10, (size,), generator=generator)
        place = torch.arange(size)
        first = torch.where(place < correct_count, labels, (labels + 3) % 10)
        margin = torch.tensor([4.0, 1e-3, 2.0, 0.3, 0.9, 3.0, 1e-3])[place % 7]
        second = torch.where((place < correct_count) | (place % 2 == 0), (labels + 5) % 10, labels)
        pixel = torch.stack([first, margin, second], dim=1)
        images = pixel[:, :, None, None].expand(size, 3, 2, 2).clone()
        yield images, labels


class OwnBatches(Once):
    """Batches that come once, and copies of those that have come."""

    def __init__(self, batches):
        super().__init__(batches)
        self.given = []
        self.copies = []

    def __next__(self):
        images, labels = super().__next__()
        self.given += [images, labels]
        self.copies += [images.clone(), labels.clone()]
        return images, labels


def call_accuracy(lesson, sizes, correct, rigged=None):
    """The learner's accuracy of the rigged model, the notes of its calls, and the call in words."""
    model, notes = rigged or make_rigged()
    what = (
        f"accuracy(model, batches of {listed(sizes)} images, "
        f"of which it classifies {listed(correct)} correctly)"
    )
    batches = OwnBatches(rigged_batches(sizes, correct))
    before = Everything(model)
    try:
        with calling(what):
            value = lesson.accuracy(model, batches)
    except Wrong as wrong:
        raise wrong.because(explain_crash(wrong, batches, sizes)) from None
    before.check_gradients_on(what)
    for i, (tensor, copied) in enumerate(zip(batches.given, batches.copies)):
        if not equal(tensor, copied):
            name = ("images", "labels")[i % 2]
            size = ""
            if tensor.shape != copied.shape:
                size = f": the shape {shape(copied)} has become {shape(tensor)}"
            raise Wrong(
                f"{what} changes the {name} that it is given{size}. "
                f"Avoid methods that end in _ on the {name}."
            )
    return SimpleNamespace(
        value=number(value, what),
        notes=notes,
        what=what,
        before=before,
        model=model,
        cause=batches.cause(),
    )


def listed(numbers):
    """8, 8 and 4."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last


def explain_crash(wrong, batches, sizes):
    """The likeliest mistake behind an exception in accuracy, in words, or None."""
    text = str(wrong)
    if batches.cause():
        return batches.cause()
    if "no len()" in text:
        return "it asks for the length of batches, which may have none; count in the loop"
    if f"tensor a (10) must match the size of tensor b ({sizes[0]})" in text:
        if "dimension 1" in text:
            return "the logits themselves are compared with the labels: take argmax(dim=1) first"
        return "the largest logit is taken over the images; take it over the classes, dim=1"
    if "has no attribute 'dataset'" in text:
        return (
            "batches need not be a DataLoader: count the images in the loop, len(labels) per batch"
        )
    if "is not an iterator" in text:
        return "next() takes one batch only: go through all, for images, labels in batches"
    return None


@pytest.mark.task("1.4")
@pytest.mark.parametrize(
    "sizes, correct",
    [
        ((8, 8, 4), (5, 7, 1)),
        ((8, 8), (8, 0)),
        ((1, 7), (0, 7)),
        ((5,), (0,)),
        ((8,), (8,)),
        ((5, 2), (2, 1)),
        ((40_000, 300), (20_011, 123)),  # more than small integers can count
    ],
    ids=str,
)
def test_accuracy_counts_every_image_once(lesson, sizes, correct):
    call = call_accuracy(lesson, sizes, correct)
    value = call.value
    what = call.what
    expected = sum(correct) / sum(sizes)
    if abs(value - expected) < 1e-6:
        return
    if call.cause:
        cause = call.cause
        if leaves_out_the_last_batch(lesson):
            cause = "it leaves out the last batch, which is taken in advance and never counted"
        raise Wrong(f"{what} returned {value:.4f}, expected {expected:.4f}.", cause)
    again = call_accuracy(lesson, sizes, correct).value
    if again != value:
        raise Wrong(
            f"{what} returned {value:.4f}, expected {expected:.4f}.",
            f"something is kept from call to call: called again, it returns {again:.4f}",
        )
    if depends_on_the_seed(lesson, sizes, correct):
        raise Wrong(
            f"{what} returned {value:.4f}, expected {expected:.4f}.",
            "it depends on torch's random numbers (noise?); compare the logits as they are",
        )
    cause = None
    with contextlib.suppress(Exception):  # other batches may be too much for it
        cause = name_accuracy_mistake(lesson, sizes, correct, value)
    raise Wrong(f"{what} returned {value:.4f}, expected {expected:.4f}.", cause)


OTHER_BATCHES = ((3, 8, 5), (3, 2, 1))  # their sizes; on how many images of each it is correct


def name_accuracy_mistake(lesson, sizes, correct, value):
    """The mistake that gives value, and on other batches what accuracy gives there, or None."""

    def mistakes_on(sizes, correct, value):
        mistakes = accuracy_mistakes(lesson, sizes, correct, value)
        return agreeing(mistakes, lambda known: abs(value - known) < 1e-6)

    other_mistakes = mistakes_on(*OTHER_BATCHES, call_accuracy(lesson, *OTHER_BATCHES).value)
    mistakes = mistakes_on(sizes, correct, value)
    found = [mistake for mistake in mistakes if mistake in other_mistakes]
    if len(found) == 1:
        return found[0]
    if not found and depends_on_the_order(lesson):
        return (
            "it depends on the order of the batches, as a moving average does; count correct "
            "predictions and images over all batches, and divide once"
        )
    return None


def depends_on_the_order(lesson):
    """Whether accuracy gives another value where the same batches come in the reverse order."""
    batches = list(rigged_batches(*OTHER_BATCHES))
    values = []
    for ordered in (batches, batches[::-1]):
        model, _ = make_rigged()
        values.append(float(lesson.accuracy(model, iter(ordered))))
    return abs(values[0] - values[1]) > 1e-6


def leaves_out_the_last_batch(lesson):
    """Whether accuracy counts all batches but the last one, on batches where this shows."""
    value = call_accuracy(lesson, (4, 4, 4), (4, 1, 2)).value
    return any(abs(value - known) < 1e-6 for known in (5 / 8, 5 / 12))


def depends_on_the_seed(lesson, sizes, correct):
    """Whether accuracy gives other values when torch is seeded with other numbers."""
    values = set()
    with torch.random.fork_rng(devices=[]):
        for seed in range(8):
            rigged = make_rigged()
            torch.manual_seed(seed)
            values.add(call_accuracy(lesson, sizes, correct, rigged).value)
    return len(values) > 1


def accuracy_mistakes(lesson, sizes, correct, value):
    """What the known wrong ways give for accuracy, where the learner's gives value."""
    count = sum(sizes)
    expected = sum(correct) / count
    accuracies = [correct_count / size for correct_count, size in zip(correct, sizes)]
    total_loss = 0
    total_probability = 0
    correct_when_rounded = 0
    zeros = 0
    above_one_half = 0
    pairs = 0
    share = 0
    correct_by_place = {}
    correct_by_class = {}
    for images, labels in rigged_batches(sizes, correct):
        model, _ = make_rigged()
        logits = model.eval()(images).detach()
        total_loss += len(labels) * cross_entropy(logits, labels).item()
        probabilities = logits.softmax(1).gather(1, labels[:, None])
        total_probability += probabilities.sum().item()
        above_one_half += (probabilities > 0.5).sum().item()
        correct_when_rounded += (logits.bfloat16().argmax(1) == labels).sum().item()
        predictions_by_class = logits.argmax(1).bincount(minlength=10)
        equal_pairs = (predictions_by_class * labels.bincount(minlength=10)).sum().item()
        pairs += equal_pairs
        share += equal_pairs / len(labels) / count
        zeros += (labels == 0).sum().item()
        is_correct_by_place = (logits.argmax(1) == labels).tolist()
        correct_by_place.update(enumerate(is_correct_by_place))
        for label, is_correct in zip(labels.tolist(), is_correct_by_place):
            correct_by_class.setdefault(label, []).append(float(is_correct))

    def of_correct_predictions():
        """What the learner's accuracy is where every prediction is correct."""
        return call_accuracy(lesson, (4,), (4,)).value

    def accuracy_of(logits, labels):
        batches = [(numbered_images(len(labels)), torch.tensor(labels))]
        return float(lesson.accuracy(Constant(logits), batches))

    def of_one_mistake():
        """What the learner's accuracy is where one prediction of eight is incorrect."""
        return call_accuracy(lesson, (4, 4), (4, 3)).value

    def rounding():
        """The nearest rounded value; to 0 or 1 only if another share is rounded, too."""
        rounded = rounded_like(value, expected)
        if value not in (0, 1):
            return rounded
        one_mistake = of_one_mistake()
        is_rounded = one_mistake == rounded_like(one_mistake, 7 / 8)
        return rounded if is_rounded and of_correct_predictions() == 1 else math.nan

    def whole_batches():
        """The share of images in batches that are correct as a whole, if 3 of 4 count as none."""
        whole = sum(size for size, share in zip(sizes, accuracies) if share == 1)
        return whole / count if of_one_mistake() == 4 / 8 else math.nan

    def counting_in_a_byte():
        """value, if it is what counts of at most 255, or 127, give."""
        total = sum(correct) % 256
        by_batch = sum(correct_count % 256 for correct_count in correct)
        shares = (by_batch / count, total / count, (total - 256) / count)
        return value if any(abs(value - known) < 1e-6 for known in shares) else math.nan

    def without_dim():
        """value, if one prediction, the place in all of a batch's logits, stands for all images."""
        logits = 9 * torch.eye(10)[[3, 5]] * torch.tensor([[2], [1]])
        places = (accuracy_of(logits, [3, 3]), accuracy_of(logits, [3, 5]))
        return value if places == (1, 1 / 2) else math.nan

    def searching_the_images():
        """value, if the learner's accuracy is 1 where the label is the image of largest logit."""
        logits = torch.eye(10).roll(1, dims=0)
        labels = torch.arange(10)
        places = [labels.roll(shift).tolist() for shift in (-1, 1, 2)]
        accuracies = [accuracy_of(logits, place) for place in places]
        return value if accuracies == [1, 0, 0] else math.nan

    def demanding_more_than_one_half():
        """above_one_half's share, if no image counts whose largest probability is lower."""
        likely = accuracy_of(9 * torch.eye(10)[[2, 2]], [2, 2])
        unlikely = accuracy_of(torch.eye(10)[[2, 2]], [2, 2])
        return above_one_half / count if (likely, unlikely) == (1, 0) else math.nan

    def starting_at_0():
        """value, if predictions are correct only where the largest logit is above 0."""
        logits = torch.eye(10)[[2, 5]]
        above, below = accuracy_of(logits, [2, 5]), accuracy_of(logits - 2, [2, 5])
        return value if (above, below) == (1, 0) else math.nan

    def comparing_all_with_all():
        """value, if it is one of the shares that equal pairs of a prediction and a label give."""
        all_pairs = sum(size**2 for size in sizes)
        shares = (pairs / count, share, pairs / all_pairs)
        return value if any(abs(value - known) < 1e-6 for known in shares) else math.nan

    def rounding_down():
        return 0 if of_correct_predictions() == 1 and of_one_mistake() == 0 else math.nan

    def taking_the_smallest():
        """value, if the learner's accuracy is 1 where the smallest logit is that of the label."""
        logits = torch.eye(10)[[2, 5, 7, 4]]
        smallest, largest = (accuracy_of(sign * logits, [2, 5, 7, 4]) for sign in (-1, 1))
        return value if (smallest, largest) == (1, 0) else math.nan

    def taking_other_images_labels():
        """value, if a prediction counts where its label is that of another image of the batch."""
        logits = 20 * torch.eye(10)[[7, 6, 6, 9]] - torch.arange(10)
        others, nobodys = (accuracy_of(logits, labels) for labels in ([6, 9, 7, 6], [8] * 4))
        return value if (others, nobodys) == (1, 0) else math.nan

    def in_low_precision(dtype):
        """value, if it is what counts, or their quotient, give in this dtype."""
        low_count = sum(torch.tensor(size, dtype=dtype) for size in sizes)
        low_correct = sum(torch.tensor(correct_count, dtype=dtype) for correct_count in correct)
        shares = ((low_correct / low_count).item(), torch.tensor(expected, dtype=dtype).item())
        return value if any(abs(value - known) < 1e-6 for known in shares) else math.nan

    ranks = 1
    with contextlib.suppress(Exception):  # one image may be too few for it
        ranks = lowest_rank_that_counts(accuracy_of)

    def comparing_logits():
        """0 if the learner's accuracy is 1 where the largest logit itself is the label."""
        labels = torch.tensor([2.0, 5, 7, 4])
        logits = labels[:, None] * torch.eye(10)[[5, 8, 0, 7]]
        return 0 if accuracy_of(logits, [2, 5, 7, 4]) == 1 else math.nan

    return {
        "it is a percentage; return a share from 0 to 1": 100 * expected,
        "it is the number of correct predictions; divide by the number of images": sum(correct),
        "it averages the batches' accuracies, though the last batch is smaller": (
            sum(accuracies) / len(sizes)
        ),
        "it averages the classes' accuracies; each image counts the same": statistics.fmean(
            map(statistics.fmean, correct_by_class.values())
        ),
        "it sums the batches' accuracies": sum(accuracies),
        "it counts the last batch only": accuracies[-1],
        "it counts the first batch only": accuracies[0],
        "it forgets the batches before the last one; add up with +=": correct[-1] / count,
        "it leaves out the last batch": sum(correct[:-1]) / max(1, sum(sizes[:-1])),
        "it divides by the last batch's size": sum(correct) / sizes[-1],
        "it divides by the number of batches": sum(correct) / len(sizes),
        "it takes every batch to be as large as the first": (
            sum(correct) / (sizes[0] * len(sizes))
        ),
        "it takes every batch to be as large as the last": sum(correct) / (sizes[-1] * len(sizes)),
        "it is the error, the share of incorrect predictions; return the accuracy": 1 - expected,
        "it is the loss, not the accuracy": total_loss / count,
        "it is always 1": 1,
        "only logits above 0 count, so that all images are taken for class 0": zeros / count,
        f"it counts labels among the {ranks} largest logits (top-{ranks}); only the largest "
        "counts": value if ranks > 1 else math.nan,
        "it is the mean probability of the labels; count correct predictions": (
            total_probability / count
        ),
        "it counts probabilities above one half; the largest logit decides, however small": (
            demanding_more_than_one_half
        ),
        "the search for the largest logit starts at 0, but all of them may be negative": (
            starting_at_0
        ),
        "argmax() without dim gives one number for the whole batch; say argmax(dim=1)": without_dim,
        "each prediction is compared with every label; both should have the shape (batch,)": (
            comparing_all_with_all
        ),
        "the logits are rounded to few digits before argmax": correct_when_rounded / count,
        "correct predictions are counted in float16, which ends at 2,048; count in whole numbers": (
            min(2048, sum(correct)) / count
        ),
        "correct predictions are counted in bfloat16, which ends at 256; count in whole numbers": (
            min(256, sum(correct)) / count
        ),
        "it computes in float16, which keeps three digits; count and divide in plain Python": (
            lambda: in_low_precision(torch.float16)
        ),
        "it computes in bfloat16, which keeps two digits; count and divide in plain Python": (
            lambda: in_low_precision(torch.bfloat16)
        ),
        "correct predictions are counted in a byte, which starts again after 255 or 127; count in "
        "int64": counting_in_a_byte,
        "a prediction counts if another image has that label; compare each with its own image's": (
            taking_other_images_labels
        ),
        "later batches overwrite what earlier ones have at the same places; keep all": (
            sum(correct_by_place.values()) / len(correct_by_place)
        ),
        "only batches that are correct as a whole count (torch.equal?); compare image by image": (
            whole_batches
        ),
        "the largest logit is searched over the images; search over the classes, dim=1": (
            searching_the_images
        ),
        "it is rounded; return it as it is": rounding,
        "it rounds down: divide by /, not by //": rounding_down,
        "it takes the smallest logit; take the largest": taking_the_smallest,
        "the largest logit itself is compared with the label, not its index": comparing_logits,
    }


def lowest_rank_that_counts(accuracy_of):
    """k, if accuracy counts labels among the k largest of ten logits; 1 if it is not so."""
    by_spacing = []
    for logits in (torch.arange(10.0), 2 ** torch.arange(10.0)):  # the larger the class is
        by_spacing.append([accuracy_of(logits[None], [label]) for label in reversed(range(10))])
    ranks = int(sum(by_spacing[0]))
    top_ranks = [1] * ranks + [0] * (10 - ranks)
    return ranks if ranks < 10 and by_spacing == [top_ranks] * 2 else 1


@pytest.mark.task("1.4")
@pytest.mark.parametrize("size", [1e-30, 1e3, 1e30], ids=str)
def test_accuracy_of_logits_of_any_size(lesson, size):
    logits = torch.randn(9, 10, generator=torch.Generator().manual_seed(draw(0)))
    labels = logits.argmax(dim=1)
    labels[:3] = (labels[:3] + 1) % 10
    for sign in (1, -1):
        expected = ((sign * logits).argmax(dim=1) == labels).double().mean().item()
        given = sign * size * logits
        model = Constant(given.clone())
        what = f"accuracy(model, one batch) of logits of at most {sign * size * logits.max():.1g}"
        with calling(what):
            value = number(lesson.accuracy(model, iter([(numbered_images(9), labels)])), what)
        if not equal(model.logits, given):
            raise Wrong(f"{what} writes into the model's logits. Leave them as they are.")
        if abs(value - expected) > 1e-6:
            exponentials = given.exp()
            own_softmax = exponentials / exponentials.sum(dim=1, keepdim=True)
            squeezed = (given.softmax(1), given.log_softmax(1), given.sigmoid(), own_softmax)
            accuracies = [(s.argmax(dim=1) == labels).double().mean() for s in squeezed]
            cause = None
            if any(abs(value - accuracy) < 1e-6 for accuracy in accuracies):
                cause = "softmax, sigmoid or rounding makes logits equal; compare them as they are"
            raise Wrong(f"{what} returned {value:.4f}, expected {expected:.4f}.", cause)


@pytest.mark.task("1.4")
def test_accuracy_of_many_classes(lesson):
    labels = torch.tensor([0, 44, 299, 256, 7, 0, 1, 300])
    predictions = torch.tensor([256, 300, 299, 256, 263, 11, 101, 0])
    model = Constant(torch.eye(301)[predictions])
    what = "accuracy(model, one batch) of 301 classes, with 2 of 8 images classified correctly,"
    with calling(what):
        value = number(lesson.accuracy(model, iter([(numbered_images(8), labels)])), what)

    def counts(label, prediction):
        """What the learner's accuracy is for one image with this label and this prediction."""
        batches = [(numbered_images(1), torch.tensor([label]))]
        return lesson.accuracy(Constant(torch.eye(301)[[prediction]]), batches)

    def counting_up_to_9():
        """Whether a correct prediction counts up to class 9 and not above it."""
        return [counts(label, label) for label in (5, 9, 10, 200)] == [1, 1, 0, 0]

    def counting_on_ten_classes():
        """Whether different classes, some of them above 9, are taken for the same."""
        pairs = ((5, 15), (15, 5), (0, 11), (12, 15))
        return counts(5, 6) == 0 and any(counts(*pair) == 1 for pair in pairs)

    def counting_in_a_byte():
        """Whether classes that differ by 256 are taken for the same."""
        return counts(5, 6) == 0 and 1 in (counts(5, 261), counts(261, 5))

    mistakes = {
        "numbers above 255 need more than a byte; leave labels and predictions in int64": (
            counting_in_a_byte
        ),
        "it counts on ten classes; there may be any number": counting_on_ten_classes,
        "labels above 9 never count; there may be any number of classes": counting_up_to_9,
    }
    if abs(value - 0.25) > 1e-6:
        cause = likeliest(mistakes, lambda is_made: is_made)
        raise Wrong(f"{what} returned {value:.4f}, expected 0.2500.{cause}")


@pytest.mark.task("1.4")
def test_accuracy_of_one_class(lesson):
    model = Constant(torch.randn(5, 1))
    batches = [(numbered_images(5), torch.zeros(5, dtype=torch.long))]
    what = "accuracy(model, one batch) of 5 images of a single class"
    with calling(what):
        value = number(lesson.accuracy(model, iter(batches)), what)
    if abs(value - 1) > 1e-6:
        raise Wrong(
            f"{what} returned {value:.4f}, expected 1: compare along dim=1, the classes. "
            "squeeze() drops that dimension where there is one class."
        )


@pytest.mark.task("1.4")
def test_accuracy_of_infinite_logits(lesson):
    logits = torch.full((4, 10), -math.inf)
    logits[0, 3] = math.inf
    logits[1, 4] = 0.0
    logits[2:, 5] = -1e30
    labels = torch.tensor([3, 4, 5, 6])
    batches = [(numbered_images(4), labels)]
    what = "accuracy(model, one batch) of logits of which some are infinite"
    with calling(what):
        value = number(lesson.accuracy(Constant(logits), iter(batches)), what)
    if abs(value - 0.75) > 1e-6:
        raise Wrong(f"{what} returned {value:.4f}, expected 0.7500: every image counts.")


@pytest.mark.task("1.4")
def test_accuracy_of_nearly_equal_logits(lesson):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(12)[:3])
    images = torch.zeros(4, 3, 2, 2)
    images[:, 0, 0] = torch.tensor([1.0, 1.001])  # the logits of classes 0 and 1
    what = "accuracy(model, batches), where the correct class leads by 0.001,"
    with calling(what):
        value = number(lesson.accuracy(model, [(images, torch.ones(4).long())]), what)
    if value != 1:
        raise Wrong(
            f"{what} returned {value:.4f}, expected 1.0000. Take the logits as the model gives "
            "them: autocast, half() and rounding make nearly equal ones equal."
        )


@pytest.mark.task("1.4")
def test_accuracy_lets_errors_through(lesson):
    failure = RuntimeError("from the model's second batch")
    seen = []

    def fail(*_):
        seen.append(1)
        if len(seen) == 2:
            raise failure

    model = Constant(torch.eye(10)[:4])
    model.register_forward_pre_hook(fail)
    batches = [(numbered_images(4), torch.arange(4))] * 3
    what = "accuracy(model, batches), where the model raises an error,"
    check_lets_errors_through(what, lambda: lesson.accuracy(model, batches), failure)


@pytest.mark.task("1.4")
def test_accuracy_of_a_model_with_a_hook(lesson):
    model = Constant(torch.eye(10)[:4])
    model.register_forward_hook(lambda model, inputs, logits: logits.roll(1, dims=1))
    images = numbered_images(4).requires_grad_()
    labels = torch.tensor([1, 2, 3, 0])
    what = "accuracy(model, one batch) of a model whose forward hook changes the logits"
    with calling(what):
        value = number(lesson.accuracy(model, iter([(images, labels)])), what)
    if abs(value - 0.75) > 1e-6:
        raise Wrong(
            f"{what} returned {value:.4f}, expected 0.7500. "
            "Call model(images), which runs the model's hooks; model.forward(images) does not."
        )
    if not images.requires_grad:
        raise Wrong(f"{what} changes requires_grad of the images. Leave the batches as they are.")


@pytest.mark.task("1.4")
def test_accuracy_of_a_model_that_has_learned(lesson):
    """The same model and the same list of batches as before; only the logits have changed."""
    model = Constant(torch.eye(10)[:4])
    batches = [(numbered_images(4), torch.arange(4))]
    what = "accuracy(model, batches), called again after the model has changed,"
    with calling(what):
        lesson.accuracy(model, batches)
        if len(batches) != 1:
            raise Wrong(
                "accuracy(model, batches) of a list of 1 batch leaves "
                f"{counted(len(batches), 'batch', 'es')} in it. Change no batch and no list."
            )
        model.logits = torch.eye(10)[[0, 1, 7, 8]]
        value = number(lesson.accuracy(model, batches), what)
    if abs(value - 0.5) > 1e-6:
        raise Wrong(f"{what} returned {value:.4f}, expected 0.5000. Keep nothing between calls.")


@pytest.mark.task("1.4")
def test_accuracy_of_many_images_with_logits_in_float16(lesson):
    logits = torch.eye(10)[3:4].half()
    correct = (torch.zeros(1, 3, 2, 2), torch.tensor([3]))
    incorrect = (torch.zeros(1, 3, 2, 2), torch.tensor([5]))
    what = "accuracy(model, 4,000 batches of 1 image, of which 3,000 are correct, float16 logits)"
    batches = OwnBatches([incorrect] * 1000 + [correct] * 3000)
    with calling(what):
        value = number(lesson.accuracy(Constant(logits), batches), what)

    def counting_all_in_float16():
        """1, if it is 1 where the correct ones come first, too, and 0 of an incorrect one alone."""
        alone = lesson.accuracy(Constant(logits), [incorrect])
        correct_first = lesson.accuracy(Constant(logits), [correct] * 3000 + [incorrect] * 1000)
        return 1 if (alone, correct_first) == (0, 1) else math.nan

    if abs(value - 0.75) < 1e-6:
        return
    taken = len(batches.given) // 2
    if taken < 4000:
        cause = advice(f"it takes {taken:,} batches only; go through all of them")
    else:
        mistakes = {
            "it counts in float16, which ends at 2,048; count in whole numbers": 2048 / 4000,
            "it counts in float16, which ends at 2,048, images, too; count in whole numbers": (
                counting_all_in_float16
            ),
            "it counts in bfloat16, which ends at 256; count in whole numbers": 256 / 4000,
        }
        cause = likeliest(mistakes, lambda known: abs(value - known) < 1e-3)
    raise Wrong(f"{what} returned {value:.4f}, expected 0.7500.{cause}")


@pytest.mark.task("1.4")
@pytest.mark.parametrize("training", [True, False], ids=["from train mode", "from eval mode"])
def test_accuracy_uses_eval_mode(lesson, training):
    """The model's parts are in mixed modes, whatever the mode of the model itself."""
    call = call_accuracy(lesson, (6, 2), (3, 1), make_rigged(training))
    for note in call.notes:
        if note.in_train_mode:
            first, *others = [name or "the model itself" for name in note.in_train_mode]
            more = f" and {len(others)} more of the model's parts" if others else ""
            if not call.notes[0].in_train_mode:
                raise Wrong(
                    f"{call.what} ran {first}{more} in train mode from a later batch on. The first "
                    "batch was in eval mode: go back to train mode after the last batch, if at all."
                )
            raise Wrong(
                f"{call.what} ran {first}{more} in train mode: batch norm would use the batch's "
                "statistics, and dropout would drop. Call model.eval(), which reaches every part, "
                "whatever the mode of the model itself."
            )


@pytest.mark.task("1.4")
def test_accuracy_takes_no_gradients(lesson):
    call = call_accuracy(lesson, (6, 2), (3, 1))
    if not any(note.recorded for note in call.notes):
        return
    recorded = f"{call.what} recorded the forward pass for gradients, which costs memory and time."
    if any(note.thread != threading.get_ident() for note in call.notes):
        raise Wrong(
            f"{recorded} The model ran in another thread: torch.no_grad() holds only in the thread "
            "that enters it."
        )
    advice_on_no_grad = "Say: with torch.no_grad(): and put the loop inside it."
    code = getattr(lesson.accuracy, "__code__", None)  # accuracy need not be a plain function
    if "no_grad" in getattr(code, "co_names", ()):
        advice_on_no_grad += (
            " On a line of its own it does nothing, and a generator or map runs where it is gone "
            "through."
        )
    raise Wrong(f"{recorded} {advice_on_no_grad}")


@pytest.mark.task("1.4")
def test_accuracy_goes_through_the_batches_once(lesson):
    call = call_accuracy(lesson, (1100, 2, 2), (3, 1, 0))
    if len(call.notes) != 3:
        raise Wrong(
            f"{call.what} ran the model {len(call.notes)} times, expected 3: once per batch."
        )


@pytest.mark.task("1.4")
def test_accuracy_changes_nothing_but_the_mode(lesson):
    call = call_accuracy(lesson, (6, 2), (3, 1))
    call.before.check(call.what, "mode")
    with torch.no_grad():
        call = call_accuracy(lesson, (6, 2), (3, 1))
    call.before.check(call.what, "mode", "gradients on")
    check_settings_stay("accuracy(model, batches)", lambda: call_accuracy(lesson, (6, 2), (3, 1)))


@pytest.mark.task("1.4")
def test_accuracy_called_twice(lesson):
    rigged = make_rigged()
    for sizes, correct in (((4, 3), (4, 2)), ((5, 5), (1, 2))):
        call = call_accuracy(lesson, sizes, correct, rigged)
        expected = sum(correct) / sum(sizes)
        if abs(call.value - expected) < 1e-6:
            continue
        returned = f"{call.what} returned {call.value:.4f}, expected {expected:.4f}"
        if abs(call_accuracy(fresh_copy(lesson), sizes, correct).value - expected) > 1e-6:
            raise Wrong(f"{returned}.")
        raise Wrong(
            f"{returned}, when another call with the same model came before it. "
            "Keep nothing from call to call."
        )


@pytest.mark.task("1.4")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    check_dry_run(script, dry_run)


if __name__ == "__main__":  # by the Run button of an editor
    raise SystemExit(pytest.main([__file__]))
