"""Measure how fast the course's training is, beside the loop that most CIFAR-10 code uses; and how cost grows.

python tools/bench.py            both loops on four networks, in turns: pictures a second, start-up, memory (4 minutes)
python tools/bench.py growth     seconds an epoch against depth and against the number of pictures (2 minutes)
python tools/bench.py accuracy   exercise 1's test accuracy with both loops, from three seeds (10 minutes)
python tools/bench.py runs       the five solutions' default runs, one after another: seconds and memory (9 minutes)
python tools/bench.py fast       exercise 1's --preset fast beside 15 epochs of the textbook loop (for a GPU)
python tools/bench.py grading    tools/grade.py on classes of 10, 30 and 100 (12 minutes)

The other loop, "textbook": pictures kept as PIL images, torchvision's transforms, a DataLoader with two workers,
float32, no channels_last, the loss read after every step.
"""

import argparse
import contextlib
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
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = {path.name[9:11]: path for path in sorted(ROOT.glob("solutions/exercise_0*.py"))}
SIDES = ("ours", "textbook")
ROWS = {  # name: exercise, how to build the network from its solution and budget, pictures a turn on a CPU and on a GPU
    "ResNet-18": ("01", lambda lesson, budget: lesson.ResNet18(), 480, 12_800),
    "plain-56": ("02", lambda lesson, budget: lesson.build_network(56, skip=False), 2_560, 12_800),
    "residual-56": ("02", lambda lesson, budget: lesson.build_network(56, skip=True), 2_560, 12_800),
    "ResNet-50": ("04", lambda lesson, budget: lesson.build_resnet(50, budget["width"]), 960, 12_800),
}
DEPTHS = (20, 32, 44, 56, 80, 110)
TEST_IMAGES = 500
MINUTES = {"01": 2, "02": 3, "03": 2, "04": 3, "05": 2}  # what a default run may take on 4 cores without a GPU


# ---- the two loops -------------------------------------------------------------------------------------------------


def load_lesson(exercise, quiet):
    """A solution as a module; quiet: without its progress bars."""
    spec = importlib.util.spec_from_file_location(SOLUTIONS[exercise].stem, SOLUTIONS[exercise])
    lesson = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lesson)
    if quiet:
        lesson.tqdm = functools.partial(tqdm, file=io.StringIO(), mininterval=3600)
    return lesson


