"""What a network did, whatever its layers are called: the layers that ran, and on what.

Nothing here looks at attributes. A Recorder watches torch's functions while a network runs, so
nn.Conv2d, its subclasses, lazy layers and F.conv2d on plain parameters all look alike.
"""

import operator
from collections import Counter
from types import SimpleNamespace

import torch
from messages import Wrong, calling, counted, draw, is_close, is_finite, shape
from torch import nn
from torch.overrides import TorchFunctionMode

ARGUMENTS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "linear": ("input", "weight", "bias"),
    "batch_norm": (  # of F.batch_norm
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    ),
}
NATIVE_BATCH_NORM = (  # of torch.batch_norm
    "input",
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "training",
    "momentum",
    "eps",
)
DEFAULTS = {
    "conv2d": {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    "linear": {},
    "batch_norm": {"training": False, "momentum": 0.1, "eps": 1e-5},
}
OTHER_RELU = "a relative of ReLU ran, expected ReLUs"
LEAKY_RELU = "a leaky ReLU ran, expected ReLUs"
CAPPED_RELU = "a ReLU with an upper limit ran, expected ReLUs"
SIGMOID = "sigmoid, tanh or softplus ran, expected ReLUs"
DROPOUT = "a dropout ran, expected none"
SOFTMAX = "softmax ran; return logits, for the loss applies softmax itself"
EXTRAS = {  # what a ResNet has no place for: recorded, too, and named where the numbers are wrong
    "leaky_relu": LEAKY_RELU,
    "leaky_relu_": LEAKY_RELU,
    "relu6": CAPPED_RELU,
    "hardtanh": CAPPED_RELU,
    "hardtanh_": CAPPED_RELU,
    "gelu": "GELU ran, expected ReLUs",
    "silu": OTHER_RELU,
    "elu": OTHER_RELU,
    "celu": OTHER_RELU,
    "selu": OTHER_RELU,
    "prelu": OTHER_RELU,
    "mish": OTHER_RELU,
    "hardswish": OTHER_RELU,
    "sigmoid": SIGMOID,
    "tanh": SIGMOID,
    "softplus": SIGMOID,
    "adaptive_max_pool2d": "a max pooling ran, expected the mean over all positions",
    "max_pool2d": "a max pooling ran, expected none",
    "avg_pool2d": "an average pooling ran that is not the mean over all positions",
    "dropout": DROPOUT,
    "dropout2d": DROPOUT,
    "softmax": SOFTMAX,
    "log_softmax": SOFTMAX,
}
OTHER_NORMS = ("group_norm", "instance_norm", "layer_norm")
KINDS = {"batch_norm": "batch norm", "linear": "linear layer", "conv2d": "convolution"}  # in words
LAST = 3  # how many of the convolutions that ran a message names


class Recorder(TorchFunctionMode):
    """A context that lists, in .ops, every convolution, batch norm and linear layer that runs.

    An op has a kind ("conv2d", "batch_norm", "linear"), the arguments of its function by name, and
    its output. What EXTRAS and OTHER_NORMS name is listed, too, by kind and output alone.
    """

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        kind = getattr(func, "__name__", "")
        if kind in OTHER_NORMS or kind in EXTRAS:
            self.ops.append(SimpleNamespace(kind=kind, output=output))
        if kind in ARGUMENTS:
            names = NATIVE_BATCH_NORM if func is torch.batch_norm else ARGUMENTS[kind]
            values = dict.fromkeys(names)
            values.update(DEFAULTS[kind])
            values.update(zip(names, args))
            values.update(kwargs)
            self.ops.append(SimpleNamespace(kind=kind, output=output, **values))
        return output


def record(model, x, what):
    """Run a model once. Returns (output, ops).

    If it raises, the Wrong says which convolutions had run by then.
    """
    with Recorder() as recorder:
        try:
            with calling(what):
                output = model(x)
        except Wrong as wrong:
            wrong.more = what_had_run(recorder.ops)
            wrong.ops = recorder.ops
            raise wrong.because(None) from None
    return output, recorder.ops


def what_had_run(ops):
    """A sentence on the convolutions that ran before an exception."""
    ran = [f"{describe(op)}, stride {first(op.stride)}" for op in of_kind(ops, "conv2d")]
    if not ran:
        return ""
    count_them = f"{len(ran)} convolutions, the last of them " if len(ran) > LAST else ""
    return f"\nBefore that it had run {count_them}{'; '.join(ran[-LAST:])}."


def describe(op):
    """A convolution in words: 3x3 from 6 to 10 channels."""
    height, width = op.weight.shape[2:]
    return f"{height}x{width} {channels_of(op)}"


def channels_of(op):
    """A convolution's channels in words: from 6 to 10 channels."""
    return f"from {op.weight.shape[1]} to {op.weight.shape[0]} channels"


def first(setting):
    """A convolution's setting as one number or word: (2, 2) is 2."""
    return setting[0] if isinstance(setting, tuple | list) else setting


def tensors(op):
    """The tensors that an op owns, by name: weight, bias, running_mean, running_var."""
    owned = {}
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(op, name, None)
        if value is not None:
            owned[name] = value
    return owned


def kernel(op):
    """A convolution's kernel height."""
    return op.weight.shape[2]


def of_kind(ops, kind):
    """The ops of one kind, in running order."""
    return [op for op in ops if op.kind == kind]


def convolutions(ops, size):
    """The convolutions with a kernel of this height, in running order."""
    return [op for op in of_kind(ops, "conv2d") if kernel(op) == size]


def norm_after(ops, conv):
    """The batch norm whose input is the output of a convolution, or None."""
    norms = of_kind(ops, "batch_norm")
    for is_its_output in (operator.is_, shares_memory, torch.equal):
        for op in norms:
            if is_its_output(op.input, conv.output):
                return op
    return None


def shares_memory(one, other):
    """Whether one of two tensors is a view of the other, such as every second pixel of it."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def pair_ops(ops, oracle_ops, what):
    """[(op, oracle's op), ...] for what the learner's network and the oracle ran.

    Convolutions are paired by kernel size in running order, each batch norm with its
    convolution's, linear layers in running order. Raises Wrong where a pair does not match.
    """
    convs = pair_convolutions(ops, oracle_ops, what)
    norms = []
    for own, oracle in convs:
        check_convolution(own, oracle, what)
        norms.append((find_norm(ops, own, what), norm_after(oracle_ops, oracle)))
    for kind, name in KINDS.items():
        ran = len(of_kind(ops, kind))
        expected = len(of_kind(oracle_ops, kind))
        if ran != expected:
            raise Wrong(f"{what} ran {counted(ran, name)}, expected {expected}.")
    linears = list(zip(of_kind(ops, "linear"), of_kind(oracle_ops, "linear")))
    pairs = convs + norms + linears
    for own, oracle in pairs:
        check_settings(own, oracle, what)
        check_tensors(own, oracle, what)
    return pairs


def pair_convolutions(ops, oracle_ops, what):
    """[(convolution, oracle's), ...]; raises Wrong if their kernels or numbers are others."""
    sizes = {op.weight.shape[2:] for op in of_kind(oracle_ops, "conv2d")}
    for op in of_kind(ops, "conv2d"):
        if op.weight.shape[2:] not in sizes:
            expected = " or ".join(sorted(f"{height}x{width}" for height, width in sizes))
            raise Wrong(
                f"{what} ran a convolution of {describe(op)}. Its kernel should be {expected}."
            )
    pairs = []
    for size in (3, 1, 7):
        own = convolutions(ops, size)
        oracle = convolutions(oracle_ops, size)
        if size == 1:
            own = projections_last(own)
            oracle = projections_last(oracle)
        if len(own) != len(oracle):
            ran = counted(len(own), f"{size}x{size} convolution")
            raise Wrong(f"{what} ran {ran}, expected {len(oracle)}.")
        pairs += zip(own, oracle)
    return pairs


def is_same_tensor(one, other):
    """Whether two tensors lie at the same place; equal ones may be those of different blocks.

    One may have every second position of the other only, as a shortcut that is subsampled first.
    """
    return one.data_ptr() == other.data_ptr() and one.shape[:2] == other.shape[:2]


def projections_last(convs):
    """1x1 convolutions in running order, but each bottleneck's projection after its other two.

    A block may run its projection first, or last.
    """
    rest = list(convs)
    ordered = []
    while rest:
        twins = [op for op in rest[1:3] if is_same_tensor(op.input, rest[0].input)]
        if not twins or len(rest) < 3:  # no convolution starts from the same input
            ordered.append(rest.pop(0))
            continue
        block = rest[:3]
        rest = rest[3:]
        projection = max(block[0], twins[0], key=lambda op: len(op.weight))
        ordered += [op for op in block if op is not projection]
        ordered.append(projection)
    return ordered


def check_convolution(own, oracle, what):
    """Raise Wrong if a convolution has other channels or groups than the oracle's, or a bias."""
    if own.groups != oracle.groups:
        raise Wrong(
            f"{what}: a convolution has groups={own.groups}. Leave groups at its default, 1."
        )
    if own.weight.shape != oracle.weight.shape:
        expected = f"from {oracle.weight.shape[1]} to {oracle.weight.shape[0]}"
        raise Wrong(f"{what} ran a {conv_name(own)} where one {expected} belongs.")
    if own.bias is not None:
        raise Wrong(
            f"{what}: its {conv_name(own)} has a bias. The batch norm after it has one: "
            "say bias=False."
        )


def conv_name(op):
    """A convolution in words: 3x3 convolution from 6 to 10 channels."""
    return f"{kernel(op)}x{kernel(op)} convolution {channels_of(op)}"


def find_norm(ops, conv, what):
    """The batch norm after a convolution; raises Wrong if there is none."""
    norm = norm_after(ops, conv)
    if norm is not None:
        return norm
    for op in of_kind(ops, "batch_norm"):
        if is_close(op.input, conv.output.relu()):
            raise Wrong(
                f"{what}: the ReLU comes before the batch norm of its {conv_name(conv)}; "
                "it belongs after it."
            )
    raise Wrong(
        f"{what}: no batch norm takes what its {conv_name(conv)} outputs. "
        "Each convolution is followed by its own."
    )


def check_settings(own, oracle, what):
    """Raise Wrong if a batch norm has another momentum or eps than the oracle's."""
    if own.kind != "batch_norm":
        return
    if (own.momentum, own.eps) == (oracle.eps, oracle.momentum):
        raise Wrong(
            f"{what}: a batch norm has momentum={own.momentum} and eps={own.eps}, each in the "
            "other's place. Give F.batch_norm both by name: momentum=, eps=."
        )
    for name in ("momentum", "eps"):
        got = getattr(own, name)
        expected = getattr(oracle, name)
        if got is None or abs(got - expected) > 1e-3 * expected:
            raise Wrong(
                f"{what}: a batch norm has {name}={got}. Leave {name} at its default, {expected}."
            )


def check_tensors(own, oracle, what):
    """Raise Wrong if an op lacks one of the tensors that the oracle's has, or has another shape."""
    owned = tensors(own)
    for name, expected in tensors(oracle).items():
        if name not in owned:
            raise Wrong(f"{what}: {missing_tensor(own, oracle, name)}")
        if owned[name].shape != expected.shape:
            raise Wrong(
                f"{what}: the {name} of a {own.kind} has the shape {shape(owned[name])}, "
                f"expected {shape(expected)}."
            )


def missing_tensor(own, oracle, name):
    """What to say of an op that has no tensor of that name."""
    if own.kind == "linear":
        return "its linear layer has no bias. Leave bias at its default, True."
    if own.kind != "batch_norm":
        expected = getattr(oracle, name)
        return f"the {name} of a {own.kind} has the shape None, expected {shape(expected)}."
    if name.startswith("running") and oracle.training:
        return (
            f"in train mode a batch norm gets no {name}, so it keeps no running statistics for "
            "eval mode. Leave track_running_stats at its default, True; F.batch_norm needs "
            "running_mean and running_var in both modes."
        )
    if name.startswith("running"):
        return (
            "a batch norm keeps no running statistics, so in eval mode, too, it takes the batch's. "
            "Leave track_running_stats at its default, True."
        )
    return f"a batch norm has no {name}. Leave affine at its default, True."


def check_registered(model, ops, what, oracle_ops=()):
    """Raise Wrong unless the model's parameters are what ran, each once, and can be trained."""
    for op in ops:
        if op.kind in OTHER_NORMS:
            raise Wrong(f"{what} ran a {op.kind.replace('_', ' ')}, expected batch norms only.")
    used = check_each_used_once(model, ops, what)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise Wrong(
                f"{what}: the parameter {name} does not require gradients, "
                "so no optimizer trains it."
            )
    idle = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in used:
            idle[name] = parameter
    if not idle:
        return
    message = (
        f"{what}: no convolution, batch norm or linear layer used the parameter {next(iter(idle))}."
    )
    too_few = len(convolutions(ops, 1)) < len(convolutions(oracle_ops, 1))
    if too_few and any(parameter.shape[2:] == (1, 1) for parameter in idle.values()):
        cause = "the shortcut is not added: its 1x1 convolution is made and never called"
        raise Wrong(message, cause)
    name = next(iter(idle))
    owner = model.get_submodule(name.rpartition(".")[0])
    if not isinstance(owner, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
        raise Wrong(
            f"{message} Leave out parameters of your own, and compute with torch's own layers or "
            "functions."
        )
    raise Wrong(
        f"{message} Does forward leave it out, always or under a condition? Use it each time, or "
        "do not make it."
    )


def check_each_used_once(model, ops, what):
    """The ids of all tensors that ran; raises Wrong if one ran twice or is not the model's."""
    known = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    runs = Counter(id(op.weight) for op in of_kind(ops, "conv2d"))
    if len(runs) > 1 and min(runs.values()) > 1:
        raise Wrong(
            f"{what} ran each of its convolutions {runs.most_common()[-1][1]} times. Run it once "
            "in each call, on the whole batch, and keep what it gives."
        )
    used = set()
    for op in ops:
        for name, value in tensors(op).items():
            if id(value) not in known:
                raise Wrong(f"{what}: the {name} of a {KINDS[op.kind]} {not_the_models(value)}")
            if id(value) in used:
                raise Wrong(f"{what} {ran_twice(model, ops, op, value)}")
            used.add(id(value))
    return used


def not_the_models(value):
    """What to say of a tensor that ran as a weight and is none of the model's."""
    if isinstance(value, nn.Parameter):
        return (
            "is none of the model's parameters, so no optimizer trains it. Make layers in "
            "__init__ and keep them as attributes, or in an nn.Sequential or nn.ModuleList; a "
            "plain list or dict hides them."
        )
    return (
        "is none of the model's own: it is a copy, or computed. Training does not change a copy; "
        "run the layers themselves."
    )


def ran_twice(model, ops, op, value):
    """What to say of op, which has a tensor, value, that an op before it has, too."""
    runs = [o for o in ops if any(own is value for own in tensors(o).values())]
    earlier = runs[0]
    places = sum(own is value for _, own in model.named_parameters(remove_duplicate=False))
    if places < 2 and earlier.kind == op.kind and torch.equal(earlier.input, op.input):
        return (
            f"ran one {KINDS[op.kind]} twice on the same input. Run it once in each call, and keep "
            "what it gives."
        )
    kind = KINDS[op.kind]
    shared = [name for name, own in tensors(op).items() if own is tensors(earlier).get(name)]
    if earlier.kind == op.kind and len(shared) < len(tensors(op)):
        return f"has two {kind}s with the same {' and '.join(shared)}. Each needs its own."
    sizes = [len(run.input) for run in runs]
    batch_size = max(len(other.input) for other in ops if other.kind in KINDS)
    if sum(sizes) == batch_size:
        return (
            f"ran one {kind} on parts of the batch, {sizes[0]} of {batch_size} images first. Run "
            "it once, on the whole batch."
        )
    return f"ran one {kind} twice. Each place needs a layer of its own."


def check_start(ops, what, may_be_zero=()):
    """Raise Wrong unless layers that were just made can learn from where they start.

    A batch norm starts with weight 1, bias 0, mean 0 and variance 1, as torch makes it; one of
    may_be_zero may start with weight 0. A convolution starts with random weights, of any spread.
    """
    for op in ops:
        kind = op.kind.replace("_", " ")
        for name, value in tensors(op).items():
            if not is_finite(value):
                raise Wrong(f"{what}: the {name} of a {kind} starts with NaN or infinity.")
        if op.kind == "batch_norm":
            check_norm_start(op, what, may_be_zero)
        elif op.kind == "conv2d" and bool((op.weight == op.weight.flatten()[0]).all()):
            raise Wrong(
                f"{what}: all weights of a {conv_name(op)} start with the same value, "
                f"{op.weight.flatten()[0]:.4g}, expected random ones. Leave them as torch makes "
                "them."
            )


def check_norm_start(op, what, may_be_zero):
    """Raise Wrong unless a batch norm starts as torch makes it, or with weight 0 if it may."""
    for name, value in tensors(op).items():
        expected = 1 if name in ("weight", "running_var") else 0
        is_zero = name == "weight" and not value.any()
        if is_zero and any(op is norm for norm in may_be_zero):
            continue
        advice = "Leave it as torch makes it."
        if is_zero and may_be_zero:
            advice = "Only the last batch norm of the branch may start at 0."
        if not bool((value == expected).all()):
            raise Wrong(
                f"{what}: the {name} of a batch norm starts at {value.flatten()[0]:g}, "
                f"expected {expected}. {advice}"
            )


def check_made_in_train_mode(module, call):
    """Raise Wrong if a batch norm of a module that was just made is in eval mode."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and not part.training:
            raise Wrong(
                f"{call} makes a batch norm in eval mode, in which it ignores the batch's "
                "statistics. Leave it in train mode, as torch makes it."
            )


def check_shares_nothing(network, other, call):
    """Raise Wrong if two networks that a call made have a parameter or a buffer in common."""
    tensors_of_other = {id(tensor) for tensor in (*other.parameters(), *other.buffers())}
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if id(tensor) in tensors_of_other:
            raise Wrong(
                f"{call}, called twice, gives the same layer both times ({name}). "
                "Make new layers in every call: what one network learns would change the other."
            )


def check_start_is_random(ops, other_ops, what):
    """Raise Wrong if a convolution starts with the same weights in two calls."""
    for op, other in zip(of_kind(ops, "conv2d"), of_kind(other_ops, "conv2d")):
        if torch.equal(op.weight, other.weight):
            raise Wrong(
                f"{what}, called twice, starts its {conv_name(op)} with the same weights. "
                "Let each call draw random weights, as torch does."
            )


def randomise(ops, seed=0):
    """Give the tensors of every op random values, so that no layer is by chance the identity."""
    generator = torch.Generator().manual_seed(draw(seed))
    with torch.no_grad():
        for op in ops:
            for name, value in tensors(op).items():
                fresh = torch.randn(value.shape, generator=generator)
                value.copy_(scaled(fresh, op.kind, name))


def scaled(fresh, kind, name):
    """Random numbers, at the scale at which the tensor of an op keeps a network's features."""
    if kind == "batch_norm" and name in ("weight", "running_var"):
        return 1 + 0.3 * fresh.clamp(-2, 2)
    if kind == "batch_norm":
        return 0.3 * fresh
    if name == "weight":
        return fresh * (2 / fresh[0].numel()) ** 0.5
    return fresh


def copy_to_oracle(pairs):
    """Copy what the learner's ops own into the oracle's."""
    with torch.no_grad():
        for own, oracle in pairs:
            for name, value in tensors(oracle).items():
                value.copy_(tensors(own)[name])


def run_backwards(model, x, weights, what):
    """A model's output for x, and the gradients of a fixed random combination of its numbers.

    The gradients are those with respect to x and to each of the weights; None for one without.
    """
    x = x.clone().requires_grad_()
    with calling(what):
        output = model(x)
    if not output.requires_grad:
        raise Wrong(
            f"{what}: no gradient comes back through it. Is something detached or under no_grad?"
        )
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(draw(1)))
    combination = (output * direction).sum()
    with calling(f"the backward pass through {what}"):
        gradients = torch.autograd.grad(combination, [x, *weights], allow_unused=True)
    return output.detach(), gradients
