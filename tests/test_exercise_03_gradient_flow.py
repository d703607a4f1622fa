"""Exercise 3: autograd on copies of the learner's networks, exact series, training by hand."""

import contextlib
import copy
import functools
import itertools
import math
import operator
import statistics
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
import torch.nn.functional as F
from cifar10 import load_cifar10
from messages import (
    Wrong,
    advice,
    calling,
    check_dry_run,
    check_lets_errors_through,
    counted,
    draw,
    dtype,
    in_words,
    likeliest,
    mode_name,
    number,
    numbers,
)
from torch import allclose, nn
from unchanged import (
    Everything,
    disturb,
    fresh_copy,
    frozen_copy,
    same_tensor,
    somebody_elses_hook,
)

COUNT = 6  # images in most batches
MANY = 97  # about as many as the script measures on, and a prime: no chunks divide it evenly
CLASSES = 12  # of most networks; nothing depends on there being ten
KEPT = "something is kept from an earlier call; begin anew in each call"
KINDS = pytest.mark.parametrize(
    "skip, batch_norm",
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["plain", "plain with batch norm", "residual", "residual with batch norm"],
)
START = pytest.mark.parametrize(
    "training", [True, False], ids=["from train mode", "from eval mode"]
)


def make_batch(size=8, seed=0, count=COUNT):
    """Normalised images of odd width, and labels."""
    generator = torch.Generator().manual_seed(draw(seed))
    images = torch.randn(count, 3, size, size + 1, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    return images, labels


def make_network(lesson, skip=True, batch_norm=True, training=True, depth=14):
    """A network of the learner's file with random batch-norm weights and statistics.

    It has CLASSES logits; the labels of make_batch are those of the first ten.
    """
    torch.manual_seed(draw(0))
    with calling(f"build_network({depth}, ...), which is given"):
        network = lesson.build_network(depth, skip, batch_norm, width=4, num_classes=CLASSES)
    return randomised(network).train(training)


class Mixed(nn.Module):
    """A network of none of the course's forms.

    It is nested, with biases, with grouped and strided convolutions, and with a parameter that has
    as many dimensions as a convolution's.
    """

    def __init__(self):
        super().__init__()
        self.end = nn.Sequential(
            nn.Conv2d(8, 6, 3, stride=2, padding=1),
            nn.Dropout(0.0),
            nn.BatchNorm2d(6),
        )
        self.inner = nn.ModuleList(
            [
                nn.Conv2d(3, 4, 3, bias=True),
                nn.BatchNorm2d(4),
                nn.Conv2d(4, 8, 1, groups=2),
            ]
        )
        self.linear = nn.Linear(6, CLASSES)
        self.scale = nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, x):
        x = self.scale * x
        for layer in self.inner:
            x = layer(x).relu()
        return self.linear(self.end(x).relu().mean((2, 3)))


