# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Exercise 5: fine-tune a pretrained ResNet on your own pictures.

Goal: carry a trained network over to other pictures in four ways, with few and with many labels, and see which way pays
when. Then adapt a network to pictures taken under other conditions without a single label.
Papers: Yosinski et al., 2014 (arXiv:1411.1792); Li et al., 2016 (arXiv:1603.04779); He et al., 2015, section 4.

    5.1  replace_head       a new last layer for other classes
    5.2  freeze_backbone    no gradients, and no drift of batch norm's statistics
    5.3  extract_features   what the frozen network makes of pictures
         linear_probe       and a linear classifier on top of it
    5.4  parameter_groups   slower learning rates for earlier stages
    5.5  adapt_batchnorm    domain adaptation without labels

Check:  pytest tests/test_exercise_05_transfer_learning.py
Run:    python exercise_05_transfer_learning.py             (--help lists the flags; --dry-run takes seconds)
        python exercise_05_transfer_learning.py --images DIR --weights imagenet         your pictures, a folder a class
"""

import argparse
import contextlib
import copy
import itertools
import json
import math
import os
import pickle
import random
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
from torchvision.datasets import CIFAR10, ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock, ResNet, resnet18
from torchvision.transforms import functional as pictures
from tqdm import tqdm

BUDGET = {  # epochs, train_images and batch_size are for pretraining; on a CPU, pictures are averaged down to 16x16
    "cpu": {"epochs": 6, "train_images": 2_400, "test_images": 600, "batch_size": 64, "size": 16, "seeds": 2},
    "gpu": {"epochs": 15, "train_images": 20_000, "test_images": 5_000, "batch_size": 128, "size": 32, "seeds": 5},
}
FLAGS = {
    "--images": {"type": Path, "metavar": "DIR", "help": "your pictures: a folder for each class, or DIR/train and "
                 "DIR/test with such folders"},
    "--weights": {"metavar": "W", "help": "imagenet (torchvision's ResNet-18, downloaded once), or a file with a "
                  "state_dict of it or of this script's network; default: pretrain here"},
}
LABELS = (2, 5, 20, 100)  # labelled pictures a class
RATE, FACTOR, BATCH = 0.002, 0.6, 32  # AdamW's learning rate, from the head one stage back, pictures a step
STRATEGIES = ("from scratch", "linear probe", "last stage", "all layers")


# %% Your part
# A model is a torchvision ResNet: conv1 and bn1, then layer1 to layer4, then avgpool, then fc, the head.


def replace_head(model, num_classes):
    """Give the model, in place, a new last layer fc for num_classes classes; returns the model.

    The new layer takes what the old one took, lies on the same device, and starts from torch's own initialisation. All
    else stays as it is.
    """
    # TODO 5.1: a linear layer in the place of model.fc.
    raise NotImplementedError("TODO 5.1: replace_head")


def freeze_backbone(model):
    """Freeze, in place, everything but model.fc; returns the model.

    Parameters other than those of fc require no gradient. Batch norms stay in eval mode, even after model.train(): they
    use their running statistics, and these do not move.
    """
    # TODO 5.2: no gradients but for fc's parameters; batch norms that train() does not wake.
    raise NotImplementedError("TODO 5.2: freeze_backbone")


def extract_features(model, batches):
    """What reaches fc: (features, labels), float32 (count, fc.in_features) and int64 (count,), in the batches' order.

    batches: (images, labels), normalised. In eval mode, without gradients, yet so that a layer can be trained on the
    features (not in torch.inference_mode). The model is left as it was, fc and mode included.
    """
    # TODO 5.3: catch fc's input with a forward pre-hook, batch by batch.
    raise NotImplementedError("TODO 5.3: extract_features")


def linear_probe(features, labels, num_classes, penalty=1e-3):
    """A linear layer, trained on (count, width) features and (count,) labels: features in, logits out.

    Minimises the mean cross-entropy plus penalty times the sum of the squared weights, which has one minimum: any
    optimiser that comes near it will do. nn.Linear, on the features' device.
    """
    # TODO 5.3: make the layer and fit it to all features at once, for instance by torch.optim.LBFGS.
    raise NotImplementedError("TODO 5.3: linear_probe")


def parameter_groups(model, lr, factor):
    """Groups for an optimiser, dicts with "params" and "lr": fc learns at lr, each part before it factor times slower.

    The parts, from the head backwards: fc, layer4, layer3, layer2, layer1, and the stem, which is conv1 and bn1. So
    layer4's rate is lr * factor, the stem's lr * factor**5. Every parameter is in one group, even a frozen one.
    """
    # TODO 5.4: go through the parts from the head backwards.
    raise NotImplementedError("TODO 5.4: parameter_groups")


def adapt_batchnorm(model, batches):
    """AdaBN: replace, in place, the running statistics of all batch norms by those of batches; returns the model.

    batches: normalised images (count, 3, height, width) of the new domain, no labels. A new statistic is the mean over
    the batches of each batch's own, as batch norm computes it when its momentum is None. Afterwards momentum and modes
    are as they were; parameters do not change.
    """
    # TODO 5.5: reset the statistics, take the mean instead of a moving one, run the batches in train mode; put back.
    raise NotImplementedError("TODO 5.5: adapt_batchnorm")


def accuracy(model, batches):
    """The share of pictures, from 0 to 1, that the model gets right; in eval mode, without gradients (task 1.4)."""
    model.eval()
    with torch.no_grad():
        hits = [(model(images).argmax(dim=1) == labels) for images, labels in batches]
    return torch.cat(hits).float().mean().item()


# %% The experiment


def run(args):
    """Get a pretrained network, transfer it in four ways, and adapt a network to shifted pictures."""
    source, network = make_source(args), None if args.weights is None else load_weights(args.weights)
    form = picture_form(args, source, network)
    target = read_folders(args, form) if args.images else make_target(args, source, form)
    print(f"Target: {target.name}, {len(target.train_labels):,} training, {len(target.test_labels):,} test pictures of "
          f"{len(target.classes)} classes, {form.size} px")
    network = (network or pretrain(args, source)).to(args.device)
    if form.size > 64 and args.device.type == "cpu" and args.seeds > 1:
        args.seeds = 1
        print("Pictures of this size take long without a GPU: each training is done once")

    most = 1 if args.dry_run else min(LABELS[-1], target.train_labels.bincount().min().item())
    labels, curves = [count for count in LABELS if count < most] + [most], {name: [] for name in STRATEGIES}
    seeds = range(args.seed, args.seed + (1 if args.dry_run else args.seeds))
    with tqdm(total=len(labels) * len(STRATEGIES) * len(seeds), desc="transfer", unit="training") as bar:
        for count, name in itertools.product(labels, STRATEGIES):
            curves[name].append([])
            for seed in seeds:
                tuned = transfer(name, network, target, count, seed, 1 if args.dry_run else 20 + 3 * count // 5)
                curves[name][-1].append(accuracy(tuned, batches_of(target.test_images, target, target.test_labels)))
                bar.update()
    judge, domain = (network, source) if args.weights is None else (tuned, target)
    others = {"outlines": target} if domain.name == "shapes" and not args.images else {}
    shifts = adapt_to_shifts(judge, domain, others, args.seed)
    save_results(args, draw_figure(labels, curves, shifts, target, domain), {
        "labels_a_class": labels, "accuracy": curves, "before_and_after_adaptation": shifts, "classes": target.classes})
    describe(labels, curves, len(target.test_labels), shifts, domain)


def make_source(args):
    """The pictures to pretrain on: shapes, or the first five classes of CIFAR-10."""
    source = load_data(args)
    for half in ("train", "test"):
        images, labels = getattr(source, f"{half}_images"), getattr(source, f"{half}_labels")
        wanted = labels < (10 if source.name == "shapes" else 5)
        setattr(source, f"{half}_all", (images, labels))  # make_target needs the other classes
        setattr(source, f"{half}_images", scale(images[wanted], args.size))
        setattr(source, f"{half}_labels", labels[wanted])
    source.classes = source.classes[: source.train_labels.max() + 1]
    return source


def make_target(args, source, form):
    """The pictures to transfer to: shapes as outlines, or the last five classes of CIFAR-10."""
    halves, classes, name = [source.train_all, source.test_all], CIFAR10_CLASSES[5:], "CIFAR-10's other classes"
    if source.name == "shapes":
        counts = (20, 20) if args.dry_run else (20 * LABELS[-1], args.test_images)
        halves = [draw_shapes(count, seed, "outline") for seed, count in enumerate(counts, 2)]
        classes, name = SHAPES, "outlines of shapes"
    else:
        halves = [(images[labels >= 5], labels[labels >= 5] - 5) for images, labels in halves]
    return data_of([(scale(images, form.size), labels) for images, labels in halves], name, classes, form, args)


def scale(images, size):
    """uint8 pictures at another size: averaged down, or enlarged by interpolation."""
    mode = "area" if size <= images.shape[2] else "bilinear"
    return torch.cat([F.interpolate(part.float(), size, mode=mode).round().to(torch.uint8)
                      for part in images.split(500)])


def data_of(halves, name, classes, form, args):
    """Training and test pictures with labels, as load_data gives them."""
    (train_images, train_labels), (test_images, test_labels) = [[part.to(args.device) for part in h] for h in halves]
    return SimpleNamespace(name=name, classes=list(classes), train_images=train_images, train_labels=train_labels,
                           test_images=test_images, test_labels=test_labels, mean=form.mean, deviation=form.deviation)


def small_resnet(num_classes):
    """torchvision's ResNet with one block a stage, 10 layers, and a stem for small pictures."""
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


