"""Exercise 4: torchvision's bottleneck and networks, torch's flop counter, and numbers by hand are the judges."""

import copy
import functools
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
import torchvision
from diagnosis import (
    BOTTLENECK_MISTAKES,
    bottleneck_parts,
    extra,
    first_difference,
    other_settings,
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
    check_tensor,
    is_close,
    likeliest,
    number,
    numbers,
    plain,
    shape,
)
from torch import equal, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import Bottleneck
from what_ran import check_registered, copy_to_oracle, first, kernel, pair_ops, randomise, record

DEPTHS = (18, 34, 50, 101)
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
CASES = [  # in_channels, channels, stride, height, width
    pytest.param((24, 6, 1, 8, 8), id="same-shape"),
    pytest.param((24, 6, 1, 7, 9), id="same-shape-odd-size"),
    pytest.param((6, 6, 1, 8, 5), id="first-stage-of-ResNet-50"),
    pytest.param((24, 10, 2, 8, 8), id="more-channels-stride-2"),
    pytest.param((24, 10, 2, 7, 9), id="more-channels-stride-2-odd-size"),
    pytest.param((24, 6, 2, 5, 8), id="stride-2"),
]


# --- 4.1 ------------------------------------------------------------------------------------------------------------


def like_the_paper(ops):
    """Whether a bottleneck's stride is on its first 1x1 convolution, the paper's place; torchvision's is the 3x3."""
    strides = [first(op.stride) for op in ops if op.kind == "conv2d" and kernel(op) == 3]
    narrow = [op for op in ops if op.kind == "conv2d" and kernel(op) == 1 and len(op.weight) < op.weight.shape[1] * 4]
    return bool(strides) and all(s == 1 for s in strides) and any(first(op.stride) > 1 for op in narrow)


def move_strides(oracle):
    """Put each of torchvision's strides where the paper has it."""
    for module in oracle.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)


def block_twins(lesson, case, training):
    """A bottleneck of the learner's and torchvision's with the same random weights."""
    in_channels, channels, stride, height, width = case
    call = f"Bottleneck({in_channels}, {channels}, stride={stride})"
    torch.manual_seed(0)
    with calling(call):
        block = lesson.Bottleneck(in_channels, channels, stride=stride)
    if not isinstance(block, nn.Module):
        raise Wrong(f"{call} is a {type(block).__name__}, not an nn.Module.")
    projection = None
    if stride != 1 or in_channels != 4 * channels:
        conv = nn.Conv2d(in_channels, 4 * channels, 1, stride, bias=False)
        projection = nn.Sequential(conv, nn.BatchNorm2d(4 * channels))
    oracle = Bottleneck(in_channels, channels, stride, projection)
    block.train(training), oracle.train(training)
    x = torch.randn(4, in_channels, height, width)
    what = f"{call} on an input {shape(x)}"
    output, ops = record_block(block, x.clone(), what, case)
    for name, parameter in block.named_parameters():
        check_tensor(parameter, parameter, f"{call}: {name}")
    if like_the_paper(ops):
        move_strides(oracle)
    expected, oracle_ops = record(oracle, x, "")
    check_tensor(output, expected, what, " It puts out expansion * channels = 4 * channels channels.")
    check_registered(block, ops, what)
    randomise(ops)
    ops = record(block, x.clone(), what)[1]
    pairs = pair_ops(ops, oracle_ops, what)
    copy_to_oracle(pairs)
    return SimpleNamespace(block=block, oracle=oracle, x=x, pairs=pairs, what=what, ops=ops, channels=channels)


def record_block(block, x, what, case):
    """What a bottleneck puts out and ran; a crash where a projection is missing is named."""
    try:
        return record(block, x, what)
    except Wrong as wrong:
        in_channels, channels, stride = case[:3]
        needed = stride != 1 or in_channels != 4 * channels
        cause = wrong_bottleneck(wrong.ops, channels)
        if not cause and needed and "size of tensor" in str(wrong):
            cause = (
                f"the shortcut does not lead from {in_channels} to {4 * channels} channels, with stride {stride}; a "
                "projection is needed wherever in_channels is not 4 * channels, at stride 1 as well"
            )
        raise wrong.because(cause or wrong_channels(wrong)) from None


