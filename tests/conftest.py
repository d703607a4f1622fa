"""What every test shares: --target and --data-dir, the learner's module, and a report that teaches.

A test belongs to a task: @pytest.mark.task("1.1"). Its fixture `lesson` is the learner's module.
"""

import ast
import ctypes
import functools
import inspect
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

if sys.version_info < (3, 10):
    sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}")

import pytest

try:
    import matplotlib  # noqa: F401
    import messages  # before torch: it sets what OpenMP reads when torch loads it
    import torch
    import torchvision  # noqa: F401
    import tqdm  # noqa: F401
except (ImportError, AttributeError) as error:
    sys.exit(
        f"{error}. Install what is missing, or activate the environment that has it. A file or "
        "folder of yours with the name of a package hides the package: rename it."
    )

if [int(part) for part in torch.__version__.split(".")[:2]] < [2, 6]:
    sys.exit(f"PyTorch 2.6 or newer is needed; this is {torch.__version__}")

from cifar10 import is_complete, make_archive
from course import MOST_DRAWS, ROOT, TASKS
from messages import UNWRITTEN, Wrong
from unchanged import SET_WITH_A_SEED, SETTINGS, TorchsClasses, new_module

OWN_ARGUMENT = "tests/conftest.py"  # see addopts in pyproject.toml


TARGET = pytest.StashKey()
BEGINNING = pytest.StashKey()
TESTS_BY_TASK = pytest.StashKey()
DESELECTED = pytest.StashKey()
DRY_RUN_LIMIT = 100  # seconds; in proportion with more than the usual --seconds
USUAL_SECONDS = 30  # of --seconds
SEEDING_TASKS = ("2.3", "4.4")


def pytest_addoption(parser):
    group = parser.getgroup("the course")
    group.addoption(
        "--target",
        default=ROOT,
        metavar="DIR",
        help="the folder with the files to test, such as solutions; for one outside of this "
        "folder write --target=DIR",
    )
    group.addoption(
        "--data-dir", default=ROOT / "data", metavar="DIR", help="where CIFAR-10 is, if you have it"
    )
    group.addoption("--task", choices=TASKS, metavar="N.M", help="run the tests of one task alone")
    group.addoption(
        "--draw", type=int, default=0, metavar="N", help="which random inputs; each N gives others"
    )
    group.addoption(
        "--seconds",
        type=float,
        default=USUAL_SECONDS,
        metavar="N",
        help="of computing that a test may take; the limit by the clock is --timeout",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "task(number): the task that a test belongs to")
    if config.args and config.args[0] == OWN_ARGUMENT:
        config.args = config.args[1:] or sorted(
            map(from_here, Path(__file__).parent.glob("test_exercise_*.py"))
        )
    for path in map(Path, config.args):
        if path.name.startswith("exercise_0") and path.suffix == ".py":
            tests = f"tests/test_{path.name}"
            raise pytest.UsageError(f"{path} has your code; the tests are in {tests}")
        if path.resolve() != ROOT and any(path.glob("exercise_0*.py")):
            raise pytest.UsageError(f"{path} has no tests; write: pytest --target={path}")
    target = Path(config.getoption("target"))
    if not target.is_dir():
        raise pytest.UsageError(f"--target {target}: there is no such folder")
    config.stash[TARGET] = target.resolve()
    messages.DRAW = config.getoption("draw")
    if not config.getoption("seconds") > 0:
        raise pytest.UsageError("--seconds must be more than 0")
    if not 0 <= messages.DRAW <= MOST_DRAWS:
        raise pytest.UsageError(f"--draw must be from 0 to {MOST_DRAWS:,}")


def pytest_ignore_collect(collection_path, config):
    """Leave out the maintainers' tests where pytest was started in a folder above this one.

    There it does not read pyproject.toml, which names the learners' tests.
    """
    name = collection_path.name
    is_maintainers = name.startswith("test_") and not name.startswith("test_exercise_0")
    if is_maintainers and (config.inipath is None or config.inipath.resolve().parent != ROOT):
        return True
    return None


