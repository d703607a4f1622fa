"""What every test shares: --target and --data-dir, the learner's file as a module, and a report that teaches.

A test belongs to a task: @pytest.mark.task("1.1"). It takes the learner's module as the fixture `lesson`.
"""

import importlib.util
import inspect
import itertools
import os
import re
import subprocess
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import torch
from cifar10 import make_archive
from messages import UNWRITTEN, Wrong

ROOT = Path(__file__).resolve().parent.parent
OWN_ARGUMENT = "tests/conftest.py"  # see addopts in pyproject.toml


def pytest_addoption(parser):
    group = parser.getgroup("the course")
    group.addoption(
        "--target",
        default=ROOT,
        metavar="DIR",
        help="the folder with the files to test, such as solutions; one outside of this repository: --target=DIR",
    )
    group.addoption("--data-dir", default=ROOT / "data", metavar="DIR", help="where CIFAR-10 lies, if you have it")


def pytest_configure(config):
    config.addinivalue_line("markers", "task(number): the task of the exercise that a test belongs to")
    if config.args and config.args[0] == OWN_ARGUMENT:
        config.args = config.args[1:] or sorted(str(path) for path in ROOT.glob("tests/test_exercise_*.py"))
    target = Path(config.getoption("target"))
    if not target.is_dir():
        raise pytest.UsageError(f"--target {target}: there is no such folder")
    config.stash[TARGET] = target.resolve()
    config.stash[RESULTS] = {}


TARGET, RESULTS = pytest.StashKey(), pytest.StashKey()


# --- the learner's file ---------------------------------------------------------------------------------------------


def lesson_path(request):
    """The learner's file that a test file is about: test_X.py is about X.py in --target."""
    return request.config.stash[TARGET] / request.path.name.removeprefix("test_")


@pytest.fixture(scope="module")
def lesson(request):
    """The learner's file as a module."""
    path = lesson_path(request)
    if not path.is_file():
        raise Wrong(f"there is no {path.name} in {path.parent}")
    loader = getattr(request.config, "lesson_loader", SourceFileLoader)(path.stem, str(path))  # tools/inside.py's, or
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)  # plain Python's
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else line_in(path, error)
        raise Wrong(
            f"{path.name} cannot be imported: line {line}: {type(error).__name__}: {first_line(error)}"
        ) from None
    return module


@pytest.fixture(scope="module")
def script(request):
    """The path of the learner's file."""
    return lesson_path(request)


class DryRun:
    """A script's run with --dry-run, in a process of its own that goes on while other tests run."""

    def __init__(self, script, folder):
        self.script, self.folder = script, folder
        self.errors = open(folder / "errors.txt", "w+b")  # noqa: SIM115  closed with the fixture
        command = [sys.executable, script, "--dry-run", "--data", "shapes", "--out", folder]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},  # it must not crowd the tests
        )

    def finish(self):
        """Wait for the end. Returns the folder that the run has written to; raises Wrong if it failed."""
        if self.process.wait(timeout=100):
            self.errors.seek(0)
            said = re.split(r"[\r\n]+", self.errors.read().decode(errors="replace").strip())
            said = [line for line in said if not re.search(r"\d+%\|", line)]  # a progress bar
            raise Wrong((said or ["the script ended without a word"])[-1])
        return self.folder


@pytest.fixture(scope="module")
def dry_run(script, tmp_path_factory):
    """The learner's script, running with --dry-run."""
    run = DryRun(script, tmp_path_factory.mktemp("dry_run"))
    yield run
    run.process.kill()
    run.process.wait()
    run.errors.close()


@pytest.fixture(scope="module", autouse=True)
def start_early(request):
    """Start the script at once if one of the tests to come waits for it: that takes seconds, on another core."""
    waits = (item for item in request.session.items if item.path == request.path and "dry_run" in item.fixturenames)
    if not hasattr(request.config, "lesson_loader") and next(waits, None):
        request.getfixturevalue("dry_run")


@pytest.fixture(autouse=True)
def gradients_are_on():
    """A learner's code that switches gradients off for good fails its own test, and no other."""
    yield
    torch.set_grad_enabled(True)


@pytest.fixture(scope="session")
def cifar10_dir(request, tmp_path_factory):
    """A folder in which torchvision finds CIFAR-10: --data-dir if it is there, else a small archive in its format."""
    folder = Path(request.config.getoption("data_dir"))
    if (folder / "cifar-10-batches-py").is_dir():
        yield folder
    else:
        with pytest.MonkeyPatch.context() as monkeypatch:
            yield make_archive(tmp_path_factory.mktemp("cifar10"), monkeypatch)


# --- the report -----------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    marker = item.get_closest_marker("task")
    if marker is None or not (report.failed or report.when == "call"):
        return report
    task, status = marker.args[0], "passed"
    if report.failed:
        report.when = "call"  # a file that cannot be imported fails its tests; it is not an error in them
        status, report.longrepr = explain(item, call.excinfo, task)
    item.config.stash[RESULTS].setdefault(task, []).append((status, item.name, str(report.longrepr or "")))
    return report


