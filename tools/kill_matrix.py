"""Run the tests on wrong and right answers, and print how many they catch, name and accept, task by task.

python tools/kill_matrix.py             about three minutes on 4 cores; exit status 1 if any answer is misjudged
python tools/kill_matrix.py 3.2 5       only task 3.2 and exercise 5

A wrong answer must fail at its own task; it may fail at others only where these use it. A message must name what is
wrong, for nine in ten. A right answer must pass.
"""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
DEPENDS = {  # tasks whose tests use an earlier task's answer
    "1.1": {"1.2"},
    "1.3": {"1.1", "1.2"},
    "2.1": {"2.2", "2.3", "2.5"},
    "2.2": {"2.3", "2.5"},
    "4.1": {"4.2", "4.4"},
    "4.2": {"4.4"},
}
SLOW = "not script_runs and not learns_cifar10 and not training_steps"


class Collector:
    """A pytest plugin that keeps, for each task, the messages of its failed tests."""

    def __init__(self):
        self.tasks, self.failures = {}, {}

    def pytest_collection_modifyitems(self, items):
        self.tasks = {item.nodeid: item.get_closest_marker("task").args[0] for item in items}

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failures.setdefault(self.tasks[report.nodeid], []).append(str(report.longrepr))


def load(wanted):
    """All variants of the tasks and exercises asked for."""
    sys.path.insert(0, str(ROOT / "tests" / "variants"))
    found = [v for n in range(1, 6) for v in importlib.import_module(f"exercise_0{n}").VARIANTS]
    return [v for v in found if not wanted or v.task in wanted or v.task[0] in wanted]


def judge(job):
    """(index, failures by task) of one variant; runs in a process of its own, so that nothing of it is left."""
    import pytest

    index, name, text = job
    collector = Collector()
    with tempfile.TemporaryDirectory() as target, contextlib.redirect_stdout(io.StringIO()) as said:
        Path(target, name).write_text(text, "utf-8")
        os.chdir(ROOT)
        flags = ["-q", "-p", "no:cacheprovider", f"--target={target}", "-k", SLOW, f"tests/test_{name}"]
        with contextlib.redirect_stderr(said):
            status = pytest.main(flags, plugins=[collector])
    if status not in (0, 1):
        return index, {"none": [f"pytest ended with {status}: {said.getvalue()[-500:]}"]}
    return index, collector.failures


def verdict(variant, failures):
    """What is wrong with the tests' judgement of a variant: "" if nothing, "unnamed" if only the name is missing."""
    failed = set(failures)
    if variant.right:
        return f"rejected: {first(failures)}" if failed else ""
    if variant.task not in failed:
        return f"not caught at its task; failed: {sorted(failed) or 'nothing'}"
    astray = failed - {variant.task} - DEPENDS.get(variant.task, set())
    if astray:
        return f"fails at {sorted(astray)}, too: {first({task: failures[task] for task in astray})}"
    if variant.says is None or not re.search(re.escape(variant.says), "\n".join(failures[variant.task])):
        return "unnamed"
    return ""


def first(failures):
    """The first message."""
    return next((messages[0].replace("\n", " ") for messages in failures.values()), "")[:300]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="tasks or exercises, such as 3.2 or 5 (default: all)")
    parser.add_argument("--messages", action="store_true", help="print what each wrong answer is told")
    args = parser.parse_args()
    variants = load(args.tasks)
    from changes import apply

    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    import pytest  # noqa: F401  once, before the processes fork
    import torchvision  # noqa: F401

    jobs = [(i, *apply(variant)) for i, variant in enumerate(variants)]
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0)), maxtasksperchild=1) as pool:
        found = dict(tqdm(pool.imap_unordered(judge, jobs), total=len(jobs), unit="answer"))
    tables, bad = {}, []
    for i, variant in enumerate(variants):
        row = tables.setdefault(variant.task, Counter())
        said = verdict(variant, found[i])
        row["right" if variant.right else "wrong"] += 1
        row["accepted"] += variant.right and not said
        row["caught"] += not variant.right and said in ("", "unnamed")
        row["named"] += not variant.right and not said
        if said not in ("", "unnamed"):
            bad.append(f"{variant.task} {variant.name}: {said}")
        if args.messages and not variant.right:
            print(f"{variant.task} {variant.name} [{said}]: {first({0: found[i].get(variant.task, [''])})}")
    tables["all"] = sum(tables.values(), Counter())
    print("task   wrong  caught  named   right  accepted")
    for task in sorted(tables):
        row = tables[task]
        print(f"{task:5} {row['wrong']:6} {row['caught']:7} {row['named']:6} {row['right']:7} {row['accepted']:9}")
    print("\n".join(bad))
    total = tables["all"]
    sys.exit(1 if bad or total["named"] < 0.9 * total["wrong"] else 0)


if __name__ == "__main__":
    main()
