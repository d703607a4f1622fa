"""Exercise 5: torchvision's own ResNets, bit-identical buffers, a hook on the pooling, statistics by hand."""

import contextlib
import copy
import functools
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import torchvision
from messages import Wrong, advice, calling, check_tensor, is_close, likeliest, number, plain, said, shape
from torch import equal, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

CLASSES = 5
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def make_model(block=BasicBlock, training=True, classes=CLASSES):
    """A torchvision ResNet of one block a stage, with random batch-norm weights and statistics."""
    torch.manual_seed(0)
    model = ResNet(block, [1, 1, 1, 1], num_classes=classes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(1 + 0.2 * torch.randn(module.weight.shape, generator=generator))
                module.running_mean.copy_(0.1 * torch.randn(module.weight.shape, generator=generator))
                module.running_var.copy_(1 + torch.rand(module.weight.shape, generator=generator))
    return model.train(training)


def make_images(count=12, seed=3):
    return torch.randn(count, 3, 32, 40, generator=torch.Generator().manual_seed(seed))


def tensors(model, what="model.state_dict()"):
    """All parameters and buffers of a model; they must be plain tensors, since others may call themselves equal."""
    found = model.state_dict()
    for name, value in found.items():
        check_tensor(value, value, f"{what}: {name}")
    return found


def body(model):
    """Everything of a model but fc: {name: tensor}, copied."""
    return {name: value.clone() for name, value in tensors(model).items() if not name.startswith("fc.")}


def check_same_body(before, model, what, advice):
    for name, value in body(model).items():
        if not equal(value, before[name]):
            raise Wrong(f"{what} changes {name}. {advice}")


def flags(model):
    """For each parameter whether it requires a gradient, for each module whether it is in train mode; not fc's."""
    found = {name: p.requires_grad for name, p in model.named_parameters()}
    found |= {name: module.training for name, module in model.named_modules()}
    return {name: value for name, value in found.items() if name.split(".")[0] != "fc"}


def check_flags(before, model, what):
    """Raise Wrong if what was frozen is not, or the other way round, or if a mode has changed."""
    for name, value in flags(model).items():
        if name in before and value != before[name]:
            if name in dict(model.named_parameters()):
                raise Wrong(
                    f"{what} changes requires_grad of {name}, which was {before[name]}. Leave it, or put it back."
                )
            modes = ("train", "eval") if before[name] else ("eval", "train")
            raise Wrong(f"{what} takes the model from {modes[0]} to {modes[1]} mode. Leave its mode, or put it back.")


def count_hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


# --- 5.1 ------------------------------------------------------------------------------------------------------------


@pytest.mark.task("5.1")
@pytest.mark.parametrize("block, width", [(BasicBlock, 512), (Bottleneck, 2048)], ids=["512 wide", "2048 wide"])
@pytest.mark.parametrize("classes", [2, 7])
def test_head_is_new_and_fits(lesson, block, width, classes):
    model = make_model(block)
    model.layer1.requires_grad_(False)
    old, before, kept = model.fc, body(model), flags(model)
    call = f"replace_head(model, {classes})"
    with calling(call):
        got = lesson.replace_head(model, classes)
    if type(got) is ResNet and got is not model:
        raise Wrong(f"{call} returned another model, such as a copy. Change the model itself, and return it.")
    if got is not model:
        raise Wrong(f"{call} returned {said(got)}, expected the model itself. Does it end with return model?")
    check_names(before, model, call)
    if model.fc is old:
        raise Wrong(f"{call} leaves the old model.fc in its place.")
    check_flags(kept, model, call)
    what = f"model(images) after {call}"
    try:
        with calling(what), torch.no_grad():
            logits = model.eval()(make_images(3))
    except Wrong as wrong:
        raise Wrong(f"{wrong}{advice(wrong_input(model.fc, width))}") from None
    check_same_body(before, model, call, "Only fc is to be replaced.")
    check_tensor(logits, torch.empty(3, classes), what)
    sizes = {tuple(p.shape) for p in model.fc.parameters()}
    if any(layer is old for layer in model.fc.modules()):
        raise Wrong(f"{call} keeps the old layer and puts another behind it. Put a new one in its place.")
    if sizes == {(classes, width)}:
        raise Wrong(f"{call}: fc has no bias. Leave bias at its default, True.")
    if sizes != {(classes, width), (classes,)}:
        raise Wrong(f"{call}: fc has parameters of the shapes {sizes}, expected ({classes}, {width}) and ({classes},).")
    if is_close(logits.exp().sum(1), torch.ones(3), 1e-4) or is_close(logits.sum(1), torch.ones(3), 1e-4):
        raise Wrong(f"{what} gives probabilities; the head gives logits, without softmax.")
    weight, bias = sorted(model.fc.parameters(), key=torch.Tensor.dim, reverse=True)
    if (weight[:, None] == old.weight).all(dim=2).any():
        raise Wrong(f"{call} copies weights of the old head into the new one. They know the old classes; leave them.")
    features = torch.randn(50, width, generator=torch.Generator().manual_seed(2))
    for training in (True, False):
        with calling(what), torch.no_grad():
            logits = model.fc.train(training)(features)
        if not is_close(logits, F.linear(features, weight, bias), 1e-4):
            raise Wrong(
                f"{call}: in {'train' if training else 'eval'} mode fc gives something else than its input times its "
                "weights plus its bias. The head is one linear layer, without activation or dropout."
            )


def check_names(before, model, call):
    """Raise Wrong if the model has other parts than before."""
    names = {name for name in model.state_dict() if not name.startswith("fc.")}
    added, gone = [sorted({name.split(".")[0] for name in some}) for some in (names - set(before), set(before) - names)]
    if added:
        raise Wrong(f"{call} gives the model a new part, {', '.join(added)}. torchvision's name for the head is fc.")
    if gone:
        raise Wrong(f"{call} takes {', '.join(gone)} away from the model, or parts of it. Only fc is to be replaced.")


def wrong_input(head, width):
    """What is wrong with the number of features that a head takes, in words, or None."""
    taken = next((p.shape[1] for p in head.parameters() if p.dim() == 2), width)
    if taken == width:
        return None
    more = ", which is what the old one puts out" if taken == CLASSES else ""
    return f"the new layer takes {taken} features{more}; it should take what the old one takes, {width} here"


@pytest.mark.task("5.1")
def test_head_learns_even_if_the_model_was_frozen(lesson):
    model = make_model().requires_grad_(False)
    with calling("replace_head(model, 3)"):
        lesson.replace_head(model, 3)
    if not all(p.requires_grad for p in model.fc.parameters()):
        raise Wrong(
            "replace_head(model, 3) on a frozen model gives a head that requires no gradient. Make a new layer."
        )
    with calling("model(images) after replace_head(model, 3)"), torch.no_grad():
        model.eval()(make_images(2))
    if not any(p.any() for p in model.fc.parameters()):
        raise Wrong("replace_head(model, 3) gives a head of zeros. Leave it as nn.Linear initialises it.")


@pytest.mark.task("5.1")
def test_head_lies_where_the_model_does(lesson):
    model = make_model().to("meta")
    with calling('replace_head(model, 3) of a model on the device "meta"'):
        lesson.replace_head(model, 3)
    for parameter in model.fc.parameters():
        if parameter.device.type != "meta":
            raise Wrong(
                'replace_head(model, 3) of a model on another device, torch\'s "meta" here, gives a head on '
                f"{parameter.device}. Make it on the device of the old head's weight."
            )


@pytest.mark.task("5.1")
def test_every_head_is_drawn_anew(lesson):
    heads = []
    for seed in (1, 2):
        model = make_model().eval()
        torch.manual_seed(seed)
        with calling("replace_head(model, 3)"), torch.no_grad():
            heads.append(lesson.replace_head(model, 3)(make_images(2)))
    if equal(*heads):
        raise Wrong("replace_head(model, 3) gives the same head whatever torch's seed is. Does it set the seed itself?")


# --- 5.2 ------------------------------------------------------------------------------------------------------------


def frozen(lesson, block=BasicBlock):
    model = make_model(block)
    with calling("freeze_backbone(model)"):
        got = lesson.freeze_backbone(model)
    if type(got) is ResNet and got is not model:
        raise Wrong(
            "freeze_backbone(model) returned another model, such as a copy. Change the model itself, return it."
        )
    if got is not model:
        raise Wrong(f"freeze_backbone(model) returned {said(got)}, expected the model. Does it end with return?")
    with calling("model.train() after freeze_backbone(model)"):
        if model.train(model.training) is not model:
            raise Wrong("after freeze_backbone(model), model.train() does not return the model, as it must.")
    return model


def three_steps(model):
    """Three training steps as people write them, model.train() first, with momentum and weight decay."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad] or list(model.parameters())
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=0.1)
    for seed in range(3):
        loss = F.cross_entropy(model(3 + 2 * make_images(8, seed)), torch.arange(8) % CLASSES)
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            optimizer.step()


@pytest.mark.task("5.2")
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_only_the_head_requires_gradients(lesson, block):
    model = frozen(lesson, block)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith("fc."):
            raise Wrong(f"after freeze_backbone(model), {name} still requires a gradient.")
        if not parameter.requires_grad and name.startswith("fc."):
            raise Wrong(f"after freeze_backbone(model), {name} requires no gradient. The head is to be trained.")


@pytest.mark.task("5.2")
def test_a_frozen_head_is_thawed(lesson):
    model = make_model().requires_grad_(False)
    with calling("freeze_backbone(model)"):
        lesson.freeze_backbone(model)
    if not all(p.requires_grad for p in model.fc.parameters()):
        raise Wrong("freeze_backbone of a model that was frozen altogether leaves fc frozen. Let fc require gradients.")


@pytest.mark.task("5.2")
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_three_steps_change_the_head_and_not_one_bit_else(lesson, block):
    model = frozen(lesson, block)
    before, head = body(model), model.fc.weight.detach().clone()
    with calling("training after freeze_backbone(model)"):
        three_steps(model)
    for name, value in body(model).items():
        if equal(value, before[name]):
            continue
        if "running" in name or "num_batches" in name:
            raise Wrong(
                f"after freeze_backbone(model), model.train() and three steps, {name} has moved.\n"
                "The likeliest mistake: batch norms are in train mode again. model.train() wakes them: it calls "
                "train() on every part of the model."
            )
        raise Wrong(f"after freeze_backbone(model) and three steps, {name} has changed. It should require no gradient.")
    if equal(head, model.fc.weight):
        raise Wrong("after freeze_backbone(model) and three steps, fc has not changed. The head is to be trained.")


@pytest.mark.task("5.2")
def test_a_frozen_backbone_computes_the_same_in_train_mode(lesson):
    model, images = frozen(lesson), make_images()
    expected = make_model().eval()
    with torch.no_grad(), calling("model(images) after freeze_backbone(model)"):
        logits = [model.train()(images), model.eval()(images)]
        right = expected(images)
    for got, mode in zip(logits, ("train", "eval")):
        check_tensor(got, right, f"model(images) after freeze_backbone(model), in {mode} mode,")
        if not is_close(got, right, 1e-4):
            raise Wrong(
                f"after freeze_backbone(model), in {mode} mode, the model gives other logits than before in eval mode. "
                "Its batch norms should use their running statistics in either mode, and nothing else may change."
            )


@pytest.mark.task("5.2")
def test_freezing_twice_is_freezing_once(lesson):
    model = frozen(lesson)
    with calling("freeze_backbone(model), a second time,"):
        lesson.freeze_backbone(model)
        model.train(), model.eval(), model.train()
    before = body(model)
    three_steps(model)
    check_same_body(before, model, "training after freeze_backbone(model), called twice,", "It should stay frozen.")


# --- 5.3 ------------------------------------------------------------------------------------------------------------


def hooked_features(model, batches):
    """What the pooling layer puts out, by a hook on a copy."""
    model, caught = copy.deepcopy(model).eval(), []
    model.avgpool.register_forward_hook(lambda layer, inputs, output: caught.append(output.flatten(1)))
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    return torch.cat(caught)


def make_batches(sizes=(5, 6, 1)):
    images, labels = make_images(sum(sizes)), torch.arange(sum(sizes)) % CLASSES
    return list(zip(images.split(sizes), labels.split(sizes)))


@pytest.mark.task("5.3")
@MODES
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_features_are_what_the_pooling_puts_out(lesson, block, training):
    model, batches = make_model(block, training), make_batches()
    expected = hooked_features(model, batches)
    model.layer1.requires_grad_(False)
    before, kept, twin = copy.deepcopy(model.state_dict()), flags(model), copy.deepcopy(model).eval()
    head_learns = [p.requires_grad for p in model.fc.parameters()]
    what = f"extract_features(model, batches of {', '.join(str(len(labels)) for _, labels in batches)})"
    try:
        with gradients_stay_on(what), calling(what):
            got = lesson.extract_features(model, iter(batches))
    except Wrong as wrong:
        squeezed = "squeeze() takes away the first dimension, too, of a batch of one picture; use flatten(1)"
        raise Wrong(f"{wrong}{advice(squeezed if 'number of dimensions' in str(wrong) else None)}") from None
    if len(plain(got, what, tuple, list)) != 2:
        raise Wrong(f"{what} returned {len(got)} things, expected (features, labels).")
    features, labels = got
    if isinstance(features, torch.Tensor) and features.dim() == 4 and features.shape[2:] == (1, 1):
        raise Wrong(f"{what}: the features have the shape {shape(features)}. Flatten them to (count, width).")
    size = tuple(features.shape) if type(features) is torch.Tensor else ()
    if size == (len(expected), CLASSES):
        raise Wrong(f"{what}: the features are the logits, what fc puts out. Take what reaches it.")
    if len(size) > 1 and size[0] == len(expected) and features[0].numel() > expected[0].numel():
        raise Wrong(
            f"{what}: the features have the shape {size}; they are from before the pooling. Take what follows it."
        )
    check_tensor(features, expected, f"{what}: the features")
    if features.requires_grad:
        raise Wrong(f"{what}: the features carry a graph. Compute them under torch.no_grad().")
    for name, tensor, kind in (("features", features, torch.float32), ("labels", labels, torch.int64)):
        if type(tensor) is torch.Tensor and tensor.dtype != kind:
            raise Wrong(f"{what}: the {name} are {tensor.dtype}, expected {kind}. Take them as they are.")
        if type(tensor) is torch.Tensor and tensor.is_inference():
            raise Wrong(
                f"{what}: the {name} are made in torch.inference_mode(), and nothing can be trained on them. Use "
                "torch.no_grad()."
            )
    if not is_close(features, expected, 1e-4):
        twin = copy.deepcopy(model).train()
        twin.fc = nn.Identity()
        mistakes = {
            "the model is in train mode": torch.cat([twin(images) for images, _ in batches]).detach(),
            "the features are normalised; take them as they are": F.normalize(expected),
        }
        cause = likeliest(mistakes, lambda known: is_close(features, known, 1e-3))
        raise Wrong(f"{what}: the features are not what the pooling layer puts out in eval mode.{cause}")
    if type(labels) is not torch.Tensor:
        raise Wrong(f"{what}: the labels are {said(labels)}, expected a tensor.")
    if not equal(torch.as_tensor(labels), torch.cat([labels for _, labels in batches])):
        raise Wrong(f"{what}: the labels are {labels}, expected those of the batches, in order.")
    if not isinstance(model.fc, nn.Linear):
        raise Wrong(f"{what} leaves a {type(model.fc).__name__} in the place of model.fc. Put fc back.")
    if any(module.training is not training for module in model.modules()):
        raise Wrong(f"{what} leaves the model in another mode. Remember model.training first, and put it back.")
    if count_hooks(model):
        raise Wrong(f"{what} leaves a hook on the model. Call remove() on its handle.")
    for name, value in tensors(model).items():
        if not equal(value, before[name]):
            raise Wrong(f"{what} changes {name}.")
    check_flags(kept, model, what)
    if head_learns != [p.requires_grad for p in model.fc.parameters()]:
        raise Wrong(f"{what} changes requires_grad of fc. Leave it, or put it back.")
    with calling(f"model(images) after {what}"), torch.no_grad():
        logits, right = model.eval()(batches[0][0]), twin(batches[0][0])
    check_tensor(logits, right, f"model(images) after {what}", " Put fc's own forward back.")
    if not is_close(logits, right):
        raise Wrong(f"after {what} the model gives other logits than before. Put back what you changed.")


@contextlib.contextmanager
def gradients_stay_on(what):
    """Raise Wrong if the learner's code switches gradients off and not on again."""
    try:
        yield
        if not torch.is_grad_enabled():
            raise Wrong(f"{what} leaves gradients switched off for all that follows. Use with torch.no_grad():")
    finally:
        torch.set_grad_enabled(True)


def clusters(count=200, width=20, classes=4, seed=0, spread=1.0, mislabelled=0.0):
    """Features in clusters, and labels, a share of which is drawn by lot."""
    generator = torch.Generator().manual_seed(seed)
    centres = 1.2 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    features = centres[labels] + spread * torch.randn(count, width, generator=generator)
    lots = torch.rand(count, generator=generator) < mislabelled
    return features, torch.where(lots, torch.randint(classes, (count,), generator=generator), labels)


def fit_probe(lesson, features, labels, classes, **more):
    kept = features.clone()
    call = f"linear_probe(features {shape(features)}, labels, {classes})"
    with calling(call):
        probe = lesson.linear_probe(features, labels, classes, **more)
    if not isinstance(probe, nn.Module):
        raise Wrong(f"{call} returned {type(probe).__name__}, expected an nn.Linear.")
    if not equal(kept, features):
        raise Wrong(f"{call} changes the features that it is given.")
    with calling(f"{call}, applied to features,"), torch.no_grad():
        logits = probe(features)
    hint = " Not every class is among the labels: take num_classes." if labels.max() + 1 < classes else ""
    check_tensor(logits, torch.empty(len(features), classes), f"{call}, applied to its features,", hint)
    return probe, call


def objective(probe, features, labels, penalty):
    with torch.no_grad():
        weight, logits = next(p for p in probe.parameters() if p.dim() == 2), probe(features)
        check_tensor(weight, weight, "the weight of what linear_probe returns")
        check_tensor(logits, logits, "what linear_probe returns, applied to its features,")
        return (F.cross_entropy(logits, labels) + penalty * weight.square().sum()).item()


def squares(weight, bias):
    return weight.square().sum()


def optimum(features, labels, classes, penalty, measure=squares, loss=F.cross_entropy, bias=True):
    """The probe with the least value of the objective, or of another one."""
    probe, x = nn.Linear(features.shape[1], classes, bias=bias).double(), features.double()
    with torch.no_grad():
        probe.weight.mul_(0.1)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def value():
        optimizer.zero_grad()
        result = loss(probe(x), labels) + penalty * measure(probe.weight, probe.bias)
        result.backward()
        return result

    optimizer.step(value)
    return probe


def probe_mistakes(features, labels, classes, penalty):
    """The probes that the known wrong ways lead to: {the mistake: a function that makes the probe}."""
    least = functools.partial(optimum, features, labels, classes)
    deviation, mean = torch.std_mean(features, dim=0)

    def with_bias(weight, bias):
        return weight.square().sum() + bias.square().sum()

    def ridge(logits, labels):
        return F.mse_loss(logits, F.one_hot(labels, classes).double())

    half = "the penalty is half as large: an optimiser's weight_decay stands for half of its square; double it"
    return {
        "the penalty is left out": lambda: least(0.0),
        half: lambda: least(penalty / 2),
        f"{half}, and leave the bias out": lambda: least(penalty / 2, with_bias),
        "the penalty is twice as large": lambda: least(2 * penalty),
        "the bias is in the penalty, too; it is for the weights only": lambda: least(penalty, with_bias),
        "the penalty is on the mean of the squares; sum them": lambda: least(
            penalty, lambda weight, bias: weight.square().mean()
        ),
        "the penalty is on the norm of the weights; sum their squares": lambda: least(
            penalty, lambda weight, bias: weight.norm()
        ),
        "the penalty is on the weights' absolute values; sum their squares": lambda: least(
            penalty, lambda weight, bias: (weight.square() + 1e-6).sqrt().sum()
        ),
        "the cross-entropy is summed over the pictures; take its mean": lambda: least(penalty / len(labels)),
        "softmax is applied before cross_entropy, which applies it itself": lambda: least(
            penalty, loss=lambda logits, labels: F.cross_entropy(logits.softmax(dim=1), labels)
        ),
        "it minimises squared errors, not the cross-entropy": lambda: least(penalty, loss=ridge),
        "it is trained on standardised features, and given others": lambda: optimum(
            (features - mean) / deviation, labels, classes, penalty
        ),
    }


def likeliest_probe(probe, features, mistakes):
    """A sentence that names the mistake whose probe is the nearest, up to what all logits have in common."""

    def centred(layer):
        logits = layer(features.to(next(layer.parameters()).dtype)).double()
        return (logits - logits.mean(dim=1, keepdim=True)).detach()

    got = centred(probe)
    far = {words: ((got - centred(make())).norm() / got.norm()).item() for words, make in mistakes.items()}
    cause = min(far, key=far.get)
    if far[cause] < 0.1:
        return advice(cause)
    return (
        "\nIt minimises something else, or the training stops too soon, or its steps do not lead to the minimum: the "
        "rate is too large, or gradients are never cleared."
    )


@pytest.mark.task("5.3")
@pytest.mark.parametrize("penalty, share", [(1e-3, 0.1), (0.1, 0.007)])
def test_probe_comes_near_the_minimum(lesson, penalty, share):
    features, labels = clusters(spread=1.5, mislabelled=0.2)
    probe, call = fit_probe(lesson, features, labels, 4, penalty=penalty)
    if all(p.dim() == 2 for p in probe.parameters()):
        raise Wrong(f"{call} has no bias. Leave bias at its default, True.")
    best = optimum(features, labels, 4, penalty)
    got, least = objective(probe, features, labels, penalty), objective(best, features.double(), labels, penalty)
    torch.manual_seed(0)
    start = objective(nn.Linear(20, 4), features, labels, penalty)
    if not got <= least + share * (start - least):
        raise Wrong(
            f"{call} with penalty={penalty}: cross-entropy plus penalty is {got:.4f}, it could be {least:.4f}."
            + likeliest_probe(probe, features, probe_mistakes(features, labels, 4, penalty))
        )


@pytest.mark.task("5.3")
def test_probe_has_an_output_for_each_class(lesson):
    fit_probe(lesson, *clusters(40), 6)


@pytest.mark.task("5.3")
def test_probe_tells_clusters_apart(lesson):
    features, labels = clusters(40)
    probe, call = fit_probe(lesson, features, labels, 4)
    others, truth = clusters(400, seed=7)
    with torch.no_grad():
        share = (probe(others).argmax(1) == truth).float().mean().item()
    if share < 0.9:
        raise Wrong(
            f"{call}: on new features of four well-separated clusters it gets {share:.0%} right, expected 90 %."
        )


@pytest.mark.task("5.3")
def test_probe_leaves_no_graph_behind(lesson):
    features, labels = clusters(30)
    features.requires_grad_()
    with calling("linear_probe(features, labels, 4)"):
        lesson.linear_probe(features.detach(), labels, 4)
    if features.grad is not None:
        raise Wrong("linear_probe trains the features. Only the probe's parameters belong to the optimiser.")


# --- 5.4 ------------------------------------------------------------------------------------------------------------


def rate_mistakes(lr, factor):
    """The known wrong ways: the rates of the six parts, from the head backwards."""
    ways = {
        "the order is turned round; the head learns fastest": lambda i: lr * factor ** (5 - i),
        "factor is multiplied by the part's number; raise it to that power, factor**i": lambda i: lr * factor * i,
        "factor is multiplied by the part's number, from 1; raise it to that power, from 0": lambda i: (
            lr * factor * (i + 1)
        ),
        "the rates fall in equal steps; multiply by factor each time, factor**i": lambda i: lr * (1 - i * (1 - factor)),
        "the factor is applied once too often: fc itself learns at lr": lambda i: lr * factor ** (i + 1),
        "there are only two rates, the head's and one for the rest; each part before has its own": lambda i: (
            lr * factor ** min(i, 1)
        ),
        "every part has the same rate": lambda i: lr,
        "it divides by factor, so earlier parts learn faster": lambda i: lr / factor**i,
    }
    return {words: [way(i) for i in range(6)] for words, way in ways.items()}


def same_rates(known, rates):
    """Whether all parameters have these rates; known are (number of the part, rate or None)."""
    return all(got is None or abs(got - rates[i]) <= 1e-9 + 1e-6 * abs(rates[i]) for i, got in known)


def other_stem(known, rates):
    """What is wrong, in words, with the limits of the stem; else None. known: {name: (number of the part, rate)}."""
    if same_rates([(i, got) for i, got in known.values() if i < 5], rates):
        stem = {got for i, got in known.values() if i == 5}
        return "conv1 and bn1 are one part, the stem, and have one rate" if len(stem) > 1 else None
    blocks = [(5 if "conv1" in name or "bn1" in name else i, got) for name, (i, got) in known.items()]
    norms = [(5 if name.startswith("conv1") or "bn1" in name else i, got) for name, (i, got) in known.items()]
    if same_rates(blocks, rates) or same_rates(norms, rates):
        return "the blocks have a conv1 and a bn1 of their own; the stem's are model.conv1 and model.bn1"
    return None


PARTS = ("fc", "layer4", "layer3", "layer2", "layer1", "stem")


def groups_of(lesson, model, lr, factor, call):
    """The groups that the learner returned, each as torch's optimisers read it."""
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
            groups.append({**torch.optim.SGD([dict(group)], lr=1.0).param_groups[0], "lr": rate})
    return groups


@pytest.mark.task("5.4")
@pytest.mark.parametrize("lr, factor", [(0.1, 0.5), (0.02, 1.0), (1.0, 0.1)])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_every_parameter_has_one_rate(lesson, block, lr, factor):
    model = make_model(block)
    call = f"parameter_groups(model, {lr}, {factor})"
    rates = {}
    for group in groups_of(lesson, model, lr, factor, call):
        for parameter in group["params"]:
            if id(parameter) in rates:
                raise Wrong(f"{call}: a parameter of the shape {shape(parameter)} is in two groups.")
            rates[id(parameter)] = group["lr"]
    known = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        part = "stem" if part in ("conv1", "bn1") else part
        known[name] = (PARTS.index(part), rates.get(id(parameter)))
    for name, parameter in model.named_parameters():
        part = PARTS[known[name][0]]
        expected = lr * factor ** PARTS.index(part)
        got = rates.pop(id(parameter), None)
        if got is None:
            raise Wrong(f"{call}: {name} is in no group, so it is never trained.")
        if abs(got - expected) > 1e-9 + 1e-6 * expected:
            raise Wrong(
                f"{call}: {name}, which belongs to {part}, has the rate {got:.6g}, expected {expected:.6g}."
                + (
                    likeliest(rate_mistakes(lr, factor), functools.partial(same_rates, known.values()))
                    or advice(other_stem(known, [lr * factor**i for i in range(6)]))
                )
            )
    if rates:
        raise Wrong(f"{call}: {len(rates)} parameters in the groups are not the model's.")


@pytest.mark.task("5.4")
def test_frozen_parameters_are_in_groups_and_stay_frozen(lesson):
    model, call = make_model(), "parameter_groups(model, 0.1, 0.5) of a model of which layer1 is frozen"
    model.layer1.requires_grad_(False)
    kept = flags(model)
    groups = groups_of(lesson, model, 0.1, 0.5, call)
    check_flags(kept, model, call)
    found = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) not in found:
            raise Wrong(f"{call}: {name} is in no group. Every parameter belongs in one, frozen or not.")


