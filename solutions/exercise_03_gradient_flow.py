# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 3: see how gradients flow through residual and plain networks.

Goal: measure how the gradient changes on its way from the loss to the first layer, with and without
shortcuts and batch norm, at initialisation and during training.
Then judge whether vanishing gradients are why deep plain networks train badly.
Paper: He et al., 2015 (arXiv:1512.03385), section 4.1; Yang et al., 2019 (arXiv:1902.08129);
Balduzzi et al., 2017 (arXiv:1702.08591).

    3.1  gradient_norms         how large the gradient of each convolution is
    3.2  signal_norms           how large the gradient is that comes back to each block
    3.3  change_per_layer       by what factor a norm changes from one layer to the next
    3.4  gradient_correlation   how similar the gradients of neighbouring inputs are
    3.5  record_training        the norms of 3.1 at every step of a training run

Check:  pytest tests/test_exercise_03_gradient_flow.py
Run:    python exercise_03_gradient_flow.py     (--help lists the flags; --dry-run takes seconds)
"""

import argparse
import contextlib
import errno
import itertools
import json
import math
import os
import shutil
import socket
import ssl
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

if sys.version_info < (3, 10):
    sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}")
# Jupyter sets MPLBACKEND for the programs that it starts; this one only draws into files.
if "ipykernel" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)

try:
    import torch
    import torch.nn.functional as F
    import torchvision
    from matplotlib import rcdefaults, rcParams
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from torch import nn
    from torchvision.datasets import CIFAR10
    from tqdm import tqdm
except (ImportError, AttributeError) as error:
    sys.exit(
        f"{error}. Install what is missing, or activate the environment that has it. A file or "
        "folder of yours with the name of a package hides the package: rename it."
    )

EXERCISE = "exercise_03_gradient_flow"
BUDGETS = {
    "cpu": {
        "epochs": 3,
        "train_images": 2_560,
        "test_images": 100,
        "batch_size": 64,
        "size": 16,  # pixels: the images are averaged down from 32x32
    },
    "gpu": {
        "epochs": 3,
        "train_images": 12_800,
        "test_images": 100,
        "batch_size": 128,
        "size": 32,
    },
}
# {kind: (skip, batch_norm, whose initialisation)}. Neighbouring panels of the figure differ in one.
KINDS = {
    "plain": (False, False, "torch"),
    "plain, He": (False, False, "He"),
    "plain + BN": (False, True, "He"),
    "residual": (True, False, "torch"),
    "residual, He": (True, False, "He"),
    "residual + BN": (True, True, "He"),
}
TRAINED = ("plain + BN", "residual + BN")
DEPTHS = {  # in layers
    "initialisation": (20, 56, 110),
    "correlation": (8, 14, 20, 32, 44, 56),
    "training": 56,  # one of those at initialisation
}
DRY_RUN_DEPTHS = {
    "initialisation": (8, 14),
    "correlation": (8, 14),
    "training": 14,
}
PROBES = 100  # training images that norms at initialisation and losses are measured on
CORRELATION_SEEDS = 5  # networks of each kind and depth whose gradients are compared
DISTANCE = 0.1  # between neighbouring inputs, in standard deviations of the 32x32 images' pixels
RATE = 0.02  # low, so that 56 layers train without a warm-up, which would hide the first steps
VANISHING = 0.9  # a factor per layer below this leaves less than 0.003 after 54 layers
EXPLODING = 1.1  # above this, a gradient is more than 170 times as large after 54 layers


# %% Your part


class Block(nn.Module):
    """relu(branch(x) + shortcut(x)) with skip, relu(branch(x)) without (task 2.1).

    With or without batch norm after each of the branch's two convolutions.
    """

    def __init__(self, in_channels, out_channels, stride, skip, batch_norm):
        super().__init__()
        self.skip = skip
        self.shortcut = Shortcut(out_channels - in_channels, stride)
        self.branch = nn.Sequential(
            *conv_norm(in_channels, out_channels, stride, batch_norm),
            nn.ReLU(),
            *conv_norm(out_channels, out_channels, 1, batch_norm),
        )

    def forward(self, x):
        out = self.branch(x)
        if self.skip:
            out = out + self.shortcut(x)
        return F.relu(out)


def conv_norm(in_channels, out_channels, stride, batch_norm):
    """A list: a 3x3 convolution and, if batch_norm is true, a batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)] if batch_norm else [conv]


