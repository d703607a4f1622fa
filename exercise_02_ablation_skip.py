# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 2: remove the skip connections, and see what becomes of training.

Goal: train the paper's networks for CIFAR-10 with and without their shortcuts, shallow and deep,
and measure what depth adds to the training loss of each. Then take single blocks out of trained
networks, and measure how much accuracy is lost, and how much each block adds to what it passes on.
Paper: He et al., 2015 (arXiv:1512.03385), sections 4.1 and 4.2, figures 6 and 7; Veit et al., 2016
(arXiv:1605.06431).

    2.1  Block           a block whose shortcut can be left out
    2.2  build_network   the paper's networks of 6n+2 layers, plain and residual
    2.3  run_ablation    plain and residual, shallow and deep, all else equal
    2.4  degradation     what depth adds to the training loss
    2.5  without_block   a trained network with one block taken out

Check:  pytest tests/test_exercise_02_ablation_skip.py
Run:    python exercise_02_ablation_skip.py     (--help lists the flags; --dry-run takes seconds)
"""

import argparse
import contextlib
import errno
import functools
import io
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
import zlib
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
    from matplotlib.figure import Figure
    from torch import nn
    from torchvision.datasets import CIFAR10
    from tqdm import tqdm
except (ImportError, AttributeError) as error:
    sys.exit(
        f"{error}. Install what is missing, or activate the environment that has it. A file or "
        "folder of yours with the name of a package hides the package: rename it."
    )

EXERCISE = "exercise_02_ablation_skip"
# The paper's learning rate is 0.1 for batches of 128 images (section 4.2). For other batches it is
# scaled in proportion, as in Goyal et al., 2017.
RATE_PER_IMAGE = 0.1 / 128
WEIGHT_DECAY = 1e-4  # section 4.2
MILESTONES = (0.5, 0.75)  # the shares of its steps at which the paper divides the rate by 10
DEEPEST = 1202  # layers: the paper's deepest network
KINDS = ("plain", "residual")  # networks without and with shortcuts
BUDGETS = {
    # On a CPU the images are few and averaged down to 16x16: four networks in a few minutes.
    "cpu": {
        "epochs": 16,
        "train_images": 2_560,
        "test_images": 1_000,
        "batch_size": 64,
        "size": 16,  # height and width of the images
        "seeds": 1,  # with how many seeds each network is trained
        "depths": [20, 44],
    },
    "gpu": {
        "epochs": 30,
        "train_images": 50_000,
        "test_images": 10_000,
        "batch_size": 128,
        "size": 32,
        "seeds": 3,
        "depths": [20, 32, 44, 56],
    },
    "paper": {  # what --preset paper changes
        "epochs": 164,  # 64,000 steps
        "train_images": 50_000,
        "test_images": 10_000,
        "batch_size": 128,
        "size": 32,
        "depths": [20, 32, 44, 56, 110],
    },
}


def add_flags(add):
    """The flags that only this exercise has."""
    add(
        "--depths",
        type=depth_of_network,
        nargs="+",
        metavar="N",
        help="two or more depths, each 6n+2 (default on a CPU: 20 44)",
    )
    add(
        "--seeds",
        type=whole_number(1, 100),
        metavar="N",
        help="with how many seeds each network is trained (default on a CPU: 1)",
    )
    add(
        "--start-at-identity",
        action="store_true",
        help="start each residual block as its shortcut (Goyal et al., 2017, section 5.1)",
    )
    add(
        "--preset",
        choices=["paper"],
        help="close to section 4.2's recipe, depths 20 32 44 56 110: hours on a GPU",
    )


def depth_of_network(text):
    """A type for argparse: a depth that build_network can build, at most DEEPEST."""
    if not text.isdecimal() or not is_6n_plus_2(int(text)):
        message = f"{text} is not 6n+2: take depths such as 8, 14, 20, 26, 32, 44, 56 or 110"
        raise argparse.ArgumentTypeError(message)
    if int(text) > DEEPEST:
        raise argparse.ArgumentTypeError(f"{text} layers are more than the paper's {DEEPEST}")
    return int(text)


def is_6n_plus_2(depth):
    """Whether a network can have this depth: 6n+2 layers for an n of at least 1."""
    return depth >= 8 and depth % 6 == 2


# %% Your part


class Block(nn.Module):
    """Two 3x3 convolutions: relu(branch(x) + shortcut(x)) with skip, relu(branch(x)) without.

    Section 4.2. Takes (batch, in_channels, height, width), any height and width. Returns (batch,
    out_channels, ceil(height / stride), ceil(width / stride)). The shortcut is option A (section
    3.3; Shortcut, below). It has no parameters: a block has the same ones with and without skip.
    """

    def __init__(self, in_channels, out_channels, stride=1, skip=True):
        super().__init__()
        self.skip = skip
        self.shortcut = Shortcut(out_channels - in_channels, stride)
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x):
        """Features in, features out; x stays as it was.

        self.skip says at each call whether the shortcut takes part.
        """
        # TODO 2.1: add the shortcut to the branch if self.skip is true; then apply the ReLU.
        raise NotImplementedError("TODO 2.1: Block.forward")


def build_network(depth, skip, width=16, num_classes=10):
    """The paper's network of 6n+2 layers (section 4.2), as nn.Sequential(stem, blocks, head).

        stem      3x3 convolution to width channels, batch norm, ReLU
        blocks    nn.Sequential of 3n blocks in three stages: n blocks with width channels,
                  n with 2 * width, n with 4 * width; the first block of the second and of the
                  third stage has stride 2
        head      mean over all positions, linear layer

    Takes images (batch, 3, height, width), returns logits (batch, num_classes). skip is the same
    for every block. No two networks share layers. Batch norms start as torch makes them. Raises
    ValueError if depth is not 6n+2 for an n of at least 1. Does not seed torch.
    """
    if not is_6n_plus_2(depth):
        raise ValueError(f"depth {depth} is not 6n+2: take 8, 14, 20, 26, 32, 38 and so on")
    stem_conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
    stem = nn.Sequential(stem_conv, nn.BatchNorm2d(width), nn.ReLU())
    pool = nn.AdaptiveAvgPool2d(1)
    head = nn.Sequential(pool, nn.Flatten(), nn.Linear(4 * width, num_classes))
    # TODO 2.2: make the blocks, and put stem, blocks and head together.
    raise NotImplementedError("TODO 2.2: build_network")


def run_ablation(fit, depths, seeds):
    """Train a new plain and a new residual network of every depth with every seed.

    Returns {("plain", depth, seed): history, ("residual", depth, seed): history, ...}. depths and
    seeds contain no number twice; seeds are at least 0. kind is "plain" (without skip) or
    "residual" (with skip). fit(network, kind, depth, seed) trains a network and returns its
    history; the same seed means the same images in the same order. Call it once for each key, keep
    what it returns unchanged, and let its errors through. Draw the weights of each network's
    convolutions with network.apply(initialise) (below). The weights from which a network starts
    depend on its depth and seed only: not on its kind, on the seed's place in seeds, or on what ran
    before. Different seeds give different weights. width and num_classes keep build_network's
    defaults.
    """
    # TODO 2.3: for every combination, make a network with the weights that the docstring asks for,
    # fit it, and keep its history.
    raise NotImplementedError("TODO 2.3: run_ablation")


def runs_of(histories, kind, depth):
    """The histories of one kind and depth: a list with one per seed."""
    return [history for key, history in histories.items() if key[:2] == (kind, depth)]


def final_loss(histories, kind, depth):
    """The training loss of the last epoch in nats, the mean over all seeds."""
    losses = [history[-1]["loss"] for history in runs_of(histories, kind, depth)]
    return sum(losses) / len(losses)


def degradation(histories):
    """What depth adds to the training loss: {"plain": nats, "residual": nats}.

    That is the last epoch's loss, the mean over the seeds, of the deepest networks minus that of
    the shallowest; below 0 where depth helps. histories is what run_ablation returns. Each history
    is a list with one dict per epoch, in which "loss" is that epoch's, in nats, the unit of the
    cross-entropy with the natural logarithm. The histories stay as they were.
    """
    # TODO 2.4: find the deepest and the shallowest depth, and subtract their final losses.
    raise NotImplementedError("TODO 2.4: degradation")


def without_block(network, index):
    """The same network with one block replaced by that block's shortcut.

    After Veit et al., 2016. A plain block has a shortcut, too, but does not use it; here it takes
    the block's place. index counts the blocks from 0. network is nn.Sequential(stem, blocks,
    head) and stays as it was, with each part in its mode. The new network is an
    nn.Sequential(stem, blocks, head), too, with as many blocks, so that a second block can be taken
    out. The two may share layers.
    """
    stem, blocks, head = network
    # TODO 2.5: put the network together again, with that block's shortcut in the block's place.
    raise NotImplementedError("TODO 2.5: without_block")


# %% The experiment


def run(args):
    """Train the networks, or go on where an interrupted run stopped; then take blocks out."""
    args.depths = [8, 14] if args.dry_run else sorted(set(args.depths))
    if len(args.depths) < 2:
        sys.exit("--depths: give two or more different depths, such as 20 56")
    data = shrink(load_data(args), args.size)
    networks = {}

    def fit(network, kind, depth, seed):
        if args.start_at_identity and kind == "residual":
            silence_branches(network)
        networks[kind, depth] = network  # after all runs: the network of the last seed
        return train_or_read(args, data, network, seed, run_label(kind, depth, seed))

    seeds = range(args.seed, args.seed + args.seeds)
    histories = run_ablation(fit, args.depths, seeds)
    gaps = {kind: float(nats) for kind, nats in degradation(histories).items()}
    lesions = measure_lesions(networks, args.depths, data)
    branches = measure_branches(networks, args.depths, data)
    numbers = {
        "degradation": gaps,
        "accuracy_intact_and_without_each_block": named(lesions),
        "branch_over_shortcut_of_each_block": named(branches),
        "histories": named(histories),
    }
    save_numbers(args, numbers)
    with printed_unless_dry_run(args):
        describe(args, histories, gaps, lesions, branches, data)
    save_figure(args, draw_figure(args, histories, gaps, lesions, branches, data))
    forget_finished(args, [run_label(*key) for key in histories])


def named(results):
    """{(kind, depth, ...): result} with names such as plain-20 in place of tuples, for JSON."""
    return {"-".join(map(str, key)): result for key, result in results.items()}


def run_label(kind, depth, seed):
    """What a training run is called, such as plain-20-seed0."""
    return f"{kind}-{depth}-seed{seed}"


def silence_branches(network):
    """Set the weight of each block's last batch norm to zero, so that the branch returns zeros."""
    for block in network[1]:
        nn.init.zeros_(block.branch[-1].weight)