def from_here(path):
    """A path as seen from the current folder, for pytest takes no brackets, as in "course [1]"."""
    try:
        return os.path.relpath(path)
    except ValueError:  # it is on another drive of Windows
        return str(path)


# The learner's file


def path_for(item):
    """The learner's file that a test is about: test_X.py is about X.py in --target."""
    return item.config.stash[TARGET] / item.path.name.removeprefix("test_")


@pytest.fixture(scope="module")
def lesson(request):
    """The learner's file as a module."""
    path = path_for(request)
    if not path.is_file():
        raise Wrong(f"there is no {path.name} in {path.parent}")
    module = new_module(path)
    sys.modules[path.stem] = module
    torch_as_it_is = TorchsClasses()
    try:
        module.__spec__.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else line_in(path, error)
        where = f"line {line}: " if line else ""
        remark = ""
        if b"\0" in path.read_bytes():
            remark = ". It has null bytes: if it is saved as UTF-16, save it as UTF-8"
        elif isinstance(error, SyntaxError):
            remark = f" (Python {platform.python_version()})"
        elif isinstance(error, SystemExit):
            remark = '. Only below if __name__ == "__main__": may a file run something'
        elif isinstance(error, ModuleNotFoundError) and str(error.name).startswith("exercise_0"):
            remark = ". Each exercise's file stands alone: copy into it what you need of another"
        raise Wrong(
            f"{path.name} cannot be imported: {where}"
            f"{type(error).__name__}: {first_line(error)}{remark}"
        ) from None
    torch_as_it_is.restore()  # for other files' tests
    return module


@pytest.fixture(scope="module")
def script(request):
    """The path of the learner's file."""
    return path_for(request)