def pretrain(args, source):
    """A small ResNet trained on the source; its weights are kept as OUT/exercise_05_source.pt, for --weights."""
    torch.manual_seed(args.seed)
    network = small_resnet(len(source.classes))
    train(network, source, args.epochs, args.seed, args.batch_size, label="pretraining")
    share = accuracy(network, batches_of(source.test_images, source, source.test_labels))
    print(f"Pretrained on {source.name}: {share:.1%} of its test pictures")
    with tempfile.TemporaryDirectory(dir=args.out) as unfinished:
        whole = Path(unfinished, "exercise_05_source.pt")
        torch.save(network.state_dict(), whole)
        os.replace(whole, args.out / whole.name)
    return network


def load_weights(name):
    """torchvision's ResNet-18 with its ImageNet weights, or the network whose state_dict is in a file."""
    try:
        if name == "imagenet":
            return resnet18(weights=ResNet18_Weights.IMAGENET1K_V1)
        state = torch.load(name, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        sys.exit(f"--weights {name}: there is no such file; say imagenet, or name a file with a state_dict")
    except pickle.UnpicklingError:
        sys.exit(f"--weights {name}: refused, for it is no checkpoint, or holds more than tensors and could run code; "
                 "write one with torch.save(model.state_dict(), FILE)")
    except Exception as error:  # torch and urllib each raise their own
        sys.exit(f"--weights {name}: cannot be loaded ({(str(error).splitlines() or [type(error).__name__])[0]})" +
                 ("; get online once, or leave --weights out" if name == "imagenet" else ""))
    for make in (small_resnet, resnet18):
        with contextlib.suppress(RuntimeError, KeyError, TypeError, AttributeError):
            network = make(num_classes=len(state["fc.bias"]))
            network.load_state_dict(state)
            return network
    sys.exit(f"--weights {name}: fits neither torchvision's resnet18 nor this script's network")


def picture_form(args, source, network):
    """How pictures must look for a network: size to crop to, size to shrink to first, mean and deviation."""
    if network is None or network.conv1.kernel_size == (3, 3):
        return SimpleNamespace(size=args.size, shrink=args.size, mean=source.mean, deviation=source.deviation)
    wants = ResNet18_Weights.IMAGENET1K_V1.transforms()
    centre, spread = [255 * torch.tensor(part, device=args.device).view(1, 3, 1, 1) for part in (wants.mean, wants.std)]
    return SimpleNamespace(size=wants.crop_size[0], shrink=wants.resize_size[0], mean=centre, deviation=spread)


def read_folders(args, form):
    """The user's pictures: DIR/train and DIR/test, or DIR split class by class; at most as many as are used."""
    parts = [args.images / "train", args.images / "test"]
    parts = parts if all(part.is_dir() for part in parts) else [args.images]
    files, names = [], []
    for part in parts:
        try:
            found = ImageFolder(part, allow_empty=True)
        except OSError:
            sys.exit(f"--images {part}: needs a folder for each class, with that class's pictures in it")
        files.append([[path for path, label in found.samples if label == i] for i in range(len(found.classes))])
        names.append(found.classes)
    if any(classes != names[0] for classes in names):
        sys.exit(f"--images {args.images}: train and test have different classes: {names[0]} and {names[1]}")
    if len(names[0]) < 2:
        sys.exit(f"--images {parts[0]}: has one class, {names[0][0]}; a classifier needs two folders or more")
    for part in files:
        for paths in part:
            random.Random(args.seed).shuffle(paths)
    halves, limits = [([], []), ([], [])], (LABELS[-1], max(1, args.test_images // len(names[0])))
    for label, name in enumerate(tqdm(names[0], desc="reading pictures", unit="class")):
        read = [read_pictures(part[label], form, sum(limits) if len(parts) == 1 else limit)
                for part, limit in zip(files, limits)]
        if len(read) == 1:  # three in ten for testing
            tests = min(limits[1], max(1, round(0.3 * len(read[0]))))
            read = [read[0][tests : tests + limits[0]], read[0][:tests]]
        for half, images in zip(halves, read):
            if not images:
                sys.exit(f"--images {args.images}: class {name} has too few pictures that can be read; it needs one to "
                         "train on and one to test on, better twenty")
            half[0].extend(images)
            half[1].extend([label] * len(images))
    if len(parts) == 1:
        print(f"Split {args.images} at random, class by class: three in ten pictures are for testing")
    halves = [(torch.stack(images), torch.tensor(labels)) for images, labels in halves]
    return data_of(halves, args.images.resolve().name, names[0], form, args)


def read_pictures(paths, form, limit):
    """The first limit pictures that can be read, as uint8 (3, size, size); names those that cannot."""
    images = []
    for path in paths:
        if len(images) == limit:
            break
        try:
            picture = pictures.resize(default_loader(path), form.shrink, antialias=True)
            images.append(pictures.pil_to_tensor(pictures.center_crop(picture, form.size)))
        except Exception as error:  # Pillow raises many kinds
            print(f"Skipped {path}: {(str(error).splitlines() or [type(error).__name__])[0]}")
    return images


def batches_of(images, data, labels=None):
    """Normalised pictures batch by batch, with their labels if given; smaller batches of large pictures."""
    size = 500 if images.shape[2] <= 64 else 50
    batches = (normalise(part, data) for part in images.split(size))
    return batches if labels is None else zip(batches, labels.split(size))


def transfer(strategy, network, target, count, seed, steps):
    """A copy of the network, carried over to the target with count labelled pictures a class."""
    torch.manual_seed(seed)
    model = replace_head(copy.deepcopy(network), len(target.classes))
    order = torch.randperm(len(target.train_labels))
    chosen = torch.cat([order[target.train_labels.cpu()[order] == label][:count]
                        for label in range(len(target.classes))]).to(target.mean.device)
    images, labels = target.train_images[chosen], target.train_labels[chosen]
    if strategy == "linear probe":
        features = extract_features(model, batches_of(images, target, labels))
        model.fc = linear_probe(*features, len(target.classes))
        return model
    groups = [{"params": list(model.parameters()), "lr": RATE}]
    if strategy == "from scratch":
        model.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    elif strategy == "last stage":
        freeze_backbone(model).layer4.requires_grad_(True)  # its batch norms keep their statistics
        groups = [{"params": [p for p in model.parameters() if p.requires_grad], "lr": RATE}]
    elif strategy == "all layers":
        groups = parameter_groups(model, RATE, FACTOR)
    return fine_tune(model, images, labels, target, groups, steps)


def fine_tune(model, images, labels, data, groups, steps):
    """Train for so many steps with AdamW; each group's rate rises to its own "lr" and falls again."""
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=images.device.type != "mps")
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], steps + 1, pct_start=0.2, cycle_momentum=False)
    order = torch.cat([torch.randperm(len(images)) for _ in range(math.ceil(steps * BATCH / len(images)))])
    model.to(memory_format=torch.channels_last).train()
    for batch in order.to(images.device).split(BATCH)[:steps]:
        shift = torch.randint(images.shape[2] // 8 * 2 + 1, (len(batch), 2)).to(images.device)
        flip = torch.randint(2, (len(batch),)).to(images.device).bool()
        with autocast(images.device):
            logits = model(normalise(augment(images[batch], shift, flip), data))
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return model


SHIFTS = {  # of pictures with values from 0 to 255, given noise of mean 0 and deviation 1
    "unchanged": lambda x, noise: x,
    "noise": lambda x, noise: x + 30 * noise,
    "blur": lambda x, noise: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1),
    "dark": lambda x, noise: 0.35 * x,
    "haze": lambda x, noise: 128 + 0.5 * x,
    "low contrast": lambda x, noise: 128 + 0.3 * (x - 128),
    "orange light": lambda x, noise: x * torch.tensor([1, 0.6, 0.3], device=x.device).view(1, 3, 1, 1),
}