def train_or_read(args, data, network, seed, label):
    """Train the network in place and return its history.

    If an interrupted run has trained it already, its weights and its history are read from disk.
    """

    def test(model):
        return {"test_error": 1 - accuracy(model, test_batches(data))}

    def compute():
        optimizer = make_sgd(network, RATE_PER_IMAGE * args.batch_size, WEIGHT_DECAY)
        history = train(
            network,
            data,
            optimizer,
            make_schedule(args, data, optimizer),
            epochs=args.epochs,
            batch_size=args.batch_size,
            seed=seed,
            label=label,
            after_epoch=test,
        )
        return {"history": history, "weights": network.state_dict()}

    network.to(args.device)
    result = finished_before(args, label, compute)
    network.load_state_dict(result["weights"])  # changes nothing if it was trained just now
    return result["history"]


def make_schedule(args, data, optimizer):
    """How the learning rate changes: the paper's way with --preset paper, else one cycle."""
    steps = args.epochs * count_steps(data, args.batch_size)
    if args.preset:
        milestones = [round(share * steps) for share in MILESTONES]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    return one_cycle(optimizer, steps)


def measure_lesions(networks, depths, data):
    """The test accuracy of three networks, intact and with each single block taken out.

    After Veit et al., 2016. Where there are several seeds, the networks are those of the last one.
    The deepest plain network is left out: with many layers it may not have trained at all.
    Returns {(kind, depth): [intact, without block 0, without block 1, ...], ...} for the shallowest
    plain network and for the shallowest and the deepest residual network, from 0 to 1.
    """
    lesions = {}
    for kind, depth in (
        ("plain", depths[0]),
        ("residual", depths[0]),
        ("residual", depths[-1]),
    ):
        intact = networks[kind, depth]
        tested = [intact]
        for index in range(len(intact[1])):
            tested.append(without_block(intact, index))
        with autocast(data.test_images.device):
            accuracies = [accuracy(network, test_batches(data)) for network in tested]
        lesions[kind, depth] = accuracies
    return lesions