def build_network(depth, skip, batch_norm=True, width=16, num_classes=10):
    """The paper's network of depth = 6n+2 layers, nn.Sequential(stem, blocks, head) (task 2.2).

    It has 3n blocks. Takes (batch, 3, height, width). Returns logits (batch, num_classes).
    """
    blocks = []
    in_channels = width
    for out_channels, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        for i in range((depth - 2) // 6):
            stride = first_stride if i == 0 else 1
            blocks.append(Block(in_channels, out_channels, stride, skip, batch_norm))
            in_channels = out_channels
    stem = nn.Sequential(*conv_norm(3, width, 1, batch_norm), nn.ReLU())
    pool = nn.AdaptiveAvgPool2d(1)
    head = nn.Sequential(pool, nn.Flatten(), nn.Linear(in_channels, num_classes))
    return nn.Sequential(stem, nn.Sequential(*blocks), head)


@contextlib.contextmanager
def undisturbed(model, training):
    """A context in which the model is in train mode (training=True) or eval mode (False).

    Afterwards each module's mode and all buffers, such as running statistics, are what they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = []
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            buffers.append((module, name, buffer))
            setattr(module, name, buffer.clone())  # the forward pass writes to this copy
    try:
        yield model.train(training)
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
        for module, mode in modes:
            module.training = mode


def norm(tensor):
    """The Euclidean norm as a float, computed in float64: in float32 the square of 1e-24 is 0."""
    return tensor.detach().cpu().double().norm().item()


def gradient_norms(model, images, labels):
    """The norm of the loss's gradient with respect to each convolution's weight, a list of numbers.

    Section 4.1. The convolutions are the nn.Conv2d in the order of model.modules(). The loss is the
    mean cross-entropy in train mode. images (count, 3, height, width) are normalised; labels are
    (count,). Where gradients are as small as 1e-24, their norm is not 0 (use norm). If a gradient
    is not finite, neither is its norm. All parameters require gradients, and the images do not.
    Leaves no trace. These stay as they were: the model's weights, gradients (.grad, None or a
    tensor), requires_grad, hooks and buffers, each module's mode, images, labels, torch's random
    state and settings. (No model here draws random numbers.) undisturbed takes care of modes and
    buffers.
    """
    # Task 3.1: the loss of model(images) while the model is undisturbed, its gradients, and the
    # norm of each.
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    weights = [convolution.weight for convolution in convolutions]
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, weights)
    return [norm(gradient) for gradient in gradients]


def signal_norms(model, images, labels):
    """The norm of the loss's gradient with respect to each block's output, a list of numbers.

    From the first block to the last. model is nn.Sequential(stem, blocks, head). Images, labels,
    loss and precision are those of gradient_norms, and like it this function leaves no trace. Its
    own hooks are gone even if the forward pass raises an error, which it lets through; hooks that
    others have registered stay.
    """
    # Task 3.2: catch each block's output with a forward hook, remove the hooks, and differentiate
    # the loss with respect to the outputs.
    outputs = []

    def catch(block, inputs, output):
        outputs.append(output)

    hooks = [block.register_forward_hook(catch) for block in model[1]]
    try:
        with undisturbed(model, training=True):
            loss = F.cross_entropy(model(images), labels)
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(loss, outputs)
    return [norm(gradient) for gradient in gradients]


def change_per_layer(norms):
    """The factor by which the norm changes from one place in the list to the next.

    For 5, 5 * r, 5 * r^2, ... that is r. For other numbers, fit a line to the norms' natural
    logarithms against their places 0, 1, 2, ... (least squares): the factor is e to its slope.
    Norms that are 0, NaN or infinite are left out, and the others keep their places. NaN if fewer
    than two are left. Norms may be anything from 5e-324 to 1.7e308; you may assume that the factor
    is, too. The list itself stays as it was.
    """
    # Task 3.3: the slope of the line through the points (place, logarithm).
    points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
    if len(points) < 2:
        return math.nan
    x, y = torch.tensor(points, dtype=torch.float64).T
    x = x - x.mean()
    slope = (x * y).sum() / (x * x).sum()
    return math.exp(slope)


def gradient_correlation(model, images, neighbours):
    """The mean cosine similarity of the gradients at images and at their neighbours.

    Balduzzi et al., 2017. For each image the gradient is that of the sum of its logits with respect
    to the image, in eval mode, where no image changes another image's logits. images and neighbours
    are normalised (count, 3, height, width), and require no gradients. Returns a number: 1 for a
    linear model; NaN if the whole gradient at an image or a neighbour is 0. Leaves no trace, like
    gradient_norms; images and neighbours stay as they were.
    Deep networks have tiny gradients: divide each by its norm, in float64, before you multiply.
    (On the CPU: Apple GPUs have no float64.)
    """
    # Task 3.4: the gradients at both inputs, each image's scaled to norm 1; the mean of their inner
    # products.
    directions = []
    for inputs in (images, neighbours):
        inputs = inputs.detach().clone().requires_grad_()
        with undisturbed(model, training=False):
            (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
        directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
    cosines = (directions[0] * directions[1]).sum(dim=1)
    return cosines.mean().item()


def record_training(model, batches, optimizer):
    """Train the model, one step per batch, and return the norms as a tensor (steps, convolutions).

    Row t holds the norms of gradient_norms for batch t, before step t, in float32 or float64. (A
    list of rows will do, too.) batches yields (images, labels), at least once; it may be an
    iterator, so go through it only once. The optimizer has all of the model's parameters, and its
    step may write to .grad. The model trains in train mode, and its running statistics move once
    per batch. Gradients that .grad held before do not count. If a batch's loss is not finite, its
    row holds norms that are not finite, and the step is taken all the same. Leaves no hook on the
    model, does not seed torch, and changes no batch.
    """
    model.train()
    # Task 3.5: for each batch the loss, its gradients, a row of norms, and a step.
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    rows = []
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        rows.append([norm(convolution.weight.grad) for convolution in convolutions])
        optimizer.step()
    return torch.tensor(rows)


# %% The experiment


def run(args):
    """Measure gradients at initialisation, of neighbouring inputs, and in two training runs."""
    depths = DRY_RUN_DEPTHS if args.dry_run else DEPTHS
    depth = depths["training"]
    data = shrink(load_data(args), args.size)
    flows = measure_flows(args, data, depths["initialisation"])
    correlations = measure_correlations(args, data, depths["correlation"])
    runs = {kind: follow_training(args, data, kind, depth) for kind in TRAINED}
    numbers = {
        "at_initialisation": flows,
        "runs": runs,
        "correlation": {"depths": depths["correlation"], **correlations},
    }
    save_numbers(args, numbers)
    with printed_unless_dry_run(args):
        describe_flows(flows, depth)
        describe_correlations(correlations, depths["correlation"])
        describe_runs(runs)
    source = f"{data.name}, {args.size}x{args.size} pixels"
    save_figure(args, draw_initialisation(flows, depth, source))
    guessing_loss = math.log(len(data.classes))
    figure = draw_training(runs, correlations, depths, guessing_loss, source)
    save_figure(args, figure, suffix="_training")


def new_network(args, kind, depth, seed):
    """A network of one of the KINDS, with new weights."""
    skip, batch_norm, initialisation = KINDS[kind]
    torch.manual_seed(seed)
    network = build_network(depth, skip, batch_norm).to(args.device)
    if initialisation == "He":
        network.apply(initialise)
    return network


def choose_probe(data):
    """The training images that the networks are compared on: (normalised images, labels)."""
    return normalise(data.train_images[:PROBES], data), data.train_labels[:PROBES]


# Gradients at initialisation


def measure_flows(args, data, depths):
    """{kind: {depth: what measure_flow returns}} for all KINDS of networks."""
    probe = choose_probe(data)
    flows = {}
    for kind in tqdm(KINDS, desc="gradients at initialisation", unit="kind"):
        flows[kind] = {}
        for depth in depths:
            network = new_network(args, kind, depth, args.seed)
            flows[kind][depth] = measure_flow(network, probe)
    return flows


def measure_flow(network, probe):
    """The norms of a network's gradients, from the first layer to the last, and how they change.

    "weight_gradients" and "feature_gradients": the norms with respect to the convolutions' weights
    and to the blocks' outputs. "first_over_last": the first of "weight_gradients" over the last.
    "change_towards_input": the factor per layer of "feature_gradients".
    """
    weight_gradients = [float(value) for value in gradient_norms(network, *probe)]
    feature_gradients = [float(value) for value in signal_norms(network, *probe)]
    towards_input = feature_gradients[::-1]
    change_per_block = float(change_per_layer(towards_input))
    return {
        "weight_gradients": weight_gradients,
        "feature_gradients": feature_gradients,
        "first_over_last": ratio(weight_gradients[0], weight_gradients[-1]),
        "change_towards_input": change_per_block**0.5,  # a block has two layers
    }


def ratio(numerator, denominator):
    """The quotient; NaN if the denominator is 0."""
    return numerator / denominator if denominator else math.nan


# The gradients of neighbouring inputs


def measure_correlations(args, data, depths):
    """{kind: [[the gradient_correlation for each seed] for each depth]} at initialisation."""
    probe_images, _ = choose_probe(data)
    images = normalise(data.test_images, data)
    generator = torch.Generator().manual_seed(args.seed)
    noise = torch.randn(images.shape, generator=generator).to(args.device)
    neighbours = images + DISTANCE * noise
    seeds = range(args.seed, args.seed + CORRELATION_SEEDS)
    correlations = {kind: [] for kind in KINDS}
    pairs = list(itertools.product(KINDS, depths))
    for kind, depth in tqdm(pairs, desc="neighbouring inputs", unit="network"):
        by_seed = []
        for seed in seeds:
            network = new_network(args, kind, depth, seed)
            set_statistics(network, probe_images)
            by_seed.append(float(gradient_correlation(network, images, neighbours)))
        correlations[kind].append(by_seed)
    return correlations


def set_statistics(network, images):
    """Set the running statistics of a new network's batch norms to those of the images.

    Leaves the network in train mode.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the running statistics are then means over all batches
    network.train()
    with torch.no_grad():
        network(images)


