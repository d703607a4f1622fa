"""Judge one exercise of one learner: run its tests in other processes, and print one JSON object.

sandbox.sh starts it as the first process of a sandbox; it imports nothing of the learner's. What
ends a process (exit, crash, hang) costs the task whose test ran then; a new one runs the rest. It
prints {"tests": {name: {"task", "passed", "message"}}, "stopped": [why]}, or fails with a reason.
"""

import contextlib
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HOME = os.environ["HOME"]
MOST_PROCESSES = 64
MOST_MEMORY = 2**32  # bytes of all processes together; sandbox.sh limits each one
START_SECONDS = 180  # for imports, before anything of the learner's runs
EXERCISE_SECONDS = 400
KILLS = 3  # a test that is killed that often, and by nobody here, kills itself


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

    def run(self, budget):
        """Listen until its end. Returns (why it was stopped or "", what is left of the seconds)."""
        limit = START_SECONDS
        spent = 0.0
        before = self.clock()
        while True:
            ready, _, _ = select.select([self.pipe, sys.stdin], [], [], 0.1)
            now = self.clock()
            step = min(max(now - before, 0), 1)  # a longer one means that this process was paused
            before = now
            spent += step
            budget -= step
            if sys.stdin in ready:  # whoever wanted the verdict is gone
                self.end()
                os._exit(1)
            if self.pipe in ready:
                chunk = os.read(self.pipe, 65536)
                if not chunk:
                    return "", budget
                for message in self.understand(chunk):
                    limit = message.get("limit", limit)
                    spent = 0.0
            self.process.send_signal(signal.SIGCONT)  # in case it has stopped itself
            sizes = self.sizes()
            excesses = {
                f"took longer than {limit:g} s: look for a loop that does not end": spent > limit,
                f"all tests together took longer than {EXERCISE_SECONDS} s": budget < 0,
                f"started more than {MOST_PROCESSES} processes": len(sizes) > MOST_PROCESSES,
                f"used more than {MOST_MEMORY >> 30} GB of memory": sum(sizes) > MOST_MEMORY,
            }
            for why, is_so in excesses.items():
                if is_so:
                    return why, budget

    def clock(self):
        """A time in seconds that stands still while the worker waits for a busy processor."""
        path = Path(f"/proc/{self.process.pid}/schedstat")
        delay = path.read_text().split()[1] if path.exists() else 0
        return time.monotonic() - int(delay) / 1e9

    def understand(self, chunk):
        """The messages that end in a piece of what it has written."""
        *lines, self.unread = (self.unread[-65536:] + chunk).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # not from inside.py
                self.messages.append(dict(json.loads(line)))
                yield self.messages[-1]

    def sizes(self):
        """The bytes of memory of each of the learner's processes."""
        sizes = []
        for path in Path("/proc").glob("[1-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text(errors="replace").rpartition(")")[2].split()
                if os.getpid() == 1 or int(fields[3]) == self.process.pid:  # its session
                    sizes.append(int(fields[21]) * resource.getpagesize())
        return sizes

    def end(self):
        """Kill it and all that it has left behind. Returns its exit status."""
        alone = os.getpid() == 1  # the first process of a sandbox: all others are the learner's
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter
            os.killpg(self.process.pid, signal.SIGKILL)
        if alone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        status = self.process.wait()
        with contextlib.suppress(ChildProcessError):
            while alone:
                os.wait()
        os.close(self.pipe)
        return status


def run_tests(job):
    """({test: result}, {test: task}, {task: why it is lost}); ends where there is no verdict."""
    results = {}
    lost = {}
    kills = Counter()
    budget = EXERCISE_SECONDS
    while True:
        out_of_memory = times_out_of_memory()
        worker = Worker(job, results, lost)
        why, budget = worker.run(budget)
        status = worker.end()
        killed = status == -signal.SIGKILL and not why
        tasks = next((m["collected"] for m in worker.messages if "collected" in m), None)
        if tasks is None:
            kills[None] += 1
            if killed and kills[None] < KILLS:
                continue
            sys.exit(f"the tests did not start ({why or status})")
        if HOME != "/tmp/home" and shutil.disk_usage(HOME).free < 2**25:  # it is everybody's disk
            sys.exit("the disk is full")
        running = None
        for message in worker.messages:
            running = message.get("started", running)
            if message.get("finished") in tasks:
                results[message["finished"]] = message
                running = None
        left = [name for name in tasks if name not in results and tasks[name] not in lost]
        if not left:
            return results, tasks, lost
        culprit = running if running in left else left[0]
        if killed:
            if times_out_of_memory() != out_of_memory:
                sys.exit("the machine ran out of memory")
            kills[culprit] += 1
            if kills[culprit] < KILLS:
                continue
        ending = signal.strsignal(-status) if status < 0 else f"exit status {status}"
        reason = why or f"your code ended Python ({ending}) before the test was over"
        lost[tasks[culprit]] = reason
        if budget < 0:
            lost.update({tasks[name]: reason for name in left})
            return results, tasks, lost


def times_out_of_memory():
    """What the system says of how often it has killed a process for lack of memory."""
    counters = Path("/proc/vmstat")
    return re.findall(r"oom_kill \d+", counters.read_text() if counters.exists() else "")


def main():
    os.makedirs(HOME, exist_ok=True)
    results, tasks, lost = run_tests(json.loads(sys.argv[1]))
    tests = {}
    for name, task in tasks.items():
        result = results.get(name, {})
        message = result.get("message") or lost.get(task, "")
        tests[name] = {
            "task": task,
            "passed": result.get("passed") is True,
            "message": str(message),
        }
    print(json.dumps({"tests": tests, "stopped": sorted(set(lost.values()))}))


if __name__ == "__main__":
    main()
