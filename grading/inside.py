"""Run an exercise's tests in the process that imports a learner's file, and report each of them.

Not a command for people: judge.py starts it. Every line that it writes is a message in JSON.
"""

import json
import os
import sys

import pytest

LONGEST = 3000  # characters of a message


class Reporter:
    """A pytest plugin that runs the tests of tasks and writes what becomes of each to a pipe."""

    def __init__(self, job):
        self.job = job
        self.limits = {}  # seconds that a test may take
        self.problem = None  # why the test that runs now has failed
        self.passed = False

    def tell(self, **message):
        """Write a message."""
        os.write(self.job["pipe"], json.dumps(message).encode() + b"\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        """Choose what to run: all but the script's own dry run, which uses every task."""
        items[:] = [item for item in items if "dry_run" not in item.fixturenames]
        tasks = {item.nodeid: item.get_closest_marker("task").args[0] for item in items}
        for item in items:
            marker = item.get_closest_marker("timeout")
            self.limits[item.nodeid] = self.job["seconds"] * (marker.args[0] / 30 if marker else 1)
        self.tell(collected=tasks)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        skipped = {*self.job["done"], *(name for name in tasks if tasks[name] in self.job["lost"])}
        items[:] = [item for item in items if item.nodeid not in skipped]
        if items:
            self.limits[items[0].nodeid] *= 3  # it imports the learner's file

    def pytest_runtest_logstart(self, nodeid):
        """Say that a test begins."""
        self.problem = None
        self.passed = False
        self.tell(started=nodeid, limit=self.limits[nodeid])

    def pytest_runtest_logreport(self, report):
        """Keep what one phase of a test says."""
        if report.failed:
            self.problem = self.problem or str(report.longrepr)
        elif report.when == "call":
            self.passed = report.passed

    def pytest_runtest_logfinish(self, nodeid):
        """Say how a test has ended."""
        passed = self.passed and self.problem is None
        self.tell(finished=nodeid, passed=passed, message=(self.problem or "")[:LONGEST])


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    course = os.environ["COURSE"]
    flags = ["-q", "-s", "--assert=plain", "-p", "no:cacheprovider", "-o", "addopts="]
    flags += [f"--config-file={course}/pyproject.toml", f"--rootdir={course}"]
    flags += [f"--target={os.environ['SUBMISSION']}", f"--draw={job['seed']}"]
    flags += [f"--seconds={job['seconds']}"]
    pytest.main([*flags, f"{course}/tests/test_{job['file']}"], plugins=[Reporter(job)])
    os._exit(0)  # whatever threads and exit handlers the learner's file has left
