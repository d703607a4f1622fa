"""Exercise 5: torchvision's own ResNets, bit-identical buffers, a hook on the pooling, statistics by hand."""

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


# --- 5.1 ------------------------------------------------------------------------------------------------------------


@pytest.mark.task("5.1")
@pytest.mark.parametrize("block, width", [(BasicBlock, 512), (Bottleneck, 2048)], ids=["512 wide", "2048 wide"])
@pytest.mark.parametrize("classes", [2, 7])
def test_head_is_new_and_fits(lesson, block, width, classes):
    model = make_model(block)
    old, before = model.fc, body(model)
    call = f"replace_head(model, {classes})"
    with calling(call):
        got = lesson.replace_head(model, classes)
    if type(got) is ResNet and got is not model:
        raise Wrong(f"{call} returned another model, such as a copy. Change the model itself, and return it.")
    if got is not model:
        raise Wrong(f"{call} returned {said(got)}, expected the model itself. Does it end with return model?")
    check_same_body(before, model, call, "Only fc is to be replaced.")
    if model.fc is old:
        raise Wrong(f"{call} leaves the old model.fc in its place.")
    what = f"model(images) after {call}"
    try:
        with calling(what), torch.no_grad():
            logits = model.eval()(make_images(3))
    except Wrong as wrong:
        raise Wrong(f"{wrong}{advice(wrong_input(model.fc, width))}") from None
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
    if not any(p.any() for p in model.fc.parameters()):
        raise Wrong("replace_head(model, 3) gives a head of zeros. Leave it as nn.Linear initialises it.")


@pytest.mark.task("5.1")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_head_lies_where_the_model_does(lesson):
    model = make_model().cuda()
    with calling("replace_head(model, 3)"):
        lesson.replace_head(model, 3)
        model(make_images(2).cuda())


# --- 5.2 ------------------------------------------------------------------------------------------------------------


def frozen(lesson, block=BasicBlock):
    model = make_model(block)
    with calling("freeze_backbone(model)"):
        got = lesson.freeze_backbone(model)
    if got is not model:
        raise Wrong(
            f"freeze_backbone(model) returned {type(got).__name__}, expected the model. Does it end with return?"
        )
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


def make_batches(sizes=(5, 5, 2)):
    images, labels = make_images(sum(sizes)), torch.arange(sum(sizes)) % CLASSES
    return list(zip(images.split(sizes), labels.split(sizes)))


@pytest.mark.task("5.3")
@MODES
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_features_are_what_the_pooling_puts_out(lesson, block, training):
    model, batches = make_model(block, training), make_batches()
    expected = hooked_features(model, batches)
    before = copy.deepcopy(model.state_dict())
    what = "extract_features(model, batches)"
    with calling(what):
        got = lesson.extract_features(model, iter(batches))
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
        raise Wrong(f"{what} leaves the model in another mode.")
    if any(len(getattr(m, n)) for m in model.modules() for n in ("_forward_hooks", "_forward_pre_hooks")):
        raise Wrong(f"{what} leaves a hook on the model. Call remove() on its handle.")
    for name, value in tensors(model).items():
        if not equal(value, before[name]):
            raise Wrong(f"{what} changes {name}.")


def clusters(count=200, width=20, classes=4, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    centres = 1.2 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centres[labels] + spread * torch.randn(count, width, generator=generator), labels


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
    check_tensor(logits, torch.empty(len(features), classes), f"{call}, applied to its features,")
    return probe, call


def objective(probe, features, labels, penalty):
    with torch.no_grad():
        weight, logits = next(p for p in probe.parameters() if p.dim() == 2), probe(features)
        check_tensor(weight, weight, "the weight of what linear_probe returns")
        check_tensor(logits, logits, "what linear_probe returns, applied to its features,")
        return (F.cross_entropy(logits, labels) + penalty * weight.square().sum()).item()


def optimum(features, labels, classes, penalty):
    """The probe with the least value of the objective."""
    probe = nn.Linear(features.shape[1], classes).double()
    x, optimizer = (
        features.double(),
        torch.optim.LBFGS(probe.parameters(), max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe"),
    )

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(probe(x), labels) + penalty * probe.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return probe


@pytest.mark.task("5.3")
@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_probe_comes_near_the_minimum(lesson, penalty):
    features, labels = clusters(spread=1.5)
    probe, call = fit_probe(lesson, features, labels, 4, penalty=penalty)
    best = optimum(features, labels, 4, penalty)
    got, least = objective(probe, features, labels, penalty), objective(best, features.double(), labels, penalty)
    start = objective(nn.Linear(20, 4), features, labels, penalty)
    if got > least + 0.1 * (start - least):
        loss = objective(probe, features, labels, 0)
        cause = (
            "the penalty is left out, or too small: the cross-entropy alone is lower than where the sum is least"
            if loss < objective(best, features.double(), labels, 0)
            else "the training stops too soon"
        )
        raise Wrong(
            f"{call} with penalty={penalty}: cross-entropy plus penalty is {got:.4f}, it could be {least:.4f}.\n"
            f"The likeliest mistake: {cause}."
        )


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


def torn_stem(known):
    """What is wrong, in words, if the stem's parameters have different rates; else None."""
    stem = {got for i, got in known if i == 5}
    return "conv1 and bn1 are one part, the stem, and have one rate" if len(stem) > 1 else None


PARTS = ("fc", "layer4", "layer3", "layer2", "layer1", "stem")


@pytest.mark.task("5.4")
@pytest.mark.parametrize("lr, factor", [(0.1, 0.5), (0.02, 1.0), (1.0, 0.1)])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_every_parameter_has_one_rate(lesson, block, lr, factor):
    model = make_model(block)
    call = f"parameter_groups(model, {lr}, {factor})"
    with calling(call):
        groups = [{**group, "params": list(group["params"])} for group in lesson.parameter_groups(model, lr, factor)]
    rates = {}
    for group in groups:
        if "lr" not in group:
            raise Wrong(f'{call}: a group has no "lr".')
        group["lr"] = number(group["lr"], f'{call}: "lr" of a group')
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
                    or advice(torn_stem(known.values()))
                )
            )
    if rates:
        raise Wrong(f"{call}: {len(rates)} parameters in the groups are not the model's.")
    torch.optim.SGD(groups, lr=1.0)


