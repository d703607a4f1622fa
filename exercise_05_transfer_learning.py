# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 5: fine-tune a pretrained ResNet on your own images.

Goal: transfer a trained network to other images in four ways, with few and with many labelled
examples, and see which way is the most accurate when. Then adapt a network to a distribution shift
without a single label.
Papers: Yosinski et al., 2014 (arXiv:1411.1792); Li et al., 2016 (arXiv:1603.04779), section 3;
He et al., 2015 (arXiv:1512.03385), section 4.3 and appendix A.

    5.1  replace_head       a new last layer for other classes
    5.2  freeze_backbone    no gradients, and no drift of batch norm's statistics
    5.3  extract_features   what the frozen network computes from images
         linear_probe       and a linear classifier on top of it
    5.4  parameter_groups   smaller learning rates for earlier stages
    5.5  adapt_batchnorm    domain adaptation without labels

Check:  pytest tests/test_exercise_05_transfer_learning.py
Run:    python exercise_05_transfer_learning.py    (--help lists the flags; --dry-run takes seconds)
        python exercise_05_transfer_learning.py --images DIR --weights imagenet
                                                   (your own images: DIR has a folder per class)
"""

import argparse
import contextlib
import copy
import errno
import functools
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import random
import re
import shutil
import socket
import ssl
import statistics
import sys
import textwrap
import time
import unicodedata
from collections import Counter
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
    import torchvision.transforms.functional as TF
    from matplotlib import rcdefaults, rcParams
    from matplotlib.figure import Figure
    from PIL import Image, ImageOps
    from torch import nn
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.folder import IMG_EXTENSIONS
    from torchvision.models import ResNet18_Weights
    from torchvision.models.resnet import BasicBlock, resnet18
    from tqdm import tqdm
except (ImportError, AttributeError) as error:
    sys.exit(
        f"{error}. Install what is missing, or activate the environment that has it. A file or "
        "folder of yours with the name of a package hides the package: rename it."
    )

EXERCISE = "exercise_05_transfer_learning"
# epochs, batch_size and train_images are those of pretraining. With CIFAR-10, the target's labelled
# images are other classes of the same train_images.
BUDGETS = {
    # On a CPU the images are averaged down to 16x16, and the networks are a quarter as wide.
    "cpu": {
        "epochs": 8,
        "train_images": 2_400,
        "test_images": 600,
        "batch_size": 64,
        "size": 16,  # height and width of the images
        "width": 16,  # channels of the first stage
    },
    "gpu": {
        "epochs": 15,
        "train_images": 20_000,
        "test_images": 5_000,
        "batch_size": 128,
        "size": 32,
        "width": 64,
    },
}
LABELS_PER_CLASS = (2, 5, 20, 100)
MOST_OWN_IMAGES = 5_000  # to train on, with many classes: 0.8 GB at 224x224
STRATEGIES = ("from scratch", "linear probe", "last stage", "all layers")
PRETRAINING_RATE_PER_IMAGE = 0.1 / 128  # SGD's, as in exercise 1
WEIGHT_DECAY = 5e-4  # SGD's: common for CIFAR-10; the paper has 1e-4
FINE_TUNING_RATE = 0.002  # AdamW's
RATE_FACTOR = 0.6  # a stage's learning rate over that of the stage after it
FINE_TUNING_BATCH_SIZE = 32
ADAPTATION_IMAGES = 1_000  # unlabelled ones to adapt to; at most as many to test on
TRAIN_FOLDERS = ("train", "training", "trainset", "trainimages")  # in lower case
TEST_FOLDERS = ("test", "testing", "testset", "testimages", "val", "valid", "validation")
SYSTEM_FOLDERS = (
    "__MACOSX",
    "__pycache__",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)
TEST_SHARE = 0.3  # of your images, where you have no folder of test images
STEPS = {"cpu": 200, "gpu": 400}  # of each fine-tuning, the same for every strategy
SLOW_STEPS = 40  # with large images, without a CUDA GPU
SEEDS = 5  # with how many seeds each transfer is made
FEW_TEST_IMAGES = 100
NOTABLE_POINTS = 5  # a gain or loss by adaptation that is worth a word


def add_flags(add):
    """The flags that only this exercise has."""
    add(
        "--images",
        type=expanded_path,
        metavar="DIR",
        help="your images: a folder per class, or DIR/train and DIR/test (or val) with them",
    )
    add(
        "--weights",
        type=os.path.expanduser,
        metavar="W",
        help="imagenet (torchvision's ResNet-18, downloaded once), or a file with a state_dict of "
        "it or of this script's network; default: pretrain here",
    )
    add(
        "--steps",
        type=whole_number(1, 100_000),
        metavar="N",
        help="of each fine-tuning (default on a CPU: 200; large images: 40)",
    )
    add(
        "--seeds",
        type=whole_number(1, 100),
        metavar="N",
        help="with how many seeds each transfer is made (default: 5; large images without CUDA: 1)",
    )


# %% Your part
# A model has the parts of a torchvision ResNet, in this order: conv1 and bn1, layer1 to layer4,
# avgpool, and fc, the head. It takes normalised images (count, 3, height, width).


def replace_head(model, num_classes):
    """Give the model, in place, a new last layer fc for num_classes classes. Returns the model.

    The new layer is an nn.Linear with a bias, and not a lazy layer. It takes as many features as
    the old one, lies on the model's device, and starts from torch's own initialisation, even if the
    old one had as many classes. All else stays as it was.
    """
    # TODO 5.1: put a linear layer in the place of model.fc.
    raise NotImplementedError("TODO 5.1: replace_head")


def freeze_backbone(model):
    """Freeze, in place, everything but model.fc. Returns the model.

    Afterwards the parameters of fc require gradients, and no others do. Batch norms behave as in
    eval mode from now on, even after model.train(), and even if a stage's parameters are trained
    again later: they use their running statistics, and no buffer of theirs changes (He et al. fix
    them too when they fine-tune, appendix A). The model keeps all parameters and buffers, with
    their values. A second call is allowed.
    """

    # TODO 5.2: gradients for the parameters of fc only; batch norms that stay in eval mode, even
    # after model.train().
    raise NotImplementedError("TODO 5.2: freeze_backbone")


def extract_features(model, batches):
    """What reaches fc: (features, labels), in the order of the batches.

    batches yields (images, labels), the images normalised; it may be an iterator. Returns features,
    float32 (count, fc.in_features), on the model's device, and labels, int64 (count,), on the
    device that they came on.
    The model runs in eval mode and without gradients, but not in torch.inference_mode, so that a
    layer can be trained on the features. All else stays as it was: the model, its hooks, each
    module's own mode, torch's random state.
    """
    # TODO 5.3: catch the input of fc with a forward pre-hook, batch by batch.
    raise NotImplementedError("TODO 5.3: extract_features")


def linear_probe(features, labels, num_classes, penalty=1e-3):
    """A linear layer, trained on features (count, width) and labels (count,).

    It takes features and returns logits: an nn.Linear with a bias, on the features' device. Its
    loss is the mean cross-entropy over all images (nats) plus penalty times the sum of the squared
    weights, without the bias. This loss is convex, and has a minimum if each class has an image:
    any optimizer that comes near the minimum will do. The features stay as they were.
    """
    # TODO 5.3: make the layer and fit it to all features at once, for instance by
    # torch.optim.LBFGS, with more iterations than it does by default.
    raise NotImplementedError("TODO 5.3: linear_probe")


def parameter_groups(model, lr, factor):
    """Groups for an optimizer: the nearer a part is to the input, the lower its learning rate.

    Returns a list of dicts with "params" and "lr". The parts, from the head backwards: fc, layer4,
    layer3, layer2, layer1, and the stem, which is conv1 and bn1. fc learns at lr, each other part
    at factor times the rate of the part before it in this list: layer4 at lr * factor, the stem at
    lr * factor**5. Every parameter, frozen or not, is in exactly one group; a part may
    have several groups, and their order is free. The model stays as it was. (Howard and Ruder,
    2018, arXiv:1801.06146, section 3.2, call these rates discriminative.)
    """
    # TODO 5.4: go through the parts from the head backwards.
    raise NotImplementedError("TODO 5.4: parameter_groups")


def adapt_batchnorm(model, batches):
    """Replace, in place, the running statistics of all batch norms by those of batches (AdaBN).

    After Li et al., section 3. batches yields normalised images (count, 3, height, width) of the
    new domain, no labels; it may be an iterator. Each new statistic is the plain mean of the
    batches' own: a batch norm in train mode computes it if its momentum is None. Batch norms that
    freeze_backbone has frozen are adapted, too, and stay frozen. All else stays as it was, each
    momentum and each module's own mode included; num_batches_tracked may count these batches or
    not. Returns the model.
    """
    # TODO 5.5: reset the statistics; with the batch norms in train mode, run all batches and take
    # their plain mean, not a moving average; put everything else back.
    raise NotImplementedError("TODO 5.5: adapt_batchnorm")


# %% The experiment


def run(args):
    """Get a pretrained network, transfer it in four ways, and adapt a network to shifted images.

    The network is pretrained here on the source, or comes from --weights. The target, to which it
    is transferred, comes from the same images as the source, or from --images. The network that is
    adapted is the pretrained one; with --weights, one that was fine-tuned on the target.
    """
    network = None
    if args.weights is not None:
        network = load_weights(args.weights)
        args.epochs = 0  # nothing is pretrained
    # A small network from a file, too, takes images that are normalised as the source's.
    needs_source = network is None or is_small(network)
    if needs_source or not args.images:
        data = load_data(args)
    if needs_source:
        source = make_source(args, data)
        image_format = ImageFormat(args.size, args.size, source.mean, source.deviation)
    else:
        image_format = imagenet_format(args.device)
    if args.images:
        target = read_folders(args, image_format)
    else:
        target = make_target(args, data, image_format)
    print_target(args, target, image_format)
    labels_per_class = choose_labels_per_class(args, target)
    if network is None:
        network = pretrain(args, source)
    elif needs_source:
        print_source_accuracy(args, network, source)
    network.to(args.device)
    set_seeds_and_steps(args, image_format)
    accuracies, fine_tuned = compare_strategies(args, network, target, labels_per_class)
    if args.weights is None:
        model = network
        domain = source  # whose images it knows
    else:
        model = fine_tuned
        domain = target
    accuracy_by_shift = adapt_to_shifts(model, domain, args.seed)
    samples = sample_shifts(domain, args.seed)
    if args.weights is None and source.name == "shapes" and not args.images:
        accuracy_by_shift["outlines"] = adapt_to_outlines(network, source, target)
        samples["outlines"] = target.test_images[0]
    numbers = {
        "labels_per_class": labels_per_class,
        "accuracy": accuracies,
        "before_and_after_adaptation": accuracy_by_shift,
        "classes": target.classes,
    }
    save_numbers(args, numbers)
    with printed_unless_dry_run(args):
        describe_transfer(labels_per_class, accuracies, target)
        describe_adaptation(accuracy_by_shift, domain)
        describe_test_set(target)
    figure = draw_figure(labels_per_class, accuracies, accuracy_by_shift, samples, target, domain)
    save_figure(args, figure)


# The data


@dataclass
class ImageFormat:
    """The images that a network takes: their size and normalisation."""

    size: int  # height and width, in pixels
    resize: int  # length of the shorter side before the crop to size, in pixels
    mean: torch.Tensor  # of each channel (1, 3, 1, 1), for values from 0 to 255
    deviation: torch.Tensor


def imagenet_format(device):
    """The format that torchvision's ResNet-18 takes."""
    transforms = ResNet18_Weights.IMAGENET1K_V1.transforms()
    mean = 255 * torch.tensor(transforms.mean, device=device)
    deviation = 255 * torch.tensor(transforms.std, device=device)
    return ImageFormat(
        size=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        mean=mean.view(1, 3, 1, 1),
        deviation=deviation.view(1, 3, 1, 1),
    )


