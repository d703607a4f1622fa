"""Run the tests on wrong and right answers, and print how many they catch, name and accept, task by task.

python tools/kill_matrix.py             all of them; exit status 1 if any answer is misjudged, or too few are named
python tools/kill_matrix.py 3.2 5       only task 3.2 and exercise 5
python tools/kill_matrix.py --messages  and print what each wrong answer is told

A wrong answer must fail at its own task; it may fail at others only where these use it. A message must name what is
wrong, for nine in ten. A right answer must pass.
"""

import argparse
import ast
import contextlib
import gc
import importlib
import io
import multiprocessing
import os
import re
import runpy
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = {path.name: path for path in sorted(ROOT.glob("solutions/exercise_0*.py"))}
DEPENDS = {  # tasks whose tests use an earlier task's answer
    "1.1": {"1.2"},
    "2.1": {"2.2", "2.3", "2.5"},
    "2.2": {"2.3", "2.5"},
    "4.1": {"4.2", "4.4"},
    "4.2": {"4.4"},
}
SLOW = "not script_runs and not learns_cifar10 and not training_steps"


class Runner:
    """A pytest plugin: runs the wanted tests, keeps the messages of those that fail, and what each test executes."""

    def __init__(self, wanted=lambda task, test: True, watch=None, enough=lambda task, failures: False):
        self.wanted, self.enough = wanted, enough  # enough: whether a task's failures tell all there is to know
        self.watch = watch  # the file whose functions are looked for
        self.tasks, self.failures, self.lines = {}, {}, {}

    def pytest_collection_modifyitems(self, config, items):
        self.tasks = {item.nodeid: item.get_closest_marker("task").args[0] for item in items}
        items[:] = [item for item in items if self.wanted(self.tasks[item.nodeid], item.nodeid)]

    def pytest_runtest_protocol(self, item):
        task = self.tasks[item.nodeid]
        return self.enough(task, self.failures.get(task, [])) or None  # True: the test is not run

    def pytest_runtest_logstart(self, nodeid):
        if self.watch:
            seen = self.lines[nodeid] = set()

            def profile(frame, event, _):
                if event == "call" and frame.f_code.co_filename == self.watch:
                    seen.add(frame.f_code.co_firstlineno)

            sys.setprofile(profile)
            threading.setprofile(profile)

    def pytest_runtest_logfinish(self, nodeid):
        sys.setprofile(None)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failures.setdefault(self.tasks[report.nodeid], []).append(str(report.longrepr))


def run_tests(folder, name, runner):
    """Run the tests of the script of that name in a folder; raise if pytest itself fails."""
    import pytest

    os.chdir(ROOT)
    flags = ["-q", "-p", "no:cacheprovider", "--assert=plain", f"--target={folder}", "-k", SLOW, f"tests/test_{name}"]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        status = pytest.main(flags, plugins=[runner])
    if status not in (0, 1, 5):  # 5: no test was wanted
        raise RuntimeError(f"{name}: pytest ended with {status}: {said.getvalue()[-500:]}")


# --- which tests an answer needs ------------------------------------------------------------------------------------
# A test that executes nothing of what an answer changes does on it what it does on the solution: it passes. So an
# answer needs only its own task's tests and those that execute a changed function, as one run on the solution shows.


def functions(text):
    """{name: (first line, last line, its code)} of functions and methods, and the code of all other statements."""
    found, rest = {}, Counter()

    def walk(body, prefix):
        for node in body:
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found[prefix + node.name] = (first, node.end_lineno, ast.dump(node))
            elif isinstance(node, ast.ClassDef):
                rest[f"{prefix}{node.name} {[ast.dump(part) for part in node.bases + node.decorator_list]}"] += 1
                walk(node.body, f"{prefix}{node.name}.")
            else:
                rest[ast.dump(node)] += 1

    walk(ast.parse(text).body, "")
    return found, rest


def changed(solution, text):
    """The names of the solution's functions that a text changes; None if it changes something else."""
    (old, old_rest), (new, new_rest) = functions(solution), functions(text)
    classes = {name.rpartition(".")[0] for name in set(new) - set(old)} - {""}  # a new method can stand for an old one
    if old_rest - new_rest:
        return None
    return {name for name in old if old[name][2] != new.get(name, (0, 0, ""))[2] or name.rpartition(".")[0] in classes}


