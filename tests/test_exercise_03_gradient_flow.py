"""Exercise 3: autograd on copies of the learner's networks, exact series, a linear network, a training by hand."""

import contextlib
import copy
import functools
import math
from types import SimpleNamespace

import numpy
import pytest
import torch
import torch.nn.functional as F
from messages import Wrong, advice, calling, likeliest, number, numbers, said
from torch import allclose, equal, nn

COUNT = 6
KINDS = pytest.mark.parametrize(
    "skip, batch_norm",
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["plain", "plain with batch norm", "residual", "residual with batch norm"],
)
START = pytest.mark.parametrize("training", [True, False], ids=["from train mode", "from eval mode"])


def make_batch(size=8, seed=0):
    """Normalised pictures of odd width, and labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(COUNT, 3, size, size + 1, generator=generator)
    return images, torch.randint(10, (COUNT,), generator=generator)


def make_network(lesson, skip=True, batch_norm=True, training=True):
    """A network of the learner's file with random batch-norm weights and statistics."""
    torch.manual_seed(0)
    with calling("build_network(14, ...), which is given"):
        network = lesson.build_network(14, skip, batch_norm, width=4)
    return randomised(network).train(training)


class Mixed(nn.Module):
    """A network of none of the course's forms: nested, with biases, grouped and strided convolutions, two heads."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1, groups=2)])
        self.last = nn.Sequential(nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.Dropout(0.0), nn.BatchNorm2d(6))
        self.linear = nn.Linear(6, 10)

    def forward(self, x):
        for layer in self.inner:
            x = layer(x).relu()
        return self.linear(self.last(x).relu().mean((2, 3)))


def randomised(network):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, least in ((module.weight, 1), (module.bias, 0), (module.running_mean, -0.15)):
                    tensor.copy_(least + 0.3 * torch.rand(tensor.shape, generator=generator))
                module.running_var.copy_(2 + torch.rand(module.running_var.shape, generator=generator))
    return network


def shrunk(network, factor=1e-25):
    """The network with a head so small that its gradients are as tiny as a deep plain network's."""
    with torch.no_grad():
        for parameter in network[2].parameters():
            parameter.mul_(factor)
    return network


SAID = {  # what torch's words about gradients mean here
    "a gradient is None: it is cleared before it is read, or retain_grad() was not called on an inner tensor": (
        "'NoneType' object has no attribute"
    ),
    "what to differentiate for is a copy, or not used; take the tensor that leads to the loss, not its clone": (
        "to not have been used in the graph"
    ),
    "a tensor is cut off from the graph, by detach(), .data or no_grad; take it as it is": "does not require grad",
}


@contextlib.contextmanager
def differentiating(what):
    """calling(what), with the likeliest cause of what torch says about gradients."""
    try:
        with calling(what):
            yield
    except Wrong as wrong:
        said = str(wrong)
        raise Wrong(said + likeliest(SAID, lambda words: words in said)) from None


def oracle_loss(network, images, labels, training=True):
    """A copy of the network in train mode, the convolutions of the copy, and its loss."""
    twin = copy.deepcopy(network).train(training)
    return twin, [m for m in twin.modules() if isinstance(m, nn.Conv2d)], F.cross_entropy(twin(images), labels)


def numbers_of(got, what, count, others=None):
    """What the learner returned, as a list of so many numbers; others: {the mistake: what it gives instead}."""
    values = numbers(got, what)
    if len(values) != count:
        cause = likeliest(others or {}, lambda known: agree(values, known))
        raise Wrong(f"{what} returned {len(values)} numbers, expected {count}.{cause}")
    return values


def agree(got, expected, tolerance=1e-4):
    """Whether two lists of numbers are the same to within a share of each."""
    return len(got) == len(expected) and all(
        math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-35) for a, b in zip(got, expected)
    )


def check_numbers(got, expected, what, mistakes):
    """Raise Wrong, with the mistake that gives what was got, unless the numbers agree."""
    if agree(got, expected):
        return
    i = next(i for i, pair in enumerate(zip(got, expected)) if not agree(pair[:1], pair[1:]))
    raise Wrong(
        f"{what} gives {got[i]:.4g} at place {i}, expected {expected[i]:.4g}."
        + likeliest(mistakes, lambda known: agree(got, known))
    )


def euclid(tensors):
    return [tensor.detach().double().norm().item() for tensor in tensors]


# --- 3.1 ------------------------------------------------------------------------------------------------------------


