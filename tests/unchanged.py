"""What a call must leave as it was: one look at everything, before and after.

    before = Everything(model, images=images)
    with calling(what):
        lesson.some_function(model, images)
    before.check(what)                         # or: before.check(what, "grad", "values")

disturb(model) first brings a network into a state in which every slip shows.
"""

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path

import torch
import torch.nn.functional as F
from messages import Wrong, calling, draw, dtype, mode_name
from torch import nn


def disturb(model):
    """Bring a network into a state in which every slip shows; returns the network.

    Every third module is in the other mode than the root, every other parameter has a gradient of
    its own, two modules and a parameter have hooks that belong to somebody else, the weights lie in
    memory in torch's usual order, and random numbers have been drawn since torch was seeded.
    """
    model.to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(draw(0))
    for index, module in enumerate(model.modules()):
        if index % 3 == 2:
            module.training = not model.training
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = None
        if index % 2 == 0:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter)
    *_, last_module = model.modules()
    for module in {model, last_module}:
        module.register_forward_hook(somebody_elses_hook)
        module.register_forward_pre_hook(somebody_elses_hook)
    last_module.register_full_backward_hook(somebody_elses_hook)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if trainable:
        trainable[0].register_hook(somebody_elses_hook)
    torch.manual_seed(0)
    torch.rand(7)  # no seed alone leads to this random state
    return model


def somebody_elses_hook(*_):
    """A hook that was there before, and does nothing."""


def frozen_copy(tensor):
    """A copy of a tensor, cut off from the graph; None for None."""
    return None if tensor is None else tensor.detach().clone()


def same_tensor(tensor, other):
    """Whether two tensors, or None, agree in dtype, device, shape and values; NaN equals NaN."""
    if tensor is None or other is None:
        return tensor is other
    if tensor.dtype != other.dtype or tensor.device != other.device:
        return False
    if tensor.shape != other.shape:
        return False
    if tensor.device.type == "meta":  # it has no values
        return True
    both_nan = tensor.isnan() & other.isnan()
    return bool(((tensor == other) | both_nan).all())


def hooks_of(module):
    """The hooks of any kind that a module has: {kind: [the functions]}."""
    hooks = {}
    for name, value in vars(module).items():
        if name.endswith("_hooks"):
            hooks[name] = list(value.values())
    return hooks


def hooks_of_tensor(tensor):
    """The hooks that run when a tensor gets its gradient, or when that is added to its .grad."""
    hooks = {}
    for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
        hooks[name] = list((getattr(tensor, name) or {}).values())
    return hooks


def hook_tables(module):
    """The dicts that hold a module's hooks, and their keys: what the handles of hooks point to."""
    tables = {}
    for name, value in vars(module).items():
        if name.endswith("_hooks"):
            tables[name] = (id(value), set(value))
    return tables


def hooks_everywhere():
    """The hooks that run for every module there is."""
    hooks = {}
    for name, value in vars(nn.modules.module).items():
        if name.startswith("_global") and name.endswith("_hooks"):
            hooks[name] = list(value.values())
    return hooks


def own_attributes(module):
    """The names of a module's own attributes.

    A method of its class that was put back, as in module.forward = old_forward, is none.
    """
    names = set()
    for name, value in vars(module).items():
        is_method = hasattr(value, "__func__") and value.__func__ is getattr(
            type(module), name, None
        )
        if not is_method:
            names.add(name)
    return names


def settings_of(module):
    """A module's attributes that are plain values, but for its mode: {name: value}."""
    settings = {}
    for name, value in vars(module).items():
        if type(value) in (bool, int, float, str, tuple) and name != "training":
            settings[name] = value
    return settings