# --- 5.5 ------------------------------------------------------------------------------------------------------------


def each_batch(model, batches):
    """For each batch norm: [(mean, variance) of what reaches it, for each batch], the model being in train mode."""
    model = copy.deepcopy(model).train()
    norms, found = norms_of(model), {}

    def add(norm, inputs):
        x = inputs[0].detach().transpose(0, 1).flatten(1)
        found.setdefault(norm, []).append((x.mean(dim=1), x.var(dim=1)))

    for norm in norms:
        norm.register_forward_pre_hook(add)
    with torch.no_grad():
        for images in batches:
            model(images)
    return [found[norm] for norm in norms]


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def by_hand(model, batches, weights=None):
    """For each batch norm the mean, or the weighted mean, over the batches of each batch's own mean and variance."""
    weights = torch.tensor(weights or [1.0] * len(batches))
    weights = (weights / weights.sum())[:, None]
    return [[(torch.stack(part) * weights).sum(dim=0) for part in zip(*of)] for of in each_batch(model, batches)]


def moving(model, batches, reset):
    """The statistics that a moving average with momentum 0.1 gives, from the old ones or from a reset."""
    found = []
    for norm, of in zip(norms_of(model), each_batch(model, batches)):
        mean = torch.zeros_like(norm.running_mean) if reset else norm.running_mean
        variance = torch.ones_like(mean) if reset else norm.running_var
        for new_mean, new_variance in of:
            mean, variance = 0.9 * mean + 0.1 * new_mean, 0.9 * variance + 0.1 * new_variance
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
        "after the reset the momentum is still 0.1; set it to None for the mean over all batches": lambda: moving(
            model, batches, reset=True
        ),
    }
    if len(batches) > 1:
        mistakes |= {
            "only the last batch counts; take the mean over all, by momentum None": lambda: by_hand(
                model, batches[-1:]
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
    norms, before = norms_of(model), norms_of(old)
    for norm, was, (mean, variance) in zip(norms, before, expected):
        if is_close(norm.running_mean, mean, 1e-3) and is_close(norm.running_var, variance, 1e-3):
            continue
        if equal(norm.running_mean, was.running_mean) or not norm.running_mean.any():
            raise Wrong(
                f"{what} leaves the running statistics as they were, or as reset. In eval mode they do not move."
            )
        part, got, right = "mean", norm.running_mean, mean
        if is_close(got, right, 1e-3):
            part, got, right = "variance", norm.running_var, variance
        raise Wrong(
            f"{what}: a running {part} starts with {rounded(got)}, expected {rounded(right)}."
            + likeliest(statistics_mistakes(old, batches), lambda known: same_statistics(norms, known))
        )
    for name, parameter in model.named_parameters():
        if not equal(parameter, dict(old.named_parameters())[name]):
            raise Wrong(f"{what} changes the parameter {name}. Only statistics may change.")
    if any(norm.momentum != was.momentum for norm, was in zip(norms, before)):
        raise Wrong(f"{what} leaves the momentum at {norms[0].momentum}. Put back what it was, {before[0].momentum}.")
    if any(module.training is not training for module in model.modules()):
        raise Wrong(f"{what} leaves the model in another mode.")
    if any(not equal(a, b) for a, b in zip(kept, batches)):
        raise Wrong(f"{what} changes the images that it is given.")


def rounded(tensor):
    return [round(value, 4) for value in tensor[:3].tolist()]


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