def randomised(network):
    """The network with random numbers in its batch norms."""
    generator = torch.Generator().manual_seed(draw(1))

    def draw_from(tensor, least, width):
        tensor.copy_(least + width * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                draw_from(module.weight, 1, 0.3)
                draw_from(module.bias, 0, 0.3)
                draw_from(module.running_mean, -0.15, 0.3)
                draw_from(module.running_var, 2, 1)
    return network


def shrunk(network, factor=1e-25):
    """The network with a head so small that its gradients are as tiny as a deep plain network's.

    Or, with a large factor, so large that they are as huge as a deep residual network's; or with 0,
    so that they are all 0.
    """
    with torch.no_grad():
        for parameter in network[2].parameters():
            parameter.mul_(factor)
    return network


TORCH_SAYS = {  # what torch's words about gradients mean here
    "a gradient is None: it is cleared before it is read, no backward pass has written it, "
    "or retain_grad() was not called on an inner tensor": "'NoneType' object has no attribute",
    "the loss does not depend on a tensor that you differentiate with respect to: that is a copy, "
    "or left from an earlier call; take the tensor itself, and make a new list in each call": (
        "to not have been used in the graph"
    ),
    "a tensor is cut off from the graph, by detach(), .data or no_grad; "
    "take it as it is": "does not require grad",
}


@contextlib.contextmanager
def differentiating(what):
    """calling(what), with the likeliest cause of what torch says about gradients."""
    try:
        with calling(what):
            yield
    except Wrong as wrong:
        causes = [cause for cause, words in TORCH_SAYS.items() if words in wrong.message]
        raise wrong.because(causes[0] if causes else None) from None


def numbers_of(got, what, count, others=None):
    """What the learner's code returned, as a list of so many numbers.

    others: {the mistake: the numbers that it gives, fewer or more}.
    """
    values = numbers(got, what)
    if len(values) != count:
        cause = likeliest(others or {}, lambda known: agree(values, known))
        raise Wrong(f"{what} returned {counted(len(values), 'number')}, expected {count}.{cause}")
    return values


def agree(got, expected, tolerance=1e-4):
    """Whether two lists of numbers are the same to within a share of each."""
    if len(got) != len(expected):
        return False
    return all(same_number(a, b, tolerance) for a, b in zip(got, expected))


def same_number(got, expected, tolerance):
    """Whether two numbers are the same to within a share; any two that are not finite are."""
    if not math.isfinite(expected):
        return not math.isfinite(got)
    return math.isclose(got, expected, rel_tol=tolerance, abs_tol=1e-35)


def first_disagreement(got, expected, tolerance=1e-4):
    """The index of the first number of a list that is not the expected one."""
    for index, pair in enumerate(zip(got, expected)):
        if not agree(pair[:1], pair[1:], tolerance):
            return index
    return None


def check_numbers(got, expected, what, mistakes):
    """Raise Wrong, with the mistake that gives what was got, unless the numbers agree."""
    if agree(got, expected):
        return
    index = first_disagreement(got, expected)
    cause = likeliest(mistakes, lambda known: agree(got, known))
    if not cause and agree(sorted(got), sorted(expected)):
        cause = advice("the numbers are correct, but in another order")
    at_index = f" at index {index}" if len(expected) > 1 else ""
    raise Wrong(f"{what} gives {got[index]:.4g}{at_index}, expected {expected[index]:.4g}.{cause}")


def euclid(tensors):
    """The Euclidean norm of each tensor."""
    return [tensor.detach().double().norm().item() for tensor in tensors]


def root_mean_squares(norms, tensors):
    """The root of the mean square of each tensor, whose norms are given."""
    return [norm / tensor.numel() ** 0.5 for norm, tensor in zip(norms, tensors)]


def mean_row_norms(tensors):
    """The mean, over a tensor's first dimension, of the norms of what it holds; for each tensor."""
    return [tensor.detach().double().flatten(1).norm(dim=1).mean().item() for tensor in tensors]


# Task 3.1


def convolutions_of(network):
    """All convolutions of a network, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def norms_for(network, batch, choose, training=True, loss=F.cross_entropy):
    """The norms of the gradients with respect to the parameters choose(copy) of a copy."""
    return euclid(gradients_for(network, batch, choose, training, loss))


def gradients_for(network, batch, choose, training=True, loss=F.cross_entropy):
    """The gradients of a copy's loss with respect to its parameters choose(copy)."""
    images, labels = batch
    twin = copy.deepcopy(network).train(training)
    return torch.autograd.grad(loss(twin(images), labels), choose(twin))


def conv_weights_as_they_run(network):
    """The weights of all convolutions, in the order of a forward pass."""
    weights = []
    for conv in convolutions_of(network):
        conv.register_forward_hook(lambda conv, inputs, output: weights.append(conv.weight))
    with torch.no_grad():
        network(make_batch()[0])
    return weights


def conv_weights(network):
    """The weights of all convolutions."""
    return [conv.weight for conv in convolutions_of(network)]


def weight_norms(network, batch):
    """What gradient_norms should give."""
    return norms_for(network, batch, conv_weights)


def weight_mistakes(network, batch):
    """What the known wrong ways give for gradient_norms."""
    gradients = gradients_for(network, batch, conv_weights)
    norms = euclid(gradients)
    norms_of_weights = euclid(conv_weights(network))
    in_eval_mode = norms_for(network, batch, conv_weights, training=False)

    def of(loss):
        """The norms for another loss, a function of logits and labels."""
        return norms_for(network, batch, conv_weights, loss=loss)

    def norms_with_biases():
        """The norms of the gradients of each convolution's weight and bias together."""

        def biases(twin):
            return [conv.bias for conv in convolutions_of(twin) if conv.bias is not None]

        of_biases = iter(norms_for(network, batch, biases))
        return [
            value if conv.bias is None else math.hypot(value, next(of_biases))
            for value, conv in zip(norms, convolutions_of(network))
        ]

    def mean_norms_of_images():
        """The mean over the images of the norms of each image's own loss."""
        rows = []
        for i in range(COUNT):
            rows.append(of(lambda logits, labels, i=i: F.cross_entropy(logits[i], labels[i])))
        return [sum(column) / COUNT for column in zip(*rows)]

    return {
        "the norms come in reverse order; go through model.modules() from the first": norms[::-1],
        "the squares are summed, but no root is taken": [norm**2 for norm in norms],
        "it is the sum of the absolute values, not the Euclidean norm": [
            gradient.abs().sum().item() for gradient in gradients
        ],
        "it is the mean of the absolute values, not the norm": [
            gradient.abs().mean().item() for gradient in gradients
        ],
        "it is the largest entry, not the norm": [
            gradient.abs().max().item() for gradient in gradients
        ],
        "it is the root of the mean square; the norm is the root of the sum": root_mean_squares(
            norms, gradients
        ),
        "it is the mean of the filters' norms; take one norm of the whole gradient": mean_row_norms(
            gradients
        ),
        "it is the largest singular value, as torch.linalg.norm(matrix, 2) gives; take norm": [
            torch.linalg.matrix_norm(gradient.double().flatten(1), 2).item()
            for gradient in gradients
        ],
        "the batch goes through the model in two halves, each with statistics of its own": (
            lambda: norms_in_halves(network, batch)
        ),
        "the norms are those of the weights, not of their gradients": norms_of_weights,
        "it is the mean of the images' norms; take one norm of the whole gradient": lambda: (
            mean_norms_of_images()
        ),
        "a convolution's bias is in its norm, too; take the gradient of its weight alone": (
            norms_with_biases
            if any(conv.bias is not None for conv in convolutions_of(network))
            else math.nan
        ),
        "the model is in eval mode; the loss is that of train mode": in_eval_mode,
        "the loss is summed over the images, not averaged": [COUNT * norm for norm in norms],
        "the logits are summed; take the cross-entropy of logits and labels": lambda: of(
            lambda logits, labels: logits.sum()
        ),
        "the logits are averaged; take the cross-entropy of logits and labels": lambda: of(
            lambda logits, labels: logits.mean()
        ),
        "the logits of the correct classes are averaged; take the cross-entropy": lambda: of(
            lambda logits, labels: logits.gather(1, labels[:, None]).mean()
        ),
        "softmax is applied before cross_entropy, which applies it itself": lambda: of(
            lambda logits, labels: F.cross_entropy(logits.softmax(dim=1), labels)
        ),
        "they are in the order of the forward pass; take that of model.modules()": (
            lambda: norms_for(network, batch, conv_weights_as_they_run)
        ),
        "the norms are clipped at 1; return them as they are": [min(norm, 1) for norm in norms],
        "everything counts twice: backward() adds to the .grad that was there": [
            2 * norm for norm in norms
        ],
        "the norms are sorted by size; they belong in the order of model.modules()": sorted(norms),
        "the gradients are divided by the norms of the weights": [
            norm / weight_norm for norm, weight_norm in zip(norms, norms_of_weights)
        ],
        "the labels are smoothed; take the plain cross-entropy": lambda: of(
            functools.partial(F.cross_entropy, label_smoothing=0.1)
        ),
        AVERAGED_OVER_CLASSES: [norm / CLASSES for norm in norms],
        IN_BFLOAT16: lambda: under_autocast(lambda: weight_norms(network, batch)),
    }


AVERAGED_OVER_CLASSES = (
    "the loss is divided by the number of classes as well; take the mean over the images"
)
IN_BFLOAT16 = "it is computed in bfloat16 (autocast); leave the precision as it is"


def under_autocast(compute):
    """What compute() gives where the layers compute in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return compute()


def norms_in_halves(network, batch):
    """What gradient_norms gives if each half of the batch goes through the model by itself."""
    images, labels = batch
    total = 0
    for half in zip(images.chunk(2), labels.chunk(2)):
        gradients = gradients_for(network, half, conv_weights)
        total = (
            [gradient / 2 for gradient in gradients]
            if total == 0
            else [before + gradient / 2 for before, gradient in zip(total, gradients)]
        )
    return euclid(total)


def other_weights(network, batch):
    """What gradient_norms gives for too many or too few parameters."""

    def of(choose):
        return lambda: norms_for(network, batch, choose)

    def with_linear(twin):
        layers = [m for m in twin.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        return [layer.weight for layer in layers]

    def with_biases(twin):
        return list(nn.ModuleList(convolutions_of(twin)).parameters())

    def without_1x1(twin):
        convs = [conv for conv in convolutions_of(twin) if conv.kernel_size != (1, 1)]
        return [conv.weight for conv in convs]

    def without_strides(twin):
        convs = [conv for conv in convolutions_of(twin) if conv.stride == (1, 1)]
        return [conv.weight for conv in convs]

    return {
        "linear layers are among them; take nn.Conv2d only": of(with_linear),
        "a parameter of four dimensions is among them that is no convolution's weight": of(
            lambda twin: [weight for weight in twin.parameters() if weight.dim() == 4]
        ),
        "the stem is left out; take the convolutions of the whole model": of(
            lambda twin: conv_weights(twin)[1:]
        ),
        "all parameters are among them; take the weights of nn.Conv2d only": of(
            lambda twin: list(twin.parameters())
        ),
        "convolutions' biases are among them; take the weights only": of(with_biases),
        "1x1 convolutions are left out; take all of nn.Conv2d": of(without_1x1),
        "convolutions with a stride are left out; take all of nn.Conv2d": of(without_strides),
        "convolutions within other modules are left out; go through model.modules()": [],
        "there is one for each shape of weight, as in a dict whose keys are shapes; "
        "a later convolution's takes the place of an earlier one's": of(
            lambda twin: list({weight.shape: weight for weight in conv_weights(twin)}.values())
        ),
    }


def check_norms(lesson, task, network, what):
    """Raise Wrong, with the likeliest mistake, unless a task's measure gives autograd's norms."""
    batch = make_batch()
    given = dict(zip(("images", "labels"), batch))
    untouched = copy.deepcopy(network)
    expected = expected_of(task, network, given)
    try:
        got = measured(lesson, task, network, given, what)
    except Wrong as wrong:
        if is_right(lesson, task, untouched, given):
            raise wrong.because(LEFT_BEHIND) from None
        raise wrong.because(classes_cause(lesson, task, untouched, given)) from None
    if agree(got, expected):
        return
    for (name, weight), before in zip(network.named_parameters(), untouched.parameters()):
        if not same_tensor(weight, before):
            raise Wrong(f"{what} changes the model's weights ({name}).")
    if is_right(lesson, task, untouched, given):
        mistakes = others = {KEPT: got}
    elif context_cause(lesson, task, untouched, given):
        mistakes = others = {context_cause(lesson, task, untouched, given): got}
    elif task == "3.1":
        mistakes = weight_mistakes(untouched, batch)
        others = other_weights(untouched, batch)
    else:
        mistakes = signal_mistakes(untouched, batch)
        others = other_points(untouched, batch)
        others[last_block_cause(lesson, untouched, given)] = expected[-1:]
    check_numbers(numbers_of(got, what, len(expected), others), expected, what, mistakes)


LEFT_BEHIND = "what the call before has left behind is used again; make a new list in each call"


def classes_cause(lesson, task, network, given):
    """That a measure works only where the last class is among the labels, in words, or None."""
    labels = given["labels"].clone()
    labels[0] = CLASSES - 1
    if is_right(lesson, task, network, given | {"labels": labels}):
        return (
            "the number of classes is taken from the largest label, as by F.one_hot(labels); "
            "take it from the logits"
        )
    return None


@pytest.mark.task("3.1")
@START
@KINDS
def test_gradient_norms_are_autograds(lesson, skip, batch_norm, training):
    network = make_network(lesson, skip, batch_norm, training)
    mode = mode_name(training)
    what = f"gradient_norms(model, images, labels) of a network of 13 convolutions in {mode} mode"
    check_norms(lesson, "3.1", network, what)


@pytest.mark.task("3.1")
def test_gradient_norms_of_any_network(lesson):
    what = "gradient_norms of a network of 3 convolutions, with biases, groups and nn.ModuleList,"
    check_norms(lesson, "3.1", randomised(Mixed()), what)


@pytest.mark.task("3.1")
def test_gradient_norms_do_not_depend_on_earlier_gradients(lesson):
    network = make_network(lesson)
    images, labels = make_batch()
    expected = weight_norms(network, (images, labels))
    mistakes = weight_mistakes(copy.deepcopy(network), (images, labels))
    F.cross_entropy(network(images), labels).backward()
    given = {"images": images, "labels": labels}
    got = measured(lesson, "3.1", network, given, call_of("3.1"))
    what = "gradient_norms of a model that has gradients from an earlier backward()"
    check_numbers(numbers_of(got, what, 13), expected, what, mistakes)


# Task 3.2


def run_blocks(network, images, labels, training=True, loss=F.cross_entropy):
    """The loss of a copy, and the tensors at the blocks.

    These are the first block's input, and each block's output.
    """
    twin = copy.deepcopy(network).train(training)
    points = [twin[0](images)]
    for block in twin[1]:
        points.append(block(points[-1]))
    return loss(twin[2](points[-1]), labels), points


def block_gradients(network, images, labels, **changes):
    """The gradients of a copy's loss with respect to the tensors at the blocks."""
    loss, points = run_blocks(network, images, labels, **changes)
    return torch.autograd.grad(loss, points)


def inner_gradients(network, images, labels, modules):
    """The norms of the gradients with respect to the outputs of these modules of a copy."""
    twin = copy.deepcopy(network).train()
    outputs = []
    for module in modules(twin):
        module.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    loss = F.cross_entropy(twin(images), labels)
    return euclid(torch.autograd.grad(loss, outputs))


@pytest.mark.task("3.2")
@START
@KINDS
def test_signal_norms_are_autograds(lesson, skip, batch_norm, training):
    network = make_network(lesson, skip, batch_norm, training)
    mode = mode_name(training)
    what = f"signal_norms(model, images, labels) of a network of 6 blocks in {mode} mode"
    check_norms(lesson, "3.2", network, what)


@pytest.mark.task("3.2")
def test_signal_norms_of_as_many_blocks_as_there_are(lesson):
    network = lesson.build_network(62, True, width=4, num_classes=CLASSES)
    check_norms(lesson, "3.2", network, "signal_norms(model, images, labels) of 30 blocks")


def other_points(network, batch):
    """What signal_norms gives for too many or too few tensors."""
    gradients = block_gradients(network, *batch)
    last_by_shape = {gradient.shape: gradient for gradient in gradients[1:]}

    def of(modules):
        return lambda: inner_gradients(network, *batch, modules)

    return {
        "the stem's output is among them; take the blocks' only": euclid(gradients),
        "the last block is left out": euclid(gradients[1:-1]),
        "there is one for each shape of output, its last block's: other blocks are not caught, or "
        "a later one takes the place of an earlier one, as in a dict": euclid(
            last_by_shape.values()
        ),
        "the head's output is among them; take the blocks' only": of(
            lambda twin: [*twin[1], twin[2]]
        ),
        "the stem's and the head's outputs are among them; take the blocks' only": of(
            lambda twin: [twin[0], *twin[1], twin[2]]
        ),
        "what the modules within the blocks output is among it; take the blocks' own outputs": of(
            lambda twin: list(twin[1].modules())[1:]
        ),
        "what the modules within model[1] output is among it; take the blocks' own outputs": of(
            lambda twin: twin[1].modules()
        ),
        "what all modules output is among it; take the blocks' own outputs": of(
            lambda twin: twin.modules()
        ),
    }


def last_block_cause(lesson, network, given):
    """Why the last block's norm comes alone, in words: that depends on where the hooks are."""
    twin = copy.deepcopy(network)
    with_hooks = []

    def look(head, inputs):
        with_hooks.extend(module for module in (twin[1], *twin[1]) if module._forward_hooks)

    twin[2].register_forward_pre_hook(look)
    with contextlib.suppress(Exception):
        measure(fresh_copy(lesson), "3.2", twin, given)
    if with_hooks == [twin[1]]:
        return (
            "it is the last block's alone, as from a hook on model[1]; register one on each block"
        )
    if len(with_hooks) > 1:
        return (
            "it is the last block's alone: each output takes the place of the one before, as where "
            "all hooks store under one key (a lambda in a loop sees the loop's last index)"
        )
    return "it is the last block's alone; keep the output of each block"


def signal_mistakes(network, batch):
    """What the known wrong ways give for signal_norms."""
    _, points = run_blocks(network, *batch)
    inputs_and_outputs = block_gradients(network, *batch)
    gradients = inputs_and_outputs[1:]
    norms = euclid(gradients)
    norms_at_inputs = euclid(inputs_and_outputs[:-1])
    in_eval_mode = block_gradients(network, *batch, training=False)
    of_summed_logits = block_gradients(network, *batch, loss=lambda logits, labels: logits.sum())

    def with_stem_in_its_own_mode():
        """The norms if all but the stem is in train mode."""
        images, labels = batch
        twin = copy.deepcopy(network).train()
        for module, own in zip(twin[0].modules(), network[0].modules()):
            module.training = own.training
        points = []
        for block in twin[1]:
            block.register_forward_hook(lambda block, inputs, output: points.append(output))
        loss = F.cross_entropy(twin(images), labels)
        return euclid(torch.autograd.grad(loss, points))

    def of_branches():
        return inner_gradients(network, *batch, lambda twin: [block.branch for block in twin[1]])

    def of_parameters(choose):
        """The norm for each block of the gradients with respect to choose(block)."""
        images, labels = batch
        twin = copy.deepcopy(network).train()
        loss = F.cross_entropy(twin(images), labels)
        norms = []
        for block in twin[1]:
            gradients = torch.autograd.grad(loss, choose(block), retain_graph=True)
            norms.append(math.hypot(*euclid(gradients)))
        return norms

    return {
        "the norms come from the last block to the first; backward hooks fire in that order": norms[
            ::-1
        ],
        "the norms are sorted by size; they belong in the order of the blocks": sorted(norms),
        "the stem runs in its own mode; undisturbed(model, training=True) is for all of it": (
            math.nan if network[0].training else with_stem_in_its_own_mode
        ),
        "they are the gradients at the blocks' inputs, not at their outputs": norms_at_inputs,
        "they are the gradients at the blocks' inputs, from the last block to the first; "
        "a backward hook's grad_output is the gradient at the output": norms_at_inputs[::-1],
        "they are the norms of the features, not of the gradients": euclid(points[1:]),
        "it is the sum of the absolute values, not the Euclidean norm": [
            gradient.double().abs().sum().item() for gradient in gradients
        ],
        "it is the mean of the absolute values, not the norm": [
            gradient.double().abs().mean().item() for gradient in gradients
        ],
        "it is the largest entry, not the norm": [
            gradient.abs().max().item() for gradient in gradients
        ],
        "the gradients are divided by the norms of the features": [
            norm / size for norm, size in zip(norms, euclid(points[1:]))
        ],
        "the loss does not depend on the tensors that are caught, such as clones; "
        "keep what the blocks return": [0] * len(norms),
        "the graph is cut after each block, as by a hook that returns a detached output; "
        "a hook should return nothing, and keep the output as it is": (
            [0] * (len(norms) - 1) + norms[-1:]
        ),
        "they are the gradients with respect to the blocks' parameters; "
        "take those with respect to the blocks' outputs": lambda: of_parameters(
            lambda block: list(block.parameters())
        ),
        "they are the gradients with respect to the blocks' first convolutions' weights; "
        "take those with respect to the blocks' outputs": lambda: of_parameters(
            lambda block: conv_weights(block)[:1]
        ),
        "they are the gradients with respect to the blocks' last convolutions' weights; "
        "take those with respect to the blocks' outputs": lambda: of_parameters(
            lambda block: conv_weights(block)[-1:]
        ),
        "the logits are summed; take the cross-entropy of logits and labels": euclid(
            of_summed_logits[1:]
        ),
        "the model is in eval mode; the loss is that of train mode": euclid(in_eval_mode[1:]),
        "softmax is applied before cross_entropy, which applies it itself": lambda: euclid(
            block_gradients(network, *batch, loss=cross_entropy_after_softmax)[1:]
        ),
        IN_BFLOAT16: lambda: under_autocast(lambda: euclid(block_gradients(network, *batch)[1:])),
        AVERAGED_OVER_CLASSES: [norm / CLASSES for norm in norms],
        "the squares are summed, but no root is taken": [norm**2 for norm in norms],
        "the loss is summed over the images, not averaged": [COUNT * norm for norm in norms],
        "they are the gradients before each block's last ReLU, at the branch or at its sum with "
        "the shortcut; take the block's output": of_branches,
        "they are means over the images of each image's norm; "
        "take one norm of the whole gradient": mean_row_norms(gradients),
        "it is the root of the mean square; the norm is the root of the sum": root_mean_squares(
            norms, gradients
        ),
    }


def cross_entropy_after_softmax(logits, labels):
    """What the loss is if softmax is applied twice."""
    return F.cross_entropy(logits.softmax(dim=1), labels)


# Task 3.3


def usable(values):
    """The values that have a logarithm."""
    return [value for value in values if 0 < value < math.inf]


def usable_start(values):
    """The values before the first that has no logarithm."""
    return list(itertools.takewhile(lambda value: 0 < value < math.inf, values))


def log_points(values):
    """(index, logarithm) of each value that has one."""
    return [(index, math.log(value)) for index, value in enumerate(values) if 0 < value < math.inf]


def fitted(values):
    """The slope of the least-squares line through the logarithms of the values that have one."""
    return slope_through(log_points(values))


def slope_through(points, weights=None):
    """The slope of the least-squares line through points (x, y), which may have weights."""
    weights = weights or [1] * len(points)
    x_mean = sum(w * x for w, (x, _) in zip(weights, points)) / sum(weights)
    y_mean = sum(w * y for w, (_, y) in zip(weights, points)) / sum(weights)
    covariance = sum(w * (x - x_mean) * (y - y_mean) for w, (x, y) in zip(weights, points))
    variance = sum(w * (x - x_mean) ** 2 for w, (x, _) in zip(weights, points))
    return covariance / variance


def call_change(lesson, values):
    """The learner's change_per_layer of a list, and the call in words."""
    what = f"change_per_layer([{', '.join(f'{value:.3g}' for value in values)}])"
    given = list(values)
    try:
        with calling(what):
            got = lesson.change_per_layer(given)
    except Wrong as wrong:
        raise wrong.because(change_crash(wrong.message, values)) from None
    if got is None and len(usable(values)) < 2:
        raise Wrong(f"{what} returned None, expected NaN: return math.nan.")
    if given != list(values):
        raise Wrong(f"{what} changes the list that it is given. Leave it, and its order.")
    return what, float(number(got, what))


def change_crash(message, values):
    """The likeliest mistake behind an exception in change_per_layer, in words, or None."""
    without_logarithm = ("math domain", "infinity", "infinite", "nan", "NaN", "inf", "SVD")
    too_few = ("ZeroDivision", "IndexError", "empty", "at least two", "StatisticsError")
    message = message.rpartition(" raised ")[2]  # not the call, which has the norms in it
    if len(usable(values)) < len(values) and any(word in message for word in without_logarithm):
        return "not all norms that are 0, NaN or infinite are left out; they have no logarithm"
    if len(usable(values)) < 2 and any(word in message for word in too_few):
        return "where fewer than two norms are left there is no line; return NaN"
    if "math domain" in message and min(values) < 1e-150:
        return f"something is 0 on the way, as the square of {min(values):g} is"
    return None


def check_change(lesson, values, expected):
    """Raise Wrong unless change_per_layer gives the expected factor."""
    what, got = call_change(lesson, values)
    if same_factor(got, expected):
        return
    message = f"{what} is {got:.6g}, expected {expected:.6g}."
    _, again = call_change(lesson, values)
    if not same_factor(again, got) and not math.isnan(again):
        raise Wrong(message, other_result_cause(lesson, values, again))
    if not math.isfinite(got):
        raise Wrong(message, not_finite_cause(values, got))
    mistakes = change_mistakes(values)
    if values != BEST_LINE:
        mistakes = those_that_explain_the_best_line(lesson, mistakes)
    cause = likeliest(mistakes, functools.partial(same_factor, got))
    if not cause and got == 0:
        cause = advice(
            "the factor becomes 0 on its way: it is rounded, or in a type that is too small "
            "for it, or in a sum with a larger number"
        )
    if not cause and any(same_factor(got, known) for known in with_constants(values)):
        cause = advice(
            "a small constant is added to each norm, or stands in for small ones, which changes "
            "the line; leave out those that are 0, and take the others as they are"
        )
    raise Wrong(f"{message}{cause}")


def other_result_cause(lesson, values, again):
    """Why change_per_layer gives another number when it is called again, in words."""
    _, first = call_change(fresh_copy(lesson), values)
    _, second = call_change(fresh_copy(lesson), values)
    if same_factor(first, second):
        return f"something is kept from call to call: called again, it gives {again:.6g}"
    return (
        f"the result depends on random numbers: called again, it gives {again:.6g}. "
        "The slope of the best line has a formula"
    )


def those_that_explain_the_best_line(lesson, mistakes):
    """Of these mistakes those that give what the learner's code gives for BEST_LINE, too.

    All of them if that is correct.
    """
    _, got = call_change(lesson, BEST_LINE)
    if same_factor(got, math.exp(fitted(BEST_LINE))):
        return mistakes
    explain = {}
    for mistake, value in change_mistakes(BEST_LINE).items():
        with contextlib.suppress(Exception):
            if same_factor(got, value() if callable(value) else value):
                explain[mistake] = mistakes.get(mistake, math.nan)
    return explain


def same_factor(got, expected):
    """Whether two factors of any size agree to 4 digits, which float32 gives."""
    return math.isclose(got, expected, rel_tol=1e-4)


def exp(exponent):
    """math.exp, but infinity where that raises an error."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf


def slopes_of_pairs(points):
    """The slopes of the lines through any two points."""
    return [(b - a) / (j - i) for (i, a), (j, b) in itertools.combinations(points, 2)]


def change_mistakes(values):
    """What the known wrong ways give for change_per_layer."""
    norms = usable(values)
    ratios = [after / before for before, after in zip(norms, norms[1:])]
    whole_change = norms[-1] / norms[0]
    slope = fitted(values)
    points = log_points(values)
    logarithms = [y for _, y in points]
    slope_from_origin = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    steps = [(b - a) / (i - h) for (h, a), (i, b) in itertools.pairwise(points)]
    slope_of_norms = slope_through([(place, exp(y)) for place, y in points])
    start = usable_start(values)
    if len(set(logarithms)) > 1:
        # The line for the places as a function of the logarithms, turned round.
        correlation = statistics.correlation([x for x, _ in points], logarithms)
        slope_of_places = slope / correlation**2
    else:
        correlation = math.nan
        slope_of_places = math.nan
    places = [x - (len(values) - 1) / 2 for x, _ in points]  # from the middle of all places
    squares = sum(x * x for x in places)
    length = len(values)
    squares_of_all = length * (length**2 - 1) / 12
    y_mean = statistics.fmean(logarithms)
    x_sum = sum(x for x, _ in points)
    known = {
        "the line gives places for logarithms; it should give logarithms for places": exp(
            slope_of_places
        ),
        "it is the median of the ratios, not a line through the logarithms": exp(
            statistics.median_low(steps)
        ),
        "it is the factor from each layer to the one before; turn it round": exp(-slope),
        "the slope's sign is dropped": exp(abs(slope)),
        "its square root is returned; that two layers make a block, the script sees to": exp(
            slope / 2
        ),
        "1 is subtracted from the factor; return the factor itself": exp(slope) - 1,
        "it is the median of the slopes between any two norms, not the slope of the best line": (
            lambda: exp(statistics.median(slopes_of_pairs(points)))
        ),
        "equal norms get the same place; each has its own, which enumerate gives": (
            lambda: (
                exp(slope_through([(values.index(value), math.log(value)) for value in norms]))
                if len(set(norms)) < len(norms)
                else math.nan
            )
        ),
        "large norms weigh more in the fit; in this one all count alike": (
            lambda: exp(slope_through(points, [exp(y) for _, y in points]))
        ),
        "large norms weigh more in the fit, by their square roots; in this one all count alike": (
            lambda: exp(slope_through(points, [exp(y / 2) for _, y in points]))
        ),
        "large norms weigh more in the fit, by their squares, as with np.polyfit's w=norms; "
        "in this one all count alike": (
            lambda: exp(slope_through(points, [exp(2 * y) for _, y in points]))
        ),
        "it is the slope for places that are scaled to -1 to 1, as Polynomial.fit does; "
        "take that for the places themselves, which convert() gives": exp(
            slope * (points[-1][0] - points[0][0]) / 2
        ),
        "it is the mean of local slopes, as np.gradient gives, not the slope of the best line": (
            lambda: exp(numpy.gradient(logarithms, [x for x, _ in points]).mean())
        ),
        "norms that are left out are filled in by interpolation, and count in the fit": (
            lambda: exp(slope_through(list(enumerate(numpy.interp(range(length), *zip(*points))))))
        ),
        "the number of norms counts those that are left out": lambda: exp(
            (length * sum(x * y for x, y in points) - x_sum * sum(logarithms))
            / (length * sum(x * x for x, _ in points) - x_sum**2)
        ),
        "the sum of squares of the places counts those of norms that are left out": lambda: exp(
            sum((x - x_sum / len(points)) * y for x, y in points)
            / sum((x - x_sum / len(points)) ** 2 for x in range(length))
        ),
        "an infinite norm counts as the largest float, which np.nan_to_num makes of it": (
            lambda: exp(
                fitted([sys.float_info.max if value == math.inf else value for value in values])
            )
        ),
        "the places' mean and sum of squares count those of norms that are left out": lambda: exp(
            sum(x * (y - y_mean) for x, y in zip(places, logarithms)) / squares_of_all
        ),
        "it is the slope itself; e to the slope is the factor": slope,
        "it is e to the line's start, not to its slope": exp(
            statistics.fmean(logarithms) - slope * statistics.fmean(x for x, _ in points)
        ),
        "the line goes through the norms themselves; take their logarithms": slope_of_norms,
        "the line goes through the norms themselves, and its slope is divided by their mean; "
        "take their logarithms": lambda: 1 + slope_of_norms / statistics.fmean(norms),
        "the line goes through the norms themselves, and e is raised to its slope; "
        "take their logarithms": exp(slope_of_norms),
        "it is e to the correlation coefficient, not to the slope": exp(correlation),
        "the mean of the places counts those of norms that are left out": lambda: exp(
            sum(x * (y - y_mean) for x, y in zip(places, logarithms)) / squares
        ),
        "the places are counted from the middle of all, also of those that are left out; "
        "subtract the mean of those that remain": lambda: exp(
            sum(x * y for x, y in zip(places, logarithms)) / squares
        ),
        "norms after one that is 0, NaN or infinite are left out as well": (
            lambda: exp(fitted(start))
        ),
        "the logarithm has base 10, but e is raised to the slope": exp(slope / math.log(10)),
        "the logarithm has base 2, but e is raised to the slope": exp(slope / math.log(2)),
        "norms that are left out should keep their places: do not count the others anew": exp(
            fitted(norms)
        ),
        "it is the mean of the ratios, not a line through the logarithms": (
            sum(ratios) / len(ratios)
        ),
        "only the first and the last norm count, as in the mean of all steps; fit a line": (
            whole_change ** (1 / len(ratios))
        ),
        "it divides by the number of norms; there is one step fewer": (
            whole_change ** (1 / len(norms))
        ),
        "it is the change over all layers; take that of one": whole_change,
        "the line is forced through one point; subtract the mean of the indices first": exp(
            slope_from_origin
        ),
        "one of its sums is divided by n, the other by n - 1": (
            lambda: exp(slope * len(norms) / (len(norms) - 1))
        ),
        "norms below 2e-308 are left out; only those that are 0 should be": (
            lambda: exp(fitted([0 if value < sys.float_info.min else value for value in values]))
        ),
    }
    if len(steps) % 2 == 0:
        known["it is the median of the steps between neighbours, not the slope of a line"] = exp(
            statistics.median(steps)
        )
    return known


def with_constants(values):
    """What change_per_layer gives where a small constant is added to each norm, or replaces it."""
    results = []
    for power in (*range(4, 41), 100, 200, 300):
        constant = 10.0**-power
        moved = [value + constant if value >= 0 else value for value in values]
        raised = [max(value, constant) if value >= 0 else value for value in values]
        results.append(exp(fitted(moved)))
        results.append(exp(fitted(raised)))
    return results


def not_finite_cause(values, got):
    """Why change_per_layer gives NaN or infinity where it should not, in words, or None."""
    norms = usable(values)
    if len(norms) < len(values):
        if len(usable_start(values)) < 2:  # what stops at the first of them gives NaN as well
            return None
        return (
            "not all norms that are 0, NaN or infinite are left out, or one of them makes the "
            "whole result NaN; take the line through the others"
        )
    if len(set(norms)) < len(norms):
        return "equal norms get the same place; each has its own, which enumerate gives"
    if min(norms) < 1e-30 and max(norms) > 1e30:
        return (
            "something is too large or too small for its type on the way; take each norm's own "
            "logarithm, and compute in Python's floats or in float64"
        )
    if min(norms) < 1e-30:
        return (
            "small norms are left out, or become 0 in float32 or when they are squared; "
            "only those that are 0 in Python's floats should be left out"
        )
    if max(norms) > 1e30:
        return "large norms are left out, or are infinite in float32; use float64"
    if math.isnan(got) and max(norms) > min(norms):
        return f"NaN is for fewer than two norms, and here there are {len(norms)}"
    return None


BEST_LINE = [1.0, 3.0, 2.0, 8.0, 5.0]  # all of them count


@pytest.mark.task("3.3")
def test_change_is_that_of_the_best_line(lesson):
    for values in (
        BEST_LINE,
        [4.0, 9.0, 4.5, 0.3, 1.1, 0.7],
        [2.0, 6.0],
        [1.0, 3.0, 3.0, 9.0, 3.0],  # some are equal
    ):
        check_change(lesson, values, math.exp(fitted(values)))


@pytest.mark.task("3.3")
@pytest.mark.parametrize("factor", [1.21, 0.41, 1.0, 30.0, 1e-20])
@pytest.mark.parametrize("start", [1.0, 3e-9, 2e5])
def test_change_of_a_geometric_series_is_exact(lesson, factor, start):
    check_change(lesson, [start * factor**i for i in range(9)], factor)


@pytest.mark.task("3.3")
def test_change_leaves_out_what_has_no_logarithm(lesson):
    nan = float("nan")  # another object than math.nan
    infinity = float("inf")  # and than math.inf
    values = [1.0, 3.0, nan, 8.0, infinity, 32.0]
    check_change(lesson, values, math.exp(fitted(values)))
    check_change(lesson, [5.0, 0.0, 0.05, 0.0, 0.0005], 0.1)
    check_change(lesson, [3.0, 0.0, 12.0], 2)
    check_change(lesson, [7.0, 0.0, 1.0, math.inf, 6.0, 9.0], math.exp(fitted([7, 0, 1, 0, 6, 9])))
    check_change(lesson, [0.0, 0.0, 1e-40, 1e-38, 1e-36], 100)


@pytest.mark.task("3.3")
def test_change_of_a_list_that_has_changed(lesson):
    what = "change_per_layer(norms), called again after the numbers in the list norms have changed,"
    norms = [1.0, 2.0, 4.0]
    with calling(what):
        lesson.change_per_layer(norms)
        norms[:] = [1.0, 3.0, 9.0]
        got = float(number(lesson.change_per_layer(norms), what))
    if not same_factor(got, 3):
        mistake = None
        if same_factor(got, 2):
            mistake = "what an earlier call found is kept and returned again"
        raise Wrong(f"{what} is {got:.6g}, expected 3.", mistake)


@pytest.mark.task("3.3")
def test_change_of_whole_numbers(lesson):
    check_change(lesson, [8.0, 4.0, 2.0, 0.0, 0.5], 0.5)
    what, got = call_change(lesson, [8, 4, 2, 0, 0.5])  # the same, as on the page
    if not same_factor(got, 0.5):
        raise Wrong(
            f"{what}, where all but the last are ints, is {got:.6g}, expected 0.5, "
            "which is what you return for the same numbers as floats."
        )


@pytest.mark.task("3.3")
@pytest.mark.parametrize(
    "values",
    [
        [3e-60, 5e-55, 1e-58, 2e-57],
        [1e-310, 1e-306, 1e-308, 5e-307],
        [5e-324, 1.5e-323],
        [1e-36, 2e-38, 1e-40, 5e-41, 3e-44],
        [3e-24, 5e-23, 1e-24, 2e-25, 8e-24],
        [1e30, 1e45, 1e80, 2e90],
        [1e308, 1e280, 1e290],
        [1e-200, 1.0, 1e200],
        [1e200, 1.0, 1e-200],
        [1e-200, 1.0, 1e150, 1e155],
        [1e-150, 1e-155, 1e180, 1e200],
        [1.0, 1e-310],
    ],
    ids=str,
)
def test_change_of_norms_of_any_size(lesson, values):
    check_change(lesson, values, math.exp(fitted(values)))


@pytest.mark.task("3.3")
def test_change_of_as_many_norms_as_deep_networks_have(lesson):
    norms = [0.9**place for place in range(110)] + [0.9**110 * 1.2**place for place in range(53)]
    given = list(norms)
    what = "change_per_layer(norms) of 163 norms, which fall and then rise,"
    with calling(what):
        got = float(number(lesson.change_per_layer(given), what))
    expected = math.exp(fitted(norms))
    if not agree([got], [expected]):
        raise Wrong(f"{what} is {got:.6g}, expected {expected:.6g}. All of them count.")


@pytest.mark.task("3.3")
@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.0, 2.0, math.nan], [3.0], []], ids=str)
def test_change_is_nan_where_there_is_no_line(lesson, values):
    what, got = call_change(lesson, values)
    if not math.isnan(got):
        raise Wrong(
            f"{what} is {got:.4g}, expected NaN: fewer than two of its norms have a logarithm."
        )


# Task 3.4


def correlate(lesson, network, images, neighbours, what):
    """The learner's gradient_correlation, as a number."""
    given = {"images": images, "neighbours": neighbours}
    with calling(what), taken_as_they_are(what, given):
        return float(number(lesson.gradient_correlation(network, images, neighbours), what))


def input_gradients(model, inputs, reduce=torch.sum):
    """The gradient of reduce(logits) with respect to each input, flattened: (count, size)."""
    inputs = inputs.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(reduce(model(inputs)), inputs)
    return gradients.flatten(1).double()


def cosines(vectors, others):
    """The cosine similarity of each vector with the other one of the same index."""
    return (F.normalize(vectors, eps=0) * F.normalize(others, eps=0)).sum(dim=1)


def expected_correlation(network, images, neighbours):
    """What gradient_correlation should give."""
    twin = copy.deepcopy(network).eval()
    return cosines(input_gradients(twin, images), input_gradients(twin, neighbours)).mean().item()


def correlation_mistakes(lesson, network, images, neighbours):
    """What the known wrong ways give for gradient_correlation."""
    twin = copy.deepcopy(network).eval()
    in_train_mode = copy.deepcopy(network).train()
    first = input_gradients(twin, images)
    second = input_gradients(twin, neighbours)
    first_images = first.reshape(images.shape)
    second_images = second.reshape(images.shape)

    def of_train_mode():
        first = input_gradients(in_train_mode, images)
        second = input_gradients(in_train_mode, neighbours)
        return cosines(first, second).mean()

    def of_centred():
        first_centred = first - first.mean(dim=1, keepdim=True)
        second_centred = second - second.mean(dim=1, keepdim=True)
        return cosines(first_centred, second_centred).mean()

    def of_all_pairs():
        return (F.normalize(first, eps=0) @ F.normalize(second, eps=0).T).mean()

    def over_channels():
        return F.cosine_similarity(first_images, second_images, dim=1, eps=0)

    def of_each_channel():
        return cosines(
            first_images.flatten(2).flatten(0, 1), second_images.flatten(2).flatten(0, 1)
        )

    def of_channel_means():
        return cosines(first_images.mean((2, 3)), second_images.mean((2, 3)))

    def of_each_logit():
        count = twin(images).shape[1]
        similarities = []
        for index in range(count):
            pick = functools.partial(sum_of_logit, index=index)
            at_images = input_gradients(twin, images, pick)
            at_neighbours = input_gradients(twin, neighbours, pick)
            similarities.append(cosines(at_images, at_neighbours))
        return torch.stack(similarities).mean()

    def at_equal_inputs():
        """What the learner's function gives where both inputs are the images."""
        return correlate(lesson, network, images, images, "")

    def ratio_of_sums():
        sizes = first.norm(dim=1) * second.norm(dim=1)
        return (first * second).sum() / sizes.sum()

    def products_alone():
        squares = first.square().sum(dim=1).mean().item()
        if not math.isclose(at_equal_inputs(), squares, rel_tol=1e-3):
            return math.nan  # another mistake whose result is near 0, too
        return (first * second).sum(dim=1).mean()

    def cut_at_zero():
        if abs(at_equal_inputs() - 1) > 1e-4:
            return math.nan  # it is 0 for another reason
        return cosines(first, second).mean().clamp(min=0)

    def of_logits():
        similarity = cosines(twin(images), twin(neighbours)).mean()
        return similarity if similarity < 0.999 else math.nan  # or any 1 would be called that

    def of(reduce):
        """The value for another number of the logits than their sum."""
        first = input_gradients(twin, images, reduce)
        second = input_gradients(twin, neighbours, reduce)
        return cosines(first, second).mean()

    def of_zero_gradients():
        """What the learner's function gives where all gradients are 0."""
        constant = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10))
        nn.init.zeros_(constant[1].weight)
        return correlate(lesson, constant, images, neighbours, "")

    def at_same_inputs():
        if of_zero_gradients() == 1:
            return math.nan
        usual = correlate(lesson, make_network(lesson), images, neighbours, "")
        return 1 if math.isclose(usual, 1, abs_tol=1e-4) else math.nan  # logits may be alike

    def of_alternating_rows():
        rows = torch.cat([first, second])
        return cosines(rows[::2], rows[1::2]).mean()

    def of_chunks(count):
        chunks = cosines(first, second).split(count)
        return torch.stack([chunk.mean() for chunk in chunks]).mean()

    in_chunks = {
        f"the images go through in chunks of {count}, and a smaller last chunk counts as much as "
        "the others": functools.partial(of_chunks, count)
        for count in range(2, len(images))
        if len(images) % count
    }
    return in_chunks | {
        "layers of the model are in train mode; "
        "in eval mode one image has no say in another's logits": of_train_mode,
        "each image is compared with the next one, as if images and neighbours alternated; "
        "after torch.cat the neighbours come after all images": of_alternating_rows,
        "it is an angle, scaled to be from -1 to 1; take the cosine itself": lambda: (
            1 - 2 / math.pi * cosines(first, second).clamp(-1, 1).acos().mean()
        ),
        IN_BFLOAT16: lambda: under_autocast(lambda: of(torch.sum)),
        "all images' gradients are taken as one long vector; "
        "take a cosine similarity for each image": lambda: cosines(
            first.reshape(1, -1), second.reshape(1, -1)
        ).mean(),
        "the cosine similarity is taken over the channels at each position; "
        "take one over an image's whole gradient, flattened": lambda: over_channels().mean(),
        "the mean of each gradient is subtracted; "
        "the cosine similarity is that of the gradients as they are": of_centred,
        "it is the median of the cosine similarities; take their mean": lambda: cosines(
            first, second
        ).median(),
        "each value of the gradients is normalised over the batch; flatten each image's gradient, "
        "and divide it by its own norm": lambda: (
            (F.normalize(first, dim=0, eps=0) * F.normalize(second, dim=0, eps=0)).sum(0).mean()
        ),
        "each value of the gradients is normalised over the batch (dim=0); "
        "divide each image's gradient by its own norm (dim=1)": lambda: (
            (F.normalize(first, dim=0, eps=0) * F.normalize(second, dim=0, eps=0)).sum(1).mean()
        ),
        "the sum of the inner products is divided by the sum of the norms' products; "
        "divide pair by pair, then average": ratio_of_sums,
        "it is the cosine similarity of two mean gradients; average those of the pairs": (
            lambda: cosines(first.mean(dim=0)[None], second.mean(dim=0)[None]).mean()
        ),
        "the squares of the cosine similarities are averaged": lambda: (
            cosines(first, second).square().mean()
        ),
        "a cosine similarity is taken for each logit, and these are averaged; "
        "differentiate the sum of the logits": of_each_logit,
        channel_cause(lesson, images): lambda: of_each_channel().mean(),
        "each channel's gradient is averaged over the positions; flatten it": lambda: (
            of_channel_means().mean()
        ),
        "only the first channel of the gradient counts": lambda: cosines(
            first_images[:, 0].flatten(1), second_images[:, 0].flatten(1)
        ).mean(),
        "the logits are squared; take their sum": lambda: of(lambda logits: logits.square().sum()),
        "the logits go through softmax; take the logits themselves": lambda: of(
            lambda logits: logits.softmax(dim=1).square().sum()
        ),
        "the loss is differentiated; take the sum of the logits": lambda: of(
            lambda logits: F.cross_entropy(logits, logits.argmax(dim=1))
        ),
        "negative cosine similarities count as 0; they count as they are": lambda: (
            cosines(first, second).clamp(min=0).mean()
        ),
        "the second gradient is added to the first, as in .grad; take each by itself": lambda: (
            cosines(first, first + second).mean()
        ),
        "the absolute values of the cosine similarities are averaged": lambda: (
            cosines(first, second).abs().mean()
        ),
        "it is 1 minus the cosine similarity; return the similarity": lambda: (
            1 - cosines(first, second).mean()
        ),
        "the cosine similarities are summed, not averaged": lambda: cosines(first, second).sum(),
        "the gradients are not divided by their norms": products_alone,
        "a negative mean is returned as 0; a cosine similarity may be from -1 to 1": cut_at_zero,
        "it is the angle, not its cosine": lambda: (
            cosines(first, second).clamp(-1, 1).acos().mean()
        ),
        "it compares the logits, not the gradients": of_logits,
        "the logits go through log_softmax; take the logits themselves": lambda: of(
            lambda logits: logits.log_softmax(dim=1).sum()
        ),
        "each gradient is normalised over its channels at each position; "
        "flatten it first": lambda: over_channels().flatten(1).sum(dim=1).mean(),
        "the products are averaged over an image's values; "
        "sum them, and average over the pairs": lambda: (
            cosines(first, second).mean() / first.shape[1]
        ),
        "every image is compared with all neighbours, not only with its own": of_all_pairs,
        "only the first image counts": lambda: cosines(first, second)[0],
        "it compares the inputs, not the gradients": lambda: cosines(
            images.flatten(1), neighbours.flatten(1)
        ).mean(),
        "it is the gradient of the first logit, not of all of them summed": lambda: of(
            lambda logits: logits[:, 0].sum()
        ),
        "only the first ten logits are summed; take all that the model has": lambda: of(
            lambda logits: logits[:, :10].sum()
        ),
        "it is the gradient of the largest logit, not of all of them summed": lambda: of(
            lambda logits: logits.amax(dim=1).sum()
        ),
        "both gradients are taken at the same inputs": at_same_inputs,
        "it is 1 whatever the gradients are": lambda: 1 if of_zero_gradients() == 1 else math.nan,
        "the gradients of different images are compared, "
        "not those of an image and its neighbour": lambda: cosines(first[:-1], first[1:]).mean(),
    }


