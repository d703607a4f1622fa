# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 3: see how gradients flow through residual and plain networks.

Goal: measure what becomes of the gradient on its way from the loss to the first layer, with and without shortcuts, with
and without batch norm, at initialisation and while a network trains. Then say what makes deep plain networks fail.
Paper: He et al., 2015 (arXiv:1512.03385), section 4.1; Yang et al., 2019 (arXiv:1902.08129); Balduzzi et al., 2017
(arXiv:1702.08591).

    3.1  gradient_norms         how large the gradient of each convolution is
    3.2  signal_norms           how large the gradient is that comes back to each block
    3.3  change_per_layer       by what factor a norm changes from one layer to the next
    3.4  gradient_correlation   how alike the gradients of neighbouring inputs are
    3.5  record_training        the norms of 3.1 at every step of a training

Check:  pytest tests/test_exercise_03_gradient_flow.py
Run:    python exercise_03_gradient_flow.py             (--help lists the flags; --dry-run takes seconds)
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import torchvision
from matplotlib import rcParams
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import nn
from torchvision.datasets import CIFAR10
from tqdm import tqdm

BUDGET = {  # on a CPU, pictures are averaged down to 16x16
    "cpu": {"epochs": 3, "train_images": 2_560, "test_images": 100, "batch_size": 64, "size": 16},
    "gpu": {"epochs": 3, "train_images": 12_800, "test_images": 100, "batch_size": 128, "size": 32},
}
FLAGS = {}
DEPTHS, TRAINED, SHATTERED = (20, 56, 110), 56, (8, 14, 20, 32, 44, 56)  # layers; TRAINED is one of DEPTHS
PROBES = 100  # pictures that the norms at initialisation are measured on
DISTANCE = 0.1  # of an input's neighbour, in deviations of a pixel
RATE = 0.02  # the learning rate; with 0.1 a network of 56 layers needs a warm-up that would hide its first steps
PANELS = {  # the four kinds of network: skip, batch_norm, whose initialisation; BN is batch norm
    "plain": (False, False, "torch"), "plain + BN": (False, True, "He"),
    "residual": (True, False, "torch"), "residual + BN": (True, True, "He")}
KINDS = PANELS | {"plain, He": (False, False, "He"), "residual, He": (True, False, "He")}


# %% Your part


class Shortcut(nn.Module):
    """Option A (section 3.3): every stride-th pixel, and zeros for the new channels. It has no parameters."""

    def __init__(self, new_channels, stride):
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class Block(nn.Module):
    """relu(branch(x) + shortcut(x)) with skip, relu(branch(x)) without; batch norm or none (task 2.1)."""

    def __init__(self, in_channels, out_channels, stride, skip, batch_norm):
        super().__init__()
        self.skip, self.shortcut = skip, Shortcut(out_channels - in_channels, stride)
        self.branch = nn.Sequential(*conv_norm(in_channels, out_channels, stride, batch_norm), nn.ReLU(),
                                    *conv_norm(out_channels, out_channels, 1, batch_norm))

    def forward(self, x):
        out = self.branch(x)
        return F.relu(out + self.shortcut(x) if self.skip else out)


def conv_norm(in_channels, out_channels, stride, batch_norm):
    """A list of a 3x3 convolution and, where asked for, batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)] if batch_norm else [conv]


def build_network(depth, skip, batch_norm=True, width=16, num_classes=10):
    """The paper's network of depth = 6n+2 layers, nn.Sequential(stem, blocks, head) with 3n blocks (task 2.2)."""
    blocks, channels = [], width
    for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        for i in range((depth - 2) // 6):
            blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip, batch_norm))
            channels = out_channels
    return nn.Sequential(nn.Sequential(*conv_norm(3, width, 1, batch_norm), nn.ReLU()), nn.Sequential(*blocks),
                         nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)))


