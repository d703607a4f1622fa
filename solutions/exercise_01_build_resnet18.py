# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 1: build ResNet-18 from scratch, train it, and test it on new images.

Goal: write the residual block of torchvision's ResNet-18, and the network around it, with a stem
for small images. Then train it, and measure how well it classifies images that it has never seen.
Paper: He et al., 2015 (arXiv:1512.03385), sections 3.2 to 3.4, table 1.

    1.1  BasicBlock      two 3x3 convolutions and the shortcut around them
    1.2  ResNet18        stem, four stages of two blocks, head
    1.3  make_shortcut   what the shortcut does where the shape changes
    1.4  accuracy        the share of test images that a network classifies correctly

Check:  pytest tests/test_exercise_01_build_resnet18.py
Run:    python exercise_01_build_resnet18.py     (--help lists the flags; --dry-run takes seconds)
"""

import argparse
import contextlib
import errno
import json
import math
import os
import shutil
import socket
import ssl
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
    from matplotlib.figure import Figure
    from torch import nn
    from torchvision.datasets import CIFAR10
    from tqdm import tqdm
except (ImportError, AttributeError) as error:
    sys.exit(
        f"{error}. Install what is missing, or activate the environment that has it. A file or "
        "folder of yours with the name of a package hides the package: rename it."
    )

EXERCISE = "exercise_01_build_resnet18"
# The paper's learning rate is 0.1 for batches of 128 images (section 4.2). For other batches it is
# scaled in proportion, as in Goyal et al., 2017.
RATE_PER_IMAGE = 0.1 / 128
WEIGHT_DECAY = 5e-4  # common for CIFAR-10; the paper has 1e-4
BUDGETS = {
    "cpu": {
        "epochs": 5,
        "train_images": 1_600,
        "test_images": 1_000,
        "batch_size": 32,
        "smoothing": 0,
    },
    "gpu": {
        "epochs": 15,
        "train_images": 50_000,
        "test_images": 10_000,
        "batch_size": 128,
        "smoothing": 0,
    },
    "fast": {  # what --preset fast changes
        "epochs": 10,
        "batch_size": 512,
        "smoothing": 0.1,
    },
}


def add_flags(add):
    """The flags that only this exercise has."""
    add(
        "--preset",
        choices=["fast"],
        help="for a GPU: large batches, smoothed labels, mirrored test images",
    )


# %% Your part


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut around them: relu(branch(x) + shortcut(x)).

    Section 3.2 and figure 2. Takes (batch, in_channels, height, width), any height and width.
    Returns (batch, out_channels, ceil(height / stride), ceil(width / stride)). The convolutions pad
    with one zero on every side, and have no bias: the batch norm after each of them has one.
    Convolutions and batch norms are torch's own, as modules or functions. Convolutions start with
    random weights. Batch norms start as torch makes them, but the weight of the branch's last one
    may start at 0.
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        # Task 1.1: make the layers of the residual branch: a 3x3 convolution that changes the
        # channels and takes the stride, a 3x3 convolution that keeps the shape, and a batch norm
        # for each.
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        """Features (batch, in_channels, height, width) in, features out; x stays as it was."""
        # Task 1.1: convolution, batch norm, ReLU, convolution, batch norm; add the shortcut of x;
        # a last ReLU.
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return F.relu(branch + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 (table 1) with the usual stem for small images. 11,173,962 parameters, 10 classes.

    Takes (batch, 3, height, width), any height and width. Returns logits (batch, num_classes).
    At 32x32:

        stem      3x3 convolution, batch norm, ReLU; stride 1, no pooling     64 x 32 x 32
        stage 1   two basic blocks                                            64 x 32 x 32
        stage 2   two basic blocks, the first with stride 2                  128 x 16 x 16
        stage 3   two basic blocks, the first with stride 2                  256 x  8 x  8
        stage 4   two basic blocks, the first with stride 2                  512 x  4 x  4
        head      mean over all positions, linear layer                      num_classes

    Every network has layers of its own; they are torch's, as modules or functions. Making a network
    does not seed torch.
    """

    def __init__(self, num_classes=10):
        super().__init__()
        # Task 1.2: make self.stem, self.stages and self.head as in the table above. The stem's
        # convolution has no bias; the head's linear layer has one.
        stem_conv = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem_conv, nn.BatchNorm2d(64), nn.ReLU())
        blocks = []
        in_channels = 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks.append(BasicBlock(in_channels, out_channels, stride))
            blocks.append(BasicBlock(out_channels, out_channels))
            in_channels = out_channels
        self.stages = nn.Sequential(*blocks)
        pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(pool, nn.Flatten(), nn.Linear(512, num_classes))

    def forward(self, images):
        """Images (batch, 3, height, width) in, logits (batch, num_classes) out."""
        return self.head(self.stages(self.stem(images)))


