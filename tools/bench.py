"""Measure how fast the course's training is, beside the loop that most CIFAR-10 code uses.

    python tools/bench.py            both loops on four networks, in turns: images per second,
                                     seconds to the first step, memory (4 minutes)
    python tools/bench.py growth     seconds per epoch against depth and against the number of
                                     images (2 minutes)
    python tools/bench.py accuracy   exercise 1's test accuracy with both loops, from three seeds
                                     (10 minutes)
    python tools/bench.py runs       the solutions' default runs, one after another: seconds and
                                     memory (9 minutes)
    python tools/bench.py fast       exercise 1's --preset fast beside 15 epochs of the textbook
                                     loop (for a GPU)
    python tools/bench.py grading    the grader on classes of 10, 30 and 100 (12 minutes)

The other loop, "textbook": images kept as PIL images, torchvision's transforms, a DataLoader with
two workers, float32, no channels_last, the loss read after every step.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import given
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from course import SOLUTIONS, minutes  # noqa: E402

GRADER = ROOT / "grading" / "grade.py"
LOOPS = ("ours", "textbook")
RATE = 0.1 / 128  # per image of a batch: the paper's 0.1 for 128
DRY_RUN = {"epochs": 1, "train_images": 64, "test_images": 64}  # what --dry-run makes of a budget
TEST_IMAGES = 500  # in a turn
DEPTHS = (20, 32, 44, 56, 80, 110)
TEXTBOOK_EPOCHS = 15
SEEDS = 3
CLASS_SIZES = (10, 30, 100)
OLD_INSTRUCTIONS = {  # the oldest ones that torch's libraries have code of their own for
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


@dataclass
class Network:
    """A network that both loops train, and how much of it is a turn."""

    exercise: str
    build: Callable  # build(solution, budget) makes the network
    weight_decay: float
    cpu_images: int  # training images in a turn
    gpu_images: int


NETWORKS = {
    "ResNet-18": Network(
        exercise="1",
        build=lambda solution, budget: solution.ResNet18(),
        weight_decay=5e-4,
        cpu_images=480,
        gpu_images=12_800,
    ),
    "plain-56": Network(
        exercise="2",
        build=lambda solution, budget: solution.build_network(56, skip=False),
        weight_decay=1e-4,
        cpu_images=2_560,
        gpu_images=12_800,
    ),
    "residual-56": Network(
        exercise="2",
        build=lambda solution, budget: solution.build_network(56, skip=True),
        weight_decay=1e-4,
        cpu_images=2_560,
        gpu_images=12_800,
    ),
    "ResNet-50": Network(
        exercise="4",
        build=lambda solution, budget: solution.build_resnet(50, budget["width"]),
        weight_decay=5e-4,
        cpu_images=960,
        gpu_images=12_800,
    ),
}


# What both loops train


def load_solution(exercise):
    """An exercise's solution as a module."""
    path = SOLUTIONS[exercise]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    solution = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(solution)
    return solution


def choose_budget(solution, options, preset=None):
    """The solution's budget on the device, with what a preset or a dry run changes."""
    budget = dict(solution.BUDGETS["cpu" if options.device.type == "cpu" else "gpu"])
    if preset:
        budget.update(solution.BUDGETS[preset])
    if options.dry_run:
        budget.update(DRY_RUN)
    return budget


def load_images(options, budget):
    """The images that the budget asks for, at its size."""
    args = SimpleNamespace(
        data=options.data,
        data_dir=options.data_dir,
        device=options.device,
        epochs=budget["epochs"],
        train_images=budget["train_images"],
        test_images=budget["test_images"],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        data = given.load_data(args)
    return given.shrink(data, budget.get("size", 32))


def first_images(data, count):
    """The data with only the first count training images."""
    return dataclasses.replace(
        data,
        train_images=data.train_images[:count],
        train_labels=data.train_labels[:count],
    )


def hide_progress_bars():
    """Have given.train show no bars. They still count, and so the loop reads its loss as often."""
    given.tqdm = functools.partial(tqdm, file=io.StringIO(), mininterval=3600)


def wait_for(device):
    """Wait until a GPU has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# Our loop


def our_train(model, data, epochs, seed, batch_size, weight_decay, label="", smoothing=0):
    """Train as the solutions do, by one cycle of the learning rate. Returns the history."""
    optimizer = given.make_sgd(model, RATE * batch_size, weight_decay)
    schedule = given.one_cycle(optimizer, epochs * given.count_steps(data, batch_size))
    return given.train(
        model,
        data,
        optimizer,
        schedule,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        label=label,
        smoothing=smoothing,
    )


def our_accuracy(model, data):
    """The test accuracy, measured as exercises 1 and 2 do after an epoch."""
    with given.autocast(data.test_labels.device):
        return given.accuracy(model, given.test_batches(data))


# The textbook loop


class PILDataset:
    """PIL images and labels, as torchvision's CIFAR10 hands them out."""

    def __init__(self, images, labels, transform):
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i]), self.labels[i]