def print_target(args, target, image_format):
    """Say what the network is transferred to."""
    print(
        f"Target: {target.name}, {len(target.train_labels):,} training images, "
        f"{len(target.test_labels):,} test images of {len(target.classes)} classes, "
        f"{image_format.size} px, on {args.device}"
    )
    if args.images:
        print(f"Classes: {textwrap.shorten(', '.join(target.classes), 300, placeholder=' ...')}")


def make_data(args, name, classes, train_set, test_set, mean, deviation):
    """Image data on args.device from two pairs (images, labels)."""
    train_images, train_labels = train_set
    test_images, test_labels = test_set
    return ImageData(
        name=name,
        classes=list(classes),
        train_images=train_images.to(args.device),
        train_labels=train_labels.to(args.device),
        test_images=test_images.to(args.device),
        test_labels=test_labels.to(args.device),
        mean=mean,
        deviation=deviation,
    )


def make_source(args, data):
    """The data to pretrain on: shapes, or the first five classes of CIFAR-10."""
    if data.name == "shapes":
        name = "shapes"
        classes = range(10)
    else:
        name = "CIFAR-10's first five classes"
        classes = range(5)
    return make_data(
        args,
        name,
        [data.classes[label] for label in classes],
        take_classes(data.train_images, data.train_labels, classes, args.size),
        take_classes(data.test_images, data.test_labels, classes, args.size),
        data.mean,
        data.deviation,
    )


