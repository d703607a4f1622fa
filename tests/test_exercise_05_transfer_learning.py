"""Exercise 5: torchvision's own ResNets, bit-identical buffers, statistics by hand."""

import contextlib
import copy
import functools
import json
import math
import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from cifar10 import load_cifar10
from messages import (
    Once,
    Wrong,
    advice,
    calling,
    check_dry_run,
    check_lets_errors_through,
    check_tensor,
    draw,
    dtype,
    in_words,
    is_close,
    likeliest,
    mode_name,
    number,
    plain,
    shape,
)
from torch import equal, nn
from torch.overrides import TorchFunctionMode
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import SqueezeExcitation, StochasticDepth
from unchanged import (
    Everything,
    TorchsClasses,
    disturb,
    fresh_copy,
    same_tensor,
    somebody_elses_hook,
)

CLASSES = 5
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


class OwnNorm(nn.BatchNorm2d):
    """A batch norm of a class of somebody's own."""


class OwnHead(nn.Linear):
    """A linear layer of a class of somebody's own, which starts and computes in its own way."""

    def reset_parameters(self):
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.5)

    def forward(self, features):
        return 2 * super().forward(features)


class AddsInTrainMode(nn.Module):
    """A module of a class of somebody's own, which does something in train mode only."""

    def forward(self, x):
        return x + 1 if self.training else x


def make_norm(channels):
    """A batch norm of unusual settings; those of 256 channels are of a subclass of torch's."""
    kind = OwnNorm if channels == 256 else nn.BatchNorm2d
    return kind(channels, eps=0.03, momentum=0.2)


@functools.cache
def template(block, classes):
    """A torchvision ResNet of two blocks per stage, with random numbers in its batch norms.

    Its layer2 ends with a squeeze-and-excitation, which has layers that are called fc1 and fc2.
    """
    torch.manual_seed(draw(0))
    model = ResNet(block, [2, 2, 2, 2], num_classes=classes, norm_layer=make_norm)
    channels = 128 * block.expansion
    model.layer2.append(SqueezeExcitation(channels, channels // 16))
    generator = torch.Generator().manual_seed(draw(1))
    with torch.no_grad():
        for norm in norms_of(model):
            size = norm.weight.shape
            norm.weight.copy_(1 + 0.2 * torch.randn(size, generator=generator))
            norm.bias.copy_(0.1 * torch.randn(size, generator=generator))
            norm.running_mean.copy_(0.1 * torch.randn(size, generator=generator))
            norm.running_var.copy_(1 + torch.rand(size, generator=generator))
            norm.num_batches_tracked.fill_(7)
    return model


def make_model(block=BasicBlock, training=True, classes=CLASSES):
    """A new copy of the template, all of it in one mode."""
    return copy.deepcopy(template(block, classes)).train(training)


def make_disturbed(block=BasicBlock, training=True):
    """A model in which every slip shows: see disturb. Its layer1 is frozen."""
    model = make_model(block, training)
    model.layer1.requires_grad_(False)
    model.layer2.register_forward_hook(somebody_elses_hook)
    model.fc.register_forward_pre_hook(somebody_elses_hook)
    return disturb(model)


def norms_of(model):
    """All batch norms of a model."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def make_images(count=12, seed=3):
    return torch.randn(count, 3, 32, 40, generator=torch.Generator().manual_seed(draw(seed)))


def tensors_of(model):
    """All parameters and buffers of a model, by name.

    They must be plain tensors, since others may call themselves equal.
    """
    tensors = model.state_dict()
    for name, value in tensors.items():
        check_tensor(value, value, f"model.state_dict(): {name}")
    return tensors


def body(model):
    """Everything of a model but fc: {name: tensor}, copied."""
    copies = {}
    for name, value in tensors_of(model).items():
        if not name.startswith("fc."):
            copies[name] = value.clone()
    return copies


def check_same_body(before, model, what, sentence):
    """Raise Wrong if anything but fc has changed of what has kept its name."""
    for name, value in body(model).items():
        if name in before and not equal(value, before[name]):
            raise Wrong(f"{what} changes {name}. {sentence}")


def check_unchanged(before, what, *may_change):
    """Raise Wrong unless all kinds of things but these are as Everything saw them before."""
    for name, parameter in before.parameters.items():
        if not same_tensor(parameter.grad, before.grads[name]):
            raise Wrong(
                f"{what} changes {name}.grad. "
                "It needs neither backward() nor zero_grad(): leave each .grad as it is."
            )
    before.check(what, *may_change)


def buffers_of(model):
    """Copies of a model's buffers: {name: tensor}."""
    return {name: value.clone() for name, value in model.named_buffers()}


def check_buffers_stay(before, model, what, sentence):
    """Raise Wrong if a buffer of a model has changed."""
    for name, value in model.named_buffers():
        if not equal(value, before[name]):
            raise Wrong(f"{what} moves {name}. {sentence}")


@contextlib.contextmanager
def trying_again():
    """Around the learner's code that a diagnosis runs once more: torch stays as it was."""
    classes = TorchsClasses()
    gradients_on = torch.is_grad_enabled()
    try:
        with contextlib.suppress(Exception):
            yield
    finally:
        torch.set_grad_enabled(gradients_on)
        classes.restore()


@contextlib.contextmanager
def without_head(model):
    """Take fc away from a model, inside with."""
    head = model.fc
    del model.fc
    try:
        yield
    finally:
        model.fc = head


def head_flags(model):
    """Whether each parameter of the head requires a gradient."""
    return [parameter.requires_grad for parameter in model.fc.parameters()]


# Task 5.1


def call_replace_head(lesson, model, classes, call):
    """What replace_head(model, classes) returns; call is the call in words."""
    with calling(call):
        got = lesson.replace_head(model, classes)
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            raise Wrong(
                f"{call} makes {name} inside torch.inference_mode, so that it cannot be trained. "
                "Make the head outside of it."
            )
    return got


@pytest.mark.task("5.1")
@pytest.mark.parametrize(
    "block, width, classes, training",
    [
        (Bottleneck, 2048, 2, True),
        (BasicBlock, 512, 7, False),
        (BasicBlock, 512, CLASSES, True),
    ],
    ids=["2048 wide", "512 wide", "as many classes"],
)
def test_head_is_new_and_fits(lesson, block, width, classes, training):
    model = make_disturbed(block, training)
    old_head = model.fc
    body_before = body(model)
    with without_head(model):
        before = Everything(model)
    call = f"replace_head(model, {classes})"
    got = call_replace_head(lesson, model, classes, call)
    check_same_model(got, model, call)
    if not isinstance(getattr(model, "fc", None), nn.Module):
        raise Wrong(f"{call} leaves the model without a layer model.fc.")
    check_names(body_before, model, call)
    if model.fc is old_head:
        reason = " Make a new nn.Linear: resizing the old one is not enough."
        if classes == CLASSES:
            reason = (
                " It has as many outputs as are wanted here, but it is the old one: make a new "
                "one, in this case, too."
            )
        raise Wrong(f"{call} leaves the old model.fc in its place.{reason}")
    with without_head(model):
        check_unchanged(before, call, "random state", "values")
    made = [weight for weight in model.fc.parameters() if not nn.parameter.is_lazy(weight)]
    what = f"model(images) after {call}"
    try:
        with calling(what), torch.no_grad():
            logits = model.eval()(make_images(3))
    except Wrong as wrong:
        raise Wrong(f"{wrong}{advice(wrong_input(model.fc, width))}") from None
    if len(made) < len(list(model.fc.parameters())):
        raise Wrong(
            f"{call}: fc is a lazy layer, without weights until it first runs. Make an nn.Linear, "
            "which has them at once."
        )
    try:
        check_same_body(body_before, model, call, "Only fc is to be replaced.")
    except Wrong as wrong:
        raise wrong.because(forward_pass(body_before, model)) from None
    check_tensor(logits, torch.empty(3, classes), what)
    check_head_size(model.fc, old_head, width, classes, call)
    ones = torch.ones(3)
    if is_close(logits.exp().sum(1), ones, 1e-4) or is_close(logits.sum(1), ones, 1e-4):
        raise Wrong(f"{what} gives probabilities; the head gives logits, without softmax.")
    check_linear(model.fc, old_head, width, call)


def forward_pass(before, model):
    """That a batch norm has counted one more batch than before, in words, or None."""
    for name, value in body(model).items():
        if name.endswith("num_batches_tracked") and name in before and value > before[name]:
            return (
                "a forward pass in train mode moves running statistics; none is needed, for "
                "fc.in_features is the width"
            )
    return None


def check_same_model(got, model, call):
    """Raise Wrong unless a function returned the model that it was given."""
    if got is model:
        return
    if type(got) is type(model):
        raise Wrong(
            f"{call} returned another model, such as a copy. "
            "Change the model itself, and return it."
        )
    raise Wrong(
        f"{call} returned {in_words(got)}, expected the model itself. "
        "Does it end with return model?"
    )


def check_names(before, model, call):
    """Raise Wrong if the model has other parts than before."""
    names = {name for name in model.state_dict() if not name.startswith("fc.")}
    new_parts = parts_of(names - set(before))
    lost_parts = parts_of(set(before) - names)
    if new_parts:
        raise Wrong(
            f"{call} gives the model a new part, {new_parts}. "
            "torchvision's name for the head is fc."
        )
    if lost_parts:
        raise Wrong(
            f"{call} takes {lost_parts} away from the model, or parts of it. "
            "Only fc is to be replaced."
        )


def parts_of(names):
    """The parts of a model that tensors with these names belong to, in words."""
    return ", ".join(sorted({name.split(".")[0] for name in names}))


def wrong_input(head, width):
    """What is wrong with the number of features that a head takes, in words, or None."""
    sizes = [parameter.shape[1] for parameter in head.parameters() if parameter.dim() == 2]
    if not sizes or sizes[0] == width:
        return None
    reason = ", which is what the old one outputs" if sizes[0] == CLASSES else ""
    return (
        f"the new layer takes {sizes[0]} features{reason}; "
        f"it should take what the old one takes, {width} here"
    )


def check_head_size(head, old_head, width, classes, call):
    """Raise Wrong unless a head is new, and has a weight and a bias of the right shapes."""
    sizes = {tuple(parameter.shape) for parameter in head.parameters()}
    if head is old_head:
        raise Wrong(f"{call} leaves the old model.fc in its place. Make a new nn.Linear.")
    if any(layer is old_head for layer in head.modules()):
        raise Wrong(
            f"{call} keeps the old layer and puts another behind it. Put a new one in its place."
        )
    if sizes == {(classes, width)}:
        raise Wrong(f"{call}: fc has no bias. Leave bias at its default, True.")
    if sizes != {(classes, width), (classes,)}:
        raise Wrong(
            f"{call}: fc has parameters of the shapes {sizes}, "
            f"expected ({classes}, {width}) and ({classes},)."
        )


def check_linear(head, old_head, width, call):
    """Raise Wrong unless a head is one linear layer with weights of its own."""
    weight, bias = sorted(head.parameters(), key=torch.Tensor.dim, reverse=True)
    copied_rows = (weight[:, None] == old_head.weight).all(dim=2)
    if copied_rows.any() or torch.isin(bias, old_head.bias).any():
        raise Wrong(
            f"{call} copies numbers of the old head into the new one. "
            "They know the old classes; leave them."
        )
    check_computes_linear(head, width, call)


def check_computes_linear(head, width, call):
    """Raise Wrong unless a head gives its input times its weights plus its bias, in both modes."""
    weight, bias = sorted(head.parameters(), key=torch.Tensor.dim, reverse=True)
    features = torch.randn(50, width, generator=torch.Generator().manual_seed(draw(2)))
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise Wrong(
            f"{call}: numbers of fc are NaN or infinite, as of a layer that was never initialised. "
            "Make it by nn.Linear(...), which does that."
        )
    largest = max(weight.abs().max().item(), bias.abs().max().item())
    if largest > 1e6:
        raise Wrong(
            f"{call}: numbers of fc reach {largest:.3g}, as of a layer that was never initialised. "
            "Make it by nn.Linear(...), which does that."
        )
    for training in (True, False):
        with calling(f"model(images) after {call}"), torch.no_grad():
            logits = head.train(training)(features)
        if not is_close(logits, F.linear(features, weight, bias), 1e-4):
            raise Wrong(
                f"{call}: in {mode_name(training)} mode fc gives something else than its input "
                "times its weights plus its bias. "
                "The head is one linear layer, without activation or dropout."
            )


@pytest.mark.task("5.1")
def test_head_fits_a_model_of_another_width(lesson):
    model = make_model().eval()
    model.avgpool = nn.AdaptiveAvgPool2d((1, 2))
    model.fc = nn.Linear(1024, CLASSES)
    call = "replace_head(model, 3) of a model whose fc takes 1,024 features"
    call_replace_head(lesson, model, 3, call)
    try:
        with calling(f"model(images) after {call}"), torch.no_grad():
            model(make_images(2))
    except Wrong as wrong:
        raise Wrong(f"{wrong}{advice(wrong_input(model.fc, 1024))}") from None


@pytest.mark.task("5.1")
def test_head_learns_even_if_the_model_was_frozen(lesson):
    model = make_model().requires_grad_(False)
    call_replace_head(lesson, model, 3, "replace_head(model, 3)")
    if not all(head_flags(model)):
        raise Wrong(
            "replace_head(model, 3) on a frozen model gives a head that requires no gradient. "
            "Make a new layer."
        )
    with calling("model(images) after replace_head(model, 3)"), torch.no_grad():
        model.eval()(make_images(2))


@pytest.mark.task("5.1")
@pytest.mark.parametrize("kind", [nn.Linear, OwnHead], ids=["linear", "subclass"])
def test_head_starts_from_torchs_own_initialisation(lesson, kind):
    model = make_model()
    old_head = kind(512, CLASSES)
    model.fc = old_head
    call = "replace_head(model, 1000)"
    if kind is OwnHead:
        call += " of a model whose fc is of a subclass of nn.Linear"
    call_replace_head(lesson, model, 1000, call)
    with calling(f"model(images) after {call}"), torch.no_grad():
        model.eval()(make_images(2))
    cause = None
    if isinstance(model.fc, OwnHead) and model.fc is not old_head:
        cause = "the new layer is of the old one's class; make an nn.Linear"
    bound = 1 / math.sqrt(512)
    for parameter in model.fc.parameters():
        name = "weight" if parameter.dim() == 2 else "bias"
        values = parameter.detach()
        if not values.any():
            raise Wrong(
                f"{call}: the head's {name} is all zeros. Leave it as nn.Linear initialises it.",
                cause,
            )
        largest = values.abs().max().item()
        deviation = values.std().item()
        is_bounded = 0.9 * bound < largest <= bound * (1 + 1e-5)
        is_uniform = abs(deviation - bound / math.sqrt(3)) < 0.1 * bound
        if not (is_bounded and is_uniform):
            if cause is None and abs(largest * math.sqrt(1000) - 1) < 0.02:
                cause = (
                    "the numbers are drawn up to 1 / sqrt(number of classes); leave nn.Linear's, "
                    "which go by the number of features"
                )
            raise Wrong(
                f"{call}: the numbers of the head's {name} reach {largest:.3g}, with a standard "
                f"deviation of {deviation:.3g}; nn.Linear's own are uniform up to {bound:.3g}. "
                "Leave them as nn.Linear initialises them.",
                cause,
            )
    check_head_size(model.fc, old_head, 512, 1000, call)
    try:
        check_computes_linear(model.fc, 512, call)
    except Wrong as wrong:
        raise wrong.because(cause) from None


@pytest.mark.task("5.1")
def test_every_head_is_drawn_anew(lesson):
    outputs = []
    for seed in (1, 2):
        model = make_model().eval()
        torch.manual_seed(seed)
        call_replace_head(lesson, model, 3, "replace_head(model, 3)")
        with calling("model(images) after replace_head(model, 3)"), torch.no_grad():
            outputs.append(model(make_images(2)))
    other = make_model()
    with calling("replace_head(model, 3), a second time,"):
        lesson.replace_head(other, 3)
    if other.fc is model.fc:
        raise Wrong(
            "replace_head gives two models one and the same head. Make a new one each time."
        )
    if equal(*outputs):
        raise Wrong(
            "replace_head(model, 3) gives the same head whatever torch's seed is. "
            "Does it set the seed itself?"
        )


@pytest.mark.task("5.1")
def test_head_lies_where_the_model_does(lesson):
    model = make_model().to("meta")
    with calling('replace_head(model, 3) of a model on the device "meta"'):
        lesson.replace_head(model, 3)
    for parameter in model.fc.parameters():
        if parameter.device.type != "meta":
            raise Wrong(
                'replace_head(model, 3) of a model on another device, torch\'s "meta" here, '
                f"gives a head on {parameter.device}. "
                "Make it on the device of the old head's weight."
            )


@pytest.mark.task("5.1")
def test_head_leaves_the_model_in_float64(lesson):
    model = make_model().double()
    call = "replace_head(model, 3) of a model in float64"
    call_replace_head(lesson, model, 3, call)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float64 and not name.startswith("fc."):
            raise Wrong(f"{call} leaves {name} in {dtype(parameter)}. Only fc is to be replaced.")


@pytest.mark.task("5.1")
def test_head_has_a_bias_even_if_the_old_one_had_none(lesson):
    model = make_model()
    model.fc = nn.Linear(512, CLASSES, bias=False)
    call = "replace_head(model, 3) of a model whose fc has no bias"
    call_replace_head(lesson, model, 3, call)
    if len(list(model.fc.parameters())) != 2:
        raise Wrong(f"{call} gives a head without a bias. The new one has a bias in any case.")


# Task 5.2


def frozen(lesson, block=BasicBlock, training=True):
    """A model in mixed modes after the learner's freeze_backbone."""
    model = make_disturbed(block, training)
    model.fc._backward_hooks.clear()  # torch warns of one where nothing before it is trained
    parameters = dict(model.named_parameters())
    values = body(model)
    norms = norms_of(model)
    call = "freeze_backbone(model)"
    try:
        with gradients_stay(call), calling(call):
            got = lesson.freeze_backbone(model)
    except Wrong as wrong:
        cause = None
        if re.search(r"'(BasicBlock|Bottleneck|SqueezeExcitation)' object has no", str(wrong)):
            cause = (
                "the parts of a stage are not all alike; take every nn.BatchNorm2d of "
                "model.modules()"
            )
        raise wrong.because(cause) from None
    if type(got) is ResNet and got is not model:
        raise Wrong(
            "freeze_backbone(model) returned another model, such as a copy. "
            "Change the model itself, return it."
        )
    if got is not model:
        raise Wrong(
            f"freeze_backbone(model) returned {in_words(got)}, expected the model. "
            "Does it end with return?"
        )
    check_same_body(values, model, call, "No weight and no statistic may change.")
    cause = None
    if norms_of(model) != norms:
        cause = "another layer stands in the place of a batch norm; leave the model its own"
    lost = values.keys() - tensors_of(model).keys()
    if lost:
        raise Wrong(f"{call} takes {min(lost)} away from the model's state_dict.", cause)
    parameters_now = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if name not in parameters_now:
            raise Wrong(
                f"after {call}, {name} is no parameter any more, so that it cannot be trained "
                "again later.",
                cause,
            )
        if parameters_now[name] is not parameter:
            raise Wrong(
                f"{call} puts another parameter in the place of {name}. "
                "Set requires_grad of the model's own."
            )
    with calling("model.train() after freeze_backbone(model)"):
        if model.train(model.training) is not model:
            raise Wrong(
                "after freeze_backbone(model), model.train() does not return the model, as it must."
            )
    return model


def three_steps(model):
    """Three steps as people write them: model.train() first, with momentum and weight decay."""
    model.train()
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad] or parameters
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=0.1)
    labels = torch.arange(8) % CLASSES
    for seed in range(3):
        loss = F.cross_entropy(model(3 + 2 * make_images(8, seed)), labels)
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            optimizer.step()