# --- 5.5 ------------------------------------------------------------------------------------------------------------


def variance(x):
    return x.var(dim=1)


def each_batch(model, batches, spread=variance, training=True):
    """For each batch norm: [(mean, variance) of what reaches it, for each batch], the model being in train mode."""
    model = copy.deepcopy(model).train(training)
    norms, found = norms_of(model), {}

    def add(norm, inputs):
        x = inputs[0].detach().transpose(0, 1).flatten(1)
        found.setdefault(norm, []).append((x.mean(dim=1), spread(x)))

    for norm in norms:
        norm.register_forward_pre_hook(add)
    with torch.no_grad():
        for images in batches:
            model(images)
    return [found[norm] for norm in norms]


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def by_hand(model, batches, weights=None, **how):
    """For each batch norm the mean, or the weighted mean, over the batches of each batch's own mean and variance."""
    weights = torch.tensor(weights or [1.0] * len(batches))
    weights = (weights / weights.sum())[:, None]
    return [[(torch.stack(part) * weights).sum(dim=0) for part in zip(*of)] for of in each_batch(model, batches, **how)]


def moving(model, batches, reset, rate=0.1):
    """The statistics that a moving average with some momentum gives, from the old ones or from a reset."""
    found = []
    for norm, of in zip(norms_of(model), each_batch(model, batches)):
        mean = torch.zeros_like(norm.running_mean) if reset else norm.running_mean
        variance = torch.ones_like(mean) if reset else norm.running_var
        for new_mean, new_variance in of:
            mean, variance = mean.lerp(new_mean, rate), variance.lerp(new_variance, rate)
        found.append([mean, variance])
    return found