def make_target(args, data, image_format):
    """The data to transfer to: outlines of shapes, or the last five classes of CIFAR-10."""
    if data.name == "shapes":
        # Labels are drawn at random: of twice as many images there are enough of every class.
        train_count = 2 * LABELS_PER_CLASS[-1] * len(data.classes)
        if args.dry_run:
            train_count = 20  # with this seed every class is among them
        name = "outlines of shapes"
        classes = range(10)
        train_set = draw_shapes(train_count, seed=2, style="outline")
        test_set = draw_shapes(args.test_images, seed=3, style="outline")
    else:
        name = "CIFAR-10's other classes"
        classes = range(5, 10)
        train_set = (data.train_images, data.train_labels)
        test_set = (data.test_images, data.test_labels)
    return make_data(
        args,
        name,
        [data.classes[label] for label in classes],
        take_classes(*train_set, classes, image_format.size),
        take_classes(*test_set, classes, image_format.size),
        image_format.mean,
        image_format.deviation,
    )


def take_classes(images, labels, classes, size):
    """The images of a range of classes, size x size, and their labels, counted from 0."""
    wanted = (labels >= classes.start) & (labels < classes.stop)
    return scale(images[wanted], size), labels[wanted] - classes.start


def scale(images, size):
    """uint8 images at another size: averaged down, or enlarged by interpolation."""
    mode = "area" if size <= images.shape[2] else "bilinear"
    scaled = [
        F.interpolate(part.float(), size, mode=mode).round().to(torch.uint8)
        for part in images.split(500)
    ]
    return torch.cat(scaled)


def image_batches(images, data):
    """uint8 images, normalised, batch by batch; large images in smaller batches."""
    size = 500 if images.shape[2] <= 64 else 50
    # Equally large batches, for adapt_batchnorm gives each the same weight.
    for part in images.tensor_split(math.ceil(len(images) / size)):
        yield normalise(part, data)


def labelled_batches(images, labels, data):
    """uint8 images with their labels: (normalised images, labels), batch by batch."""
    position = 0
    for batch in image_batches(images, data):
        end = position + len(batch)
        yield batch, labels[position:end]
        position = end


# The pretrained network


class SmallResNet(nn.Module):
    """A ResNet of 10 layers, one block per stage, with torchvision's names and a small stem.

    Takes (batch, 3, height, width), any height and width. Returns logits (batch, num_classes).
    """

    def __init__(self, num_classes, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self.make_stage(width, width, stride=1)
        self.layer2 = self.make_stage(width, 2 * width, stride=2)
        self.layer3 = self.make_stage(2 * width, 4 * width, stride=2)
        self.layer4 = self.make_stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, num_classes)

    @staticmethod
    def make_stage(in_channels, channels, stride):
        """One of torchvision's basic blocks."""
        shortcut = make_shortcut(in_channels, channels, stride)
        return nn.Sequential(BasicBlock(in_channels, channels, stride, shortcut))

    def forward(self, images):
        """Images in, logits out."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def is_small(network):
    """Whether a network has this script's small stem, or else torchvision's."""
    return network.conv1.kernel_size == (3, 3)


def pretrain(args, source):
    """A small ResNet trained on the source. Its weights go to OUT/exercise_05_source.pt."""
    if len(source.train_labels) == 0:
        sys.exit("No training image is of the classes to pretrain on: raise --train-images")
    torch.manual_seed(args.seed)
    network = SmallResNet(len(source.classes), args.width)
    network.apply(initialise).to(args.device)
    rate = PRETRAINING_RATE_PER_IMAGE * args.batch_size
    optimizer = make_sgd(network, rate, WEIGHT_DECAY)
    schedule = one_cycle(optimizer, args.epochs * count_steps(source, args.batch_size))
    train(
        network,
        source,
        optimizer,
        schedule,
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        label="pretraining",
    )
    test_accuracy = accuracy(network, test_batches(source))
    with printed_unless_dry_run(args):
        print(
            f"Pretrained on {source.name}, with a test accuracy of "
            f"{percent(test_accuracy, digits=1)} there"
        )
    with written_whole(args.out / f"{args.exercise}_source.pt") as path:
        save_tensors(network.state_dict(), path)
    return network


def print_source_accuracy(args, network, source):
    """Say how well a network from a file does on the source, if it has as many classes."""
    if network.fc.out_features != len(source.classes):
        return
    source_accuracy = accuracy(network.to(args.device), test_batches(source))
    with printed_unless_dry_run(args):
        print(
            f"With {args.weights}, the test accuracy on {source.name} is "
            f"{percent(source_accuracy, digits=1)}"
        )


# Transfer


def set_seeds_and_steps(args, image_format):
    """Set args.seeds and args.steps where no flag has: fewer for large images without CUDA."""
    has_cuda = args.device.type == "cuda"
    seeds = SEEDS
    steps = STEPS["gpu" if has_cuda else "cpu"]
    if args.dry_run:
        args.seeds = 1
        args.steps = 1
    elif image_format.size > 64 and not has_cuda:
        seeds = 1
        steps = SLOW_STEPS
        fewer = []
        if args.seeds is None:
            fewer.append(f"--seeds {seeds}")
        if args.steps is None:
            fewer.append(f"--steps {steps}")
        if fewer:
            print(
                "Images of this size take long without a CUDA GPU, so this run has "
                f"{' and '.join(fewer)}. With few seeds a small difference may be luck, and few "
                "steps may favour the linear probe, which takes none."
            )
    args.seeds = args.seeds or seeds
    args.steps = args.steps or steps


def choose_labels_per_class(args, target):
    """The numbers of labelled examples per class to try: those that every class has."""
    counts = target.train_labels.bincount(minlength=len(target.classes)).tolist()
    fewest = min(counts)
    rarest = target.classes[counts.index(fewest)]
    if fewest == 0:
        sys.exit(f"No training image is of the class {rarest}: raise --train-images")
    if args.dry_run:
        return [1]
    most = min(LABELS_PER_CLASS[-1], fewest)
    if most < LABELS_PER_CLASS[-1]:
        print(f"At most {per_class(most)}: no more images of the class {rarest} were read")
    # The usual numbers, but those that are nearly as large as the largest.
    fewer = [count for count in LABELS_PER_CLASS if count < most / 1.2]
    return [*fewer, most]


def compare_strategies(args, network, target, labels_per_class):
    """Transfer the network by every strategy, with every number of labels and every seed.

    Returns the test accuracies (0 to 1), {strategy: [[one per seed] per number of labels]}, and the
    last network of which all layers were fine-tuned, the one that had the most labels.
    """
    seeds = range(args.seed, args.seed + args.seeds)
    accuracies = {strategy: [] for strategy in STRATEGIES}
    total = len(labels_per_class) * len(STRATEGIES) * len(seeds)
    with tqdm(total=total, desc="transfer", unit="model") as bar:
        for count, strategy in itertools.product(labels_per_class, STRATEGIES):
            accuracy_per_seed = []
            for seed in seeds:
                model = transfer(strategy, network, target, count, seed, args.steps)
                batches = labelled_batches(target.test_images, target.test_labels, target)
                accuracy_per_seed.append(accuracy(model, batches))
                bar.update()
            accuracies[strategy].append(accuracy_per_seed)
            if strategy == "all layers":
                fine_tuned = model
    return accuracies, fine_tuned


def transfer(strategy, network, target, count, seed, steps):
    """A copy of the network, transferred to the target with count labelled examples per class.

    The linear probe gets these images as they are, the other strategies augmented ones.
    """
    torch.manual_seed(seed)
    model = replace_head(copy.deepcopy(network), len(target.classes))
    # Drawn before all that depends on the strategy: a seed gives all strategies the same ones.
    chosen = choose_examples(target, count)
    images = target.train_images[chosen]
    labels = target.train_labels[chosen]
    if strategy == "linear probe":
        features, labels = extract_features(model, labelled_batches(images, labels, target))
        model.fc = linear_probe(features, labels, len(target.classes))
        return model
    if strategy == "from scratch":
        model.apply(reset)
        model.apply(initialise)
        groups = [{"params": list(model.parameters()), "lr": FINE_TUNING_RATE}]
    else:
        # What is thawed again still keeps its batch norm statistics, as in the paper's appendix A.
        freeze_backbone(model)
        thawed = model.layer4 if strategy == "last stage" else model
        thawed.requires_grad_(True)
        groups = parameter_groups(model, FINE_TUNING_RATE, RATE_FACTOR)
    fine_tune(model, images, labels, target, groups, steps)
    return model


def choose_examples(data, count):
    """The positions of count random training images per class, int64, class by class."""
    order = torch.randperm(len(data.train_labels))
    labels = data.train_labels.cpu()[order]
    chosen = []
    for label in range(len(data.classes)):
        positions = order[labels == label]
        chosen.append(positions[:count])
    return torch.cat(chosen).to(data.train_labels.device)


def reset(module):
    """Initialise a module anew, if it has parameters of its own."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


