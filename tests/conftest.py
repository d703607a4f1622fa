"""What every test shares: --target and --data-dir, the learner's module, and a report that teaches.

A test belongs to a task: @pytest.mark.task("1.1"). Its fixture `lesson` is the learner's module.
"""

import importlib.util
import inspect
import itertools
import os
import re
import subprocess
import sys
import tokenize
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path

import messages
import pytest
import torch
from cifar10 import make_archive
from course import ROOT, TASKS
from messages import UNWRITTEN, Wrong
from unchanged import TorchsClasses

OWN_ARGUMENT = "tests/conftest.py"  # see addopts in pyproject.toml


TARGET = pytest.StashKey()
RESULTS = pytest.StashKey()


def pytest_addoption(parser):
    group = parser.getgroup("the course")
    group.addoption(
        "--target",
        default=ROOT,
        metavar="DIR",
        help="the folder with the files to test, such as solutions; one elsewhere: --target=DIR",
    )
    group.addoption(
        "--data-dir", default=ROOT / "data", metavar="DIR", help="where CIFAR-10 is, if you have it"
    )
    group.addoption(
        "--draw", type=int, default=0, metavar="N", help="which random inputs; each N gives others"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "task(number): the task that a test belongs to")
    if config.args and config.args[0] == OWN_ARGUMENT:
        test_files = sorted(str(path) for path in ROOT.glob("tests/test_exercise_*.py"))
        config.args = config.args[1:] or test_files
    target = Path(config.getoption("target"))
    if not target.is_dir():
        raise pytest.UsageError(f"--target {target}: there is no such folder")
    config.stash[TARGET] = target.resolve()
    config.stash[RESULTS] = {}
    messages.DRAW = config.getoption("draw")


# The learner's file


def lesson_path(request):
    """The learner's file that a test file is about: test_X.py is about X.py in --target."""
    return request.config.stash[TARGET] / request.path.name.removeprefix("test_")


