"""Measure how fast the course's training is, beside the loop that most CIFAR-10 code uses.

    python tools/bench.py            both loops on four networks, in turns: images per second,
                                     share of the matrix rate, seconds to the first step, memory
                                     (5 minutes)
    python tools/bench.py accuracy   exercise 1's test accuracy with both loops, from three seeds
                                     (10 minutes)
    python tools/bench.py runs       the solutions' default runs, one after another: seconds and
                                     memory (9 minutes)
    python tools/bench.py busy       exercise 1's training beside others like it on the same cores,
                                     by how its threads wait for one another (15 minutes)
    python tools/bench.py fast       exercise 1's --preset fast beside 15 epochs of the textbook
                                     loop (for a GPU)
    python tools/bench.py gpu --minutes 9 --json FILE
                                     on a GPU, most important first and as far as the minutes go:
                                     both loops, fast, the paper's recipe. The same command goes on
                                     with what is missing in the folder FILE.parts

The other loop is in tools/textbook.py.
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
import signal
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
from unittest import mock

import given
import textbook
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from course import SOLUTIONS, minutes  # noqa: E402

LOOPS = ("ours", "textbook")
RATE_PER_IMAGE = 0.1 / 128  # as in exercise 1
DRY_RUN = {"epochs": 1, "train_images": 64, "test_images": 64}  # what --dry-run makes of a budget
TEST_IMAGES = 500  # in a turn
MATRIX_SIDE = {"cpu": 4096, "cuda": 8192}
TEXTBOOK_EPOCHS = 15
SEEDS = 3
COMPANY = (0, 1, 2, 3)  # how many other runs share the same cores
WAITING = {  # how many times a thread looks for work in a loop before it sleeps
    "as libgomp does: 300,000": {"GOMP_SPINCOUNT": "300000"},
    "10,000": {"GOMP_SPINCOUNT": "10000"},
    "1,000": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
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
    """Have given.train show no progress bars."""
    given.tqdm = functools.partial(tqdm, disable=True)


def wait_for(device):
    """Wait until a GPU has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# Our loop


def our_train(model, data, epochs, seed, batch_size, weight_decay, label="", **extras):
    """Train as the solutions do, by one cycle of the learning rate. Returns the history.

    extras are given.train's.
    """
    optimizer = given.make_sgd(model, RATE_PER_IMAGE * batch_size, weight_decay)
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
        **extras,
    )


def our_accuracy(model, data):
    """The test accuracy, measured as exercises 1 and 2 do after an epoch."""
    with given.autocast(data.test_labels.device):
        return given.accuracy(model, given.test_batches(data))


# One process for each loop and network


def our_jobs(model, data, batch_size, weight_decay):
    """The two jobs of a turn, by name, and a short one, done by our loop."""
    few = first_images(data, 5 * batch_size)
    return {
        "train": lambda: our_train(model, data, 1, 0, batch_size, weight_decay),
        "test": lambda: our_accuracy(model, data),
        "five steps": lambda: our_train(model, few, 1, 0, batch_size, weight_decay),
    }


def textbook_jobs(model, data, batch_size, weight_decay):
    """The two jobs of a turn, by name, done by the textbook loop."""
    train_batches = textbook.training_loader(data, batch_size)
    test_batches = textbook.test_loader(data)
    rate = RATE_PER_IMAGE * batch_size
    return {
        "train": lambda: textbook.train(model, train_batches, 1, 0, rate, weight_decay),
        "test": lambda: textbook.accuracy(model, test_batches),
    }


def serve(pipe, loop, name, options):
    """Set a training up, take one step, and say so; then do jobs as told, and send the seconds."""
    multiprocessing.set_start_method(None, force=True)  # the loader's workers start as usual
    hide_progress_bars()
    if options.without_bf16:
        leave_out_bf16()
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
    images = given.normalise(data.train_images[:batch_size], data)
    facts["gflop_per_image"] = gflop_per_image(model, images)
    pipe.send(facts)