def channel_cause(lesson, images):
    """Why each channel is compared by itself, in words."""
    if len(images) == 1 and is_right(lesson, "3.4"):
        return (
            "with one image the dimension of the batch is gone, as after squeeze(), so that each "
            "channel is compared by itself; keep that dimension"
        )
    return "each channel of an image is compared by itself; flatten the whole gradient"


def sum_of_logit(logits, index):
    """The sum over the images of one of the logits."""
    return logits[:, index].sum()


def is_constant(lesson, got):
    """Whether the learner's correlation is the same number for an ordinary network, too."""
    images, _ = make_batch()
    neighbours, _ = make_batch(seed=7)
    return correlate(lesson, make_network(lesson), images, neighbours, "") == got


def check_correlation(
    lesson,
    network,
    images,
    neighbours,
    what,
    why,
    tolerance,
    if_nan="A gradient of 0 divided by its norm is NaN: take each image's whole gradient at once.",
):
    """Raise Wrong, with the mistake that gives what was got, unless the correlation is correct.

    if_nan: what to say of NaN.
    """
    expected = expected_correlation(network, images, neighbours)
    untouched = copy.deepcopy(network)
    got = correlate(lesson, network, images, neighbours, what)
    if abs(got - expected) <= tolerance:
        return
    given = {"images": images, "neighbours": neighbours}
    mistakes = correlation_mistakes(lesson, untouched, images, neighbours)

    def is_got(known):
        return abs(got - float(known)) < 1e-5 * max(1, abs(got))

    if is_right(lesson, "3.4", untouched, given):
        hint = advice(KEPT)
    elif context_cause(lesson, "3.4", untouched, given):
        hint = advice(context_cause(lesson, "3.4", untouched, given))
    elif math.isnan(got):
        hint = advice(NAN_TOO_EARLY) if gives_nan_too_early(lesson) else f" {if_nan}"
    else:
        hint = likeliest(mistakes, is_got)
    if not hint and abs(got) > 1.001:
        hint = " A mean of cosine similarities lies between -1 and 1."
    if not hint and ignores_statistics(lesson, untouched, images, neighbours):
        hint = advice(
            "the model's running statistics have no say in it: they are replaced, as by "
            "set_statistics, or the batch's are taken; measure with those that the model has"
        )
    raise Wrong(f"{what} is {got:.5f}, expected {expected:.5f}{why}.{hint}")