class Everything:
    """All that a call could change: of a network, of the tensors that it is given, of torch."""

    def __init__(self, model, **inputs):
        self.model = model
        self.given = inputs
        self.gradients_on = torch.is_grad_enabled()
        self.modules = dict(model.named_modules())
        self.modes = {name: module.training for name, module in self.modules.items()}
        self.hooks = {name: hooks_of(module) for name, module in self.modules.items()}
        self.hook_tables = {name: hook_tables(module) for name, module in self.modules.items()}
        self.global_hooks = hooks_everywhere()
        self.attributes = {name: own_attributes(module) for name, module in self.modules.items()}
        self.settings = {name: settings_of(module) for name, module in self.modules.items()}
        self.parameters = dict(model.named_parameters())
        self.tensors = {**self.parameters, **dict(model.named_buffers())}
        self.values = {name: frozen_copy(tensor) for name, tensor in self.tensors.items()}
        self.strides = {name: tensor.stride() for name, tensor in self.tensors.items()}
        self.requires_grad = {}
        self.grads = {}
        self.tensor_hooks = {}
        for name, parameter in self.parameters.items():
            self.requires_grad[name] = parameter.requires_grad
            self.grads[name] = frozen_copy(parameter.grad)
            self.tensor_hooks[name] = hooks_of_tensor(parameter)
        self.inputs = {name: frozen_copy(tensor) for name, tensor in inputs.items()}
        self.inputs_required = {name: tensor.requires_grad for name, tensor in inputs.items()}
        self.input_grads = {name: frozen_copy(tensor.grad) for name, tensor in inputs.items()}
        self.random_state = torch.get_rng_state()

    def check(self, what, *may_change):
        """Raise Wrong, saying what has changed, unless all kinds but these are as they were."""
        looks = {
            "gradients on": self.check_gradients_on,
            "mode": self.check_modes,
            "hooks": self.check_hooks,
            "modules": self.check_modules,
            "attributes": self.check_attributes,
            "requires_grad": self.check_requires_grad,
            "values": self.check_values,
            "grad": self.check_grads,
            "inputs": self.check_inputs,
            "random state": self.check_random_state,
        }
        for kind in may_change:
            del looks[kind]
        for look in looks.values():
            look(what)

    def check_gradients_on(self, what):
        if torch.is_grad_enabled() == self.gradients_on:
            return
        torch.set_grad_enabled(self.gradients_on)
        if self.gradients_on:
            raise Wrong(
                f"{what} leaves gradients switched off for good: nothing trains any more. Where "
                "you need none, say: with torch.no_grad():, which switches them on again."
            )
        raise Wrong(f"{what} switches gradients on, which were off before. Leave them as they are.")

    def check_modes(self, what):
        for name, module in self.modules.items():
            if module.training != self.modes[name]:
                raise Wrong(
                    f"{what} leaves {part(name)} in {mode_name(module.training)} mode; "
                    f"it was in {mode_name(self.modes[name])} mode. "
                    "Each part of the model may be in its own mode: put each one's back."
                )

    def check_hooks(self, what):
        for name, module in self.modules.items():
            self.compare_hooks(self.hooks[name], hooks_of(module), f"{what}: {part(name)}")
            if hook_tables(module) != self.hook_tables[name]:
                raise Wrong(
                    f"{what} puts the hooks of {part(name)} into another dict, or registers them "
                    "anew: then the handles that others have no longer remove their hooks. Leave "
                    "torch's private attributes alone, and call remove() on the handles of your "
                    "own."
                )
        if hooks_everywhere() != self.global_hooks:
            for name, hooks in vars(nn.modules.module).items():
                if name in self.global_hooks and not self.global_hooks[name]:
                    hooks.clear()
            raise Wrong(
                f"{what} leaves a hook that runs for every module there is "
                "(register_module_...): call remove() on its handle."
            )
        for name, parameter in self.parameters.items():
            now = hooks_of_tensor(parameter)
            self.compare_hooks(self.tensor_hooks[name], now, f"{what}: {name}")

    def compare_hooks(self, before, now, what):
        """Raise Wrong unless a module or a parameter has the hooks that it had."""
        for kind, hooks in before.items():
            left = [hook for hook in now.get(kind, []) if hook not in hooks]
            lost = [hook for hook in hooks if hook not in now.get(kind, [])]
            if left:
                raise Wrong(
                    f"{what} is left with a hook. "
                    "Call remove() on the handle of each hook that you register."
                )
            if lost:
                raise Wrong(
                    f"{what} has lost a hook that was there before and belongs to somebody else. "
                    "Remove only your own: call remove() on the handle of each."
                )

    def check_modules(self, what):
        now = dict(self.model.named_modules())
        changed = set(now) ^ set(self.modules)
        for name in set(now) & set(self.modules):
            if now[name] is not self.modules[name]:
                changed.add(name)
        if changed:
            raise Wrong(
                f"{what} changes the model that it is given: "
                f"{part(min(changed))} is gone, new, or another layer now."
            )
        parameters = dict(self.model.named_parameters())
        for name, parameter in self.parameters.items():
            if parameters.get(name) is not parameter:
                raise Wrong(
                    f"{what} puts another parameter in the place of {name}: "
                    "an optimizer that has the old one no longer trains the model."
                )

    def check_attributes(self, what):
        for name, module in self.modules.items():
            changed = own_attributes(module) ^ self.attributes[name]
            if changed:
                raise Wrong(
                    f"{what} leaves another attribute on {part(name)} "
                    f"({', '.join(sorted(changed))}): keep it elsewhere, or delete it."
                )
            for key, value in self.settings[name].items():
                if getattr(module, key, value) != value:
                    raise Wrong(
                        f"{what} changes {key} of {part(name)} from {value} to "
                        f"{getattr(module, key)}."
                    )
        buffers = dict(self.model.named_buffers())
        new = set(buffers) - set(self.tensors)
        if new:
            raise Wrong(f"{what} leaves a new buffer on the model ({min(new)}).")

    def check_requires_grad(self, what):
        for name, parameter in self.parameters.items():
            if parameter.requires_grad != self.requires_grad[name]:
                raise Wrong(
                    f"{what} changes requires_grad of {name}, "
                    f"which was {self.requires_grad[name]}. Leave it, or put it back."
                )

    def check_grads(self, what):
        for name, parameter in self.parameters.items():
            if same_tensor(parameter.grad, self.grads[name]):
                continue
            if self.grads[name] is None:
                raise Wrong(
                    f"{what} leaves a gradient in {name}.grad, which was None. "
                    "Use torch.autograd.grad, which writes to no .grad."
                )
            change = "deletes" if parameter.grad is None else "changes"
            raise Wrong(
                f"{what} {change} the gradient that was in {name}.grad before. "
                "Neither backward() nor zero_grad() belongs here; for gradients there is "
                "torch.autograd.grad, which writes to no .grad."
            )

    def check_values(self, what):
        now = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        for name, value in self.values.items():
            tensor = now.get(name)
            if tensor is None:
                raise Wrong(f"{what} takes {name} away from the model.")
            if tensor.dtype != value.dtype:
                raise Wrong(f"{what} leaves {name} in {dtype(tensor)}; it was in {dtype(value)}.")
            if same_tensor(tensor, value):
                if tensor.stride() != self.strides[name]:
                    raise Wrong(
                        f"{what} leaves {name} in another order in memory (memory_format): its "
                        "stride() is not what it was."
                    )
                continue
            if name not in self.parameters:
                raise Wrong(
                    f"{what} changes the model's buffer {name}. In train mode, a forward pass "
                    "moves batch norm's running statistics."
                )
            raise Wrong(f"{what} changes the model's weights ({name}).")

    def check_inputs(self, what):
        for name, tensor in self.given.items():
            if not same_tensor(tensor, self.inputs[name]):
                raise Wrong(f"{what} changes the {name} that it is given.")
            if tensor.requires_grad != self.inputs_required[name]:
                raise Wrong(
                    f"{what} leaves requires_grad of the {name} that it is given at "
                    f"{tensor.requires_grad}; it was {self.inputs_required[name]}. "
                    "Work on a copy, .detach().clone()."
                )
            if not same_tensor(tensor.grad, self.input_grads[name]):
                before = self.input_grads[name]
                change = "leaves a gradient in" if before is None else "changes"
                raise Wrong(f"{what} {change} {name}.grad. Work on a copy, .detach().clone().")

    def check_random_state(self, what):
        if not torch.equal(torch.get_rng_state(), self.random_state):
            raise Wrong(
                f"{what} draws random numbers, or seeds torch: what is drawn after the call is no "
                "longer what it would have been."
            )