# Gradients during training


def follow_training(args, data, kind, depth):
    """Train a network, and see what that does to its loss, its gradients and its weights.

    "loss": on the probe, before and after. "norms": of the convolutions' weight gradients, step by
    step. "weight_growth": the norm of each convolution's weights after training, over that before.
    """
    network = new_network(args, kind, depth, args.seed)
    probe = choose_probe(data)
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9)
    loss_before = probe_loss(network, probe)
    sizes_before = weight_sizes(network)
    batches = training_batches(args, data, label=f"{kind}, {depth} layers")
    norms = record_training(network, batches, optimizer)
    sizes_after = weight_sizes(network)
    return {
        "loss": [loss_before, probe_loss(network, probe)],
        "norms": [[float(value) for value in row] for row in norms],
        "weight_growth": [after / before for before, after in zip(sizes_before, sizes_after)],
    }


def weight_sizes(network):
    """The Euclidean norm of each convolution's weights, from the first layer to the last."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [norm(convolution.weight) for convolution in convolutions]


def training_batches(args, data, label):
    """All epochs' batches, in random order and with a progress bar: (normalised images, labels)."""
    generator = torch.Generator().manual_seed(args.seed)
    count = len(data.train_images)
    orders = [torch.randperm(count, generator=generator) for _ in range(args.epochs)]
    order = torch.cat(orders).to(args.device)
    for batch in tqdm(order.split(args.batch_size), desc=label, unit="batch"):
        images = normalise(data.train_images[batch], data)
        yield images, data.train_labels[batch]


def probe_loss(network, probe):
    """The mean cross-entropy in train mode, in nats (the unit that natural logarithms give).

    The network stays as it was.
    """
    images, labels = probe
    with undisturbed(network, training=True), torch.no_grad():
        return F.cross_entropy(network(images), labels).item()


# What the numbers show


def effect_of(change):
    """What a factor per layer, towards the input, does to the gradient of a deep network."""
    if math.isnan(change):
        return "is 0 or not finite"
    if change < VANISHING:
        return "vanishes"
    if change > EXPLODING:
        return "explodes"
    return "changes by at most 10 % per layer"


def list_effects(flows, depth):
    """In words, how the gradient changes: 'vanishes in "A" (×0.001), "B" (×1e-9); explodes ...'."""
    names_by_effect = {}
    for kind, flow in flows.items():
        change = flow[depth]["change_towards_input"]
        name = f'"{kind}" ({change_in_all(change, depth)})'
        names_by_effect.setdefault(effect_of(change), []).append(name)
    parts = []
    for effect, names in names_by_effect.items():
        parts.append(f"{effect} in {', '.join(names)}")
    return "; ".join(parts)


def change_in_all(change, depth):
    """What a factor per layer comes to in all layers but stem and head: ×0.001."""
    return f"×{readable(change ** (depth - 2))}"


def count_unusual(norms):
    """How many of the norms are exactly 0, and how many are NaN or infinite."""
    zeros = sum(value == 0 for value in norms)
    not_finite = sum(not math.isfinite(value) for value in norms)
    return zeros, not_finite


def describe_flows(flows, depth):
    """Print how the gradients change from layer to layer at initialisation."""
    depths = list(flows["plain"])
    print(
        f"At initialisation. Factor: what a gradient is multiplied by per layer, towards the input "
        f"({depth} layers).\nOther columns: the norm of the first convolution's weight gradient "
        "divided by that of the last (nan: the last is 0, or one is not finite)."
    )
    heads = [f"{number} layers".rjust(13) for number in depths]
    print(f"{'':16}{'factor':>8}{''.join(heads)}")
    for kind, flow in flows.items():
        ratios = "".join(f"{flow[number]['first_over_last']:13.3g}" for number in depths)
        print(f"{kind:16}{flow[depth]['change_towards_input']:8.2f}{ratios}")
    for kind, flow in flows.items():
        describe_unusual(kind, flow)
    print(
        f"In {depth - 2} layers, from the last block to the first, the gradient "
        f"{list_effects(flows, depth)}."
    )
    if flows["plain + BN"][depth]["change_towards_input"] >= VANISHING:
        print(
            "With batch norm the gradient of an untrained plain network does not vanish. So if it "
            "trains badly, vanishing gradients at the start are not the reason."
        )


def describe_unusual(kind, flow):
    """Print how many norms are 0, NaN or infinite, if any are."""
    for depth, measured in flow.items():
        norms = measured["weight_gradients"] + measured["feature_gradients"]
        zeros, not_finite = count_unusual(norms)
        if zeros or not_finite:
            print(
                f"{kind}, {depth} layers: {zeros} of {len(norms)} norms are exactly 0, "
                f"{not_finite} are NaN or infinite."
            )


def describe_correlations(correlations, depths):
    """Print how similar the gradients of neighbouring inputs are, by kind and depth."""
    print(
        "Cosine similarity of the gradients at neighbouring inputs, at initialisation, by number "
        f"of layers (mean of {CORRELATION_SEEDS} networks):"
    )
    print(" " * 16 + "".join(f"{depth:8}" for depth in depths))
    for kind, by_depth in correlations.items():
        means = [rounded(statistics.fmean(values)) for values in by_depth]
        print(f"{kind:16}" + "".join(f"{mean:>8}" for mean in means))
    plain = range_text(correlations["plain + BN"][-1])
    residual = range_text(correlations["residual + BN"][-1])
    print(
        f"At {depths[-1]} layers with batch norm it is {plain} without shortcuts, and {residual} "
        "with them."
    )