def weight_mistakes(network, batch):
    """What the known wrong ways give for gradient_norms."""
    twin, convs, loss = oracle_loss(network, *batch)
    gradients = torch.autograd.grad(loss, [conv.weight for conv in convs])

    def of(other):
        """The norms for another loss, a function of logits and labels."""
        twin = copy.deepcopy(network).train()
        convs = [m.weight for m in twin.modules() if isinstance(m, nn.Conv2d)]
        return euclid(torch.autograd.grad(other(twin(batch[0]), batch[1]), convs))

    _, still, eval_loss = oracle_loss(network, *batch, training=False)
    in_eval = torch.autograd.grad(eval_loss, [conv.weight for conv in still])
    right = euclid(gradients)
    return right, {
        "the norms come in reverse order; go through model.modules() from the first": right[::-1],
        "the squares are summed, but no root is taken": [value**2 for value in right],
        "it is the sum of the absolute values, not the Euclidean norm": [g.abs().sum().item() for g in gradients],
        "it is the mean of the absolute values, not the norm": [g.abs().mean().item() for g in gradients],
        "it is the largest entry, not the norm": [g.abs().max().item() for g in gradients],
        "it is the root of the mean square; the norm is the root of the sum": [
            value / g.numel() ** 0.5 for value, g in zip(right, gradients)
        ],
        "it is the mean of the filters' norms; take one norm of the whole gradient": [
            g.double().flatten(1).norm(dim=1).mean().item() for g in gradients
        ],
        "the norms are those of the weights, not of their gradients": euclid(conv.weight for conv in convs),
        "the model is in eval mode; the loss is that of train mode": euclid(in_eval),
        "the loss is summed over the pictures, not averaged": [COUNT * value for value in right],
        "the logits are summed; take the cross-entropy of logits and labels": lambda: of(lambda z, _: z.sum()),
        "the logits are averaged; take the cross-entropy of logits and labels": lambda: of(lambda z, _: z.mean()),
        "the logits of the right classes are averaged; take the cross-entropy": lambda: of(
            lambda z, y: z.gather(1, y[:, None]).mean()
        ),
        "softmax is applied before cross_entropy, which applies it itself": lambda: of(
            lambda z, y: F.cross_entropy(z.softmax(dim=1), y)
        ),
        "the norms are clipped at 1; return them as they are": [min(value, 1) for value in right],
        "gradients add up: those of an earlier backward() are still there": [2 * value for value in right],
        "the gradients are divided by the norms of the weights": [
            value / norm for value, norm in zip(right, euclid(conv.weight for conv in convs))
        ],
    }


def other_weights(network, batch):
    """What gradient_norms gives for too many or too few parameters."""
    twin, convs, loss = oracle_loss(network, *batch)

    def of(wanted):
        return euclid(torch.autograd.grad(loss, wanted, retain_graph=True))

    linear = (nn.Conv2d, nn.Linear)
    return {
        "linear layers are among them; take nn.Conv2d only": lambda: of(
            [m.weight for m in twin.modules() if isinstance(m, linear)]
        ),
        "the stem is left out; take the convolutions of the whole model": lambda: of([m.weight for m in convs[1:]]),
        "all parameters are among them; take the weights of nn.Conv2d only": lambda: of(list(twin.parameters())),
        "convolutions' biases are among them; take the weights only": lambda: of(
            [p for m in convs for p in m.parameters()]
        ),
        "1x1 convolutions are left out; take all of nn.Conv2d": lambda: of(
            [m.weight for m in convs if m.kernel_size != (1, 1)]
        ),
        "convolutions within other modules are left out; go through model.modules()": lambda: [],
    }


@pytest.mark.task("3.1")
@START
@KINDS
def test_gradient_norms_are_autograds(lesson, skip, batch_norm, training):
    network, batch = make_network(lesson, skip, batch_norm, training), make_batch()
    expected, mistakes = weight_mistakes(network, batch)
    what = f"gradient_norms(model, images, labels) of a network of 13 convolutions in {mode(training)} mode"
    with differentiating(what):
        got = lesson.gradient_norms(network, *batch)
    check_numbers(numbers_of(got, what, 13, other_weights(network, batch)), expected, what, mistakes)


@pytest.mark.task("3.1")
def test_gradient_norms_of_any_network(lesson):
    network, batch = randomised(Mixed()), make_batch()
    expected, mistakes = weight_mistakes(network, batch)
    what = "gradient_norms of a network of 3 convolutions, with biases, groups and nn.ModuleList,"
    with differentiating(what):
        got = lesson.gradient_norms(network, *batch)
    check_numbers(numbers_of(got, what, 3, other_weights(network, batch)), expected, what, mistakes)


@pytest.mark.task("3.1")
def test_gradient_norms_do_not_depend_on_earlier_gradients(lesson):
    network, batch = make_network(lesson), make_batch()
    expected, mistakes = weight_mistakes(network, batch)
    F.cross_entropy(network(batch[0]), batch[1]).backward()
    with differentiating("gradient_norms(model, images, labels)"):
        got = lesson.gradient_norms(network, *batch)
    what = "gradient_norms of a model that has gradients from an earlier backward()"
    check_numbers(numbers_of(got, what, 13), expected, what, mistakes)


def mode(training):
    return "train" if training else "eval"


def own(module):
    """The names of a module's attributes; a method of its class that was put back is none."""
    return {
        name
        for name, value in vars(module).items()
        if getattr(value, "__func__", name) is not getattr(type(module), name, None)
    }


def hooks_everywhere():
    """How many hooks there are for every module of any kind."""
    everywhere = vars(torch.nn.modules.module)
    return sum(len(hooks) for name, hooks in everywhere.items() if name.startswith("_global") and "hooks" in name)