def adapt_to_shifts(model, data, others, seed):
    """Accuracy on shifted test pictures before and after AdaBN on shifted training pictures: {shift: [b, a], ...}."""
    generator, found = torch.Generator().manual_seed(seed), {}

    def shifted(images, shift):
        images = images[:1000].float()
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return shift(images, noise).round().clamp(0, 255).to(torch.uint8)

    domains = {name: (*[shifted(images, shift) for images in (data.train_images, data.test_images)], data.test_labels)
               for name, shift in SHIFTS.items()}
    domains |= {name: (other.train_images, other.test_images, other.test_labels) for name, other in others.items()}
    domains = {name: [part[:1000] for part in parts] for name, parts in domains.items()}
    for name, (unlabelled, images, labels) in tqdm(domains.items(), desc="domain adaptation", unit="shift"):
        adapted = adapt_batchnorm(copy.deepcopy(model), batches_of(unlabelled, data))
        found[name] = [accuracy(network, batches_of(images, data, labels)) for network in (model, adapted)]
    return found


def draw_figure(labels, curves, shifts, target, domain):
    """Left: accuracy against labels for the four ways. Right: what AdaBN does to each shift."""
    figure, colours = new_figure(13, 5.4), dict(zip(STRATEGIES, (GREY, GREEN, VERMILION, BLUE)))
    ways, norms = figure.subplots(1, 2, width_ratios=(1.15, 1))
    y = 200
    for name in sorted(curves, key=lambda name: -mean(curves[name][-1])):
        found = [[100 * share for share in seeds] for seeds in curves[name]]
        ways.plot(labels, [mean(seeds) for seeds in found], "o-", color=colours[name], linewidth=2.5)
        ways.fill_between(labels, *[[pick(seeds) for seeds in found] for pick in (min, max)], color=colours[name],
                          alpha=0.2)
        y = min(mean(found[-1]), y - 5.5)  # labels of equal values stand below each other
        ways.annotate(name, (labels[-1], y), (10, 0), textcoords="offset points", color=colours[name], va="center",
                      annotation_clip=False)
    ways.set(xscale="log", xlabel=f"labelled pictures a class (band: {len(found[0])} seeds)", ylim=(0, 102),
             ylabel="test accuracy (%)")
    ways.set_xticks(labels, labels=map(str, labels))
    ways.minorticks_off()
    leaders = [", ".join(most_accurate(curves, place, len(target.test_labels))[0]) for place in (0, -1)]
    ways.set_title(f"most accurate on {target.name}:\n{leaders[0]} with {labels[0]},\n"
                   f"{leaders[1]} with {labels[-1]} labels a class")

    for place, (before, after) in enumerate(reversed(shifts.values())):
        colour = BLUE if after - before > 0.005 else VERMILION if before - after > 0.005 else GREY
        norms.annotate("", (100 * after, place), (100 * before, place),
                       arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0})
        norms.plot(100 * before, place, "o", color=GREY)
        norms.annotate(f"{100 * (after - before):+.0f}", (100 * max(before, after), place), (9, 0),
                       textcoords="offset points", color=colour, va="center")
    norms.set_yticks(range(len(shifts)), labels=reversed(shifts))
    norms.set(xlabel="test accuracy (%), from before to after AdaBN", xlim=(0, 108), ylim=(-0.6, len(shifts) - 0.4))
    helped = [name for name, (before, after) in shifts.items() if after - before >= 0.05]
    norms.set_title(f"AdaBN, without labels, gains 5 points or more\non {len(helped)} of {len(shifts) - 1} shifts of "
                    f"{domain.name}")
    return figure