def measure_branches(networks, depths, data):
    """How large each block's branch is beside its shortcut, in two residual networks.

    Returns {("residual", depth): [ratio of block 0, ratio of block 1, ...], ...} for the shallowest
    and the deepest: the Euclidean norm of the branch's output over that of the shortcut's, for a
    batch of test images.
    """
    images, _ = next(iter(test_batches(data)))
    ratios = {}
    for depth in (depths[0], depths[-1]):
        network = networks["residual", depth].eval()
        with torch.no_grad(), autocast(images.device):
            ratios["residual", depth] = branch_ratios(network, images)
    return ratios


def branch_ratios(network, images):
    """For each block, the norm of its branch's output over that of its shortcut's."""
    stem, blocks, _ = network
    features = stem(images)
    ratios = []
    for block in blocks:
        branch = block.branch(features).float().norm()
        shortcut = block.shortcut(features).float().norm()
        ratios.append((branch / shortcut).item())
        features = block(features)
    return ratios


def describe(args, histories, gaps, lesions, branches, data):
    """Print the table, and say in a few sentences what this run's numbers show."""
    print("network       training loss (nats)  test accuracy")
    for kind, depth in itertools.product(KINDS, args.depths):
        loss = final_loss(histories, kind, depth)
        error = final_error(histories, kind, depth)
        name = f"{kind}-{depth}"
        print(f"{name:12}  {loss:20.3f}  {percent(1 - error, digits=1):>13}")
    describe_degradation(args, histories, gaps, data)
    for name, (intact, *without) in named(lesions).items():
        print(
            f"{name} classifies {percent(intact, digits=1)} of the test images correctly; without "
            f"one block {percent(sum(without) / len(without), digits=1)} on average, "
            f"{percent(min(without), digits=1)} at worst."
        )
    describe_branches(branches)
    if args.seeds > 1:
        last_seed = args.seed + args.seeds - 1
        print(f"(Blocks and branches are those of the networks of the last seed, {last_seed}.)")