NAN_TOO_EARLY = (
    "NaN comes as soon as one number in a gradient is 0; "
    "it is for an image whose whole gradient is 0"
)


def gives_nan_too_early(lesson):
    """Whether the correlation is right, but NaN where one number in each gradient is 0."""
    images, _ = make_batch()
    neighbours, _ = make_batch(seed=7)
    given = {"images": images, "neighbours": neighbours}
    torch.manual_seed(draw(0))
    linear = nn.Linear(images[0].numel(), 7)
    network = nn.Sequential(Cube(), nn.Flatten(), linear)
    if not is_right(lesson, "3.4", network, given):
        return False
    nn.init.zeros_(linear.weight[:, 0])
    with contextlib.suppress(Wrong):
        return math.isnan(correlate(fresh_copy(lesson), network, images, neighbours, ""))
    return False


def ignores_statistics(lesson, network, images, neighbours):
    """Whether the learner's correlation depends on the weights, but not on the statistics."""
    other_statistics = copy.deepcopy(network)
    other_weights = copy.deepcopy(network)
    for module in other_statistics.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(0.5)
    nn.init.normal_(next(other_weights.parameters()))
    networks = (network, other_statistics, other_weights)
    expected = [expected_correlation(network, images, neighbours) for network in networks]
    with contextlib.suppress(Wrong):
        got, *others = [
            correlate(fresh_copy(lesson), copy.deepcopy(network), images, neighbours, "")
            for network in networks
        ]
        return got == others[0] != others[1] and expected[0] != expected[1]
    return False