@contextlib.contextmanager
def undisturbed(model, training):
    """Within it the model is in train or eval mode; after it modes and batch norm's statistics are as before."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, *named) for module, _ in modes for named in module.named_buffers(recurse=False)]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield model.train(training)
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
        for module, mode in modes:
            module.training = mode


def norm(tensor):
    """The Euclidean norm as a float, computed in float64: in float32 the square of 1e-23 is zero."""
    return tensor.detach().cpu().double().norm().item()


def gradient_norms(model, images, labels):
    """The norm of the loss's gradient for the weight of each nn.Conv2d, a list in the order of model.modules().

    The loss is the mean cross-entropy of images, normalised (count, 3, height, width), and labels (count,), in train
    mode. A gradient may be as small as 1e-24, and its norm is not 0 then: see norm. Leaves no trace: every .grad is
    what it was, and undisturbed puts back mode and running statistics.
    """
    # Task 3.1: the loss of model(images) while the model is undisturbed, its gradients, and the norm of each.
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    with undisturbed(model, training=True):
        loss = F.cross_entropy(model(images), labels)
    return [norm(gradient) for gradient in torch.autograd.grad(loss, weights)]


def signal_norms(model, images, labels):
    """The norm of the loss's gradient with respect to each block's output, a list from the first block to the last.

    model is nn.Sequential(stem, blocks, head). Loss, precision and traces are those of gradient_norms; no hook stays.
    """
    # Task 3.2: catch each block's output with a forward hook, remove the hooks, and differentiate for the outputs.
    outputs = []
    hooks = [block.register_forward_hook(lambda block, inputs, output: outputs.append(output)) for block in model[1]]
    try:
        with undisturbed(model, training=True):
            loss = F.cross_entropy(model(images), labels)
    finally:
        for hook in hooks:
            hook.remove()
    return [norm(gradient) for gradient in torch.autograd.grad(loss, outputs)]


def change_per_layer(norms):
    """The factor by which the norm changes from one layer to the next: r for the norms a, a r, a r^2, ...

    It is e to the slope of the line that fits the norms' logarithms best (least squares) against 0, 1, 2, ... Norms
    that are 0, NaN or infinite are left out, and the others keep their places. NaN if fewer than two are left. The list
    norms itself stays as it is.
    """
    # Task 3.3: the slope of the line through the points (place, logarithm).
    points = [(i, math.log(value)) for i, value in enumerate(norms) if 0 < value < math.inf]
    if len(points) < 2:
        return math.nan
    x, y = torch.tensor(points, dtype=torch.float64).T
    x = x - x.mean()
    return math.exp((x * y).sum() / (x * x).sum())


def gradient_correlation(model, images, neighbours):
    """How alike the gradients at images and at their neighbours are: the mean over the pairs of the gradients' cosine.

    The gradient is that of the summed logits with respect to the input, in eval mode, where no picture has a say in
    another's logits. Both inputs are (count, 3, height, width). 1 for a linear model; NaN if any gradient is 0. Leaves
    no trace. The gradients of deep networks are tiny: divide each by its norm, in float64, before you multiply.
    """
    # Task 3.4: the gradients at both inputs, scaled to norm 1 picture by picture; the mean of their inner products.
    directions = []
    for inputs in (images, neighbours):
        inputs = inputs.detach().clone().requires_grad_()
        with undisturbed(model, training=False):
            (gradient,) = torch.autograd.grad(model(inputs).sum(), inputs)
        directions.append(F.normalize(gradient.flatten(1).cpu().double(), eps=0))
    return (directions[0] * directions[1]).sum(dim=1).mean().item()


def record_training(model, batches, optimizer):
    """Train the model, one step of the optimizer a batch (images, labels); the norms as a tensor (steps, layers).

    Row t holds the norms of gradient_norms for batch t, before step t.
    """
    model.train()
    # Task 3.5: for each batch the loss, its gradients, a row of norms, and a step.
    rows, convolutions = [], [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        rows.append([norm(module.weight.grad) for module in convolutions])
        optimizer.step()
    return torch.tensor(rows)


def initialise(module):
    """Draw a convolution's weights as He et al. do for layers followed by ReLUs (arXiv:1502.01852; section 3.4)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# %% The experiment