def effect_on(what, gap):
    """What depth does to a loss, in words."""
    if not math.isfinite(gap):
        return f"leaves {what} undefined (a network diverged)"
    if abs(gap) < 0.01:
        return f"hardly changes {what}"
    verb = "raises" if gap > 0 else "lowers"
    return f"{verb} {what} by {abs(gap):.2f} nats"


def start_text(args):
    """How residual networks start, in words, if otherwise than plain ones."""
    return " and branches that start at 0" if args.start_at_identity else ""


def degradation_finding(args, gaps):
    """Whether this run shows degradation, and whether shortcuts prevent it, in words."""
    if gaps["plain"] <= 0.1:
        return (
            "This run does not show degradation: without shortcuts depth does not add more than "
            "0.1 nats."
        )
    finding = (
        "This is degradation: the deeper plain network fits even its training images worse, "
        f"so this is not overfitting. With shortcuts{start_text(args)}, and not one parameter "
        f"more, depth {effect_on('the loss', gaps['residual'])}."
    )
    if gaps["residual"] >= gaps["plain"]:
        finding += " So they do not prevent it here."
    return finding


def describe_degradation(args, histories, gaps, data):
    """Say whether depth hurts the training of each kind, and which networks do not train at all."""
    shallow = args.depths[0]
    deep = args.depths[-1]
    for kind, gap in gaps.items():
        print(
            f"{kind}: going from {shallow} to {deep} layers "
            f"{effect_on('the final training loss', gap)} ({seeds_text(args)})."
        )
    if all(map(math.isfinite, gaps.values())):
        print(degradation_finding(args, gaps))
    guessing_loss = math.log(len(data.classes))
    untrained = [
        f"{kind}-{depth}"
        for kind, depth in itertools.product(KINDS, args.depths)
        if final_loss(histories, kind, depth) > guessing_loss - 0.2
    ]
    if untrained:
        print(
            f"Hardly trained at all (guessing has a loss of {guessing_loss:.2f} nats): "
            f"{', '.join(untrained)}. The paper's plain-56 does train, though worse than plain-20."
        )


