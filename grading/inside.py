"""Run an exercise's tests in the process that imports a learner's file, and report each of them.

Not a command for people: judge.py starts it. Every line that it writes is a message in JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest


class Reporter:
    """A pytest plugin that runs the tests of tasks and writes what becomes of each to a pipe."""

    def __init__(self, job):
        self.job = job
        self.lost = set(job["lost"])  # tasks
        self.limit = job["seconds"]  # for the test that runs now
        self.problem = None  # why the test that runs now has failed
        self.passed = False

    def tell(self, **message):
        """Write a message."""
        os.write(self.job["pipe"], json.dumps(message).encode() + b"\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        """Keep the tests of tasks. The script's own run is for its author: it uses every task."""
        items[:] = [item for item in items if task_of(item) and "dry_run" not in item.fixturenames]
        self.tell(collected={item.nodeid: task_of(item) for item in items})
        items[:] = [item for item in items if item.nodeid not in self.job["done"]]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def pytest_runtest_protocol(self, item):
        """Pass over a test if its task is lost anyway."""
        if task_of(item) in self.lost:
            return True
        self.problem = None
        self.passed = False
        marker = item.get_closest_marker("timeout")
        self.limit = self.job["seconds"] * (marker.args[0] / 30 if marker else 1)
        signal.signal(signal.SIGALRM, self.stop_test)
        self.tell(started=item.nodeid, limit=self.limit)
        return None

    def stop_test(self, *_):
        """The handler of SIGALRM, which the judge sends when a test takes too long."""
        pytest.fail(f"Timeout >{self.limit:g} s", pytrace=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        """A test that takes too long loses its task: the task's other tests may do the same."""
        report = yield
        if call.excinfo is not None and str(call.excinfo.value).startswith("Timeout >"):
            self.lost.add(task_of(item))
            self.tell(lost={task_of(item): report.longrepr})
        return report

    def pytest_runtest_logreport(self, report):
        """Keep what one phase of a test says."""
        if report.failed:
            self.problem = self.problem or str(report.longrepr)
        elif report.when == "call":
            self.passed = report.passed

    def pytest_runtest_logfinish(self, nodeid):
        """Write a test's result."""
        passed = self.passed and self.problem is None
        self.tell(finished=nodeid, passed=passed, message=self.problem or "")


def task_of(item):
    """The task that a test belongs to, or None."""
    marker = item.get_closest_marker("task")
    return marker and marker.args[0]


def main():
    job = json.loads(sys.argv[1])
    course = Path(os.environ["COURSE"])
    flags = ["-q", "-s", "-p", "no:cacheprovider", "-o", "addopts=", f"--rootdir={course}"]
    flags += [f"--config-file={course / 'pyproject.toml'}", f"--draw={job['seed']}"]
    flags += [f"--target={os.environ['SUBMISSION']}", str(course / "tests" / f"test_{job['file']}")]
    pytest.main(flags, plugins=[Reporter(job)])
    os._exit(0)  # whatever threads and exit handlers the learner's file has left


if __name__ == "__main__":
    main()