def same_statistics(norms, known):
    """Whether batch norms hold these statistics."""
    return all(
        is_close(norm.running_mean, mean, 1e-3) and is_close(norm.running_var, variance, 1e-3)
        for norm, (mean, variance) in zip(norms, known)
    )


def statistics_mistakes(model, batches):
    """What the known wrong ways give for adapt_batchnorm."""
    sizes = [float(len(images)) for images in batches]
    mistakes = {
        "it is a moving average that still holds part of the old statistics: reset them, and set momentum to None": (
            lambda: moving(model, batches, reset=False)
        ),
        "the variance divides by the count n; batch norm's running variance divides by n - 1": lambda: by_hand(
            model, batches, spread=lambda x: x.var(dim=1, correction=0)
        ),
        "it is the standard deviation; take its square, the variance": lambda: by_hand(
            model, batches, spread=lambda x: x.std(dim=1)
        ),
        "the numbers are those that reach a batch norm in eval mode; run the batches in train mode": lambda: by_hand(
            model, batches, training=False
        ),
        "only batch norms among model.children() are adapted; model.modules() has those in blocks, too": lambda: (
            by_hand(model, batches)[:1] + moving(model, batches, reset=False)[1:]
        ),
        "after the reset the momentum is still 0.1; set it to None for the mean over all batches": lambda: moving(
            model, batches, reset=True
        ),
    }
    if len(batches) > 1:
        mistakes |= {
            "only the last batch counts; take the mean over all, by momentum None": lambda: by_hand(
                model, batches[-1:]
            ),
            "the momentum is 1/n from the first of the n batches on, which is no mean; set it to None": lambda: moving(
                model, batches, reset=True, rate=1 / len(batches)
            ),
            "only the first batch counts; take the mean over all": lambda: by_hand(model, batches[:1]),
            "all batches are put together to one; run them one by one": lambda: by_hand(model, [torch.cat(batches)]),
        }
    if len(set(sizes)) > 1:
        mistakes["larger batches count for more; every batch counts alike"] = lambda: by_hand(model, batches, sizes)
    return mistakes