def leave_out_bf16():
    """Have given.autocast compute in float32."""
    given.multiplies_bfloat16 = lambda device: False


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
    """Billions of operations per image, forward and backward; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / 1e9 / len(images)


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
        leave_out_bf16()
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
    matrix_gflops = defaultdict(list)
    for _ in range(options.rounds):
        for loop, process in processes.items():
            for job in ("train", "test"):
                seconds[loop, job].append(process.do(job))
            bar.update()
        for dtype, gflops in matrix_rates(options).items():
            matrix_gflops[dtype].append(gflops)
    facts = {loop: process.stop() for loop, process in processes.items()}
    images = processes["ours"].images
    gflop = images["train"] * facts["ours"]["gflop_per_image"]
    return {
        "network": name,
        "images_per_turn": images["train"],
        "turns": options.rounds,
        "device": options.device.type,
        "training": compare(
            images["train"], seconds["ours", "train"], seconds["textbook", "train"]
        ),
        "testing": compare(images["test"], seconds["ours", "test"], seconds["textbook", "test"]),
        "limit": compare_with_limit(
            [gflop / turn for turn in seconds["ours", "train"]], matrix_gflops
        ),
        "seconds_to_first_step": {loop: processes[loop].start_up for loop in LOOPS},
        "peak_megabytes": {loop: facts[loop]["megabytes"] for loop in LOOPS},
    }


def matrix_rates(options):
    """Billions of operations per second in products of large square matrices, by their type.

    The last type is the one in which our loop computes.
    """
    side = 256 if options.dry_run else MATRIX_SIDE[options.device.type]
    dtypes = ["float32"]
    if given.multiplies_bfloat16(options.device):
        dtypes.append("bfloat16")
    rates = {}
    for dtype in dtypes:
        matrix = torch.randn(side, side, device=options.device).to(getattr(torch, dtype))
        seconds = []
        for _ in range(3):
            wait_for(options.device)
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            wait_for(options.device)
            seconds.append(time.perf_counter() - start)
        rates[dtype] = 2 * side**3 / 1e9 / statistics.median(seconds)
    return rates


def compare_with_limit(training_gflops, matrix_gflops):
    """Our training's operations per second beside those of matrix products, turn by turn."""
    dtype = list(matrix_gflops)[-1]
    shares = [ours / matrix for ours, matrix in zip(training_gflops, matrix_gflops[dtype])]
    return {
        "training_gflops": statistics.median(training_gflops),
        "matrix_gflops": medians(matrix_gflops),
        "share": statistics.median(shares),
        "of": dtype,
        "lowest_share": min(shares),
        "highest_share": max(shares),
    }


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
    print("\nbillions of operations per second (a multiply-add is two) in our training,")
    print("and in products of large matrices in the same run\n")
    print("| network | training | matrix products | share |\n|---|---|---|---|")
    for row in rows:
        print_cells([row["network"], *limit_cells(row["limit"])])


def limit_cells(limit):
    """Three cells of a table: operations per second in training, in matrix products, the share."""
    matrix = [f"{gflops:,.0f} in {dtype}" for dtype, gflops in limit["matrix_gflops"].items()]
    return [
        f"{limit['training_gflops']:,.0f}",
        ", ".join(matrix),
        f"**{given.percent(limit['share'])}** of {limit['of']} "
        f"({given.percent(limit['lowest_share'])}-{given.percent(limit['highest_share'])})",
    ]


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


def medians(measured):
    """{key: the median of its numbers}."""
    return {key: statistics.median(numbers) for key, numbers in measured.items()}


def print_cells(cells):
    """A row of a table."""
    print("| " + " | ".join(cells) + " |")


# Accuracy


def measure_accuracy(options):
    """Exercise 1's network, trained by both loops on the same images, from three seeds."""
    solution = load_solution("1")
    budget = choose_budget(solution, options)
    data = load_images(options, budget)
    seeds = range(1 if options.dry_run else SEEDS)
    rows = [measure_recipe(loop, loop, solution, data, budget, seeds) for loop in LOOPS]
    print_recipes(rows, data)
    return rows


def measure_fast_preset(options):
    """Exercise 1's --preset fast beside the textbook loop; then as much of it as fits a minute."""
    solution = load_solution("1")
    usual = choose_budget(solution, options)
    preset = choose_budget(solution, options, preset="fast")
    data = load_images(options, usual)
    if not options.dry_run:
        usual["epochs"] = TEXTBOOK_EPOCHS
    rows = [
        measure_recipe("textbook", "textbook", solution, data, usual),
        measure_recipe("--preset fast", "ours", solution, data, preset),
    ]
    minute = dict(preset)
    if not options.dry_run:
        epochs_per_second = preset["epochs"] / rows[1]["seconds"][0]
        minute["epochs"] = max(1, int(60 * epochs_per_second))
    rows.append(measure_recipe("--preset fast, a minute", "ours", solution, data, minute))
    rows[1]["seconds_to_textbook"] = seconds_to_accuracy(rows[1], rows[0]["test_accuracy"][0])
    print_recipes(rows, data)
    reached = rows[1]["seconds_to_textbook"]
    when = "never" if reached is None else f"after {reached:.1f} seconds of training"
    print(f"\n--preset fast is as accurate as the textbook's network in the end: {when}")
    return rows