def part(name):
    """A module in words; the root has no name."""
    return f"model.{name}" if name else "the model itself"


TORCHS_OWN = (
    nn.Module,
    nn.Sequential,
    nn.ModuleList,
    nn.Identity,
    nn.ReLU,
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.batchnorm._NormBase,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)


def flushes_denormals():
    """Whether torch takes numbers below 1.2e-38 for 0, in float32; torch itself does not say."""
    return not bool(torch.tensor(1e-40).mul(1))


CUDNN_FLAGS = ("enabled", "benchmark", "deterministic")


def cudnn_flags():
    """How torch uses cuDNN."""
    return tuple(getattr(torch.backends.cudnn, flag) for flag in CUDNN_FLAGS)


def set_cudnn_flags(values):
    """Set what cudnn_flags returns."""
    for flag, value in zip(CUDNN_FLAGS, values):
        setattr(torch.backends.cudnn, flag, value)


SETTINGS = {  # of torch's: {name: (what they are, a function that sets them)}
    "torch's default device": (torch.get_default_device, torch.set_default_device),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch.backends.cudnn": (cudnn_flags, set_cudnn_flags),
    "torch's anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "the precision of torch's matrix products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "what torch does with denormal numbers": (flushes_denormals, torch.set_flush_denormal),
}


