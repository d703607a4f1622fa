# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 4: train ResNet-10, -18, -34, -50 and -101, and weigh accuracy against cost.

Goal: build four networks of the paper and a shallower one, count what they cost, and train them
all alike. Then see how much accuracy each added multiply-add buys, and whether that is luck.
Paper: He et al., 2015 (arXiv:1512.03385), section 4.1, table 1 and figure 5.

    4.1  Bottleneck         the block of the deeper networks
    4.2  build_resnet       ResNet-10, -18, -34, -50 and -101, at any width
    4.3  count_parameters   what a network costs: the numbers that it learns,
         count_macs         and the multiply-adds that it does for an image
    4.4  train_depths       every depth with every seed, or one process's share of these runs
    4.5  marginal_gains     the accuracy gained per added GMAC (10^9 multiply-adds)

Check:  pytest tests/test_exercise_04_depth_scaling.py
Run:    python exercise_04_depth_scaling.py     (--help lists the flags; --dry-run takes seconds)
        torchrun --standalone --nproc-per-node 2 exercise_04_depth_scaling.py
                                                (two processes share the runs)
"""

import argparse
import contextlib
import copy
import datetime
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
import textwrap
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
    import torch.distributed as dist
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

EXERCISE = "exercise_04_depth_scaling"
RATE = 0.1  # the paper's for batches of 128 (section 4.2): for those of 32 it is high
WEIGHT_DECAY = 5e-4  # common for CIFAR-10; the paper has 1e-4
BUDGETS = {
    "cpu": {
        "epochs": 7,
        "train_images": 2_400,
        "test_images": 2_000,
        "batch_size": 32,
        "size": 16,  # pixels: the images are averaged down from 32x32
        "width": 16,  # channels of the first stage
        "seeds": 1,
    },
    "gpu": {
        "epochs": 15,
        "train_images": 50_000,
        "test_images": 10_000,
        "batch_size": 128,
        "size": 32,
        "width": 64,
        "seeds": 3,
    },
}


def add_flags(add):
    """The flags that only this exercise has."""
    add(
        "--width",
        # oneDNN's strided 1x1 convolutions corrupt memory below 16 channels (its issue 6035).
        type=whole_number(16, 256),
        metavar="N",
        help="channels of the first stage (default on a CPU: 16; paper: 64)",
    )
    add(
        "--seeds",
        type=whole_number(1, 100),
        metavar="N",
        help="with how many seeds each network is trained (default on a CPU: 1); 5 show which "
        "gains are clear",
    )
    add(
        "--threads",
        type=whole_number(1, 256),
        default=2,
        metavar="N",
        help="CPU threads per training run (default: 2); another number rounds sums differently, "
        "so the results differ, as with another seed",
    )


# %% Your part


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (task 1.1): from in_channels to expansion * channels."""

    expansion = 1

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        # The block starts as its shortcut (Goyal et al., 2017, section 5.1).
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, channels, stride)

    def forward(self, x):
        return F.relu(self.branch(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut around them: relu(branch(x) + shortcut(x)).

    Section 4.1 and figure 5, right. The first convolution narrows to channels, the last widens to
    4 * channels; the 3x3 one pads with one zero on every side. None has a bias. A batch norm
    follows each convolution, and a ReLU the first two batch norms. The shortcut computes what
    make_shortcut's module does.
    Takes (batch, in_channels, height, width), any height and width, and leaves it as it was.
    Returns (batch, 4 * channels, ceil(height / stride), ceil(width / stride)).
    The stride is the 3x3 convolution's, as in torchvision, or the first 1x1 convolution's, as in
    the authors' own code.
    A new block starts as its shortcut: the weight of the branch's last batch norm is zero, and
    training changes it. All other batch norms start as torch makes them, with weight one.
    """

    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        # Task 4.1: make the layers of the residual branch, with no bias in the convolutions, and
        # the shortcut. Start the last batch norm's weight at zero, as in BasicBlock, so that
        # ResNet-50 and -101 learn within the small budget.
        out_channels = self.expansion * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        nn.init.zeros_(self.branch[-1].weight)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Features in, features out."""
        # Task 4.1: add the shortcut of x to its residual branch; a last ReLU.
        return F.relu(self.branch(x) + self.shortcut(x))


LAYERS = {  # table 1: the kind of block, and how many there are in each of the four stages
    10: (BasicBlock, (1, 1, 1, 1)),  # not in the paper
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


def make_stem(kind, width):
    """For "cifar" a 3x3 convolution; for "imagenet" a 7x7 one and max pooling, both with stride 2.

    The convolution has width output channels. A batch norm and a ReLU follow it.
    """
    if kind == "cifar":
        conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
    conv = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
    pool = nn.MaxPool2d(3, 2, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(), pool)


def build_resnet(depth, width=64, num_classes=10, stem="cifar"):
    """ResNet-10, -18, -34, -50 or -101, an nn.Module: stem, stages and head.

    The blocks and their numbers are those of table 1, which has no ResNet-10.
    The network takes images (batch, 3, height, width) and returns logits (batch, num_classes).
    The stem is make_stem(stem, width). In the four stages, the blocks' channels are width,
    2 * width, 4 * width and 8 * width; LAYERS has the kind of block and how many there are. The
    first block of each stage but the first has stride 2, all others stride 1. The head is the mean
    over all positions and a linear layer. Every call makes new layers, in train mode; batch norms
    start as the blocks make them. Does not seed torch. ValueError for a depth that is not in
    LAYERS.
    """
    if depth not in LAYERS:
        raise ValueError(f"depth {depth} is not one of {list(LAYERS)}")
    block, counts = LAYERS[depth]
    # Task 4.2: make the blocks of all stages. Each takes as many channels as the output of the one
    # before has. Then make the head, and put stem, stages and head together.
    blocks = []
    in_channels = width
    for i, count in enumerate(counts):
        channels = width * 2**i
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(block(in_channels, channels, stride))
            in_channels = block.expansion * channels
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
    return nn.Sequential(make_stem(stem, width), nn.Sequential(*blocks), head)


def count_parameters(model):
    """How many numbers the model's parameters hold, a whole number.

    Frozen parameters count, too. A parameter that several layers share counts once.
    """
    # Task 4.3: add up the sizes of all parameters.
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model, shape=(3, 32, 32)):
    """The multiply-adds of all nn.Conv2d and nn.Linear layers for one image of this shape.

    A whole number. Every run of a layer counts; biases and batch norms do not. (Other kinds of
    layers may be counted or not.) Runs the model once, in eval mode and without gradients, on an
    image of zeros. The model stays as it was: weights, gradients, requires_grad, hooks, running
    statistics, and the mode of each module. torch's random state and settings stay, too.
    """
    # Task 4.3: put a forward hook on each of these layers. Each number that a layer outputs is a
    # sum of products, one for each number in weight[0], which is one filter.
    macs = []
    modes = [(module, module.training) for module in model.modules()]

    def count(layer, inputs, output):
        macs.append(output.numel() * layer.weight[0].numel())

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    image = torch.zeros(1, *shape, device=next(model.parameters()).device)
    model.eval()
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    for module, mode in modes:
        module.training = mode
    return sum(macs)


def train_depths(fit, depths, seeds, width=64, rank=0, world_size=1):
    """Train a network of every depth with every seed: {(depth, seed): what fit returned, ...}.

    fit(network, depth, seed) trains a network and returns a row of results, a dict. Its errors
    come through.
    network.apply(initialise) (below) draws the weights of a network's convolutions. Networks of the
    same depth and seed start from the same weights, whatever was trained before and whatever other
    depths and seeds there are; other seeds give other weights. Each network is build_resnet(depth,
    width). The list of runs may go depth by depth or seed by seed. If world_size processes share
    the list, process number rank does the runs number rank, rank + world_size, rank + 2 *
    world_size and so on, all counted from 0.
    """
    # Task 4.4: go through this process's share of the runs. For each, make a network with the
    # weights that the docstring asks for, and fit it.
    runs = list(itertools.product(depths, seeds))
    rows = {}
    for depth, seed in runs[rank::world_size]:
        torch.manual_seed(seed)
        network = build_resnet(depth, width)
        network.apply(initialise)
        rows[depth, seed] = fit(network, depth, seed)
    return rows


def marginal_gains(rows):
    """Percentage points of accuracy gained per added GMAC, from each network to the next.

    rows has a dict per network, in any order, with "accuracy" (0 to 1) and "macs"; no two have the
    same "macs". Returns a list, one shorter than rows, in the order of rising "macs"; a number in
    it is negative where the network with more "macs" is less accurate. The list rows and its dicts
    stay as they were.
    """
    # Task 4.5: sort by multiply-adds. Divide each difference in percentage points by the
    # difference in GMACs, that is, in 10^9 multiply-adds.
    ordered = sorted(rows, key=lambda row: row["macs"])
    gains = []
    for smaller, larger in itertools.pairwise(ordered):
        points = 100 * (larger["accuracy"] - smaller["accuracy"])
        gmacs = (larger["macs"] - smaller["macs"]) / 1e9
        gains.append(points / gmacs)
    return gains


# %% The experiment


def run(args):
    """Train this process's share of the networks; process 0 gathers all rows and shows them."""
    if args.dry_run:
        args.seeds = 1
        args.threads = 1  # in steps as tiny as these, threads only wait for each other
    seeds = range(args.seed, args.seed + args.seeds)
    with process_group(args) as (rank, world_size):
        data = load_data_in_turn(args, rank, world_size)

        def fit(network, depth, seed):
            label = run_label(depth, seed)
            compute = functools.partial(measure, args, network, data, seed, label)
            row = finished_before(args, label, compute)
            return {"depth": depth, "seed": seed, **row}

        if args.device.type == "cuda":
            # Where the memory is too small for the largest network, fail now and not after hours.
            largest = build_resnet(max(LAYERS), args.width)
            training_memory(largest, data, args.batch_size)
        own_rows = train_depths(fit, list(LAYERS), seeds, args.width, rank, world_size)
        rows = gather(own_rows, rank, world_size)
    if rank > 0:
        sys.exit()  # process 0 does the rest

    runs = {f"{depth}-{seed}": rows[depth, seed] for depth, seed in sorted(rows)}
    table = [summarise(depth, runs) for depth in LAYERS]
    gains = measure_gains(runs)
    numbers = {
        "data": data.name,
        "training_images": len(data.train_labels),
        "processes": world_size,
        "table": table,
        "gains": gains,
        "runs": runs,
    }
    save_numbers(args, numbers)
    with printed_unless_dry_run(args):
        describe(args, table, runs, gains, world_size)
    figure = draw_figure(args, table, runs, gains, data.name, len(data.train_labels))
    save_figure(args, figure)
    forget_finished(args, [run_label(*key) for key in rows])


def run_label(depth, seed):
    """What a training run is called, such as ResNet-18, seed 0."""
    return f"ResNet-{depth}, seed {seed}"


@contextlib.contextmanager
def process_group(args):
    """A context that yields this process's number, from 0, and how many torchrun has started.

    Without torchrun these are 0 and 1. Sets how many threads this process uses, and which GPU. Only
    process 0 prints.
    """
    # Without torchrun's mark, another program may have left RANK and the others behind.
    environment = os.environ if "TORCHELASTIC_RUN_ID" in os.environ else {}
    rank = int(environment.get("RANK", 0))
    world_size = int(environment.get("WORLD_SIZE", 1))
    torch.set_num_threads(args.threads)
    if args.device.type == "cuda":
        local_rank = int(environment.get("LOCAL_RANK", 0))
        args.device = torch.device("cuda", local_rank % torch.cuda.device_count())
    with contextlib.ExitStack() as stack:
        if world_size > 1:
            # A process that is done waits for those whose share takes longer.
            dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))
            stack.callback(dist.destroy_process_group)
        if rank > 0:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield rank, world_size