def run(args):
    """Gradients at initialisation, then shattering, then gradients through training."""
    depths, trained, shattered = ((8, 14), 14, (8, 14)) if args.dry_run else (DEPTHS, TRAINED, SHATTERED)
    data = load_data(args)
    for name in ("train_images", "test_images"):
        smaller = F.avg_pool2d(getattr(data, name).float(), 32 // args.size).round().to(torch.uint8)
        setattr(data, name, smaller)
    probe = normalise(data.train_images[:PROBES], data), data.train_labels[:PROBES]
    inputs = normalise(data.test_images, data)
    noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(args.seed)).to(args.device)

    flows = {kind: {depth: measure(new_network(args, kind, depth), probe) for depth in depths}
             for kind in tqdm(KINDS, desc="gradients at initialisation", unit="kind")}
    likeness = {kind: [compare(new_network(args, kind, depth), probe, inputs, inputs + DISTANCE * noise)
                       for depth in shattered] for kind in tqdm(PANELS, desc="neighbours", unit="kind")}
    trainings = {kind: follow(args, kind, trained, data, probe) for kind in ("plain + BN", "residual + BN")}
    numbers = {"at_initialisation": flows, "trainings": trainings, "correlation": {"depths": shattered, **likeness}}
    save_results(args, draw_figure(args, flows, shattered, likeness, trainings, trained, data), numbers)
    describe(flows, shattered, likeness, trainings, trained)


def new_network(args, kind, depth):
    """A network of one of the KINDS, with fresh weights."""
    skip, batch_norm, initialisation = KINDS[kind]
    torch.manual_seed(args.seed)
    network = build_network(depth, skip, batch_norm).to(args.device)
    return network.apply(initialise) if initialisation == "He" else network


def measure(network, probe):
    """The norms for weights and features, first over last weight gradient, and the features' change a layer."""
    weights, features = [list(map(float, norms(network, *probe))) for norms in (gradient_norms, signal_norms)]
    return {"weights": weights, "features": features, "first_over_last": weights[0] / (weights[-1] or math.nan),
            "change_towards_input": float(change_per_layer(features[::-1])) ** 0.5}  # a block has two layers