def load(exercise, device, pictures=None, data="shapes", data_dir="data", test_images=None, quiet=True):
    """(lesson, its budget on the device, its pictures at the budget's size): pictures to train on, and to test on."""
    lesson = load_lesson(exercise, quiet)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    budget = dict(lesson.BUDGET["cpu" if device.type == "cpu" else "gpu"])
    budget["train_images"] = pictures or budget["train_images"]
    budget["test_images"] = test_images or pictures or budget["test_images"]
    args = SimpleNamespace(data=data, data_dir=Path(data_dir), device=device, **budget)
    with contextlib.redirect_stdout(io.StringIO()):
        data = lesson.load_data(args)
    for name in ("train_images", "test_images"):
        smaller = F.avg_pool2d(getattr(data, name).float(), 32 // budget.get("size", 32)).round().to(torch.uint8)
        setattr(data, name, smaller)
    return lesson, budget, data


class Pictures:
    """A data set of PIL images, as torchvision's CIFAR10 hands them out."""

    def __init__(self, pictures, labels, transform):
        self.pictures, self.labels, self.transform = pictures, labels, transform

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.transform(self.pictures[i]), self.labels[i]


def textbook_loader(images, labels, data, batch_size, training):
    """A DataLoader as in most CIFAR-10 code."""
    mean, deviation = [value.flatten().cpu() / 255 for value in (data.mean, data.deviation)]
    size, steps = images.shape[2], [transforms.ToTensor(), transforms.Normalize(mean, deviation)]
    if training:
        steps = [transforms.RandomCrop(size, padding=size // 8), transforms.RandomHorizontalFlip(), *steps]
    pictures = [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in images.cpu()]
    dataset = Pictures(pictures, labels.tolist(), transforms.Compose(steps))
    return DataLoader(dataset, batch_size, shuffle=training, num_workers=2)


def textbook_train(model, loader, epochs, seed, batch_size, weight_decay=5e-4):
    """SGD with momentum and a cosine schedule, as most CIFAR-10 code has it."""
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    criterion = torch.nn.CrossEntropyLoss()
    rate = 0.1 * batch_size / 128
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    for _ in range(epochs):
        model.train()
        running_loss, correct = 0.0, 0
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            correct += (outputs.argmax(dim=1) == targets).sum().item()
        schedule.step()


def textbook_accuracy(model, loader):
    """The share of a loader's pictures that the model gets right."""
    device, correct = next(model.parameters()).device, 0
    model.eval()
    with torch.no_grad():
        for inputs, targets in loader:
            correct += (model(inputs.to(device)).argmax(dim=1) == targets.to(device)).sum().item()
    return correct / len(loader.dataset)


# ---- one process for each side of a row ----------------------------------------------------------------------------


def serve(pipe, side, row, options):
    """Set a training up, take one step, say so; then train or evaluate as often as told, and send the seconds."""
    multiprocessing.set_start_method(None, force=True)  # the DataLoader's workers start as they do elsewhere
    exercise, build, *counts = ROWS[row]
    device = torch.device(options["device"] or ("cuda" if torch.cuda.is_available() else "cpu"))
    pictures = options["pictures"] or counts[device.type != "cpu"]
    lesson, budget, data = load(exercise, device, pictures, test_images=options["pictures"] or TEST_IMAGES)
    if options["without_bf16"]:
        lesson.autocast = lambda device: torch.autocast(device.type, enabled=False)
    torch.manual_seed(0)
    model, batch_size, decay = (
        build(lesson, budget).to(device),
        budget["batch_size"],
        5e-4 if exercise != "02" else 1e-4,
    )
    few = SimpleNamespace(**vars(data))
    few.train_images, few.train_labels = data.train_images[:batch_size], data.train_labels[:batch_size]
    if side == "ours":
        lesson.train(model, few, 1, 0, batch_size, decay)
        turns = {
            "train": lambda: lesson.train(model, data, 1, 0, batch_size, decay),
            "evaluate": lambda: evaluate(lesson, model, data),
        }
    else:
        first = textbook_loader(few.train_images, few.train_labels, data, batch_size, True)
        textbook_train(model, first, 1, 0, batch_size, decay)
        loader = textbook_loader(data.train_images, data.train_labels, data, batch_size, True)
        tests = textbook_loader(data.test_images, data.test_labels, data, 100, False)
        turns = {
            "train": lambda: textbook_train(model, loader, 1, 0, batch_size, decay),
            "evaluate": lambda: textbook_accuracy(model, tests),
        }
    pipe.send({"pictures": len(data.train_labels), "tested": len(data.test_labels), "device": device.type})
    while (turn := pipe.recv()) != "stop":
        start = time.perf_counter()
        turns[turn]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        pipe.send(time.perf_counter() - start)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    if device.type == "cuda":
        megabytes = torch.cuda.max_memory_allocated() / 1e6
    pipe.send({"megabytes": megabytes, **matrix_share(lesson, model, data, batch_size, device)})


def evaluate(lesson, model, data):
    """Test as exercises 1 and 2 do after an epoch."""
    with lesson.autocast(data.test_labels.device):
        return lesson.accuracy(model, lesson.test_batches(data))


def matrix_share(lesson, model, data, batch_size, device):
    """On CUDA: billions of operations a picture, forward and backward, and a second in products of bf16 matrices."""
    if device.type != "cuda":
        return {}
    images = lesson.normalise(data.train_images[:batch_size], data)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"gflop_a_picture": counter.get_total_flops() / 1e9 / len(images),
            "matrix_gflops": 2 * 8192**3 / 1e9 / statistics.median(seconds)}  # fmt: skip


class Side:
    """A process that serves one side of a row."""

    def __init__(self, side, row, options):
        spawn = multiprocessing.get_context("spawn")  # a new interpreter: its imports count, too
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, side, row, options))
        start = time.perf_counter()
        self.process.start()
        theirs.close()
        self.facts = self.receive()
        self.start_up = time.perf_counter() - start

    def receive(self):
        try:
            return self.pipe.recv()
        except EOFError:
            sys.exit("A training ended early: out of memory, or see the message above.")

    def turn(self, what):
        self.pipe.send(what)
        return self.receive()

    def stop(self):
        self.facts |= self.turn("stop")
        self.process.join()