class DryRun:
    """A script's run with --dry-run, in a process of its own, while other tests run."""

    def __init__(self, script, folder, limit):
        self.folder = folder
        self.limit = limit  # seconds
        self.errors = open(folder / "errors.txt", "w+b")  # noqa: SIM115  closed with the fixture
        environment = {
            **os.environ,
            "PYTHONIOENCODING": "utf-8",
            "PYTHONBREAKPOINT": "0",  # nobody can answer it
            "PYTHON_COLORS": "0",
            "OMP_NUM_THREADS": "1",  # it must not crowd the tests
        }
        self.process = subprocess.Popen(
            [sys.executable, script, "--dry-run", "--data", "shapes", "--out", folder],
            cwd=folder,
            stdin=subprocess.DEVNULL,  # what comes in is meant for pytest
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env=environment,
        )

    def finish(self):
        """Wait for the end. Returns the folder with the results; raises Wrong if the run failed."""
        computed_before = seconds_computed_by_children()
        try:
            status = self.process.wait(self.limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            computed = seconds_computed_by_children() - computed_before
            raise Wrong(f"the dry run {too_long(self.limit, computed)}") from None
        if status < 0:
            raise Wrong(
                f"the system ended the dry run ({signal.strsignal(-status)}). If memory is full, "
                "close other programs and run this again."
            )
        if status > 0:
            raise Wrong(self.last_line())
        return self.folder / "dry_run"

    def last_line(self):
        """Its exception's first line, or else the last line that it wrote to stderr."""
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        lines = [line for line in re.split(r"[\r\n]+", text) if not re.search(r"\d+%\|", line)]
        lines = [line for line in lines if line]
        _, traceback, rest = "\n".join(lines).rpartition("Traceback (most recent call last):\n")
        if traceback:
            lines = [line for line in rest.splitlines() if not line.startswith(" ")][:1]
        return lines[-1] if lines else "the script ended without a message"


def seconds_computed_by_children():
    """The processor time of the processes that were started here and have ended; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture(scope="module")
def dry_run(script, tmp_path_factory, request):
    """The learner's script, running with --dry-run."""
    limit = DRY_RUN_LIMIT * max(1, request.config.getoption("seconds") / USUAL_SECONDS)
    run = DryRun(script, tmp_path_factory.mktemp("dry_run"), limit)
    yield run
    run.process.kill()
    run.process.wait()
    run.errors.close()


@pytest.fixture(scope="module", autouse=True)
def start_early(request):
    """Start the script at once if a test to come waits for it: that takes seconds."""
    if hasattr(request.config, "workerinput"):  # each of pytest-xdist's processes would do so
        return
    for item in request.session.items:
        if item.path == request.path and "dry_run" in item.fixturenames:
            request.getfixturevalue("dry_run")
            return


@pytest.fixture(autouse=True)
def torch_stays_as_it_is(request):
    """A learner's code that changes torch itself fails its own test, and no other."""
    classes = TorchsClasses()
    yield
    torch.set_grad_enabled(True)
    changed = classes.restore()
    task = request.node.get_closest_marker("task")
    if task and task.args[0] in SEEDING_TASKS:
        changed = set(changed) - SET_WITH_A_SEED
    if changed:
        instead = "" if set(changed) <= set(SETTINGS) else ", or make a class or layer of your own"
        raise Wrong(
            f"your code changes torch itself ({', '.join(sorted(changed))}), for everybody who "
            f"uses it: put it back{instead}."
        )


@pytest.fixture(scope="session")
def cifar10_dir(request, tmp_path_factory):
    """A folder with CIFAR-10 for torchvision: --data-dir, or else a small archive in its format."""
    folder = Path(request.config.getoption("data_dir"))
    if is_complete(folder):
        yield folder
    else:
        with pytest.MonkeyPatch.context() as monkeypatch:
            yield make_archive(tmp_path_factory.mktemp("cifar10"), monkeypatch)


# The limits of time


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Stop a learner's code that computes for too long; other programs do not count.

    pytest-timeout's limit, by the clock, is for code that waits.
    """
    item.stash[BEGINNING] = time.process_time()
    if not item.get_closest_marker("task"):
        return (yield)
    is_over = threading.Event()
    arguments = (threading.get_ident(), seconds_for(item), is_over)
    threading.Thread(target=stop_late, args=arguments, daemon=True).start()
    try:
        return (yield)
    finally:
        is_over.set()


class ComputesForTooLong(pytest.fail.Exception):
    """A test is stopped; see explain."""


def seconds_for(item):
    """The seconds of computing that a test may take: --seconds; in proportion if it needs more."""
    seconds = item.config.getoption("seconds")
    own = item.get_closest_marker("timeout")
    return own.args[0] / USUAL_SECONDS * seconds if own else seconds


def stop_late(thread, seconds, is_over):
    """Raise ComputesForTooLong in a thread, once this process has computed for some seconds."""
    beginning = time.process_time()
    while not is_over.wait(0.1):
        if time.process_time() - beginning > seconds:
            # What a signal could do as well, but not on Windows.
            exception = ctypes.py_object(ComputesForTooLong)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
            return


def too_long(limit, computed):
    """What to say of code that was stopped after limit seconds, and computed in so many of them."""
    sentence = f"took longer than {limit:g} s, {computed:.0f} s of them computing: "
    if computed > limit / 2:
        return sentence + (
            "look for a loop that does not end (a slow computer needs --seconds 60 or more)"
        )
    return sentence + (
        "either other programs kept the computer busy, then run it again; or your code waits for "
        "something, or is in a loop that does not end"
    )


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
        if status == "wrong":
            report.longrepr += defined_again(path_for(item)) + printed_lines(report.capstdout)
    report.task = task  # what is a report's own goes with it from pytest-xdist's processes
    report.task_result = (status, item.name, str(report.longrepr or ""))
    return report


def explain(item, excinfo, task):
    """(status, message) of a failed test: "unwritten", "waits" for another task, or "wrong"."""
    error = excinfo.value
    path = path_for(item)
    message = first_line(error)
    unwritten = UNWRITTEN.match(message)
    if unwritten and isinstance(error, NotImplementedError | Wrong):
        sentence = unwritten_sentence(path, error, unwritten[0])
        if unwritten[1] == task:
            return "unwritten", sentence
        return "waits", f"task {task} needs another one first: {sentence}"
    if isinstance(error, Wrong):
        return "wrong", str(error)
    if isinstance(error, ComputesForTooLong):
        return "wrong", timeout_sentence(item, seconds_for(item))
    if message.startswith("Timeout") and isinstance(error, pytest.fail.Exception):
        return "wrong", timeout_sentence(item, float(re.search(r">([\d.]+)", message)[1]))
    line = line_in(path, error)
    if line is None:
        return "wrong", unforeseen(error, message)
    return "wrong", f"{type(error).__name__}: {message} ({path.name}, line {line})"


def printed_lines(printed):
    """The last lines that were printed in a test, with a heading; or ""."""
    lines = printed.splitlines()
    return "\n".join(["\nPrinted in this test:", *lines[-20:]]) if lines else ""


@functools.cache
def defined_again(path):
    """A sentence on a name that a file defines twice, as the later definition counts; or ""."""
    try:
        statements = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ""
    first = {}
    used = set()
    for node in statements:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            used |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            continue
        if node.name in first and node.name not in used:  # as old = f uses f before the second
            return (
                f"\nMind that line {node.lineno} defines {node.name} again, so that line "
                f"{first[node.name]}'s is never used: give yours another name."
            )
        if not node.decorator_list:  # which may keep the function elsewhere
            first[node.name] = node.lineno
    return ""


def unforeseen(error, message):
    """What to say of an exception in the tests themselves, where the learner's file has no part."""
    tests = Path(__file__).parent
    own = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == tests]
    place = f" (tests/{Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    kind = type(error).__name__
    if isinstance(error, OSError | MemoryError):
        return f"the tests could not run on this computer: {kind}: {error}{place}"
    return f"the tests cannot use what your code gives: {kind}: {message}{place}"