def seeds_text(args):
    """Over how many seeds a number is the mean, in words."""
    return "one seed" if args.seeds == 1 else f"mean of {args.seeds} seeds"


def describe_branches(branches):
    """Say how large the branches are beside the shortcuts."""
    for name, ratios in named(branches).items():
        print(
            f"{name}: a block's branch is {statistics.median(ratios):.2f} times as large as its "
            f"shortcut (median); from {min(ratios):.2f} to {max(ratios):.2f} times."
        )


def final_error(histories, kind, depth):
    """The mean over seeds of the last epoch's test error, from 0 to 1."""
    errors = [history[-1]["test_error"] for history in runs_of(histories, kind, depth)]
    return sum(errors) / len(errors)


def draw_figure(args, histories, gaps, lesions, branches, data):
    """Left: training loss and test error by epoch (compare figure 6). Right: single blocks."""
    figure = new_figure(14, 7)
    figure.get_layout_engine().set(w_pad=0.1)  # inches between the panels
    axes = figure.subplot_mosaic(
        [
            ["plain loss", "residual loss", "lesions"],
            ["plain error", "residual error", "branches"],
        ]
    )
    # The deepest network has the same colour in every run.
    palette = itertools.cycle([VERMILION, BLUE, GREEN, GREY, PURPLE, ORANGE])
    colours = dict(zip(reversed(args.depths), palette))
    guessing_loss = math.log(len(data.classes))
    top = 1.05 * max(guessing_loss, highest_loss(histories))
    for kind, gap in gaps.items():
        loss_axes = axes[f"{kind} loss"]
        draw_losses(loss_axes, histories, kind, colours, top)
        loss_axes.axhline(guessing_loss, color=GREY, linestyle=":")
        loss_axes.set_title(f"{kind}: depth {effect_on('the loss', gap)}")
        draw_errors(axes[f"{kind} error"], histories, kind, colours)
    draw_lesions(axes["lesions"], lesions, colours)
    draw_branches(axes["branches"], branches, colours)
    figure.suptitle(
        f"Going from {args.depths[0]} to {args.depths[-1]} layers "
        f"{effect_on('the training loss', gaps['plain'])} without shortcuts,\n"
        f"and {effect_on('it', gaps['residual'])} with them{start_text(args)} "
        f"({data.name}, {args.size}x{args.size} pixels, {seeds_text(args)}; dotted: guessing)"
    )
    return figure


def highest_loss(histories):
    """The highest training loss of all epochs of all runs, in nats; some may be infinite."""
    losses = [row["loss"] for row in itertools.chain(*histories.values())]
    return max(filter(math.isfinite, losses), default=1)