def explain(item, excinfo, task):
    """(status, message) of a failed test: "unwritten", "waits" for another task, or "wrong"."""
    error, path = excinfo.value, item.config.stash[TARGET] / item.path.name.removeprefix("test_")
    message = first_line(error)
    unwritten = UNWRITTEN.match(message)
    if unwritten and isinstance(error, NotImplementedError | Wrong):
        said = re.search(r"line (\d+)", message)  # by the script, which looks for the line without running it
        line = int(said[1]) if said else line_in(path, error)
        sentence = f"{unwritten[0]} is not written yet ({path.name}, line {line})"
        if line and is_left_over(path, line):
            sentence = f"{unwritten[0]}: delete line {line} of {path.name}, which still raises NotImplementedError"
        own = unwritten[1] == task
        return ("unwritten", sentence) if own else ("waits", f"task {task} needs another one first: {sentence}")
    if isinstance(error, Wrong):
        return "wrong", str(error)
    if message.startswith("Timeout") and isinstance(error, pytest.fail.Exception):
        seconds = re.search(r"[\d.]+", message)
        limit = float(seconds[0]) if seconds else float(item.config.getini("timeout"))
        return "wrong", f"took longer than {limit:g} s: look for a loop that does not end"
    line = line_in(path, error)
    if line is None:  # the learner's file is not involved: a mistake in the tests, so show where
        return "wrong", str(excinfo.getrepr(style="short"))
    return "wrong", f"{type(error).__name__}: {message} ({path.name}, line {line})"


def is_left_over(path, number):
    """Whether code stands between a task's TODO comment and the line that raises NotImplementedError."""
    lines = path.read_text("utf-8").splitlines()[: number - 1]
    before = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return not before.startswith("#")


def first_line(error):
    """The first line of what an exception says."""
    text = error.msg if isinstance(error, SyntaxError | pytest.fail.Exception) else error
    return (str(text).strip().splitlines() or ["no message"])[0]


def line_in(path, error):
    """The innermost line of a file that an exception came through, or None."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return lines[-1] if lines else None


def task_names():
    """{"1.1": "BasicBlock", ...} from the lists of tasks that the solutions' docstrings begin with."""
    texts = [path.read_text("utf-8") for path in sorted(ROOT.glob("solutions/exercise_0*.py"))]
    return dict(pair for text in texts for pair in re.findall(r"^    (\d+\.\d+)  (\w+)", text, re.MULTILINE))


def pytest_terminal_summary(terminalreporter, config):
    results, names = config.stash[RESULTS], task_names()
    if not results:
        return
    write = terminalreporter.write_line
    if config.option.tbstyle == "no":
        for task in sorted(results):
            said = set()
            for test, failures in itertools.groupby(results[task], key=lambda result: result[1].partition("[")[0]):
                messages = [message for status, _, message in failures if status == "wrong"]
                if messages and messages[0] not in said:  # one message a test: its other cases say the same
                    said.add(messages[0])
                    more = f" ({len(messages)} cases)" if len(messages) > 1 else ""
                    terminalreporter.write_sep("-", f"{task} {names.get(task, '')}: {test}{more}")
                    write(messages[0])
    terminalreporter.write_sep("=", "tasks")
    for task in sorted(results):
        statuses = [status for status, _, _ in results[task]]
        passed = statuses.count("passed")
        worst = next((s for s in ("wrong", "unwritten", "waits") if s in statuses), "passed")
        first = next((message for status, _, message in results[task] if status == worst), "")
        said = {
            "passed": "done",
            "wrong": "wrong, see above" + ("" if "cannot be imported" in first else f"; hints: EXERCISES.md, {task}"),
            "unwritten": first,
            "waits": first,
        }[worst]
        write(
            f"{task}  {names.get(task, ''):<22} {passed:>2} of {len(statuses):<2} tests pass   {said}",
            green=worst == "passed",
            red=worst == "wrong",
            yellow=worst in ("unwritten", "waits"),
        )


def pytest_collection_modifyitems(config, items):
    """Exercise by exercise, task by task, so that pytest -x stops at the next thing to do."""

    def order(item):
        marker = item.get_closest_marker("task")
        return (str(item.path), marker.args[0] if marker else "")

    for item in items:
        if item.get_closest_marker("task") is None and "lesson" in inspect.signature(item.function).parameters:
            raise pytest.UsageError(f"{item.nodeid}: says no @pytest.mark.task")
    items.sort(key=order)
    if config.option.tbstyle == "auto" and all(item.get_closest_marker("task") for item in items):
        # Nobody asked for tracebacks, and pytest_terminal_summary prints something shorter.
        config.option.tbstyle = "no"
        config.pluginmanager.get_plugin("terminalreporter").reportchars = ""