def state(network):
    """Everything that a measurement should leave alone."""
    return {
        "modes": [module.training for module in network.modules()],
        "hooks": [
            sum(len(getattr(module, name)) for name in vars(module) if name.endswith("hooks"))
            for module in network.modules()
        ],
        "weight hooks": [len(p._backward_hooks or ()) for p in network.parameters()],
        "hooks everywhere": hooks_everywhere(),
        "attributes": [own(module) for module in network.modules()],
        "tensors": {name: tensor.detach().clone() for name, tensor in network.state_dict().items()},
        "grads": [p.grad is not None and bool(p.grad.abs().max() > 0) for p in network.parameters()],
        "required": [p.requires_grad for p in network.parameters()],
    }


def check_no_trace(before, after, what):
    """Raise Wrong, naming what has changed, unless two states of a network are the same."""
    if before["modes"] != after["modes"]:
        raise Wrong(f"{what} leaves the model in another mode: use undisturbed, or put train and eval mode back.")
    if before["hooks"] != after["hooks"]:
        left = sum(after["hooks"]) - sum(before["hooks"])
        raise Wrong(
            f"{what} leaves {left} hooks on the model: call remove() on each handle that registering one returns."
        )
    if before["weight hooks"] != after["weight hooks"]:
        raise Wrong(f"{what} leaves hooks on the model's weights: call remove() on what register_hook returns.")
    if before["hooks everywhere"] != after["hooks everywhere"]:
        raise Wrong(
            f"{what} leaves a hook that runs for every module there is (register_module_...): call remove() on its "
            "handle, or register it on the blocks only."
        )
    for kept, names in zip(before["attributes"], after["attributes"]):
        if kept != names:
            changed = ", ".join(sorted(kept ^ names))
            raise Wrong(f"{what} leaves another attribute on a module ({changed}): keep it elsewhere, or delete it.")
    for name, tensor in before["tensors"].items():
        if not equal(tensor, after["tensors"][name]):
            if "running" in name or "batches" in name:
                raise Wrong(f"{what} moves the model's running statistics ({name}). Run it within undisturbed.")
            raise Wrong(f"{what} changes the model's weights ({name}). Measure, and take no step.")
    if before["grads"] != after["grads"]:
        raise Wrong(f"{what} leaves gradients in p.grad. Use torch.autograd.grad, or clear them: model.zero_grad().")
    if before["required"] != after["required"]:
        raise Wrong(f"{what} changes requires_grad of the model's parameters.")


# --- 3.2 ------------------------------------------------------------------------------------------------------------


def run_blocks(network, images, labels, training=True, loss=F.cross_entropy):
    """The loss of a copy, and the tensors at the blocks: the input of the first, and each one's output."""
    twin = copy.deepcopy(network).train(training)
    points = [twin[0](images)]
    for block in twin[1]:
        points.append(block(points[-1]))
    return loss(twin[2](points[-1]), labels), points


def inner_gradients(network, images, labels, modules):
    """The norms of the gradients with respect to what each of these modules of a copy puts out."""
    twin, caught = copy.deepcopy(network).train(), []
    for module in modules(twin):
        module.register_forward_hook(lambda layer, inputs, output: caught.append(output))
    return euclid(torch.autograd.grad(F.cross_entropy(twin(images), labels), caught))


@pytest.mark.task("3.2")
@START
@KINDS
def test_signal_norms_are_autograds(lesson, skip, batch_norm, training):
    network, batch = make_network(lesson, skip, batch_norm, training), make_batch()
    loss, points = run_blocks(network, *batch)
    gradients = torch.autograd.grad(loss, points)
    eval_loss, still = run_blocks(network, *batch, training=False)
    in_eval = torch.autograd.grad(eval_loss, still)
    expected = euclid(gradients[1:])
    logits, summed = run_blocks(network, *batch, loss=lambda z, _: z.sum())
    what = f"signal_norms(model, images, labels) of a network of 6 blocks in {mode(training)} mode"
    with differentiating(what):
        got = lesson.signal_norms(network, *batch)
    others = {
        "the stem's output is among them; take the blocks' only": euclid(gradients),
        "the last block is left out": expected[:-1],
        "what the modules within the blocks put out is among it; take the blocks' own outputs": lambda: inner_gradients(
            network, *batch, lambda twin: list(twin[1].modules())[1:]
        ),
        "what the modules within model[1] put out is among it; take the blocks' own outputs": lambda: inner_gradients(
            network, *batch, lambda twin: twin[1].modules()
        ),
        "what all modules put out is among it; take the blocks' own outputs": lambda: inner_gradients(
            network, *batch, lambda twin: twin.modules()
        ),
    }
    check_numbers(
        numbers_of(got, what, 6, others),
        expected,
        what,
        {
            "the norms come from the last block to the first; backward hooks fire in that order": expected[::-1],
            "they are the gradients at the blocks' inputs, not at their outputs": euclid(gradients[:-1]),
            "they are the gradients at the blocks' inputs, from the last block to the first; a backward hook's "
            "grad_output is the gradient at the output": euclid(gradients[:-1])[::-1],
            "they are the norms of the features, not of the gradients": euclid(points[1:]),
            "it is the sum of the absolute values, not the Euclidean norm": [
                g.double().abs().sum().item() for g in gradients[1:]
            ],
            "it is the mean of the absolute values, not the norm": [
                g.double().abs().mean().item() for g in gradients[1:]
            ],
            "it is the largest entry, not the norm": [g.abs().max().item() for g in gradients[1:]],
            "the logits are summed; take the cross-entropy of logits and labels": lambda: euclid(
                torch.autograd.grad(logits, summed[1:])
            ),
            "the model is in eval mode; the loss is that of train mode": euclid(in_eval[1:]),
            "the squares are summed, but no root is taken": [value**2 for value in expected],
            "the loss is summed over the pictures, not averaged": [COUNT * value for value in expected],
            "they are the gradients at the branches, before shortcut and ReLU; take the blocks' outputs": lambda: (
                inner_gradients(network, *batch, lambda twin: [block.branch for block in twin[1]])
            ),
            "they are means over the pictures of each picture's norm; take one norm of the whole gradient": [
                g.detach().double().flatten(1).norm(dim=1).mean().item() for g in gradients[1:]
            ],
            "it is the root of the mean square; the norm is the root of the sum": [
                value / g.numel() ** 0.5 for value, g in zip(expected, gradients[1:])
            ],
        },
    )