@pytest.mark.task("5.2")
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_only_the_head_requires_gradients(lesson, block):
    model = frozen(lesson, block)
    on_a_module = None
    if any("requires_grad" in vars(module) for module in model.modules()):
        on_a_module = (
            "requires_grad is set on a module, where it does nothing; call "
            "requires_grad_(...), which reaches its parameters"
        )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith("fc."):
            cause = on_a_module
            if "fc" in name and not cause:
                cause = f"{name} has fc in its name, yet is no part of model.fc"
            raise Wrong(f"after freeze_backbone(model), {name} still requires a gradient.", cause)
        if not parameter.requires_grad and name.startswith("fc."):
            raise Wrong(
                f"after freeze_backbone(model), {name} requires no gradient. "
                "The head is to be trained.",
                on_a_module,
            )


@pytest.mark.task("5.2")
def test_the_head_of_a_frozen_model_is_thawed(lesson):
    model = make_model().requires_grad_(False)
    call = "freeze_backbone(model) of a model of which everything was frozen"
    with calling(call):
        lesson.freeze_backbone(model)
    for name, parameter in model.named_parameters():
        if name.startswith("fc.") and not parameter.requires_grad:
            cause = None
            if keeps_statistics(frozen(lesson)) and not keeps_statistics(model):
                cause = (
                    "it returns early where something is frozen; what is left remains to be done"
                )
            raise Wrong(
                f"after {call}, {name} requires no gradient. The head is to be trained: set its "
                "requires_grad to True.",
                cause,
            )


def keeps_statistics(model):
    """Whether a model in train mode leaves the running mean of its first batch norm."""
    before = model.bn1.running_mean.clone()
    with torch.no_grad():
        model.train()(make_images(2))
    return equal(model.bn1.running_mean, before)