def executed(name):
    """(name, {test: the names of the solution's functions that it executes})."""
    path = SOLUTIONS[name]
    runner = Runner(watch=str(path))
    run_tests(path.parent, name, runner)
    known = functions(path.read_text("utf-8"))[0]
    return name, {
        test: {f for f, (first, last, _) in known.items() if any(first <= line <= last for line in lines)}
        for test, lines in runner.lines.items()
    }


# --- one answer -----------------------------------------------------------------------------------------------------


JOBS = []  # (variant, file name, text, uses, every): what the processes fork with, since a variant cannot be sent


def judge(index):
    """(index, failures by task) of an answer; runs in a process of its own, so that nothing of it is left."""
    variant, name, text, uses, every = JOBS[index]
    touched = changed(SOLUTIONS[name].read_text("utf-8"), text)
    idle = set() if variant.right else DEPENDS.get(variant.task, set())  # may fail; it does not matter

    def wanted(task, test):
        return task == variant.task or (task not in idle and (touched is None or touched & uses.get(test, set())))

    def enough(task, failures):
        return not every and task == variant.task and named(variant, failures)

    runner = Runner(wanted, enough=enough)
    with tempfile.TemporaryDirectory() as target:
        Path(target, name).write_text(text, "utf-8")
        run_tests(target, name, runner)
    return index, runner.failures


def verdict(variant, failures):
    """What is wrong with the tests' judgement of an answer: "" if nothing, "unnamed" if only the name is missing."""
    failed = set(failures)
    if variant.right:
        return f"rejected: {first(failures)}" if failed else ""
    if variant.task not in failed:
        return f"not caught at its task; failed: {sorted(failed) or 'nothing'}"
    astray = failed - {variant.task} - DEPENDS.get(variant.task, set())
    if astray:
        return f"fails at {sorted(astray)}, too: {first({task: failures[task] for task in astray})}"
    return "" if named(variant, failures[variant.task]) else "unnamed"


def named(variant, messages):
    """Whether the messages say what is wrong with an answer."""
    return variant.says is not None and variant.says in "\n".join(messages)


def other_names(variant, failures):
    """The mistakes that the messages name and that are not the answer's own."""
    named = re.findall(r"likeliest mistake: (.*)", "\n".join(failures.get(variant.task, [])))
    return sorted({name for name in named if variant.says and variant.says not in name})


def first(failures):
    """The first message."""
    return next((messages[0].replace("\n", " ") for messages in failures.values()), "")[:300]


# --- all of them ----------------------------------------------------------------------------------------------------


def load(wanted):
    """All variants of the tasks and exercises asked for."""
    sys.path.insert(0, str(ROOT / "tests" / "variants"))
    found = [v for n in range(1, 6) for v in importlib.import_module(f"exercise_0{n}").VARIANTS]
    return [v for v in found if not wanted or v.task in wanted or v.task[0] in wanted]


def try_all(variants, every=False):
    """The failures of each variant, by its index. every: run tests on after one that names what is wrong, too."""
    from changes import apply

    texts = [apply(variant) for variant in variants]
    names = sorted({name for name, _ in texts})
    for name in names:  # once, before the processes fork: all that the scripts and the tests import
        runpy.run_path(str(SOLUTIONS[name]), run_name="imported")
    for module in ("pytest", "torch.utils.flop_counter", "torchvision.models", "torch.optim", "torch._dynamo"):
        importlib.import_module(module)
    gc.freeze()  # or the collector would touch, and so copy, every page that the processes share
    with pool() as workers:
        uses = dict(workers.imap_unordered(executed, names))
    JOBS[:] = [(variant, *text, uses[text[0]], every) for variant, text in zip(variants, texts)]
    with pool() as workers:
        found = dict(tqdm(workers.imap_unordered(judge, range(len(JOBS))), total=len(JOBS), unit="answer"))
    gc.unfreeze()
    return found


def pool():
    """A pool of processes, each of which forks from this one for one job."""
    return multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0)), maxtasksperchild=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="tasks or exercises, such as 3.2 or 5 (default: all)")
    parser.add_argument("--messages", action="store_true", help="print what each wrong answer is told")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    variants = load(args.tasks)
    found = try_all(variants, args.messages)
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
            for name in other_names(variant, found[i]):
                print(f"{variant.task} {variant.name}: OTHER NAME: {name}")
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