@pytest.mark.task("3.2")
def test_signal_norms_twice_are_the_same(lesson):
    network, batch = make_network(lesson), make_batch()
    with differentiating("signal_norms(model, images, labels)"):
        first, second = [lesson.signal_norms(network, *batch) for _ in range(2)]
    what = "signal_norms(model, images, labels), called a second time,"
    if not agree(numbers_of(second, what, 6), numbers_of(first, what, 6)):
        raise Wrong(f"{what} gives other numbers. Does it leave hooks, gradients or statistics behind?")


# --- 3.3 ------------------------------------------------------------------------------------------------------------


def fitted(values, log=math.log):
    """The slope of the least-squares line through the logarithms of the values that have one."""
    points = [(i, log(v)) for i, v in enumerate(values) if 0 < v < math.inf]
    x_mean, y_mean = [sum(part) / len(points) for part in zip(*points)]
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)


def call_change(lesson, values):
    what, given = f"change_per_layer([{', '.join(f'{value:.3g}' for value in values)}])", list(values)
    try:
        with calling(what):
            got = lesson.change_per_layer(given)
    except Wrong as wrong:
        unusable = any(not 0 < value < math.inf for value in values)
        hint = "\nThe likeliest mistake: norms that are 0, NaN or infinite are not left out; they have no logarithm."
        few = "\nThe likeliest mistake: with fewer than two norms there is no line; return NaN."
        crashed = hint if unusable else few if len(values) < 2 else ""
        raise Wrong(f"{wrong}{crashed if 'Error' in str(wrong) else ''}") from None
    if got is None and sum(0 < value < math.inf for value in values) < 2:
        raise Wrong(f"{what} returned None, expected NaN: return math.nan.")
    if given != list(values):
        raise Wrong(f"{what} changes the list that it is given. Make a new one.")
    return what, float(number(got, what))


def check_change(lesson, values, expected):
    what, got = call_change(lesson, values)
    if agree([got], [expected]):  # to 4 digits, which float32 gives
        return
    usable = [value for value in values if 0 < value < math.inf]
    ratios = [b / a for a, b in zip(usable, usable[1:])]
    slope = fitted(values)
    small = {
        f"{eps:g} is added to each norm, which changes small ones; leave out those that are 0": math.exp(
            fitted([value + eps if value >= 0 else value for value in values])
        )
        for eps in (10.0**-k for k in range(4, 17))
    }
    mistakes = {
        "it is the factor from each layer to the one before; turn it round": math.exp(-slope),
        "it is the slope itself; e to the slope is the factor": slope,
        "the logarithm has base 10, but e is raised to the slope": math.exp(slope / math.log(10)),
        "the logarithm has base 2, but e is raised to the slope": math.exp(slope / math.log(2)),
        "norms that are left out should keep their places: do not count the others anew": math.exp(fitted(usable)),
        "it is the mean of the ratios, not a line through the logarithms": sum(ratios) / len(ratios),
        "it uses only the first and the last norm, not all of them": (usable[-1] / usable[0]) ** (1 / len(ratios)),
        "it divides by the number of norms; there is one step fewer": (usable[-1] / usable[0]) ** (1 / len(usable)),
        "it is the change over all layers; take that of one": usable[-1] / usable[0],
        "the line is forced through the origin; subtract the mean of the places first": math.exp(
            sum(i * math.log(v) for i, v in enumerate(values) if 0 < v < math.inf)
            / sum(i * i for i, v in enumerate(values) if 0 < v < math.inf)
        ),
    }
    if math.isnan(got):
        cause = (
            "norms that are 0, NaN or infinite are not left out"
            if len(usable) < len(values)
            else f"NaN is for fewer than two norms, and here are {len(usable)}"
        )
        if usable and min(usable) < 1e-20:
            cause += "; or small norms are left out, and only those that are 0 should be"
        mistakes = {cause: got}
    raise Wrong(
        f"{what} is {got:.6g}, expected {expected:.6g}."
        + likeliest(mistakes | small, lambda known: got is known or agree([got], [known]))
    )