def draw_losses(axes, histories, kind, colours, top):
    """Training loss of one kind by epoch."""
    draw_curves(axes, histories, kind, "loss", colours, scale=1, top=top)
    axes.set(ylabel="training loss (nats)", ylim=(0, top))


def draw_errors(axes, histories, kind, colours):
    """Test error of one kind by epoch."""
    draw_curves(axes, histories, kind, "test_error", colours, scale=100, top=100)
    axes.set(xlabel="epoch", ylabel="test error (%)", ylim=(0, 100))


def draw_curves(axes, histories, kind, quantity, colours, scale, top):
    """A quantity, times scale, of one kind by epoch: mean over seeds, and their range."""
    epochs = [row["epoch"] for row in next(iter(histories.values()))]
    final_values = {}
    for depth, colour in colours.items():
        runs = runs_of(histories, kind, depth)
        values = scale * seeds_by_epochs(runs, quantity)
        mean = values.mean(dim=0)
        axes.plot(epochs, mean, ".-", color=colour, linewidth=2.5)
        lowest = values.amin(dim=0)
        highest = values.amax(dim=0)
        axes.fill_between(epochs, lowest, highest, color=colour, alpha=0.25)
        final_values[depth] = mean[-1].item()
    heights = spread_labels(final_values, distance=0.08 * top)
    for depth, colour in colours.items():
        label_curve(axes, f"{depth} layers", epochs[-1], heights[depth], colour)
    axes.locator_params("x", integer=True)


def seeds_by_epochs(runs, quantity):
    """One quantity of several histories, a tensor (seeds, epochs)."""
    rows = []
    for history in runs:
        rows.append([row[quantity] for row in history])
    return torch.tensor(rows)


INTACT = -20  # where the figure shows the network with all blocks: left of the first one


def draw_lesions(axes, lesions, colours):
    """Test accuracy without each block, by the block's place; at the left that of all blocks."""
    means = {key: 100 * statistics.fmean(without) for key, (_, *without) in lesions.items()}
    heights = spread_labels(means, distance=9)
    # The network with the most points first, so that they do not cover the others'.
    for (kind, depth), accuracies in reversed(lesions.items()):
        marker = "s" if kind == "plain" else "o"
        places = places_of_blocks(len(accuracies) - 1)
        percentages = [100 * share for share in accuracies]
        axes.plot([INTACT, *places], percentages, marker, color=colours[depth])
        label = f"{kind}-{depth}, mean {means[kind, depth]:.0f} %"
        label_curve(axes, label, 100, heights[kind, depth], colours[depth])
    axes.axvline(INTACT / 2, color=GREY, linewidth=1, linestyle=":")
    axes.set(
        title="one block taken out",
        ylabel="test accuracy (%)",
        xlim=(INTACT - 10, 105),
        ylim=(0, 115),
    )
    axes.set_yticks(range(0, 101, 20))
    axes.set_xticks([INTACT, 0, 50, 100], ["none", "0", "50", "100"])


def draw_branches(axes, branches, colours):
    """How large each block's branch is beside its shortcut, by the block's place."""
    last_ratios = {key: ratios[-1] for key, ratios in branches.items()}
    highest = max(itertools.chain(*branches.values()))
    heights = spread_labels(last_ratios, distance=0.09 * highest)
    for (kind, depth), ratios in branches.items():
        axes.plot(places_of_blocks(len(ratios)), ratios, "o-", color=colours[depth])
        label_curve(axes, f"{kind}-{depth}", 100, heights[kind, depth], colours[depth])
    axes.set(
        xlabel="place of the block (% of depth)",
        ylabel="size of branch / shortcut",
        xlim=(INTACT - 10, 105),
        ylim=(0, None),
        xticks=[0, 50, 100],
    )


def places_of_blocks(count):
    """Where each of count blocks is, in per cent of the depth."""
    return [100 * (block + 0.5) / count for block in range(count)]


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