@pytest.mark.task("5.2")
def test_the_head_may_have_no_bias(lesson):
    model = make_model()
    model.fc = nn.Linear(512, CLASSES, bias=False)
    model.avgpool = nn.Sequential(model.avgpool, nn.Conv2d(512, 512, 1, groups=512))
    call = "freeze_backbone(model) of a model whose avgpool has weights and whose fc has no bias"
    with calling(call):
        lesson.freeze_backbone(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if trained != ["fc.weight"]:
        names = ", ".join(trained) or "nothing"
        raise Wrong(f"after {call}, {names} requires a gradient, expected fc.weight alone.")


@pytest.mark.task("5.2")
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_three_steps_change_the_head_and_not_one_bit_else(lesson, block):
    model = frozen(lesson, block)
    before = body(model)
    head_before = model.fc.weight.detach().clone()
    with calling("training after freeze_backbone(model)"):
        three_steps(model)
    awake = [norm for norm in norms_of(model) if norm.training]
    for name, value in body(model).items():
        if equal(value, before[name]):
            continue
        if "running" in name or "num_batches" in name:
            cause = (
                "batch norms are in train mode. Put each into eval mode, and remember that "
                "model.train() wakes them: it calls train() on every part of the model"
            )
            if 0 < len(awake) < len(norms_of(model)):
                cause = (
                    "this batch norm is in train mode and others are not; take every "
                    "nn.BatchNorm2d of model.modules(), whatever its name and its mode"
                )
            if all(type(norm) is OwnNorm for norm in awake) and awake:
                cause = (
                    "this batch norm is of a subclass of nn.BatchNorm2d; "
                    "isinstance(module, nn.BatchNorm2d) finds it, too"
                )
            if stays_awake(model.get_submodule(name.rpartition(".")[0])):
                cause = (
                    "this batch norm is in train mode, and its train(False) does not change that; "
                    "call its eval() before you replace its train"
                )
            raise Wrong(
                f"after freeze_backbone(model), model.train() and three steps, {name} has moved.",
                cause,
            )
        raise Wrong(
            f"after freeze_backbone(model) and three steps, {name} has changed. "
            "It should require no gradient."
        )
    if equal(head_before, model.fc.weight):
        cause = None
        if not model(make_images(2)).requires_grad:
            cause = "the model runs without gradients, as under no_grad, so that fc gets none"
        raise Wrong(
            "after freeze_backbone(model) and three steps, fc has not changed. "
            "The head is to be trained.",
            cause,
        )


def stays_awake(norm):
    """Whether a batch norm is in train mode, and train(False) does not change that."""
    was_awake = norm.training
    norm.train(False)
    return was_awake and norm.training


@pytest.mark.task("5.2")
@MODES
def test_a_frozen_backbone_computes_the_same_in_train_mode(lesson, training):
    model = frozen(lesson, training=training)
    images = make_images()
    untouched = make_model().eval()
    logits = {}
    with torch.no_grad(), calling("model(images) after freeze_backbone(model)"):
        logits["train"] = model.train()(images)
        logits["eval"] = model.eval()(images)
        expected = untouched(images)
    for mode, got in logits.items():
        check_tensor(got, expected, f"model(images) after freeze_backbone(model), in {mode} mode,")
    if not is_close(logits["eval"], expected, 1e-4):
        cause = likeliest(norm_mistakes(model, images), functools.partial(is_close, logits["eval"]))
        raise Wrong(
            "after freeze_backbone(model), the model gives other logits than before, even in eval "
            f"mode. There nothing may change.{cause}"
        )
    if not is_close(logits["train"], expected, 1e-4):
        cause = None
        if not all(norm.track_running_stats for norm in norms_of(model)):
            cause = (
                "track_running_stats is False now, with which batch norms in train mode still take "
                "the batch's statistics; leave it True, and keep them in eval mode"
            )
        raise Wrong(
            "after freeze_backbone(model), in train mode, "
            "the model gives other logits than before in eval mode. "
            "Its batch norms should use their running statistics in either mode, "
            "and nothing else may change.",
            cause,
        )


def norm_mistakes(model, images):
    """The logits in eval mode that the known wrong ways to freeze batch norms lead to."""

    def with_torchs_eps():
        other = make_model(training=False)
        for norm in norms_of(other):
            norm.eps = 1e-5
        with torch.no_grad():
            return other(images)

    def without(*names):
        other = make_model(training=False)
        with torch.no_grad():
            for norm in norms_of(other):
                for name in names:
                    getattr(norm, name).fill_(float(name == "weight"))
            return other(images)

    def awake():
        other = make_model(training=False)
        for norm, own in zip(norms_of(other), norms_of(model)):
            norm.training = stays_awake(own)
        with torch.no_grad():
            return other(images)

    mistakes = {
        "the batch norms leave out their weight and bias": lambda: without("weight", "bias"),
        "the batch norms leave out their weight": lambda: without("weight"),
        "the batch norms leave out their bias": lambda: without("bias"),
        "the batch norms have torch's usual eps; each keeps its own": with_torchs_eps,
    }
    if any(map(stays_awake, norms_of(model))):
        mistakes[
            "batch norms are in train mode, and their train(False) does not change that; "
            "call eval() before you replace their train"
        ] = awake
    return mistakes


@pytest.mark.task("5.2")
def test_frozen_batch_norms_use_the_numbers_that_they_have_now(lesson):
    model = frozen(lesson)
    other = make_model(training=False)
    images = make_images(2)
    with torch.no_grad(), calling("model(images) after freeze_backbone(model)"):
        was_right = is_close(model.train()(images), other(images), 1e-4)
    with torch.no_grad():
        for norm in norms_of(other):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.mul_(1.5)
    what = "model(images) after freeze_backbone(model) and model.load_state_dict(..., assign=True)"
    with torch.no_grad(), calling(what):
        model.load_state_dict(other.state_dict(), assign=True)
        got = model.train()(images)
        expected = other(images)
    if not is_close(got, expected, 1e-4):
        hint = ""
        if was_right:
            hint = (
                " Frozen batch norms use the statistics and weights that they have now, "
                "not those that they had when they were frozen."
            )
        raise Wrong(
            f"{what} gives other logits than an untouched model in eval mode with these numbers."
            f"{hint}"
        )


@pytest.mark.task("5.2")
def test_statistics_stay_from_now_on(lesson):
    model = make_model(training=True)
    with calling("freeze_backbone(model)"):
        lesson.freeze_backbone(model)
    before = buffers_of(model)
    what = "model(images) right after freeze_backbone(model), of a model in train mode,"
    with calling(what), torch.no_grad():
        model(make_images(2))
    check_buffers_stay(
        before,
        model,
        what,
        "Batch norms behave as in eval mode from now on, not only after the next model.train().",
    )


@pytest.mark.task("5.2")
def test_freezing_twice_is_freezing_once(lesson):
    model = frozen(lesson)
    model.layer4.requires_grad_(True)
    what = "freeze_backbone(model), a second time,"
    with calling(what):
        lesson.freeze_backbone(model)
        model.train()
        model.eval()
        model.train()
    if any(parameter.requires_grad for parameter in model.layer4.parameters()):
        raise Wrong(f"{what} leaves layer4 thawed, as it was before. Freeze the stages every time.")
    before = body(model)
    three_steps(model)
    what = "training after freeze_backbone(model), called twice,"
    check_same_body(before, model, what, "It should stay frozen.")


@pytest.mark.task("5.2")
def test_statistics_stay_when_a_stage_is_trained_again(lesson):
    model = frozen(lesson)
    model.layer4.requires_grad_(True)
    before = buffers_of(model)
    weights = [parameter for parameter in model.layer4.parameters() if parameter.requires_grad]
    what = "training layer4 after freeze_backbone(model)"
    with calling(what):
        logits = model.train()(make_images(4))
        gradients = torch.autograd.grad(logits.sum(), weights, allow_unused=True)
    if None in gradients:
        raise Wrong(
            f"{what}: no gradient reaches it. What the model computes on the way is detached, or "
            "under no_grad, for good; it is enough that parameters do not require gradients."
        )
    check_buffers_stay(
        before,
        model,
        what,
        "Batch norms behave as in eval mode for good, whether their weights are trained or not.",
    )


@pytest.mark.task("5.2")
def test_statistics_stay_when_a_stage_runs_by_itself(lesson):
    model = frozen(lesson)
    before = buffers_of(model)
    what = "after freeze_backbone(model) and model.train(), model.layer1(features)"
    with calling(what), torch.no_grad():
        model.train()
        model.layer1(torch.randn(4, 64, 5, 6))
    check_buffers_stay(
        before,
        model,
        what,
        "Its batch norms behave as in eval mode only while the whole model runs; they should do so "
        "from now on.",
    )


# Task 5.3: extract_features


def hooked_features(model, batches):
    """What the pooling layer outputs, by a hook on a copy."""
    model = copy.deepcopy(model).eval()
    features = []
    model.avgpool.register_forward_hook(
        lambda layer, inputs, output: features.append(output.flatten(1))
    )
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    return torch.cat(features)


def make_batches(sizes=(4, 4, 1, 3), seed=3):
    """Batches of these sizes: [(images, labels), ...]."""
    images = make_images(sum(sizes), seed)
    labels = (seed + torch.arange(sum(sizes))) % CLASSES
    return list(zip(images.split(sizes), labels.split(sizes)))


@pytest.mark.task("5.3")
@pytest.mark.parametrize(
    "block, training",
    [(BasicBlock, True), (BasicBlock, False), (Bottleneck, True)],
    ids=["train", "eval", "bottlenecks"],
)
def test_features_are_what_the_pooling_puts_out(lesson, block, training):
    model = make_disturbed(block, training)
    model.layer3.append(nn.Dropout(0.5).train(not training))
    batches = make_batches()
    expected = hooked_features(model, batches)
    expected_labels = torch.cat([labels for _, labels in batches])
    untouched = copy.deepcopy(model).eval()
    all_images = batches[0][0]._base  # of which the batches are parts
    before = Everything(model, images=all_images, labels=batches[0][1]._base)
    sizes = ", ".join(str(len(labels)) for _, labels in batches)
    what = f"extract_features(model, batches of {sizes})"
    once = Once(batches)
    try:
        with gradients_stay(what), calling(what):
            got = lesson.extract_features(model, once)
    except Wrong as wrong:
        cause = once.cause()
        if "number of dimensions" in str(wrong):
            cause = (
                "squeeze() takes away the first dimension, too, of a batch of one image; "
                "use flatten(1)"
            )
        raise Wrong(f"{wrong}{advice(cause)}") from None
    before.check_inputs(what)
    if len(plain(got, what, tuple, list)) != 2:
        raise Wrong(f"{what} returned {len(got)} things, expected (features, labels).")
    features, labels = got
    check_count(lesson, untouched, batches, features, expected, what)
    check_features_shape(features, expected, batches, what)
    check_kind(features, "features", torch.float32, what)
    check_kind(labels, "labels", torch.int64, what)
    if not is_close(features, expected, 1e-4):
        mistakes = features_mistakes(model, batches, expected)
        hint = likeliest(mistakes, lambda known: is_close(features, known, 1e-3))
        hint = hint or mode_cause(lesson, untouched, batches, expected)
        hint = hint or advice(rounded_features(features, expected))
        hint = hint or advice(other_images(lesson, untouched, batches, features))
        if in_another_order(features, expected):
            raise Wrong(
                f"{what}: the features of each image are correct, but they are not in the order of "
                f"the batches.{hint}"
            )
        raise Wrong(
            f"{what}: the features are not what reaches fc when all of the model is in eval mode."
            f"{hint}"
        )
    if type(labels) is not torch.Tensor:
        raise Wrong(f"{what}: the labels are {in_words(labels)}, expected a tensor.")
    if not equal(labels, expected_labels):
        raise Wrong(f"{what}: the labels are {labels}, expected those of the batches, in order.")
    if not isinstance(model.fc, nn.Linear):
        raise Wrong(
            f"{what} leaves another layer in the place of model.fc, of the type "
            f"{type(model.fc).__name__}. Put fc back."
        )
    images, _ = batches[0]
    was_training = {module: module.training for module in model.modules()}
    with calling(f"model(images) after {what}"), torch.no_grad():
        logits = model.eval()(images)
        expected_logits = untouched(images)
    for module, mode in was_training.items():
        module.training = mode
    hint = " Put fc's own forward back."
    check_tensor(logits, expected_logits, f"model(images) after {what}", hint)
    if not is_close(logits, expected_logits):
        raise Wrong(
            f"after {what} the model gives other logits than before. Put back what you changed."
        )
    check_unchanged(before, what)


class Functional(nn.Module):
    """A network with torchvision's parts that applies its first ReLU as a function."""

    def __init__(self):
        super().__init__()
        for name, part in make_model().named_children():
            if name not in ("relu", "maxpool"):
                self.add_module(name, part)

    def forward(self, images):
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


@pytest.mark.task("5.3")
def test_features_are_what_reaches_the_head_of_any_network(lesson):
    model = Functional()
    batches = make_batches((3, 1))
    what = "extract_features(model, batches) of a model whose first ReLU is a function"
    with calling(what):
        features, _ = lesson.extract_features(model, iter(batches))
    expected = hooked_features(model, batches)
    check_tensor(features, expected, f"{what}: the features")
    if not is_close(features, expected, 1e-4):
        hint = ""
        if features_are_usually_right(lesson):
            hint = (
                " Run the model itself, not its parts one by one: not all that it computes is a "
                "part."
            )
        raise Wrong(f"{what}: the features are not what reaches fc.{hint}")


def features_are_usually_right(lesson):
    """Whether the features are right in the simplest case: one call, a plain model in eval mode."""
    model = make_model(training=False)
    batches = make_batches((3, 2))
    with trying_again():
        features, _ = fresh_copy(lesson).extract_features(model, iter(batches))
        return is_close(features, hooked_features(model, batches), 1e-4)
    return False


@pytest.mark.task("5.3")
def test_features_are_those_of_this_call(lesson):
    model = make_model()
    first = features_and_labels(lesson, model, make_batches(), "extract_features(model, batches)")
    first_as_returned = [tensor.clone() for tensor in first]
    batches = make_batches(seed=4)
    what = "extract_features(model, batches), a second time, with other images and labels,"
    features, labels = features_and_labels(lesson, model, batches, what)
    for name, tensor, as_returned in zip(("features", "labels"), first, first_as_returned):
        if not same_tensor(tensor, as_returned):
            raise Wrong(
                f"{what} changes the {name} that the first call returned. "
                "Make new tensors in every call."
            )
    has_labels = equal(labels, torch.cat([of_batch for _, of_batch in batches]))
    if not has_labels or not is_close(features, hooked_features(model, batches), 1e-4):
        name = "features" if has_labels else "labels"
        hint = ""
        if name == "labels" or features_are_usually_right(lesson):
            hint = " Keep nothing between calls."
        raise Wrong(f"{what} does not give the {name} of these.{hint}")
    what = "extract_features(model, batches), a third time, where gradients are off,"
    with torch.no_grad(), gradients_stay(what), calling(what):
        features, labels = lesson.extract_features(model, iter(make_batches((4, 3))))
    hint = " Start from an empty list in every call."
    check_tensor(features, torch.empty(7, 512), f"{what}: the features", hint)
    check_tensor(labels, torch.empty(7, dtype=torch.int64), f"{what}: the labels", hint)


def features_and_labels(lesson, model, batches, what):
    """What the learner's extract_features returns: features and labels, as tensors."""
    with calling(what):
        features, labels = lesson.extract_features(model, iter(batches))
    count = sum(len(of_batch) for _, of_batch in batches)
    check_tensor(features, torch.empty(count, 512), f"{what}: the features")
    check_tensor(labels, torch.empty(count, dtype=torch.int64), f"{what}: the labels")
    return features, labels


@pytest.mark.task("5.3")
def test_features_are_those_of_eval_mode_whatever_modules_there_are(lesson):
    model = make_model()
    awake = nn.Sequential(AddsInTrainMode(), nn.Dropout2d(0.5), StochasticDepth(0.5, "row"))
    model.layer2.append(awake)
    model.layer3.append(awake)
    requires_grad = []
    awake.register_forward_hook(lambda layer, x, y: requires_grad.append(y.requires_grad))
    before = Everything(model)
    batches = make_batches((3, 1))
    what = (
        "extract_features(model, batches) of a model in train mode, in which layer2 and layer3 "
        "end with one and the same Dropout2d, StochasticDepth and module of a class of its own,"
    )
    features, _ = features_and_labels(lesson, model, batches, what)
    if not is_close(features, hooked_features(model, batches), 1e-4):
        hint = ""
        if features_are_usually_right(lesson):
            hint = " Put every module into eval mode, of whatever class it is."
        raise Wrong(f"{what} gives other features than in eval mode.{hint}")
    if any(requires_grad):
        raise Wrong(
            f"{what} runs the model with gradients, which takes time and memory. Say: with "
            "torch.no_grad():"
        )
    check_unchanged(before, what)


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("extract_features", marks=pytest.mark.task("5.3")),
        pytest.param("adapt_batchnorm", marks=pytest.mark.task("5.5")),
    ],
)
def test_errors_of_the_model_come_through(lesson, task):
    model = make_model()
    batches = make_batches((2, 2, 2))
    if task == "adapt_batchnorm":
        batches = [images for images, _ in batches]
    failure = RuntimeError("from the first batch")
    runs = []

    def fail_at_the_first(*_):
        runs.append(1)
        if len(runs) == 1:
            raise failure

    model.layer2.register_forward_pre_hook(fail_at_the_first)
    what = f"{task}(model, batches), where the model raises an error,"
    check_lets_errors_through(what, lambda: getattr(lesson, task)(model, iter(batches)), failure)