def unwritten_sentence(path, error, todo):
    """What to say of a task that raises NotImplementedError("TODO ...")."""
    named = re.search(r"line (\d+)", first_line(error))  # by the script, which reads its own file
    line = int(named[1]) if named else line_in(path, error)
    if line and is_left_over(path, line):
        return (
            f"{todo}: delete line {line} of {path.name}, which still raises NotImplementedError, "
            "once the task is written"
        )
    return f"{todo} is not written yet ({path.name}, line {line})"


def timeout_sentence(item, limit):
    """What to say of a test that took longer than limit seconds."""
    return too_long(limit, time.process_time() - item.stash[BEGINNING])


def is_left_over(path, number):
    """Whether a line that raises a task's error has code right above or below it."""
    lines = path.read_bytes().splitlines()  # in whatever encoding they are
    above = [line.strip() for line in lines[: number - 1] if line.strip()]
    if above and not above[-1].startswith(b"#") and not above[-1].endswith(b'"""'):
        return True
    raises = lines[number - 1]
    margin = raises.removesuffix(raises.lstrip())
    below = [line for line in lines[number:] if line.strip()]
    return bool(below) and below[0].startswith(margin)


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


def pytest_sessionfinish(session):
    """If nobody has asked for tracebacks, pytest_terminal_summary prints something shorter."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.config.getoption("tbstyle", None) not in ("auto", "no"):
        return
    failed = [*reporter.stats.get("failed", []), *reporter.stats.get("error", [])]
    if failed and all(hasattr(report, "task") for report in failed):
        session.config.option.tbstyle = "no"
        reporter.reportchars = ""


def results_by_task(reporter):
    """What has come out: {task: [(status, name of the test, message), ...]}."""
    results = {}
    for kind, reports in reporter.stats.items():
        for report in reports:
            if hasattr(report, "task") and kind != "rerun":  # pytest-rerunfailures tries it again
                results.setdefault(report.task, []).append(report.task_result)
    return results


def pytest_terminal_summary(terminalreporter, config):
    results = results_by_task(terminalreporter)
    if not results:
        return
    if config.option.tbstyle == "no":
        for task in sorted(results):
            write_messages(terminalreporter, task, results[task])
    terminalreporter.write_sep("=", "tasks")
    for task in sorted(results):
        # With -x not all of a task's tests run. pytest-xdist leaves the counts in other processes.
        total = config.stash.get(TESTS_BY_TASK, {}).get(task, len(results[task]))
        stops_early = bool(config.getoption("maxfail"))
        write_row(terminalreporter, task, results[task], total, stops_early)


def write_messages(terminalreporter, task, results):
    """What is wrong with a task: one message per test, as a test's other cases say the same."""
    messages_by_test = {}
    for status, name, message in results:
        if status == "wrong":
            messages_by_test.setdefault(name.partition("[")[0], []).append(message)
    told = set()
    for test, texts in messages_by_test.items():
        if texts[0] not in told:
            told.add(texts[0])
            count = f" ({len(texts)} cases)" if len(texts) > 1 else ""
            terminalreporter.write_sep("-", f"{task} {TASKS.get(task, '')}: {test}{count}")
            terminalreporter.write_line(texts[0])