def accuracy(model, batches):
    """The share of images, from 0 to 1, that the model classifies correctly (task 1.4).

    batches yields (images, labels). The model is left in eval mode.
    """
    model.eval()
    correct = 0
    total = 0
    with torch.no_grad():
        for images, labels in batches:
            predictions = model(images).argmax(dim=1)
            correct += (predictions == labels).sum()
            total += len(labels)
    return int(correct) / total


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


def test_batches(data, size=500):
    """The test set, batch by batch: (normalised images, labels)."""
    for images, labels in zip(data.test_images.split(size), data.test_labels.split(size)):
        yield normalise(images, data), labels


def random_batches(data, batch_size, generator):
    """The training set once, in random order: (augmented uint8 images, labels).

    A batch has at most batch_size images. The images are divided as evenly as possible.
    """
    device = data.train_images.device
    count = len(data.train_labels)
    places = 2 * (data.train_images.shape[2] // 8) + 1  # at which an image can be cropped
    corner = torch.randint(places, (count, 2), generator=generator).to(device)
    flip = torch.randint(2, (count,), generator=generator).to(device).bool()
    order = torch.randperm(count, generator=generator).to(device)
    for batch in order.tensor_split(count_steps(data, batch_size)):
        images = augment(data.train_images[batch], corner[batch], flip[batch])
        yield images, data.train_labels[batch]


def augment(images, corner, flip):
    """Crop and flip each image as corner and flip say (section 4.2).

    Each image is padded by an eighth of its height on every side (4 pixels of 32), cropped to its
    old size from row corner[:, 0] and column corner[:, 1] on, and flipped left to right where flip
    is true. corner is (count, 2), flip is (count,).
    """
    count, _, height, width = images.shape
    padded = F.pad(images, 4 * [height // 8])
    rows = corner[:, :1] + torch.arange(height, device=images.device)
    columns = corner[:, 1:] + torch.arange(width, device=images.device)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = torch.arange(count, device=images.device)
    cropped = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)  # from (count, height, width, channels)


def autocast(device):
    """The context for a forward pass: in bfloat16 where that is fast, else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device))


def multiplies_bfloat16(device):
    """Whether the hardware multiplies bfloat16 numbers faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # torch 2.6 has no public function for these two questions. Without such units in the
        # processor, bfloat16 is slower than float32.
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def make_sgd(model, rate, weight_decay):
    """SGD with momentum 0.9 (section 3.4). Batch norms and biases do not decay."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    norms_and_biases = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": norms_and_biases, "weight_decay": 0},
    ]
    on_mps = next(model.parameters()).device.type == "mps"  # the fused SGD was not tried there
    return torch.optim.SGD(groups, rate, momentum=0.9, fused=not on_mps)


def one_cycle(optimizer, steps):
    """A learning rate that rises in the first fifth of the steps, and then falls to nearly zero.

    It rises from 1/25 of the optimizer's learning rate to the whole. After Smith and Topin, 2017
    (arXiv:1708.07120). With fewer than 6 steps it ends before it has fallen that far.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    total = max(6, steps)  # torch divides by zero for 5 steps
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total, pct_start=0.2, cycle_momentum=False
    )


def count_steps(data, batch_size):
    """The number of steps in an epoch."""
    return math.ceil(len(data.train_labels) / batch_size)


def train(
    model,
    data,
    optimizer,
    schedule,
    *,
    epochs,
    batch_size,
    seed,
    label,
    after_epoch=None,
    smoothing=0,
):
    """Train the model in place. Returns its history, a list with a dict per epoch:

        "epoch"     its number, from 1
        "seconds"   that it took to train, without after_epoch
        "loss"      the mean cross-entropy in nats, the unit of the natural logarithm
        "accuracy"  from 0 to 1; like the loss, of each augmented batch before its step

    and what after_epoch(model), a function that runs in autocast(device), returns as a dict. The
    schedule takes a step after each batch. The seed sets the images' order and augmentation, alike
    on every device. label is what the progress bar says. smoothing is the share of each label that
    is spread over all classes (Szegedy et al., 2015); it raises the loss.
    """
    device = data.train_images.device
    model.to(device, memory_format=memory_format(device))
    generator = torch.Generator().manual_seed(seed)
    count = len(data.train_labels)
    history = []
    with tqdm(total=epochs * count_steps(data, batch_size), desc=label, unit="batch") as bar:
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            total_loss = 0
            correct = 0
            seen = 0
            model.train()
            batches = random_batches(data, batch_size, generator)
            for step, (images, labels) in enumerate(batches):
                with autocast(device):
                    logits = model(normalise(images, data))
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total_loss += len(labels) * loss.detach()
                correct += (logits.argmax(dim=1) == labels).sum()
                seen += len(labels)
                if step % 10 == 0:  # reading a number makes the CPU wait for the GPU
                    bar.set_postfix(
                        epoch=epoch,
                        loss=f"{total_loss / seen:.2f}",
                        training_accuracy=percent(correct / seen),
                    )
                bar.update()
            mean_loss = total_loss.item() / count  # waits for the GPU: before the clock is read
            row = {
                "epoch": epoch,
                "loss": mean_loss,
                "accuracy": correct.item() / count,
                "seconds": time.perf_counter() - start,
            }
            if after_epoch:
                with autocast(device):
                    row.update(after_epoch(model))
            history.append(row)
    if not math.isfinite(mean_loss):
        print(f"{label}: the loss is NaN or infinite: training has diverged.")
    return history


OF_THE_PROCESS = ("start", "has_kept")  # what args holds, but no setting of the run


def percent(share, digits=0):
    """A share as text: percent(0.954, digits=1) is 95.4 %."""
    return f"{100 * share:.{digits}f} %"


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


def save_tensors(content, path):
    """Like torch.save; but a full disk raises an OSError, as it does not in torch."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


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


def finished_before(args, label, compute):
    """compute()'s result, a dict of numbers and tensors, kept in case the run is interrupted.

    If an interrupted run of the same code with the same settings has computed it, it is read from
    disk instead. forget_finished removes it. Cells of a notebook keep nothing.
    """
    if own_checksum() is None:
        return compute()
    path = kept_path(args, label)
    result = None
    if path.exists():
        with contextlib.suppress(Exception):  # the file may be damaged
            result = torch.load(path, map_location=args.device, weights_only=True)
    if result is None:
        result = compute()
        with written_whole(path, quiet=True) as unfinished:
            save_tensors(result, unfinished)
    else:
        print(f"{label}: finished before the run was interrupted")
    args.has_kept = True  # for what is said after a Ctrl-C
    return result


def forget_finished(args, labels):
    """Remove what finished_before has kept under these labels; other runs' results stay."""
    for label in labels:
        kept_path(args, label).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or holds something of other runs
        kept_folder(args).rmdir()


def kept_folder(args):
    """The folder in OUT for the finished parts of runs that are not complete."""
    return args.out / f"{args.exercise}_unfinished"


def kept_path(args, label):
    """Where a result is kept: the name tells one run's settings and code from another's."""
    settings = {**vars(args), "code": own_checksum(), "torch": torch.__version__}
    settings["bfloat16"] = multiplies_bfloat16(args.device)
    settings["device_type"] = args.device.type
    # What does not change the result, or is part of the label. Of the device only the type counts.
    for name in (*OF_THE_PROCESS, "out", "data_dir", "device", "seed", "seeds", "depths"):
        settings.pop(name, None)
    words = repr(sorted(settings.items()))
    checksum = zlib.crc32(words.encode())
    return kept_folder(args) / f"{label}-{checksum:08x}.pt"


@functools.cache
def own_checksum():
    """A checksum of this script as it was at the first call; None for the cells of a notebook."""
    source = own_file()
    return zlib.crc32(source.read_bytes()) if source else None


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
    main(run, EXERCISE, BUDGETS, add_flags)