def explain_block(twins, got, training):
    """The known mistake that gives what a bottleneck gave, or None."""
    for mode, words in ((True, "in eval mode a batch norm still uses"), (False, "in train mode a batch norm uses")):
        other = bottleneck_parts(twins.x, twins.ops, mode)
        if mode is not training and is_close(got, (other.a3 + other.s).relu(), 1e-4):
            return f"{words} the {'batch' if mode else 'running'} statistics"
    parts = bottleneck_parts(twins.x, twins.ops, training)
    if is_close(got, (parts.a3 + parts.s).relu(), 1e-4):
        convs = [op for op in twins.ops if op.kind == "conv2d"]
        return wrong_bottleneck(twins.ops, twins.channels) or other_settings(convs)
    for mistake, wrong in BOTTLENECK_MISTAKES.items():
        try:
            value = wrong(parts)
        except RuntimeError:  # impossible with these shapes
            continue
        if value is not None and is_close(got, value, 1e-4):
            return mistake
    return wrong_bottleneck(twins.ops, twins.channels) or extra(twins.ops)


@pytest.mark.task("4.1")
@MODES
@pytest.mark.parametrize("case", CASES)
def test_bottleneck_computes_what_torchvisions_does(lesson, case, training):
    twins = block_twins(lesson, case, training)
    x = twins.x.clone()
    with calling(twins.what), torch.no_grad():
        got = twins.block(x)
    if not equal(x, twins.x):
        raise Wrong(f"{twins.what} changed the input itself. Avoid += and inplace=True on x.")
    with torch.no_grad():
        expected = twins.oracle(twins.x)
    what = f"{twins.what} in {'train' if training else 'eval'} mode"
    check_close(got, expected, what, lambda: explain_block(twins, got, training))


@pytest.mark.task("4.1")
@pytest.mark.parametrize("case", CASES[2:4])
def test_bottleneck_passes_gradients_on(lesson, case):
    twins, grads = block_twins(lesson, case, training=True), []
    for i, model in enumerate((twins.block, twins.oracle)):
        x = twins.x.clone().requires_grad_()
        own = [pair[i].weight for pair in twins.pairs]
        with calling(f"{twins.what}, backwards,"):
            output = model(x)
            if not output.requires_grad:
                raise Wrong(f"{twins.what}: no gradient comes back through it. Is something detached or under no_grad?")
            direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
            grads.append(torch.autograd.grad((output * direction).sum(), [x, *own], allow_unused=True))
            if i == 0:
                got = output.detach()
            else:
                check_close(got, output.detach(), twins.what, functools.partial(explain_block, twins, got, True))
    for i, (own, expected) in enumerate(zip(*grads)):
        if own is None or not is_close(own, expected, 1e-4):
            raise Wrong(
                f"{twins.what} gives the right output, but a wrong gradient for {'its weights' if i else 'its input'}."
                f"{advice(detached_part(twins, grads[0][1:]))}"
            )


def detached_part(twins, gradients):
    """Which part of a bottleneck with a projection no gradient goes through, in words."""
    idle = [op for (op, _), gradient in zip(twins.pairs, gradients) if op.kind == "conv2d" and gradient is None]
    projection = [op for op, _ in twins.pairs if op.kind == "conv2d" and kernel(op) == 1][-1]
    part = ": here the branch" if any(kernel(op) == 3 for op in idle) else ""
    if len(idle) == 1 and idle[0] is projection:
        part = ": here the shortcut"
    return f"the shortcut or the branch is detached (.detach(), .data, no_grad){part}"


@pytest.mark.task("4.1")
def test_bottleneck_stride_is_1_unless_given(lesson):
    with calling("Bottleneck(8, 2)"):
        output = lesson.Bottleneck(8, 2)(torch.randn(2, 8, 6, 6))
    check_tensor(output, torch.empty(2, 8, 6, 6), "Bottleneck(8, 2) on an input (2, 8, 6, 6)")


# --- 4.2 ------------------------------------------------------------------------------------------------------------

COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # blocks in each stage
PARAMETERS = {  # of torchvision's networks; the tests of the tests compare
    ("imagenet", 1000): dict(zip(DEPTHS, (11_689_512, 21_797_672, 25_557_032, 44_549_160))),
    ("cifar", 10): dict(zip(DEPTHS, (11_173_962, 21_282_122, 23_520_842, 42_512_970))),
}