def measure_recipe(recipe, loop, solution, data, settings, seeds=(0,)):
    """Train exercise 1's network by one of the loops from each seed. Returns a row of the table."""
    runs = [train_resnet18(loop, solution, data, settings, seed) for seed in seeds]
    return {
        "recipe": recipe,
        **settings,
        "test_accuracy": [run["test_accuracy"] for run in runs],
        "seconds": [run["seconds"] for run in runs],
        "history": [run["history"] for run in runs],
    }


def train_resnet18(loop, solution, data, settings, seed):
    """Train exercise 1's network once: its test accuracy, seconds of training, and history.

    The textbook loop has no history. --preset fast's network is tested as that preset does.
    """
    epochs = settings["epochs"]
    batch_size = settings["batch_size"]
    smoothing = settings["smoothing"]
    device = data.train_labels.device
    label = f"{loop}, {epochs} epochs, seed {seed}"
    torch.manual_seed(seed)
    model = solution.ResNet18().apply(given.initialise).to(device)
    tested_model = solution.Mirrored(model) if smoothing else model
    if loop == "ours":

        def test(model):
            return {"test_accuracy": our_accuracy(tested_model, data)}

        extras = {"smoothing": smoothing, "after_epoch": test}
        history = our_train(model, data, epochs, seed, batch_size, 5e-4, label, **extras)
        seconds = sum(row["seconds"] for row in history)
    else:
        history = None
        loader = textbook.training_loader(data, batch_size)
        start = time.perf_counter()
        textbook.train(model, loader, epochs, seed, RATE_PER_IMAGE * batch_size, label=label)
        wait_for(device)
        seconds = time.perf_counter() - start
    test_accuracy = textbook.accuracy(tested_model, textbook.test_loader(data))
    return {"test_accuracy": test_accuracy, "seconds": seconds, "history": history}


def seconds_to_accuracy(row, goal):
    """The seconds of training until the test accuracy first was goal; None if it never was."""
    seconds = 0
    for epoch in row["history"][0]:
        seconds += epoch["seconds"]
        if epoch["test_accuracy"] >= goal:
            return seconds
    return None


def print_recipes(rows, data):
    """The table of recipes, each with a number from every seed."""
    print(
        f"\nResNet-18, {data.name}: {len(data.train_labels):,} training images, "
        f"{len(data.test_labels):,} test images"
    )
    print("\n| recipe | epochs | batch size | test accuracy | mean | seconds of training |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            row["recipe"],
            str(row["epochs"]),
            str(row["batch_size"]),
            ", ".join(given.percent(value, digits=2) for value in row["test_accuracy"]),
            given.percent(statistics.mean(row["test_accuracy"]), digits=2),
            f"{statistics.median(row['seconds']):.1f}",
        ]
        print_cells(cells)


# The default runs


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


# Other work on the same cores


def measure_busy(options):
    """Training alone and beside others like it, by how long its threads watch for work."""
    company = COMPANY[:2] if options.dry_run else COMPANY
    rows = []
    for name in options.networks or ["ResNet-18"]:
        seconds = {waiting: defaultdict(list) for waiting in WAITING}
        for _ in tqdm(range(options.rounds), desc=name):
            for waiting, variables in WAITING.items():
                with mock.patch.dict(os.environ, variables):
                    turn = seconds_in_company(company, name, options)
                for others, times in turn.items():
                    seconds[waiting][others] += times
        middle = {waiting: medians(by_company) for waiting, by_company in seconds.items()}
        rows.append({"network": name, "seconds": middle})
    print_busy(rows)
    return rows


def seconds_in_company(company, name, options):
    """{number of other runs on the same cores: what five steps take in each run}."""
    processes = [LoopProcess("ours", name, options) for _ in range(1 + max(company))]
    seconds = {}
    for others in company:
        together = processes[: 1 + others]
        for process in together:
            process.pipe.send("five steps")
        seconds[others] = [process.receive() for process in together]
    for process in processes:
        process.stop()
    return seconds


def print_busy(rows):
    """A table for each network: seconds, and how many times those of the first one alone."""
    for row in rows:
        first = next(iter(row["seconds"].values()))
        headings = [f"beside {others}" if others else "alone" for others in first]
        print(f"\n{row['network']}: seconds of five steps (times as long as the first)\n")
        print_cells(["loops before a thread sleeps", *headings])
        print("|---" * (1 + len(headings)) + "|")
        for waiting, by_company in row["seconds"].items():
            cells = [f"{value:.1f} ({value / first[0]:.1f})" for value in by_company.values()]
            print_cells([waiting, *cells])