@pytest.mark.task("3.4")
@KINDS
@START
def test_correlation_is_the_mean_cosine_of_the_input_gradients(lesson, skip, batch_norm, training):
    network = make_network(lesson, skip, batch_norm, training)
    images, _ = make_batch()
    neighbours, _ = make_batch(seed=7)  # so far away that some cosine similarities are negative
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()  # or ReLUs let nothing through, and the gradient is 0
    what = (
        f"gradient_correlation(model, images, neighbours) of a network of {CLASSES} classes "
        f"that comes in {mode_name(training)} mode"
    )
    why = ", the mean over the pairs of the cosine similarity"
    check_correlation(lesson, network, images, neighbours, what, why, 1e-4)


@pytest.mark.task("3.4")
def test_correlation_of_a_linear_network_is_one(lesson):
    torch.manual_seed(draw(0))
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Flatten(),
        nn.LazyLinear(8),
        nn.BatchNorm1d(8),
        nn.Dropout(0.5),
        nn.Linear(8, 7),
    )
    images, _ = make_batch()
    neighbours, _ = make_batch(seed=5)
    network(images)
    randomised(network)
    what = "gradient_correlation(model, images, neighbours) of a network of 7 classes without ReLUs"
    why = ": in eval mode its gradient is the same everywhere, even with batch norm and dropout"
    check_correlation(lesson, network, images, neighbours, what, why, 1e-5)


@pytest.mark.task("3.4")
def test_correlation_of_a_single_pair(lesson):
    network = make_network(lesson, batch_norm=False)
    images, _ = make_batch()
    noise, _ = make_batch(seed=7)
    images, neighbours = images[:1], images[:1] + 0.3 * noise[:1]
    what = "gradient_correlation(model, one image, its neighbour)"
    check_correlation(lesson, network, images, neighbours, what, "", 1e-4)


@pytest.mark.task("3.4")
@pytest.mark.parametrize("batch_norm", [False, True], ids=["without batch norm", "with batch norm"])
def test_correlation_does_not_depend_on_the_gradients_size(lesson, batch_norm):
    network = shrunk(make_network(lesson, batch_norm=batch_norm))
    images, _ = make_batch()
    noise, _ = make_batch(seed=7)
    neighbours = images + 0.1 * noise
    expected = expected_correlation(network, images, neighbours)
    what = (
        "gradient_correlation(model, images, neighbours) of a network "
        "whose gradients are about 1e-25"
    )
    got = correlate(lesson, network, images, neighbours, what)
    if abs(got - expected) <= 1e-4:
        return
    if is_right(lesson, "3.4", network, {"images": images, "neighbours": neighbours}):
        cause = KEPT
    elif is_constant(lesson, got):
        cause = "it is 1 whatever the gradients are" if got == 1 else None
    else:
        larger = shrunk(make_network(lesson, batch_norm=batch_norm), 1e-17)
        of_larger = correlate(lesson, larger, images, neighbours, what)
        is_larger_right = abs(of_larger - expected_correlation(larger, images, neighbours)) < 1e-4
        cause = tiny_gradients_cause(got, of_larger, is_larger_right)
        if cause == IN_FLOAT32 and not is_right_in_float64(lesson, network, images, neighbours):
            cause = "small norms become 0 in float32, or are taken for 0; keep them, in float64"
    raise Wrong(f"{what} is {got:.5f}, expected {expected:.5f}, as for larger ones.", cause)


class Cube(nn.Module):
    """The cube of each number: the gradient is tiny at small numbers and huge at large ones."""

    def forward(self, x):
        return x**3


@pytest.mark.task("3.4")
def test_correlation_of_images_whose_gradients_differ_in_size(lesson):
    network = nn.Sequential(Cube(), make_network(lesson, batch_norm=False))
    images, _ = make_batch()
    noise, _ = make_batch(seed=7)
    scales = torch.logspace(4, -9, COUNT).reshape(-1, 1, 1, 1)
    neighbours = scales * (images + 0.3 * noise)
    images = scales * images
    what = (
        "gradient_correlation(model, images, neighbours) where the gradient at the last image "
        "is about 1e-26 of that at the first"
    )
    why = ": each pair counts alike"
    if_nan = (
        "A norm of 0 divided by itself is NaN, and in float32 the square of 1e-26 is 0: "
        "divide each gradient by its own norm, however small, in float64."
    )
    check_correlation(lesson, network, images, neighbours, what, why, 1e-4, if_nan)


IN_FLOAT32 = (
    "the norms are computed in float32, where the square of 1e-25 is 0; "
    "make the gradients float64 first"
)


def is_right_in_float64(lesson, network, images, neighbours):
    """Whether the correlation is right where network and images are in float64 from the start."""
    inputs = (copy.deepcopy(network).double(), images.double(), neighbours.double())
    with contextlib.suppress(Wrong):
        return abs(correlate(lesson, *inputs, "") - expected_correlation(*inputs)) < 1e-4
    return False


def tiny_gradients_cause(got, of_larger, is_larger_right):
    """Why a correlation of tiny gradients is wrong, in words, or None.

    of_larger: that of gradients of about 1e-17, whose squares float32 has.
    """
    eps = (
        "an eps stands in for the tiny norms; "
        "F.cosine_similarity and F.normalize have one unless you give eps=0"
    )
    if math.isnan(of_larger):
        return "small norms are taken for 0; only a norm of exactly 0 gives NaN"
    if math.isnan(got) or got == 1:
        return IN_FLOAT32
    if got == 0 and is_larger_right:
        return (
            "tiny numbers are multiplied in float32, where 1e-25 times 1e-25 is 0; "
            "make the gradients float64 first"
        )
    if abs(got) < 1e-5 and not is_larger_right:
        return eps
    return None


@pytest.mark.task("3.4")
@pytest.mark.parametrize("dead", [COUNT, 1], ids=["all", "one"])
@pytest.mark.parametrize("where", ["images", "neighbours"])
def test_correlation_is_nan_if_a_gradient_is_zero(lesson, where, dead):
    images, _ = make_batch()
    images = images.abs()
    neighbours = images + 0.1
    hidden = nn.Linear(images[0].numel(), 4)
    network = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(4, 10))
    with torch.no_grad():
        hidden.weight.fill_(0.1)
        hidden.bias.zero_()
        inputs = images if where == "images" else neighbours
        inputs[:dead] *= -1  # no ReLU lets anything through
    what = "gradient_correlation(model, images, neighbours)"
    got = correlate(lesson, network, images, neighbours, what)
    if math.isnan(got):
        return
    cause = (
        "an eps, nan_to_num or nanmean hides the division by 0, or pairs with a zero are left out"
    )
    if is_right(lesson, "3.4", network, {"images": images, "neighbours": neighbours}):
        cause = KEPT
    elif is_constant(lesson, got) or not is_right(lesson, "3.4"):
        cause = None
    elif not any(math.isclose(got, known, abs_tol=1e-5) for known in (0, 1, 1 - dead / COUNT)):
        cause = None  # all other cosine similarities are 1
    raise Wrong(
        f"{what} is {got:.5f} where the gradient at {dead} of {COUNT} {where} is 0, expected NaN.",
        cause,
    )


# Tasks 3.1, 3.2 and 3.4: what they have in common

MEASURES = {
    "3.1": "gradient_norms",
    "3.2": "signal_norms",
    "3.4": "gradient_correlation",
}


def of_tasks(*tasks):
    """A test for each of these tasks."""
    cases = [pytest.param(task, marks=pytest.mark.task(task), id=task) for task in tasks]
    return pytest.mark.parametrize("task", cases)


def given_to(task, count=COUNT):
    """What a task's measure takes beside the model: {its name: tensor}."""
    images, labels = make_batch(count=count)
    images.grad = torch.ones_like(images)  # left over from something else
    if task == "3.4":
        noise, _ = make_batch(seed=7, count=count)
        neighbours = images + 0.1 * noise
        neighbours.grad = torch.ones_like(neighbours)
        return {"images": images, "neighbours": neighbours}
    return {"images": images, "labels": labels}


def call_of(task):
    """The call of a task's measure, in words."""
    return f"{MEASURES[task]}(model, {', '.join(given_to(task))})"


def measure(lesson, task, network, given):
    """Call a task's measure."""
    return getattr(lesson, MEASURES[task])(network, *given.values())


def disturbed(network):
    """The network in a state in which every slip shows, with somebody else's hook on each block."""
    disturb(network)
    for block in network[1]:
        block.register_forward_hook(somebody_elses_hook)
    for module in network.modules():
        module._backward_hooks.clear()  # torch.func does not work with backward hooks
    return network


def expected_of(task, network, given):
    """What a task's measure should give, as a list of numbers."""
    if task == "3.1":
        return weight_norms(network, tuple(given.values()))
    if task == "3.2":
        return euclid(block_gradients(network, *given.values())[1:])
    return [expected_correlation(network, *given.values())]


@contextlib.contextmanager
def taken_as_they_are(what, given):
    """Raise Wrong if the tensors given, {name: tensor}, are changed meanwhile."""
    before = {name: frozen_copy(tensor) for name, tensor in given.items()}
    yield
    for name, tensor in given.items():
        if not same_tensor(tensor, before[name]):
            raise Wrong(f"{what} changes the {name} that it is given. Take them as they are.")


def measured(lesson, task, network, given, what):
    """What a task's measure gives, as a list of numbers."""
    with differentiating(what), taken_as_they_are(what, given):
        got = measure(lesson, task, network, given)
    if task == "3.4":
        return [float(number(got, what))]
    return numbers(got, what)


def check_measure(lesson, task, network, given, what, mistakes):
    """Raise Wrong, with the mistake that gives what was got, unless a measure gives its numbers."""
    expected = expected_of(task, network, given)
    got = measured(lesson, task, network, given, what)
    if not agree(got, expected) and is_right(lesson, task, network, given):
        mistakes = {KEPT: got}
    check_numbers(numbers_of(got, what, len(expected), mistakes), expected, what, mistakes)


def is_right(lesson, task, network=None, given=None):
    """Whether a task's measure, in a fresh copy of the learner's file, is right at first."""
    original = network or make_network(lesson)
    network = copy.deepcopy(original)
    for parameter, own in zip(network.parameters(), original.parameters()):
        parameter.grad = frozen_copy(own.grad)  # which a deep copy leaves out
    given = given or given_to(task)
    with contextlib.suppress(Exception):
        expected = expected_of(task, network, given)
        return agree(measured(fresh_copy(lesson), task, network, given, ""), expected)
    return False


NEVER_ENTERED = "undisturbed(...) alone does nothing; write with in front of it"
RUNS_OUTSIDE = (
    "the model, or a part of it, runs outside the with block of undisturbed, in the mode that it "
    "came in; run all of it inside (a generator or map runs only where its results are taken)"
)