@pytest.mark.task("5.5")
@MODES
@pytest.mark.parametrize("sizes", [(6, 4, 2), (4, 4, 4), (12,)], ids=["uneven", "three", "one batch"])
def test_statistics_are_the_means_over_the_batches(lesson, sizes, training):
    model, batches = make_model(training=training), list((5 + 2 * make_images()).split(sizes))
    expected, old = by_hand(model, batches), copy.deepcopy(model)
    what = f"adapt_batchnorm(model, batches of {', '.join(map(str, sizes))})"
    kept = [images.clone() for images in batches]
    with calling(what):
        got = lesson.adapt_batchnorm(model, iter(batches))
    if got is not model:
        raise Wrong(f"{what} returned {said(got)}, expected the model itself. Does it end with return model?")
    tensors(model)
    for name, parameter in model.named_parameters():
        if not equal(parameter, dict(old.named_parameters())[name]):
            fresh = equal(parameter, torch.full_like(parameter, float(name.endswith("weight"))))
            cause = "reset_parameters() resets weight and bias, too; reset_running_stats() the statistics only"
            raise Wrong(
                f"{what} changes the parameter {name}. Only statistics may change.{advice(cause if fresh else None)}"
            )
    norms, before = norms_of(model), norms_of(old)
    for norm, was, (mean, variance) in zip(norms, before, expected):
        if is_close(norm.running_mean, mean, 1e-3) and is_close(norm.running_var, variance, 1e-3):
            continue
        if equal(norm.running_mean, was.running_mean) or not norm.running_mean.any():
            raise Wrong(
                f"{what} leaves the running statistics as they were, or as reset. In eval mode they do not move; nor "
                "if batches, which can be gone through only once, is used up before."
            )
        part, got, right = "mean", norm.running_mean, mean
        if is_close(got, right, 1e-3):
            part, got, right = "variance", norm.running_var, variance
        raise Wrong(
            f"{what}: a running {part} starts with {rounded(got)}, expected {rounded(right)}."
            + likeliest(statistics_mistakes(old, batches), lambda known: same_statistics(norms, known))
        )
    if any(norm.momentum != was.momentum for norm, was in zip(norms, before)):
        raise Wrong(f"{what} leaves the momentum at {norms[0].momentum}. Put back what it was, {before[0].momentum}.")
    if any(module.training is not training for module in model.modules()):
        raise Wrong(f"{what} leaves the model in another mode. Remember model.training first, and put it back.")
    if any(not equal(a, b) for a, b in zip(kept, batches)):
        raise Wrong(f"{what} changes the images that it is given.")


