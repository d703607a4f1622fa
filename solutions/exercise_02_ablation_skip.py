# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 2: remove the skip connections, and watch training degrade.

Goal: train the paper's networks for CIFAR-10 with and without their shortcuts, shallow and deep, and measure what depth
does to the training loss of each. Then take single blocks out of trained networks and see what is lost.
Paper: He et al., 2015 (arXiv:1512.03385), sections 4.1 and 4.2, figure 6; Veit et al., 2016 (arXiv:1605.06431).

    2.1  Block           a block whose shortcut can be left out
    2.2  build_network   the paper's 6n+2 networks, plain and residual
    2.3  run_ablation    plain and residual, shallow and deep, all else equal
    2.4  degradation     what depth adds to the training loss
    2.5  without_block   a trained network with one block taken out

Check:  pytest tests/test_exercise_02_ablation_skip.py
Run:    python exercise_02_ablation_skip.py             (--help lists the flags; --dry-run takes seconds)
"""

import argparse
import itertools
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import torchvision
from matplotlib import rcParams
from matplotlib.figure import Figure
from torch import nn
from torchvision.datasets import CIFAR10
from tqdm import tqdm

# On a CPU the pictures are few and averaged down to 16x16, so that eight networks train in two minutes.
BUDGET = {
    "cpu": {"epochs": 8, "train_images": 2_560, "test_images": 500, "batch_size": 64, "size": 16, "seeds": 2},
    "gpu": {"epochs": 30, "train_images": 50_000, "test_images": 10_000, "batch_size": 128, "size": 32, "seeds": 3},
    "paper": {"epochs": 164, "train_images": 50_000, "test_images": 10_000, "batch_size": 128, "size": 32},  # 64k steps
}
KEPT = "exercise_02_unfinished"  # the folder in OUT for the networks of a run that is not complete
FLAGS = {
    "--depths": {"type": int, "nargs": "+", "metavar": "N", "help": "6n+2 each, shallow to deep (default: 20 56)"},
    "--preset": {"choices": ["paper"], "help": "section 4.2's recipe, depths 20 32 44 56 110: hours on a GPU"},
}


# %% Your part


class Shortcut(nn.Module):
    """Option A (section 3.3): every stride-th pixel, and zeros for the new channels. It has no parameters."""

    def __init__(self, new_channels, stride):
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class Block(nn.Module):
    """Two 3x3 convolutions, relu(branch(x) + shortcut(x)) with skip, and relu(branch(x)) without.

    Takes (batch, in_channels, height, width). Returns (batch, out_channels, height / stride, width / stride), rounded
    up.
    """

    def __init__(self, in_channels, out_channels, stride=1, skip=True):
        super().__init__()
        self.skip = skip
        self.shortcut = Shortcut(out_channels - in_channels, stride)
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out_channels),
            nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x):
        """Features in, features out; self.skip says whether the shortcut takes part."""
        # Task 2.1: the ReLU of the branch, to which the shortcut is added if self.skip is true.
        out = self.branch(x)
        if self.skip:
            out = out + self.shortcut(x)
        return F.relu(out)


def build_network(depth, skip, width=16, num_classes=10):
    """The paper's network of 6n+2 layers (section 4.2), as nn.Sequential(stem, blocks, head).

    stem: 3x3 convolution to width channels, batch norm, ReLU. blocks: nn.Sequential of 3n blocks, n of width, n of
    2 width and n of 4 width channels; the first block of the second and of the third n has stride 2.
    head: mean over all places, linear layer. Raises ValueError if depth is not 6n+2. Does not seed torch.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth {depth} is not 6n+2: take one of 8, 14, 20, 26, 32, 38, 44, 50, 56, ..., 110")
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))
    # Task 2.2: make the blocks, and put stem, blocks and head together.
    blocks, channels = [], width
    for out_channels, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        for i in range((depth - 2) // 6):
            blocks.append(Block(channels, out_channels, stride if i == 0 else 1, skip))
            channels = out_channels
    return nn.Sequential(stem, nn.Sequential(*blocks), head)


def run_ablation(fit, depths, seeds):
    """Train a plain and a residual network of every depth from every seed; {("plain", depth, seed): history, ...}.

    fit(network, kind, depth, seed) trains the network, on the same pictures in the same order for the same seed, and
    returns its history. kind is "plain" or "residual". Two networks of one depth and seed start from the same weights.
    """
    # Task 2.3: for every combination seed torch, build the network, apply initialise to it, fit it.
    histories = {}
    for seed, depth, kind in itertools.product(seeds, depths, ("plain", "residual")):
        torch.manual_seed(seed)
        network = build_network(depth, skip=kind == "residual").apply(initialise)
        histories[kind, depth, seed] = fit(network, kind, depth, seed)
    return histories


def final_loss(histories, kind, depth):
    """The mean over seeds of the last epoch's training loss."""
    losses = [history[-1]["loss"] for key, history in histories.items() if key[:2] == (kind, depth)]
    return sum(losses) / len(losses)


def degradation(histories):
    """What depth adds to the training loss: {"plain": nats, "residual": nats}; below 0 where depth helps.

    histories is what run_ablation returns; a history is a list of dicts, one an epoch, with the "loss" of that epoch.
    They stay as they are.
    """
    # Task 2.4: the final loss of the deepest networks minus that of the shallowest, each averaged over seeds.
    depths = [depth for _, depth, _ in histories]
    return {kind: final_loss(histories, kind, max(depths)) - final_loss(histories, kind, min(depths))
            for kind in ("plain", "residual")}


def without_block(network, index):
    """A network that lacks the branch of one block: only that block's shortcut is left (Veit et al., 2016).

    It may share layers with the network, which stays as it was. network is nn.Sequential(stem, blocks, head).
    """
    stem, blocks, head = network
    # Task 2.5: put the network together again, with the shortcut of block number index (from 0) in the block's place.
    kept = [block.shortcut if i == index else block for i, block in enumerate(blocks)]
    return nn.Sequential(stem, nn.Sequential(*kept), head)


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
    """Train the networks, or go on where an interrupted run stopped; then take blocks out of the shallowest."""
    depths = args.depths or ((20, 32, 44, 56, 110) if args.preset else (20, 56))
    args.depths = sorted({8, 14} if args.dry_run else set(depths))
    if len(args.depths) < 2 or any(depth < 8 or depth % 6 != 2 for depth in args.depths):
        sys.exit("--depths: give two or more different depths of the form 6n+2, such as 20 56")
    data, networks = load_data(args), {}
    for name in ("train_images", "test_images"):
        smaller = F.avg_pool2d(getattr(data, name).float(), 32 // args.size).round().to(torch.uint8)
        setattr(data, name, smaller)

    def fit(network, kind, depth, seed):
        label, networks[kind, depth] = f"{kind}-{depth}-seed{seed}", network
        return keep(args, network, label, lambda: train(
            network, data, args.epochs, seed, args.batch_size, weight_decay=1e-4, label=label,
            milestones=(32_000, 48_000) if args.preset else None,
            after_epoch=lambda model: {"test_error": 1 - accuracy(model, test_batches(data))}))

    histories = run_ablation(fit, args.depths, range(args.seed, args.seed + args.seeds))
    gaps, lesions = degradation(histories), {}
    for kind, depth in (("plain", args.depths[0]), ("residual", args.depths[0]), ("residual", args.depths[-1])):
        network = networks[kind, depth]
        lesioned = network, *(without_block(network, i) for i in range(len(network[1])))
        with autocast(args.device):
            lesions[f"{kind}-{depth}"] = [accuracy(one, test_batches(data)) for one in lesioned]
    save_results(args, draw_figure(args, histories, gaps, lesions, data), {
        "degradation": gaps, "accuracy_intact_and_without_each_block": lesions,
        "histories": {"-".join(map(str, key)): history for key, history in histories.items()}})
    describe(args, gaps, lesions)
    shutil.rmtree(args.out / KEPT)


def keep(args, network, label, fit):
    """fit()'s history. Network and history are kept until the run is complete, for the same command to go on from."""
    path = args.out / KEPT / f"{label}.pt"
    wanted = {key: str(getattr(args, key)) for key in (*BUDGET["cpu"], "data", "preset") if key != "seeds"}
    wanted["code"] = zlib.crc32(Path(__file__).read_bytes())  # other code may train otherwise
    if path.exists():
        kept = torch.load(path, map_location=args.device, weights_only=True)
        if kept["settings"] == wanted:
            network.to(args.device).load_state_dict(kept["weights"])
            print(f"{label}: finished before the run was interrupted")
            return kept["history"]
    history = fit()
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as unfinished:
        whole = Path(unfinished, path.name)
        torch.save({"settings": wanted, "history": history, "weights": network.state_dict()}, whole)
        os.replace(whole, path)
    return history


def draw_figure(args, histories, gaps, lesions, data):
    """The paper's figure 6 for this run, and beside it what single blocks are worth."""
    figure = new_figure(13, 4.8)
    *curves, lesion = figure.subplots(1, 3)
    colours = dict(zip(reversed(args.depths), itertools.cycle((VERMILION, BLUE, GREEN, GREY, "#CC79A7", "#E69F00"))))
    losses = [epoch["loss"] for history in histories.values() for epoch in history if math.isfinite(epoch["loss"])]
    epochs, top = range(1, args.epochs + 1), 1.05 * max(losses, default=1)
    for axes, kind in zip(curves, gaps):
        y = -top
        for depth in sorted(args.depths, key=lambda depth: final_loss(histories, kind, depth)):
            runs = [h for key, h in histories.items() if key[:2] == (kind, depth)]
            losses, errors = [torch.tensor([[e[key] for e in h] for h in runs]) for key in ("loss", "test_error")]
            axes.plot(epochs, losses.mean(dim=0), color=colours[depth], linewidth=2.5)
            axes.fill_between(epochs, losses.amin(dim=0), losses.amax(dim=0), color=colours[depth], alpha=0.25)
            axes.plot(epochs, errors.mean(dim=0), color=colours[depth], linewidth=1, linestyle="--")
            y = max(losses[:, -1].mean().item(), y + 0.06 * top)  # labels of equal losses stand above each other
            axes.annotate(f"{depth} layers", (epochs[-1], y), (6, 0), textcoords="offset points", color=colours[depth],
                          va="center", annotation_clip=False)
        axes.set(xlabel="epoch", ylabel="training loss (nats)\ndashed: test error (share)", ylim=(0, top))
        axes.set_title(f"{kind}: depth {'adds' if gaps[kind] > 0 else 'saves'} {abs(gaps[kind]):.2f} nats")
    y, intact = -100, -20  # where the whole network stands, left of the first block
    for label, (whole, *parts) in sorted(lesions.items(), key=lambda item: item[1][-1]):
        kind, depth = label.split("-")
        places = [100 * (i + 0.5) / len(parts) for i in range(len(parts))]
        lesion.plot([intact, *places], [100 * share for share in (whole, *parts)],
                    "s" if kind == "plain" else "o", color=colours[int(depth)])
        y = max(100 * parts[-1], y + 7)
        lesion.annotate(label, (100, y), (8, 0), textcoords="offset points", color=colours[int(depth)],
                        va="center", annotation_clip=False)
    lesion.axvline(intact / 2, color=GREY, linewidth=1, linestyle=":")
    lesion.set(xlabel="block taken out (% of depth)", ylabel="test accuracy (%)", ylim=(0, 105))
    lesion.set_xticks([intact, 0, 50, 100], ["none", "0", "50", "100"])
    lesion.set_title("one block taken out")
    figure.suptitle(f"From {args.depths[0]} to {args.depths[-1]} layers training loss changes by {gaps['plain']:+.2f} "
                    f"nats without shortcuts,\nand by {gaps['residual']:+.2f} with them ({data.name}, {args.size} px)")
    return figure


def describe(args, gaps, lesions):
    """Say in a few sentences what this run's numbers show."""
    shallow, deep = args.depths[0], args.depths[-1]
    for kind, gap in gaps.items():
        side = "above" if gap > 0 else "below"
        print(f"{kind}: {deep} layers end {abs(gap):.2f} nats {side} the training loss of {shallow} layers "
              f"(mean of {args.seeds} runs).")
    if gaps["plain"] > 0.1 and gaps["residual"] <= gaps["plain"] / 3:
        print("This is degradation: the deeper plain network fits even its training pictures worse, so it does not "
              "overfit. With shortcuts, and not one parameter more, the gap is at most a third of that.")
    else:
        print("Degradation does not show clearly in this run: the plain gap is small, or the residual one as large.")
    for label, (whole, *parts) in lesions.items():
        print(f"{label} names {whole:.0%} of the test pictures rightly; without one block "
              f"{sum(parts) / len(parts):.0%} on average, {min(parts):.0%} at worst.")


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