def context_cause(lesson, task, network, given):
    """What is wrong with how a measure uses undisturbed, in words, or None."""
    events = []
    twin = copy.deepcopy(network)
    wrong_mode = task == "3.4"

    @contextlib.contextmanager
    def undisturbed(*args, **options):
        events.append("entered")
        with lesson.undisturbed(*args, **options) as given_model:
            yield given_model
        events.append("left")

    def call(*args, **options):
        events.append("called")
        return undisturbed(*args, **options)

    def see_pass(module, inputs):
        is_outside = events.count("entered") == events.count("left")
        if is_outside and module.training == wrong_mode == network.training:
            events.append("ran outside")

    for module in twin.modules():
        module.register_forward_pre_hook(see_pass)
    fresh = fresh_copy(lesson)
    fresh.undisturbed = call
    with contextlib.suppress(Exception):
        measured(fresh, task, twin, given, "")
    if "called" in events and "entered" not in events:
        return NEVER_ENTERED
    if "entered" in events and "ran outside" in events:
        return RUNS_OUTSIDE
    return None


@START
@of_tasks("3.1", "3.2", "3.4")
def test_measuring_leaves_no_trace(lesson, task, training):
    what = call_of(task)
    network = disturbed(make_network(lesson, training=training))
    given = given_to(task)
    before = Everything(network, **given)
    with differentiating(what):
        measure(lesson, task, network, given)
    try:
        before.check(what)
    except Wrong as wrong:
        if "changes the model's buffer" in wrong.message and loads_what_it_had(lesson, task):
            raise wrong.because(
                "state_dict() holds the buffers themselves, which move; put copies aside, or use "
                "undisturbed"
            ) from None
        raise


def loads_what_it_had(lesson, task):
    """Whether a measure gives load_state_dict the very buffers that the model has."""
    network = make_network(lesson)
    addresses = {buffer.data_ptr() for buffer in network.buffers()}
    loads = []

    def load_state_dict(state, *args, **options):
        loads.append(not addresses.isdisjoint(tensor.data_ptr() for tensor in state.values()))

    network.load_state_dict = load_state_dict
    with contextlib.suppress(Exception):
        measure(lesson, task, network, given_to(task))
    return any(loads)


class Counting(nn.Module):
    """Passes its input on, and counts how often it does so in train mode.

    The count is a buffer that state_dict() leaves out.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(0), persistent=False)

    def forward(self, x):
        if self.training:
            self.count += 1
        return x


@of_tasks("3.1", "3.2", "3.4")
def test_measuring_puts_every_buffer_back(lesson, task):
    what = f"{call_of(task)} of a model with a buffer that counts the passes in train mode"
    network = make_network(lesson)
    counting = Counting()
    network[0].append(counting)
    with differentiating(what):
        measure(lesson, task, network, given_to(task))
    count = counting.count.item()
    if count != 0:
        raise Wrong(
            f"{what}: it was 0 before and is {count} afterwards. The buffers should be what they "
            "were, this one too, which is registered with persistent=False, so that state_dict() "
            "leaves it out. undisturbed, which is given, puts all buffers back."
        )


@of_tasks("3.1", "3.2", "3.4")
def test_measuring_thaws_nothing(lesson, task):
    what = call_of(task)
    network = make_network(lesson)
    network[1][0].branch[1].requires_grad_(False)
    before = Everything(network, **given_to(task))
    try:
        with calling(what):
            measure(lesson, task, network, given_to(task))
    except Wrong:  # nobody said that it can be done for a model of which a part is frozen
        return
    before.check_requires_grad(what)


@of_tasks("3.1", "3.2", "3.4")
def test_errors_of_the_model_come_through(lesson, task):
    network = make_network(lesson)
    failure = RuntimeError("from the model")

    def fail(*_):
        raise failure

    network[2].register_forward_pre_hook(fail)
    what = f"{call_of(task)} of a model that raises an error"
    check_lets_errors_through(what, lambda: measure(lesson, task, network, given_to(task)), failure)


@of_tasks("3.1", "3.2", "3.4")
def test_measuring_again_gives_the_new_numbers(lesson, task):
    what = (
        f"{call_of(task)}, called again after the weights have changed and the first convolution "
        "and a block have been replaced,"
    )
    network = make_network(lesson)
    other_network = make_network(lesson)
    given = given_to(task)
    first = list(measured(lesson, task, network, given, call_of(task)))
    network[0][0] = other_network[0][0]
    network[1][1] = other_network[1][1]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    expected = expected_of(task, network, given)
    second = measured(lesson, task, network, given, what)
    if len(second) != len(expected):
        cause = None
        if len(second) == len(first) + len(expected):
            cause = "a list keeps what an earlier call put in; make a new one in each call"
        raise Wrong(
            f"{what} returned {counted(len(second), 'number')}, expected {len(expected)}.",
            cause,
        )
    mistakes = {}
    if not agree(second, expected) and is_right(lesson, task):
        mistakes = {"what an earlier call found is kept and returned again": first}
    check_numbers(second, expected, what, mistakes)


@of_tasks("3.1", "3.2", "3.4")
def test_measuring_more_images_than_the_script(lesson, task):
    network = make_network(lesson, depth=32)
    given = given_to(task, count=MANY)
    if task == "3.4":
        given["neighbours"][-1].neg_()  # unlike the others, so that a smaller last chunk shows
    what = f"{call_of(task)} of {MANY} images and a network of 32 layers"
    expected = expected_of(task, network, given)
    got = measured(lesson, task, network, given, what)
    if len(got) != len(expected):
        raise Wrong(f"{what} returned {counted(len(got), 'number')}, expected {len(expected)}.")
    mistakes = {}
    if agree(got, expected):
        return
    counts = (1, 5, 8, 10, 16, 20, 25, 32, 50, 64) if is_right(lesson, task) else ()
    for count in counts:
        few = {name: tensor[:count] for name, tensor in given.items()}
        words = f"only the first {count} images count"
        mistakes[words] = functools.partial(expected_of, task, network, few)
        if task == "3.1":
            words = (
                f"the images go through in chunks of {count}, "
                "each with batch norm statistics of its own"
            )
            mistakes[words] = functools.partial(norms_of_chunks, network, count, **given)
        if task == "3.4":
            words = (
                f"the images go through in chunks of {count}, "
                "and a smaller last chunk counts as much as the others"
            )
            mistakes[words] = functools.partial(mean_of_chunks, network, count, **given)
    check_numbers(got, expected, what, mistakes)


def norms_of_chunks(network, size, images, labels):
    """The norms of the whole loss's gradients, if each chunk has a forward pass of its own."""
    twin = copy.deepcopy(network).train()
    loss = 0
    for some_images, some_labels in zip(images.split(size), labels.split(size)):
        loss = loss + F.cross_entropy(twin(some_images), some_labels, reduction="sum")
    return euclid(torch.autograd.grad(loss / len(images), conv_weights(twin)))


def mean_of_chunks(network, size, images, neighbours):
    """The correlation, if it is the mean of those of chunks of the images."""
    chunks = zip(images.split(size), neighbours.split(size))
    return [statistics.fmean(expected_correlation(network, *chunk) for chunk in chunks)]


@pytest.mark.parametrize(
    "task, name",
    [
        pytest.param("3.1", "images", marks=pytest.mark.task("3.1")),
        pytest.param("3.2", "images", marks=pytest.mark.task("3.2")),
        pytest.param("3.4", "images", marks=pytest.mark.task("3.4")),
        pytest.param("3.4", "neighbours", marks=pytest.mark.task("3.4")),
    ],
)
def test_measuring_images_in_channels_last_order(lesson, task, name):
    network = make_network(lesson)
    given = given_to(task)
    given[name] = given[name].contiguous(memory_format=torch.channels_last)
    what = f"{call_of(task)}, where the {name} lie in memory channels last, as the script's do,"
    mistakes = {}
    if task == "3.4":
        in_order_of_memory = (
            "the gradients are flattened in the order in which they lie in memory, "
            "which differs between images and neighbours; flatten(1) does not mind it"
        )
        mistakes[in_order_of_memory] = functools.partial(
            correlation_in_order_of_memory, network, **given
        )
    check_measure(lesson, task, network, given, what, mistakes)


def correlation_in_order_of_memory(network, images, neighbours):
    """The correlation, if each gradient is flattened in the order of its input in memory."""
    twin = copy.deepcopy(network).eval()
    rows = []
    for inputs in (images, neighbours):
        gradients = input_gradients(twin, inputs)
        if not inputs.is_contiguous():
            gradients = gradients.reshape(inputs.shape).permute(0, 2, 3, 1).flatten(1)
        rows.append(gradients)
    return [cosines(*rows).mean().item()]


@of_tasks("3.1", "3.2")
def test_measuring_a_single_image(lesson, task):
    network = make_network(lesson)
    given = given_to(task, count=1)
    what = f"{call_of(task)} of a single image"
    if task == "3.1":
        in_eval_mode = norms_for(network, given.values(), conv_weights, training=False)
    else:
        in_eval_mode = euclid(block_gradients(network, *given.values(), training=False)[1:])
    mistakes = {"the model is in eval mode": in_eval_mode}
    check_measure(lesson, task, network, given, what, mistakes)


@of_tasks("3.1", "3.2")
def test_gradients_that_are_not_finite_have_no_finite_norm(lesson, task):
    network = make_network(lesson)
    given = given_to(task)
    given["images"][0, 0, 0, 0] = math.inf
    what = f"{call_of(task)} with a pixel that is infinite"
    try:
        got = measured(lesson, task, network, given, what)
    except Wrong as wrong:
        cause = "NaN raises an error, as in torch's anomaly mode; return the norms as they are"
        if " raised " not in wrong.message or not is_right(lesson, task):
            cause = None
        raise wrong.because(cause) from None
    expected = expected_of(task, network, given)
    if len(got) != len(expected):
        raise Wrong(
            f"{what} returned {counted(len(got), 'number')}, expected {len(expected)}: the norms "
            "as they are, also those that are not finite."
        )
    for index, (value, expected_value) in enumerate(zip(got, expected)):
        if math.isfinite(value) and not math.isfinite(expected_value):
            raise Wrong(
                f"{what} gives {value:.4g} at index {index}, where the gradient is NaN: "
                "expected NaN. Return the norms as they are."
            )


@of_tasks("3.1", "3.2")
@pytest.mark.parametrize(
    "factor, size", [(1e-25, "about 1e-25"), (0, "exactly 0")], ids=["tiny", "zero"]
)
def test_small_gradients_have_norms(lesson, task, factor, size):
    network = shrunk(make_network(lesson), factor)
    given = given_to(task)
    expected = expected_of(task, network, given)
    count = len(expected)
    what = f"{call_of(task)} of a network whose gradients are {size}"
    in_float32 = (
        "the norm is computed in float32, where the square of 1e-25 is 0; "
        "use norm, which is given, or .double()"
    )
    divided = "a gradient is divided by its norm or its largest number, which may be 0"
    mistakes = {in_float32: [0.0] * count, divided: [math.nan] * count}
    got = numbers_of(measured(lesson, task, network, given, what), what, count)
    if factor and not any(got):
        larger = shrunk(make_network(lesson), 1e-17)  # float32 has the squares of these
        if not any(measured(lesson, task, larger, given, what)):
            mistakes = {}
            if any(measured(lesson, task, make_network(lesson), given, what)):
                mistakes = {"small numbers are rounded to 0": [0.0] * count}
    check_numbers(got, expected, what, mistakes)

    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)  # left over from something else
    what = f"{what}, and whose .grad hold ones,"
    added_to_ones = (
        "the gradients are added to what .grad holds, and tiny ones are lost in the sum; "
        "torch.autograd.grad gives them alone"
    )
    check_measure(lesson, task, network, given, what, {added_to_ones: [0.0] * count})


@of_tasks("3.1", "3.2")
def test_large_gradients_have_norms(lesson, task):
    network = shrunk(make_network(lesson), 1e20)
    given = given_to(task)
    what = f"{call_of(task)} of a network whose gradients are about 1e20"
    expected = expected_of(task, network, given)
    got = numbers_of(measured(lesson, task, network, given, what), what, len(expected))
    limit = max(got)
    clipped = [min(norm, limit) for norm in expected]
    mistakes = {
        "a number on the way is too large or too small for float32": [math.inf] * len(expected)
    }
    if limit > 0:
        mistakes[f"the norms are clipped at {limit:.4g}; return them as they are"] = clipped
    check_numbers(got, expected, what, mistakes)


class Interruption(Exception):
    """An error of no usual kind."""


@of_tasks("3.2")
@pytest.mark.parametrize("index, part", [(0, "stem"), (2, "head")], ids=["stem", "head"])
def test_hooks_go_even_if_the_forward_pass_raises(lesson, task, index, part):
    network = make_network(lesson)
    given = given_to(task)
    before = Everything(network)
    first = list(measured(lesson, task, network, given, call_of(task)))
    before.check_hooks(call_of(task))
    before.check_modes(call_of(task))
    what = f"{call_of(task)} of a model whose {part} raises an error"
    raised = []

    def interrupt(*_):
        raised.append(Interruption("the forward pass stops here"))
        raise raised[-1]

    interruption = network[index].register_forward_pre_hook(interrupt)
    try:
        measure(lesson, task, network, given)
    except Exception:  # it is let through
        raised.clear()
    interruption.remove()
    for check in (before.check_hooks, before.check_modes):
        try:
            check(what)
        except Wrong as wrong:
            raise wrong.because("what cleans up is not in a finally clause") from None
    if raised:
        raise Wrong(
            f"{what} returns all the same. Let the error through: clean up in a finally clause, "
            "without an except clause that swallows it."
        )
    what = f"{call_of(task)}, after a call that raised an error,"
    try:
        again = measured(lesson, task, network, given, what)
        check_numbers(numbers_of(again, what, len(first)), first, what, {})
    except Wrong as wrong:
        raise wrong.because(LEFT_BEHIND) from None


