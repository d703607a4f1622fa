# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 4: train depths 18, 34, 50 and 101, and weigh accuracy against cost.

Goal: build the four networks, count what they cost, train them alike, and see what each added multiply-add buys.
Paper: He et al., 2015 (arXiv:1512.03385), section 4.1, table 1 and figure 5.

    4.1  Bottleneck         the block of the deeper networks
    4.2  build_resnet       ResNet-18, -34, -50 and -101, at any width
    4.3  count_parameters   what a network costs: numbers to store
         count_macs         and multiply-adds to run
    4.4  train_depths       the sweep: every depth from every seed, or one process's share of it
    4.5  marginal_gains     accuracy gained per added GMAC

Check:  pytest tests/test_exercise_04_depth_scaling.py
Run:    python exercise_04_depth_scaling.py             (--help lists the flags; --dry-run takes seconds)
        torchrun --standalone --nproc-per-node 2 exercise_04_depth_scaling.py         shares the trainings out
"""

import argparse
import contextlib
import copy
import datetime
import io
import itertools
import json
import math
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision
from matplotlib import rcParams
from matplotlib.figure import Figure
from torch import nn
from torchvision.datasets import CIFAR10
from tqdm import tqdm

RATE = 0.1  # the paper's highest learning rate (section 3.4), which blocks that start as their shortcuts can bear
BUDGET = {  # on a CPU, pictures are averaged down to 16x16, and the networks are a quarter as wide
    "cpu": {"epochs": 7, "train_images": 2_400, "test_images": 1_000, "batch_size": 32, "size": 16, "width": 16,
            "seeds": 1},
    "gpu": {"epochs": 15, "train_images": 50_000, "test_images": 10_000, "batch_size": 128, "size": 32, "width": 64,
            "seeds": 3},
}
FLAGS = {
    "--width": {"type": int, "metavar": "N", "help": "channels of the first stage (default on a CPU: 16; paper: 64)"},
    "--seeds": {"type": int, "metavar": "N", "help": "trainings of each network (default on a CPU: 1)"},
    "--threads": {"type": int, "default": 2, "metavar": "N", "help": "CPU threads a training uses (default: 2); "
                  "with another number sums are rounded otherwise, and a training ends elsewhere"},
}
KEPT = "exercise_04_unfinished"  # the folder in OUT for the trainings of a sweep that is not complete


# %% Your part


def make_shortcut(in_channels, out_channels, stride):
    """The identity where the shape stays, else a 1x1 convolution and batch norm (option B; task 1.3)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (task 1.1); it puts out expansion * channels channels."""

    expansion = 1

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.branch[-1].weight)  # the block starts as its shortcut (Goyal et al., 2017, section 5.1)
        self.shortcut = make_shortcut(in_channels, channels, stride)

    def forward(self, x):
        return F.relu(self.branch(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (figure 5, right); it puts out expansion * channels channels.

    The first convolution narrows to channels, the last widens to 4 * channels. Batch norm follows each, a ReLU the
    first two and the addition. Takes (batch, in_channels, height, width). Returns (batch, 4 * channels,
    height / stride, width / stride), rounded up. The stride is the 3x3's, as in torchvision; the paper's own place,
    the first 1x1, is right as well.
    """

    expansion = 4

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        # TODO 4.1: make the layers of the branch, without biases in the convolutions, and the shortcut. Start the last
        # batch norm's weight at zero, as in BasicBlock, so that ResNet-50 and -101 learn within the small budget.
        raise NotImplementedError("TODO 4.1: Bottleneck.__init__")

    def forward(self, x):
        """Features in, features out."""
        # TODO 4.1: branch plus shortcut, then the last ReLU.
        raise NotImplementedError("TODO 4.1: Bottleneck.forward")


LAYERS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)),  # table 1: blocks in each of four stages
          50: (Bottleneck, (3, 4, 6, 3)), 101: (Bottleneck, (3, 4, 23, 3))}


def make_stem(kind, width):
    """For "imagenet" a 7x7 convolution and max pooling, both with stride 2; for "cifar" a 3x3 convolution."""
    if kind == "cifar":
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, width, 7, 2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                         nn.MaxPool2d(3, 2, padding=1))


