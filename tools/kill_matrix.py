"""Run the tests on wrong and right answers: how many do they catch, name and accept, by task?

python tools/kill_matrix.py             all; exit status 1 if one is misjudged, or too few are named
python tools/kill_matrix.py 3.2 5       only task 3.2 and exercise 5
python tools/kill_matrix.py --messages  and print what each wrong answer is told
python tools/kill_matrix.py --own       only the tests of each answer's own task: sooner done
python tools/kill_matrix.py --share 3   only every third answer

A wrong answer must fail at its own task; it may fail at others only where these use it. For nine in
ten of all, a message must name the mistake. A right answer must pass.
"""

import argparse
import ast
import contextlib
import functools
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
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "variants")]
import changes  # noqa: E402
import course  # noqa: E402

SOLUTIONS = {path.name: path for path in course.SOLUTIONS.values()}
FAST = "not script_runs and not learns_cifar10"


class Runner:
    """A pytest plugin: runs the wanted tests, keeps failures, and what tests execute."""

    def __init__(self, wanted=None, watch=None, enough=None):
        self.wanted = wanted or (lambda task, test: True)
        self.enough = enough or (lambda task, failures: False)  # whether failures tell all
        self.watch = watch  # the file whose functions are looked for
        self.tasks = {}
        self.failures = {}
        self.lines = {}

    def pytest_collection_modifyitems(self, config, items):
        for item in items:
            self.tasks[item.nodeid] = item.get_closest_marker("task").args[0]
        items[:] = [item for item in items if self.wanted(self.tasks[item.nodeid], item.nodeid)]

    def pytest_runtest_protocol(self, item):
        task = self.tasks[item.nodeid]
        return self.enough(task, self.failures.get(task, [])) or None  # True: the test is not run

    def pytest_runtest_logstart(self, nodeid):
        if self.watch:
            lines = set()
            self.lines[nodeid] = lines

            def profile(frame, event, _):
                if event == "call" and frame.f_code.co_filename == self.watch:
                    lines.add(frame.f_code.co_firstlineno)

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
    flags = ["-q", "-p", "no:cacheprovider", "--assert=plain", f"--target={folder}", "-k", FAST]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = pytest.main([*flags, f"tests/test_{name}"], plugins=[runner])
    if status not in (0, 1, 5):  # 5: no test was wanted
        raise RuntimeError(f"{name}: pytest ended with {status}: {printed.getvalue()[-500:]}")


# Which tests an answer needs
#
# A test that executes nothing of what an answer changes passes, as on the solution.
# So an answer needs only its own task's tests and those that execute a changed function. One run on
# the solution shows which those are.


@functools.cache
def functions(text):
    """{name: (first line, last line, its code)} of functions; and how often other code occurs."""
    known = {}
    rest = Counter()

    def walk(body, prefix):
        for node in body:
            if isinstance(node, ast.FunctionDef):
                decorators = [decorator.lineno for decorator in node.decorator_list]
                first = min([node.lineno, *decorators])
                known[prefix + node.name] = (first, node.end_lineno, ast.dump(node))
            elif isinstance(node, ast.ClassDef):
                head = [ast.dump(part) for part in node.bases + node.decorator_list]
                rest[f"{prefix}{node.name} {head}"] += 1
                walk(node.body, f"{prefix}{node.name}.")
            else:
                rest[ast.dump(node)] += 1

    walk(ast.parse(text).body, "")
    return known, rest


def changed(solution, text):
    """The names of the solution's functions that a text changes; None if it changes more."""
    old, old_rest = functions(solution)
    new, new_rest = functions(text)
    if old_rest - new_rest:
        return None
    extended = {name.rpartition(".")[0] for name in set(new) - set(old)} - {""}
    names = set()
    for name, (_, _, code) in old.items():
        in_extended_class = name.rpartition(".")[0] in extended  # whose new method may replace it
        if name not in new or new[name][2] != code or in_extended_class:
            names.add(name)
    return names


def executed(name):
    """(name, {test: the names of the solution's functions that it executes})."""
    path = SOLUTIONS[name]
    runner = Runner(watch=str(path))
    run_tests(path.parent, name, runner)
    known, _ = functions(path.read_text("utf-8"))
    uses = {}
    for test, lines in runner.lines.items():
        uses[test] = {
            function
            for function, (first, last, _) in known.items()
            if any(first <= line <= last for line in lines)
        }
    return name, uses


# One answer


# One tuple per answer: (variant, file name, text, uses, every, own). The processes have it from
# before they fork, for a variant holds functions and cannot be sent. uses: what executed returns;
# None with own.
JOBS = []


def judge(index):
    """(index, failures by task) of an answer; in a process of its own, so that nothing is left."""
    variant, name, text, uses, every, own = JOBS[index]
    touched = changed(SOLUTIONS[name].read_text("utf-8"), text)
    idle = set() if variant.right else dependents(variant)  # these may fail; it does not matter

    def wanted(task, test):
        if task in idle:
            return False
        if own or task == variant.task:
            return task == variant.task
        return touched is None or touched & uses.get(test, set())

    def enough(task, failures):
        return not every and task == variant.task and named(variant, failures)

    runner = Runner(wanted, enough=enough)
    with tempfile.TemporaryDirectory() as target:
        Path(target, name).write_text(text, "utf-8")
        run_tests(target, name, runner)
    return index, runner.failures


def dependents(variant):
    """The tasks whose tests use the answer to a variant's task."""
    module = importlib.import_module(f"exercise_0{variant.task[0]}")
    return getattr(module, "USED_BY", {}).get(variant.task, set())