# Task 3.5

STEPS = 5
SIZES = (6, 6, 4, 70, 1)  # of its batches


def train_by_hand(
    network,
    batches,
    make_optimizer,
    clear=True,
    training=True,
    steps=1,
    extra_passes=0,
    freeze_statistics=False,
    clip=None,
    forget=False,
    twice=False,
    clear_convolutions_only=False,
    divide_by=None,
    eval_after_step=False,
    autocast=False,
    **loss_options,
):
    """What record_training should do, on a copy, or something wrong, as the switches say.

    Returns (copy, rows of norms).
    """
    twin = copy.deepcopy(network)
    if training is not None:  # it keeps its modes
        twin.train(training)
    optimizer = make_optimizer(twin)
    rows = []
    for parameter in twin.parameters() if clear_convolutions_only else ():
        parameter.grad = torch.ones_like(parameter)  # left over, as in the learner's network
    for images, labels in batches:
        if clear:
            optimizer.zero_grad()
        for weight in conv_weights(twin) if clear_convolutions_only else ():
            weight.grad = None
        if forget:
            optimizer.state.clear()
        for _ in range(extra_passes):
            twin(images)
        statistics = {name: buffer.clone() for name, buffer in twin.named_buffers()}
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(twin(images), labels, **loss_options)
        if divide_by:
            loss = loss * len(labels) / divide_by
        loss.backward()
        if freeze_statistics:
            twin.load_state_dict(statistics, strict=False)
        if clip == "before the norms":
            nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        rows.append(euclid(weight.grad for weight in conv_weights(twin)))
        if twice:
            for parameter in twin.parameters():
                parameter.grad *= 2
        if clip == "after the norms":
            nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        for _ in range(steps):
            optimizer.step()
        if eval_after_step:
            twin.eval()
    return twin, rows


def after_each_step(network, batches, make_optimizer):
    """The norms for each batch after the step that was taken with it."""
    twin = copy.deepcopy(network).train()
    optimizer = make_optimizer(twin)
    rows = []
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(twin(images), labels).backward()
        optimizer.step()
        rows.append(weight_norms(twin, (images, labels)))
    return rows


def on_top_of_ones(network, batch):
    """The first row, if the gradients are added to ones."""
    gradients = gradients_for(network, batch, conv_weights)
    return [euclid(1 + gradient for gradient in gradients)]


def momentum(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


class Overwriting(torch.optim.SGD):
    """An optimizer whose step writes to .grad, as SGD's does with nesterov and foreach."""

    def step(self, closure=None):
        loss = super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)
        return loss


