"""What a network did, whatever its layers are called: the convolutions, batch norms and linear layers that ran.

Nothing here looks at attributes. A Recorder watches torch's functions while a network runs, so nn.Conv2d, its
subclasses, lazy layers and F.conv2d on plain parameters all look alike.
"""

from types import SimpleNamespace

import torch
from messages import Wrong, calling, is_close, shape
from torch.overrides import TorchFunctionMode

ARGUMENTS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "linear": ("input", "weight", "bias"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}
EXTRAS = {  # what a ResNet has no place for: seen in .ops, too, and named where the numbers are wrong
    **dict.fromkeys(("leaky_relu", "leaky_relu_"), "a leaky ReLU ran, expected ReLUs"),
    **dict.fromkeys(("relu6", "hardtanh", "hardtanh_"), "a ReLU with an upper limit ran, expected ReLUs"),
    "gelu": "GELU ran, expected ReLUs",
    **dict.fromkeys(
        ("silu", "elu", "celu", "selu", "prelu", "mish", "hardswish"), "a relative of ReLU ran, expected ReLUs"
    ),
    **dict.fromkeys(("sigmoid", "tanh", "softplus"), "sigmoid, tanh or softplus ran, expected ReLUs"),
    "adaptive_max_pool2d": "a max pooling ran, expected the mean over all places",
    "max_pool2d": "a max pooling ran, expected none",
    "avg_pool2d": "an average pooling ran in steps, expected the mean over all places",
    **dict.fromkeys(("dropout", "dropout2d"), "a dropout ran, expected none"),
    **dict.fromkeys(("softmax", "log_softmax"), "softmax ran; return logits, for the loss applies softmax itself"),
}
DEFAULTS = {
    "conv2d": {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    "batch_norm": {"training": False, "momentum": 0.1, "eps": 1e-5},
}
LAST = 3  # convolutions that a message names
OTHER_NORMS = ("group_norm", "instance_norm", "layer_norm")
NATIVE_BATCH_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")


class Recorder(TorchFunctionMode):
    """A context that lists, in .ops, every convolution, batch norm and linear layer that runs in it, in order.

    An op has a kind ("conv2d", "batch_norm", "linear"), the arguments of its function by name, and its output.
    """

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in OTHER_NORMS or name in EXTRAS:
            self.ops.append(SimpleNamespace(kind=name, output=output))
        if name in ARGUMENTS:
            names = NATIVE_BATCH_NORM if func is torch.batch_norm else ARGUMENTS[name]
            values = dict.fromkeys(names) | DEFAULTS.get(name, {}) | dict(zip(names, args)) | (kwargs or {})
            self.ops.append(SimpleNamespace(kind=name, output=output, **values))
        return output


def record(model, x, what):
    """Run a model once. Returns (output, ops). If it raises, the Wrong says which convolutions had run by then."""
    with Recorder() as recorder:
        try:
            with calling(what):
                output = model(x)
        except Wrong as wrong:
            wrong.more, wrong.ops = until_then(recorder.ops), recorder.ops
            raise wrong.because(None) from None
    return output, recorder.ops


def until_then(ops):
    """A sentence on the convolutions that ran before an exception."""
    ran = [f"{describe(op)}, stride {first(op.stride)}" for op in ops if op.kind == "conv2d"]
    more = f"{len(ran)} convolutions, the last of them " if len(ran) > LAST else ""
    return f"\nUntil then it ran {more}{'; '.join(ran[-LAST:])}." if ran else ""


def describe(op):
    """A convolution in words: 3x3 from 6 to 10 channels."""
    height, width = op.weight.shape[2:]
    return f"{height}x{width} from {op.weight.shape[1]} to {op.weight.shape[0]} channels"


def first(setting):
    """A convolution's setting as one number or word: (2, 2) is 2."""
    return setting[0] if isinstance(setting, tuple | list) else setting


def tensors(op):
    """The tensors that an op owns, by name: weight, bias, running_mean, running_var."""
    names = ("weight", "bias", "running_mean", "running_var")
    return {name: getattr(op, name) for name in names if getattr(op, name, None) is not None}


def kernel(op):
    """A convolution's kernel height."""
    return op.weight.shape[2]


def pair_ops(ops, oracle_ops, what):
    """[(op, oracle's op)]: convolutions by kernel size in running order, each batch norm with its convolution's."""
    pairs, sizes = [], {op.weight.shape[2:] for op in oracle_ops if op.kind == "conv2d"}
    strange = next((op for op in ops if op.kind == "conv2d" and op.weight.shape[2:] not in sizes), None)
    if strange:
        expected = " or ".join(sorted(f"{height}x{width}" for height, width in sizes))
        raise Wrong(f"{what} ran a convolution of {describe(strange)}. Its kernel should be {expected}.")
    for size in (3, 1, 7):
        own, oracle = [
            [op for op in group if op.kind == "conv2d" and kernel(op) == size] for group in (ops, oracle_ops)
        ]
        own, oracle = (projections_last(own), projections_last(oracle)) if size == 1 else (own, oracle)
        if len(own) != len(oracle):
            raise Wrong(f"{what} ran {count(len(own), f'{size}x{size} convolution')}, expected {len(oracle)}.")
        pairs += list(zip(own, oracle))
    for own, oracle in list(pairs):
        if own.groups != oracle.groups:
            raise Wrong(f"{what}: a convolution has groups={own.groups}. Leave groups at its default, 1.")
        name = f"{kernel(own)}x{kernel(own)} convolution from {own.weight.shape[1]} to {own.weight.shape[0]} channels"
        if own.weight.shape != oracle.weight.shape:
            raise Wrong(
                f"{what} ran a {name} where one from {oracle.weight.shape[1]} to {oracle.weight.shape[0]} belongs."
            )
        if own.bias is not None:
            raise Wrong(f"{what}: its {name} has a bias. The batch norm after it has one: say bias=False.")
        norm, oracle_norm = norm_after(ops, own), norm_after(oracle_ops, oracle)
        if norm is None and any(op.kind == "batch_norm" and is_close(op.input, own.output.relu()) for op in ops):
            raise Wrong(f"{what}: the ReLU comes before the batch norm of its {name}; it belongs after it.")
        if norm is None:
            raise Wrong(
                f"{what}: no batch norm takes what its {name} puts out. Each convolution is followed by its own."
            )
        pairs.append((norm, oracle_norm))
    for kind, name in (("batch_norm", "batch norm"), ("linear", "linear layer"), ("conv2d", "convolution")):
        own, oracle = [[op for op in group if op.kind == kind] for group in (ops, oracle_ops)]
        if len(own) != len(oracle):
            raise Wrong(f"{what} ran {count(len(own), name)}, expected {len(oracle)}.")
        if kind == "linear":
            pairs += list(zip(own, oracle))
    for own, oracle in pairs:
        check_settings(own, oracle, what)
        for name, value in tensors(oracle).items():
            got = tensors(own).get(name)
            if got is None and own.kind == "linear":
                raise Wrong(f"{what}: its linear layer has no bias. Leave bias at its default, True.")
            if got is None and own.kind == "batch_norm" and name.startswith("running"):
                raise Wrong(f"{what}: a batch norm keeps no running statistics, so it cannot be used in eval mode.")
            if got is None and own.kind == "batch_norm":
                raise Wrong(f"{what}: a batch norm has no {name}. Leave affine at its default, True.")
            if got is None or got.shape != value.shape:
                raise Wrong(
                    f"{what}: the {name} of a {own.kind} has the shape {got if got is None else shape(got)}, "
                    f"expected {shape(value)}."
                )
    return pairs


def check_settings(own, oracle, what):
    """Raise Wrong if a batch norm has another momentum or eps than the oracle's."""
    for name in ("momentum", "eps") if own.kind == "batch_norm" else ():
        got, expected = getattr(own, name), getattr(oracle, name)
        if got is None or abs(got - expected) > 1e-3 * expected:
            raise Wrong(f"{what}: a batch norm has {name}={got}. Leave {name} at its default, {expected}.")


def projections_last(convs):
    """1x1 convolutions in running order, but a bottleneck's projection after the block's other two, wherever it ran."""
    rest, ordered = list(convs), []
    while rest:
        twin = next((op for op in rest[1:3] if is_close(op.input, rest[0].input)), None)
        if twin is None or len(rest) < 3:
            ordered.append(rest.pop(0))
            continue
        block, rest = rest[:3], rest[3:]
        projection = max(block[0], twin, key=lambda op: len(op.weight))
        ordered += [op for op in block if op is not projection] + [projection]
    return ordered


def norm_after(ops, conv):
    """The batch norm whose input is what a convolution put out, or None."""
    return next((op for op in ops if op.kind == "batch_norm" and op.input is conv.output), None)


def count(number, noun):
    """1 convolution, 2 convolutions."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def check_registered(model, ops, what, oracle_ops=()):
    """Raise Wrong unless every weight that ran is one of the model's parameters, ran once, and can be trained."""
    other = next((op.kind for op in ops if op.kind in OTHER_NORMS), None)
    if other:
        raise Wrong(f"{what} ran a {other.replace('_', ' ')}, expected batch norms only.")
    known = {id(p) for p in model.parameters()} | {id(b) for b in model.buffers()}
    seen = set()
    for op in ops:
        for name, value in tensors(op).items():
            if id(value) not in known:
                raise Wrong(
                    f"{what}: the {name} of a {op.kind} is none of the model's parameters, so no optimizer trains "
                    "it. Make layers in __init__ and keep them as attributes, in an nn.Sequential or nn.ModuleList."
                )
            if id(value) in seen:
                raise Wrong(f"{what} ran one {op.kind.replace('_', ' ')} twice. Each place needs a layer of its own.")
            seen.add(id(value))
    frozen = next((name for name, p in model.named_parameters() if not p.requires_grad), None)
    if frozen:
        raise Wrong(f"{what}: the parameter {frozen} does not require gradients, so no optimizer trains it.")
    idle = {name: p for name, p in model.named_parameters() if id(p) not in seen}
    own, expected = [sum(op.kind == "conv2d" and kernel(op) == 1 for op in group) for group in (ops, oracle_ops)]
    if idle:
        missing = own < expected and any(p.shape[2:] == (1, 1) for p in idle.values())
        raise Wrong(
            f"{what}: no convolution, batch norm or linear layer used the parameter {next(iter(idle))}."
            + " Leave out layers that do nothing, and compute with torch's own layers or functions." * (not missing),
            "the shortcut is not added: its 1x1 convolution is made and never called" if missing else None,
        )


def randomise(ops, seed=0):
    """Give the tensors of every op random values, so that no layer is by chance the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for op in ops:
            for name, value in tensors(op).items():
                fresh = torch.randn(value.shape, generator=generator)
                if op.kind == "batch_norm":
                    fresh = 1 + 0.3 * fresh.clamp(-2, 2) if name in ("weight", "running_var") else 0.3 * fresh
                elif name == "weight":
                    fresh *= (2 / value[0].numel()) ** 0.5
                value.copy_(fresh)


def copy_to_oracle(pairs):
    """Copy what the learner's ops own into the oracle's."""
    with torch.no_grad():
        for own, oracle in pairs:
            for name, value in tensors(oracle).items():
                value.copy_(tensors(own)[name])