UNUSUAL = {  # values of settings that neither torch nor an answer is likely to set
    "torch's default dtype": torch.float64,
    "torch's deterministic algorithms": True,
    "torch's anomaly detection": True,
    "torch's number of threads": 3,
}


def check_settings_stay(what, call):
    """Raise Wrong if call(), which is what in words, changes one of torch's settings.

    Also where it is an unusual one, which no answer sets by chance.
    """
    for name, value in UNUSUAL.items():
        get, put = SETTINGS[name]
        usual = get()
        with_setting = f"{what}, with {name} at {value},"
        try:
            put(value)
            with calling(with_setting):
                call()
            after = get()
        finally:
            put(usual)
        if after != value:
            raise Wrong(
                f"{with_setting} changes that to {after}. Leave torch's settings to the caller."
            )


# What the functions that people write to seed everything often set, too.
SET_WITH_A_SEED = {"torch's deterministic algorithms", "torch.backends.cudnn"}


class TorchsClasses:
    """torch's own classes and settings, which an answer must leave as they are."""

    def __init__(self):
        self.attributes = {cls: dict(vars(cls)) for cls in TORCHS_OWN}
        self.settings = {name: get() for name, (get, _) in SETTINGS.items()}

    def restore(self):
        """Put back what has changed. Returns its names, such as nn.BatchNorm2d.forward."""
        changed = []
        for cls, attributes in self.attributes.items():
            for name in set(vars(cls)) | set(attributes):
                if name.startswith("__") and name not in ("__init__", "__call__", "__setattr__"):
                    continue
                if name not in attributes:
                    delattr(cls, name)
                elif vars(cls).get(name) is not attributes[name]:
                    setattr(cls, name, attributes[name])
                else:
                    continue
                changed.append(f"{cls.__name__}.{name}")
        for name, (get, put_back) in SETTINGS.items():
            if get() != self.settings[name]:
                put_back(self.settings[name])
                changed.append(name)
        return changed


def new_module(path):
    """A file as a module that is still to be executed, with module.__spec__.loader."""
    loader = SourceFileLoader(path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    return importlib.util.module_from_spec(spec)


def fresh_copy(lesson):
    """The learner's file as a new module, in which no call has left anything yet."""
    module = new_module(Path(lesson.__file__))
    torch_as_it_is = TorchsClasses()
    try:
        module.__spec__.loader.exec_module(module)
    finally:
        torch_as_it_is.restore()
    return module


def check_seeds_nothing(make, what):
    """Raise Wrong if make(), which makes a network, seeds torch.

    With a number, with the one that it had, or anew; even if it puts torch's random state back.
    """

    def number_after_it():
        with calling(what):
            networks.append(make())
        return torch.rand(()).item()

    networks = []
    torch.manual_seed(1)
    first = number_after_it()
    second = number_after_it()
    torch.manual_seed(1)
    third = number_after_it()
    if first != second:  # what seeds torch makes them equal; copies of one network do not
        check_draws_anew(networks, what)
    if first == second or first != third:
        raise Wrong(
            f"{what} seeds torch: the random numbers after it do not go on from those before it. "
            "Leave torch.manual_seed to the caller."
        )


def check_draws_anew(networks, what):
    """Raise Wrong if the second network has random weights of the first."""
    for (name, weight), other in zip(networks[0].named_parameters(), networks[1].parameters()):
        is_random = not nn.parameter.is_lazy(weight) and weight.dim() > 1
        if is_random and torch.equal(weight, other):
            raise Wrong(
                f"{what}, called twice, gives {name} the same weights. Let each call draw its own "
                "from torch's random numbers."
            )


LAYOUTS = {  # the same numbers in another order in memory, or with others in between
    "in channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "whose columns lie in memory as rows usually do": lambda x: x.mT.contiguous().mT,
    "cut out of larger images": lambda x: F.pad(x, (1, 2, 1, 2))[:, :, 1:-2, 1:-2],
    "made of every second image of a batch": lambda x: x.repeat_interleave(2, dim=0)[::2],
}


def hash_in_another_process(value):
    """What hash(value) would be in another process: another number for what holds a text."""
    return hash(("another process", value)) if holds_text(value) else hash(value)


def holds_text(value):
    """Whether a value is a text or holds one, so that each process has its own hash of it."""
    if isinstance(value, tuple | frozenset):
        return any(map(holds_text, value))
    return isinstance(value, str | bytes)