def rounded(tensor):
    return [round(value, 4) for value in tensor[:3].tolist()]


@pytest.mark.task("5.5")
def test_adaptation_puts_back_each_momentum_and_leaves_all_else(lesson):
    model, what = make_model(), "adapt_batchnorm(model, batches)"
    model.layer1.requires_grad_(False)
    momenta = [0.03, None, 0.2] + [0.1] * (len(norms_of(model)) - 3)
    for norm, momentum in zip(norms_of(model), momenta):
        norm.momentum = momentum
    kept, head = flags(model), [p.requires_grad for p in model.fc.parameters()]
    with gradients_stay_on(what), calling(what):
        lesson.adapt_batchnorm(model, [make_images(4)])
    after = [norm.momentum for norm in norms_of(model)]
    if after != momenta:
        raise Wrong(f"{what} leaves momenta of {after[:3]} where they were {momenta[:3]}. Keep each batch norm's own.")
    check_flags(kept, model, what)
    if head != [p.requires_grad for p in model.fc.parameters()]:
        raise Wrong(f"{what} changes requires_grad of fc. Leave it, or put it back.")
    if count_hooks(model):
        raise Wrong(f"{what} leaves {count_hooks(model)} hooks on the model. Call remove() on each handle.")


@pytest.mark.task("5.5")
def test_adaptation_needs_no_gradients(lesson):
    model = make_model()
    with calling("adapt_batchnorm(model, batches)"):
        lesson.adapt_batchnorm(model, [make_images(4)])
    if any(p.grad is not None for p in model.parameters()):
        raise Wrong("adapt_batchnorm(model, batches) computes gradients. It only needs forward passes.")