def make_shortcut(in_channels, out_channels, stride):
    """The module that carries a block's input to the addition (section 3.3, option B).

    With stride 1 and as many channels out as in, it returns its input unchanged. Otherwise it is a
    projection: a 1x1 convolution without bias that takes the stride, then batch norm, both torch's
    own. Every projection has layers of its own. Its convolution starts with random weights, its
    batch norm as torch makes it.
    """
    # Task 1.3: return the identity or the projection.
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(out_channels))


def accuracy(model, batches):
    """The share of images, from 0 to 1, whose largest logit is that of their label.

    The model runs once per batch, without gradients and with every part in eval mode. It may be
    left in any mode, but nothing else changes: no part of the model, no batch, and neither torch's
    random state nor its settings. batches yields (images, labels), of the shapes (count, 3, height,
    width) and (count,): at least one batch, and none without images. It may be an iterator, which
    can be gone through only once; batches can differ in size. Ties may be decided either way.
    """
    # Task 1.4: count the images that the model classifies correctly, and all of them, over every
    # batch.
    model.eval()
    correct = 0
    total = 0
    with torch.no_grad():
        for images, labels in batches:
            predictions = model(images).argmax(dim=1)
            correct += (predictions == labels).sum().item()
            total += len(labels)
    return correct / total


# %% The experiment


def run(args):
    """Train ResNet-18, test it after every epoch, and show which classes it confuses."""
    data = load_data(args)
    torch.manual_seed(args.seed)
    model = ResNet18(len(data.classes))
    model.eval()(torch.zeros(1, 3, 32, 32))  # lazy layers, if you use any, take their shapes
    model.apply(initialise)
    # Under autocast the logits are bfloat16. Your accuracy may use numpy, which has no such type.
    model.register_forward_hook(lambda module, images, logits: logits.float())
    model.to(args.device)
    tested_model = Mirrored(model) if args.preset == "fast" else model

    def test(_):
        return {"test_accuracy": float(accuracy(tested_model, test_batches(data)))}

    optimizer = make_sgd(model, RATE_PER_IMAGE * args.batch_size, WEIGHT_DECAY)
    schedule = one_cycle(optimizer, args.epochs * count_steps(data, args.batch_size))
    history = train(
        model,
        data,
        optimizer,
        schedule,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        label="ResNet-18",
        after_epoch=test,
        smoothing=args.smoothing,
    )
    predictions = predict(tested_model, data).cpu()
    confusion = confusion_matrix(predictions, data)
    save_numbers(args, {"history": history, "confusion": confusion.tolist()})
    with printed_unless_dry_run(args):
        describe(history, confusion, data)
    save_figure(args, draw_figure(history, confusion, predictions, data))


class Mirrored(nn.Module):
    """Test-time augmentation: the sum of the logits for an image and for its mirror image."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images) + self.model(images.flip(3))


def predict(model, data):
    """The class that the model predicts for each test image, int64 (count,)."""
    model.eval()
    predictions = []
    with torch.no_grad(), autocast(data.test_images.device):
        for images, _ in test_batches(data):
            predictions.append(model(images).argmax(dim=1))
    return torch.cat(predictions)


def confusion_matrix(predictions, data):
    """How many test images have a label (row) and a prediction (column), int64."""
    num_classes = len(data.classes)
    pairs = num_classes * data.test_labels.cpu() + predictions
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def describe(history, confusion, data):
    """Say in a few sentences what this run's numbers show."""
    last = history[-1]
    chance = 1 / len(data.classes)
    print(
        f"ResNet-18 classifies {percent(last['test_accuracy'], digits=1)} of "
        f"{len(data.test_labels):,} test images correctly (chance: {percent(chance)}), and "
        f"classified {percent(last['accuracy'], digits=1)} of the training images correctly in the "
        "last epoch."
    )
    if last["test_accuracy"] < 2 * chance and math.isfinite(last["loss"]):
        print("That is low: try more --epochs, or more --train-images (at most 50,000).")
    label, prediction, share = most_confused(confusion)
    if share > 0:
        print(
            f"What it confuses most: {percent(share, digits=1)} of the images of the class "
            f"{data.classes[label]} are classified as {data.classes[prediction]}."
        )


def shares_of_labels(confusion):
    """For each label the share of its images that has each prediction, from 0 to 1."""
    counts = confusion.sum(dim=1, keepdim=True)
    return confusion / counts.clamp(min=1)