def write_row(terminalreporter, task, results, total, stops_early):
    """A task's line of the closing table; total counts the tests that have not run, too.

    stops_early: whether pytest stops at a failure, as with -x.
    """
    statuses = [status for status, _, _ in results]
    passed = statuses.count("passed")
    worst = "passed"
    remark = "done" if passed == total else "so far: not all of its tests have run"
    for status in ("waits", "unwritten", "wrong"):
        if status in statuses:
            worst = status
            remark = results[statuses.index(status)][2]
    if worst == "wrong":
        broken = "cannot be imported" in remark
        remark = "wrong, see above" + ("" if broken else f"; hints: EXERCISES.md, {task}")
        if stops_early and len(results) < total:
            remark += f" ({total - len(results)} not run)"
    count = f"{passed:>2} of {total:<2} tests pass"
    terminalreporter.write_line(
        f"{task}  {TASKS.get(task, ''):<22} {count}   {remark}",
        green=worst == "passed",
        red=worst == "wrong",
        yellow=worst in ("unwritten", "waits"),
    )


def pytest_deselected(items):
    """Note the tests that -k, --lf or --deselect leaves out."""
    for item in items:
        item.config.stash.setdefault(DESELECTED, []).append(item)


def pytest_collection_finish(session):
    """Count the tests of each task, those that are left out, too."""
    items = [*session.items, *session.config.stash.get(DESELECTED, [])]
    markers = [item.get_closest_marker("task") for item in items]
    tasks = [marker.args[0] for marker in markers if marker]
    session.config.stash[TESTS_BY_TASK] = Counter(tasks)


def pytest_collection_modifyitems(config, items):
    """Exercise by exercise, task by task, so that pytest -x stops at the next thing to do."""

    def place(item):
        marker = item.get_closest_marker("task")
        return (str(item.path), marker.args[0] if marker else "")

    for item in items:
        function = getattr(item, "function", None)  # other plugins' items may have none
        takes_lesson = function and "lesson" in inspect.signature(function).parameters
        if takes_lesson and item.get_closest_marker("task") is None:
            raise pytest.UsageError(f"{item.nodeid}: says no @pytest.mark.task")
    items.sort(key=place)
    wanted = config.getoption("--task")
    if wanted:
        others = [item for item in items if place(item)[1] != wanted]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if place(item)[1] == wanted]
    all_have_tasks = all(item.get_closest_marker("task") for item in items)
    if config.getoption("tbstyle", None) == "auto" and all_have_tasks:
        config.option.tbstyle = "no"  # to write tracebacks that nobody sees takes long