def compare(network, probe, inputs, neighbours):
    """gradient_correlation of a fresh network whose batch norms have the statistics of the probe."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics are then those of all pictures seen
    with torch.no_grad():
        network.train()(probe[0])
    return float(gradient_correlation(network, inputs, neighbours))


def follow(args, kind, depth, data, probe):
    """Train a network: its loss on the probe (nats) before and after, and the norms step by step."""
    network = new_network(args, kind, depth)
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9)
    generator, count = torch.Generator().manual_seed(args.seed), len(data.train_images)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(args.epochs)]).to(args.device)
    batches = [(data.train_images[i], data.train_labels[i]) for i in order.split(args.batch_size)]
    bar = tqdm(batches, desc=f"{kind}, {depth} layers", unit="batch")
    before = loss_of(network, probe)
    norms = record_training(network, ((normalise(images, data), labels) for images, labels in bar), optimizer)
    return {"loss": [before, loss_of(network, probe)], "norms": [list(map(float, row)) for row in norms]}


def loss_of(network, probe):
    """The mean cross-entropy (nats) in train mode, the network left as it was."""
    with undisturbed(network, training=True), torch.no_grad():
        return F.cross_entropy(network(probe[0]), probe[1]).item()


def draw_figure(args, flows, shattered, likeness, trainings, trained, data):
    """Above: the gradients of the four kinds at initialisation. Below: two trainings as maps, and the shattering."""
    figure, colours = new_figure(16, 10), dict(zip(PANELS, (GREY, VERMILION, GREEN, BLUE)))
    above, below = figure.subfigures(2, 1)
    panels, (*maps, last) = above.subplots(1, 4), below.subplots(1, 3)
    for axes, kind in zip(panels, PANELS):
        draw_flow(axes, flows[kind], colours[kind])
        change = flows[kind][trained]["change_towards_input"]
        axes.set_title(f"{kind}: {verdict(change)}\n×{change:.2f} a layer towards the input", color=colours[kind])
    panels[0].set_ylabel("norm of the loss's gradient\nthick: for features; thin: for weights")
    bottoms, tops = zip(*(axes.get_ylim() for axes in panels[1:]))
    for axes in panels[1:]:  # one scale; what vanishes needs its own
        axes.set_ylim(min(bottoms) / 3, max(tops))

    norms = {kind: torch.tensor(training["norms"]).T for kind, training in trainings.items()}
    drawn = torch.cat([values[values.isfinite() & (values > 0)] for values in norms.values()])
    for axes, (kind, values) in zip(maps, norms.items()):
        axes.set_facecolor("black")  # shows where a norm is 0 or not finite
        image = axes.imshow(values, aspect="auto", origin="lower", norm=LogNorm(drawn.min(), drawn.max()),
                            extent=(0.5, values.shape[1] + 0.5, 0.5, len(values) + 0.5))
        axes.set(xlabel="training step", ylabel="layer, from input to output")
        axes.set_title("{}, {} layers: training takes\nthe loss from {:.2f} to {:.2f}".format(
            kind, trained, *trainings[kind]["loss"]), color=colours[kind])
    below.colorbar(image, ax=maps, label="norm of a layer's weight gradient", pad=0.01)

    y = -1
    for kind, values in sorted(likeness.items(), key=lambda item: item[1][-1]):
        last.plot(shattered, values, "o-", color=colours[kind], linewidth=2.5)
        y = max(values[-1], y + 0.07)  # labels of equal values stand above each other
        last.annotate(kind, (shattered[-1], y), (8, 0), textcoords="offset points", color=colours[kind], va="center",
                      annotation_clip=False)
    last.set(xlabel="layers of the network", ylabel="mean cosine", ylim=(-0.1, 1))
    last.set_title(f"gradients of inputs {DISTANCE:g} deviations apart:\nhow alike they are at initialisation")
    figure.suptitle(f"The gradient {findings(flows, trained)}\n"
                    f"({data.name}, {args.size} px, {trained} layers; BN: batch norm)")
    return figure


def draw_flow(axes, flow, colour):
    """The gradients of one kind of network at its depths; crosses on the bottom line are norms of exactly 0."""
    everything = [value for found in flow.values() for name in ("weights", "features") for value in found[name]]
    floor = min((value for value in everything if 0 < value < math.inf), default=1) / 1e3
    for depth, found in flow.items():
        for name, first, step, width in (("weights", 1, 1, 1), ("features", 3, 2, 3)):  # a block is two layers
            values, places = found[name], [first + step * i for i in range(len(found[name]))]
            axes.plot(places, [value or math.nan for value in values], color=colour, linewidth=width)
            zeros = [place for place, value in zip(places, values) if value == 0]
            axes.plot(zeros, [floor] * len(zeros), "x", color=colour, markersize=4)
        y, up = (floor, 8) if 0 in found["features"] else (found["features"][-1], -16)
        axes.annotate(f"{depth}", (depth, y), (0, up), textcoords="offset points", color=colour, ha="center")
    lost = sum(not math.isfinite(value) for value in everything)
    depths = ", ".join(map(str, flow))
    axes.set(yscale="log", xlabel=f"layer, from the input (of {depths})" + "\n×: exactly 0" * (0 in everything)
             + f"\n{lost} of {len(everything)} norms are NaN or infinite" * bool(lost))


def verdict(change):
    """In a word, what a factor a layer, towards the input, does to the gradient of a deep network."""
    if math.isnan(change):
        return "is zero or not finite"
    return "vanishes" if change < 0.9 else "explodes" if change > 1.1 else "is held"


def findings(flows, depth):
    """In words, what becomes of the gradient: "vanishes in plain; explodes in plain + BN; ..."."""
    kinds = {}
    for kind in PANELS:
        kinds.setdefault(verdict(flows[kind][depth]["change_towards_input"]), []).append(kind)
    return "; ".join(f"{word} in {' and '.join(names)}" for word, names in kinds.items())


def describe(flows, shattered, likeness, trainings, trained):
    """Say what this run's numbers show."""
    print(f"At initialisation   change a layer | weight gradient, first over last layer, at depth\n"
          f"                    towards input  |{''.join(f'{depth:>11}' for depth in flows['plain'])}")
    for kind, flow in flows.items():
        ratios = "".join(f"{found['first_over_last']:11.3g}" for found in flow.values())
        print(f"{kind:20}{flow[trained]['change_towards_input']:14.2f} |{ratios}")
    for kind, flow in flows.items():
        for depth, found in flow.items():
            values = found["weights"] + found["features"]
            zeros, lost = values.count(0), sum(not math.isfinite(value) for value in values)
            if zeros or lost:
                print(f"{kind}, {depth} layers: of {len(values)} norms {zeros} are exactly 0, {lost} NaN or infinite.")
    print(f"At {trained} layers the gradient {findings(flows, trained)}.")
    if flows["plain + BN"][trained]["change_towards_input"] > 0.9:
        print("With batch norm a plain network's gradient does not vanish: shortcuts cannot be the cure for that.")
    alike = [f"{kind} {values[-1]:.2f}" for kind, values in likeness.items()]
    print(f"Gradients of neighbouring inputs at {shattered[-1]} layers, mean cosine: {', '.join(alike)}.")
    if likeness["residual + BN"][-1] - likeness["plain + BN"][-1] > 0.05:
        print("With batch norm the plain network's are the more shattered: a small step leads to another gradient.")
    else:
        print("In this run that does not tell plain from residual where there is batch norm.")
    for kind, training in trainings.items():
        start, end = [row[0] / (row[-1] or math.nan) for row in (training["norms"][0], training["norms"][-1])]
        print(f"{kind}, {len(training['norms'])} steps: the first layer's gradient is {start:.2g} times the last "
              "layer's in the first step, {:.2g} times in the last; loss from {:.2f} to {:.2f} nats.".format(
                  end, *training["loss"]))