def range_text(values):
    """The mean of some numbers, and from where to where they go: 0.38 (0.29 to 0.44)."""
    mean = statistics.fmean(values)
    return f"{rounded(mean)} ({rounded(min(values))} to {rounded(max(values))})"


def rounded(number):
    """A number with two decimals, and 0.00 instead of -0.00."""
    return f"{round(number, 2) + 0:.2f}"


def describe_runs(runs):
    """Print how gradients and loss change during training."""
    for kind, record in runs.items():
        start, end = ratios_at_start_and_end(record)
        before, after = record["loss"]
        steps = len(record["norms"])
        print(
            f"{kind}, {steps} steps: the first convolution's gradient is {readable(start)} times "
            f"the last one's in the first step, {readable(end)} times in the last step; the loss "
            f"goes from {before:.2f} to {after:.2f} nats."
        )
        growth = record["weight_growth"]
        middle = len(growth) // 2
        print(
            f"    Its first convolution's weights are then {readable(growth[0])} times as large as "
            f"before, those in the middle {readable(growth[middle])} times, the last one's "
            f"{readable(growth[-1])} times."
        )


def ratios_at_start_and_end(record):
    """The first convolution's norm over the last's: in the first step, and in the last step."""
    first_step = record["norms"][0]
    last_step = record["norms"][-1]
    return ratio(first_step[0], first_step[-1]), ratio(last_step[0], last_step[-1])


def readable(number):
    """A ratio with as many digits as it needs: 6e-23, 0.025, 1.0, 7.4, 1,751."""
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


# The figure of the gradients at initialisation


def draw_initialisation(flows, depth, source):
    """A panel per kind of network: plain ones above, residual ones below."""
    figure = new_figure(14, 9.5)
    grid = figure.subplots(2, 3)
    panels = dict(zip(KINDS, grid.flat))
    for kind, axes in panels.items():
        draw_flow(axes, flows[kind], colour_of(kind))
        change = flows[kind][depth]["change_towards_input"]
        axes.set_title(
            f"{kind} ({initialisation_of(kind)})\n{effect_of(change)}\n"
            f"fitted: ×{change:.2f} per layer, {change_in_all(change, depth)} in {depth - 2}",
            color=colour_of(kind),
            fontsize=12,
        )
    grid[0, 0].set_ylabel("norm of the gradient (nats),\nother scale than the rest")
    grid[1, 0].set_ylabel("norm of the gradient (nats)")
    share_scale([axes for kind, axes in panels.items() if kind != "plain"])
    explain_lines(figure)
    effects = [effect_of(flow[depth]["change_towards_input"]) for flow in flows.values()]
    figure.suptitle(
        f"At initialisation, towards the input, the gradient vanishes in "
        f"{effects.count('vanishes')} of {len(effects)} kinds of network, and explodes in "
        f"{effects.count('explodes')}\n({source}; factors for {depth} layers; BN: batch norm)"
    )
    return figure


def colour_of(kind):
    """The colour of a kind of network, the same in all panels."""
    colours = {
        "plain": GREY,
        "plain, He": ORANGE,
        "plain + BN": VERMILION,
        "residual": GREEN,
        "residual, He": PURPLE,
        "residual + BN": BLUE,
    }
    return colours[kind]


def initialisation_of(kind):
    """How a kind of network is initialised, and whether it has batch norm, in words."""
    _, batch_norm, initialisation = KINDS[kind]
    words = f"{initialisation} initialisation"
    return f"{words}, batch norm" if batch_norm else words


def draw_flow(axes, flow, colour):
    """The norms of one kind of network by layer, for its depths."""
    norms = []
    for measured in flow.values():
        norms += measured["weight_gradients"] + measured["feature_gradients"]
    floor = min((value for value in norms if 0 < value < math.inf), default=1) / 1000
    axes.set_yscale("log")
    axes.margins(y=0.12)  # room for the labels
    for depth, measured in flow.items():
        thin = measured["weight_gradients"]
        thick = measured["feature_gradients"]
        ends = range(3, 2 * len(thick) + 3, 2)  # the layers with which the blocks end
        draw_norms(axes, range(1, len(thin) + 1), thin, floor, color=colour, linewidth=1)
        draw_norms(axes, ends, thick, floor, color=colour, linewidth=3)
        label_depth(axes, depth, measured, floor, colour)
    depths = ", ".join(str(depth) for depth in flow)
    label = f"layer, counted from the input (of {depths})"
    _, not_finite = count_unusual(norms)
    if not_finite:
        label += f"\n{not_finite} of {len(norms)} norms are NaN or infinite"
    axes.set_xlabel(label)


def draw_norms(axes, layers, norms, floor, **style):
    """A line through the norms; those that are exactly 0 are crosses at the height floor."""
    zeros = [layer for layer, value in zip(layers, norms) if value == 0]
    crosses = [floor] * len(zeros)
    axes.plot(zeros, crosses, "x", color=style["color"], markersize=4)
    points = len(norms) - len(zeros)
    if points == 1:  # a single point makes no line
        style["marker"] = "o"
    heights = [math.nan if value == 0 else value for value in norms]  # NaN leaves a gap
    axes.plot(layers, heights, **style)


def label_depth(axes, depth, measured, floor, colour):
    """Write a network's depth where its thick line ends, on the side away from the thin one."""
    y = measured["feature_gradients"][-1]
    above = measured["weight_gradients"][-1] <= y
    if y == 0:  # the line ends in crosses
        y = floor
    axes.annotate(
        f"{depth}",
        (depth, y),
        (0, 10 if above else -13),
        textcoords="offset points",
        color=colour,
        ha="center",
        va="center",
    )


def share_scale(panels):
    """Give the panels the same vertical axis."""
    bottoms = [axes.get_ylim()[0] for axes in panels]
    tops = [axes.get_ylim()[1] for axes in panels]
    for axes in panels:
        axes.set_ylim(min(bottoms), max(tops))