@pytest.mark.task("3.3")
@pytest.mark.parametrize("factor", [0.41, 1.0, 1.21, 30.0])
@pytest.mark.parametrize("start", [1.0, 3e-9, 2e5])
def test_change_of_a_geometric_series_is_exact(lesson, factor, start):
    check_change(lesson, [start * factor**i for i in range(9)], factor)


@pytest.mark.task("3.3")
def test_change_is_that_of_the_best_line(lesson):
    for values in ([1.0, 3.0, 2.0, 8.0, 5.0], [9.0, 4.0, 4.5, 0.3], [2.0, 6.0]):
        check_change(lesson, values, math.exp(fitted(values)))


@pytest.mark.task("3.3")
def test_change_leaves_out_what_has_no_logarithm(lesson):
    check_change(lesson, [0.0, 0.0, 1e-40, 1e-38, 1e-36], 100)
    check_change(lesson, [1.0, 2.0, math.nan, 8.0, math.inf, 32.0], 2)
    check_change(lesson, [5.0, 0.0, 0.05, 0.0, 0.0005], 0.1)


@pytest.mark.task("3.3")
@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.0, 2.0, math.nan], [3.0], []], ids=str)
def test_change_is_nan_where_there_is_no_line(lesson, values):
    what, got = call_change(lesson, values)
    if not math.isnan(got):
        raise Wrong(f"{what} is {got:.4g}, expected NaN: fewer than two of its norms have a logarithm.")


# --- 3.4 ------------------------------------------------------------------------------------------------------------


def correlate(lesson, network, images, neighbours, what):
    with calling(what):
        return float(number(lesson.gradient_correlation(network, images, neighbours), what))


def correlation_mistakes(lesson, network, images, neighbours):
    """What the known wrong ways give for gradient_correlation, and what is right."""
    twin = copy.deepcopy(network).eval()

    def gradients(inputs, model=twin, reduce=lambda logits: logits.sum()):
        inputs = inputs.clone().requires_grad_()
        return torch.autograd.grad(reduce(model(inputs)), inputs)[0].flatten(1).double()

    def cosines(a, b):
        return (F.normalize(a, eps=0) * F.normalize(b, eps=0)).sum(dim=1)

    def logit(which):
        return cosines(*[gradients(x, reduce=which) for x in (images, neighbours)]).mean()

    def dead():
        """What the learner's function gives where all gradients are 0."""
        still = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10))
        nn.init.zeros_(still[1].weight)
        return correlate(lesson, still, images, neighbours, "")

    first, second = gradients(images), gradients(neighbours)
    expected = cosines(first, second).mean().item()
    centred = [g - g.mean(dim=1, keepdim=True) for g in (first, second)]
    maps = [g.reshape(images.shape) for g in (first, second)]
    trained = copy.deepcopy(network).train()
    return expected, {
        "the model is in train mode; in eval mode one picture has no say in another's logits": lambda: cosines(
            gradients(images, trained), gradients(neighbours, trained)
        ).mean(),
        "all pictures' gradients are taken as one long vector; take a cosine for each picture": lambda: cosines(
            first.reshape(1, -1), second.reshape(1, -1)
        ).mean(),
        "the cosine is taken over the channels at each place; take one over a picture's whole gradient, flattened": (
            lambda: F.cosine_similarity(*maps, dim=1).mean()
        ),
        "the mean of each gradient is subtracted; the cosine is that of the gradients as they are": lambda: cosines(
            *centred
        ).mean(),
        "the absolute values of the cosines are averaged": lambda: cosines(first, second).abs().mean(),
        "it is 1 minus the cosine; take the cosine itself": lambda: 1 - cosines(first, second).mean(),
        "the cosines are summed, not averaged": lambda: cosines(first, second).sum(),
        "the gradients are not divided by their norms": lambda: (first * second).sum(dim=1).mean(),
        "it is the angle, not its cosine": lambda: cosines(first, second).clamp(-1, 1).acos().mean(),
        "it compares the logits, not the gradients": lambda: cosines(twin(images), twin(neighbours)).mean(),
        "the logits go through log_softmax; take the logits themselves": lambda: logit(
            lambda z: z.log_softmax(dim=1).sum()
        ),
        "each gradient is normalised over its channels at each place; flatten it first": lambda: (
            F.cosine_similarity(*maps, dim=1).flatten(1).sum(dim=1).mean()
        ),
        "the products are averaged over a picture's values; sum them, and average over the pairs": lambda: (
            cosines(first, second).mean() / first.shape[1]
        ),
        "every picture is compared with all neighbours, not only with its own": lambda: (
            F.normalize(first, eps=0) @ F.normalize(second, eps=0).T
        ).mean(),
        "only the first picture counts": lambda: cosines(first, second)[0],
        "it compares the inputs, not the gradients": lambda: cosines(images.flatten(1), neighbours.flatten(1)).mean(),
        "it is the gradient of the first logit, not of all of them summed": lambda: logit(lambda z: z[:, 0].sum()),
        "it is the gradient of the largest logit, not of all of them summed": lambda: logit(
            lambda z: z.amax(dim=1).sum()
        ),
        "both gradients are taken at the same inputs": lambda: 1 if dead() != 1 else math.nan,
        "it is 1 whatever the gradients are": lambda: 1 if dead() == 1 else math.nan,
        "the gradients of different pictures are compared, not those of a picture and its neighbour": lambda: cosines(
            first[:-1], first[1:]
        ).mean(),
    }