@functools.cache
def make_oracle(depth, stem):
    """torchvision's network for ten classes, with the stem for small pictures if asked for, in eval mode."""
    oracle = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    if stem == "cifar":
        oracle.conv1, oracle.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return oracle.eval()


@pytest.mark.task("4.2")
@pytest.mark.parametrize("stem, classes", PARAMETERS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_network_has_the_right_size(lesson, depth, stem, classes):
    call = f"build_resnet({depth}, num_classes={classes}, stem={stem!r})"
    with calling(call):
        model = lesson.build_resnet(depth, num_classes=classes, stem=stem).eval()
        if any(isinstance(p, nn.UninitializedParameter) for p in model.parameters()):
            model(torch.zeros(1, 3, 33, 33))  # lazy layers take their shapes
        count = sum(p.numel() for p in model.parameters())
    expected = PARAMETERS[stem, classes][depth]
    if count != expected:
        cause = name_network_mistake(model, depth, stem, classes)
        raise Wrong(f"{call} has {count:,} parameters, expected {expected:,} ({count - expected:+,}).{advice(cause)}")


def name_network_mistake(model, depth, stem, classes):
    """What is wrong with the layers of a network, in words, or None."""
    oracle, x = copy.deepcopy(make_oracle(depth, stem)), torch.randn(2, 3, 33, 33)
    oracle.fc = nn.Linear(oracle.fc.in_features, classes)
    with torch.no_grad():
        try:
            ops = record(model.eval(), x, "")[1]
        except Wrong as wrong:
            return wrong_channels(wrong)
        return wrong_layers(ops, record(oracle, x, "")[1], depth, stem)


def wrong_layers(ops, oracle_ops, depth, stem):
    """What is wrong with the layers that ran, in words, or None."""
    if like_the_paper(ops):
        return None

    def place(i):
        return "the stem's convolution" if i == 0 else place_in_resnet(i - 1, depth) + "'s 3x3 convolution"

    return wrong_network(ops, oracle_ops, COUNTS[depth], place)


def place_in_resnet(index, depth):
    """Where the 3x3 convolution number index, from 0 and the stem's left out, lies."""
    block = index // (1 + (depth < 50))
    for stage, count in enumerate(COUNTS[depth]):
        if block < count:
            return f"stage {stage}, block {block}"
        block -= count
    return "the end of the stages"


CASES_OF_NETWORKS = [  # depth, stem, train mode, pictures, height and width
    *((depth, "cifar", False, 2, (9, 14)) for depth in DEPTHS),
    *((depth, "cifar", True, 3, (16, 19)) for depth in (18, 50)),
    (18, "cifar", False, 1, (17, 16)),
    (50, "imagenet", False, 2, (65, 50)),
]


@pytest.mark.task("4.2")
@pytest.mark.timeout(90)
@pytest.mark.parametrize("depth, stem, training, count, size", CASES_OF_NETWORKS, ids=str)
def test_network_computes_what_torchvisions_does(lesson, depth, stem, training, count, size):
    call, oracle = f"build_resnet({depth}, stem={stem!r})", copy.deepcopy(make_oracle(depth, stem)).train(training)
    torch.manual_seed(0)
    with calling(call):
        model = lesson.build_resnet(depth, stem=stem).train(training)
    x = torch.randn(count, 3, *size)
    what = f"{call} on pictures {shape(x)} in {'train' if training else 'eval'} mode"
    with torch.no_grad():
        output, ops = record_network(model, x, what)
        if like_the_paper(ops):
            move_strides(oracle)
        expected, oracle_ops = record(oracle, x, "")
        check_tensor(output, expected, what)
        check_registered(model, ops, what)
        randomise(ops)
        ops = record_network(model, x, what)[1]
        copy_to_oracle(pair_ops(ops, oracle_ops, what))
        got, ops = record_network(model, x, what)
        expected, oracle_ops = record(oracle, x, "")
    if extra(ops, oracle_ops) and is_close(got, expected, 1e-3):
        raise Wrong(f"{what}: {extra(ops, oracle_ops)}.")

    def explain():
        pairs = pair_ops(ops, oracle_ops, what)
        number = first_difference(pairs)
        if number is None:
            return wrong_head(got, expected, ops, oracle_ops)
        where = place_in_resnet(max(number - (stem == "cifar"), 0), depth)
        return (
            wrong_layers(ops, oracle_ops, depth, stem)
            or wrong_between(pairs, ops, oracle_ops, lambda i: where, number)
            or f"what reaches {where} is not right (both counted from 0)"
        )

    check_close(got, expected, what, explain, tolerance=1e-3)


def record_network(model, x, what):
    """What a network puts out and ran, its pictures left as they were; a layer that does not fit is named."""
    given = x.clone()
    try:
        output, ops = record(model, given, what)
    except Wrong as wrong:
        raise wrong.because(wrong_channels(wrong)) from None
    if not equal(given, x):
        raise Wrong(f"{what} changed the pictures themselves. Avoid inplace=True and methods that end in _ on them.")
    return output, ops


@pytest.mark.task("4.2")
@pytest.mark.parametrize("depth", [18, 50])
def test_network_takes_a_width(lesson, depth):
    call = f"build_resnet({depth}, width=4, num_classes=7)"
    with calling(call):
        model = lesson.build_resnet(depth, width=4, num_classes=7).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        output, ops = record_network(model, x, f"{call} on pictures {shape(x)}")
        _, oracle_ops = record(make_oracle(depth, "cifar"), x, "")
    check_tensor(output, torch.empty(2, 7), f"{call} on pictures {shape(x)}")
    got, wanted = [
        [len(op.weight) for op in group if op.kind == "conv2d" and kernel(op) == 3] for group in (ops, oracle_ops)
    ]
    if got != [channels // 16 for channels in wanted]:
        raise Wrong(
            f"{call}: its 3x3 convolutions put out {got} channels, expected {[c // 16 for c in wanted]}: "
            "width * 2**i in stage i."
        )


@pytest.mark.task("4.2")
def test_network_refuses_other_depths(lesson):
    with calling("build_resnet(18, width=16)"):
        lesson.build_resnet(18, width=16)
    try:
        lesson.build_resnet(20)
    except ValueError:
        return
    raise Wrong("build_resnet(20) raised no ValueError. Leave the lines above the TODO as they are.")


# --- 4.3 ------------------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Grouped, dilated, strided convolutions with biases, a layer that runs twice, a linear layer on a sequence.

    It notes what it is run on: (pictures, whether gradients are on).
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 5), stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8))
        self.tokens, self.last = nn.Linear(8, 12), nn.Linear(12, 5, bias=False)
        self.scale, self.runs = nn.Parameter(torch.ones(3, 1, 1)), []

    def forward(self, x):
        self.runs.append((len(x), torch.is_grad_enabled()))
        x = x * self.scale
        x = self.grouped(self.grouped(self.first(x)))
        x = self.depthwise(x).flatten(2).transpose(1, 2)
        return self.last(self.tokens(x).relu().mean(dim=1))


