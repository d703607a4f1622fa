"""Judge one exercise of one learner: run its tests, and print one JSON object.

sandbox.sh starts it as the first process of a sandbox. It imports nothing of the learner's: each
task's tests run in a process of their own, so that what ends a process (exit, crash, hang) costs
one task. It prints {name of a test: {"task", "passed", "message"}}, or fails with a reason.
"""

import contextlib
import glob
import itertools
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

HOME = os.environ["HOME"]
COURSE = os.environ["COURSE"]
MOST_PROCESSES = 64
MOST_MEMORY = 2**32  # bytes of all processes together; sandbox.sh limits each one
TASK_LIMIT = 4  # times the seconds that a test may compute
TRIES = 3  # for a task whose process something else kills; then its own code must have done it
LONGEST = 3000  # characters of a message
LARGEST = 2**20  # bytes of all messages of a task
PARENT, SESSION, PAGES = 1, 3, 21  # where they stand in /proc/PID/stat after the command's name


class Judge:
    """A pytest plugin that runs tests in other processes, and keeps what becomes of each."""

    def __init__(self):
        self.tests = {}  # {name: {"task", "passed", "message"}}
        self.reports = []  # of the test that runs in this process

    def pytest_runtestloop(self, session):
        """Run all tests but the script's own dry run, which uses every task."""
        session.items[:] = [item for item in session.items if "dry_run" not in item.fixturenames]
        for task, items in itertools.groupby(session.items, task_of):
            self.run_task(task, list(items))
        return True

    def run_task(self, task, items):
        """Run a task's tests in a process of their own."""
        for _ in range(TRIES):
            out_of_memory = times_out_of_memory()
            worker = Worker(lambda pipe: self.work(items, pipe))
            why = worker.listen(TASK_LIMIT * items[0].config.getoption("seconds"))
            status = worker.end()
            enter_home()
            if HOME != "/tmp/home" and shutil.disk_usage(HOME).free < 2**25:  # it is everybody's
                give_up("the disk is full")
            killed_by_others = not why and status in (-signal.SIGKILL, -signal.SIGTERM)
            if not killed_by_others:
                break
            if times_out_of_memory() != out_of_memory:
                give_up("the machine ran out of memory")
        ending = signal.strsignal(-status) if status < 0 else f"exit status {status}"
        why = why or f"your code ended Python ({ending}) before the test was over"
        results = worker.results()
        for item in items:
            passed, message = results.get(item.nodeid, (False, f"stopped: {why}"))
            self.tests[item.nodeid] = {"task": task, "passed": passed, "message": message}

    def work(self, items, pipe):
        """Run tests in this process, and write a line of JSON on each to a pipe."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            self.reports.clear()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            passed = all(report.passed for report in self.reports)
            messages = [str(report.longrepr) for report in self.reports if report.failed]
            line = json.dumps([item.nodeid, passed, "".join(messages[:1])[:LONGEST]])
            os.write(pipe, line.encode() + b"\n")

    def pytest_runtest_logreport(self, report):
        """Keep what is said of a phase of a test."""
        self.reports.append(report)


class Worker:
    """A process in which the learner's file is imported."""

    def __init__(self, work):
        """work: what it does, a function that takes the pipe for its results."""
        self.output = b""
        self.pipe, their_end = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            try:
                os.setsid()
                for stream in range(3):
                    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
                work(their_end)
            finally:
                os._exit(0)  # whatever threads and exit handlers the learner's file has left
        os.close(their_end)

    def listen(self, limit):
        """Read what it writes until its end. Returns why it must be stopped, or ""."""
        poller = select.poll()
        poller.register(self.pipe, select.POLLIN)
        poller.register(sys.stdin, 0)  # its end alone: a learner's file may write to it
        spent = 0.0
        before = self.clock()
        while spent < limit:
            ready = dict(poller.poll(100))  # milliseconds
            if sys.stdin.fileno() in ready:  # whoever wanted the verdict is gone
                self.end()
                give_up("stopped")
            if self.pipe in ready:
                chunk = os.read(self.pipe, 65536)
                if not chunk:
                    return ""
                self.output = (self.output + chunk)[-LARGEST:]
            now = self.clock()
            spent += min(max(now - before, 0), 1)  # more means that this process was paused
            before = now
            os.kill(self.process, signal.SIGCONT)  # in case it has stopped itself
            sizes = self.sizes()
            if len(sizes) > MOST_PROCESSES:
                return f"started more than {MOST_PROCESSES} processes"
            if sum(sizes) > MOST_MEMORY:
                return f"used more than {MOST_MEMORY >> 30} GB of memory"
        return f"took longer than {limit:g} s: look for a loop that does not end, or for a wait"

    def clock(self):
        """A time in seconds that stands still while the worker waits for a busy processor."""
        path = Path(f"/proc/{self.process}/schedstat")
        delay = path.read_text().split()[1] if path.exists() else 0
        return time.monotonic() - int(delay) / 1e9

    def sizes(self):
        """The bytes of memory of each of the learner's processes."""
        sizes = []
        for path in glob.glob("/proc/[1-9]*/stat"):
            with contextlib.suppress(OSError):  # the process may be gone
                fields = Path(path).read_text(errors="replace").rpartition(")")[2].split()
                # In a sandbox all but this process, which has no parent; elsewhere its session.
                is_other = os.getpid() == 1 and fields[PARENT] != "0"
                if is_other or int(fields[SESSION]) == self.process:
                    sizes.append(int(fields[PAGES]) * resource.getpagesize())
        return sizes

    def end(self):
        """Kill it and all that it has left behind. Returns its exit status, or minus a signal."""
        alone = os.getpid() == 1  # the first process of a sandbox: all others are the learner's
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter
            os.kill(self.process, signal.SIGKILL)
            os.killpg(self.process, signal.SIGKILL)
            if alone:
                os.kill(-1, signal.SIGKILL)
        _, status = os.waitpid(self.process, 0)
        with contextlib.suppress(ChildProcessError):
            while alone:
                os.wait()
        return os.waitstatus_to_exitcode(status)

    def results(self):
        """{test: (whether it passed, message)}, as far as it has written them."""
        results = {}
        for line in self.output.split(b"\n"):
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                name, passed, message = json.loads(line)  # or else work has not written it
                results[name] = (passed is True, str(message))
        return results


def enter_home():
    """Make the home, which the learner's file may have removed, the current folder."""
    os.makedirs(HOME, exist_ok=True)
    os.chdir(HOME)


def task_of(item):
    """The number of the task that a test belongs to."""
    return item.get_closest_marker("task").args[0]


def times_out_of_memory():
    """What the system says of how often it has killed a process for lack of memory."""
    counters = Path("/proc/vmstat")
    return re.findall(r"oom_kill \d+", counters.read_text() if counters.exists() else "")


def give_up(reason):
    """End without a verdict."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def main():
    script, seed, seconds = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the learner's file could send it
    enter_home()
    flags = ["-q", "-s", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    flags += [f"--config-file={COURSE}/pyproject.toml", f"--rootdir={COURSE}", "-o", "addopts="]
    flags += [f"--target={os.environ['SUBMISSION']}", f"--draw={seed}", f"--seconds={seconds}"]
    judge = Judge()
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        status = pytest.main([*flags, f"{COURSE}/tests/test_{script}"], plugins=[judge])
    if status:
        give_up(f"pytest ended with {status!r}")
    print(json.dumps(judge.tests))


if __name__ == "__main__":
    main()
