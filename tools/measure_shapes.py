"""Measure what the course says of its built-in data, `shapes`, and print a table; about 4 minutes on 4 cores.

python tools/measure_shapes.py             (--dry-run: with few pictures, in seconds, to see whether it works)
"""

import argparse
import importlib.util
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

SOLUTIONS = Path(__file__).resolve().parent.parent / "solutions"
CPU = torch.device("cpu")


def load_solution(number):
    """An exercise's solution as a module."""
    (path,) = SOLUTIONS.glob(f"exercise_0{number}_*.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data_of(lesson, train_images, test_images, size=32):
    """`shapes` as exercise 1 loads it, averaged down to size x size."""
    data = lesson.load_data(
        SimpleNamespace(data="shapes", train_images=train_images, test_images=test_images, epochs=0, device=CPU)
    )
    for name in ("train_images", "test_images"):
        smaller = F.avg_pool2d(getattr(data, name).float(), 32 // size).round().to(torch.uint8)
        setattr(data, name, smaller)
    return data


def test_accuracy(lesson, model, data):
    """Exercise 1's accuracy on the test pictures."""
    with lesson.autocast(CPU):
        return lesson.accuracy(model, lesson.test_batches(data))


def measure_linear(lesson, count, tests):
    """A linear classifier's best test accuracy over 20 epochs on so many pictures, so its upper bound."""
    data = data_of(lesson, count, tests)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    best = 0.0
    for _ in range(20):
        for batch in torch.randperm(count).split(128):
            loss = F.cross_entropy(model(lesson.normalise(data.train_images[batch], data)), data.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best = max(best, lesson.accuracy(model, lesson.test_batches(data)))
    return best


def measure_depth(lesson, count, tests):
    """The last epoch's training loss, {(kind, depth): loss}, on so many pictures of 16x16 in 8 epochs."""
    data, losses, ablation = data_of(lesson, count, tests, size=16), {}, load_solution(2)
    for kind, skip in (("plain", False), ("residual", True)):
        for depth in (8, 20, 56):
            torch.manual_seed(0)
            model = ablation.build_network(depth, skip).apply(lesson.initialise)
            label = f"{kind}-{depth}"
            history = lesson.train(model, data, 8, seed=0, batch_size=128, weight_decay=1e-4, label=label)
            losses[kind, depth] = history[-1]["loss"]
    return losses


def measure_styles(lesson, count, tests):
    """ResNet-18's test accuracy, trained on filled shapes: on filled, on outline, on outline with its statistics."""
    budget = lesson.BUDGET["cpu"]
    data = data_of(lesson, count, tests)
    torch.manual_seed(0)
    model = lesson.ResNet18().apply(lesson.initialise)
    lesson.train(model, data, budget["epochs"], seed=0, batch_size=budget["batch_size"], label="ResNet-18")
    results = [test_accuracy(lesson, model, data)]
    data.test_images, data.test_labels = lesson.draw_shapes(tests, seed=2, style="outline")
    results.append(test_accuracy(lesson, model, data))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over batches
    model.train()
    with torch.no_grad(), lesson.autocast(CPU):
        for images in lesson.draw_shapes(tests, seed=3, style="outline")[0].split(250):
            model(lesson.normalise(images, data))
    return [*results, test_accuracy(lesson, model, data)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="with few pictures: the numbers mean nothing")
    tiny, lesson = parser.parse_args().dry_run, load_solution(1)
    start, budget = time.perf_counter(), lesson.BUDGET["cpu"]
    lesson.draw_shapes(10_000, seed=0)
    drawing = time.perf_counter() - start
    tests, counts = 64 if tiny else 1_000, (128, 128, 64) if tiny else (10_000, 5_120, budget["train_images"])
    linear, losses = measure_linear(lesson, counts[0], tests), measure_depth(lesson, counts[1], tests)
    filled, outline, adapted = measure_styles(lesson, counts[2], tests)
    print(f"\nshapes, measured with torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"seconds to draw 10,000 pictures                    {drawing:.1f}")
    print(f"linear classifier, {counts[0]:,} pictures, best of 20 epochs   {linear:.1%}")
    print(f"ResNet-18, exercise 1's budget                     {filled:.1%}")
    print(f"  the same network on style outline                {outline:.1%}")
    print(f"  with batch norm statistics of outline pictures   {adapted:.1%}")
    print(f"training loss after 8 epochs on {counts[1]:,} pictures of 16x16, by depth:")
    for kind in ("plain", "residual"):
        row = "   ".join(f"{depth}: {losses[kind, depth]:.2f}" for depth in (8, 20, 56))
        print(f"  {kind:<10}{row}")
    if tiny:
        print("This was a dry run: everything works, and its numbers mean nothing.")


if __name__ == "__main__":
    main()
