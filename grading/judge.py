"""Judge one exercise of one learner: run its tests in other processes, and print one JSON object.

sandbox.sh starts it as the first process of a sandbox; it imports nothing of the learner's. What
ends a process (exit, crash, hang) costs the task whose test ran then; a new one runs the rest. It
prints {"tests": {name: {"task", "passed", "message"}}, "stopped": [why], "error": why there is no
verdict, or None}.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = os.environ["HOME"]
MOST_PROCESSES = 64
MOST_MEMORY = 2**32  # bytes of all processes together; sandbox.sh limits each one
LONGEST = 3000  # characters of a message
GRACE = 5  # seconds in which a test has to end after it was told to
START_SECONDS = 180  # for imports, before anything of the learner's runs
EXERCISE_SECONDS = 400
KILLS = 3  # a test that is killed that often, and by nobody here, kills itself


class Disturbed(Exception):
    """Something outside of the submission has spoilt the judging; the message says what."""


class Worker:
    """A process that runs tests on the learner's file."""

    def __init__(self, job, results, lost):
        self.unread = b""
        self.messages = []
        self.pipe, their_end = os.pipe()
        job = {**job, "pipe": their_end, "done": list(results), "lost": list(lost)}
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("inside.py"), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=HOME,
            pass_fds=[their_end],
            start_new_session=True,
        )
        os.close(their_end)

    def run(self, deadline):
        """Listen until its end. Returns why it was stopped, or "" if it ended by itself."""
        limit = START_SECONDS
        spent = 0.0
        before = time.monotonic()
        while True:
            count = len(self.messages)
            is_open = self.read()
            now = time.monotonic()
            spent += min(now - before, 1)  # a longer step means that this process was paused
            before = now
            if len(self.messages) > count:
                limit = self.messages[-1].get("limit", limit)
                spent = 0.0
            if not is_open:
                return ""
            if spent > limit:
                self.process.send_signal(signal.SIGALRM)
            if spent > limit + GRACE:
                return f"took longer than {limit:g} s: look for a loop that does not end"
            if now > deadline:
                return f"all tests together took longer than {EXERCISE_SECONDS} s"
            sizes = self.sizes()
            if len(sizes) > MOST_PROCESSES:
                return f"started more than {MOST_PROCESSES} processes"
            if sum(sizes) > MOST_MEMORY:
                return f"used more than {MOST_MEMORY >> 30} GB of memory"

    def read(self):
        """Take in what it says within a tenth of a second. Returns whether it can say more."""
        ready, _, _ = select.select([self.pipe, sys.stdin], [], [], 0.1)
        if sys.stdin in ready:  # whoever wanted the verdict is gone
            self.end()
            os._exit(1)
        if self.pipe not in ready:
            return True
        chunk = os.read(self.pipe, 65536)
        *lines, self.unread = (self.unread[-65536:] + chunk).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # not from inside.py
                self.messages.append(dict(json.loads(line)))
        return bool(chunk)

    def sizes(self):
        """The memory of each of the learner's processes, in bytes; wakes the worker if stopped."""
        sizes = []
        for path in Path("/proc").glob("[1-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid or os.getpid() == 1:  # its session
                    sizes.append(int(fields[21]) * resource.getpagesize())
        self.process.send_signal(signal.SIGCONT)
        return sizes

    def end(self):
        """Kill it and all that it has left behind. Returns its exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            if os.getpid() == 1:  # the first process of a sandbox: all others are the learner's
                os.kill(-1, signal.SIGKILL)
        status = self.process.wait()
        with contextlib.suppress(ChildProcessError):
            while os.getpid() == 1:
                os.wait()
        os.close(self.pipe)
        return status


def run_tests(job):
    """({test: its result}, {test: its task}, {task that is lost: why})."""
    results = {}
    lost = {}
    kills = {}
    deadline = time.monotonic() + EXERCISE_SECONDS
    while True:
        out_of_memory = times_out_of_memory()
        worker = Worker(job, results, lost)
        why = worker.run(deadline)
        status = worker.end()
        tasks = next((m["collected"] for m in worker.messages if "collected" in m), None)
        if tasks is None:
            raise Disturbed(f"the tests did not start ({why or status})")
        if HOME != "/tmp/home" and shutil.disk_usage(HOME).free < 2**25:  # it is everybody's disk
            raise Disturbed("the disk is full")
        running = None
        for message in worker.messages:
            running = message.get("started", running)
            lost.update(message.get("lost", {}))
            if message.get("finished") in tasks:
                results[message["finished"]] = message
                running = None
        left = [name for name in tasks if name not in results and tasks[name] not in lost]
        if not left:
            return results, tasks, lost
        culprit = running if running in left else left[0]
        if status == -signal.SIGKILL and not why:
            if times_out_of_memory() != out_of_memory:
                raise Disturbed("the machine ran out of memory")
            kills[culprit] = kills.get(culprit, 0) + 1
            if kills[culprit] < KILLS:
                continue
        ending = signal.strsignal(-status) if status < 0 else f"exit status {status}"
        lost[tasks[culprit]] = why or f"your code ended Python ({ending}) before the test was over"
        if time.monotonic() > deadline:
            lost.update({tasks[name]: why for name in left})


def times_out_of_memory():
    """How often the machine has killed a process for lack of memory, if it says so."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.exists() else []
    return [line for line in lines if line.startswith("oom_kill ")]


def judge(job):
    """The verdict on one exercise."""
    try:
        os.makedirs(HOME, exist_ok=True)
        results, tasks, lost = run_tests(job)
    except (Disturbed, OSError) as error:
        return {"tests": {}, "stopped": [], "error": str(error)}
    tests = {}
    for name, task in tasks.items():
        result = results.get(name, {})
        message = str(result.get("message") or lost.get(task, ""))[:LONGEST]
        tests[name] = {"task": task, "passed": result.get("passed") is True, "message": message}
    return {"tests": tests, "stopped": sorted(set(lost.values())), "error": None}


if __name__ == "__main__":
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: nobody may look into this process
    print(json.dumps(judge(json.loads(sys.argv[1]))))