def oracle_macs(model, size):
    """Half of what torch's own flop counter says."""
    model = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *size, device="meta"))
    return counter.get_total_flops() // 2


def layer_sums(model, size, of, layers=None):
    """The sum of of(layer, what reaches it, what it puts out) over a copy's convolutions and linear layers.

    layers: only those that stand for these of the model.
    """
    twin, found = copy.deepcopy(model).to("meta").eval(), []
    for own, layer in zip(model.modules(), twin.modules()):
        wanted = isinstance(layer, nn.Conv2d | nn.Linear) if layers is None else any(own is other for other in layers)
        if wanted and hasattr(layer, "weight"):
            layer.register_forward_hook(lambda layer, inputs, output: found.append(of(layer, inputs[0], output)))
    twin(torch.zeros(1, *size, device="meta"))
    return sum(found)


def mac_mistakes(model, size, expected):
    """What the known wrong ways give for count_macs."""
    sums = functools.partial(layer_sums, model, size)

    def square(layer, x, y):
        return layer.weight.numel() * (y.shape[-1] ** 2 if y.dim() == 4 else 1)

    def square_kernel(layer, x, y):
        kernel = getattr(layer, "kernel_size", (1, 1))
        return y.numel() * layer.weight[0].numel() * kernel[0] // kernel[1]

    def once(layer, x, y):
        runs[layer] = y.numel() * layer.weight[0].numel()
        return 0

    def counting_each_layer_once():
        sums(once)
        return sum(runs.values())

    runs, norms = {}, [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    return {
        "it counts operations, two for each multiply-add": 2 * expected,
        "it multiplies by the whole weight; take one row, weight[0]": lambda: sums(
            lambda layer, x, y: y.numel() * layer.weight.numel()
        ),
        "it leaves the linear layers out": lambda: sums(
            lambda layer, x, y: y.numel() * layer.weight[0].numel() * isinstance(layer, nn.Conv2d)
        ),
        "it counts parameters, not multiply-adds": sum(p.numel() for p in model.parameters()),
        "it takes the size of what reaches a layer; take that of what it puts out": lambda: sums(
            lambda layer, x, y: x.numel() * layer.weight[:, 0].numel()
        ),
        "it takes pictures to be as high as wide; height and width can differ": lambda: sums(square),
        "it adds the biases; they are left out": lambda: sums(
            lambda layer, x, y: y.numel() * (layer.weight[0].numel() + (layer.bias is not None))
        ),
        "a layer that runs twice counts once; count in a list, not for each layer": counting_each_layer_once,
        "it takes kernels to be as high as wide; height and width can differ": lambda: sums(square_kernel),
        "a linear layer counts once, though it runs at every place of a sequence: take output.numel()": lambda: sums(
            lambda layer, x, y: layer.weight.numel() * (y[0, 0].numel() if y.dim() == 4 else 1)
        ),
        "it counts batch norms, too": lambda: expected + layer_sums(model, size, lambda layer, x, y: y.numel(), norms),
        "it does not use shape": lambda: oracle_macs(model, (3, 32, 32)),
        "it looks at the model's own layers only, not at those inside its parts: take model.modules()": lambda: sums(
            lambda layer, x, y: y.numel() * layer.weight[0].numel(), list(model.children())
        ),
        "groups are forgotten: each output sees in_channels / groups channels": lambda: sums(
            lambda layer, x, y: y.numel() * layer.weight[0].numel() * getattr(layer, "groups", 1)
        ),
    }


def check_macs(lesson, model, size, name):
    what = f"count_macs({name}, {size})"
    pictures = []
    watch = model.register_forward_pre_hook(lambda model, inputs: pictures.append(len(inputs[0])))
    with calling(what):
        got = number(lesson.count_macs(model, size), what)
    watch.remove()
    expected = oracle_macs(model, size)
    if got != expected:
        mistakes = mac_mistakes(model, size, expected)
        if pictures == [2]:
            mistakes = {"it runs two pictures, so it counts twice": 2 * expected}
        raise Wrong(
            f"{what} is {got:,}, expected {expected:,}."
            + (
                likeliest(mistakes, lambda known: got == known)
                or " It is the sum, over every run of a convolution or linear layer, of the numbers that it puts out "
                "times the length of one row of its weight."
            )
        )


@pytest.mark.task("4.3")
def test_parameters_are_all_and_each_once(lesson):
    model = Odd()
    model.last.weight.requires_grad_(False)
    model.again = model.tokens
    with calling("count_parameters(model)"):
        got = number(lesson.count_parameters(model), "count_parameters(model)")
    expected = sum(p.numel() for p in model.parameters())
    causes = {
        "it leaves out what is frozen": expected - model.last.weight.numel(),
        "it counts buffers, too": expected + sum(b.numel() for b in model.buffers()),
        "it counts a layer twice that the model holds twice": expected
        + sum(p.numel() for p in model.tokens.parameters()),
        "it leaves out what lies in no layer; take model.parameters()": expected - model.scale.numel(),
        "it counts tensors, not the numbers in them": len(list(model.parameters())),
        "it counts all of state_dict(): buffers, too, and twice a layer that the model holds twice": sum(
            value.numel() for value in model.state_dict().values()
        ),
    }
    if got != expected:
        cause = likeliest(causes, lambda known: got == known)
        raise Wrong(f"count_parameters(model) is {got}, expected {expected}.{cause}")


@pytest.mark.task("4.3")
@pytest.mark.parametrize("depth", DEPTHS)
def test_macs_are_the_flop_counters(lesson, depth):
    check_macs(lesson, make_oracle(depth, "cifar"), (3, 32, 32), f"torchvision's ResNet-{depth}")
    if depth == 50:
        check_macs(lesson, make_oracle(depth, "imagenet"), (3, 63, 95), f"torchvision's ResNet-{depth}")


@pytest.mark.task("4.3")
@pytest.mark.parametrize("size", [(3, 32, 32), (3, 17, 29)], ids=str)
def test_macs_of_odd_networks(lesson, size):
    check_macs(lesson, Odd(), size, "a network with groups and dilation, and a layer that runs twice")
    check_macs(lesson, nn.Sequential(nn.Flatten(), nn.Linear(size[1] * size[2] * 3, 4)), size, "a linear classifier")
    check_macs(lesson, nn.Conv2d(3, 6, 3, groups=3), size, "a single convolution")


@pytest.mark.task("4.3")
@MODES
def test_counting_leaves_no_trace(lesson, training):
    model = Odd().train(training)
    model.tokens.weight.requires_grad_(False)
    before, attributes = copy.deepcopy(model.state_dict()), [set(vars(module)) for module in model.modules()]
    trained = [p.requires_grad for p in model.parameters()]
    with calling("count_macs(model)"):
        first_count, second = [number(lesson.count_macs(model), "count_macs(model)") for _ in range(2)]
    if not torch.is_grad_enabled():
        raise Wrong("count_macs(model) leaves gradients switched off for good. Say: with torch.no_grad():")
    if any(gradients for _, gradients in model.runs):
        raise Wrong("count_macs(model) runs the model with gradients. Say: with torch.no_grad():")
    if trained != [p.requires_grad for p in model.parameters()]:
        raise Wrong("count_macs(model) changes which parameters require gradients. Use torch.no_grad() instead.")
    if set(model.state_dict()) != set(before) or attributes != [set(vars(module)) for module in model.modules()]:
        raise Wrong("count_macs(model) leaves something on the model, a buffer or another attribute. Count in a list.")
    if first_count != second:
        raise Wrong(
            f"count_macs(model) says {first_count:,} first and {second:,} the second time. Start each count at 0, and "
            "remove the hooks."
        )
    if any(torch.nn.modules.module._global_forward_hooks):
        torch.nn.modules.module._global_forward_hooks.clear()
        raise Wrong("count_macs(model) leaves a hook on all modules there are. Call remove() on its handle.")
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise Wrong("count_macs(model) leaves hooks on the model. Call remove() on each handle.")
    if any(module.training is not training for module in model.modules()):
        raise Wrong("count_macs(model) leaves the model in another mode. Put it back: model.train(mode).")
    for name, value in model.state_dict().items():
        if not equal(value, before[name]):
            raise Wrong(f"count_macs(model) changes {name}: run the model in eval mode.")


# --- 4.4 ------------------------------------------------------------------------------------------------------------


def sweep(lesson, depths=(18, 34), seeds=(3, 5, 8), width=4, **share):
    """What train_depths returns with a stand-in for training, what that was given, and the call in words."""
    seen = {}

    def fit(network, depth, seed):
        if depth in seeds and seed in depths:
            raise Wrong(f"{call}: fit was called with depth {depth} and seed {seed}. Say fit(network, depth, seed).")
        if (depth, seed) in seen:
            raise Wrong(f"train_depths trains depth {depth} from seed {seed} twice.")
        network.eval()(torch.zeros(1, 3, 16, 16))  # lazy layers take their shapes
        weights = [p.detach().clone() for p in network.parameters()]
        for weight in weights:
            check_tensor(weight, weight, f"a parameter of the network of depth {depth} that fit is given")
        seen[depth, seed] = weights
        torch.rand(len(seen))  # training uses up random numbers, and changes the network
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.add_(1)
        return {"row": (depth, seed)}

    more = "".join(f", {name}={value}" for name, value in share.items())
    call = f"train_depths(fit, {depths}, {seeds}, width={width}{more})"
    with calling(call):
        rows = lesson.train_depths(fit, depths, seeds, width=width, **share)
    for key, row in plain(rows, call, dict).items():
        if [type(part) for part in plain(key, f"{call}, as a key,", tuple)] != [int, int] or type(row) is not dict:
            raise Wrong(f"{call}: expected keys (depth, seed), two ints, and rows as fit returned them.")
    if rows and all(key[::-1] in seen for key in rows) and not all(key in seen for key in rows):
        raise Wrong(f"{call}: its keys are (seed, depth), expected (depth, seed).")
    for key, row in rows.items():
        if row != {"row": key}:
            raise Wrong(f"{call}: at {key} it has what fit returned for another network, {row}.")
    if set(seen) > set(rows):
        raise Wrong(
            f"{call} trains all {len(seen)} networks and returns {len(rows)}. Train only those of this process's share."
        )
    if set(seen) != set(rows):
        raise Wrong(f"{call}: it trained {sorted(seen)}, but returns rows for {sorted(rows)}.")
    return rows, seen, call


@pytest.mark.task("4.4")
def test_sweep_trains_every_depth_from_every_seed(lesson):
    rows, seen, call = sweep(lesson)
    expected = set(itertools.product((18, 34), (3, 5, 8)))
    if set(rows) != expected:
        raise Wrong(f"{call} returned the keys {sorted(rows)}, expected (depth, seed) for {sorted(expected)}.")
    for (depth, _), weights in seen.items():
        convs = sum(w.ndim == 4 and w.shape[2] == 3 for w in weights)
        if convs != depth - 1:
            raise Wrong(f"{call}: for depth {depth} fit was given a network with {convs} 3x3 convolutions.")
        stem = next(w for w in weights if w.ndim == 4 and w.shape[1] == 3)
        if len(stem) != 4:
            raise Wrong(f"{call}: the network's width is {len(stem)}, expected 4. Hand width on.")
        wide = max((w for w in weights if w.ndim == 4), key=len)
        spread, expected_spread = wide.std().item(), (2 / (wide.shape[2] ** 2 * len(wide))) ** 0.5
        if not 0.75 * expected_spread < spread < 1.3 * expected_spread:
            raise Wrong(f"{call}: the convolutions are not drawn by initialise. Say network.apply(initialise).")


@pytest.mark.task("4.4")
@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_processes_share_the_sweep(lesson, world_size):
    alone, weights, _ = sweep(lesson)
    shares = [sweep(lesson, rank=rank, world_size=world_size) for rank in range(world_size)]
    for i, (rows, _, call) in enumerate(shares):
        for key in rows:
            if any(key in other for other, _, _ in shares[:i]):
                raise Wrong(f"{call}: {key} is in the share of another process, too.")
    missing = set(alone) - {key for rows, _, _ in shares for key in rows}
    if missing:
        raise Wrong(f"train_depths: of {world_size} processes none trains {sorted(missing)}.")
    sizes = [len(rows) for rows, _, _ in shares]
    if max(sizes) - min(sizes) > 1:
        raise Wrong(f"train_depths: {world_size} processes get {sizes} trainings. Deal them out evenly.")
    for _, seen, call in shares:
        for key, own in seen.items():
            if not all(equal(a, b) for a, b in zip(own, weights[key])):
                raise Wrong(
                    f"{call}: {key} starts from other weights than in a run by one process. "
                    "Call torch.manual_seed(seed) right before each network is built."
                )


@pytest.mark.task("4.4")
def test_seeds_differ_and_repeat(lesson):
    first_run, second = sweep(lesson)[1], sweep(lesson)[1]
    missing = set(itertools.product((18, 34), (3, 5, 8))) - set(first_run)
    if missing:
        raise Wrong(f"train_depths does not train (depth, seed) {sorted(missing)}: every depth from every seed.")
    for key in first_run:
        if not all(equal(a, b) for a, b in zip(first_run[key], second[key])):
            raise Wrong(f"train_depths: called twice, it starts {key} from different weights. Seed torch for each.")
    if all(equal(a, b) for a, b in zip(first_run[18, 3], first_run[18, 5])):
        raise Wrong("train_depths: seeds 3 and 5 give the same weights. Seed torch with the seed of the training.")


# --- 4.5 ------------------------------------------------------------------------------------------------------------


@pytest.mark.task("4.5")
@pytest.mark.parametrize(
    "points, expected",
    [
        ([(8e9, 0.774), (1.8e9, 0.698), (4.1e9, 0.761), (3.6e9, 0.733)], [3.5 / 1.8, 5.6, 1.3 / 3.9]),
        ([(4e6, 0.9), (1e6, 0.8), (2e6, 0.95)], [15_000.0, -2_500.0]),
        ([(1e9, 0.5), (2e9, 0.6)], [10.0]),
        ([(1e9, 1 / 3), (4e9, 6 / 7)], [100 * (6 / 7 - 1 / 3) / 3]),
        ([(5e9, 0.5)], []),
    ],
    ids=["four, out of order", "a loss", "two", "no round number", "one"],
)
def test_gains_by_hand(lesson, points, expected):
    rows = [
        {"depth": i, "macs": macs, "accuracy": accuracy, "extra": None} for i, (macs, accuracy) in enumerate(points)
    ]
    call = f"marginal_gains of (macs, accuracy) {points}"
    before = copy.deepcopy(rows)
    with calling(call):
        got = numbers(lesson.marginal_gains(rows), call)
    if rows != before:
        raise Wrong(f"{call} changes the rows that it is given. Take sorted(rows, ...), which makes a new list.")
    if len(got) != len(expected):
        raise Wrong(f"{call} returned {len(got)} numbers, expected {len(expected)}: one for each step to a larger one.")

    def same(scaled):
        return len(got) == len(scaled) and all(abs(a - b) <= 1e-6 * max(1e-6, abs(b)) for a, b in zip(got, scaled))

    if same(expected):
        return

    def steps(ordered):
        return [100 * (b[1] - a[1]) / ((b[0] - a[0]) / 1e9) for a, b in zip(ordered, ordered[1:])]

    causes = {
        "accuracies are shares from 0 to 1; a point is a hundredth": [value / 100 for value in expected],
        "it divides by multiply-adds; a GMAC is 10^9 of them": [value / 1e9 for value in expected],
        "smaller minus larger; take larger minus smaller": [-value for value in expected],
        "the rows are not sorted by multiply-adds": steps(points),
        "the rows are sorted by accuracy; sort them by multiply-adds": steps(sorted(points, key=lambda p: p[1])),
        "the rows go from the largest network to the smallest; start with the smallest": expected[::-1],
        "it drops the sign; where the larger network does worse, the gain is below 0": [abs(v) for v in expected],
        "each network is compared with the smallest, not with the one before": [
            100 * (b[1] - sorted(points)[0][1]) / ((b[0] - sorted(points)[0][0]) / 1e9) for b in sorted(points)[1:]
        ],
    }
    raise Wrong(
        f"{call} returned {[round(v, 6) for v in got]}, expected {[round(v, 6) for v in expected]}."
        + likeliest(causes, same)
    )


# --- the whole ------------------------------------------------------------------------------------------------------


@pytest.mark.task("4.4")
@pytest.mark.timeout(90)
def test_a_bottleneck_network_learns_cifar10(lesson, cifar10_dir):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = lesson.load_data(
        SimpleNamespace(data="cifar10", data_dir=cifar10_dir, train_images=64, test_images=64, device=device, epochs=6)
    )
    histories = []

    def fit(network, depth, seed):
        histories.append(lesson.train(network, data, 6, seed, batch_size=16))
        return {}

    with calling("train_depths(fit, [50], [0], width=16)"):
        lesson.train_depths(fit, [50], [0], width=16)
    if not histories:
        raise Wrong("train_depths(fit, [50], [0], width=16) never called fit.")
    losses = [epoch["loss"] for epoch in histories[0]]
    if not losses[-1] < 0.95 * max(losses):
        raise Wrong(
            f"ResNet-50 of width 16: six epochs on 64 pictures of CIFAR-10 gave losses {losses}; they do not fall."
        )


@pytest.mark.task("4.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    folder = dry_run.finish()
    for name in ("exercise_04.json", "exercise_04.png"):
        if not (folder / name).is_file():
            raise Wrong(f"python {script.name} --dry-run wrote no {name}")
    table = json.loads((folder / "exercise_04.json").read_text("utf-8"))["table"]
    if [row["depth"] for row in table] != list(DEPTHS):
        raise Wrong(
            f"python {script.name} --dry-run: exercise_04.json has the depths {[row['depth'] for row in table]}"
        )