def is_constant(lesson, got):
    """Whether the learner's correlation is the same number for an ordinary network, too."""
    return correlate(lesson, make_network(lesson), make_batch()[0], make_batch(seed=7)[0], "") == got


def check_correlation(lesson, network, images, neighbours, what, why, tolerance):
    """Raise Wrong, with the mistake that gives what was got, unless the learner's correlation is the right one."""
    expected, mistakes = correlation_mistakes(lesson, network, images, neighbours)
    got = correlate(lesson, network, images, neighbours, what)
    if not abs(got - expected) <= tolerance:
        cause = likeliest(mistakes, lambda known: abs(got - float(known)) < 1e-5 * max(1, abs(got)))
        raise Wrong(f"{what} is {got:.5f}, expected {expected:.5f}{why}.{cause}")


@pytest.mark.task("3.4")
def test_correlation_of_a_linear_network_is_one(lesson):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, stride=2), nn.Flatten(), nn.LazyLinear(10)
    network, (images, _) = nn.Sequential(*layers), make_batch()
    network(images)
    randomised(network)
    what = "gradient_correlation(model, images, neighbours) of a network without ReLUs"
    why = ": in eval mode its gradient is the same everywhere, even with batch norm"
    check_correlation(lesson, network, images, make_batch(seed=5)[0], what, why, 1e-5)


@pytest.mark.task("3.4")
@KINDS
@START
def test_correlation_is_the_mean_cosine_of_the_input_gradients(lesson, skip, batch_norm, training):
    network, (images, _) = make_network(lesson, skip, batch_norm, training), make_batch()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()  # or in eval mode ReLUs let nothing through, and the gradient is 0
    neighbours = make_batch(seed=7)[0]  # so far away that some cosines are negative
    what = f"gradient_correlation(model, images, neighbours) of a network in {mode(training)} mode"
    why = ", the mean over the pairs of the cosine"
    check_correlation(lesson, network, images, neighbours, what, why, 1e-4)


@pytest.mark.task("3.4")
@pytest.mark.parametrize("batch_norm", [False, True], ids=["without batch norm", "with batch norm"])
def test_correlation_does_not_depend_on_the_gradients_size(lesson, batch_norm):
    network, (images, _) = shrunk(make_network(lesson, batch_norm=batch_norm)), make_batch()
    neighbours = images + 0.1 * make_batch(seed=7)[0]
    expected, _ = correlation_mistakes(lesson, network, images, neighbours)
    what = "gradient_correlation(model, images, neighbours) of a network whose gradients are about 1e-25"
    got = correlate(lesson, network, images, neighbours, what)
    if abs(got - expected) <= 1e-4:
        return
    single = "the norms are computed in float32, where the square of 1e-25 is 0; make the gradients float64 first"
    eps = "an eps stands in for the tiny norms; F.cosine_similarity and F.normalize have one unless you give eps=0"
    known = single if math.isnan(got) or got == 1 else f"{eps}; or {single}" if abs(got) < 1e-5 else None
    if is_constant(lesson, got):
        known = "it is 1 whatever the gradients are" if got == 1 else None
    raise Wrong(f"{what} is {got:.5f}, expected {expected:.5f}, as for larger ones.{advice(known)}")


@pytest.mark.task("3.4")
@pytest.mark.parametrize("dead", [COUNT, 1], ids=["all pictures", "one picture"])
def test_correlation_is_nan_if_a_gradient_is_zero(lesson, dead):
    images = make_batch()[0].abs()
    layers = nn.Flatten(), nn.Linear(images[0].numel(), 4), nn.ReLU(), nn.Linear(4, 10)
    network, neighbours = nn.Sequential(*layers), images + 0.1
    with torch.no_grad():
        layers[1].weight.fill_(0.1)
        images[:dead] *= -1  # the ReLUs let nothing through
        layers[1].bias.zero_()
    what = "gradient_correlation(model, images, neighbours)"
    got = correlate(lesson, network, images, neighbours, what)
    hidden = "an eps, nan_to_num or nanmean hides the division by 0, or pairs with a zero are left out"
    if not math.isnan(got):
        raise Wrong(
            f"{what} is {got:.5f} where the gradient of {dead} of {COUNT} images is 0, expected NaN."
            + advice(None if is_constant(lesson, got) else hidden)
        )


# --- 3.1, 3.2, 3.4: what they have in common --------------------------------------------------------------------------

MEASURES = {
    "3.1": ("gradient_norms(model, images, labels)", lambda lesson, *given: lesson.gradient_norms(*given)),
    "3.2": ("signal_norms(model, images, labels)", lambda lesson, *given: lesson.signal_norms(*given)),
    "3.4": (
        "gradient_correlation(model, images, neighbours)",
        lambda lesson, *given: lesson.gradient_correlation(*given),
    ),
}


def of_tasks(*tasks):
    """A test for each of these tasks."""
    return pytest.mark.parametrize(
        "task", [pytest.param(task, marks=pytest.mark.task(task), id=task) for task in tasks]
    )