@pytest.fixture(scope="module")
def lesson(request):
    """The learner's file as a module."""
    path = lesson_path(request)
    if not path.is_file():
        raise Wrong(f"there is no {path.name} in {path.parent}")
    loader = SourceFileLoader(path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else line_in(path, error)
        raise Wrong(
            f"{path.name} cannot be imported: line {line}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from None
    return module


@pytest.fixture(scope="module")
def script(request):
    """The path of the learner's file."""
    return lesson_path(request)


class DryRun:
    """A script's run with --dry-run, in a process of its own, while other tests run."""

    def __init__(self, script, folder):
        self.folder = folder
        self.errors = open(folder / "errors.txt", "w+b")  # noqa: SIM115  closed with the fixture
        environment = {
            **os.environ,
            "PYTHONIOENCODING": "utf-8",
            "OMP_NUM_THREADS": "1",  # it must not crowd the tests
        }
        self.process = subprocess.Popen(
            [sys.executable, script, "--dry-run", "--data", "shapes", "--out", folder],
            cwd=folder,
            stdin=subprocess.DEVNULL,  # a breakpoint() would read what is meant for pytest
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env=environment,
        )

    def finish(self):
        """Wait for the end. Returns the folder with the results; raises Wrong if the run failed."""
        if self.process.wait(timeout=100) != 0:
            raise Wrong(self.last_line())
        return self.folder / "dry_run"

    def last_line(self):
        """The last line that the script wrote to stderr, progress bars aside."""
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        lines = [line for line in re.split(r"[\r\n]+", text) if not re.search(r"\d+%\|", line)]
        return ([line for line in lines if line] or ["the script ended without a message"])[-1]


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
    """Start the script at once if a test to come waits for it: that takes seconds."""
    for item in request.session.items:
        if item.path == request.path and "dry_run" in item.fixturenames:
            request.getfixturevalue("dry_run")
            return


@pytest.fixture(autouse=True)
def torch_stays_as_it_is():
    """A learner's code that changes torch itself fails its own test, and no other."""
    classes = TorchsClasses()
    yield
    torch.set_grad_enabled(True)
    changed = classes.restore()
    if changed:
        raise Wrong(
            f"your code changes torch itself ({', '.join(sorted(changed))}), for everybody who "
            "uses it: make a class of your own, or a layer with other settings."
        )


@pytest.fixture(scope="session")
def cifar10_dir(request, tmp_path_factory):
    """A folder with CIFAR-10 for torchvision: --data-dir, or else a small archive in its format."""
    folder = Path(request.config.getoption("data_dir"))
    if (folder / "cifar-10-batches-py").is_dir():
        yield folder
    else:
        with pytest.MonkeyPatch.context() as monkeypatch:
            yield make_archive(tmp_path_factory.mktemp("cifar10"), monkeypatch)


# The report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    marker = item.get_closest_marker("task")
    if marker is None or not (report.failed or report.when == "call"):
        return report
    task = marker.args[0]
    status = "passed"
    if report.failed:
        report.when = "call"  # a file that cannot be imported fails its tests; they have no error
        status, report.longrepr = explain(item, call.excinfo, task)
    result = (status, item.name, str(report.longrepr or ""))
    item.config.stash[RESULTS].setdefault(task, []).append(result)
    return report


def explain(item, excinfo, task):
    """(status, message) of a failed test: "unwritten", "waits" for another task, or "wrong"."""
    error = excinfo.value
    path = item.config.stash[TARGET] / item.path.name.removeprefix("test_")
    message = first_line(error)
    unwritten = UNWRITTEN.match(message)
    if unwritten and isinstance(error, NotImplementedError | Wrong):
        sentence = unwritten_sentence(path, error, unwritten[0])
        if unwritten[1] == task:
            return "unwritten", sentence
        return "waits", f"task {task} needs another one first: {sentence}"
    if isinstance(error, Wrong):
        return "wrong", str(error)
    if message.startswith("Timeout") and isinstance(error, pytest.fail.Exception):
        return "wrong", timeout_sentence(item, message)
    line = line_in(path, error)
    if line is None:  # the learner's file is not involved: a mistake in the tests, so show where
        return "wrong", str(excinfo.getrepr(style="short"))
    return "wrong", f"{type(error).__name__}: {message} ({path.name}, line {line})"


def unwritten_sentence(path, error, todo):
    """What to say of a task that raises NotImplementedError("TODO ...")."""
    named = re.search(r"line (\d+)", first_line(error))  # by the script, which reads its own file
    line = int(named[1]) if named else line_in(path, error)
    if line and is_left_over(path, line):
        return f"{todo}: delete line {line} of {path.name}, which still raises NotImplementedError"
    return f"{todo} is not written yet ({path.name}, line {line})"


def timeout_sentence(item, message):
    """What to say of a test that took too long."""
    named = re.search(r"[\d.]+", message)
    limit = float(named[0]) if named else float(item.config.getini("timeout"))
    return (
        f"took longer than {limit:g} s: look for a loop that does not end, "
        "or run it again while nothing else keeps the computer busy"
    )


def is_left_over(path, number):
    """Whether code stands between a task's TODO comment and the line that raises its error."""
    with tokenize.open(path) as file:
        lines = [line.strip() for line in file.readlines()[: number - 1]]
    code = [line for line in lines if line]
    return not code or not code[-1].startswith("#")


def first_line(error):
    """The first line of what an exception says."""
    text = error.msg if isinstance(error, SyntaxError | pytest.fail.Exception) else error
    return (str(text).strip().splitlines() or ["no message"])[0]


def line_in(path, error):
    """The innermost line of a file that an exception came through, or None."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return lines[-1] if lines else None


def pytest_terminal_summary(terminalreporter, config):
    results = config.stash[RESULTS]
    if not results:
        return
    if config.option.tbstyle == "no":
        for task in sorted(results):
            write_messages(terminalreporter, task, results[task])
    terminalreporter.write_sep("=", "tasks")
    for task in sorted(results):
        write_row(terminalreporter, task, results[task])


def write_messages(terminalreporter, task, results):
    """What is wrong with a task: one message per test, as a test's other cases say the same."""
    told = set()
    for test, cases in itertools.groupby(results, key=lambda result: result[1].partition("[")[0]):
        messages = [message for status, _, message in cases if status == "wrong"]
        if messages and messages[0] not in told:
            told.add(messages[0])
            count = f" ({len(messages)} cases)" if len(messages) > 1 else ""
            terminalreporter.write_sep("-", f"{task} {TASKS.get(task, '')}: {test}{count}")
            terminalreporter.write_line(messages[0])


def write_row(terminalreporter, task, results):
    """A task's line of the closing table."""
    statuses = [status for status, _, _ in results]
    passed = statuses.count("passed")
    worst = "passed"
    remark = "done"
    for status in ("waits", "unwritten", "wrong"):
        if status in statuses:
            worst = status
            remark = results[statuses.index(status)][2]
    if worst == "wrong":
        broken = "cannot be imported" in remark
        remark = "wrong, see above" + ("" if broken else f"; hints: EXERCISES.md, {task}")
    count = f"{passed:>2} of {len(statuses):<2} tests pass"
    terminalreporter.write_line(
        f"{task}  {TASKS.get(task, ''):<22} {count}   {remark}",
        green=worst == "passed",
        red=worst == "wrong",
        yellow=worst in ("unwritten", "waits"),
    )


def pytest_collection_modifyitems(config, items):
    """Exercise by exercise, task by task, so that pytest -x stops at the next thing to do."""

    def place(item):
        marker = item.get_closest_marker("task")
        return (str(item.path), marker.args[0] if marker else "")

    for item in items:
        takes_lesson = "lesson" in inspect.signature(item.function).parameters
        if takes_lesson and item.get_closest_marker("task") is None:
            raise pytest.UsageError(f"{item.nodeid}: says no @pytest.mark.task")
    items.sort(key=place)
    all_have_tasks = all(item.get_closest_marker("task") for item in items)
    if config.option.tbstyle == "auto" and all_have_tasks:
        # Nobody asked for tracebacks, and pytest_terminal_summary prints something shorter.
        config.option.tbstyle = "no"
        config.pluginmanager.get_plugin("terminalreporter").reportchars = ""