def explain_lines(figure):
    """A legend below the panels: what thick lines, thin lines and crosses are."""
    handles = [
        Line2D([], [], color=GREY, linewidth=3, label="with respect to the blocks' outputs"),
        Line2D([], [], color=GREY, linewidth=1, label="with respect to the convolutions' weights"),
        Line2D([], [], color=GREY, linestyle="", marker="x", label="exactly 0"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


# The figure of the training


def draw_training(runs, correlations, depths, guessing_loss, source):
    """A map of the norms in each run, and the similarity of neighbouring inputs' gradients."""
    depth = depths["training"]
    figure = new_figure(16, 5.6)
    figure.get_layout_engine().set(w_pad=0.12)  # inches between the panels
    *maps, last = figure.subplots(1, 3)
    scale = shared_colours(runs)
    for axes, (kind, record) in zip(maps, runs.items()):
        image = draw_map(axes, kind, record, scale)
    figure.colorbar(image, ax=maps, label="norm of the weight gradient (nats)", pad=0.01)
    draw_correlations(last, correlations, depths["correlation"])
    losses = [f"{record['loss'][1]:.2f} in {kind}" for kind, record in runs.items()]
    steps = len(runs["plain + BN"]["norms"])
    figure.suptitle(
        f"Training {depth} layers for {steps} steps: the loss in nats is then "
        f"{' and '.join(losses)} (guessing: {guessing_loss:.2f})\n({source}; BN: batch norm)"
    )
    return figure


def shared_colours(runs):
    """A logarithmic colour scale for all positive norms of all runs."""
    norms = torch.cat([torch.tensor(record["norms"]).flatten() for record in runs.values()])
    positive = norms[norms.isfinite() & (norms > 0)]
    return LogNorm(positive.min().item(), positive.max().item())


def draw_map(axes, kind, record, scale):
    """The norm of each layer's weight gradient at each step; black where it is 0 or not finite."""
    norms = torch.tensor(record["norms"]).T
    layers, steps = norms.shape
    axes.set_facecolor("black")
    image = axes.imshow(
        norms.numpy(),
        aspect="auto",
        origin="lower",
        norm=scale,
        extent=(0.5, steps + 0.5, 0.5, layers + 0.5),
    )
    start, end = ratios_at_start_and_end(record)
    axes.set(xlabel="training step", ylabel="layer, counted from the input")
    axes.set_title(
        f"{kind}: first convolution / last convolution:\n"
        f"{readable(start)} in the first step, {readable(end)} in the last",
        color=colour_of(kind),
        fontsize=12,
    )
    return image


def draw_correlations(axes, correlations, depths):
    """How similar the gradients of neighbouring inputs are, by depth: mean and range over seeds."""
    means = {}
    for kind, by_depth in correlations.items():
        means[kind] = [statistics.fmean(values) for values in by_depth]
    last_means = {kind: values[-1] for kind, values in means.items()}
    heights = spread_labels(last_means, distance=0.07)
    for kind in KINDS:
        colour = colour_of(kind)
        lowest = [min(values) for values in correlations[kind]]
        highest = [max(values) for values in correlations[kind]]
        axes.plot(depths, means[kind], "o-", color=colour, linewidth=2.5)
        axes.fill_between(depths, lowest, highest, color=colour, alpha=0.2)
        label_curve(axes, kind, depths[-1], heights[kind], colour)
    plain = rounded(means["plain + BN"][-1])
    residual = rounded(means["residual + BN"][-1])
    axes.set(
        xlabel=f"layers of the network (band: range over {CORRELATION_SEEDS} seeds)",
        ylabel="cosine similarity of the gradients",
        ylim=(-0.1, 1.05),
    )
    axes.set_title(
        f"gradients at inputs {DISTANCE:g} standard deviations apart, untrained:\n"
        f"{plain} in plain + BN, {residual} in residual + BN at {depths[-1]} layers",
        fontsize=12,
    )


# %% Given: the same in every file that uses it


# Colours that colour-blind eyes can tell apart (Okabe and Ito, 2008).
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
GREY = "#666666"
SHAPES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "star",
    "cross",
    "moon",
    "bowl",
    "pair",
)
DRY_RUN = {"epochs": 1, "train_images": 32, "test_images": 20}  # what --dry-run makes of a budget
MISHAPS = {  # what torch says when it cannot go on, and what to do then; the first that fits
    "MPS backend out of memory": "The memory is full: close other programs, or run with "
    "--device cpu",
    "out of memory": "The GPU's memory is full: close what else uses it, choose another GPU "
    "(CUDA_VISIBLE_DEVICES=1), or run with --device cpu",
    "can't allocate memory": "The memory is full: close other programs, or use fewer images",
    "not enough memory": "The memory is full: close other programs, or use fewer images",
    "no kernel image": "This torch does not support this GPU: run with --device cpu",
    "invalid device function": "This torch does not support this GPU: run with --device cpu",
    "busy or unavailable": "Another program uses the GPU: wait for it, or run with --device cpu",
    "ALLOC_FAILED": "The GPU's memory is full: close what else uses it, or run with --device cpu",
    "NOT_INITIALIZED": "The GPU cannot be used (a full memory?): run with --device cpu",
}


def initialise(module):
    """Draw a convolution's weights for a ReLU after it (arXiv:1502.01852, cited in section 3.4)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Shortcut(nn.Module):
    """Option A (section 3.3): every stride-th pixel, zeros for the new channels, no parameters."""

    def __init__(self, new_channels, stride):
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x):
        subsampled = x[:, :, :: self.stride, :: self.stride]
        # F.pad counts from the last dimension: width, height, channels; before and after each.
        return F.pad(subsampled, (0, 0, 0, 0, 0, self.new_channels))


@dataclass
class ImageData:
    """A training set and a test set on one device, and what images are normalised with."""

    name: str
    classes: list  # the names that the labels stand for
    train_images: torch.Tensor  # uint8 (count, 3, height, width)
    train_labels: torch.Tensor  # int64 (count,)
    test_images: torch.Tensor
    test_labels: torch.Tensor
    # Of each channel (1, 3, 1, 1), for values from 0 to 255, over at most 5,000 training images:
    mean: torch.Tensor
    deviation: torch.Tensor  # the standard deviation


def load_data(args):
    """The images that the command line asks for, at most args.train_images and args.test_images.

    Sets args.data to "cifar10" or "shapes", whichever is loaded.
    """
    cifar10 = None if args.data == "shapes" else read_cifar10(args)
    if cifar10 is not None:
        args.data = "cifar10"
        name = "CIFAR-10"
        classes, train_set, test_set = cifar10
    else:
        args.data = "shapes"
        name = "shapes"
        classes = SHAPES
        train_set = draw_shapes(args.train_images, seed=0)
        test_set = draw_shapes(args.test_images, seed=1)
    train_images, train_labels = [part[: args.train_images].to(args.device) for part in train_set]
    test_images, test_labels = [part[: args.test_images].to(args.device) for part in test_set]
    sample = train_images[:5000].float()
    deviation, mean = torch.std_mean(sample, dim=(0, 2, 3), keepdim=True)
    epochs = "1 epoch" if args.epochs == 1 else f"{args.epochs} epochs"
    print(
        f"{name}: {len(train_labels):,} training images, {len(test_labels):,} test images; "
        f"{epochs} on {args.device}"
    )
    return ImageData(
        name=name,
        classes=list(classes),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        mean=mean,
        deviation=deviation,
    )


def read_cifar10(args):
    """CIFAR-10 through torchvision: the classes' names, and two pairs (images, labels).

    The first pair is the training set, the second the test set. None if CIFAR-10 is not on disk and
    nobody has asked for the download. Ends the script with one sentence if it can be neither read
    nor fetched.
    """
    root = args.data_dir.resolve()
    if root.name == CIFAR10.base_folder:  # torchvision asks for the folder that holds this one
        root = root.parent
    if args.data == "cifar10":
        fetch_cifar10(root)
    try:
        is_there = (root / CIFAR10.base_folder).exists()
        if is_there:
            train_set = CIFAR10(root, train=True)
            test_set = CIFAR10(root, train=False)
    except OSError as error:
        sys.exit(
            f"CIFAR-10 in {root} cannot be read ({error.strerror}): name another --data-dir, or "
            "use --data shapes"
        )
    except MemoryError:
        raise
    except Exception:  # torchvision and pickle each raise their own
        sys.exit(
            f"CIFAR-10 in {root} is incomplete or damaged: run this with --data cifar10, which "
            "fetches what is missing, or use --data shapes"
        )
    if not is_there:
        print(f"No {CIFAR10.base_folder} in {root}: this run takes the built-in shapes")
        if (root / CIFAR10.filename).is_file():
            print(f"(--data cifar10 unpacks the {CIFAR10.filename} that is there.)")
        return None
    pairs = [
        (torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets))
        for part in (train_set, test_set)
    ]
    return train_set.classes, *pairs


def fetch_cifar10(root):
    """Download and unpack CIFAR-10, unless it is in root already.

    Each file is moved to its place when it is complete, so two runs may fetch CIFAR-10 at once.
    """
    try:
        CIFAR10(root)
        return
    except MemoryError:
        raise
    except Exception:  # it is missing or damaged; torchvision and pickle each raise their own
        pass
    socket.setdefaulttimeout(60)  # seconds without a byte, then a download has failed
    folder = unfinished_path(root / CIFAR10.base_folder)
    try:
        folder.mkdir(parents=True)
        if (root / CIFAR10.filename).is_file():
            shutil.copy(root / CIFAR10.filename, folder)
        CIFAR10(folder, download=True)
        (root / CIFAR10.base_folder).mkdir(exist_ok=True)
        for path in Path(folder, CIFAR10.base_folder).iterdir():
            replace_file(path, root / CIFAR10.base_folder / path.name)
    except MemoryError:
        raise
    except Exception as error:  # urllib and tarfile, too
        why = why_not_fetched("CIFAR-10", error, CIFAR10.url, root, "--data-dir")
        sys.exit(f"{why}, or use --data shapes")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_not_fetched(what, error, url, folder, setting):
    """What an error from a download into a folder means, and what to do, in one sentence.

    setting is what says which folder: a flag, such as --data-dir, or an environment variable.
    """
    write_errors = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # which name no file
    from_disk = isinstance(error, OSError) and not isinstance(error, URLError | ssl.SSLError)
    if from_disk and (error.filename is not None or error.errno in write_errors):
        return f"{what} cannot be kept in {folder} ({error.strerror}): name another {setting}"
    advice = "try again"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        advice = "see that the clock is right (on a Mac, run Python's Install Certificates.command)"
    return f"{what} cannot be downloaded ({error}): {advice}, or put {url} into {folder} yourself"


def draw_shapes(count, seed, style="filled"):
    """Draw count images of ten shapes at random places, sizes, tilts and colours.

    Returns images, uint8 (count, 3, 32, 32), and labels, int64 (count,), which number SHAPES.
    style: "filled", or "outline" for dark lines on light paper.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    labels = torch.randint(len(SHAPES), (count,), generator=generator)
    y, x = torch.meshgrid(torch.arange(-15.5, 16), torch.arange(-15.5, 16), indexing="ij")
    x = x + uniform(-4, 4, 1, 1)
    y = y + uniform(-4, 4, 1, 1)
    size = uniform(8, 13, 1, 1)
    tilt = uniform(-0.4, 0.4, 1, 1)
    u = (x * tilt.cos() - y * tilt.sin()) / size
    v = (x * tilt.sin() + y * tilt.cos()) / size
    depth = torch.empty_like(u)
    for label, name in enumerate(SHAPES):
        own = labels == label
        depth[own] = shape_depths(u[own], v[own])[name]
    depth.mul_(size)  # in pixels; in place here and below, to save memory
    del x, y, u, v

    mean_colour = uniform(0.2, 0.8, 3, 1, 1)
    background = F.interpolate(uniform(-0.15, 0.15, 3, 5, 5), size=32, mode="bicubic")
    background.add_(mean_colour)
    contrast = uniform(0.3, 0.8, 3, 1, 1)
    sign = torch.where(uniform(0, 1, 1, 1, 1) < 0.75, 1, -1)  # lighter three times in four
    colour = background.mean((2, 3), keepdim=True) + contrast * sign
    if style == "outline":
        depth = 1 - depth.abs()  # a line of two pixels along the shape's edge
        colour = 0.3 * background  # dark
        background = 0.7 + 0.3 * background  # light
    coverage = (depth + 0.5).clamp(0, 1)[:, None]  # of each pixel, from 0 to 1
    images = (colour - background).mul_(coverage).add_(background)
    # Each image from 0 to a maximum between 0.6 and 1.
    darkest = images.amin((1, 2, 3), keepdim=True)
    brightest = images.amax((1, 2, 3), keepdim=True)
    images.sub_(darkest)
    images.mul_(uniform(0.6, 1, 1, 1, 1))
    images.div_(brightest - darkest)
    del background
    images.add_(torch.randn(images.shape, generator=generator).mul_(0.05))
    return images.clamp_(0, 1).mul_(255).to(torch.uint8), labels


def shape_depths(u, v):
    """How deep each point lies inside each shape, by the shape's name; negative outside.

    u and v are a point's coordinates, right and down, in units of the shape's size.
    """
    radius = torch.hypot(u, v)
    angle = torch.atan2(u, v)  # from straight down, where the star has a tip
    box = torch.maximum(u.abs(), v.abs())  # half the side of the square that the point lies on
    third_turn = 2 * math.pi / 3
    fifth_turn = 2 * math.pi / 5
    # The angle from the middle of the triangle's nearest side.
    to_side = (angle + third_turn / 2) % third_turn - third_turn / 2
    from_notch = (angle / fifth_turn % 1 - 0.5).abs()  # 0 between two tips of the star, 0.5 at one
    bar = 0.26 - torch.minimum(u.abs(), v.abs())
    bite = torch.hypot(u - 0.5, v) - 0.75
    half_disc = 1 - torch.hypot(u, v + 0.4)
    return {
        "disc": 0.8 - radius,
        "ring": 0.23 - (radius - 0.7).abs(),
        "square": 0.75 - box,
        "frame": 0.2 - (box - 0.65).abs(),
        "triangle": 0.5 - radius * torch.cos(to_side),
        "star": 0.42 + 1.1 * from_notch - radius,
        "cross": torch.minimum(bar, 0.95 - box),
        "moon": torch.minimum(0.95 - radius, bite),
        "bowl": torch.minimum(half_disc, v + 0.4),
        "pair": 0.42 - torch.hypot(u.abs() - 0.52, v),
    }


def shrink(data, size):
    """The data with its images averaged down from 32x32 to size x size, in place."""
    for name in ("train_images", "test_images"):
        images = getattr(data, name).float()
        averages = F.avg_pool2d(images, 32 // size)
        setattr(data, name, averages.round().to(torch.uint8))
    return data


def normalise(images, data):
    """uint8 images as float32: minus data.mean, divided by data.deviation, channel by channel."""
    scaled = (images - data.mean) / data.deviation
    return scaled.contiguous(memory_format=memory_format(images.device))


def memory_format(device):
    """The order of images and weights in memory in which convolutions are fast.

    That is channels last; not on Apple GPUs, where many versions of torch compute wrong gradients
    of batch norm in that order (PyTorch's issue 175189).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


OF_THE_PROCESS = ("start", "has_kept")  # what args holds, but no setting of the run


def new_figure(width, height):
    """An empty figure of width x height inches in the course's style.

    Sets matplotlib's settings, so that the user's own do not count.
    """
    rcdefaults()
    rcParams.update(
        {
            "font.size": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.titleweight": "bold",
        }
    )
    return Figure((width, height), dpi=130, layout="constrained")


def label_curve(axes, text, x, y, colour, shift=(8, 0)):
    """Write a curve's name beside the point (x, y), in the curve's colour; shift is in points."""
    axes.annotate(
        text,
        (x, y),
        shift,
        textcoords="offset points",
        color=colour,
        va="center",
        annotation_clip=False,
    )


def spread_labels(heights, distance):
    """Heights for labels, {name: height}, raised where two would be nearer than the distance."""
    spread = {}
    lowest = distance / 2  # above the axis at 0
    for name in sorted(heights, key=heights.get):
        spread[name] = max(heights[name], lowest)
        lowest = spread[name] + distance
    return spread


@contextlib.contextmanager
def written_whole(path, quiet=False):
    """Yield a temporary path to write to. At the end that file replaces path, and path is printed.

    After an error path is what it was before. quiet: nothing is printed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have tidied up during the run
    unfinished = unfinished_path(path)
    try:
        yield unfinished
        replace_file(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # a virus scanner may hold the file
            unfinished.unlink(missing_ok=True)
    if not quiet:
        print(f"Wrote {path}")


def replace_file(new_file, path):
    """Put a new file in the place of path. Tries for a second: a virus scanner may hold a file."""
    for pause in (0.1, 0.3, 0.6):
        with contextlib.suppress(PermissionError):
            os.replace(new_file, path)
            return
        time.sleep(pause)
    os.replace(new_file, path)


def unfinished_path(path):
    """A unique temporary path in path's folder."""
    return path.with_name(f"unfinished_{os.urandom(4).hex()}_{path.name}")


def save_numbers(args, numbers):
    """Write what a run has measured, and how, to OUT/exercise_0N.json.

    Call it before the findings are printed: where nobody reads these any more (... | head), the
    numbers are safe.
    """
    settings = {name: value for name, value in vars(args).items() if name not in OF_THE_PROCESS}
    record = {
        "settings": settings,
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "seconds": time.perf_counter() - args.start,
        **numbers,
    }
    record = json.loads(json.dumps(record, default=str), parse_constant=str)  # JSON has no NaN
    with written_whole(args.out / f"{args.exercise}.json") as path:
        path.write_text(json.dumps(record, indent=1), "utf-8")


def printed_unless_dry_run(args):
    """A context in which a dry run prints nothing, as its findings mean nothing."""
    if args.dry_run:
        return contextlib.redirect_stdout(None)
    return contextlib.nullcontext()


def save_figure(args, figure, suffix=""):
    """Write the figure to OUT/exercise_0N.png, a dry run's with a mark across it.

    suffix comes before .png, for an exercise's second figure.
    """
    if args.dry_run:
        figure.text(0.5, 0.5, "dry run", ha="center", va="center", color=GREY, size=80, alpha=0.5)
    with written_whole(args.out / f"{args.exercise}{suffix}.png") as path:
        figure.savefig(path)


def own_file():
    """This script's file; None in a notebook or console, where other code than its may run."""
    path = Path(globals().get("__file__", ""))
    return path if path.is_file() and not in_console() else None


def whole_number(low, high):
    """A type for argparse: a whole number from low to high."""

    def parse(text):
        if text.isdecimal() and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {low} to {high}")

    return parse


def expanded_path(text):
    """A type for argparse: a path. Expands the ~, which a shell leaves alone in --out=~/results."""
    return Path(os.path.expanduser(text))  # Path's own raises an error for an unknown user


def parse_args(exercise, budgets, add_flags=None):
    """The command line.

    budgets is {"cpu": {setting: default, ...}, "gpu": {...}, and for each preset what it changes}.
    add_flags(add) adds the exercise's own flags; add is the parser's add_argument.
    """
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.error = lambda message: parser.exit(2, f"{message} (--help lists the flags)\n")
    add = parser.add_argument
    add(
        "--data",
        choices=("auto", "shapes", "cifar10"),
        default="auto",
        help="auto: CIFAR-10 if it is on disk, else shapes; cifar10 downloads it",
    )
    add(
        "--data-dir",
        type=expanded_path,
        default="data",
        metavar="DIR",
        help="where torchvision keeps CIFAR-10 (default: data)",
    )
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="auto: cuda, else mps, else cpu",
    )
    add(
        "--epochs",
        type=whole_number(1, 1000),
        metavar="N",
        help=f"default on a CPU: {budgets['cpu']['epochs']}",
    )
    add(
        "--train-images",
        type=whole_number(1, 50_000),
        metavar="N",
        help=f"default on a CPU: {budgets['cpu']['train_images']:,}",
    )
    add("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="default: 0")
    add(
        "--out",
        type=expanded_path,
        default="results",
        metavar="DIR",
        help="where the figure and its numbers are written (default: results)",
    )
    add(
        "--dry-run",
        action="store_true",
        help="one tiny step of everything, in seconds; writes to OUT/dry_run",
    )
    if add_flags:
        add_flags(add)
    args = parser.parse_args(own_arguments())
    args.exercise = exercise[: len("exercise_01")]
    args.start = time.perf_counter()
    args.device = choose_device(args.device, parser)
    if args.dry_run:
        args.out = args.out / "dry_run"
    check_folders(args, parser)
    apply_budget(args, budgets)
    return args


def own_arguments():
    """The arguments that are meant for this script, and not for a notebook or a console."""
    return [] if in_console() else sys.argv[1:]


def in_console():
    """Whether cells of a notebook or lines of a console run, and not a script."""
    program = Path(sys.argv[0])
    consoles = ("kernel_launcher.py", "pydevconsole.py")
    return program.name.endswith(consoles) or "spyder_kernels" in program.parts


def choose_device(name, parser):
    """The torch.device of that name; for "auto" the fastest that works."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        works = (device for device in available if available[device] and can_compute(device))
        return torch.device(next(works))
    if not available[name]:
        parser.error(f"--device {name}: torch finds none here; leave the flag out")
    if not can_compute(name):
        parser.error(f"--device {name} cannot be used: leave the flag out")
    return torch.device(name)


def can_compute(device):
    """Whether torch computes on a device: a GPU or its cuDNN may not fit this torch, or be full."""
    try:
        image = torch.ones(1, 1, 3, 3, device=device)
        F.conv2d(image, image).item()
    except RuntimeError as error:
        print(f"{device} is there, but does not work: {str(error).splitlines()[0]}")
        return False
    return True


def limit_threads(limit=Path("/sys/fs/cgroup/cpu.max")):
    """Use as many threads as a container may use cores; torch starts one for each core it sees."""
    with contextlib.suppress(OSError, ValueError):  # there is no such file, or no limit in it
        quota, period = map(int, limit.read_text().split())
        torch.set_num_threads(min(math.ceil(quota / period), torch.get_num_threads()))


def check_folders(args, parser):
    """Make OUT; end the script with one sentence if that fails, or --data-dir is a file."""
    if os.path.isfile(args.data_dir):  # false where one may not look
        parser.error(f"--data-dir {args.data_dir} is a file: give the folder for CIFAR-10")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        trial = unfinished_path(args.out / "trial")
        try:
            trial.write_bytes(bytes(2**20))  # a full disk may still take an empty file
        finally:
            with contextlib.suppress(OSError):  # a virus scanner may hold the file
                trial.unlink(missing_ok=True)
    except OSError as error:
        parser.error(
            f"--out {args.out}: cannot write there ({error.strerror}); give another folder"
        )


def apply_budget(args, budgets):
    """Set what no flag has set, from the preset's budget or the device's."""
    # Apple's GPUs are far slower than those that the larger budget is meant for.
    budget = dict(budgets["gpu" if args.device.type == "cuda" else "cpu"])
    preset = getattr(args, "preset", None)
    if preset:
        budget.update(budgets[preset])
    for name, value in budget.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if args.dry_run:
        vars(args).update(DRY_RUN)


def stop_if_unwritten(exercise):
    """End the script with one sentence if one of its tasks is not written yet."""
    path = own_file()
    if path is None:
        return
    lines = path.read_bytes().splitlines()  # bytes, for the file may be in any encoding
    for number, line in enumerate(lines, 1):
        if not line.strip().startswith(b'raise NotImplementedError("TODO'):
            continue
        task = line.split(b'"')[1].decode()
        if is_left_over(lines, number):
            sys.exit(
                f"{task}: delete line {number} of {path.name}, which still raises "
                "NotImplementedError, once the task is written"
            )
        advice = ""
        if path.name == f"{exercise}.py" and Path(path.parent, "tests").is_dir():
            advice = f". Check it with: pytest tests/test_{exercise}.py"
        sys.exit(f"{task} is not written yet ({path.name}, line {number}){advice}")


def is_left_over(lines, number):
    """Whether line number, which raises a task's error, has code right above or below it."""
    above = [line.strip() for line in lines[: number - 1] if line.strip()]
    below = [line for line in lines[number:] if line.strip()]
    if above:
        is_comment = above[-1].startswith(b"#")
        ends_docstring = above[-1].endswith(b'"""')
        if not is_comment and not ends_docstring:
            return True
    if not below:
        return False
    raises = lines[number - 1]
    margin = raises.removesuffix(raises.lstrip())
    return below[0].startswith(margin)


def main(run, exercise, budgets, add_flags=None):
    """Run the experiment as the command line says; every expected mishap gets one sentence."""
    if sys.stderr is None:  # closed, but progress bars want one
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if [int(part) for part in torch.__version__.split(".")[:2]] < [2, 6]:
        sys.exit(f"PyTorch 2.6 or newer is needed; this is {torch.__version__}")
    args = parse_args(exercise, budgets, add_flags)
    stop_if_unwritten(exercise)
    limit_threads()
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has no such method
        # Letters that the terminal cannot show are replaced; a log file gets each line at once.
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    try:
        run(args)
        if args.dry_run:
            print("This was a dry run: everything works, and what it measured means nothing.")
    except KeyboardInterrupt:
        words = "Stopped: nothing is half-written."
        if getattr(args, "has_kept", False):
            words += " What is finished is kept: the same command goes on from there."
        sys.excepthook = lambda *_: print(f"\n{words}", file=sys.stderr)
        raise  # and not sys.exit: a shell's loop around this run then ends, too
    except MemoryError:
        sys.exit(MISHAPS["can't allocate memory"])
    except RuntimeError as error:  # torch has no classes for most of these
        for words, sentence in MISHAPS.items():
            if words in str(error):
                sys.exit(sentence)
        raise
    except OSError as error:
        broken_pipe = (errno.EPIPE, errno.EINVAL)  # the latter on Windows
        if error.filename is None and error.errno in broken_pipe:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is to come
            sys.exit(
                "Stopped: nobody reads the output any more. Leave out the | and what follows it"
            )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f"The disk is full: make room, or give another folder than --out {args.out}")
        path = Path(str(error.filename2 or error.filename))
        if error.filename is None or not path.is_relative_to(args.out):
            raise
        sys.exit(f"{path} cannot be written ({error.strerror}): close or remove it, and try again")


# %% Run

if __name__ == "__main__":
    main(run, EXERCISE, BUDGETS)