def given_to(task):
    """What a task's measure takes beside the model: {its name: tensor}."""
    images, labels = make_batch()
    return {"images": images} | ({"neighbours": images + 0.1} if task == "3.4" else {"labels": labels})


@START
@of_tasks("3.1", "3.2", "3.4")
def test_measuring_leaves_no_trace(lesson, task, training):
    what, measure = MEASURES[task]
    network, given = make_network(lesson, training=training), given_to(task)
    network[1][0].train(not training)  # one block is in the other mode, as when a part is frozen
    before, kept = state(network), {name: tensor.clone() for name, tensor in given.items()}
    with differentiating(what):
        measure(lesson, network, *given.values())
    check_no_trace(before, state(network), what)
    for name, tensor in given.items():
        if not equal(tensor, kept[name]):
            raise Wrong(f"{what} changes the {name} that it is given.")
        if tensor.requires_grad or tensor.grad is not None:
            raise Wrong(f"{what} leaves requires_grad or a gradient on {name}. Work on {name}.detach().clone().")


@of_tasks("3.1", "3.2", "3.4")
def test_measuring_thaws_nothing(lesson, task):
    what, measure = MEASURES[task]
    network = make_network(lesson)
    network[1][0].branch[1].requires_grad_(False)
    before = [p.requires_grad for p in network.parameters()]
    try:
        with calling(what):
            measure(lesson, network, *given_to(task).values())
    except Wrong:  # nobody said that it can be done for a model of which a part is frozen
        return
    if before != [p.requires_grad for p in network.parameters()]:
        raise Wrong(
            f"{what} changes requires_grad of the model's parameters: some were frozen before, and are not now."
        )


@of_tasks("3.1", "3.2")
def test_tiny_gradients_have_norms(lesson, task):
    network, batch = shrunk(make_network(lesson)), make_batch()
    if task == "3.1":
        expected = weight_mistakes(network, batch)[0]
    else:
        loss, points = run_blocks(network, *batch)
        expected = euclid(torch.autograd.grad(loss, points[1:]))
    what = f"{MEASURES[task][0]} of a network whose gradients are about 1e-25"
    with differentiating(what):
        got = MEASURES[task][1](lesson, network, *batch)
    got = numbers_of(got, what, len(expected))
    lost = "the norm is computed in float32, where the square of 1e-25 is 0; use norm, which is given, or .double()"
    check_numbers(got, expected, what, {lost: [0.0] * len(expected)})


# --- 3.5 ------------------------------------------------------------------------------------------------------------

STEPS = 5


def train_by_hand(network, batches, make_optimizer, clear=True, training=True, steps=1, passes=0, frozen=False, **loss):
    """What record_training should do, on a copy: (copy, rows of norms); or something wrong, as the switches say."""
    twin = copy.deepcopy(network).train(training)
    optimizer, rows = make_optimizer(twin), []
    for images, labels in batches:
        if clear:
            optimizer.zero_grad()
        for _ in range(passes):
            twin(images)
        kept = {name: buffer.clone() for name, buffer in twin.named_buffers()}
        F.cross_entropy(twin(images), labels, **loss).backward()
        if frozen:
            twin.load_state_dict(kept, strict=False)
        rows.append(euclid(m.weight.grad for m in twin.modules() if isinstance(m, nn.Conv2d)))
        for _ in range(steps):
            optimizer.step()
    return twin, rows


def after_each_step(network, batches, make_optimizer):
    """The norms for each batch after the step that was taken with it."""
    twin = copy.deepcopy(network).train()
    optimizer, rows = make_optimizer(twin), []
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(twin(batch[0]), batch[1]).backward()
        optimizer.step()
        rows.append(weight_mistakes(twin, batch)[0])
    return rows


def on_top_of_ones(network, batch):
    """The first row, if the gradients are added to ones."""
    _, convs, loss = oracle_loss(network, *batch)
    return [euclid(1 + g for g in torch.autograd.grad(loss, [conv.weight for conv in convs]))]