def load_data_in_turn(args, rank, world_size):
    """The images at args.size pixels. Process 0 comes first, as it may have to download them."""
    if rank > 0:
        dist.barrier()
    data = shrink(load_data(args), args.size)
    if rank == 0 and world_size > 1:
        dist.barrier()
    return data


def gather(own_rows, rank, world_size):
    """All processes' rows in process 0, none in the others."""
    if world_size == 1:
        return own_rows
    if rank > 0:
        dist.gather_object(own_rows)
        return {}
    shares = [None] * world_size
    dist.gather_object(own_rows, shares)
    rows = {}
    for share in shares:
        rows.update(share)
    return rows


def measure(args, network, data, seed, label):
    """Count what the network costs, and train it in place: a row of results, a dict.

    "macs"               multiply-adds per image
    "parameters"         how many numbers they hold
    "megabytes"          that a training step holds
    "seconds"            to train for an epoch, the median
    "images_per_second"  trained on in this time
    "accuracy"           on the test images after the last epoch, from 0 to 1
    "test_images"        how many there are
    "history"            what train returns; "multiply_adds" is what training has cost so far
    """
    macs = int(count_macs(network, data.train_images.shape[1:]))  # yours may be a tensor
    megabytes = training_memory(network, data, args.batch_size)
    network.to(args.device)
    optimizer = make_sgd(network, RATE, WEIGHT_DECAY)
    schedule = one_cycle(optimizer, args.epochs * count_steps(data, args.batch_size))

    def test(model):
        return {"test_accuracy": accuracy(model, test_batches(data))}

    history = train(
        network,
        data,
        optimizer,
        schedule,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=seed,
        label=label,
        after_epoch=test,
    )
    for row in history:
        images_seen = row["epoch"] * len(data.train_labels)
        # The backward pass costs about twice as much as the forward pass.
        row["multiply_adds"] = 3 * macs * images_seen
    seconds = statistics.median(row["seconds"] for row in history)
    return {
        "macs": macs,
        "parameters": int(count_parameters(network)),
        "megabytes": megabytes,
        "seconds": seconds,
        "images_per_second": len(data.train_labels) / seconds,
        "history": history,
        "accuracy": history[-1]["test_accuracy"],
        "test_images": len(data.test_labels),
    }