# %% Given: the same in every file

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # told apart by colour-blind eyes, too
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPES = ("disc", "ring", "square", "frame", "triangle", "star", "cross", "moon", "bowl", "pair")


def load_data(args):
    """The pictures that args ask for: images uint8 (count, 3, height, width), labels int64 (count,)."""
    halves, name, classes = None if args.data == "shapes" else read_cifar10(args), "CIFAR-10", CIFAR10_CLASSES
    if halves is None:
        halves, name, classes = [draw_shapes(args.train_images, 0), draw_shapes(args.test_images, 1)], "shapes", SHAPES
    train, test = [[tensor[:count].to(args.device) for tensor in half]
                   for half, count in zip(halves, (args.train_images, args.test_images))]
    deviation, mean = torch.std_mean(train[0][:5000].float(), dim=(0, 2, 3), keepdim=True)
    print(f"{name}: {len(train[1]):,} training, {len(test[1]):,} test pictures; {args.epochs} epochs on {args.device}")
    return SimpleNamespace(name=name, classes=classes, train_images=train[0], train_labels=train[1],
                           test_images=test[0], test_labels=test[1], mean=mean, deviation=deviation)


def read_cifar10(args):
    """CIFAR-10's training and test half through torchvision; None if there is none and it may not be downloaded."""
    folder, archive = args.data_dir / CIFAR10.base_folder, args.data_dir / CIFAR10.filename
    whole = archive.exists() and torchvision.datasets.utils.check_integrity(archive, CIFAR10.tgz_md5)
    if args.data == "auto" and not folder.exists() and not whole:
        return None
    try:
        if not folder.exists():
            print(f"{'Unpacking' if whole else 'Downloading'} CIFAR-10 (170 MB). --data shapes does without.")
            socket.setdefaulttimeout(60)  # seconds without a byte
            args.data_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=args.data_dir) as unfinished:
                if whole:
                    shutil.copy(archive, unfinished)
                CIFAR10(unfinished, download=True)
                os.replace(Path(unfinished, folder.name), folder)
        halves = [CIFAR10(args.data_dir, train) for train in (True, False)]
        return [(torch.from_numpy(half.data).permute(0, 3, 1, 2), torch.tensor(half.targets)) for half in halves]
    except Exception as error:  # torchvision, urllib, tarfile and pickle each raise their own
        damaged = folder if folder.exists() else archive if archive.exists() and not whole else None
        advice = f"{damaged} is damaged: delete it" if damaged else f"CIFAR-10 cannot be fetched ({error}): get online"
        sys.exit(f"{advice} and run this again, or use --data shapes")