def measure(row, rounds, options, bar):
    """One line of the table."""
    bar.set_description(row)
    sides = {}
    for side in SIDES:
        sides[side] = Side(side, row, options)
        bar.update()
    seconds = {(side, what): [] for side in SIDES for what in ("train", "evaluate")}
    for _ in range(rounds):
        for side in SIDES:
            for what in ("train", "evaluate"):
                seconds[side, what].append(sides[side].turn(what))
            bar.update()
    for side in sides.values():
        side.stop()
    facts = sides["ours"].facts
    line = {"row": row, "pictures_a_turn": facts["pictures"], "turns": rounds, "device": facts["device"]}
    for what, count in (("train", facts["pictures"]), ("evaluate", facts["tested"])):
        pairs = [b / a for a, b in zip(seconds["ours", what], seconds["textbook", what])]
        line[what] = {side: count / statistics.median(seconds[side, what]) for side in SIDES}
        line[what] |= {"ratio": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}
    line["start_up"] = {side: sides[side].start_up for side in SIDES}
    line["megabytes"] = {side: sides[side].facts["megabytes"] for side in SIDES}
    if "matrix_gflops" in facts:
        line["matrix_share"] = {
            side: line["train"][side] * facts["gflop_a_picture"] / facts["matrix_gflops"] for side in SIDES
        }
    return line