def fine_tune(model, images, labels, data, groups, steps):
    """Train the model in place for so many steps of AdamW, on augmented uint8 images.

    The learning rate of each group rises to its "lr" and falls again.
    """
    device = images.device
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=device.type != "mps")
    schedule = one_cycle(optimizer, steps + 1)  # so that the last step still learns
    epochs = math.ceil(steps * FINE_TUNING_BATCH_SIZE / len(images))
    order = torch.cat([torch.randperm(len(images)) for _ in range(epochs)])
    places = 2 * (images.shape[2] // 8) + 1  # at which an image can be cropped
    model.to(memory_format=memory_format(device))
    model.train()
    for batch in order.to(device).split(FINE_TUNING_BATCH_SIZE)[:steps]:
        corner = torch.randint(places, (len(batch), 2)).to(device)
        flip = torch.randint(2, (len(batch),)).to(device).bool()
        augmented = augment(images[batch], corner, flip)
        with autocast(device):
            logits = model(normalise(augmented, data))
        loss = F.cross_entropy(logits.float(), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


# Domain adaptation


def blur(images):
    """The mean over 3x3 pixels."""
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def orange_light(images):
    """Less green, and still less blue."""
    brightness = torch.tensor([1, 0.6, 0.3], device=images.device)
    return images * brightness.view(1, 3, 1, 1)


# Each shift is a function of images (count, 3, height, width) with values from 0 to 255, and of
# noise of the same shape with mean 0 and standard deviation 1.
SHIFTS = {
    "unchanged": lambda images, noise: images,
    "noise": lambda images, noise: images + 30 * noise,
    "blur": lambda images, noise: blur(images),
    "dark": lambda images, noise: 0.35 * images,
    "haze": lambda images, noise: 128 + 0.5 * images,
    "low contrast": lambda images, noise: 128 + 0.3 * (images - 128),
    "orange light": lambda images, noise: orange_light(images),
}


def adapt_to_shifts(model, data, seed):
    """What AdaBN, on shifted training images, does to the accuracy on shifted test images.

    Returns {shift: [accuracy before, accuracy after]}, from 0 to 1. The model is left in eval mode,
    and else as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    train_images = data.train_images[:ADAPTATION_IMAGES]
    test_images = data.test_images[:ADAPTATION_IMAGES]
    test_labels = data.test_labels[:ADAPTATION_IMAGES]
    accuracy_by_shift = {}
    for name, shift in tqdm(SHIFTS.items(), desc="domain adaptation", unit="shift"):
        unlabelled = apply_shift(shift, train_images, generator)
        shifted = apply_shift(shift, test_images, generator)
        accuracy_by_shift[name] = adapt(model, data, unlabelled, shifted, test_labels)
    return accuracy_by_shift


def sample_shifts(data, seed):
    """The first test image under each shift: {shift: uint8 (3, height, width)}."""
    generator = torch.Generator().manual_seed(seed)
    samples = {}
    for name, shift in SHIFTS.items():
        samples[name] = apply_shift(shift, data.test_images[:1], generator)[0]
    return samples


def adapt_to_outlines(model, source, target):
    """The accuracy on outlines of a model trained on filled shapes, before and after AdaBN."""
    return adapt(
        model,
        source,
        target.train_images[:ADAPTATION_IMAGES],
        target.test_images[:ADAPTATION_IMAGES],
        target.test_labels[:ADAPTATION_IMAGES],
    )


def apply_shift(shift, images, generator):
    """uint8 images, shifted.

    Each shift draws noise, even if it uses none, so that no shift's noise depends on the others.
    """
    shifted = []
    for part in images.split(100):  # as floats, all at once may be too large
        noise = torch.randn(part.shape, generator=generator).to(part.device)
        shifted.append(shift(part.float(), noise).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(shifted)


def adapt(model, data, unlabelled, images, labels):
    """Accuracy on images before and after AdaBN on unlabelled images: [before, after].

    All images are uint8, and normalised as data says. The model is left in eval mode, and else as
    it was.
    """
    adapted = adapt_batchnorm(copy.deepcopy(model), image_batches(unlabelled, data))
    before = accuracy(model, labelled_batches(images, labels, data))
    after = accuracy(adapted, labelled_batches(images, labels, data))
    return [before, after]


# What the numbers show


def mean_accuracies(accuracies, index):
    """The mean accuracy over the seeds, {strategy: 0 to 1}.

    Here and below, index says for which of the numbers of labels per class.
    """
    return {
        strategy: statistics.fmean(by_count[index]) for strategy, by_count in accuracies.items()
    }


def count_seeds(accuracies):
    """With how many seeds each strategy was tried."""
    return len(accuracies["from scratch"][0])


def lead(accuracies, index, target, leader, follower):
    """How far a strategy is ahead of another one: (mean, standard error), in percentage points.

    Both are of the differences seed by seed, since one seed gives all strategies the same labelled
    images. The standard error is NaN for one seed.
    """
    pairs = zip(accuracies[leader][index], accuracies[follower][index])
    differences = [100 * (first - second) for first, second in pairs]
    resolution = 100 / len(target.test_labels)
    return statistics.fmean(differences), standard_error(differences, resolution)


def clearly_behind(accuracies, index, target):
    """The strategies that are clearly behind another one, and by how much behind the furthest.

    Returns {strategy: (mean, standard error, the one that is furthest ahead)}; see lead.
    """
    behind = {}
    for follower in accuracies:
        clear_leads = []
        for leader in accuracies:
            mean, error = lead(accuracies, index, target, leader, follower)
            if mean > 0 and is_clear(mean, error):
                clear_leads.append((mean, error, leader))
        if clear_leads:
            behind[follower] = max(clear_leads)
    return behind


def most_accurate(accuracies, index, target):
    """The strategies that no other one is clearly ahead of, the one with the best mean first."""
    behind = clearly_behind(accuracies, index, target)
    means = mean_accuracies(accuracies, index)
    level = [strategy for strategy in means if strategy not in behind]
    return sorted(level, key=means.get, reverse=True)


def gain(before_and_after):
    """What adaptation adds to an accuracy, in percentage points, rounded to one decimal."""
    before, after = before_and_after
    return round(100 * (after - before), 1)


def per_class(count):
    """So many labels per class, in words."""
    return "1 label per class" if count == 1 else f"{count} labels per class"


def describe_transfer(labels_per_class, accuracies, target):
    """Print the table of accuracies, and say which strategies are clearly behind another one."""
    print("labels per class" + "".join(f"{strategy:>14}" for strategy in accuracies))
    for index, count in enumerate(labels_per_class):
        means = mean_accuracies(accuracies, index)
        print(f"{count:16}" + "".join(f"{percent(mean, digits=1):>14}" for mean in means.values()))
    seeds = count_seeds(accuracies)
    if seeds == 1:
        print("One seed cannot tell a difference from luck.")
        return
    for index, count in enumerate(labels_per_class):
        leaders = most_accurate(accuracies, index, target)
        print(f"With {per_class(count)}, the most accurate: {' or '.join(leaders)}.")
        behind = clearly_behind(accuracies, index, target)
        for strategy, (mean, error, leader) in behind.items():
            print(f"    {strategy}: {mean:.1f} ± {error:.1f} points behind {leader}")
    comparisons = len(labels_per_class) * math.comb(len(accuracies), 2)
    print(
        f"(Listed as behind: by more than {STANDARD_ERRORS} standard errors. Between equally good "
        f"strategies luck does that in {chance_of_luck(seeds)}. Here are {comparisons}: "
        f"{len(accuracies)} strategies, two by two, with each number of labels.)"
    )


def describe_test_set(target):
    """Warn of a test set in which a few images make a difference."""
    count = len(target.test_labels)
    if count < FEW_TEST_IMAGES:
        print(
            f"With {count} test images, one image is {100 / count:.1f} points: most differences "
            "may be luck."
        )


def describe_adaptation(accuracy_by_shift, domain):
    """Say on which shifts AdaBN helps, and on which it does not."""
    helped = []
    unmoved = []
    harmed = []
    for shift, before_and_after in accuracy_by_shift.items():
        points = gain(before_and_after)
        text = f"{shift} ({points:+.1f})"
        if points >= NOTABLE_POINTS:
            helped.append(text)
        elif points <= -NOTABLE_POINTS:
            harmed.append(text)
        else:
            unmoved.append(text)
    notable = f"{NOTABLE_POINTS} points"
    print(f"A network for {domain.name}, adapted by AdaBN to shifted images:")
    if helped:
        print(f"    It gains {notable} or more on: {', '.join(helped)}.")
    if unmoved:
        print(f"    It changes by less than {notable} on: {', '.join(unmoved)}.")
    if harmed:
        print(f"    It loses {notable} or more on: {', '.join(harmed)}.")


# The figure


def draw_figure(labels_per_class, accuracies, accuracy_by_shift, samples, target, domain):
    """Left: accuracy by number of labels for the four strategies. Right: AdaBN on each shift."""
    figure = new_figure(14, 5.6)
    axes = figure.subplots(1, 3, width_ratios=(1, 0.1, 0.85))
    transfer_axes, sample_axes, adaptation_axes = axes
    draw_transfer(transfer_axes, labels_per_class, accuracies, target)
    draw_adaptation(adaptation_axes, accuracy_by_shift, domain)
    draw_samples(sample_axes, samples, adaptation_axes.get_ylim())
    return figure


def draw_transfer(axes, labels_per_class, accuracies, target):
    """Test accuracy by labelled examples per class: mean and range over the seeds."""
    colours = dict(zip(STRATEGIES, (PURPLE, GREEN, VERMILION, BLUE)))
    chance = 100 / len(target.classes)
    axes.plot(labels_per_class, [chance] * len(labels_per_class), ":", color=GREY)
    ends = {"chance": chance}
    for strategy, by_count in accuracies.items():
        colour = colours[strategy]
        means = [100 * statistics.fmean(per_seed) for per_seed in by_count]
        lowest = [100 * min(per_seed) for per_seed in by_count]
        highest = [100 * max(per_seed) for per_seed in by_count]
        axes.plot(labels_per_class, means, "o-", color=colour, linewidth=2.5)
        axes.fill_between(labels_per_class, lowest, highest, color=colour, alpha=0.2)
        ends[strategy] = means[-1]
    heights = spread_labels(ends, distance=5.5)
    for strategy, colour in colours.items():
        label_curve(axes, strategy, labels_per_class[-1], heights[strategy], colour)
    chance_label = f"chance, {chance:.2g} %"
    label_curve(axes, chance_label, labels_per_class[-1], heights["chance"], GREY)
    seeds = count_seeds(accuracies)
    band = f" (band: range over {seeds} seeds)" if seeds > 1 else ""
    axes.set(
        xscale="log",
        xlabel=f"labelled examples per class{band}",
        ylabel="test accuracy (%)",
        ylim=(0, 102),
    )
    axes.set_xticks(labels_per_class, labels=[str(count) for count in labels_per_class])
    axes.minorticks_off()
    title = transfer_title(labels_per_class, accuracies, target)
    # A folder's name may have dollar signs, which are no formula here.
    axes.set_title(title, fontsize=12, parse_math=False)


def transfer_title(labels_per_class, accuracies, target):
    """Which strategies are the most accurate with the fewest labels, and which with the most."""
    if count_seeds(accuracies) == 1:
        return f"{target.name}:\none seed cannot tell a difference from luck"
    with_fewest = " or ".join(most_accurate(accuracies, 0, target))
    title = f"most accurate on {target.name}:\n{with_fewest} with {per_class(labels_per_class[0])}"
    if len(labels_per_class) > 1:
        with_most = " or ".join(most_accurate(accuracies, -1, target))
        title += f",\n{with_most} with {labels_per_class[-1]}"
    return title


def draw_adaptation(axes, accuracy_by_shift, domain):
    """For each shift an arrow from the accuracy before AdaBN to the accuracy after it."""
    shifts = list(reversed(accuracy_by_shift))
    for y, shift in enumerate(shifts):
        draw_arrow(axes, y, accuracy_by_shift[shift])
    axes.set_yticks(range(len(shifts)), labels=[])
    axes.set(
        xlabel="test accuracy before (dot) and after AdaBN (%)",
        xlim=(0, 114),  # room for the gains
        ylim=(-0.6, len(shifts) - 0.4),
    )
    shifts.remove("unchanged")
    helped = [shift for shift in shifts if gain(accuracy_by_shift[shift]) >= NOTABLE_POINTS]
    axes.set_title(
        f"AdaBN, without labels, gains {NOTABLE_POINTS} points or more on\n"
        f"{len(helped)} of {len(shifts)} shifts (a network for {domain.name})",
        fontsize=12,
        parse_math=False,
    )


def draw_samples(axes, samples, limits):
    """A test image under each shift, beside its name; limits are those of the y axis."""
    shifts = list(reversed(samples))
    for y, shift in enumerate(shifts):
        image = samples[shift].permute(1, 2, 0).cpu().numpy()
        axes.imshow(image, extent=(-0.45, 0.45, y - 0.45, y + 0.45))
    axes.set_yticks(range(len(shifts)), labels=shifts)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(ylabel="distribution shift", xticks=[], xlim=(-0.5, 0.5), ylim=limits, aspect="auto")


def draw_arrow(axes, y, before_and_after):
    """An arrow at height y between two accuracies, and the gain in percentage points.

    A gain or loss of at most half a point gets no arrow.
    """
    before, after = before_and_after
    points = gain(before_and_after)
    if points > 0.5:
        colour = BLUE
    elif points < -0.5:
        colour = VERMILION
    else:
        colour = GREY
    if colour != GREY:
        arrow = {
            "arrowstyle": "-|>",
            "color": colour,
            "linewidth": 2.5,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate("", (100 * after, y), (100 * before, y), arrowprops=arrow)
    axes.plot(100 * before, y, "o", color=GREY)
    label_curve(axes, f"{points:+.1f}", 100 * max(before, after), y, colour, (9, 0))


# Your own images


def read_folders(args, image_format):
    """Your images: DIR/train and DIR/test, or DIR split class by class; no more than are used.

    Prints what is skipped. Ends the script with one sentence if the folders cannot be used.
    """
    file_filter = FileFilter(args.images, args.out)
    try:
        train_files, test_files = find_files(args, file_filter)
        return read_files(args, image_format, train_files, test_files, file_filter)
    finally:
        file_filter.show_skipped()


def read_files(args, image_format, train_files, test_files, file_filter):
    """The images of find_files, in random order; without test_files some are kept for testing."""
    classes = list(train_files)
    train_limit = min(LABELS_PER_CLASS[-1], max(1, MOST_OWN_IMAGES // len(classes)))
    test_limit = max(1, args.test_images // len(classes))
    if train_limit < LABELS_PER_CLASS[-1]:
        print(f"At most {train_limit} images per class are trained on, {MOST_OWN_IMAGES:,} in all")
    train_set = ImageList()
    test_set = ImageList()
    for label, name in enumerate(classes):
        if test_files:
            train_images = read_images(train_files[name], image_format, train_limit, file_filter)
            test_images = read_images(test_files[name], image_format, test_limit, file_filter)
        else:
            test_count = count_test_images(train_files[name], test_limit)
            limit = train_limit + test_count
            images = read_images(train_files[name], image_format, limit, file_filter)
            if len(images) < limit:  # some may have been skipped
                test_count = count_test_images(images, test_count)
            train_images = images[test_count : test_count + train_limit]
            test_images = images[:test_count]
        if not train_images or not test_images:
            sys.exit(
                f"--images {args.images}: class {name} has too few images that can be read: "
                f"{len(train_images)} to train on and {len(test_images)} to test on. It needs at "
                "least one of each, better twenty"
            )
        train_set.add(train_images, label)
        test_set.add(test_images, label)
    if not test_files:
        print(
            f"Split {args.images} at random, class by class: {percent(TEST_SHARE)} of the images, "
            f"at most {test_limit} per class, are for testing"
        )
    # A name in an old encoding has bytes that are no letters.
    name = args.images.resolve().name.encode(errors="replace").decode()
    # Batch norm's statistics are those of a batch: no batch should hold one class alone.
    train_set = train_set.shuffle(args.seed)
    test_set = test_set.shuffle(args.seed)
    mean, deviation = image_format.mean, image_format.deviation
    return make_data(args, name, classes, train_set, test_set, mean, deviation)


def count_test_images(images, limit):
    """How many of a class's images to keep for testing: TEST_SHARE of them, from 1 to limit."""
    return min(limit, max(1, round(TEST_SHARE * len(images))))


class FileFilter:
    """Which files and folders of yours are read, and how many are skipped, by the reason why."""

    def __init__(self, folder, out):
        images = Path(os.path.realpath(folder))
        out = Path(os.path.realpath(out))
        self.results = {out, out.parent} if out.name == "dry_run" else {out}
        self.seen = {images, *images.parents}  # to which a link may lead back
        self.first_skipped = {}  # {kind of reason: (path, reason)}
        self.skipped = Counter()  # {kind of reason: how many paths}

    def accept(self, path):
        """Whether to read a path. Notes it as read, or counts it as skipped.

        Not if it is hidden, holds this script's results, or was read before, as through a link.
        """
        real_path = Path(os.path.realpath(path))  # Path.resolve may fail at a link to itself
        if is_hidden(path.name):
            self.skip(path, "hidden, or the system's own")
        elif real_path in self.results:
            self.skip(path, "this script writes its results there")
        elif real_path in self.seen:
            self.skip(path, "a link to what is read elsewhere")
        else:
            self.seen.add(real_path)
            return True
        return False

    def skip(self, path, why, kind=None):
        """Count a path; kind stands for reasons that differ in details only."""
        kind = kind or why
        self.first_skipped.setdefault(kind, (path, why))
        self.skipped[kind] += 1

    def show_skipped(self):
        """Print a line for each kind."""
        for kind, (path, why) in self.first_skipped.items():
            others = self.skipped[kind] - 1
            more = f" and {others} more" if others else ""
            print(f"Skipped {path}{more}: {why}")


def is_hidden(name):
    """Whether a file or folder of that name is hidden, or one of the system's own."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


class ImageList:
    """Images of the same shape, and their labels, that come class by class."""

    def __init__(self):
        self.images = []
        self.labels = []

    def add(self, images, label):
        self.images.extend(images)
        self.labels.extend([label] * len(images))

    def shuffle(self, seed):
        """All in random order: images, uint8 (count, 3, height, width), labels, int64 (count,)."""
        order = list(range(len(self.labels)))
        random.Random(seed).shuffle(order)
        images = torch.stack([self.images[position] for position in order])
        return images, torch.tensor(self.labels)[order]


def find_files(args, file_filter):
    """The files of the training set and of the test set, each {class: paths in random order}.

    The latter is None if there is no test folder. Ends the script with one sentence if the folders
    cannot be used.
    """
    class_folders = list_folders(args.images, file_filter)
    by_name = {path.name.lower(): path for path in class_folders}
    train_folders = [by_name[name] for name in TRAIN_FOLDERS if name in by_name]
    test_folders = [by_name[name] for name in TEST_FOLDERS if name in by_name]
    test_files = None
    if train_folders and test_folders:
        train_folder = train_folders[0]
        class_folders = list_folders(train_folder, file_filter)
        stop_if_few(train_folder, class_folders)
        classes = [composed(path.name) for path in class_folders]
        test_class_folders = find_test_folders(train_folder, test_folders, classes, file_filter)
        test_files = list_files(test_class_folders, args.seed, file_filter)
    else:
        stop_if_few(args.images, class_folders)
        stop_if_sets(args.images, class_folders)
    return list_files(class_folders, args.seed, file_filter), test_files


def stop_if_few(folder, class_folders):
    """End the script with one sentence if a folder has less than two folders for classes."""
    if not class_folders:
        sys.exit(
            f"--images {folder}: needs a folder for each class, with that class's images in it"
        )
    first = class_folders[0]
    if len(class_folders) == 1 and len(folders_in(first)) > 1:
        sys.exit(f"--images {folder}: has nothing but one folder; give {first} instead")
    if len(class_folders) == 1:
        sys.exit(
            f"--images {folder}: has one class, {first.name}; a classifier needs two folders or "
            "more"
        )


def stop_if_sets(folder, folders):
    """End the script with one sentence if what should be classes look like sets of images."""
    for path in folders:
        if path.name.lower() in TRAIN_FOLDERS and len(folders_in(path)) > 1:
            sys.exit(
                f"--images {folder}: {path.name} has folders of its own, as training sets have, "
                f"but there is no test beside it; give {path} instead, or name the other one test"
            )
    inside = {path: folders_in(path) for path in folders}
    kind = {path: kind_of_set(path) for path in folders}
    for one, other in itertools.combinations(folders, 2):
        look_alike = len(inside[one]) > 1 and inside[one] == inside[other]
        if look_alike or {kind[one], kind[other]} == {"train", "test"}:
            sys.exit(
                f"--images {folder}: {one.name} and {other.name} look like sets of images; if they "
                "are, give the folder in them that has a folder for each class, or name them train "
                "and test; if they are classes, give them other names, and no folders of their own"
            )


def kind_of_set(folder):
    """Which set a word of a folder's name says it is, as in seg_train: "train", "test" or None."""
    parts = re.findall("[A-Z]?[a-z]+|[A-Z]+", folder.name)  # of trainA: train and A
    words = {part.lower() for part in parts}
    if words & set(TRAIN_FOLDERS):
        return "train"
    if words & set(TEST_FOLDERS):
        return "test"
    return None


def folders_in(folder):
    """The names of the folders in a folder, sorted; none if it cannot be read."""
    _, names, _ = next(os.walk(folder), ("", [], []))
    return sorted(name for name in names if not is_hidden(name))


def find_test_folders(train_folder, candidates, classes, file_filter):
    """The class folders in the first candidate that has the classes of the training set."""
    odd = None
    for candidate in candidates:
        folders = list_folders(candidate, file_filter)
        test_classes = [composed(folder.name) for folder in folders]
        if sorted(test_classes) == sorted(classes):
            print(f"The images to test on are those in {candidate}")
            return folders
        if folders:
            odd = candidate.name, sorted(set(classes) ^ set(test_classes))[0]
    if odd is None:
        sys.exit(
            f"--images {train_folder.parent}: {candidate.name} has no folder for each class; give "
            f"{train_folder} instead, and a part of it is kept for testing"
        )
    sys.exit(
        f"--images {train_folder.parent}: {train_folder.name} and {odd[0]} have different classes: "
        f"only one of them has {odd[1]!r}"
    )


def composed(name):
    """A name in which a letter with an accent is one character: a Mac writes it as two."""
    return unicodedata.normalize("NFC", name)


def list_folders(folder, file_filter):
    """The folders in a folder, by name."""
    try:
        folders = [path for path in folder.iterdir() if path.is_dir()]
    except NotADirectoryError:
        sys.exit(f"--images {folder}: is a file and no folder; unpack an archive first")
    except OSError as error:
        sys.exit(f"--images {folder}: cannot be read ({error.strerror})")
    folders.sort(key=lambda path: path.name)
    return [path for path in folders if file_filter.accept(path)]


def list_files(class_folders, seed, file_filter):
    """The image files of each class in random order: {class: paths}."""
    files = {}
    for folder in class_folders:
        paths = list_images(folder, file_filter)
        random.Random(seed).shuffle(paths)
        files[composed(folder.name)] = paths
    return files


def list_images(class_folder, file_filter):
    """The image files in a folder and in the folders below it."""

    def skip(error):
        file_filter.skip(error.filename, error.strerror)

    images = []
    for root, folders, files in os.walk(class_folder, onerror=skip, followlinks=True):
        below = [Path(root, name) for name in sorted(folders)]
        folders[:] = [path.name for path in below if file_filter.accept(path)]
        for name in sorted(files):
            path = Path(root, name)
            suffix = path.suffix.lower()
            if suffix not in IMG_EXTENSIONS:
                kind = "a number" if suffix[1:].isdecimal() else suffix
                file_filter.skip(path, f"not one of {' '.join(IMG_EXTENSIONS)}", kind)
            elif not os.path.isfile(path):
                file_filter.skip(path, "not a file, or a link to nothing")
            elif file_filter.accept(path):
                images.append(path)
    return images


def read_images(paths, image_format, limit, file_filter):
    """The first images that can be read, at most limit, as a list of uint8 (3, size, size)."""
    images = []
    most = min(limit, len(paths))
    for path in tqdm(paths, "reading images", most, unit="image", leave=False):
        if len(images) == limit:
            break
        try:
            image = read_image(path)
            image = TF.resize(image, image_format.resize, antialias=True)
            image = TF.center_crop(image, image_format.size)
            images.append(TF.pil_to_tensor(image))
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises many kinds
            file_filter.skip(path, first_line(error), type(error))
    return images


def read_image(path):
    """An image file as an RGB image, turned as the camera was held; white where transparent.

    Values of more than 8 bits are scaled: the image's lowest becomes 0, its highest 255.
    """
    with Image.open(path) as image:
        image.load()
        with contextlib.suppress(Exception):  # a file may say nonsense of how the camera was held
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            image = image.convert("F")
            low, high = image.getextrema()
            if not torch.isfinite(TF.pil_to_tensor(image)).all():
                raise ValueError("it has values that are NaN or infinite")
            factor = 255 / ((high - low) or 1)
            image = image.point(lambda value: value * factor - low * factor)
        elif "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
            image = image.convert("RGBA")
            paper = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(paper, image).convert("RGB")
        return image.convert("RGB")


def first_line(error):
    """The first line of an error's message, or the error's type if it has no message."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


# Weights from elsewhere


def load_weights(name):
    """The network with the weights that --weights names.

    That is torchvision's ResNet-18 with its ImageNet weights, or the network whose state_dict is in
    a file. Ends the script with one sentence if the weights cannot be loaded.
    """
    if name == "imagenet":
        return download_resnet18()
    state = find_state(read_state(name))
    try:
        network = network_with(state)
    except ValueError as why:
        sys.exit(
            f"--weights {name}: fits neither torchvision's resnet18 nor this script's network: "
            f"{why}"
        )
    check_finite(network, name)
    return network


def network_with(state):
    """The network with the weights in a state_dict; a head that does not fit is left out.

    (Every transfer replaces the head.) Raises ValueError, which says why, if no network fits.
    """
    num_classes = 1
    if has_linear_head(state):
        num_classes = len(state["fc.bias"])
    else:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    try:
        stem = state["conv1.weight"]
        if stem.shape[2:] == (3, 3):
            network = SmallResNet(num_classes, width=len(stem))
        else:
            network = resnet18(num_classes=num_classes)
        missing, unexpected = network.load_state_dict(state, strict=False)
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from error
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error
    for key in missing + unexpected:
        if not key.startswith("fc."):
            raise ValueError(f"only one of the two has {key}")
    return network


def check_finite(network, name):
    """End the script if a network holds NaN or infinity, as after a run that diverged."""
    for key, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            sys.exit(f"--weights {name}: its {key} holds NaN or infinity: take other weights")


def has_linear_head(state):
    """Whether a state_dict has the weight and bias of an nn.Linear on what layer4 returns."""
    weight = state.get("fc.weight")
    last = state.get("layer4.0.bn1.bias")
    bias = state.get("fc.bias")
    if weight is None or last is None or bias is None:
        return False
    return weight.dim() == 2 and weight.shape == (bias.numel(), len(last))


def find_state(content):
    """The state_dict of a ResNet in what a training script has saved; {} if it has none.

    It may be nested, as in {"epoch": 3, "model": state_dict}, and its names may all begin alike, as
    in module.conv1.weight.
    """
    if not isinstance(content, dict):
        return {}
    for name in map(str, content):
        if name.endswith("layer4.0.conv1.weight"):
            return without_prefix(content, name.removesuffix("layer4.0.conv1.weight"))
    for part in content.values():
        state = find_state(part)
        if state:
            return state
    return {}


def without_prefix(content, prefix):
    """The entries whose names begin with a prefix, with the rest of these names."""
    entries = {}
    for name, value in content.items():
        if str(name).startswith(prefix):
            entries[str(name).removeprefix(prefix)] = value
    return entries


def download_resnet18():
    """torchvision's ResNet-18 with its ImageNet weights, from the web or from torch's cache."""
    weights = ResNet18_Weights.IMAGENET1K_V1
    path = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    socket.setdefaulttimeout(60)  # seconds without a byte, then a download has failed
    try:
        return resnet18(weights=weights)
    except Exception as error:  # torch and urllib each raise their own
        if os.path.isfile(path) and not os.access(path, os.R_OK):
            sys.exit(f"--weights imagenet: {path} cannot be read: set TORCH_HOME to another folder")
        if is_damaged(path):
            sys.exit(f"--weights imagenet: {path} is damaged: delete it, and run this again")
        why = why_not_fetched("ResNet-18", error, weights.url, path.parent, "TORCH_HOME")
        sys.exit(f"--weights imagenet: {why}, or leave --weights out")


def is_damaged(path):
    """Whether a file of torch's cache is there, but not what its name says: NAME-CHECKSUM.pth."""
    if not os.path.isfile(path):  # Path.is_file fails where one may not look
        return False
    checksum = path.stem.rpartition("-")[2]
    return not hashlib.sha256(path.read_bytes()).hexdigest().startswith(checksum)


def read_state(name):
    """What torch.save wrote to a file, if it holds nothing but tensors and plain containers."""
    try:
        return torch.load(name, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        sys.exit(
            f"--weights {name}: there is no such file; say imagenet, or name a file with a "
            "state_dict"
        )
    except pickle.UnpicklingError:
        if name.endswith(".safetensors"):
            sys.exit(
                f"--weights {name}: this torch cannot read safetensors; read it with "
                "safetensors.torch.load_file, and write what that returns with torch.save"
            )
        sys.exit(
            f"--weights {name}: refused, for it is no checkpoint, or holds more than tensors and "
            "could run code; write one with torch.save(model.state_dict(), FILE)"
        )
    except Exception as error:  # torch raises many kinds
        sys.exit(f"--weights {name}: cannot be loaded ({first_line(error)})")


# %% Given: the same in every file that uses it


# Colours that colour-blind eyes can tell apart (Okabe and Ito, 2008).
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
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