class ReadsAsZeros(TorchFunctionMode):
    """Within it, who reads the numbers of a tensor on meta, which has none, gets zeros.

    So code may print or check numbers, and on meta only does not know them.
    """

    READING = ("cpu", "tolist", "item", "numpy", "__bool__", "__int__", "__float__", "__array__")

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in self.READING and args[0].device.type == "meta":
            args = (torch.zeros_like(args[0], device="cpu"), *args[1:])
        return function(*args, **(kwargs or {}))


@pytest.mark.task("5.3")
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_features_lie_where_the_model_does_and_labels_where_they_did(lesson, device):
    model = make_model().to("meta")
    batches = []
    for images, labels in make_batches():
        batches.append((images.to("meta"), labels.to(device)))
    what = (
        'extract_features(model, batches) of a model and images on another device, torch\'s "meta" '
        f"here, and labels on {device},"
    )
    to_the_cpu = "features or labels are taken to the CPU; leave them where they are"
    try:
        with calling(what), ReadsAsZeros():
            features, labels = lesson.extract_features(model, iter(batches))
    except Wrong as wrong:
        raise wrong.because(to_the_cpu if "meta tensor" in str(wrong) else None) from None
    expected_features = torch.empty(12, 512, device="meta")
    expected_labels = torch.empty(12, dtype=torch.int64, device="meta")
    for name, tensor, expected, place in (
        ("features", features, expected_features, "meta"),
        ("labels", labels, expected_labels, device),
    ):
        check_tensor(tensor, expected, f"{what}: the {name}")
        if tensor.device.type != place:
            cause = to_the_cpu if tensor.device.type == "cpu" else None
            raise Wrong(f"{what} gives {name} on {tensor.device}, expected {place}.", cause)


@contextlib.contextmanager
def gradients_stay(what):
    """Raise Wrong if the learner's code leaves gradients switched off, or on, unlike before."""
    were_on = torch.is_grad_enabled()
    try:
        yield
        if torch.is_grad_enabled() != were_on:
            change = "off for all that follows" if were_on else "on, which were off before"
            raise Wrong(f"{what} leaves gradients switched {change}. Use with torch.no_grad():")
    finally:
        torch.set_grad_enabled(were_on)


def check_count(lesson, model, batches, features, expected, what):
    """Raise Wrong if there are features of more images than there are."""
    count, width = expected.shape
    if type(features) is not torch.Tensor or features.shape[1:] != (width,):
        return
    if len(features) <= count:
        return
    cause = None
    if is_close(features[:count], expected, 1e-3) and not features[count:].any():
        cause = f"the last {len(features) - count} are all zeros; return one for each image"
    elif is_close(features, expected.repeat_interleave(2, dim=0), 1e-3):
        cause = "each image's are there twice"
    with trying_again():
        first, _ = fresh_copy(lesson).extract_features(copy.deepcopy(model), iter(batches))
        if len(first) == count:
            cause = "something of an earlier call remains, such as a list or a hook"
    raise Wrong(f"{what}: there are {len(features)} features of {count} images.", cause)


def check_features_shape(features, expected, batches, what):
    """Raise Wrong unless the features have the shape of the pooling's output, and no graph."""
    if isinstance(features, torch.Tensor) and features.shape[2:] == (1, 1):
        raise Wrong(
            f"{what}: the features have the shape {shape(features)}. "
            "Flatten them to (count, width)."
        )
    size = tuple(features.shape) if type(features) is torch.Tensor else ()
    count, width = expected.shape
    if size == (count, CLASSES):
        raise Wrong(f"{what}: the features are the logits, what fc outputs. Take what reaches it.")
    is_larger = size[:1] == (count,) and features[0].numel() > width
    if is_larger and len(size) > 1:
        raise Wrong(
            f"{what}: the features have the shape {size}; they are from before the pooling. "
            "Take what follows it."
        )
    hint = ""
    if size[1:] == (width,):
        of_batches = expected.split([len(labels) for _, labels in batches])
        some = {
            "the last batch is left out": torch.cat(of_batches[:-1]),
            "the first batch is left out": torch.cat(of_batches[1:]),
            "only the first batch's features are there": of_batches[0],
            "only the last batch's features are there": of_batches[-1],
        }
        hint = likeliest(some, lambda known: is_close(features, known, 1e-3))
    check_tensor(features, expected, f"{what}: the tensor of the features", hint)
    if features.requires_grad:
        raise Wrong(f"{what}: the features carry a graph. Compute them under torch.no_grad().")


def check_kind(tensor, name, dtype, what):
    """Raise Wrong if a tensor has another dtype, or nothing can be trained on it."""
    if type(tensor) is not torch.Tensor:
        return
    if tensor.dtype != dtype:
        hint = ""
        if tensor.dtype in (torch.float16, torch.bfloat16):
            hint = " torch.autocast or a conversion makes them so: use neither."
        if name == "labels" and tensor.is_floating_point():
            hint = " A conversion, or joining them with floats, such as torch.empty(0), does that."
        raise Wrong(
            f"{what}: the {name} are {tensor.dtype}, expected {dtype}. Take them as they are.{hint}"
        )
    if tensor.is_inference():
        raise Wrong(
            f"{what}: the {name} are made in torch.inference_mode(), "
            "and nothing can be trained on them. Use torch.no_grad()."
        )


def features_mistakes(model, batches, expected):
    """What the known wrong ways give for extract_features."""
    without_maxpool = copy.deepcopy(model).eval()
    without_maxpool.maxpool = nn.Identity()
    without_maxpool.fc = nn.Identity()
    with_maximum = copy.deepcopy(model)
    with_maximum.avgpool = nn.AdaptiveMaxPool2d(1)
    mirrored = hooked_features(model, [(images.flip(3), labels) for images, labels in batches])
    of_batches = expected.split([len(labels) for _, labels in batches])
    last_of_size = {len(of_batch): of_batch for of_batch in of_batches}
    return {
        "the features of a batch are overwritten by those of the next one of its size; keep a copy "
        "of each (clone())": torch.cat([last_of_size[len(of_batch)] for of_batch in of_batches]),
        "the features are a mean over each image and its mirror image; give the model each image "
        "once, as it is": (expected + mirrored) / 2,
        "the maximum over all positions is taken, and model.avgpool takes the mean; catch the "
        "input of fc": hooked_features(with_maximum, batches),
        "model.maxpool is left out; run model(images), and catch the input of fc": torch.cat(
            [without_maxpool(images) for images, _ in batches]
        ).detach(),
        "the features are normalised; take them as they are": F.normalize(expected),
        "the batches are in the reverse order": torch.cat(of_batches[::-1]),
    }


def mode_cause(lesson, model, batches, expected):
    """The sentence that names the mode, if features are correct where train() does nothing."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        module.train = lambda mode=True, module=module: module
    with trying_again():
        features, _ = lesson.extract_features(model, iter(batches))
        if is_close(features, expected, 1e-4):
            return advice("a part of the model is in train mode; put all of it into eval mode")
    return ""


def in_another_order(features, expected):
    """Whether each row is one of the expected rows, and no two are the same one."""
    closest = torch.cdist(features, expected).argmin(dim=1)
    return len(closest.unique()) == len(closest) and is_close(features, expected[closest], 1e-4)


def rounded_features(features, expected):
    """That the features are correct but for a dtype of fewer digits on the way, in words; or None.

    What is too large for that dtype may be infinite.
    """
    for kind in (torch.bfloat16, torch.float16):  # float16 can hold most numbers of bfloat16
        limit = torch.finfo(torch.float16).max
        is_near = is_close(features.clamp(max=limit), expected.clamp(max=limit), 1e-2)
        if is_near and same_tensor(features.to(kind).float(), features):
            name = str(kind).removeprefix("torch.")
            return f"the features are rounded to {name} on the way; keep them in float32"
    return None


def other_images(lesson, model, batches, features):
    """That the features are correct for the images that reach the model, in words; or None."""
    model = copy.deepcopy(model)
    seen = []
    model.conv1.register_forward_pre_hook(
        lambda layer, inputs: seen.append((inputs[0].clone(), None))
    )
    with trying_again():
        lesson.extract_features(model, iter(batches))
    with contextlib.suppress(Exception):  # there may be none, or strange ones
        if is_close(hooked_features(model, list(seen)), features, 1e-3):
            return (
                "other images reach the model than those of the batches; give it each as it is, "
                "for they are normalised already"
            )
    return None


# Task 5.3: linear_probe


def clusters(count=200, width=20, classes=4, seed=0, spread=1.0, mislabelled=0.0):
    """Features in clusters, and labels, a share of which is drawn by lot.

    The features differ in size and in their mean, and are never balanced: every second one is of
    the first class, half of the others of the second, and so on.
    """
    generator = torch.Generator().manual_seed(draw(seed))
    centres = 1.2 * torch.randn(classes, width, generator=torch.Generator().manual_seed(draw(99)))
    shares = [0.5**label for label in range(1, classes)]
    labels = torch.zeros(count, dtype=torch.int64)
    order = torch.randperm(count, generator=generator)
    start = 0
    for label, share in enumerate(shares):
        end = start + round(share * count)
        labels[order[start:end]] = label
        start = end
    labels[order[start:]] = classes - 1
    features = centres[labels] + spread * torch.randn(count, width, generator=generator)
    features = features * torch.linspace(0.5, 1.5, width) + torch.linspace(0, 2, width)
    is_mislabelled = torch.rand(count, generator=generator) < mislabelled
    random_labels = torch.randint(classes, (count,), generator=generator)
    return features, torch.where(is_mislabelled, random_labels, labels)


def fit_probe(lesson, features, labels, classes, **options):
    """The learner's linear_probe, and the call in words."""
    features_before = features.clone()
    labels_before = labels.clone()
    call = f"linear_probe(features {shape(features)}, labels, {classes})"
    with calling(call):
        probe = lesson.linear_probe(features, labels, classes, **options)
    if not isinstance(probe, nn.Linear):
        raise Wrong(f"{call} returned {type(probe).__name__}, expected the nn.Linear itself.")
    if not equal(features_before, features):
        raise Wrong(f"{call} changes the features that it is given.")
    if not equal(labels_before, labels):
        raise Wrong(f"{call} changes the labels that it is given.")
    with calling(f"{call}, applied to features,"), torch.no_grad():
        logits = probe(features)
    hint = ""
    if labels.max() + 1 < classes:
        hint = " Not every class is among the labels: take num_classes."
    what = f"{call}, applied to its features,"
    check_tensor(logits, torch.empty(len(features), classes), what, hint)
    check_is_linear(probe, features, logits, call)
    return probe, call