def verdict(variant, failures):
    """What is wrong with the tests' judgement of an answer: "", or "unnamed", or a sentence."""
    failed = set(failures)
    if variant.right:
        return f"rejected: {first(failures)}" if failed else ""
    if variant.task not in failed:
        return f"not caught at its task; failed: {sorted(failed) or 'nothing'}"
    astray = failed - {variant.task} - dependents(variant)
    if astray:
        return f"fails at {sorted(astray)}, too: {first({task: failures[task] for task in astray})}"
    return "" if named(variant, failures[variant.task]) else "unnamed"


def named(variant, messages):
    """Whether the messages name what is wrong with an answer."""
    return variant.says is not None and variant.says in "\n".join(messages)


def other_names(variant, failures):
    """The mistakes that the messages name and that are not the answer's own."""
    messages = "\n".join(failures.get(variant.task, []))
    mistakes = set(re.findall(r"likeliest mistake: (.*)", messages))
    return sorted(name for name in mistakes if variant.says and variant.says not in name)


def first(failures):
    """The first message."""
    for messages in failures.values():
        return messages[0].replace("\n", " ")[:300]
    return ""


# All of them


def load(wanted=()):
    """The variants of the tasks and exercises asked for; all of them if none are."""
    variants = []
    for path in sorted(ROOT.glob("tests/variants/exercise_0*.py")):
        variants += importlib.import_module(path.stem).VARIANTS
    if not wanted:
        return variants
    return [variant for variant in variants if {variant.task, variant.task[0]} & set(wanted)]


def try_all(variants, every=False, own=False):
    """The failures of each variant, by its index.

    every: run the rest of a task's tests, too, after one that names what is wrong. own: run no
    other task's tests.
    """
    answers = [changes.apply(variant) for variant in variants]
    names = sorted({name for name, _ in answers})
    preload(names)
    uses = {}
    if not own:
        with pool() as workers:
            uses = dict(workers.imap_unordered(executed, names))
    for variant, (name, text) in zip(variants, answers):
        JOBS.append((variant, name, text, uses.get(name), every, own))
    with pool() as workers:
        judged = workers.imap_unordered(judge, range(len(JOBS)))
        failures = dict(tqdm(judged, total=len(JOBS), unit="answer"))
    gc.unfreeze()
    return failures


def preload(names):
    """Import all that the scripts and the tests need once, before the processes fork."""
    for name in names:
        runpy.run_path(str(SOLUTIONS[name]), run_name="imported")
        functions(SOLUTIONS[name].read_text("utf-8"))
        importlib.import_module(f"test_{Path(name).stem}")
    for module in (
        "pytest",
        "torch.utils.flop_counter",
        "torchvision.models",
        "torch.optim",
        "torch._dynamo",
    ):
        importlib.import_module(module)
    gc.freeze()  # or the collector would touch, and so copy, every page that the processes share


def pool():
    """A pool of processes, each of which forks from this one for one job."""
    return multiprocessing.get_context("fork").Pool(
        len(os.sched_getaffinity(0)), maxtasksperchild=1
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "tasks", nargs="*", help="tasks or exercises, such as 3.2 or 5 (default: all)"
    )
    parser.add_argument("--messages", action="store_true", help="print what wrong answers are told")
    parser.add_argument("--own", action="store_true", help="only the tests of an answer's own task")
    parser.add_argument(
        "--share", type=int, default=1, metavar="N", help="only every Nth answer (default: all)"
    )
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if args.share < 1:
        parser.error(f"--share {args.share}: at least 1")
    variants = load(args.tasks)[:: args.share]
    if not variants:
        parser.error(f"there is no answer to {' or '.join(args.tasks)}")
    failures = try_all(variants, args.messages, args.own)
    verdicts = [verdict(variant, failures[i]) for i, variant in enumerate(variants)]
    if args.messages:
        for i, variant in enumerate(variants):
            print_messages(variant, failures[i], verdicts[i])
    total = print_table(variants, verdicts)
    misjudged = False
    for variant, judgement in zip(variants, verdicts):
        if judgement not in ("", "unnamed"):
            misjudged = True
            print(f"{variant.task} {variant.name}: {judgement}")
    # Of a few answers, by chance, fewer may be named.
    too_few_named = args.share == 1 and total["named"] < 0.9 * total["wrong"]
    sys.exit(1 if misjudged or too_few_named else 0)


def print_messages(variant, failures, judgement):
    """What a wrong answer is told first, and mistakes that are named and are not its own."""
    if variant.right:
        return
    for name in other_names(variant, failures):
        print(f"{variant.task} {variant.name}: OTHER NAME: {name}")
    message = first({variant.task: failures.get(variant.task, [""])})
    print(f"{variant.task} {variant.name} [{judgement}]: {message}")


def print_table(variants, verdicts):
    """How many answers are caught, named and accepted, task by task; returns the total."""
    rows = {}
    for variant, judgement in zip(variants, verdicts):
        row = rows.setdefault(variant.task, Counter())
        if variant.right:
            row["right"] += 1
            row["accepted"] += judgement == ""
        else:
            row["wrong"] += 1
            row["caught"] += judgement in ("", "unnamed")
            row["named"] += judgement == ""
    total = sum(rows.values(), Counter())
    print("task   wrong  caught  named   right  accepted")
    for task, row in [*sorted(rows.items()), ("all", total)]:
        print(
            f"{task:5} {row['wrong']:6} {row['caught']:7} {row['named']:6} "
            f"{row['right']:7} {row['accepted']:9}"
        )
    return total


if __name__ == "__main__":
    main()