def training_memory(network, data, batch_size):
    """Megabytes that a training step holds; the network stays as it was.

    That is three numbers per parameter, its value, its gradient and its momentum, and whatever the
    forward pass of a batch saves for the backward pass.
    """
    device = data.train_images.device
    network = copy.deepcopy(network).to(device)
    network.train()
    parameter_bytes = {}  # by address, as layers can share parameters
    for parameter in network.parameters():
        parameter_bytes[parameter.untyped_storage().data_ptr()] = parameter.nbytes
    saved_bytes = {}  # by address, as layers can save the same numbers

    def note_bytes(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameter_bytes:
            saved_bytes[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = normalise(data.train_images[:batch_size], data)
    # torch gives every tensor that it saves for the backward pass to the first function.
    hooks = torch.autograd.graph.saved_tensors_hooks(note_bytes, lambda tensor: tensor)
    with hooks, autocast(device):
        logits = network(images)
    del logits  # its graph held all saved tensors until here, so that no two had the same address
    total = 3 * sum(parameter_bytes.values()) + sum(saved_bytes.values())
    return total / 1e6


def summarise(depth, runs):
    """One row of the table: what a network costs, and how well it does over its seeds."""
    rows = rows_with(runs, "depth", depth)
    accuracies = [row["accuracy"] for row in rows]
    return {
        "depth": depth,
        "parameters": rows[0]["parameters"],
        "macs": rows[0]["macs"],
        "megabytes": rows[0]["megabytes"],
        "seconds": statistics.median(row["seconds"] for row in rows),
        "images_per_second": statistics.median(row["images_per_second"] for row in rows),
        "accuracy": statistics.mean(accuracies),
        "standard_error": standard_error(accuracies, resolution=1 / rows[0]["test_images"]),
    }


def rows_with(runs, name, value):
    """The rows of all training runs of one depth, by seed, or of one seed, by depth."""
    return [row for row in runs.values() if row[name] == value]


def measure_gains(runs):
    """The gain in accuracy from each network to the next larger, over all seeds: a list of dicts.

    "points_per_gmac" is the mean over the seeds. Each seed's networks are compared among
    themselves, as they saw the same images in the same order.
    """
    seeds = sorted({row["seed"] for row in runs.values()})
    gains_by_seed = [marginal_gains(rows_with(runs, "seed", seed)) for seed in seeds]
    networks = rows_with(runs, "seed", seeds[0])
    gains = []
    # marginal_gains goes by multiply-adds, of which the deeper of two networks has more.
    for i, (smaller, larger) in enumerate(itertools.pairwise(networks)):
        points_per_gmac = []
        for gains_of_seed in gains_by_seed:
            points_per_gmac.append(float(gains_of_seed[i]))  # yours may be tensors
        added_gmacs = (larger["macs"] - smaller["macs"]) / 1e9
        resolution = 100 / larger["test_images"] / added_gmacs
        gains.append(
            {
                "from": smaller["depth"],
                "to": larger["depth"],
                "points_per_gmac": statistics.mean(points_per_gmac),
                "standard_error": standard_error(points_per_gmac, resolution),
            }
        )
    return gains


def compare(runs, shallow, deep):
    """How many points deep is above shallow, seed by seed: (mean, its standard error)."""
    shallow_rows = rows_with(runs, "depth", shallow)
    deep_rows = rows_with(runs, "depth", deep)
    points = []
    for shallow_row, deep_row in zip(shallow_rows, deep_rows, strict=True):
        points.append(100 * (deep_row["accuracy"] - shallow_row["accuracy"]))
    resolution = 100 / deep_rows[0]["test_images"]
    return statistics.mean(points), standard_error(points, resolution)


def clear_differences(runs):
    """The clear differences in accuracy between any two of the networks, a text for each."""
    clear = []
    for shallow, deep in itertools.combinations(LAYERS, 2):
        points, error = compare(runs, shallow, deep)
        if is_clear(points, error):
            clear.append(f"from {shallow} to {deep} layers {points:+.1f} ± {error:.1f} points")
    return clear


def published():
    """GMACs and ImageNet top-1 accuracy (%) of torchvision's networks: {depth: (gmacs, accuracy)}.

    From what torchvision says of its weights; nothing is downloaded. It has no ResNet-10, and calls
    GMACs GFLOPS.
    """
    networks = {}
    for depth in (18, 34, 50, 101):
        weights = torchvision.models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1
        metrics = weights.meta["_metrics"]["ImageNet-1K"]
        networks[depth] = (weights.meta["_ops"], metrics["acc@1"])
    return networks


def describe(args, table, runs, gains, world_size):
    """Print the table, and say in a few sentences what this run's numbers show."""
    print_table(table, gains)
    if args.seeds > 1:
        print(
            f"±: one standard error over {args.seeds} seeds. A difference is called clear if it is "
            f"more than {STANDARD_ERRORS} standard errors; between equally good networks luck does "
            f"that in {chance_of_luck(args.seeds)}."
        )
    if world_size > 1:
        print(f"The seconds were measured with up to {world_size} training runs side by side.")
    describe_differences(args, runs)
    rows = {row["depth"]: row for row in table}
    print(
        "ResNet-50, built from bottlenecks, needs "
        f"{rows[50]['macs'] / rows[34]['macs']:.2f} times the multiply-adds of ResNet-34, and here "
        f"{rows[50]['seconds'] / rows[34]['seconds']:.2f} times its training time."
    )
    gmacs, accuracies = zip(*published().values())
    print(
        f"For comparison, on ImageNet torchvision's ResNet-18 reaches {accuracies[0]:.1f} % with "
        f"{gmacs[0]:.1f} GMACs per image, its ResNet-101 {accuracies[-1]:.1f} % with "
        f"{gmacs[-1]:.1f}."
    )


def print_table(table, gains):
    """A line per network; with several seeds also its gain over the one before."""
    # The gains are given per so many added multiply-adds that they are easy to read.
    unit = 10 ** math.ceil(math.log10(table[0]["macs"]))
    several_seeds = not math.isnan(gains[0]["standard_error"])
    head = "depth  parameters    MMACs  s/epoch  images/s  MB per step   test accuracy"
    if several_seeds:
        head += f"  points per {unit / 1e6:,.0f} more MMACs"
    print(head)
    for row, gain in zip(table, [None, *gains]):
        line = (
            f"{row['depth']:5}  {row['parameters']:10,}  {row['macs'] / 1e6:7.1f}  "
            f"{row['seconds']:7.2f}  {row['images_per_second']:8.0f}  {row['megabytes']:11.0f}  "
            f"{accuracy_text(row):>14}"
        )
        if several_seeds and gain:
            line += f"  {gain_text(gain, unit)}"
        print(line)


def accuracy_text(row):
    """The accuracy of a row of the table in percent; with its standard error, if it has one."""
    text = f"{100 * row['accuracy']:.1f}"
    if not math.isnan(row["standard_error"]):
        text += f" ± {100 * row['standard_error']:.1f}"
    return f"{text} %"


def gain_text(gain, unit):
    """A gain with its standard error, in percentage points per unit multiply-adds."""
    per_unit = unit / 1e9  # of a gain per GMAC
    points = gain["points_per_gmac"] * per_unit
    error = gain["standard_error"] * per_unit
    text = f"{points:+.1f} ± {error:.1f}"
    if not is_clear(gain["points_per_gmac"], gain["standard_error"]):
        text += " (not clear)"
    return text


def describe_differences(args, runs):
    """Say which differences in accuracy are clear, and what they hold for."""
    print(f"{finding(args, runs)}.")
    if args.seeds == 1:
        print("Run this with --seeds 5 to see which differences are clear.")
    else:
        pairs = math.comb(len(LAYERS), 2)
        print(
            f"That is {pairs} comparisons, so one may be clear by luck; and another initialisation "
            "or learning rate may change the ranking (EXERCISES.md)."
        )


def draw_figure(args, table, runs, gains, name, training_images):
    """Accuracy against the cost of training, and of an image; and what is published for ImageNet.

    args, table, runs and gains are those of the run, or of the JSON file that it wrote. name is
    that of the data.
    """
    figure = new_figure(15, 5.6)
    cost_axes, macs_axes, imagenet_axes = figure.subplots(1, 3)
    draw_by_training_cost(cost_axes, runs, name)
    draw_by_macs(macs_axes, table, runs, gains, name)
    draw_published(imagenet_axes)
    about = circumstances(args, name, training_images)
    figure.suptitle(f"{textwrap.fill(finding(args, runs), width=125)}\n({about})")
    return figure


def finding(args, runs):
    """What the run shows about depth, as far as its seeds can tell: a sentence for the title."""
    if args.seeds == 1:
        return "One training run per network cannot show whether a gain in accuracy is luck"
    pairs = math.comb(len(LAYERS), 2)
    clear = clear_differences(runs)
    verb = "is" if len(clear) == 1 else "are"
    text = f"{len(clear)} of {pairs} differences in accuracy {verb} clear"
    return f"{text}: {', '.join(clear)}" if clear else text


def circumstances(args, name, training_images):
    """What the figure's numbers hold for."""
    epochs = "1 epoch" if args.epochs == 1 else f"{args.epochs} epochs"
    text = (
        f"{name}, {args.size}x{args.size} pixels, width {args.width}, "
        f"{training_images:,} training images, {epochs}"
    )
    if args.seeds > 1:
        text += f"; bands and dashes: {args.seeds} seeds; bars: one standard error"
    return text


def depth_colours():
    """A colour per depth, for all panels."""
    return dict(zip(LAYERS, [GREY, BLUE, GREEN, ORANGE, VERMILION]))


def draw_by_training_cost(axes, runs, name):
    """Test accuracy by epoch against the cost of training: mean over seeds, and their range."""
    for depth, colour in depth_colours().items():
        rows = rows_with(runs, "depth", depth)
        costs = [row["multiply_adds"] for row in rows[0]["history"]]
        curves = torch.tensor([test_percentages(row) for row in rows])
        highest = curves.amax(dim=0)
        axes.plot(costs, curves.mean(dim=0), "o-", color=colour, linewidth=2, markersize=4)
        axes.fill_between(costs, curves.amin(dim=0), highest, color=colour, alpha=0.2)
        label_depth(axes, depth, costs[-1], highest[-1], colour)
    axes.set(
        xscale="log",
        xlabel="training cost so far (multiply-adds)",
        ylabel="test accuracy (%)",
        ylim=(0, 108),
        title=f"{name}: after each epoch",
    )


def test_percentages(row):
    """A training's test accuracy after each epoch, in percent."""
    return [100 * epoch["test_accuracy"] for epoch in row["history"]]


def draw_by_macs(axes, table, runs, gains, name):
    """The final test accuracy against multiply-adds per image: mean, standard error, each seed.

    A line joins two networks only where the gain between them is clear.
    """
    megamacs = [row["macs"] / 1e6 for row in table]
    accuracies = [100 * row["accuracy"] for row in table]
    errors = [100 * row["standard_error"] for row in table]
    for i, (depth, colour) in enumerate(depth_colours().items()):
        axes.errorbar(megamacs[i], accuracies[i], errors[i], fmt="o", color=colour, capsize=4)
        of_seeds = [100 * row["accuracy"] for row in rows_with(runs, "depth", depth)]
        if len(of_seeds) > 1:
            axes.plot([megamacs[i]] * len(of_seeds), of_seeds, "_", color=colour, markersize=12)
        label_depth(axes, depth, megamacs[i], max(of_seeds), colour)
    for i, gain in enumerate(gains):
        if is_clear(gain["points_per_gmac"], gain["standard_error"]):
            axes.plot(megamacs[i : i + 2], accuracies[i : i + 2], GREY, linewidth=1, zorder=0)
    set_limits(axes, megamacs)
    axes.set(
        xlabel="MMACs per image",
        ylabel="test accuracy (%)",
        title=f"{name}: after the last epoch",
    )


def draw_published(axes):
    """ImageNet accuracy against multiply-adds, as torchvision publishes them."""
    networks = published()
    gmacs, accuracies = zip(*networks.values())
    axes.plot(gmacs, accuracies, color=GREY, linewidth=1, zorder=0)
    colours = depth_colours()
    for depth, (cost, accuracy_percent) in networks.items():
        axes.plot(cost, accuracy_percent, "o", color=colours[depth])
        label_depth(axes, depth, cost, accuracy_percent, colours[depth])
    set_limits(axes, gmacs)
    axes.set(
        xlabel="GMACs per image",
        ylabel="top-1 accuracy (%)",
        title="ImageNet: published (torchvision)",
    )


def label_depth(axes, depth, x, y, colour):
    """Write a depth above the point (x, y); beside it where something else is above it."""
    alignments = {18: "right", 34: "right", 50: "left"}  # "right": the text ends at the point
    axes.annotate(
        f"{depth}",
        (x, y),
        (0, 6),
        textcoords="offset points",
        ha=alignments.get(depth, "center"),
        va="bottom",
        color=colour,
        weight="bold",
    )


def set_limits(axes, costs):
    """Start the costs at 0, and show at least ten points: no small difference looks large."""
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    missing = max(0, 10 - (high - low))
    axes.set(
        xlim=(0, 1.15 * max(costs)),
        ylim=(max(0, low - missing / 2), min(104, high + missing / 2)),
    )


# %% Given: the same in every file that uses it


# Colours that colour-blind eyes can tell apart (Okabe and Ito, 2008).
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
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


def make_shortcut(in_channels, out_channels, stride):
    """The identity where the shape stays, else a 1x1 convolution and batch norm (task 1.3)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))


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


# A difference of more standard errors than this is called clear.
STANDARD_ERRORS = 3


def standard_error(values, resolution):
    """The standard error of the values' mean; NaN for a single value.

    resolution is how much a value changes with one more correct test image. With few test images
    the values can be equal by luck, so their standard deviation counts as at least that.
    """
    if len(values) == 1:
        return math.nan
    return max(statistics.stdev(values), resolution) / math.sqrt(len(values))


def is_clear(mean, error):
    """Whether a mean is many standard errors away from zero; not if its error is NaN."""
    return abs(mean) > STANDARD_ERRORS * error


def chance_of_luck(seeds):
    """How often two that are equally good differ clearly by luck, in words.

    By Student's t distribution, for differences seed by seed and STANDARD_ERRORS = 3. seeds is at
    least 2.
    """
    if seeds > 5:
        return "fewer than 1 in 25 comparisons"
    one_in = {2: 5, 3: 10, 4: 17, 5: 25}
    return f"about 1 in {one_in[seeds]} comparisons"


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