def check_is_linear(probe, features, logits, call):
    """Raise Wrong unless a probe has a weight and a bias, and gives what these give."""
    if {parameter.dim() for parameter in probe.parameters()} == {2}:
        raise Wrong(f"{call} has no bias. Leave bias at its default, True.")
    if [parameter.dim() for parameter in probe.parameters()] != [2, 1]:
        raise Wrong(f"{call} returned more, or less, than one nn.Linear: {probe}")
    weight, bias = probe.parameters()
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise Wrong(
            f"{call}: the probe's weights are NaN or infinite.",
            "the training diverges; are the gradients cleared before each backward()?",
        )
    if not is_close(logits, F.linear(features, weight, bias), 1e-4):
        raise Wrong(
            f"{call}: the probe gives something else than its input times its weights plus its "
            "bias. It gives logits: one linear layer, and nothing behind it."
        )


def objective(probe, features, labels, penalty):
    """The mean cross-entropy of a probe, plus the penalty on its weights."""
    with torch.no_grad():
        weight = next(parameter for parameter in probe.parameters() if parameter.dim() == 2)
        logits = probe(features)
        check_tensor(weight, weight, "the weight of what linear_probe returns")
        check_tensor(logits, logits, "what linear_probe returns, applied to its features,")
        return (F.cross_entropy(logits, labels) + penalty * weight.square().sum()).item()


def squares(weight, bias):
    return weight.square().sum()