def textbook_loader(images, labels, data, batch_size, training):
    """A DataLoader as in most CIFAR-10 code."""
    size = images.shape[2]
    mean = data.mean.flatten().cpu() / 255
    deviation = data.deviation.flatten().cpu() / 255
    steps = [transforms.ToTensor(), transforms.Normalize(mean, deviation)]
    if training:
        crop = transforms.RandomCrop(size, padding=size // 8)
        steps = [crop, transforms.RandomHorizontalFlip(), *steps]
    pil_images = [to_pil(image) for image in images.cpu()]
    dataset = PILDataset(pil_images, labels.tolist(), transforms.Compose(steps))
    return DataLoader(dataset, batch_size, shuffle=training, num_workers=2)


def to_pil(image):
    """A uint8 image (3, height, width) as a PIL image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def training_loader(data, batch_size):
    """The textbook's loader of the training set."""
    return textbook_loader(data.train_images, data.train_labels, data, batch_size, training=True)


def test_loader(data):
    """The textbook's loader of the test set."""
    return textbook_loader(data.test_images, data.test_labels, data, 100, training=False)


def textbook_train(model, loader, epochs, seed, batch_size, weight_decay=5e-4, label=None):
    """SGD with momentum and a cosine schedule, as most CIFAR-10 code has it.

    With a label, each epoch shows a progress bar.
    """
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE * batch_size, momentum=0.9, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    for _ in range(epochs):
        model.train()
        running_loss = 0.0
        correct = 0
        for inputs, targets in tqdm(loader, desc=label, leave=False, disable=label is None):
            inputs = inputs.to(device)
            targets = targets.to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            correct += (outputs.argmax(dim=1) == targets).sum().item()
        schedule.step()


def textbook_accuracy(model, loader):
    """The share of a loader's images that the model classifies correctly."""
    device = next(model.parameters()).device
    correct = 0
    model.eval()
    with torch.no_grad():
        for inputs, targets in loader:
            predictions = model(inputs.to(device)).argmax(dim=1)
            correct += (predictions == targets.to(device)).sum().item()
    return correct / len(loader.dataset)


# One process for each loop and network


def our_jobs(model, data, batch_size, weight_decay):
    """The two jobs of a turn, by name, done by our loop."""
    return {
        "train": lambda: our_train(model, data, 1, 0, batch_size, weight_decay),
        "test": lambda: our_accuracy(model, data),
    }


def textbook_jobs(model, data, batch_size, weight_decay):
    """The two jobs of a turn, by name, done by the textbook loop."""
    train_batches = training_loader(data, batch_size)
    test_batches = test_loader(data)
    return {
        "train": lambda: textbook_train(model, train_batches, 1, 0, batch_size, weight_decay),
        "test": lambda: textbook_accuracy(model, test_batches),
    }


def serve(pipe, loop, name, options):
    """Set a training up, take one step, and say so; then do jobs as told, and send the seconds."""
    multiprocessing.set_start_method(None, force=True)  # workers start as they do elsewhere
    hide_progress_bars()
    if options.without_bf16:
        given.multiplies_bfloat16 = lambda device: False
    network = NETWORKS[name]
    model, data, batch_size = set_up(network, options)
    make_jobs = our_jobs if loop == "ours" else textbook_jobs
    first_batch = first_images(data, batch_size)
    first_step = make_jobs(model, first_batch, batch_size, network.weight_decay)["train"]
    first_step()
    jobs = make_jobs(model, data, batch_size, network.weight_decay)
    pipe.send({"train": len(data.train_labels), "test": len(data.test_labels)})
    for job in iter(pipe.recv, "stop"):
        start = time.perf_counter()
        jobs[job]()
        wait_for(options.device)
        pipe.send(time.perf_counter() - start)
    facts = {"megabytes": peak_megabytes(options.device)}
    if options.device.type == "cuda":
        images = given.normalise(data.train_images[:batch_size], data)
        facts["gflop_per_image"] = gflop_per_image(model, images)
        facts["matrix_gflops"] = matrix_gflops(options.device)
    pipe.send(facts)


def set_up(network, options):
    """The network with fresh weights, its images, and its batch size."""
    solution = load_solution(network.exercise)
    budget = budget_of_turn(network, solution, options)
    data = load_images(options, budget)
    torch.manual_seed(0)
    model = network.build(solution, budget).to(options.device)
    return model, data, budget["batch_size"]


def budget_of_turn(network, solution, options):
    """A network's budget with the number of images in a turn."""
    budget = choose_budget(solution, options)
    if not options.dry_run:
        on_cpu = options.device.type == "cpu"
        budget["train_images"] = network.cpu_images if on_cpu else network.gpu_images
        budget["test_images"] = TEST_IMAGES
    return budget


def peak_megabytes(device):
    """The most memory that this process has held: on the GPU if it uses one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return megabytes(resource.getrusage(resource.RUSAGE_SELF))


def megabytes(usage):
    """The peak memory in a process's resource usage, which macOS counts in another unit."""
    units = 1e6 if sys.platform == "darwin" else 1e3
    return usage.ru_maxrss / units


def gflop_per_image(model, images):
    """Billions of operations per image, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / 1e9 / len(images)


def matrix_gflops(device):
    """Billions of operations per second in products of large bf16 matrices."""
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * 8192**3 / 1e9 / statistics.median(seconds)


class LoopProcess:
    """A process that runs one of the two loops on a network."""

    def __init__(self, loop, name, options):
        spawn = multiprocessing.get_context("spawn")  # a new interpreter: its imports count, too
        self.pipe, other_end = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(other_end, loop, name, options))
        start = time.perf_counter()
        self.process.start()
        other_end.close()
        self.images = self.receive()  # in each job
        self.start_up = time.perf_counter() - start

    def receive(self):
        """What the process sends next."""
        try:
            return self.pipe.recv()
        except EOFError:
            sys.exit("A training ended early: out of memory, or see the message above.")

    def do(self, job):
        """Have a job done; returns its seconds."""
        self.pipe.send(job)
        return self.receive()

    def stop(self):
        """End the process; returns what it has measured besides."""
        self.pipe.send("stop")
        facts = self.receive()
        self.process.join()
        return facts


# Both loops, in turns


def measure_training(options):
    """Both loops on every network."""
    names = options.networks or list(NETWORKS)
    if options.without_bf16:
        os.environ.update(OLD_INSTRUCTIONS)
    turns = len(LOOPS) * len(names) * (1 + options.rounds)
    with tqdm(total=turns, unit="turn") as bar:
        rows = [measure_network(name, options, bar) for name in names]
    print_training(rows)
    return rows


def measure_network(name, options, bar):
    """Let the two loops train and test a network in turns. Returns a row of the table."""
    bar.set_description(name)
    processes = {}
    for loop in LOOPS:
        processes[loop] = LoopProcess(loop, name, options)
        bar.update()
    seconds = defaultdict(list)
    for _ in range(options.rounds):
        for loop, process in processes.items():
            for job in ("train", "test"):
                seconds[loop, job].append(process.do(job))
            bar.update()
    facts = {loop: process.stop() for loop, process in processes.items()}
    images = processes["ours"].images
    row = {
        "network": name,
        "images_per_turn": images["train"],
        "turns": options.rounds,
        "device": options.device.type,
        "training": compare(
            images["train"], seconds["ours", "train"], seconds["textbook", "train"]
        ),
        "testing": compare(images["test"], seconds["ours", "test"], seconds["textbook", "test"]),
        "seconds_to_first_step": {loop: processes[loop].start_up for loop in LOOPS},
        "peak_megabytes": {loop: facts[loop]["megabytes"] for loop in LOOPS},
    }
    if options.device.type == "cuda":
        row["share_of_matrix_rate"] = matrix_shares(row["training"], facts["ours"])
    return row


def compare(images, our_seconds, textbook_seconds):
    """Images per second of both loops, and how many times faster ours is, turn by turn."""
    ratios = [textbook / ours for ours, textbook in zip(our_seconds, textbook_seconds)]
    return {
        "images_per_second": {
            "ours": images / statistics.median(our_seconds),
            "textbook": images / statistics.median(textbook_seconds),
        },
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
    }


def matrix_shares(training, facts):
    """How much of the GPU's rate in products of matrices each loop reaches."""
    shares = {}
    for loop in LOOPS:
        gflops = training["images_per_second"][loop] * facts["gflop_per_image"]
        shares[loop] = gflops / facts["matrix_gflops"]
    return shares


def print_training(rows):
    """The table of both loops."""
    print("\nimages per second, ours / textbook")
    print("in brackets: the lowest and highest ratio of two turns side by side\n")
    print(
        "| network | training | ratio | testing | ratio | seconds to the first step "
        "| peak memory, MB |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            row["network"],
            *comparison_cells(row["training"]),
            *comparison_cells(row["testing"]),
            pair_cell(row["seconds_to_first_step"], ".1f"),
            pair_cell(row["peak_megabytes"], ",.0f"),
        ]
        print_cells(cells)
    for row in rows:
        if "share_of_matrix_rate" in row:
            shares = pair_cell(row["share_of_matrix_rate"], ".1%")
            print(f"{row['network']}: {shares} of the bf16 matrix rate measured on this GPU")


def comparison_cells(comparison):
    """Two cells of a table: images per second, and their ratio."""
    lowest = comparison["lowest_ratio"]
    highest = comparison["highest_ratio"]
    return [
        pair_cell(comparison["images_per_second"], ",.0f"),
        f"**{comparison['ratio']:.2f}** ({lowest:.2f}-{highest:.2f})",
    ]


def pair_cell(values, form):
    """A cell with a number for each loop: ours / textbook."""
    return f"{values['ours']:{form}} / {values['textbook']:{form}}"


def print_cells(cells):
    """A row of a table."""
    print("| " + " | ".join(cells) + " |")


# How cost grows


def measure_growth(options):
    """Seconds per epoch of exercise 2's residual networks, against depth and number of images."""
    hide_progress_bars()
    solution = load_solution("2")
    budget = choose_budget(solution, options)
    data = load_images(options, budget)
    torch.manual_seed(0)

    def epoch_seconds(depth, count):
        network = solution.build_network(depth, skip=True).to(options.device)
        some = first_images(data, count)
        history = our_train(network, some, 1, 0, budget["batch_size"], weight_decay=5e-4)
        return history[0]["seconds"]

    all_images = budget["train_images"]
    depths = DEPTHS[:2] if options.dry_run else DEPTHS
    counts = [all_images // divisor for divisor in (16, 8, 4, 2, 1)]
    return [
        measure_sizes(
            "layer", depths, lambda depth: epoch_seconds(depth, all_images), options.rounds
        ),
        measure_sizes("image", counts, lambda count: epoch_seconds(20, count), options.rounds),
    ]


def measure_sizes(unit, sizes, measure, rounds):
    """Measure every size once per round, print the seconds against the sizes, return a record."""
    seconds = {size: [] for size in sizes}
    for _ in tqdm(range(rounds), desc=f"seconds per epoch against {unit}s"):
        for size in sizes:
            seconds[size].append(measure(size))
    print_growth(unit, seconds, "seconds per epoch")
    return {
        "against": f"{unit}s",
        "seconds_per_epoch": medians(seconds),
        "lowest_and_highest": {size: [min(times), max(times)] for size, times in seconds.items()},
    }


def medians(seconds):
    """{size: the median of its seconds}."""
    return {size: statistics.median(times) for size, times in seconds.items()}


def print_growth(unit, seconds, title):
    """A table of medians, and one sentence on whether they lie on a straight line."""
    middle = medians(seconds)
    print(f"\n| {unit}s | {title} | lowest-highest | milliseconds per {unit} |")
    print("|---|---|---|---|")
    for size, times in seconds.items():
        spread = f"{min(times):.2f}-{max(times):.2f}"
        per_unit = 1000 * middle[size] / size
        print_cells([f"{size:,}", f"{middle[size]:.2f}", spread, f"{per_unit:.2f}"])
    print_line(unit, middle)


def print_line(unit, middle):
    """One sentence on whether the medians lie on a straight line."""
    slope, start = statistics.linear_regression(middle.keys(), middle.values())
    exceptions = []
    for size, value in middle.items():
        deviation = value / (start + slope * size) - 1
        if abs(deviation) > 0.1:
            exceptions.append(f"{size:,} ({deviation:+.0%})")
    line = f"A straight line, {1000 * slope:.2f} ms per {unit} and {start:+.2f} s for the rest,"
    if exceptions:
        print(f"\n{line} fits to within 10 % except at {', '.join(exceptions)}.")
    else:
        print(f"\n{line} fits all of them to within 10 %.")


# Accuracy


def train_resnet18(loop, solution, data, budget, seed, mirrored=False):
    """Train exercise 1's network by one of the loops: {"test_accuracy": ..., "seconds": ...}."""
    epochs = budget["epochs"]
    batch_size = budget["batch_size"]
    device = data.train_labels.device
    label = f"{loop}, {epochs} epochs, seed {seed}"
    torch.manual_seed(seed)
    model = solution.ResNet18().apply(given.initialise).to(device)
    if loop == "ours":
        train = functools.partial(our_train, model, data, smoothing=budget["smoothing"])
    else:
        train = functools.partial(textbook_train, model, training_loader(data, batch_size))
    start = time.perf_counter()
    train(epochs, seed, batch_size, weight_decay=5e-4, label=label)
    wait_for(device)
    seconds = time.perf_counter() - start
    tested_model = solution.Mirrored(model) if mirrored else model
    test_accuracy = textbook_accuracy(tested_model, test_loader(data))
    return {"test_accuracy": test_accuracy, "seconds": seconds}


def measure_accuracy(options):
    """Exercise 1's network, trained by both loops on the same images, from three seeds."""
    solution = load_solution("1")
    budget = choose_budget(solution, options)
    data = load_images(options, budget)
    accuracies = defaultdict(list)
    seconds = defaultdict(list)
    for seed in range(1 if options.dry_run else SEEDS):
        for loop in LOOPS:
            result = train_resnet18(loop, solution, data, budget, seed)
            accuracies[loop].append(result["test_accuracy"])
            seconds[loop].append(result["seconds"])
    print(
        f"\nResNet-18, {data.name}: {budget['epochs']} epochs of {len(data.train_labels):,} "
        f"images, batches of {budget['batch_size']}"
    )
    print("\n| loop | test accuracy from each seed | mean | seconds |\n|---|---|---|---|")
    for loop in LOOPS:
        from_each_seed = ", ".join(f"{value:.1%}" for value in accuracies[loop])
        mean = statistics.mean(accuracies[loop])
        median_seconds = statistics.median(seconds[loop])
        print_cells([loop, from_each_seed, f"{mean:.1%}", f"{median_seconds:.0f}"])
    return {
        "data": data.name,
        "epochs": budget["epochs"],
        "test_accuracy": accuracies,
        "seconds": seconds,
    }


def measure_fast_preset(options):
    """Exercise 1's --preset fast beside the textbook loop; then as much of it as fits a minute."""
    solution = load_solution("1")
    budget = choose_budget(solution, options)
    data = load_images(options, budget)

    def measure(recipe, loop, settings):
        fast = loop == "ours"
        result = train_resnet18(loop, solution, data, settings, seed=0, mirrored=fast)
        return {"recipe": recipe, **settings, **result}

    textbook = dict(budget)
    if not options.dry_run:
        textbook["epochs"] = TEXTBOOK_EPOCHS
    rows = [measure("textbook", "textbook", textbook)]
    preset = choose_budget(solution, options, preset="fast")
    rows.append(measure("--preset fast", "ours", preset))
    minute = dict(preset)
    if not options.dry_run:
        epochs_per_second = preset["epochs"] / rows[-1]["seconds"]
        minute["epochs"] = max(1, int(60 * epochs_per_second))
    rows.append(measure("--preset fast, a minute", "ours", minute))
    print_recipes(rows, data)
    return rows


def print_recipes(rows, data):
    """The table of the fast preset."""
    print(
        f"\nResNet-18, {data.name}: {len(data.train_labels):,} training images, "
        f"{len(data.test_labels):,} test images"
    )
    print("\n| recipe | epochs | batch size | test accuracy | seconds of training |")
    print("|---|---|---|---|---|")
    for row in rows:
        cells = [
            row["recipe"],
            str(row["epochs"]),
            str(row["batch_size"]),
            f"{row['test_accuracy']:.2%}",
            f"{row['seconds']:.1f}",
        ]
        print_cells(cells)


# The default runs, and grading


def measure_runs(options):
    """Every solution's default run, alone in a folder."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for exercise, path in SOLUTIONS.items():
            shutil.copy(path, folder)
            print(f"== {path.name}", flush=True)
            rows.append({"exercise": exercise, **measure_run(path.name, folder, options)})
    print("\n| exercise | seconds | may take on 2 cores | peak memory, MB |\n|---|---|---|---|")
    for row in rows:
        limit = 60 * minutes(row["exercise"])
        cells = [
            row["exercise"],
            f"{row['seconds']:.0f}",
            str(limit),
            f"{row['peak_megabytes']:,.0f}",
        ]
        print_cells(cells)
    total = sum(row["seconds"] for row in rows)
    print(f"\nAll together: {total / 60:.1f} minutes")
    return rows


def measure_run(name, folder, options):
    """The seconds and the memory of one script's run in a folder."""
    command = [sys.executable, name, "--data", "shapes"]
    if options.dry_run:
        command.append("--dry-run")
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"{name} ended with exit status {os.waitstatus_to_exitcode(status)}")
    return {"seconds": seconds, "peak_megabytes": megabytes(usage)}


def measure_grading(options):
    """The grader on classes in which everybody hands in the solution of exercise 1."""
    seconds = {}
    for size in (1, 2) if options.dry_run else CLASS_SIZES:
        with tempfile.TemporaryDirectory() as folder:
            submissions = Path(folder, "class")
            make_class(submissions, size)
            command = [sys.executable, GRADER, submissions, "--exercises", "1"]
            command += ["--out", Path(folder, "out")]
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[size] = [time.perf_counter() - start]
    print_growth("submission", seconds, "seconds in all")
    return [{"submissions": size, "seconds": times[0]} for size, times in seconds.items()]


def make_class(folder, size):
    """A folder of submissions. No two are alike, for those are graded only once."""
    solution = SOLUTIONS["1"]
    text = solution.read_text("utf-8")
    for number in range(size):
        learner = folder / f"learner{number:03}"
        learner.mkdir(parents=True)
        submission = learner / solution.name
        submission.write_text(f"{text}\n# learner {number}\n", "utf-8")


# The command line


SUBJECTS = {
    "training": measure_training,
    "growth": measure_growth,
    "accuracy": measure_accuracy,
    "fast": measure_fast_preset,
    "runs": measure_runs,
    "grading": measure_grading,
}


def parse_options():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add(
        "subject",
        nargs="?",
        choices=SUBJECTS,
        default="training",
        help="default: training",
    )
    add("--json", type=Path, metavar="FILE", help="also write every number to FILE")
    add(
        "--rounds",
        type=given.whole_number(1, 1000),
        default=5,
        metavar="N",
        help="turns of each loop (default: 5)",
    )
    add(
        "--dry-run",
        action="store_true",
        help="one tiny step of everything: the numbers mean nothing",
    )
    add(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        metavar="NETWORK",
        help=f"only these: {', '.join(NETWORKS)}",
    )
    add("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    add("--without-bf16", action="store_true", help="as on a CPU with AVX2 and nothing newer")
    add(
        "--data",
        choices=("shapes", "cifar10"),
        default="shapes",
        help="for accuracy and fast; default: shapes",
    )
    add(
        "--data-dir",
        type=Path,
        default=ROOT / "data",
        metavar="DIR",
        help="where CIFAR-10 is",
    )
    options = parser.parse_args()
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    if options.dry_run:
        options.rounds = 1
    if options.device is None:
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.device = given.choose_device(options.device, parser)
    if options.subject not in ("accuracy", "fast"):
        options.data = "shapes"
    return options


def describe_machine():
    """What the numbers were measured on."""
    gpu = "no GPU"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return {
        "processor": processor_name(),
        "cores": cores,
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor_name():
    """The processor's name: as Linux knows it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main():
    options = parse_options()
    start = time.perf_counter()
    numbers = SUBJECTS[options.subject](options)
    seconds = time.perf_counter() - start
    machine = describe_machine()
    print(
        f"\n{machine['processor']}, {machine['cores']} cores, {machine['gpu']}; "
        f"Python {machine['python']}, torch {machine['torch']}; {seconds / 60:.1f} minutes"
    )
    if options.dry_run:
        print("This was a dry run: everything works, and its numbers mean nothing.")
    if options.json:
        record = {
            "subject": options.subject,
            "machine": machine,
            "seconds": seconds,
            "numbers": numbers,
        }
        with given.written_whole(options.json) as path:
            path.write_text(json.dumps(record, indent=1), "utf-8")


if __name__ == "__main__":
    main()
