"""Run a solution with one thing changed: what EXERCISES.md says of causes rests on these runs.

    python tools/controls.py                                    lists the controls
    python tools/controls.py usual-start --seeds 3 --threads 1  runs one

Prints what the solution prints; its files are not kept. All other flags go to the solution. The
page's numbers were made with one CPU thread (OMP_NUM_THREADS=1).
"""

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]
from bench import load_solution  # noqa: E402

CONTROLS = {}  # {name: (exercise, function that changes its module)}


def control(exercise):
    """Make a function of an exercise's module a control, whose name is that of the function."""

    def add(change):
        CONTROLS[change.__name__.replace("_", "-")] = (exercise, change)
        return change

    return add


# Exercise 3


@control("3")
def circular_padding(solution):
    """Convolutions pad with the opposite edge of their input, and not with zeros."""
    conv_norm = solution.conv_norm

    def make(*arguments):
        conv, *norms = conv_norm(*arguments)
        conv.padding_mode = "circular"
        return [conv, *norms]

    solution.conv_norm = make


# Exercise 4


@control("4")
def usual_start(solution):
    """Every block's last batch norm starts with weight 1, and not 0."""
    build_resnet = solution.build_resnet

    def build(*arguments, **settings):
        network = build_resnet(*arguments, **settings)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        return network

    solution.build_resnet = build


@control("4")
def low_rate(solution):
    """The learning rate is a quarter of the solution's."""
    solution.RATE /= 4


@control("4")
def low_rate_usual_start(solution):
    """Both changes."""
    low_rate(solution)
    usual_start(solution)


# Exercise 5


@control("5")
def new_statistics(solution):
    """Fine-tuning learns new batch norm statistics: only gradients are switched off."""

    def freeze_gradients(model):
        model.requires_grad_(False)
        model.fc.requires_grad_(True)
        return model

    solution.freeze_backbone = freeze_gradients


@control("5")
def augmented_probe(solution):
    """The probe, too, learns from shifted and flipped images: 20 copies of each."""
    usual_transfer = solution.transfer

    def transfer(strategy, network, target, count, seed, steps):
        if strategy != "linear probe":
            return usual_transfer(strategy, network, target, count, seed, steps)
        torch.manual_seed(seed)
        model = solution.replace_head(copy.deepcopy(network), len(target.classes))
        chosen = solution.choose_examples(target, count).repeat(20)
        images = target.train_images[chosen]
        places = 2 * (images.shape[2] // 8) + 1
        corner = torch.randint(places, (len(images), 2))
        flip = torch.randint(2, (len(images),)).bool()
        augmented = solution.augment(images, corner, flip)
        batches = solution.labelled_batches(augmented, target.train_labels[chosen], target)
        model.fc = solution.linear_probe(
            *solution.extract_features(model, batches), len(target.classes)
        )
        return model

    solution.transfer = transfer


@control("5")
def padded_with_background(solution):
    """For AdaBN the first convolution pads with what the shift makes of the mean colour, not 0."""

    def adapt_to_shifts(model, data, seed):
        generator = torch.Generator().manual_seed(seed)
        accuracy_by_shift = {}
        for name, shift in solution.SHIFTS.items():
            unlabelled, images = [
                solution.apply_shift(shift, some[: solution.ADAPTATION_IMAGES], generator)
                for some in (data.train_images, data.test_images)
            ]
            background = solution.normalise(shift(data.mean, torch.zeros_like(data.mean)), data)
            padded = pad_with(background, model)
            labels = data.test_labels[: len(images)]
            accuracy_by_shift[name] = solution.adapt(padded, data, unlabelled, images, labels)
        return accuracy_by_shift

    solution.adapt_to_shifts = adapt_to_shifts


def pad_with(background, model):
    """A copy of a model whose first convolution pads with background (1, 3, 1, 1), and not 0."""
    model = copy.deepcopy(model)
    model.conv1.padding = (0, 0)
    model.conv1.register_forward_pre_hook(
        lambda layer, inputs: F.pad(inputs[0] - background, (1, 1, 1, 1)) + background
    )
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("control", nargs="?", choices=list(CONTROLS))
    args, flags = parser.parse_known_args()
    if args.control is None:
        for name, (exercise, change) in CONTROLS.items():
            print(f"{name:24} exercise {exercise}: {change.__doc__}")
        return
    exercise, change = CONTROLS[args.control]
    solution = load_solution(exercise)
    change(solution)
    with tempfile.TemporaryDirectory() as out:
        sys.argv = [solution.EXERCISE, "--data", "shapes", "--out", out, *flags]
        add_flags = getattr(solution, "add_flags", None)
        solution.main(solution.run, solution.EXERCISE, solution.BUDGETS, add_flags)


if __name__ == "__main__":
    main()