def overwriting(model):
    return Overwriting(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def adam(model):
    """Adam, which has the parameters in two groups, and in another order than the model's."""
    parameters = list(model.parameters())[::-1]
    groups = [{"params": parameters[::2]}, {"params": parameters[1::2]}]
    return torch.optim.Adam(groups, lr=1e-3)


USED_UP = "batches is used up before the training: it can be gone through only once"


def record(lesson, network, batches, optimizer, count, steps=STEPS):
    """The learner's record_training as a tensor (steps, layers), and the call in words."""
    what = (
        f"record_training(model, batches, optimizer) with {counted(steps, 'batch', 'es')} "
        f"and {counted(count, 'convolution')}"
    )
    with differentiating(what):
        got = lesson.record_training(network, batches, optimizer)
    table = as_table(got, what)
    size = tuple(table.shape)
    if size == (steps, count):
        return table, what
    message = f"{what} has the shape {size}, expected (steps, convolutions), {(steps, count)}."
    if size == (1, count) and len(list(batches)) == steps - 1:
        raise Wrong(message, "only the first batch is used: does the loop end with a return?")
    raise Wrong(message, shape_cause(size, network, steps, count))


def shape_cause(size, network, steps, count):
    """Why a table of norms has another shape, in words, or None."""
    parameters = len(list(network.parameters()))
    linear = sum(isinstance(module, nn.Linear) for module in network.modules())
    narrow = sum(conv.kernel_size == (1, 1) for conv in convolutions_of(network))
    full = sum(images >= SIZES[0] for images in SIZES)
    if 1 in (steps, count) and size == tuple(n for n in (steps, count) if n != 1):
        return "a dimension of size 1 is left out, as squeeze() does; keep both"
    causes = {
        (count, steps): "steps and layers are swapped",
        (1, count): "it is the row of one step; keep a row for each step",
        (count,): "it is the row of one step; keep a row for each step",
        (full, count): "batches that are smaller than the first are left out; each one counts",
        (steps - 1, count): (
            "one batch has no row: next(iter(batches)) takes one away, and a loop that keeps one "
            "in reserve must still use the last"
        ),
        (2 * steps, count): "the rows of an earlier call are kept; make a new list in each call",
    }
    if size[:1] == (0,):
        return USED_UP
    if len(size) == 2 and size[1] == parameters:
        return "all parameters are among them; take the weights of nn.Conv2d only"
    with_four = sum(parameter.dim() == 4 for parameter in network.parameters())
    if len(size) == 2 and size[1] == with_four > count:
        return "weights of other layers are among them; take those of nn.Conv2d only"
    if linear and len(size) == 2 and size[1] == count + linear:
        return "linear layers are among them; take nn.Conv2d only"
    if narrow and len(size) == 2 and size[1] == count - narrow:
        return "1x1 convolutions are left out; take all of nn.Conv2d"
    return causes.get(size)


def as_table(got, what):
    """What record_training returned, as a tensor of float64."""
    if type(got) is list and got and all(type(row) is torch.Tensor for row in got):
        with contextlib.suppress(RuntimeError):
            got = torch.stack(got)
    if type(got) not in (torch.Tensor, nn.Parameter, numpy.ndarray, list):
        question = " Does it always end with a return?" if got is None else ""
        raise Wrong(
            f"{what} returned {in_words(got)}, expected a tensor (steps, convolutions).{question}"
        )
    if type(got) is list:
        try:
            got = torch.tensor(got, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise Wrong(
                f"{what} returned a list that is no table: "
                "expected a row for each step, and a number for each convolution in it."
            ) from None
    got = torch.as_tensor(got)
    if got.dtype not in (torch.float32, torch.float64):
        raise Wrong(
            f"{what} returned a tensor of {dtype(got)}, expected float32 or float64: "
            "whole numbers and float16 have none of 1e-24, and bfloat16 has two digits of them."
        )
    return got.detach().cpu().double()


def make_batches(first_seed=0):
    """A training's batches, which are not equally large."""
    return [make_batch(seed=first_seed + i, count=count) for i, count in enumerate(SIZES)]


@pytest.mark.task("3.5")
@pytest.mark.parametrize(
    "make_optimizer", [overwriting, adam], ids=["SGD that writes to .grad", "Adam with two groups"]
)
@START
def test_recording_is_a_training_with_the_norms_of_every_step(lesson, make_optimizer, training):
    network = make_network(lesson, training=training)
    batches = make_batches()
    twin, expected = train_by_hand(network, batches, make_optimizer)
    untouched = copy.deepcopy(network)
    disturbed(network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)  # left over from something else
    inputs = {}
    for i, (images, labels) in enumerate(batches):
        inputs |= {f"images of batch {i}": images, f"labels of batch {i}": labels}
    as_it_came = copy.deepcopy(network)
    optimizer = make_optimizer(network)
    seen = watch(network, optimizer)
    before = Everything(network, **inputs)
    table, what = record(lesson, network, iter(batches), optimizer, 13)
    before.check(what, "mode", "values", "grad")
    rows = table.tolist()
    for step, (row, expected_row) in enumerate(zip(rows, expected)):
        layer = first_disagreement(row, expected_row, 1e-3)
        if layer is not None:
            mistakes = recording_mistakes(untouched, batches, make_optimizer, expected)
            mistakes[first_weights_cause(network, untouched)] = [
                weight_norms(untouched, batch) for batch in batches
            ]
            mistakes[AS_IT_CAME] = lambda: train_by_hand(
                as_it_came, batches, make_optimizer, training=None
            )[1]
            if not any(map(any, rows)):
                cause = advice(no_gradients_cause(network, untouched))
            elif split_cause(seen):
                cause = advice(split_cause(seen))
            elif step > 0 and step_cause(seen):
                cause = advice(step_cause(seen))
            elif same_rows(rows, expected):  # only the last row is wrong
                cause = ""
            else:
                cause = likeliest(mistakes, functools.partial(same_rows, rows))
            if not cause and same_rows(rows, [rows[-1]] * STEPS):
                cause = advice(
                    "every row is the same; take each batch's norms at once, for later batches and "
                    "steps write to .grad"
                )
            raise Wrong(
                f"{what}: row {step}, layer {layer} is {row[layer]:.4g}, "
                f"expected {expected_row[layer]:.4g}.{cause}"
            )
    name = first_difference(network, twin)
    if name is not None:
        part = "running statistics" if "running" in name or "batches" in name else "weights"
        mistakes = other_runs(untouched, batches, make_optimizer)
        cause = likeliest(mistakes, lambda known: first_difference(network, known) is None)
        moves = network.state_dict()[MOVES] - untouched.state_dict()[MOVES]
        if not cause and moves > STEPS:
            cause = advice(
                f"batch norm's statistics move {moves} times in {STEPS} batches; "
                "one forward pass in train mode per batch is enough"
            )
        cause = cause or advice(step_cause(seen)) or advice(clip_cause(seen, rows))
        raise Wrong(
            f"{what}: afterwards the model's {part} ({name}) are not those of {STEPS} steps, "
            f"one per batch.{cause}"
        )


MOVES = "0.1.num_batches_tracked"  # how often a batch norm's statistics have moved
AS_IT_CAME = "the model trains in the modes that it came with; call model.train() first"


def watch(network, optimizer):
    """What goes on in a training: it fills with every forward pass and every step."""
    seen = SimpleNamespace(
        sizes=[], settings=[settings_of(optimizer)], without_gradient=[], norms=[]
    )

    def see_batch(module, inputs):
        seen.sizes.extend(map(len, inputs))

    def see_step(optimizer, args, options):
        seen.settings.append(settings_of(optimizer))
        for name, parameter in network.named_parameters():
            if parameter.grad is None:
                seen.without_gradient.append(name)

    def see_gradients(optimizer, args, options):
        gradients = [weight.grad for weight in conv_weights(network)]
        seen.norms.append([] if None in gradients else euclid(gradients))

    network[0].register_forward_pre_hook(see_batch)
    optimizer.register_step_pre_hook(see_gradients)
    optimizer.register_step_post_hook(see_step)
    return seen


def settings_of(optimizer):
    """The settings of an optimizer that it has from the start: {(group, name): value}."""
    settings = {}
    for index, group in enumerate(optimizer.param_groups):
        for name in optimizer.defaults:
            settings[index, name] = group.get(name)
    return settings


def step_cause(seen):
    """What is wrong with the steps of a training, in words, or None."""
    start, *at_steps = seen.settings
    if not at_steps:
        return "the given optimizer takes no step; call its step()"
    for key, value in start.items():
        if any(settings.get(key) != value for settings in at_steps):
            return f"the optimizer's {key[1]} is changed on the way; take its steps as it is"
    if seen.without_gradient:
        return (
            f"{seen.without_gradient[0]} has no gradient when the optimizer takes its step; "
            "backward() gives one to every parameter, and none is cleared before the step"
        )
    return None


def clip_cause(seen, rows):
    """That the gradients of a step are those of its row, times one factor, in words, or None."""
    for at_step, row in zip(seen.norms, rows):
        ratios = [norm / before for norm, before in zip(at_step, row) if before]
        if ratios and max(ratios) < 0.999 and max(ratios) - min(ratios) < 1e-3:
            return (
                f"before a step all gradients are scaled by {ratios[0]:.3g}, as clip_grad_norm_ "
                "does; take the steps with the gradients as they are"
            )
    return None


def split_cause(seen):
    """That the batches go through the model in parts, in words, or None."""
    if sum(seen.sizes) >= sum(SIZES) and max(seen.sizes) < max(SIZES):
        return (
            f"at most {max(seen.sizes)} images go through the model at once: larger batches are "
            "split, and each part has batch norm statistics of its own; "
            "one forward pass per batch"
        )
    return None


def recording_mistakes(network, batches, make_optimizer, expected):
    """The rows that the known wrong ways give."""

    def train(**switches):
        _, rows = train_by_hand(network, batches, make_optimizer, **switches)
        return rows

    def of_tensors(choose):
        """The rows of what choose(weight, the weight and its gradient before the step) gives."""
        return lambda: tensors_of_steps(network, batches, make_optimizer, choose)

    def in_order_of_optimizer():
        groups = make_optimizer(network).param_groups
        parameters = itertools.chain.from_iterable(group["params"] for group in groups)
        places = {id(weight): place for place, weight in enumerate(conv_weights(network))}
        columns = [places[id(parameter)] for parameter in parameters if id(parameter) in places]
        choose = operator.itemgetter(*columns)
        return [choose(row) for row in expected]

    learning_rate = make_optimizer(network).defaults["lr"]
    sizes = [weight.numel() for weight in conv_weights(network)]
    others = [batches[0], *batches[:-1]]
    return {
        "the norms are squared": [[norm**2 for norm in row] for row in expected],
        "it is the root of the mean square; the norm is the root of the sum": [
            [norm / size**0.5 for norm, size in zip(row, sizes)] for row in expected
        ],
        "it is the sum of the absolute values, not the Euclidean norm": of_tensors(
            lambda weight, old, gradient: gradient.double().abs().sum().item()
        ),
        "the norms are those of the weights, not of their gradients": of_tensors(
            lambda weight, old, gradient: norm_of(old)
        ),
        "the norms are those of the weights after the step, not of the gradients": of_tensors(
            lambda weight, old, gradient: norm_of(weight)
        ),
        "the norms are those of the steps that the weights take, not of the gradients": of_tensors(
            lambda weight, old, gradient: norm_of(weight - old)
        ),
        "the norms are those of the steps divided by the learning rate, which are the gradients "
        "only for plain SGD; take those of .grad": of_tensors(
            lambda weight, old, gradient: norm_of(weight - old) / learning_rate
        ),
        "the gradients are divided by the norms of the weights": of_tensors(
            lambda weight, old, gradient: norm_of(gradient) / norm_of(old)
        ),
        "the gradients are read after the step, which may write to .grad, or .grad itself is kept "
        "until then; take the norms before the step": of_tensors(
            lambda weight, old, gradient: norm_of(weight.grad)
        ),
        "the gradients are clipped before their norms are taken": lambda: train(
            clip="before the norms"
        ),
        "the gradients are clipped before the step": lambda: train(clip="after the norms"),
        "the step is taken with twice the gradient: backward() is called twice": (
            lambda: train(twice=True)
        ),
        "each row belongs to the batch before": lambda: norms_on_the_way(
            network, batches, make_optimizer, others
        ),
        "every row is measured on the first batch; take each batch's own": lambda: norms_on_the_way(
            network, batches, make_optimizer, [batches[0]] * STEPS
        ),
        "gradients add up from batch to batch; clear them before each": train(clear=False),
        "only the convolutions' gradients are cleared; zero_grad() clears all": train(
            clear=False, clear_convolutions_only=True
        ),
        "the loss is divided by the first batch's size; take the mean over each batch": train(
            divide_by=SIZES[0]
        ),
        "the batch norms are in eval mode while the model trains": train(training=False),
        "from the second batch on the model is in eval mode; call model.train() before each "
        "forward pass": lambda: train(eval_after_step=True),
        IN_BFLOAT16: lambda: train(autocast=True),
        "the optimizer takes two steps for each batch": lambda: train(steps=2),
        "the optimizer forgets its momentum between the steps; keep its state": lambda: train(
            forget=True
        ),
        "the loss is summed over the images, not averaged": lambda: train(reduction="sum"),
        "each row is recorded after the step; the norms are those before it": (
            expected[1:] + expected[-1:]
        ),
        "the layers come in reverse order": [row[::-1] for row in expected],
        "the layers come in the order of the optimizer's parameters; "
        "take that of model.modules()": in_order_of_optimizer,
        "every row is one and the same list or tensor; make a new one for each step": (
            [expected[-1]] * STEPS
        ),
        "the norms are measured after the step; take those before it": after_each_step(
            network, batches, make_optimizer
        ),
        "the gradients that p.grad held before count; call zero_grad() before every backward()": (
            on_top_of_ones(network, batches[0])
        ),
    }


def first_weights_cause(network, untouched):
    """Why all rows belong to the weights before the first step, in words."""
    pairs = zip(conv_weights(network), conv_weights(untouched))
    if all(torch.equal(*pair) for pair in pairs):
        return "the optimizer's steps do not change the weights, or they are undone"
    return (
        "every row is measured on the weights before the first step, as on a copy of the model "
        "made then; measure the model itself"
    )


def norm_of(tensor):
    """The Euclidean norm of one tensor."""
    return euclid([tensor])[0]


def tensors_of_steps(network, batches, make_optimizer, choose):
    """The rows of choose(weight, the weight and its gradient before the step), after each step."""
    twin = copy.deepcopy(network).train()
    optimizer = make_optimizer(twin)
    rows = []
    for images, labels in batches:
        weights = conv_weights(twin)
        old = [weight.detach().clone() for weight in weights]
        optimizer.zero_grad()
        F.cross_entropy(twin(images), labels).backward()
        gradients = [weight.grad.clone() for weight in weights]
        optimizer.step()
        rows.append([choose(*tensors) for tensors in zip(weights, old, gradients)])
    return rows


def norms_on_the_way(network, batches, make_optimizer, measured_on):
    """The norms for another batch than the one that is trained on, before each step."""
    twin = copy.deepcopy(network).train()
    optimizer = make_optimizer(twin)
    rows = []
    for (images, labels), other in zip(batches, measured_on):
        rows.append(weight_norms(twin, other))
        optimizer.zero_grad()
        F.cross_entropy(twin(images), labels).backward()
        optimizer.step()
    return rows


def no_gradients_cause(network, untouched):
    """Why all norms are 0, in words: the gradients are cleared too early, or nothing ran."""
    if network.state_dict()[MOVES] > untouched.state_dict()[MOVES]:
        return "the gradients are cleared after backward(), before they are read"
    return USED_UP


def other_runs(network, batches, make_optimizer):
    """The networks that the known wrong ways of training lead to."""

    def train(**switches):
        twin, _ = train_by_hand(network, batches, make_optimizer, **switches)
        return twin

    return {
        "the model runs twice for each batch, so batch norm's statistics move twice": (
            lambda: train(extra_passes=1)
        ),
        "the step is taken with twice the gradient: backward() is called twice": (
            lambda: train(twice=True)
        ),
        "within undisturbed batch norm's statistics do not move; training should move them": (
            lambda: train(freeze_statistics=True)
        ),
        "the optimizer takes two steps for each batch": lambda: train(steps=2),
        "the gradients are clipped before the step": lambda: train(clip="after the norms"),
    }


def same_rows(table, rows):
    """Whether all rows but the last are the same."""
    pairs = zip(table[:-1], rows[: STEPS - 1])
    return all(agree(row, other, 1e-3) for row, other in pairs)


def first_difference(network, twin):
    """The name of the first weight or statistic in which two networks differ, or None."""
    others = twin.state_dict().values()
    for (name, tensor), other in zip(network.state_dict().items(), others):
        if not allclose(tensor.double(), other.double(), rtol=1e-3, atol=1e-5):
            return name
    return None


@pytest.mark.task("3.5")
@pytest.mark.parametrize("factor", [1e-25, 0, 1e20], ids=["tiny", "zero", "large"])
def test_recording_gradients_of_any_size(lesson, factor):
    network = shrunk(make_network(lesson), factor)
    batches = make_batches()[:1]  # later rows depend on how the steps before were rounded
    _, expected = train_by_hand(network, batches, momentum)
    table, what = record(lesson, network, iter(batches), momentum(network), 13, steps=1)
    row = table[0].tolist()
    layer = first_disagreement(row, expected[0], 1e-3)
    if layer is None:
        return
    cause = None
    if factor == 1e-25 and not any(row):
        usual = make_network(lesson)
        of_usual, _ = record(lesson, usual, iter(batches), momentum(usual), 13, steps=1)
        if of_usual.any():
            cause = "the norms are computed in float32, where the square of 1e-25 is 0; use norm"
    raise Wrong(
        f"{what} whose gradients are about {factor:g}: row 0, layer {layer} is {row[layer]:.4g}, "
        f"expected {expected[0][layer]:.4g}.",
        cause,
    )


@pytest.mark.task("3.5")
def test_recording_takes_the_whole_step_of_large_gradients(lesson):
    network = shrunk(make_network(lesson), 1e4)
    batches = make_batches()[:1]
    twin, _ = train_by_hand(network, batches, momentum)
    _, what = record(lesson, network, iter(batches), momentum(network), 13, steps=1)
    name = first_difference(network, twin)
    if name is not None:
        raise Wrong(
            f"{what}, where the gradients have norms of about 1e4: afterwards the model's {name} "
            "are not those of a step. Take the gradients as they are, neither clipped nor divided "
            "by their norm."
        )


@pytest.mark.task("3.5")
def test_recording_a_network_of_one_convolution(lesson):
    torch.manual_seed(draw(0))
    others = [nn.ConvTranspose2d(10, 10, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(nn.Conv2d(3, 10, 3), *others)
    batches = make_batches()
    for turn in ("first", "second"):
        network[0] = nn.Conv2d(3, 10, 3)
        _, expected = train_by_hand(network, batches, momentum)
        table, what = record(lesson, network, iter(batches), momentum(network), 1)
        for step, (row, expected_row) in enumerate(zip(table.tolist(), expected)):
            if not agree(row, expected_row, 1e-3):
                raise Wrong(
                    f"{what}: row {step} is {row}, expected {expected_row}. It is the {turn} call "
                    "with this model; before each its convolution is replaced."
                )


@pytest.mark.task("3.5")
def test_recording_goes_on_where_the_loss_is_not_finite(lesson):
    network = make_network(lesson)
    batches = [make_batch(seed=step) for step in range(STEPS)]
    batches[2][0][0, 0, 0, 0] = math.inf
    twin, expected = train_by_hand(network, batches, momentum)
    what = f"record_training of {STEPS} batches, of which number 2 (from 0) has an infinite pixel,"
    with differentiating(what):
        got = lesson.record_training(network, iter(batches), momentum(network))
    rows = as_table(got, what).tolist()
    if len(rows) != STEPS:
        cause = None
        if len(rows) in (2, 3):
            cause = "the training stops where the loss is not finite; it should go on"
        if len(rows) == STEPS - 1:
            cause = "the batch whose loss is not finite has no row; each batch has one"
        raise Wrong(f"{what} has {len(rows)} rows, expected {STEPS}.", cause)
    for step, (row, expected_row) in enumerate(zip(rows, expected)):
        layer = first_disagreement(row, expected_row, 1e-3)
        if layer is not None:
            cause = None
            if step == 2:
                cause = "norms that are not finite are replaced; return them as they are"
            elif step > 2 and math.isfinite(row[layer]):
                cause = (
                    "the batch whose loss is not finite is a batch as any other; "
                    "take its step, with its gradients as they are"
                )
            raise Wrong(
                f"{what} gives {row[layer]:.4g} at row {step}, layer {layer}, "
                f"expected {expected_row[layer]:.4g}.",
                cause,
            )


@pytest.mark.task("3.5")
def test_recording_lets_errors_through(lesson):
    network = make_network(lesson)
    failure = RuntimeError("from the second batch")

    def batches():
        yield make_batch(seed=0)
        raise failure

    what = "record_training(model, batches, optimizer), where batches raises an error,"
    check_lets_errors_through(
        what, lambda: lesson.record_training(network, batches(), momentum(network)), failure
    )


def with_noise(batches):
    """The batches with noise that is drawn as they come."""
    for images, labels in batches:
        yield images + 0.3 * torch.randn_like(images), labels


@pytest.mark.task("3.5")
def test_recording_twice_with_batches_that_draw_random_numbers(lesson):
    for first_seed in (0, 10):
        network = make_network(lesson)
        untouched = copy.deepcopy(network)
        batches = make_batches(first_seed)
        torch.manual_seed(draw(first_seed))
        torch.rand(7)  # no seed alone leads to this random state
        random_state = torch.get_rng_state()
        _, expected = train_by_hand(network, with_noise(batches), momentum)
        torch.set_rng_state(random_state)
        table, what = record(lesson, network, with_noise(batches), momentum(network), 13)
        rows = table.tolist()
        for step, (row, expected_row) in enumerate(zip(rows, expected)):
            if not agree(row, expected_row, 1e-3):
                mistakes = seeded_runs(untouched, batches)
                cause = likeliest(mistakes, functools.partial(same_rows, rows))
                raise Wrong(
                    f"{what}, where the batches draw random numbers as they come: row {step} is "
                    f"not what it is in a training by hand.{cause}"
                )


def seeded_runs(network, batches):
    """The rows of runs that seed torch before the batches draw their noise."""
    rows_by_mistake = {}
    for seed in (0, 1, 42):
        torch.manual_seed(seed)
        _, rows = train_by_hand(network, with_noise(batches), momentum)
        rows_by_mistake[f"torch is seeded with {seed} before the batches are drawn"] = rows
    return rows_by_mistake


@pytest.mark.task("3.5")
@pytest.mark.timeout(90)
def test_recording_learns_cifar10(lesson, cifar10_dir):
    data = load_cifar10(lesson, cifar10_dir)
    images = lesson.normalise(F.avg_pool2d(data.train_images.float(), 2), data)
    labels = data.train_labels
    torch.manual_seed(draw(0))
    with calling("build_network(8, True, True), which is given"):
        network = lesson.build_network(8, True, True).to(labels.device)
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    before = F.cross_entropy(network(images), labels).item()
    with calling("record_training(model, batches, optimizer)"):
        lesson.record_training(network, ((images, labels) for _ in range(10)), optimizer)
    after = F.cross_entropy(network(images), labels).item()
    if not after < 0.8 * before:
        raise Wrong(
            f"record_training: ten steps on 64 images of CIFAR-10 took the loss from {before:.2f} "
            f"to {after:.2f}, expected a fall by a fifth or more."
        )


@pytest.mark.task("3.5")
@pytest.mark.timeout(120)
def test_script_runs_from_data_to_figure(script, dry_run):
    check_dry_run(script, dry_run)


if __name__ == "__main__":  # by the Run button of an editor
    raise SystemExit(pytest.main([__file__]))