def most_confused(confusion):
    """The mistake with the largest share of a class's images: (label, prediction, share)."""
    shares = shares_of_labels(confusion)
    shares.fill_diagonal_(0)
    label, prediction = divmod(shares.argmax().item(), len(shares))
    return label, prediction, shares[label, prediction].item()


def draw_figure(history, confusion, predictions, data):
    """Loss, accuracy and confusion matrix, above ten test images with their predictions."""
    figure = new_figure(15, 7.2)
    panels, examples = figure.subfigures(2, 1, height_ratios=[3, 1])
    loss_axes, accuracy_axes, confusion_axes = panels.subplots(1, 3)
    draw_loss(loss_axes, history, guessing_loss=math.log(len(data.classes)))
    draw_accuracy(accuracy_axes, history, chance=1 / len(data.classes))
    draw_confusion(confusion_axes, confusion, data.classes)
    draw_examples(examples, predictions, data)
    figure.suptitle(
        f"ResNet-18 classifies {percent(history[-1]['test_accuracy'], digits=1)} of "
        f"{len(predictions):,} test images correctly ({data.name})"
    )
    return figure


def draw_loss(axes, history, guessing_loss):
    """Training loss by epoch, and that of guessing."""
    epochs = [row["epoch"] for row in history]
    losses = [row["loss"] for row in history]
    guessing = [guessing_loss] * len(history)
    axes.plot(epochs, losses, "o-", color=BLUE)
    axes.plot(epochs, guessing, ":", color=GREY)
    label_curve(axes, f"guessing, {guessing_loss:.2f}", epochs[-1], guessing_loss, GREY)
    axes.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, None))
    axes.locator_params("x", integer=True)


def draw_accuracy(axes, history, chance):
    """Training and test accuracy by epoch."""
    epochs = [row["epoch"] for row in history]
    curves = {
        "training": [100 * row["accuracy"] for row in history],
        "test": [100 * row["test_accuracy"] for row in history],
        "chance": [100 * chance] * len(history),
    }
    colours = {"training": BLUE, "test": VERMILION, "chance": GREY}
    ends = {name: values[-1] for name, values in curves.items()}
    heights = spread_labels(ends, distance=6)
    for name, values in curves.items():
        style = ":" if name == "chance" else "o-"
        axes.plot(epochs, values, style, color=colours[name])
        label = f"{name}, {ends[name]:.1f} %"
        label_curve(axes, label, epochs[-1], heights[name], colours[name])
    axes.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
    axes.locator_params("x", integer=True)


def draw_confusion(axes, confusion, classes):
    """The share of each class's test images that is given each prediction, in per cent.

    The title names the most frequent mistake, if there is one.
    """
    percentages = 100 * shares_of_labels(confusion)
    axes.imshow(percentages.numpy(), cmap="Blues", vmin=0, vmax=100)
    for label, row in enumerate(percentages.tolist()):
        for prediction, value in enumerate(row):
            if value >= 0.5:
                colour = "white" if value > 50 else "black"
                axes.text(prediction, label, f"{value:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.spines[:].set_visible(False)
    finding = "no mistakes"
    label, prediction, share = most_confused(confusion)
    if share > 0:
        finding = f"{classes[label]} classified as {classes[prediction]}: {percent(share)}"
    axes.set(
        xlabel="prediction",
        ylabel="label",
        title=f"{finding}\n(% of each label's test images)",
    )


def draw_examples(figure, predictions, data):
    """Ten test images: five classified correctly and five incorrectly, if there are as many."""
    labels = data.test_labels.cpu()
    correct = (predictions == labels).nonzero()[:, 0]
    incorrect = (predictions != labels).nonzero()[:, 0]
    incorrect = incorrect[: max(5, 10 - len(correct))]
    correct = correct[: 10 - len(incorrect)]
    shown = torch.cat([correct, incorrect]).tolist()
    for axes, i in zip(figure.subplots(1, 10), shown):
        axes.imshow(data.test_images[i].permute(1, 2, 0).cpu().numpy())
        label = data.classes[labels[i]]
        prediction = data.classes[predictions[i]]
        if prediction == label:
            axes.set_xlabel(f"✓ {label}", color=BLUE, fontsize=11)
        else:
            axes.set_xlabel(f"✗ {prediction}\n(is: {label})", color=VERMILION, fontsize=11)
        axes.set(xticks=[], yticks=[], frame_on=False)


# %% Given: the same in every file that uses it


# Colours that colour-blind eyes can tell apart (Okabe and Ito, 2008).
BLUE = "#0072B2"
VERMILION = "#D55E00"
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
    main(run, EXERCISE, BUDGETS, add_flags)
