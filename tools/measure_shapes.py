"""Measure what the course says of its built-in data, `shapes`, and print a table; about 4 minutes on 4 cores.

python tools/measure_shapes.py
"""

import importlib.util
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

SOLUTION = Path(__file__).resolve().parent.parent / "solutions" / "exercise_01_build_resnet18.py"
CPU = torch.device("cpu")


def load_solution():
    """Exercise 1's solution as a module."""
    spec = importlib.util.spec_from_file_location(SOLUTION.stem, SOLUTION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Block(nn.Module):
    """A block of the paper's 6n+2 networks (section 4.2), with an option A shortcut or without one."""

    def __init__(self, in_channels, out_channels, stride, skip):
        super().__init__()
        self.stride, self.new_channels, self.skip = stride, out_channels - in_channels, skip
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x):
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(self.branch(x) + shortcut if self.skip else self.branch(x))


def build_network(depth, skip):
    """The paper's network of this depth, 16 channels wide at first."""
    layers, channels = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for stage in range(3):
        for block in range((depth - 2) // 6):
            layers.append(Block(channels, 16 * 2**stage, 2 if stage and not block else 1, skip))
            channels = 16 * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


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


def measure_linear(lesson):
    """A linear classifier's best test accuracy over 20 epochs on 10,000 pictures, so its upper bound."""
    data = data_of(lesson, 10_000, 1_000)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    best = 0.0
    for _ in range(20):
        for batch in torch.randperm(10_000).split(128):
            loss = F.cross_entropy(model(lesson.normalise(data.train_images[batch], data)), data.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        best = max(best, lesson.accuracy(model, lesson.test_batches(data)))
    return best


def measure_depth(lesson):
    """The last epoch's training loss, {(kind, depth): loss}, on 5,120 pictures of 16x16 in 8 epochs."""
    data, losses = data_of(lesson, 5_120, 1_000, size=16), {}
    for kind, skip in (("plain", False), ("residual", True)):
        for depth in (8, 20, 56):
            torch.manual_seed(0)
            model = build_network(depth, skip).apply(lesson.initialise)
            label = f"{kind}-{depth}"
            history = lesson.train(model, data, 8, seed=0, batch_size=128, weight_decay=1e-4, label=label)
            losses[kind, depth] = history[-1]["loss"]
    return losses


def measure_styles(lesson):
    """ResNet-18's test accuracy, trained on filled shapes: on filled, on outline, on outline with its statistics."""
    budget = lesson.BUDGET["cpu"]
    data = data_of(lesson, budget["train_images"], budget["test_images"])
    torch.manual_seed(0)
    model = lesson.ResNet18().apply(lesson.initialise)
    lesson.train(model, data, budget["epochs"], seed=0, batch_size=budget["batch_size"], label="ResNet-18")
    results = [test_accuracy(lesson, model, data)]
    data.test_images, data.test_labels = lesson.draw_shapes(1_000, seed=2, style="outline")
    results.append(test_accuracy(lesson, model, data))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over batches
    model.train()
    with torch.no_grad(), lesson.autocast(CPU):
        for images in lesson.draw_shapes(1_000, seed=3, style="outline")[0].split(250):
            model(lesson.normalise(images, data))
    return [*results, test_accuracy(lesson, model, data)]


def main():
    lesson = load_solution()
    start = time.perf_counter()
    lesson.draw_shapes(10_000, seed=0)
    drawing = time.perf_counter() - start
    linear, losses = measure_linear(lesson), measure_depth(lesson)
    filled, outline, adapted = measure_styles(lesson)
    print(f"\nshapes, measured with torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"seconds to draw 10,000 pictures                    {drawing:.1f}")
    print(f"linear classifier, 10,000 pictures, best of 20 epochs   {linear:.1%}")
    print(f"ResNet-18, exercise 1's budget                     {filled:.1%}")
    print(f"  the same network on style outline                {outline:.1%}")
    print(f"  with batch norm statistics of outline pictures   {adapted:.1%}")
    print("training loss after 8 epochs on 5,120 pictures of 16x16, by depth:")
    for kind in ("plain", "residual"):
        row = "   ".join(f"{depth}: {losses[kind, depth]:.2f}" for depth in (8, 20, 56))
        print(f"  {kind:<10}{row}")


if __name__ == "__main__":
    main()