def draw_shapes(count, seed, style="filled"):
    """Ten shapes at random places, sizes, tilts, colours (style "outline": dark lines on light paper), and labels."""
    generator = torch.Generator().manual_seed(seed)
    def rand(low, high, *shape):
        return low + (high - low) * torch.rand(count, *shape, generator=generator)
    labels = torch.randint(len(SHAPES), (count,), generator=generator)
    y, x = torch.meshgrid(torch.arange(-15.5, 16), torch.arange(-15.5, 16), indexing="ij")
    x, y, size, tilt = x + rand(-4, 4, 1, 1), y + rand(-4, 4, 1, 1), rand(8, 13, 1, 1), rand(-0.4, 0.4, 1, 1)
    u, v = (x * tilt.cos() - y * tilt.sin()) / size, (x * tilt.sin() + y * tilt.cos()) / size
    r, angle, box = torch.hypot(u, v), torch.atan2(u, v), torch.maximum(u.abs(), v.abs())
    depth = torch.stack([  # how deep a pixel lies inside each shape, in units of its size; negative outside
        0.8 - r, 0.23 - (r - 0.7).abs(), 0.75 - box, 0.2 - (box - 0.65).abs(),
        0.5 - r * torch.cos((angle + math.pi / 3) % (2 * math.pi / 3) - math.pi / 3),
        0.42 + 1.1 * (angle / (2 * math.pi / 5) % 1 - 0.5).abs() - r,
        torch.minimum(0.26 - torch.minimum(u.abs(), v.abs()), 0.95 - box),
        torch.minimum(0.95 - r, torch.hypot(u - 0.5, v) - 0.75),
        torch.minimum(1 - torch.hypot(u, v + 0.4), v + 0.4), 0.42 - torch.hypot(u.abs() - 0.52, v),
    ])[labels, torch.arange(count)] * size  # in pixels
    paper = rand(0.2, 0.8, 3, 1, 1) + F.interpolate(rand(-0.15, 0.15, 3, 5, 5), size=32, mode="bicubic")
    contrast = rand(0.3, 0.8, 3, 1, 1) * torch.where(rand(0, 1, 1, 1, 1) < 0.75, 1, -1)  # lighter three times in four
    ink = paper.mean((2, 3), keepdim=True) + contrast
    if style == "outline":
        depth, paper, ink = 1 - depth.abs(), 0.7 + 0.3 * paper, 0.3 * paper
    images = paper + (depth + 0.5).clamp(0, 1)[:, None] * (ink - paper)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    images = rand(0.6, 1, 1, 1, 1) * (images - low) / (high - low)
    images += 0.05 * torch.randn(images.shape, generator=generator)
    return (255 * images.clamp(0, 1)).to(torch.uint8), labels


def normalise(images, data):
    """uint8 pictures as float32 whose channels have mean 0 and deviation 1 over the training pictures."""
    return ((images - data.mean) / data.deviation).contiguous(memory_format=torch.channels_last)


def test_batches(data, size=500):
    """The test pictures, batch by batch: (normalised images, labels)."""
    return ((normalise(x, data), y) for x, y in zip(data.test_images.split(size), data.test_labels.split(size)))