def mean(values):
    """The mean of a list."""
    return sum(values) / len(values)


def most_accurate(curves, place, tests):
    """The ways within two standard errors of the best one's accuracy, and those two errors (0 to 1)."""
    share = {name: mean(found[place]) for name, found in curves.items()}
    top, seen = max(share.values()), tests * len(curves["from scratch"][place])
    chance = 2 * math.sqrt(2 * top * (1 - top) / seen)
    return [name for name in share if share[name] >= top - chance], chance


def describe(labels, curves, tests, shifts, domain):
    """Print the table, and say what this run's numbers show; differences within chance are not called differences."""
    print("labels a class  " + "".join(f"{name:>14}" for name in curves))
    for place, count in enumerate(labels):
        print(f"{count:14}  " + "".join(f"{mean(found[place]):14.1%}" for found in curves.values()))
    for place, count in enumerate(labels):
        leaders, chance = most_accurate(curves, place, tests)
        print(f"With {count} labels a class, the most accurate{' within chance' * (len(leaders) > 1)}: "
              f"{', '.join(leaders)}.")
        for name, found in curves.items():
            if (loss := mean(curves["from scratch"][place]) - mean(found[place])) > chance:
                print(f"Negative transfer: {name} is {100 * loss:.1f} points below from scratch.")
    gains = {name: 100 * (after - before) for name, (before, after) in shifts.items()}
    for said, wanted in (("gains 5 points or more on", lambda gain: gain >= 5), ("changes little on", lambda gain:
                         -5 < gain < 5), ("loses 5 points or more on", lambda gain: gain <= -5)):
        names = [f"{name} ({gain:+.0f})" for name, gain in gains.items() if wanted(gain)]
        if names:
            print(f"AdaBN, on {domain.name}, {said}: {', '.join(names)}.")


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