def training(options):
    """Both loops on every row."""
    rows = options.rows or list(ROWS)
    switches = {"device": options.device, "without_bf16": options.without_bf16, "pictures": 64 * options.dry_run}
    if options.without_bf16:  # the oldest instructions that torch's libraries have code of their own for
        os.environ.update(ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2")
    with tqdm(total=2 * len(rows) * (1 + options.rounds), unit="turn") as bar:
        lines = [measure(row, options.rounds, switches, bar) for row in rows]
    print("\npictures a second, ours / textbook; in brackets the lowest and highest ratio of two turns side by side\n")
    print("| network | training | ratio | testing | ratio | seconds to the first step | peak memory, MB |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        cells = [line["row"]]
        for what in ("train", "evaluate"):
            numbers = line[what]
            cells.append(f"{numbers['ours']:,.0f} / {numbers['textbook']:,.0f}")
            cells.append(f"**{numbers['ratio']:.2f}** ({numbers['lowest']:.2f}-{numbers['highest']:.2f})")
        cells.append(" / ".join(f"{line['start_up'][side]:.1f}" for side in SIDES))
        cells.append(" / ".join(f"{line['megabytes'][side]:,.0f}" for side in SIDES))
        print("| " + " | ".join(cells) + " |")
        if "matrix_share" in line:
            shares = " / ".join(f"{line['matrix_share'][side]:.1%}" for side in SIDES)
            print(f"{line['row']}: {shares} of the bf16 matrix rate measured on this chip")
    return lines


# ---- how cost grows ------------------------------------------------------------------------------------------------


def growth(options):
    """Seconds an epoch of exercise 2's residual networks, against depth and against pictures."""
    lesson, budget, data = load("02", options.device, 64 * options.dry_run)

    def epoch(depth, count):
        part = SimpleNamespace(**vars(data))
        part.train_images, part.train_labels = data.train_images[:count], data.train_labels[:count]
        network = lesson.build_network(depth, skip=True)
        return lesson.train(network, part, 1, 0, budget["batch_size"])[0]["seconds"]

    most = len(data.train_labels)
    torch.manual_seed(0)
    lines = []
    for title, plan in (
        ("layers", [(depth, (depth, most)) for depth in (DEPTHS[:2] if options.dry_run else DEPTHS)]),
        ("pictures", [(count, (20, count)) for count in (most // 16, most // 8, most // 4, most // 2, most)]),
    ):
        seconds = {size: [] for size, _ in plan}
        for _ in tqdm(range(options.rounds), desc=f"seconds an epoch against {title}"):
            for size, case in plan:
                seconds[size].append(epoch(*case))
        medians = {size: statistics.median(times) for size, times in seconds.items()}
        lines.append({"against": title, "seconds": medians, "lowest_and_highest": {
            size: [min(times), max(times)] for size, times in seconds.items()}})  # fmt: skip
        print_growth(title, seconds, "an epoch")
    return lines


def print_growth(title, seconds, what):
    """A table of medians, and one sentence on whether they lie on a line."""
    medians = {size: statistics.median(times) for size, times in seconds.items()}
    print(f"\n| {title} | seconds {what} | lowest-highest | milliseconds per one of the {title} |\n|---|---|---|---|")
    for size, times in seconds.items():
        spread = f"{min(times):.2f}-{max(times):.2f}"
        print(f"| {size:,} | {medians[size]:.2f} | {spread} | {1000 * medians[size] / size:.2f} |")
    slope, start = statistics.linear_regression(medians.keys(), medians.values())
    off = {size: value / (start + slope * size) - 1 for size, value in medians.items()}
    bent = [f"{size:,} ({share:+.0%})" for size, share in off.items() if abs(share) > 0.1]
    print(f"\nA line of {1000 * slope:.2f} ms each and {start:+.2f} s for everything else fits "
          + (f"to within 10 % but at {', '.join(bent)}." if bent else "all of them to within 10 %."))  # fmt: skip


# ---- accuracy ------------------------------------------------------------------------------------------------------


def train_resnet18(side, lesson, data, budget, seed, mirrored=False):
    """Exercise 1's network, trained by one of the loops: (test accuracy, seconds in all, seconds an epoch)."""
    epochs, batch_size, device = budget["epochs"], budget["batch_size"], data.train_labels.device
    label = f"{side}, {epochs} epochs, seed {seed}"
    torch.manual_seed(seed)
    model = lesson.ResNet18().apply(lesson.initialise).to(device)
    loader = textbook_loader(data.train_images, data.train_labels, data, batch_size, True) if side != "ours" else None
    start = time.perf_counter()
    if side == "ours":
        lesson.train(model, data, epochs, seed, batch_size, label=label, smoothing=budget["smoothing"])
    else:
        textbook_train(model, tqdm_loader(loader, label), epochs, seed, batch_size)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    tests = textbook_loader(data.test_images, data.test_labels, data, 100, False)
    return textbook_accuracy(lesson.Mirrored(model) if mirrored else model, tests), seconds, seconds / epochs


def accuracy(options):
    """Exercise 1's network, by both loops, on as many pictures, from three seeds."""
    lesson, budget, data = load("01", options.device, 64 * options.dry_run, options.data, options.data_dir, quiet=False)
    epochs, batch_size = budget["epochs"], budget["batch_size"]
    found, seconds = {side: [] for side in SIDES}, {side: [] for side in SIDES}
    for seed in range(1 if options.dry_run else 3):
        for side in SIDES:
            accuracy, took, _ = train_resnet18(side, lesson, data, budget, seed)
            found[side].append(accuracy)
            seconds[side].append(took)
    print(f"\nResNet-18, {data.name}: {epochs} epochs of {len(data.train_labels):,} pictures, batches of {batch_size}")
    print("\n| loop | test accuracy, a seed each | mean | seconds |\n|---|---|---|---|")
    for side in SIDES:
        numbers = ", ".join(f"{value:.1%}" for value in found[side])
        mean, time_ = statistics.mean(found[side]), statistics.median(seconds[side])
        print(f"| {side} | {numbers} | {mean:.1%} | {time_:.0f} |")
    return {"data": data.name, "epochs": epochs, "accuracy": found, "seconds": seconds}


def fast(options):
    """Exercise 1's --preset fast beside the textbook loop's 15 epochs; then as many fast epochs as fit in a minute."""
    lesson, budget, data = load("01", options.device, 64 * options.dry_run, options.data, options.data_dir, quiet=False)
    textbook, preset = budget | {"epochs": 1 if options.dry_run else 15}, budget | lesson.BUDGET["fast"]
    preset["epochs"] = 1 if options.dry_run else preset["epochs"]
    lines = [("textbook", textbook, train_resnet18("textbook", lesson, data, textbook, 0))]
    lines.append(("--preset fast", preset, train_resnet18("ours", lesson, data, preset, 0, mirrored=True)))
    minute = preset | {"epochs": 1 if options.dry_run else max(1, int(60 / lines[-1][2][2]))}
    lines.append(("--preset fast, a minute", minute, train_resnet18("ours", lesson, data, minute, 0, mirrored=True)))
    print(f"\nResNet-18, {data.name}: {len(data.train_labels):,} training, {len(data.test_labels):,} test pictures")
    print("\n| recipe | epochs | batch | test accuracy | seconds of training |\n|---|---|---|---|---|")
    for name, used, (share, seconds, _) in lines:
        print(f"| {name} | {used['epochs']} | {used['batch_size']} | {share:.2%} | {seconds:.1f} |")
    return [
        {"recipe": name, **used, "accuracy": share, "seconds": seconds} for name, used, (share, seconds, _) in lines
    ]


class tqdm_loader:
    """A loader with a progress bar for each pass."""

    def __init__(self, loader, label):
        self.loader, self.label = loader, label

    def __iter__(self):
        return iter(tqdm(self.loader, desc=self.label, unit="batch", leave=False))


# ---- the five runs, and grading ------------------------------------------------------------------------------------


def runs(options):
    """Every solution's default run, in a folder of its own."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for exercise, path in SOLUTIONS.items():
            shutil.copy(path, folder)
            print(f"== {path.name}", flush=True)
            start = time.perf_counter()
            command = [sys.executable, path.name, "--data", "shapes", *["--dry-run"] * options.dry_run]
            child = subprocess.Popen(command, cwd=folder)
            _, status, usage = os.wait4(child.pid, 0)
            if status:
                sys.exit(f"{path.name} ended with exit status {os.waitstatus_to_exitcode(status)}")
            megabytes = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
            lines.append({"exercise": exercise, "seconds": time.perf_counter() - start, "megabytes": megabytes})
    print("\n| exercise | seconds | may take on 4 cores | peak memory, MB |\n|---|---|---|---|")
    for line in lines:
        limit = 60 * MINUTES[line["exercise"]]
        print(f"| {int(line['exercise'])} | {line['seconds']:.0f} | {limit} | {line['megabytes']:,.0f} |")
    print(f"\nAll five: {sum(line['seconds'] for line in lines) / 60:.1f} minutes")
    return lines


def grading(options):
    """tools/grade.py on classes in which everybody hands in the solution of exercise 1."""
    seconds = {}
    for count in (1, 2) if options.dry_run else (10, 30, 100):
        with tempfile.TemporaryDirectory() as folder:
            for i in range(count):
                (learner := Path(folder, "class", f"learner{i:03}")).mkdir(parents=True)
                text = SOLUTIONS["01"].read_text("utf-8") + f"\n# learner {i}\n"  # files alike are graded but once
                (learner / SOLUTIONS["01"].name).write_text(text, "utf-8")
            command = [sys.executable, ROOT / "tools" / "grade.py", Path(folder, "class"), "--out", Path(folder, "out")]
            start = time.perf_counter()
            subprocess.run([*command, "--exercises", "1"], check=True, stdout=subprocess.DEVNULL)
            seconds[count] = [time.perf_counter() - start]
    print_growth("submissions", seconds, "in all")
    return [{"submissions": count, "seconds": times[0]} for count, times in seconds.items()]


# ---- command line --------------------------------------------------------------------------------------------------


def machine():
    """What the figures were measured on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "processor": model,
        "cores": cores,
        "gpu": chip,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    subjects = {subject.__name__: subject for subject in (training, growth, accuracy, fast, runs, grading)}
    parser.add_argument("subject", nargs="?", choices=subjects, default="training", help="default: training")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number to FILE")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each loop (default: 5)")
    parser.add_argument("--dry-run", action="store_true", help="one tiny step of everything: the numbers mean nothing")
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="NETWORK", help=f"only these: {', '.join(ROWS)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--without-bf16", action="store_true", help="as on a CPU with AVX2 and nothing newer")
    parser.add_argument(
        "--data", choices=("shapes", "cifar10"), default="shapes", help="for accuracy and fast; default: shapes"
    )
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data", metavar="DIR", help="where CIFAR-10 is")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: give 1 or more")
    options.rounds = 1 if options.dry_run else options.rounds
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    start = time.perf_counter()
    numbers = subjects[options.subject](options)
    seconds = time.perf_counter() - start
    facts = machine()
    print(f"\n{facts['processor']}, {facts['cores']} cores, {facts['gpu']}; Python {facts['python']}, "
          f"torch {facts['torch']}; {seconds / 60:.1f} minutes")  # fmt: skip
    if options.json:
        whole = options.json.with_name(options.json.name + ".unfinished")
        record = {"subject": options.subject, "machine": facts, "seconds": seconds, "numbers": numbers}
        whole.write_text(json.dumps(record, indent=1), "utf-8")
        os.replace(whole, options.json)


if __name__ == "__main__":
    main()