def augment(images, shift, flip):
    """Pad by an eighth, 4 pixels of 32, crop at shift (count, 2) and mirror where flip (count,) (section 4.2)."""
    rows = shift[:, :1, None] + torch.arange(images.shape[2], device=images.device)[:, None]
    columns = shift[:, None, 1:] + torch.arange(images.shape[3], device=images.device)
    columns = torch.where(flip[:, None, None], columns.flip(2), columns)
    picture = torch.arange(len(images), device=images.device)[:, None, None]
    return F.pad(images, 4 * [images.shape[2] // 8])[picture, :, rows, columns].permute(0, 3, 1, 2)


def autocast(device):
    """The context for a forward pass: bfloat16 where the hardware multiplies it fast, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=(
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) or device.type == "cpu" and
        (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())))


def train(model, data, epochs, seed, batch_size=128, weight_decay=5e-4, label="", milestones=None, after_epoch=None,
          smoothing=0, rate=None):
    """Train in place by SGD with momentum; the rate rises for a fifth of the steps, then falls, or falls at milestones.

    Returns a dict an epoch: "epoch", "seconds", mean "loss" (nats) and "accuracy" (0 to 1) of the training pictures as
    they came by, and what after_epoch(model) adds. The seed sets their order and augmentation, alike on every device.
    The highest rate is, unless given, 0.1 for batches of 128, and more in proportion for larger ones.
    smoothing is the share of each label that is spread over all classes (Szegedy et al., 2015); the loss has it in it.
    """
    history, device, count = [], data.train_images.device, len(data.train_labels)
    generator, steps = torch.Generator().manual_seed(seed), math.ceil(count / batch_size)
    rate = rate or 0.1 * batch_size / 128
    model.to(device, memory_format=torch.channels_last)
    groups = [{"params": [p for p in model.parameters() if (p.ndim > 1) == decays], "weight_decay": decay}
              for decays, decay in ((True, weight_decay), (False, 0))]  # batch norm and biases do not decay
    optimizer = torch.optim.SGD(groups, rate, momentum=0.9, fused=device.type != "mps")
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones) if milestones else (
        torch.optim.lr_scheduler.OneCycleLR(  # which divides by zero for 5 steps
            optimizer, rate, max(6, epochs * steps), pct_start=0.2, cycle_momentum=False))
    with tqdm(total=epochs * steps, desc=label, unit="batch") as bar:
        for epoch in range(1, epochs + 1):
            start, losses, right, seen = time.perf_counter(), 0, 0, 0
            shift = torch.randint(data.train_images.shape[2] // 8 * 2 + 1, (count, 2), generator=generator).to(device)
            flip = torch.randint(2, (count,), generator=generator).to(device).bool()
            model.train()
            for batch in torch.randperm(count, generator=generator).to(device).tensor_split(steps):
                images, labels = augment(data.train_images[batch], shift[batch], flip[batch]), data.train_labels[batch]
                with autocast(device):
                    logits = model(normalise(images, data))
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses, seen = losses + len(batch) * loss.detach(), seen + len(batch)
                right += (logits.argmax(dim=1) == labels).sum()
                if bar.n % 10 == 0:  # to read a number makes a GPU wait
                    bar.set_postfix(epoch=epoch, loss=f"{losses / seen:.2f}", accuracy=f"{right / seen:.0%}")
                bar.update()
            history.append({"epoch": epoch, "loss": losses.item() / count, "accuracy": right.item() / count})
            history[-1]["seconds"] = time.perf_counter() - start
            with autocast(device):
                history[-1].update(after_epoch(model) if after_epoch else {})
    return history


def new_figure(width, height):
    """An empty figure of width x height inches in the course's style."""
    rcParams.update({"font.size": 12, "axes.spines.top": 0, "axes.spines.right": 0, "figure.titleweight": "bold"})
    return Figure((width, height), dpi=130, layout="constrained")


def save_results(args, figure, numbers):
    """Write OUT/exercise_0N.png and OUT/exercise_0N.json, each whole or not at all."""
    settings = {name: value for name, value in vars(args).items() if name != "start"}
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "torchvision": torchvision.__version__}
    record = {"settings": settings, "versions": versions, "seconds": time.perf_counter() - args.start, **numbers}
    with tempfile.TemporaryDirectory(dir=args.out) as unfinished:
        stem = Path(unfinished, Path(sys.argv[0]).stem[:11])
        record = json.loads(json.dumps(record, default=str), parse_constant=str)  # JSON has no NaN: it becomes "NaN"
        stem.with_suffix(".json").write_text(json.dumps(record, indent=1), "utf-8")
        figure.savefig(stem.with_suffix(".png"))
        for path in sorted(Path(unfinished).iterdir()):
            print(f"Wrote {path.replace(args.out / path.name)}")
    if settings.get("dry_run"):
        print("This was a dry run: everything works, and its numbers mean nothing.")


def parse_args():
    """The flags that all five exercises share, and those in FLAGS; the budget is the device's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: {message} (--help lists the flags)\n")
    add, budget = parser.add_argument, BUDGET["cpu"]
    add("--data", choices=("auto", "shapes", "cifar10"), default="auto", help="auto: CIFAR-10 if on disk, else shapes")
    add("--data-dir", type=Path, default="data", metavar="DIR", help="where torchvision keeps CIFAR-10 (default: data)")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="auto: cuda, else mps, else cpu")
    add("--epochs", type=int, metavar="N", help=f"default on a CPU: {budget['epochs']}")
    add("--train-images", type=int, metavar="N", help=f"default on a CPU: {budget['train_images']:,}")
    add("--seed", type=int, default=0, metavar="N", help="default: 0")
    add("--out", type=Path, default="results", metavar="DIR", help="where figure and numbers go (default: results)")
    add("--dry-run", action="store_true", help="one tiny step of everything, in seconds")
    for flag, options in FLAGS.items():
        add(flag, **options)
    args = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook's own flags are not for us
    for name, low, high in (("epochs", 1, 1000), ("train_images", 1, 50_000), ("seed", 0, 2**32 - 1)):
        if getattr(args, name) is not None and not low <= getattr(args, name) <= high:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: give a whole number from {low} to {high}")
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not found.get(args.device, True):
        parser.error(f"--device {args.device}: torch finds none here; leave the flag out to use what there is")
    args.device = torch.device(next(name for name in found if found[name]) if args.device == "auto" else args.device)
    if args.data_dir.is_file():
        parser.error(f"--data-dir {args.data_dir}: is a file; give the folder in which {CIFAR10.base_folder} lies")
    kept, unfinished = [args.out / f"{Path(sys.argv[0]).stem[:11]}{end}" for end in (".json", "_unfinished")]
    if args.dry_run and (unfinished.exists() or (kept.is_file() and b'"dry_run": true' not in kept.read_bytes())):
        args.out = args.out / "dry_run"  # what a real run has made stays
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        why = "it is a file" if args.out.is_file() else error.strerror
        parser.error(f"--out {args.out}: cannot write there ({why}); give another folder")
    args.start, tiny = time.perf_counter(), {"epochs": 1, "train_images": 32, "test_images": 20}
    budget = BUDGET["cpu" if args.device.type == "cpu" else "gpu"] | BUDGET.get(getattr(args, "preset", None), {})
    for name, value in budget.items():
        setattr(args, name, (tiny.get(name) if args.dry_run else getattr(args, name, None)) or value)
    return args


def main():
    args, source = parse_args(), Path(globals().get("__file__", os.devnull))
    for number, line in enumerate(source.read_text("utf-8").splitlines(), 1):
        if line.strip().startswith('raise NotImplementedError("TODO'):
            sys.exit(f"{line.split(chr(34))[1]} is not written yet ({source.name}, line {number}). "
                     f"Check it with: pytest tests/test_{source.name}")
    try:
        run(args)
    except KeyboardInterrupt:
        sys.exit("\nStopped: nothing is half-written. The same command goes on with what is finished, or starts again")
    except torch.OutOfMemoryError:
        sys.exit("The GPU's memory is full: close what else uses it, or run with --device cpu")


if __name__ == "__main__":
    main()