def momentum(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


USED_UP = "batches is used up before the training: it can be gone through only once"


def record(lesson, network, batches, optimizer, count):
    what = f"record_training(model, {STEPS} batches, optimizer) of a network of {count} convolutions"
    with differentiating(what):
        got = lesson.record_training(network, batches, optimizer)
    if type(got) is list and got and all(type(row) is torch.Tensor for row in got):
        with contextlib.suppress(RuntimeError):
            got = torch.stack(got)
    if type(got) not in (torch.Tensor, nn.Parameter, numpy.ndarray, list):
        raise Wrong(f"{what} returned {said(got)}, expected a tensor (steps, layers). Does it end with a return?")
    try:
        table = torch.as_tensor(got, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} returned rows of different lengths, expected a tensor (steps, layers).") from None
    if tuple(table.shape) == (count, STEPS):
        raise Wrong(f"{what} has the shape {tuple(table.shape)}: steps and layers are swapped.")
    if tuple(table.shape) in ((1, count), (count,)):
        raise Wrong(f"{what} has the shape {tuple(table.shape)}: it is the row of one step. Keep a row for each step.")
    if not len(table):
        raise Wrong(f"{what} has no rows, expected {STEPS}.{advice(USED_UP)}")
    if tuple(table.shape) != (STEPS, count):
        raise Wrong(f"{what} has the shape {tuple(table.shape)}, expected {(STEPS, count)}: a row for each step.")
    return table, what


@pytest.mark.task("3.5")
@pytest.mark.parametrize("make_optimizer", [momentum, adam], ids=["SGD", "Adam"])
@START
def test_recording_is_a_training_with_the_norms_of_every_step(lesson, make_optimizer, training):
    network, batches = make_network(lesson, training=training), [make_batch(seed=seed) for seed in range(STEPS)]
    twin, expected = train_by_hand(network, batches, make_optimizer)
    untouched = copy.deepcopy(network)
    _, heaped = train_by_hand(network, batches, make_optimizer, clear=False)
    _, in_eval = train_by_hand(network, batches, make_optimizer, training=False)
    still = [weight_mistakes(untouched, batch)[0] for batch in batches]
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)  # left over from something else
    table, what = record(lesson, network, iter(batches), make_optimizer(network), 13)
    mistakes = {
        "gradients add up from batch to batch; clear them before each": heaped,
        "the model is in eval mode while it trains": in_eval,
        "the optimizer takes no step": still,
        "the optimizer takes two steps for each batch": lambda: train_by_hand(
            untouched, batches, make_optimizer, steps=2
        )[1],
        "the loss is summed over the pictures, not averaged": lambda: train_by_hand(
            untouched, batches, make_optimizer, reduction="sum"
        )[1],
        "each row is recorded after the step; the norms are those before it": expected[1:] + expected[-1:],
        "the layers come in reverse order": [row[::-1] for row in expected],
        "every row is one and the same list or tensor; make a new one for each step": [expected[-1]] * STEPS,
        "the norms are measured after the step; take those before it": after_each_step(
            untouched, batches, make_optimizer
        ),
        "the gradients that p.grad held before are not cleared; call zero_grad() for each batch": on_top_of_ones(
            untouched, batches[0]
        ),
    }
    seen = network.state_dict()["0.1.num_batches_tracked"] > untouched.state_dict()["0.1.num_batches_tracked"]
    cleared = "the gradients are cleared after backward(), before they are read"
    mistakes[cleared if seen else USED_UP] = [[0.0] * 13] * STEPS
    for t, row in enumerate(expected):
        if not agree(table[t].tolist(), row, 1e-3):
            i = next(i for i in range(13) if not agree([table[t, i].item()], row[i : i + 1], 1e-3))
            raise Wrong(
                f"{what}: row {t}, layer {i} is {table[t, i]:.4g}, expected {row[i]:.4g}."
                + likeliest(mistakes, lambda rows: same_rows(table.tolist(), rows))
            )
    for (name, own), theirs in zip(network.state_dict().items(), twin.state_dict().values()):
        if not allclose(own.double(), theirs.double(), rtol=1e-3, atol=1e-5):
            part = "running statistics" if "running" in name or "batches" in name else "weights"
            switches = {
                "the model runs twice for each batch, so batch norm's statistics move twice": {"passes": 1},
                "within undisturbed batch norm's statistics do not move; training should move them": {"frozen": True},
                "the optimizer takes two steps for each batch": {"steps": 2},
            }
            twins = {
                words: lambda switch=switch: train_by_hand(untouched, batches, make_optimizer, **switch)[0]
                for words, switch in switches.items()
            }
            raise Wrong(
                f"{what}: afterwards the model's {part} ({name}) are not those of {STEPS} steps, one a batch."
                + likeliest(twins, functools.partial(same_state, network))
            )


def same_rows(table, rows):
    """Whether all rows but the last are the same."""
    return all(agree(a, b, 1e-3) for a, b in zip(table[:-1], rows[: STEPS - 1]))


def same_state(network, twin):
    """Whether two networks have the same weights and statistics."""
    pairs = zip(network.state_dict().values(), twin.state_dict().values())
    return all(allclose(a.double(), b.double(), rtol=1e-3, atol=1e-5) for a, b in pairs)


@pytest.mark.task("3.5")
@pytest.mark.timeout(90)
def test_recording_learns_cifar10(lesson, cifar10_dir):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = lesson.load_data(
        SimpleNamespace(data="cifar10", data_dir=cifar10_dir, train_images=64, test_images=64, device=device, epochs=1)
    )
    images, labels = lesson.normalise(F.avg_pool2d(data.train_images.float(), 2), data), data.train_labels
    torch.manual_seed(0)
    with calling("build_network(8, True, True), which is given"):
        network = lesson.build_network(8, True, True).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    before = F.cross_entropy(network(images), labels).item()
    with calling("record_training(model, batches, optimizer)"):
        lesson.record_training(network, ((images, labels) for _ in range(10)), optimizer)
    after = F.cross_entropy(network(images), labels).item()
    if not after < 0.8 * before:
        raise Wrong(
            f"record_training: ten steps on 64 pictures of CIFAR-10 took the loss from {before:.2f} to {after:.2f}, "
            "expected a fall by a fifth or more."
        )


@pytest.mark.task("3.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    folder = dry_run.finish()
    for name in ("exercise_03.json", "exercise_03.png"):
        if not (folder / name).is_file():
            raise Wrong(f"python {script.name} --dry-run wrote no {name}")