# A GPU, for some minutes


def measure_gpu(options):
    """What is worth measuring on a GPU, as far as the minutes go: {part: its record}.

    Each part is a process, and leaves a file in the folder FILE.parts. A part whose file is there
    is not measured again.
    """
    end = time.perf_counter() + 60 * options.minutes
    folder = options.json.with_name(f"{options.json.name}.parts")
    folder.mkdir(exist_ok=True)
    parts = gpu_parts(options)
    for part, make_command in parts.items():
        if Path(folder, part).exists():
            continue
        left = end - time.perf_counter()
        print(f"== {part}: {left:.0f} seconds left", flush=True)
        try:
            run_in_time(make_command(folder), left)
        except subprocess.TimeoutExpired:
            print(f"== {part}: not finished. Run the same command again, or give more --minutes")
            break
        except subprocess.CalledProcessError as error:
            print(f"== {part}: failed with exit status {error.returncode}; on to the next")
        except FileNotFoundError as error:
            print(f"== {part}: cannot be planned without {error.filename}")
    files = [Path(folder, part) for part in parts]
    return {file.stem: json.loads(file.read_text("utf-8")) for file in files if file.exists()}


def gpu_parts(options):
    """{file: a function that makes the command for it}, most important first."""
    flags = ["--device", options.device.type, "--data-dir", options.data_dir]
    if options.dry_run:
        flags.append("--dry-run")
    rounds = ["--rounds", str(options.rounds)]
    data = ["--data", options.data]
    bench = [sys.executable, __file__]

    def training(name, folder):
        part = ["training", "--networks", name, *rounds, "--json", folder / f"{name}.json"]
        return [*bench, *part, *flags]

    def fast(folder):
        return [*bench, "fast", "--json", folder / "fast.json", *data, *flags]

    def paper(folder):
        epochs = paper_epochs(options, folder)
        part = ["--preset", "paper", "--depths", "20", "56", "--seeds", "1", "--epochs", epochs]
        return [sys.executable, SOLUTIONS["2"], *part, "--out", folder, *data, *flags]

    first, *others = options.networks or list(NETWORKS)
    parts = {f"{first}.json": functools.partial(training, first), "fast.json": fast}
    for name in others:
        parts[f"{name}.json"] = functools.partial(training, name)
    parts["dry_run/exercise_02.json" if options.dry_run else "exercise_02.json"] = paper
    return parts


def paper_epochs(options, folder):
    """As many epochs as fit into the minutes, for two plain and two residual networks.

    It does not depend on how much of the minutes is left: with other epochs, networks that an
    earlier call has trained would be trained again.
    """
    if options.dry_run:
        return "1"
    seconds = 0  # for an epoch of all four
    for name in ("plain-56", "residual-56"):
        record = json.loads(Path(folder, f"{name}.json").read_text("utf-8"))
        (row,) = record["numbers"]
        training = 50_000 / row["training"]["images_per_second"]["ours"]
        testing = 10_000 / row["testing"]["images_per_second"]["ours"]
        seconds += (1 + 20 / 56) * (training + testing)
    return str(max(1, int(0.7 * 60 * options.minutes / seconds)))


def run_in_time(command, seconds):
    """Run a command; TimeoutExpired or CalledProcessError if it is too slow or fails.

    Whatever it has started ends with it.
    """
    with subprocess.Popen(command, start_new_session=True) as child:
        try:
            status = child.wait(max(0, seconds))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if status:
        raise subprocess.CalledProcessError(status, command)


# The command line


SUBJECTS = {
    "training": measure_training,
    "accuracy": measure_accuracy,
    "runs": measure_runs,
    "busy": measure_busy,
    "fast": measure_fast_preset,
    "gpu": measure_gpu,
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
    add(
        "--minutes",
        type=given.whole_number(1, 1000),
        default=9,
        metavar="N",
        help="for gpu: how long it may take (default: 9)",
    )
    add("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    add("--without-bf16", action="store_true", help="as on a CPU with AVX2 and nothing newer")
    add(
        "--data",
        choices=("shapes", "cifar10"),
        default="shapes",
        help="for accuracy, fast and gpu; default: shapes",
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
    if options.data == "cifar10" and options.subject not in ("accuracy", "fast", "gpu"):
        parser.error(f"{options.subject} always takes shapes: leave --data out")
    if options.subject == "gpu" and not options.json:
        parser.error("gpu needs --json FILE, to go on where it stopped")
    if options.subject == "gpu" and options.device.type == "cpu" and not options.dry_run:
        parser.error("gpu: torch finds no GPU here; --dry-run tries it on a CPU")
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