@pytest.mark.task("5.5")
def test_adaptation_forgets_what_was_before(lesson):
    batches = [make_images(6, seed) for seed in range(2)]
    first, second = make_model(), make_model()
    with calling("adapt_batchnorm(model, batches), twice,"):
        lesson.adapt_batchnorm(first, batches)
        lesson.adapt_batchnorm(second, [100 + make_images(6, 9)])
        lesson.adapt_batchnorm(second, batches)
    tensors(first), tensors(second)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        if "running" in name and not is_close(b, a, 1e-3):
            raise Wrong(
                f"adapt_batchnorm: {name} depends on what the model was adapted to before. Reset the statistics."
            )


# --- the whole ------------------------------------------------------------------------------------------------------


@pytest.mark.task("5.4")
@pytest.mark.timeout(90)
def test_fine_tuning_learns_cifar10(lesson, cifar10_dir):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args = SimpleNamespace(
        data="cifar10", data_dir=cifar10_dir, train_images=64, test_images=64, device=device, epochs=1
    )
    data = lesson.load_data(args)
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).to(device)
    with calling("parameter_groups(model, 0.002, 0.6)"):
        optimizer = torch.optim.AdamW(lesson.parameter_groups(model, 0.002, 0.6))
    images, labels, losses = lesson.normalise(data.train_images, data), data.train_labels, []
    for _ in range(8):
        losses.append(F.cross_entropy(model(images), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    if not losses[-1] < 0.7 * losses[0]:
        raise Wrong(
            f"eight steps with parameter_groups on CIFAR-10 took the loss from {losses[0]:.2f} to {losses[-1]:.2f}."
        )


@pytest.mark.task("5.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    folder = dry_run.finish()
    for name in ("exercise_05.json", "exercise_05.png"):
        if not (folder / name).is_file():
            raise Wrong(f"python {script.name} --dry-run wrote no {name}")
    found = json.loads((folder / "exercise_05.json").read_text("utf-8"))
    shares = list(itertools.chain(*found["before_and_after_adaptation"].values()))
    if not all(0 <= share <= 1 for share in shares):
        raise Wrong(f"python {script.name} --dry-run: an accuracy in exercise_05.json is not between 0 and 1.")
