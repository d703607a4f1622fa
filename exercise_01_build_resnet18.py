# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 1: build ResNet-18 from scratch, train it, and test it on CIFAR-10.

Goal: write the residual block and the network around it until they agree with torchvision's to the last digit, then
train the network and measure how well it does on pictures that it has never seen.
Paper: He et al., 2015 (arXiv:1512.03385), sections 3.2 to 3.4, table 1.

    1.1  BasicBlock      two 3x3 convolutions and the shortcut around them
    1.2  ResNet18        stem, four stages of two blocks, head
    1.3  make_shortcut   what the shortcut does where the shape changes
    1.4  accuracy        the share of test pictures that a network gets right

Check:  pytest tests/test_exercise_01_build_resnet18.py
Run:    python exercise_01_build_resnet18.py             (--help lists the flags; --dry-run takes seconds)
"""

import argparse
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
from matplotlib.figure import Figure
from torch import nn
from torchvision.datasets import CIFAR10
from tqdm import tqdm

# The learning rate is the paper's 0.1 for its batches of 128, scaled with the batch size (Goyal et al., 2017).
BUDGET = {
    "cpu": {"epochs": 5, "train_images": 1_600, "test_images": 1_000, "batch_size": 32, "smoothing": 0},
    "gpu": {"epochs": 15, "train_images": 50_000, "test_images": 10_000, "batch_size": 128, "smoothing": 0},
    "fast": {"epochs": 10, "batch_size": 512, "smoothing": 0.1},  # what the preset of that name changes
}
FLAGS = {"--preset": {"choices": ["fast"], "help": "for a GPU: large batches, smoothed labels, mirrored test pictures"}}


# %% Your part


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut around them: relu(branch(x) + shortcut(x)) (section 3.2, figure 2).

    Takes (batch, in_channels, height, width), any height and width. Returns (batch, out_channels, height / stride,
    width / stride), rounded up. The convolutions have no bias: the batch norm after each of them brings one.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        # TODO 1.1: make the layers of the residual branch: a 3x3 convolution that changes the channels and takes the
        # stride, a 3x3 convolution that keeps the shape, and a batch norm for each.
        raise NotImplementedError("TODO 1.1: BasicBlock.__init__")

    def forward(self, x):
        """Images or features (batch, in_channels, height, width) in, features out; x itself is left as it was."""
        # TODO 1.1: convolution, batch norm, ReLU, convolution, batch norm; add the shortcut of x; a last ReLU.
        raise NotImplementedError("TODO 1.1: BasicBlock.forward")


class ResNet18(nn.Module):
    """ResNet-18 (table 1) with the usual stem for small pictures. 11,173,962 parameters for 10 classes.

    Takes (batch, 3, height, width), any height and width. Returns logits (batch, num_classes). At 32x32:

        stem      3x3 convolution, batch norm, ReLU; stride 1, no pooling     64 x 32 x 32
        stage 1   two basic blocks                                            64 x 32 x 32
        stage 2   two basic blocks, the first with stride 2                  128 x 16 x 16
        stage 3   two basic blocks, the first with stride 2                  256 x  8 x  8
        stage 4   two basic blocks, the first with stride 2                  512 x  4 x  4
        head      mean over all places, linear layer                         num_classes
    """

    def __init__(self, num_classes=10):
        super().__init__()
        # TODO 1.2: make self.stem, self.stages and self.head as in the table above. The stem's convolution has no
        # bias; the head's linear layer has one.
        raise NotImplementedError("TODO 1.2: ResNet18.__init__")

    def forward(self, images):
        """Images (batch, 3, height, width) in, logits (batch, num_classes) out."""
        return self.head(self.stages(self.stem(images)))


def make_shortcut(in_channels, out_channels, stride):
    """The module that carries a block's input to the addition (section 3.3, option B).

    Where input and output have the same shape, it returns its input unchanged. Where they differ, in channels or in
    size, it is a projection: a 1x1 convolution without bias that takes the stride, then batch norm.
    """
    # TODO 1.3: return the identity or the projection.
    raise NotImplementedError("TODO 1.3: make_shortcut")


def accuracy(model, batches):
    """The share of pictures, from 0 to 1, whose largest logit is that of their label; in eval mode, without gradients.

    batches yields (images, labels), (count, 3, height, width) and (count,), once; the batches can differ in size.
    """
    # TODO 1.4: count the pictures that the model gets right, and all of them, over every batch.
    raise NotImplementedError("TODO 1.4: accuracy")


# %% The experiment


def run(args):
    """Train ResNet-18, test it after every epoch, and show what it says of some test pictures."""
    data = load_data(args)
    torch.manual_seed(args.seed)
    model = ResNet18(len(data.classes))
    model(torch.zeros(2, 3, 32, 32))  # lazy layers, should you use any, take their shapes
    model.apply(initialise)
    model.register_forward_hook(lambda module, images, logits: logits.float())  # from bfloat16, unknown to numpy()
    tested = Mirrored(model) if args.preset == "fast" else model
    history = train(model, data, args.epochs, args.seed, args.batch_size, label="ResNet-18",
                    smoothing=args.smoothing,
                    after_epoch=lambda model: {"test_accuracy": float(accuracy(tested, test_batches(data)))})
    with torch.no_grad(), autocast(args.device):  # accuracy() has left the model in eval mode
        said = torch.cat([tested(images).argmax(dim=1) for images, _ in test_batches(data)])
    save_results(args, draw_figure(history, said, data), {"history": history})
    train_end, test_end, chance = history[-1]["accuracy"], history[-1]["test_accuracy"], 1 / len(data.classes)
    little = test_end < 2 * chance and not args.dry_run
    advice = " That is little: give it more --epochs or --train-images." if little else ""
    print(f"It names {test_end:.1%} of {len(said):,} unseen pictures rightly (guessing: {chance:.0%}), and named "
          f"{train_end:.1%} of the training pictures rightly in the last epoch.{advice}")


class Mirrored(nn.Module):
    """A model that is asked twice, about each picture and about its mirror image; the logits are added."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images) + self.model(images.flip(3))


