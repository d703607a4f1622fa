"""Measure what the course says of its built-in images, `shapes`; about 4 minutes on 4 cores.

python tools/measure_shapes.py               print the table that EXERCISES.md shows
python tools/measure_shapes.py --dry-run     with few images, in seconds: does it work?
"""

import argparse
import platform
import time
from types import SimpleNamespace

import given
import torch
import torch.nn.functional as F
from bench import load_solution
from torch import nn

CPU = torch.device("cpu")
DEPTHS = (8, 20, 56)
LINEAR_EPOCHS = 20
DEPTH_EPOCHS = 8
COUNTS = {"test": 1_000, "linear": 10_000, "depth": 5_120}  # of images
DRY_COUNTS = {"test": 64, "linear": 128, "depth": 64, "styles": 64}


def load_shapes(train_images, test_images, size=32):
    """`shapes` as the exercises load them, averaged down to size x size."""
    args = SimpleNamespace(
        data="shapes",
        train_images=train_images,
        test_images=test_images,
        epochs=0,
        device=CPU,
    )
    return given.shrink(given.load_data(args), size)


def test_accuracy(model, data):
    """The accuracy on the test set, as exercise 1 measures it."""
    with given.autocast(CPU):
        return given.accuracy(model, given.test_batches(data))


def train(model, data, *, rate, weight_decay, epochs, batch_size, label):
    """Train as the exercises do, from seed 0. Returns the history."""
    optimizer = given.make_sgd(model, rate, weight_decay)
    schedule = given.one_cycle(optimizer, epochs * given.count_steps(data, batch_size))
    return given.train(
        model,
        data,
        optimizer,
        schedule,
        epochs=epochs,
        batch_size=batch_size,
        seed=0,
        label=label,
    )


def measure_drawing():
    """Seconds to draw 10,000 images."""
    start = time.perf_counter()
    given.draw_shapes(10_000, seed=0)
    return time.perf_counter() - start


def measure_linear(counts):
    """A linear classifier's best test accuracy over its epochs: an upper bound of the last one."""
    data = load_shapes(counts["linear"], counts["test"])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    best = 0.0
    for _ in range(LINEAR_EPOCHS):
        for batch in torch.randperm(counts["linear"]).split(128):
            logits = model(given.normalise(data.train_images[batch], data))
            loss = F.cross_entropy(logits, data.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best = max(best, given.accuracy(model, given.test_batches(data)))
    return best


def measure_depth(counts):
    """The last epoch's training loss at 16x16 of exercise 2's networks: {"plain-8": nats, ...}."""
    data = load_shapes(counts["depth"], counts["test"], size=16)
    solution = load_solution("2")
    losses = {}
    for kind in ("plain", "residual"):
        for depth in DEPTHS:
            label = f"{kind}-{depth}"
            torch.manual_seed(0)
            network = solution.build_network(depth, skip=kind == "residual")
            network.apply(given.initialise)
            history = train(
                network,
                data,
                rate=0.1,
                weight_decay=1e-4,
                epochs=DEPTH_EPOCHS,
                batch_size=128,
                label=label,
            )
            losses[label] = history[-1]["loss"]
    return losses


def measure_styles(counts):
    """ResNet-18's test accuracy on both styles, after it was trained on filled shapes.

    Returns {"filled": ..., "outline": ..., "adapted": ...}: the last is on outlined shapes, after
    the batch norms have taken their statistics from other outlined shapes.
    """
    solution = load_solution("1")
    budget = solution.BUDGETS["cpu"]
    data = load_shapes(counts.get("styles", budget["train_images"]), counts["test"])
    torch.manual_seed(0)
    model = solution.ResNet18().apply(given.initialise)
    train(
        model,
        data,
        rate=solution.RATE_PER_IMAGE * budget["batch_size"],
        weight_decay=5e-4,
        epochs=budget["epochs"],
        batch_size=budget["batch_size"],
        label="ResNet-18",
    )
    accuracies = {"filled": test_accuracy(model, data)}
    outlined = given.draw_shapes(counts["test"], seed=2, style="outline")
    data.test_images, data.test_labels = outlined
    accuracies["outline"] = test_accuracy(model, data)
    other_images, _ = given.draw_shapes(counts["test"], seed=3, style="outline")
    adapt_statistics(model, other_images, data)
    accuracies["adapted"] = test_accuracy(model, data)
    return accuracies


def adapt_statistics(model, images, data):
    """Replace the statistics of a model's batch norms by those of the images."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over batches
    model.train()
    with torch.no_grad(), given.autocast(CPU):
        for batch in images.split(250):
            model(given.normalise(batch, data))


def print_table(counts, drawing, linear, losses, accuracies):
    """What was measured."""
    linear_row = f"linear classifier, {counts['linear']:,} images, best of {LINEAR_EPOCHS} epochs"
    print(
        f"\nshapes, measured with torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}"
    )
    print_row("seconds to draw 10,000 images", f"{drawing:.1f}")
    print_row(linear_row, given.percent(linear, digits=1))
    print_row("ResNet-18, exercise 1's budget", given.percent(accuracies["filled"], digits=1))
    print_row(
        "  the same network on the style outline", given.percent(accuracies["outline"], digits=1)
    )
    print_row(
        "  with batch norm statistics of outlined images",
        given.percent(accuracies["adapted"], digits=1),
    )
    print(
        f"training loss after {DEPTH_EPOCHS} epochs on {counts['depth']:,} images of 16x16, "
        "by depth:"
    )
    for kind in ("plain", "residual"):
        by_depth = "   ".join(f"{depth}: {losses[f'{kind}-{depth}']:.2f}" for depth in DEPTHS)
        print(f"  {kind:<10}{by_depth}")


def print_row(title, value):
    """A line of the table."""
    print(f"{title:<56}{value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dry-run", action="store_true", help="with few images: the numbers mean nothing"
    )
    args = parser.parse_args()
    counts = DRY_COUNTS if args.dry_run else COUNTS
    drawing = measure_drawing()
    linear = measure_linear(counts)
    losses = measure_depth(counts)
    accuracies = measure_styles(counts)
    print_table(counts, drawing, linear, losses, accuracies)
    if args.dry_run:
        print("This was a dry run: everything works, and its numbers mean nothing.")


if __name__ == "__main__":
    main()