def build_resnet(depth, width=64, num_classes=10, stem="cifar"):
    """ResNet-18, -34, -50 or -101 as nn.Sequential(stem, stages, head), from pictures to logits.

    Stage i (0 to 3) has channels = width * 2**i in its blocks, and as many blocks as LAYERS says. The first block of
    stages 1 to 3 has stride 2. The head is the mean over all places and a linear layer. ValueError for other depths.
    """
    if depth not in LAYERS:
        raise ValueError(f"depth {depth}: there are only {', '.join(map(str, LAYERS))}")
    block, counts = LAYERS[depth]
    # TODO 4.2: the blocks of all stages, each taking what the one before puts out; then the head; put them together.
    raise NotImplementedError("TODO 4.2: build_resnet")


def count_parameters(model):
    """How many numbers a training can change."""
    # TODO 4.3: the sizes of all parameters.
    raise NotImplementedError("TODO 4.3: count_parameters")


def count_macs(model, shape=(3, 32, 32)):
    """The multiply-adds of all nn.Conv2d and nn.Linear for one picture of this shape, biases left out.

    Runs the model once, in eval mode and without gradients, on a picture of zeros. The model stays as it was: no hooks,
    the same mode, the same statistics.
    """
    # TODO 4.3: a forward hook on each of these layers; every number it puts out is a sum over one row of its weight.
    raise NotImplementedError("TODO 4.3: count_macs")


def train_depths(fit, depths, seeds, width=64, rank=0, world_size=1):
    """Train a network of every depth from every seed; {(depth, seed): what fit returned, ...}.

    fit(network, depth, seed) trains the network and returns a row of results. Networks of one depth and seed start from
    the same weights, whatever was trained before. Of world_size processes that share the trainings, this one, number
    rank (from 0), does every world_size-th; together they do each once.
    """
    # TODO 4.4: go through this process's share; for each, seed torch, build the network, apply initialise, fit it.
    raise NotImplementedError("TODO 4.4: train_depths")


def marginal_gains(rows):
    """Percentage points of accuracy gained per added GMAC, from each network to the next larger one.

    rows: dicts with "accuracy" (0 to 1) and "macs", in any order, no two "macs" the same. Returns a list, one number
    fewer than rows, from the smallest network upwards; below 0 where the larger network does worse.
    """
    # TODO 4.5: sort by multiply-adds; divide each difference in points by the difference in 10^9 multiply-adds.
    raise NotImplementedError("TODO 4.5: marginal_gains")


def initialise(module):
    """Draw a convolution's weights as He et al. do for layers followed by ReLUs (arXiv:1502.01852; section 3.4)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def accuracy(model, batches):
    """The share of pictures, from 0 to 1, that the model gets right; in eval mode, without gradients (task 1.4)."""
    model.eval()
    with torch.no_grad():
        hits = [(model(images).argmax(dim=1) == labels) for images, labels in batches]
    return torch.cat(hits).float().mean().item()


# %% The experiment


def run(args):
    """Train this process's share of the sweep; process 0 gathers all rows, draws and prints."""
    # oneDNN's strided 1x1 convolutions corrupt memory below 16 channels (its issue 6035): no narrower networks
    for name, low, high in (("width", 16, 256), ("seeds", 1, 100), ("threads", 1, 256)):
        if not low <= getattr(args, name) <= high:
            sys.exit(f"--{name} {getattr(args, name)}: give a whole number from {low} to {high}")
    args.seeds = 1 if args.dry_run else args.seeds
    seeds = range(args.seed, args.seed + args.seeds)
    with processes(args) as (rank, world_size):
        data = load_data_once(args, rank, world_size)

        def fit(network, depth, seed):
            return keep(args, f"ResNet-{depth}, seed {seed}", lambda label: measure(args, network, data, seed, label))

        rows = gather(train_depths(fit, LAYERS, seeds, args.width, rank, world_size), rank, world_size)
    if rank == 0:
        table = [summarise(depth, [rows[depth, seed] for seed in seeds]) for depth in LAYERS]
        gains = marginal_gains(table)
        save_results(args, draw_figure(args, table, data), {
            "processes": world_size, "table": table, "points_per_added_gmac": gains,
            "trainings": {f"{depth}-{seed}": row for (depth, seed), row in sorted(rows.items())}})
        describe(args, table, gains, world_size)
        shutil.rmtree(args.out / KEPT)