def optimum(features, labels, classes, penalty, measure=squares, loss=F.cross_entropy, start=None):
    """The probe with the least value of the objective, or of another one.

    start: another probe to start from, as a loss that is not convex has several minima.
    """
    features = features.double()
    probe = nn.Linear(features.shape[1], classes).double()
    with torch.no_grad():
        probe.weight.mul_(0.1)
        if start is not None:
            probe.weight.copy_(start.weight)
            probe.bias.copy_(start.bias)
    optimizer = torch.optim.LBFGS(
        probe.parameters(), max_iter=600, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def value():
        optimizer.zero_grad()
        result = loss(probe(features), labels) + penalty * measure(probe.weight, probe.bias)
        result.backward()
        return result

    optimizer.step(value)
    return probe


def probe_mistakes(features, labels, classes, penalty, own):
    """The probes that the known wrong ways lead to: {the mistake: what makes the probe}.

    own: the learner's probe.
    """
    best = functools.partial(optimum, features, labels, classes)

    def with_bias(weight, bias):
        return weight.square().sum() + bias.square().sum()

    def mean_square(weight, bias):
        return weight.square().mean()

    def norm(weight, bias):
        return weight.norm()

    def absolute_values(weight, bias):
        return (weight.square() + 1e-6).sqrt().sum()

    def squared_error(logits, labels):
        return F.mse_loss(logits, F.one_hot(labels, classes).double())

    def softmax_twice(logits, labels):
        return F.cross_entropy(logits.softmax(dim=1), labels)

    def smoothed(logits, labels):
        return F.cross_entropy(logits, labels, label_smoothing=0.1)

    def balanced(logits, labels):
        return F.cross_entropy(logits, labels, weight=1 / labels.bincount().double())

    def one_against_the_rest(logits, labels):
        targets = F.one_hot(labels, classes).double()
        return F.binary_cross_entropy_with_logits(logits, targets)

    def on_standardised():
        deviation, mean = torch.std_mean(features, dim=0)
        return optimum((features - mean) / deviation, labels, classes, penalty)

    def folded_back():
        deviation, mean = torch.std_mean(features, dim=0)
        probe = on_standardised()
        with torch.no_grad():
            probe.weight /= deviation
            probe.bias -= probe.weight @ mean.double()
        return probe

    default = "the penalty is 0.001, whatever penalty says"
    if penalty == 0:
        default = "the penalty is 0.001 here; 0 means none"
    half = (
        "the penalty is half as large, as with weight_decay=penalty, which means half of penalty "
        "times the sum of the squared weights; double it"
    )
    return {
        "the penalty is left out, or has no gradient (.data, detach(), no_grad)": (
            lambda: best(0.0)
        ),
        default: lambda: best(1e-3),
        half: lambda: best(penalty / 2),
        f"{half}, and leave the bias out": lambda: best(penalty / 2, with_bias),
        "the penalty is twice as large": lambda: best(2 * penalty),
        "the cross-entropy is in bits; take it in nats": lambda: best(penalty * math.log(2)),
        "the bias is in the penalty, too; it is for the weights only": (
            lambda: best(penalty, with_bias)
        ),
        "the penalty is on the mean of the squares; sum them": lambda: best(penalty, mean_square),
        "the penalty is on the norm of the weights; sum their squares": (
            lambda: best(penalty, norm)
        ),
        "the penalty is on the weights' absolute values; sum their squares": (
            lambda: best(penalty, absolute_values)
        ),
        "the penalty is too weak by the number of images: the cross-entropy is summed over the "
        "images (take its mean), or the penalty is divided by their number (leave it as it is)": (
            lambda: best(penalty / len(labels))
        ),
        "the penalty is divided by the number of classes, as by a mean over them; sum": (
            lambda: best(penalty / classes)
        ),
        "it minimises a binary cross-entropy, each class against the rest; take cross_entropy": (
            lambda: best(penalty, loss=one_against_the_rest)
        ),
        "softmax is applied before cross_entropy, which applies it itself": (
            lambda: best(penalty, loss=softmax_twice, start=own)
        ),
        "it minimises squared errors, not the cross-entropy": (
            lambda: best(penalty, loss=squared_error)
        ),
        "the labels are smoothed; take them as they are": lambda: best(penalty, loss=smoothed),
        "rare classes count for more; every image counts alike": (
            lambda: best(penalty, loss=balanced)
        ),
        "it is trained on the first 80 % of the images; train on all": (
            lambda: optimum(*(x[: len(x) * 4 // 5] for x in (features, labels)), classes, penalty)
        ),
        "it is trained on the first 90 % of the images; train on all": (
            lambda: optimum(*(x[: len(x) * 9 // 10] for x in (features, labels)), classes, penalty)
        ),
        "it is not trained on the first 20 % of the images; train on all": (
            lambda: optimum(*(x[len(x) // 5 :] for x in (features, labels)), classes, penalty)
        ),
        "it is trained on standardised features, and given others": on_standardised,
        "the penalty is on the weights for standardised features; it is for those of the layer "
        "that you return": folded_back,
        "it is trained on centred features, and given others": (
            lambda: optimum(features - features.mean(dim=0), labels, classes, penalty)
        ),
        "it is trained on features of length 1, and given others": (
            lambda: optimum(F.normalize(features), labels, classes, penalty)
        ),
    }


def likeliest_probe(probe, features, mistakes, train_again):
    """A sentence that names the mistake whose probe is near, if no other's is nearly as near.

    What all logits of an image have in common does not count. train_again() gives the learner's
    probe from other initial weights.
    """

    def centred(layer):
        dtype = next(layer.parameters()).dtype
        logits = layer(features.to(dtype)).double()
        return (logits - logits.mean(dim=1, keepdim=True)).detach()

    has_no_weights = (probe.weight == 0).all(dim=1)
    if has_no_weights.sum() == 1:
        label = has_no_weights.nonzero().item()
        return advice(
            f"class {label} has no weights of its own, only zeros; train those of each class"
        )
    got = centred(probe)
    distances = {}
    for mistake, make in mistakes.items():
        distances[mistake] = ((got - centred(make())).norm() / got.norm()).item()
    nearest, second = sorted(distances, key=distances.get)[:2]
    if distances[nearest] < min(0.08, 0.4 * distances[second]):
        return advice(nearest)
    with trying_again():
        if (got - centred(train_again())).norm() > 0.1 * got.norm():
            return (
                "\nFrom other initial weights it ends at another probe: the training stops too "
                "soon, or an earlier state is returned than its last, or its loss has several "
                "minima, or its steps lead to none. Look whether images are held out, the learning "
                "rate is too large or too small, gradients are never cleared, or not before each "
                "backward(), or a part of the loss has none (.data, detach())."
            )
    return (
        "\nIt minimises something else, or the training stops too soon, "
        "or its steps do not lead to the minimum: "
        "the learning rate is too large or too small, or gradients are never cleared. "
        "Print the loss as it falls: if it still falls at the end, train for longer (LBFGS takes "
        "20 iterations unless max_iter says more)."
    )


@pytest.mark.task("5.3")
def test_every_probe_is_its_own(lesson):
    features, labels = clusters(40)
    first, call = fit_probe(lesson, features, labels, 4)
    second, _ = fit_probe(lesson, features + 1, labels.flip(0), 4)
    if first is second:
        raise Wrong(
            f"{call}, a second time, returned the same probe. Make and train a new one each time."
        )


# How near to the minimum: the share that may be left of the way from a layer of zeros.
MIXED = {"count": 240, "spread": 1.5, "mislabelled": 0.2}
TWO_CLASSES = {**MIXED, "classes": 2}
SEPARABLE = {"count": 20, "width": 60}  # all labels are right long before the minimum
NEAR = [
    (MIXED, 1.0, 1e-3, 0.016),
    (MIXED, 1.0, 0.3, 0.008),
    (MIXED, 1.0, 1.0, 0.04),
    (MIXED, 0.1, 1e-3, 0.016),
    (MIXED, 0.1, None, 0.016),  # the default, 1e-3
    (MIXED, 0.1, 0.0, 0.03),  # the classes overlap, so there is a minimum without a penalty, too
    (SEPARABLE, 1.0, 1e-3, 0.01),
    (TWO_CLASSES, 1.0, 3.0, 0.03),
]


@pytest.mark.task("5.3")
@pytest.mark.parametrize("kind, size, penalty, share", NEAR)
def test_probe_comes_near_the_minimum(lesson, kind, size, penalty, share):
    features, labels = clusters(**kind)
    features = size * features
    classes = kind.get("classes", 4)
    torch.manual_seed(draw(0))
    settings = {} if penalty is None else {"penalty": penalty}
    probe, call = fit_probe(lesson, features, labels, classes, **settings)
    call += " without a penalty, which is 0.001 then" if penalty is None else f" with {penalty=}"
    penalty = 1e-3 if penalty is None else penalty
    best = optimum(features, labels, classes, penalty)
    got = objective(probe, features, labels, penalty)
    least = objective(best, features.double(), labels, penalty)
    shares = labels.bincount() / len(labels)
    at_zero = -(shares * shares.log()).sum().item()  # the least that the bias alone reaches
    if got <= least + share * (at_zero - least):
        return
    mistakes = probe_mistakes(features, labels, classes, penalty, probe)
    train_again = functools.partial(lesson.linear_probe, features, labels, classes, **settings)
    hint = likeliest_probe(probe, features, mistakes, train_again)
    raise Wrong(f"{call}: cross-entropy plus penalty is {got:.4f}, it could be {least:.4f}.{hint}")


@pytest.mark.task("5.3")
def test_probe_weighs_all_images_alike(lesson):
    features, labels = clusters(257, spread=1.5)
    features[-1] = 3 * features[labels == 0].mean(dim=0)
    labels[-1] = 3  # in batches of 16, 32, 64 or 128 the last one would hold this image alone
    check_all_count(
        lesson,
        features,
        labels,
        "All images count alike: the mean is that over all of them, not one over batches.",
    )


def check_all_count(lesson, features, labels, hint):
    """Raise Wrong, with a hint, unless a probe is near the minimum over all of these images."""
    torch.manual_seed(draw(0))
    probe, call = fit_probe(lesson, features, labels, 4)
    best = optimum(features, labels, 4, 1e-3)
    got = objective(probe, features, labels, 1e-3)
    least = objective(best, features.double(), labels, 1e-3)
    if got > least + 0.03:
        hint = f" {hint}" if probe_is_usually_right(lesson) else ""
        raise Wrong(
            f"{call}: cross-entropy plus penalty is {got:.4f}, it could be {least:.4f}.{hint}"
        )


def probe_is_usually_right(lesson):
    """Whether a probe comes near the minimum where no image is rare and none comes often."""
    features, labels = clusters(**MIXED)
    with trying_again():
        probe = lesson.linear_probe(features, labels, 4)
        least = objective(optimum(features, labels, 4, 1e-3), features.double(), labels, 1e-3)
        return objective(probe, features, labels, 1e-3) < least + 0.03
    return False


@pytest.mark.task("5.3")
def test_probe_counts_an_image_as_often_as_it_comes(lesson):
    features, labels = clusters(200, spread=1.5, mislabelled=0.2)
    is_first_class = labels == 0
    others = ~is_first_class
    features = torch.cat([features[others]] * 8 + [features[is_first_class]] * 40)
    labels = torch.cat([labels[others]] * 8 + [labels[is_first_class]] * 40)
    check_all_count(
        lesson,
        features,
        labels,
        "All rows count, also the many that are equal, and the last ones.",
    )


@pytest.mark.task("5.3")
def test_probe_has_an_output_for_each_class(lesson):
    features, labels = clusters(40)
    # Only the shape is checked: where a class has no image, the loss has no minimum.
    fit_probe(lesson, features, labels, 6)


@pytest.mark.task("5.3")
def test_probe_tells_clusters_apart(lesson):
    features, labels = clusters(40)
    probe, call = fit_probe(lesson, features, labels, 4)
    new_features, new_labels = clusters(400, seed=7)
    with torch.no_grad():
        predictions = probe(new_features).argmax(1)
    accuracy = (predictions == new_labels).float().mean().item()
    if accuracy < 0.9:
        raise Wrong(
            f"{call}: on new features of four well-separated clusters its accuracy is "
            f"{100 * accuracy:.0f} %, expected 90 % or more."
        )


@pytest.mark.task("5.3")
def test_probe_does_not_train_the_features(lesson):
    features, labels = clusters(30)
    with calling("linear_probe(features, labels, 4)"):
        lesson.linear_probe(features, labels, 4)
    if features.requires_grad or features.grad is not None:
        raise Wrong(
            "linear_probe leaves features that require a gradient, or have one in .grad. "
            "Only the probe is trained: leave the features as they are."
        )


# Task 5.4

PARTS = ("fc", "layer4", "layer3", "layer2", "layer1", "stem")
STEM = PARTS.index("stem")


def rate_mistakes(lr, factor):
    """The known wrong ways: the learning rates of the six parts, from the head backwards."""
    ways = {
        "the order is turned round; the head learns fastest": lambda i: lr * factor ** (5 - i),
        "factor is multiplied by the part's number; raise it to that power, factor**i": (
            lambda i: lr * factor * i
        ),
        "factor is multiplied by the part's number, from 1; raise it to that power, from 0": (
            lambda i: lr * factor * (i + 1)
        ),
        "factor is divided by the part's number; raise it to that power, factor**i": (
            lambda i: lr * factor / i if i else lr
        ),
        "the rates fall in equal steps; multiply by factor each time, factor**i": (
            lambda i: lr * (1 - i * (1 - factor))
        ),
        "the rates fall in equal steps to 0; multiply by factor each time, factor**i": (
            lambda i: lr * max(0, 1 - i * (1 - factor)) if factor < 0.8 else math.nan
        ),
        "the rates fall in equal steps to lr * factor**5; multiply by factor each time": (
            lambda i: lr + (lr * factor**5 - lr) * i / 5
        ),
        "the factor is applied once too often: fc itself learns at lr": (
            lambda i: lr * factor ** (i + 1)
        ),
        "there are only two rates, the head's and one for the rest; each part before has its own": (
            lambda i: lr * factor ** min(i, 1)
        ),
        "every part has the same rate": lambda i: lr,
        "the factor is 0.6, the script's, whatever factor says": lambda i: lr * 0.6**i,
        "the factor is applied twice between fc and layer4; avgpool has no parameters": (
            lambda i: lr * factor ** (i + (i > 0))
        ),
        "it divides by factor; multiply by it, part by part": lambda i: lr / factor**i,
    }
    mistakes = {}
    for words, way in ways.items():
        mistakes[words] = [way(i) for i in range(6)]
    return mistakes


def is_rate(rate, expected):
    """Whether a learning rate is the expected one, as exactly as float32 says it."""
    return math.isfinite(rate) and abs(rate - expected) <= 1e-5 * abs(expected)


def same_rates(parts_and_rates, rates):
    """Whether all parameters have the rates of their parts: [(number of the part, rate), ...].

    A rate of None agrees with all.
    """
    for part, rate in parts_and_rates:
        expected = rates[part]
        if rate is not None and not is_rate(rate, expected):
            return False
    return True


def wrong_limits(known, rates):
    """What is wrong, in words, with the limits of the head or of the stem; else None.

    known: {name: (number of the part, rate)}.
    """
    with_heads = []  # as if all that has fc in its name were the head's
    for name, (part, rate) in known.items():
        with_heads.append((0 if "fc" in name else part, rate))
    if same_rates(with_heads, rates):
        return "a layer inside a stage has fc in its name, too; the head is model.fc alone"
    behind = [(part, rate) for part, rate in known.values() if part < STEM]
    if same_rates(behind, rates):
        stem_rates = {rate for part, rate in known.values() if part == STEM}
        if len(stem_rates) > 1:
            return "conv1 and bn1 are one part, the stem, and have one rate"
        if stem_rates == {rates[STEM - 1]}:
            return "the stem has layer1's rate; it is a part of its own"
        return None
    with_blocks = []  # as if what the blocks call conv1 and bn1 were the stem's
    with_norms = []  # or only what they call bn1
    for name, (part, rate) in known.items():
        is_norm = "bn1" in name
        with_blocks.append((STEM if is_norm or "conv1" in name else part, rate))
        with_norms.append((STEM if is_norm or name.startswith("conv1") else part, rate))
    if same_rates(with_blocks, rates) or same_rates(with_norms, rates):
        return (
            "the blocks have a conv1 and a bn1 of their own; "
            "the stem's are model.conv1 and model.bn1"
        )
    return None


def rates_by_block(known):
    """What is wrong, in words, if the blocks of a stage have different rates; else None.

    known: {name: (number of the part, rate)}.
    """
    rates = {}
    for name, (part, rate) in known.items():
        if 0 < part < STEM:
            rates.setdefault((part, name.split(".")[1]), set()).add(rate)
    if any(len(of_block) > 1 for of_block in rates.values()):
        return None
    for part in range(1, STEM):
        of_stage = [of_block for (stage, _), of_block in rates.items() if stage == part]
        if len(set.union(*of_stage)) == 1:
            return None
    return "each block has a rate of its own; all blocks of a stage are one part"


def are_rounded(known, expected_rates):
    """Whether all rates are the expected ones, rounded to some number of digits.

    known: {name: (number of the part, rate)}.
    """
    for digits in range(1, 12):
        rounded = [round(rate, digits) for rate in expected_rates]
        if all(rate in (None, rounded[part]) for part, rate in known.values()):
            return True
    return False


def lower_limit(known, expected_rates):
    """What is wrong, in words, if no rate goes below some number; else None.

    known: {name: (number of the part, rate)}.
    """
    lowest = min(rate for _, rate in known.values() if rate is not None)
    limited = [max(rate, lowest) for rate in expected_rates]
    if limited.count(lowest) > 1 and same_rates(known.values(), limited):
        return f"no rate goes below {lowest:g}; there is no such limit"
    return None


def why_in_no_group(model, name, known, others):
    """A sentence on a parameter that is in no group; or "".

    known: {name: (number of the part, rate)}; others: tensors in the groups that are no parameters.
    """
    data = model.get_parameter(name).data_ptr()
    if any(other.data_ptr() == data for other in others):
        return (
            " A tensor that shares its numbers is (.data, detach() or state_dict()): put in the "
            "parameter."
        )
    missing = {name for name, (_, rate) in known.items() if rate is None}
    if all(has_namesake(missing_name, known) for missing_name in missing):
        return (
            " Another block's parameter of that name is in one: the blocks of a stage have "
            "parameters of the same names."
        )
    frozen_ones = {name for name, own in model.named_parameters() if not own.requires_grad}
    if missing == frozen_ones:
        return " What is frozen now may be thawed later: it belongs in a group, too."
    return ""


def has_namesake(name, known):
    """Whether a parameter of the same name, of another block of the stage, has a rate."""
    stage, _, rest = name.partition(".")
    for other, (_, rate) in known.items():
        other_stage, _, other_rest = other.partition(".")
        same_name = rest.partition(".")[2] == other_rest.partition(".")[2] != ""
        if rate is not None and other_stage == stage and same_name:
            return True
    return False


def why_in_two_groups(name, groups):
    """What is wrong, in words, if a parameter is in two groups, or None."""
    contents = {tuple(map(id, group["params"])) for group in groups}
    if len(contents) == 1:
        return "all groups share one list of parameters; make a new one for each"
    part, _, rest = name.partition(".")
    if part in PARTS and any(word in rest for word in ("fc", "conv1", "bn1")):
        return (
            f"it is part of {part}, whatever its name has in it; compare the name's first part "
            "alone, not any of it"
        )
    return None


def groups_of(lesson, model, lr, factor, call):
    """The groups that the learner's code returned, each as torch's optimizers read it."""
    with calling(call):
        got = lesson.parameter_groups(model, lr, factor)
    groups = []
    for i, group in enumerate(plain(got, call, list, tuple)):
        what = f"{call}: group {i}"
        for key in ("params", "lr"):
            if key not in plain(group, what, dict):
                raise Wrong(f'{what} has no "{key}".')
        rate = number(group["lr"], f'{call}: "lr" of a group')
        with calling(f"torch.optim.SGD, given group {i} of {call},"):
            optimizer = torch.optim.SGD([dict(group)], lr=1.0)
        groups.append({**optimizer.param_groups[0], "lr": rate})
    return groups


def frozen_cause(lesson, model, lr, factor):
    """That all rates are correct if nothing is frozen, in words; or None."""
    thawed = copy.deepcopy(model).requires_grad_(True)
    parts = {id(parameter): part_of(name) for name, parameter in thawed.named_parameters()}
    rates = []
    with trying_again():
        for group in lesson.parameter_groups(thawed, lr, factor):
            for parameter in group["params"]:
                rates.append((parts.pop(id(parameter)), float(group["lr"])))
        if not parts and same_rates(rates, [lr * factor**part for part in range(6)]):
            return (
                "layer1 is frozen here, and the rates change with that; a frozen part counts, too"
            )
    return None


def part_of(name):
    """The number of the part that the parameter with this name belongs to."""
    part = name.split(".")[0]
    return STEM if part in ("conv1", "bn1") else PARTS.index(part)


@pytest.mark.task("5.4")
@pytest.mark.parametrize(
    "block, lr, factor",
    [
        (BasicBlock, 0.1, 0.5),
        (Bottleneck, 1e-4, 0.3),
        (BasicBlock, 2.0, 1.5),
        (BasicBlock, 0.1, 1.0),
        (BasicBlock, 0.1, 0.0),
    ],
)
def test_every_parameter_has_one_rate(lesson, block, lr, factor):
    model = make_disturbed(block)
    before = Everything(model)
    call = f"parameter_groups(model, {lr}, {factor})"
    rates = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    others = []  # tensors in the groups that are no parameters of the model
    groups = groups_of(lesson, model, lr, factor, call)
    for group in groups:
        for parameter in group["params"]:
            if id(parameter) not in names:
                others.append(parameter)
            if id(parameter) in rates:
                name = names.get(id(parameter), f"a tensor of the shape {shape(parameter)}")
                raise Wrong(
                    f"{call}: {name} is in two groups, with the learning rates "
                    f"{rates[id(parameter)]:.6g} and {group['lr']:.6g}.",
                    why_in_two_groups(name, groups),
                )
            rates[id(parameter)] = group["lr"]
    expected_rates = [lr * factor**part for part in range(6)]
    known = {}
    for name, parameter in model.named_parameters():
        known[name] = (part_of(name), rates.pop(id(parameter), None))
    from_the_head = sorted(known.items(), key=lambda item: item[1][0])
    for name, (part, rate) in from_the_head:
        if rate is None and factor == 1:
            raise Wrong(
                f"{call}: {name} is in no group, so it is never trained. "
                "All parts have the same rate here, and yet all belong in groups."
            )
        if rate is None:
            hint = why_in_no_group(model, name, known, others)
            raise Wrong(f"{call}: {name} is in no group, so it is never trained.{hint}")
        expected = expected_rates[part]
        if not is_rate(rate, expected):
            mistakes = rate_mistakes(lr, factor)
            hint = advice(frozen_cause(lesson, model, lr, factor))
            hint = hint or likeliest(mistakes, functools.partial(same_rates, known.values()))
            hint = hint or advice(wrong_limits(known, expected_rates) or rates_by_block(known))
            hint = hint or advice(lower_limit(known, expected_rates))
            if not hint and are_rounded(known, expected_rates):
                hint = advice("the rates are rounded; leave them as they are")
            raise Wrong(
                f"{call}: {name}, which belongs to {PARTS[part]}, has the learning rate "
                f"{rate:.6g}, expected {expected:.6g}.{hint}"
            )
    if rates:
        cause = None
        with trying_again():
            if len(lesson.parameter_groups(model, lr, factor)) > len(groups):
                cause = "a list outside the function grows with every call; make a new one in each"
        raise Wrong(f"{call}: {len(rates)} parameters in the groups are not the model's.", cause)
    check_unchanged(before, call)


@pytest.mark.task("5.4")
def test_groups_are_those_of_the_model_as_it_is_now(lesson):
    model = make_model()
    call = "parameter_groups(model, 0.1, 0.5), a second time, after model.fc was replaced,"
    own = {id(parameter) for parameter in model.parameters()}
    was_right = grouped_ids(groups_of(lesson, model, 0.1, 0.5, call)) == own
    hint = "Keep nothing between calls." if was_right else ""
    old_head = model.fc  # kept, so that no new parameter gets the id of an old one
    model.fc = nn.Linear(512, 3)
    grouped = grouped_ids(groups_of(lesson, model, 0.1, 0.5, call))
    check_all_grouped(model, grouped, call, hint)
    if any(id(parameter) in grouped for parameter in old_head.parameters()):
        raise Wrong(f"{call} still has parameters of the old fc. {hint}")


def check_all_grouped(model, grouped, call, sentence):
    """Raise Wrong unless the ids of all of a model's parameters are among those grouped."""
    for name, parameter in model.named_parameters():
        if id(parameter) not in grouped:
            raise Wrong(f"{call} has {name} in no group. {sentence}".rstrip())


def grouped_ids(groups):
    """The ids of all tensors in these groups."""
    return {id(parameter) for group in groups for parameter in group["params"]}


@pytest.mark.task("5.4")
def test_parameters_of_equal_values_are_all_in_groups(lesson):
    model = make_model()
    with torch.no_grad():
        for norm in norms_of(model):  # as in a new network
            norm.weight.fill_(1)
            norm.bias.zero_()
    call = "parameter_groups(model, 0.1, 0.5) of a model with new batch norms"
    grouped = grouped_ids(groups_of(lesson, model, 0.1, 0.5, call))
    sentence = "Tell parameters apart by id, or with is: several may have equal values."
    check_all_grouped(model, grouped, call, sentence)


@pytest.mark.task("5.4")
def test_frozen_parameters_are_in_groups_and_stay_frozen(lesson):
    model = make_model()
    model.layer1.requires_grad_(False)
    before = Everything(model)
    call = "parameter_groups(model, 0.1, 0.5) of a model of which layer1 is frozen"
    groups = groups_of(lesson, model, 0.1, 0.5, call)
    check_unchanged(before, call)
    grouped = grouped_ids(groups)
    check_all_grouped(model, grouped, call, "Every parameter belongs in one, frozen or not.")


# Task 5.5


def variance(x):
    return x.var(dim=(1, 2))


def deviation(x):
    return x.std(dim=(1, 2))


def within_images(x, correction):
    """The mean of the images' own variances."""
    return x.var(dim=2, correction=correction).mean(dim=1)


def batch_statistics(model, batches, spread=variance, training=True, of_outputs=False):
    """For each batch norm: [(mean, variance) of its input for each batch], on a copy.

    spread: what is taken as the variance of (channels, images, positions).
    of_outputs: whether both are those of its output.
    """
    model = copy.deepcopy(model).train(training)
    statistics = {norm: [] for norm in norms_of(model)}

    def note(norm, inputs, output):
        x = output if of_outputs else inputs[0]
        x = x.detach().transpose(0, 1).flatten(2)
        statistics[norm].append((x.mean(dim=(1, 2)), spread(x)))

    for norm in statistics:
        norm.register_forward_hook(note)
    with torch.no_grad():
        for images in batches:
            model(images)
    return list(statistics.values())


def by_hand(model, batches, weights=None, **changes):
    """For each batch norm, the mean over the batches of each batch's own mean and variance.

    weights: how much each batch counts; None for all alike.
    """
    weights = torch.tensor(weights or [1.0] * len(batches))
    weights = (weights / weights.sum())[:, None]
    statistics = []
    for of_batches in batch_statistics(model, batches, **changes):
        means, variances = zip(*of_batches)
        mean = (torch.stack(means) * weights).sum(dim=0)
        variance = (torch.stack(variances) * weights).sum(dim=0)
        statistics.append([mean, variance])
    return statistics


def moving(model, batches, reset, rate=None):
    """For each batch norm, the moving averages with some momentum, its own for None.

    They start from the old statistics, or from a reset.
    """
    rate = model.bn1.momentum if rate is None else rate
    statistics = []
    for norm, of_batches in zip(norms_of(model), batch_statistics(model, batches)):
        mean = norm.running_mean
        variance = norm.running_var
        if reset:
            mean = torch.zeros_like(mean)
            variance = torch.ones_like(variance)
        for batch_mean, batch_variance in of_batches:
            mean = mean.lerp(batch_mean, rate)
            variance = variance.lerp(batch_variance, rate)
        statistics.append([mean, variance])
    return statistics


def holds(norm, mean, variance):
    """Whether a batch norm's running statistics are these."""
    return is_close(norm.running_mean, mean, 1e-3) and is_close(norm.running_var, variance, 1e-3)


def same_statistics(norms, statistics):
    """Whether batch norms hold these statistics."""
    pairs = zip(norms, statistics)
    return all(holds(norm, mean, variance) for norm, (mean, variance) in pairs)


def statistics_mistakes(model, batches):
    """What the known wrong ways give for adapt_batchnorm."""
    sizes = [float(len(images)) for images in batches]
    larger = [images for images in batches if len(images) > 1]
    count = len(batches)

    def of(batches, **changes):
        return lambda: by_hand(model, batches, **changes)

    def only_children():
        return by_hand(model, batches)[:1] + moving(model, batches, reset=False)[1:]

    def not_reset():
        statistics = []
        for norm, of_batches in zip(norms_of(model), batch_statistics(model, batches)):
            before = norm.num_batches_tracked.item()
            means, variances = zip(*of_batches)
            mean = (before * norm.running_mean + sum(means)) / (before + count)
            variance = (before * norm.running_var + sum(variances)) / (before + count)
            statistics.append([mean, variance])
        return statistics

    def counting_initial(times):
        statistics = []
        for mean, variance in by_hand(model, batches):
            mean = count * mean / (times + count)
            variance = (times + count * variance) / (times + count)
            statistics.append([mean, variance])
        return statistics

    def with_spread_of_means():
        statistics = []
        for of_batches in batch_statistics(model, batches):
            means, variances = map(torch.stack, zip(*of_batches))
            spread = means.var(dim=0, correction=0)
            statistics.append([means.mean(dim=0), variances.mean(dim=0) + spread])
        return statistics

    def halfway():
        pairs = zip(norms_of(model), by_hand(model, batches))
        return [
            [(norm.running_mean + mean) / 2, (norm.running_var + variance) / 2]
            for norm, (mean, variance) in pairs
        ]

    def of_all_values():
        statistics = []
        for of_batches in batch_statistics(model, batches, spread=lambda x: x.flatten(1)):
            values = torch.cat([x for _, x in of_batches], dim=1)
            statistics.append([values.mean(dim=1), values.var(dim=1)])
        return statistics

    def old_variances():
        pairs = zip(norms_of(model), by_hand(model, batches))
        return [[mean, norm.running_var] for norm, (mean, _) in pairs]

    def divided_by_one_more():
        share = count / (count + 1)
        return [[share * mean, share * variance] for mean, variance in by_hand(model, batches)]

    mistakes = {
        "old and new statistics are averaged; the old ones no longer count": halfway,
        "the running variances are those of before; they change, too": old_variances,
        "the sum over the batches is divided by one more than there are": divided_by_one_more,
        "num_batches_tracked is not reset, so the mean is over more batches than there are; "
        "call reset_running_stats()": lambda: counting_initial(model.bn1.num_batches_tracked),
        "the initial mean of 0 and variance of 1 count as one more batch; the momentum of the i-th "
        "batch is 1/i, as it is with momentum None": lambda: counting_initial(1),
        "it is a moving average that still holds part of the old statistics: "
        "reset them, and set momentum to None": lambda: moving(model, batches, reset=False),
        "the variance divides by the count n; batch norm's running variance divides by n - 1": of(
            batches, spread=lambda x: x.var(dim=(1, 2), correction=0)
        ),
        "it is the square of the mean standard deviation; take the mean of the variances": (
            lambda: [
                [mean, mean_deviation.square()]
                for mean, mean_deviation in by_hand(model, batches, spread=deviation)
            ]
        ),
        "it is the standard deviation; take its square, the variance": of(
            batches, spread=deviation
        ),
        "these are the statistics of what a batch norm gives; take those of what it gets": of(
            batches, of_outputs=True
        ),
        "the numbers are those that reach a batch norm in eval mode; "
        "run the batches in train mode": of(batches, training=False),
        "only batch norms among model.children() are adapted; "
        "model.modules() has those in blocks, too": only_children,
        "the statistics are not reset, so all batches of before count, too; "
        "call reset_running_stats()": not_reset,
        f"after the reset the momentum is still {model.bn1.momentum}; "
        "set it to None for the mean over all batches": lambda: moving(model, batches, reset=True),
    }
    for correction, divisor in ((0, "their count"), (1, "one less than their count")):
        mistakes[
            "it is the mean of the variances within each image, which divide by "
            f"{divisor}; take the variance over all images and positions of a batch"
        ] = of(batches, spread=functools.partial(within_images, correction=correction))
    if count > 1:
        mistakes[
            "the numbers of all batches are put together; each batch has statistics of its own: "
            "take their plain mean"
        ] = of_all_values
        only_the_first = "only the first batch counts; take the mean over all"
        if max(sizes[1:]) < sizes[0]:
            only_the_first = "only the first batch counts, or smaller ones are left out; take all"
        mistakes |= {
            "only the last batch counts; take the mean over all: run each, reset the statistics "
            "once, before the loop, and set momentum to None; if you note each one's, "
            "note a clone()": of(batches[-1:]),
            "the first batch counts twice; run each batch once": of([batches[0], *batches]),
            "the variance between the batches' means is added; take the plain mean of the "
            "batches' variances": with_spread_of_means,
            "the momentum is 1/n from the first of the n batches on, which is no mean; "
            "set it to None": lambda: moving(model, batches, reset=True, rate=1 / count),
            only_the_first: of(batches[:1]),
            "the first batch is missing: next(iter(batches)) takes it away": of(batches[1:]),
            "all batches are put together to one; run them one by one": of([torch.cat(batches)]),
        }
    if len(larger) < count:
        mistakes["a batch of a single image is left out; it counts like any other"] = of(larger)
    if len(set(sizes)) > 1:
        mistakes["larger batches count for more; every batch counts alike"] = of(
            batches, weights=sizes
        )
    return mistakes


def one_by_one(model, batches):
    """For each batch norm, the means over the batches if those before it are in eval mode."""
    model = copy.deepcopy(model)
    statistics = []
    for index, norm in enumerate(norms_of(model)):
        mean, variance = by_hand(model, batches, training=False)[index]
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        statistics.append([mean, variance])
    return statistics


@pytest.mark.task("5.5")
@MODES
@pytest.mark.parametrize(
    "sizes", [(7, 1, 4), (4, 4, 4), (12,)], ids=["uneven", "three", "one batch"]
)
def test_statistics_are_the_means_over_the_batches(lesson, sizes, training):
    model = make_disturbed(training=training)
    old = copy.deepcopy(model)
    all_images = 5 + 2 * make_images()
    before = Everything(model, images=all_images)
    batches = list(all_images.split(sizes))
    expected = by_hand(model, batches)
    what = f"adapt_batchnorm(model, batches of {', '.join(map(str, sizes))})"
    once = Once(batches)
    try:
        with calling(what):
            got = lesson.adapt_batchnorm(model, once)
    except Wrong as wrong:
        unpacked = "values to unpack" in str(wrong)
        cause = "batches yields images alone, without labels" if unpacked else None
        raise wrong.because(cause) from None
    check_same_model(got, model, what)
    tensors_of(model)  # raises Wrong if they are not plain ones
    check_same_parameters(model, old, what)
    norms = norms_of(model)
    old_norms = norms_of(old)
    try:
        check_all_have_moved(model, old_norms, what)
    except Wrong as wrong:
        raise wrong.because(once.cause()) from None
    names = {module: name for name, module in model.named_modules()}
    for norm, (mean, variance) in zip(norms, expected):
        if holds(norm, mean, variance):
            continue
        difference = statistics_difference(norm, mean, variance)
        mistakes = statistics_mistakes(old, batches)
        if holds(norms[0], *expected[0]):
            mistakes[
                "one batch norm after the other is adapted, while others are in eval mode; put all "
                "into train mode, and run each batch once"
            ] = functools.partial(one_by_one, old, batches)
        hint = likeliest(mistakes, functools.partial(same_statistics, norms))
        hint = hint or advice(other_batches(lesson, old, batches))
        hint = hint or advice(old_share(lesson, old, batches))
        raise Wrong(f"{what}: {difference} in {names[norm]}.{hint}")
    for norm, old_norm in zip(norms, old_norms):
        if norm.momentum != old_norm.momentum:
            raise Wrong(
                f"{what} leaves the momentum at {norm.momentum}. "
                f"Put back what it was, {old_norm.momentum}."
            )
    check_unchanged(before, what, "values")


def other_batches(lesson, model, batches):
    """That as many images reach the model as batches hold, but in other batches; or None."""
    model = copy.deepcopy(model)
    given = [len(images) for images in batches]
    sizes = []
    model.conv1.register_forward_pre_hook(lambda layer, inputs: sizes.append(len(inputs[0])))
    with trying_again():
        lesson.adapt_batchnorm(model, iter(batches))
    if sum(sizes) != sum(given) or sizes == given:
        return None
    return f"the model gets batches of {', '.join(map(str, sizes))}; run each batch as it comes"


def old_share(lesson, model, batches):
    """That new statistics depend on old ones that no other layer sees, in words; or None."""
    running_means = []
    for change in (0, 1):
        changed = copy.deepcopy(model)
        last_norm = norms_of(changed)[-1]
        last_norm.running_mean += change
        with trying_again():
            lesson.adapt_batchnorm(changed, iter(batches))
            running_means.append(last_norm.running_mean)
    if len(running_means) == 2 and not is_close(*running_means, 1e-3):
        return "the old statistics still have a share in the new ones; reset them"
    return None


def check_all_have_moved(model, old_norms, what):
    """Raise Wrong if the statistics of a batch norm are what they were, or as reset."""
    names = {module: name for name, module in model.named_modules()}
    left = []
    for norm, old_norm in zip(norms_of(model), old_norms):
        if norm.running_mean is None or norm.running_var is None:
            raise Wrong(f"{what} leaves {names[norm]} without running statistics.")
        if equal(norm.running_mean, old_norm.running_mean) or not norm.running_mean.any():
            left.append(names[norm])
    if len(left) == len(old_norms):
        raise Wrong(
            f"{what}: the running means are what they were before, or 0. "
            "In eval mode they do not move; nor if batches, "
            "which can be gone through only once, is used up before."
        )
    if left:
        raise Wrong(
            f"{what} leaves the running statistics of {left[0]} as they were, or as reset, "
            "while others change. Adapt every batch norm among model.modules(), "
            "in whichever mode it is."
        )


def check_same_parameters(model, old, what):
    """Raise Wrong if a parameter has changed; reset_parameters() is named."""
    old_parameters = dict(old.named_parameters())
    for name, parameter in model.named_parameters():
        if equal(parameter, old_parameters[name]):
            continue
        reset = torch.full_like(parameter, float(name.endswith("weight")))
        cause = None
        if equal(parameter, reset):
            cause = (
                "reset_parameters() resets weight and bias, too; "
                "reset_running_stats() the statistics only"
            )
        raise Wrong(f"{what} changes the parameter {name}. Only statistics may change.", cause)


def statistics_difference(norm, mean, variance):
    """Which of a batch norm's running statistics is not the expected one, in words."""
    name = "mean"
    got = norm.running_mean
    expected = mean
    if is_close(got, expected, 1e-3):
        name = "variance"
        got = norm.running_var
        expected = variance
    return f"a running {name} starts with {rounded(got)}, expected {rounded(expected)}"


def rounded(tensor):
    """The first three numbers of a tensor, to four places."""
    return [round(value, 4) for value in tensor[:3].tolist()]


@pytest.mark.task("5.5")
def test_adaptation_puts_back_each_momentum_and_leaves_all_else(lesson):
    model = make_disturbed()
    norms = norms_of(model)
    momenta = [0.03, None, 0.2] + [0.1] * (len(norms) - 3)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    before = Everything(model)
    images = make_images(4)
    expected = by_hand(model, [images])
    what = "adapt_batchnorm(model, batches)"
    with gradients_stay(what), calling(what):
        lesson.adapt_batchnorm(model, [images])
    momenta_after = [norm.momentum for norm in norms_of(model)]
    if momenta_after != momenta:
        raise Wrong(
            f"{what} leaves momenta of {momenta_after[:3]} where they were {momenta[:3]}. "
            "Keep each batch norm's own."
        )
    if not holds(norms[1], *expected[1]):
        raise Wrong(
            f"{what}: a batch norm whose momentum was None before does not hold the statistics "
            "of the batches. Reset it like all others."
        )
    if any(buffer.is_inference() for buffer in model.buffers()):
        raise Wrong(
            f"{what} makes statistics inside torch.inference_mode, with which the model cannot be "
            "trained. Use torch.no_grad."
        )
    check_unchanged(before, what, "values")


@pytest.mark.task("5.5")
def test_frozen_batch_norms_are_adapted_and_stay_frozen(lesson):
    model = make_model()
    model.layer1.requires_grad_(False)  # all other weights are trained
    batches = list((5 + 2 * make_images()).split((6, 4, 2)))
    expected = by_hand(model, batches)
    freeze_norms(model)
    before = Everything(model)
    what = (
        "adapt_batchnorm(model, batches) of a model whose batch norms are frozen, as task 5.2 does,"
    )
    with calling(what):
        lesson.adapt_batchnorm(model, iter(batches))
    if not same_statistics(norms_of(model), expected):
        hint = ""
        plain_model = make_model()
        with trying_again():
            lesson.adapt_batchnorm(plain_model, iter(batches))
        if same_statistics(norms_of(plain_model), expected):
            hint = (
                " The train() of such a batch norm does nothing: set its attribute training, and "
                "put it back."
            )
        raise Wrong(f"{what} does not give the means over the batches.{hint}")
    if any(norm.training for norm in norms_of(model)):
        raise Wrong(
            f"{what} leaves them in train mode. The train(False) of such a batch norm does "
            "nothing: put its attribute training back."
        )
    model.train()
    if any(norm.training for norm in norms_of(model)):
        raise Wrong(
            f"{what} thaws them: after model.train() they are in train mode. "
            "Put back what you change."
        )
    check_unchanged(before, what, "values")


def freeze_norms(model):
    """Freeze the batch norms of a model: eval mode, and train() does nothing."""
    for norm in norms_of(model):
        norm.eval()
        norm.train = functools.partial(staying, norm)


def staying(module, mode=True):
    """What a module's train does when it stays in its mode."""
    return module


@pytest.mark.task("5.5")
def test_adaptation_needs_no_gradients(lesson):
    model = make_model()
    with calling("adapt_batchnorm(model, batches)"):
        lesson.adapt_batchnorm(model, [make_images(4)])
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise Wrong(
            "adapt_batchnorm(model, batches) computes gradients. It only needs forward passes."
        )


@pytest.mark.task("5.5")
def test_adaptation_takes_every_batch(lesson):
    model = make_model()
    other = copy.deepcopy(model)
    batches = [make_images(2, seed) for seed in range(41)]
    batches[-1] = 100 + batches[-1]
    with calling("adapt_batchnorm(model, 41 batches)"):
        lesson.adapt_batchnorm(model, iter(batches))
        lesson.adapt_batchnorm(other, batches[:-1])
    if is_close(model.bn1.running_mean, other.bn1.running_mean, 1e-3):
        raise Wrong(
            "adapt_batchnorm(model, batches) leaves out the last of 41 batches. Every batch counts."
        )


@pytest.mark.task("5.5")
def test_adaptation_forgets_what_was_before(lesson):
    batches = [make_images(6, seed) for seed in range(2)]
    first = make_model()
    second = make_model()
    with calling("adapt_batchnorm(model, batches), twice,"):
        lesson.adapt_batchnorm(first, batches)
        lesson.adapt_batchnorm(second, [100 + make_images(6, 9)])
    what = "adapt_batchnorm(model, batches), a second time, where gradients are off,"
    with torch.no_grad(), gradients_stay(what), calling(what):
        lesson.adapt_batchnorm(second, batches)
    second_tensors = list(tensors_of(second).values())
    for (name, tensor), other in zip(tensors_of(first).items(), second_tensors):
        if "running" in name and not is_close(other, tensor, 1e-3):
            raise Wrong(
                f"adapt_batchnorm: {name} depends on what the model was adapted to before. "
                "Reset the statistics."
            )


# The whole exercise


@pytest.mark.task("5.4")
@pytest.mark.timeout(90)
def test_fine_tuning_learns_cifar10(lesson, cifar10_dir):
    data = load_cifar10(lesson, cifar10_dir)
    images = lesson.normalise(data.train_images, data)
    labels = data.train_labels
    torch.manual_seed(draw(0))
    model = torchvision.models.resnet18(num_classes=10).to(labels.device)
    with calling("parameter_groups(model, 0.002, 0.6)"):
        optimizer = torch.optim.AdamW(lesson.parameter_groups(model, 0.002, 0.6))
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(model(images), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if not losses[-1] < 0.7 * losses[0]:
        raise Wrong(
            "eight steps with parameter_groups on CIFAR-10 "
            f"took the loss from {losses[0]:.2f} to {losses[-1]:.2f}."
        )


@pytest.mark.task("5.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    folder = check_dry_run(script, dry_run)
    numbers = json.loads((folder / "exercise_05.json").read_text("utf-8"))
    for accuracies in numbers["before_and_after_adaptation"].values():
        if not all(0 <= accuracy <= 1 for accuracy in accuracies):
            raise Wrong(
                f"python {script.name} --dry-run: "
                "an accuracy in exercise_05.json is not between 0 and 1."
            )


if __name__ == "__main__":  # by the Run button of an editor
    raise SystemExit(pytest.main([__file__]))