def initialise(module):
    """Draw a convolution's weights as He et al. do for layers followed by ReLUs (arXiv:1502.01852; section 3.4)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def draw_figure(history, said, data):
    """Loss and accuracy against epochs, above ten test pictures and what the network said of them."""
    figure, epochs = new_figure(11, 5.6), [h["epoch"] for h in history]
    top, bottom = figure.subfigures(2, 1, height_ratios=[3, 1])
    loss, right = top.subplots(1, 2)
    loss.plot(epochs, [h["loss"] for h in history], "o-", color=BLUE)
    loss.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, None), xticks=epochs[:: 1 + len(epochs) // 12])
    train, test = [[100 * h[key] for h in history] for key in ("accuracy", "test_accuracy")]
    up = 8 if test[-1] > train[-1] else -8  # points, to keep two labels apart
    for name, values, colour, dy in (("training", train, BLUE, -up), ("test", test, VERMILION, up),
                                     ("guessing", [100 / len(data.classes)] * len(epochs), GREY, 0)):
        right.plot(epochs, values, "o-" if dy else ":", color=colour)
        right.annotate(f"{name}, {values[-1]:.1f} %", (epochs[-1], values[-1]), (8, dy), textcoords="offset points",
                       color=colour, va="center", annotation_clip=False)
    right.set(xlabel="epoch", ylabel="right answers (%)", ylim=(0, 102), xticks=epochs[:: 1 + len(epochs) // 12])
    figure.suptitle(f"ResNet-18 names {test[-1]:.1f} % of {len(said):,} unseen pictures rightly ({data.name})")
    good = said == data.test_labels
    wrong = (~good).nonzero()[: max(5, 10 - good.sum()), 0]
    for axes, i in zip(bottom.subplots(1, 10), torch.cat([good.nonzero()[: 10 - len(wrong), 0], wrong]).tolist()):
        axes.imshow(data.test_images[i].permute(1, 2, 0).cpu().numpy())
        answer, truth = data.classes[said[i]], data.classes[data.test_labels[i]]
        a = "an" if truth[0] in "aeiou" else "a"
        text, colour = (f"✓ {truth}", BLUE) if good[i] else (f"✗ {answer}\n({a} {truth})", VERMILION)
        axes.set_xlabel(text, color=colour, fontsize=11)
        axes.set(xticks=[], yticks=[], frame_on=False)
    return figure


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