@contextlib.contextmanager
def processes(args):
    """This process's number, and how many torchrun has started; process 0 alone speaks. Sets threads and device."""
    rank, world_size = [int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))]
    torch.set_num_threads(args.threads)
    if args.device.type == "cuda":
        args.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    with contextlib.ExitStack() as stack:
        if world_size > 1:
            dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))  # others' shares may take longer
            stack.callback(dist.destroy_process_group)
        if rank > 0:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield rank, world_size


def load_data_once(args, rank, world_size):
    """The pictures at args.size; process 0 comes first, as it may have to download them."""
    for turn in range(min(world_size, 2)):
        if turn == min(rank, 1):
            data = load_data(args)
        if world_size > 1:
            dist.barrier()
    for name in ("train_images", "test_images"):
        smaller = F.avg_pool2d(getattr(data, name).float(), 32 // args.size).round().to(torch.uint8)
        setattr(data, name, smaller)
    return data


def gather(rows, rank, world_size):
    """All processes' rows, in process 0."""
    parts = [rows] * world_size
    if world_size > 1:
        dist.gather_object(rows, parts if rank == 0 else None)
    return {key: row for part in parts for key, row in part.items()}


def measure(args, network, data, seed, label):
    """Count what a network costs, train it, test it: a row of numbers."""
    row = {"macs": count_macs(network, data.train_images.shape[1:]), "parameters": count_parameters(network),
           "megabytes": training_memory(network, data, args.batch_size)}
    history = train(network, data, args.epochs, seed, args.batch_size, label=label, rate=RATE)
    seconds = statistics.median(epoch["seconds"] for epoch in history)
    return row | {"seconds": seconds, "pictures_per_second": len(data.train_labels) / seconds, "history": history,
                  "accuracy": accuracy(network, test_batches(data))}


def training_memory(network, data, batch_size):
    """Megabytes that a step holds: weights, gradients, momentum, and what the forward pass keeps for the backward."""
    network, device, kept = copy.deepcopy(network).to(data.mean.device).train(), data.mean.device, {}
    weights = {parameter.untyped_storage().data_ptr(): parameter.nbytes for parameter in network.parameters()}

    def keep_tensor(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep_tensor, lambda tensor: tensor), autocast(device):
        logits = network(normalise(data.train_images[:batch_size], data))  # noqa: F841  it keeps what was kept alive
    return (3 * sum(weights.values()) + sum(size for place, size in kept.items() if place not in weights)) / 1e6


def keep(args, label, fit):
    """fit(label)'s row. It is kept until the sweep is complete, for the same command to go on from."""
    path = args.out / KEPT / f"{label}.json"
    wanted = {key: str(getattr(args, key)) for key in (*BUDGET["cpu"], "data", "threads") if key != "seeds"}
    wanted["code"] = zlib.crc32(Path(__file__).read_bytes())  # other code may train otherwise
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
        if kept["settings"] == wanted:
            print(f"{label}: finished before the run was interrupted")
            return kept["row"]
    row = fit(label)
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as unfinished:
        whole = Path(unfinished, path.name)
        whole.write_text(json.dumps({"settings": wanted, "row": row}), "utf-8")
        os.replace(whole, path)
    return row


def summarise(depth, rows):
    """One line of the table: the means over seeds, and the accuracy's standard deviation (NaN for one seed)."""
    accuracies, first = [row["accuracy"] for row in rows], rows[0]
    return {"depth": depth, **{key: first[key] for key in ("parameters", "macs", "megabytes")},
            "seconds": statistics.median(row["seconds"] for row in rows),
            "pictures_per_second": statistics.median(row["pictures_per_second"] for row in rows),
            "accuracy": statistics.mean(accuracies),
            "deviation": statistics.stdev(accuracies) if len(rows) > 1 else math.nan}


def published():
    """ImageNet top-1 accuracy (%) and GMACs of torchvision's own four networks, from what torchvision says of them."""
    found = {}
    for depth in LAYERS:
        meta = torchvision.models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1.meta
        found[depth] = meta["_ops"], meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return found


def draw_figure(args, table, data):
    """Accuracy against multiply-adds and against time, and beside it what is published for ImageNet."""
    figure = new_figure(15, 5)
    by_macs, by_time, imagenet = figure.subplots(1, 3)
    here = {"y": [100 * row["accuracy"] for row in table], "yerr": [100 * row["deviation"] for row in table]}
    draw_curve(by_macs, [row["macs"] / 1e9 for row in table], **here, colour=BLUE)
    by_macs.set(xlabel="GMACs a picture", ylabel="test accuracy (%)", title=f"{data.name}: by multiply-adds")
    draw_curve(by_time, [row["seconds"] for row in table], **here, colour=BLUE)
    by_time.set(xlabel="seconds an epoch, measured", ylabel="test accuracy (%)", title=f"{data.name}: by time")
    by_time.sharey(by_macs)
    macs, accuracies = zip(*published().values())
    draw_curve(imagenet, macs, accuracies, [math.nan] * len(macs), VERMILION)
    imagenet.set(xlabel="GMACs a picture", ylabel="top-1 accuracy (%)", title="ImageNet: published (torchvision)")
    first, last = table[0], table[-1]
    gain = 100 * (last["accuracy"] - first["accuracy"])
    figure.suptitle(f"ResNet-{last['depth']} costs {last['macs'] / first['macs']:.1f} times ResNet-{first['depth']}'s "
                    f"multiply-adds and {last['seconds'] / first['seconds']:.1f} times its time, "
                    f"and is right on {abs(gain):.1f} % {'more' if gain > 0 else 'fewer'} of the test pictures\n"
                    f"({data.name}, {args.size} px, width {args.width}, {len(data.train_labels):,} pictures, "
                    f"{args.epochs} epochs{f', {args.seeds} seeds; bars: deviation' * (args.seeds > 1)})")
    return figure


def draw_curve(axes, x, y, yerr, colour):
    """A line from network to network, each labelled with its depth."""
    axes.errorbar(x, y, yerr=yerr, fmt="o-", color=colour, linewidth=2, capsize=4)
    for i, (depth, *point) in enumerate(zip(LAYERS, x, y)):
        falls = i > 0 and y[i] < y[i - 1]  # then the line comes from above, and the label stands below its point
        axes.annotate(f"{depth}", point, (0, -18) if falls else (-4, 7), textcoords="offset points", color=colour,
                      weight="bold", ha="center" if falls else "right")
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    more = max(0, 10 - (high - low)) / 2  # at least ten points from bottom to top, so that chance does not look large
    axes.set(xlim=(0, 1.1 * max(x)), ylim=(max(0, low - more), min(104, high + more)))


def describe(args, table, gains, world_size):
    """Print the table, and say what this run's numbers show."""
    print("depth  parameters    MMACs  s/epoch  pictures/s  MB a step  test accuracy  points per added GMAC")
    for row, gain in zip(table, [None, *gains]):
        spread, bought = f"± {row['deviation']:.1%}" * (args.seeds > 1), "" if gain is None else f"{gain:+,.0f}"
        print(f"{row['depth']:5}  {row['parameters']:10,}  {row['macs'] / 1e6:7.1f}  {row['seconds']:7.2f}  "
              f"{row['pictures_per_second']:10.0f}  {row['megabytes']:9.0f}  {row['accuracy']:6.1%} {spread:>6}  "
              f"{bought:>21}")
    if world_size > 1:
        print(f"The seconds were measured with {world_size} trainings side by side.")
    first, best = table[0], max(table, key=lambda row: row["accuracy"])
    gain, spread = best["accuracy"] - first["accuracy"], max(row["deviation"] for row in table)
    if best is first:
        print(f"In this run no deeper network is more accurate than ResNet-{first['depth']}.")
    else:
        print(f"ResNet-{best['depth']} is the most accurate, {100 * gain:.1f} points above ResNet-{first['depth']}, "
              f"for {best['macs'] / first['macs']:.1f} times the multiply-adds.")
    if args.seeds == 1:
        print("One training each does not tell how much of the differences is chance: --seeds 3 does.")
    elif gain <= 2 * spread and best is not first:
        print("But seeds alone make such differences here: the run does not show that depth helps.")
    basic, bottleneck = table[1], table[2]
    print(f"ResNet-50's bottlenecks cost {bottleneck['macs'] / basic['macs']:.2f} times the multiply-adds of ResNet-34 "
          f"and {bottleneck['seconds'] / basic['seconds']:.2f} times its time here.")
    (low, worst), *_, (high, top) = published().values()
    print(f"For comparison, published for ImageNet: {worst:.1f} % with {low:.1f} GMACs to {top:.1f} % with {high:.1f}.")


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
