"""Judge one submission: run the tests on it where it can do no harm, and write one JSON file.

python tools/judge.py FOLDER --json result.json        every exercise file that FOLDER holds
python tools/judge.py FILE --json result.json          one exercise file
python tools/judge.py FOLDER --gradescope results.json what Gradescope reads
python tools/judge.py FOLDER --github                  GitHub's notices and summary; status 1 if a task is not done

Each exercise is judged in a process of its own, on a clean copy of the tests, with an empty folder for a home, no
environment of yours, and limits on time, memory and file size. On a Linux that lets an ordinary user do so, it has no
network either, sees no other process, and can write nowhere but in its folder (tools/sandbox.sh). A task scores only
if every one of its tests is known to have passed. tools/grade.py runs this command for a whole class.
"""

import argparse
import contextlib
import ctypes
import hmac
import json
import os
import re
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import reports
from reports import FILES, ROOT

SETTINGS = {  # the limits of one exercise, as --seconds and so on set them
    "seconds": 180.0,  # for all of its tests
    "test_seconds": 20.0,  # for one test; five seconds more, and it is killed from outside
    "gigabytes": 3.0,
    "processes": 64,
}
LARGEST = 2**20  # bytes of a script
NOT_THEIRS = (
    "solutions",
    "tests",
    "tools",
    "venv",
    "site-packages",
)  # folders of the course, or of Python
STARTS = 8  # how often the tests are started again after a crash or an endless loop
NOISE = 4000  # bytes of what a submission prints that are kept


class Refused(Exception):
    """A submission's file that cannot be judged; the message says why."""


# --- what was handed in ---------------------------------------------------------------------------------------------


def find_file(places, exercise, only=False):
    """The path of an exercise's file in a learner's folders and files, or None. only: it is the one asked for."""
    name = FILES[exercise]
    found = [path for place in places for path in candidates(Path(place), name, only)]
    if len(found) > 1:
        names = " and ".join(
            repr(str(path.relative_to(Path(places[0]).parent))) for path in found[:2]
        )
        raise Refused(f"there is more than one file for exercise {exercise}: {names}")
    return found[0] if found else None


def missing(places, exercise):
    """A sentence on an exercise's file that is not there; it may be there as a notebook, or by another name."""
    paths = [
        path for place in places if Path(place).is_dir() for path in sorted(Path(place).iterdir())
    ]
    odd = [path for path in paths if path.suffix == ".py" and "exercise_0" not in path.name]
    names = [path.name for path in (*odd, *(path for path in paths if path.suffix == ".ipynb"))]
    others = f"; there is {' and '.join(map(repr, names[:3]))}" if names else ""
    return f"there is no {FILES[exercise]}{others}"


def candidates(place, name, only):
    """The files in a folder, or the file itself, that may be meant as the script of that name."""
    number = name[:11]  # exercise_01
    if place.is_symlink():
        raise Refused(f"{place.name} is a link; hand in the folder or file itself")
    if not place.is_dir():
        if "exercise_0" not in place.name and not only:
            raise Refused(
                f"cannot tell what {place.name} is: hand in a folder, or files named like {name}"
            )
        alone = only and place.suffix == ".py" and "exercise_0" not in place.name.lower()
        return [place] if number in place.name.lower() or alone else []
    if os.path.lexists(place / name):
        return [place / name]
    found = []
    for folder, folders, files in os.walk(place):  # does not follow links
        deep = len(Path(folder).relative_to(place).parts) >= 3
        folders[:] = (
            []
            if deep
            else sorted(f for f in folders if not f.startswith((".", "__")) and f not in NOT_THEIRS)
        )
        found += [
            Path(folder, file)
            for file in sorted(files)
            if file.lower().endswith(".py")
            and number in file.lower()
            and not file.startswith((".", "test_"))
        ]
    exact = sorted((path for path in found if path.name == name), key=lambda path: len(path.parts))
    if len(exact) == 1 or (len(exact) > 1 and len(exact[0].parts) < len(exact[1].parts)):
        return exact[:1]
    return found


def read_file(path):
    """The bytes of a submitted script."""
    if path.is_symlink():
        raise Refused(f"{path.name} is a link; hand in the file itself")
    if not path.is_file():
        raise Refused(f"{path.name} is a folder or something else that is no file")
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise Refused(f"{path.name} has more than {LARGEST >> 20} MB; that is no script")
    return text


# --- one process ----------------------------------------------------------------------------------------------------


def sandbox(folder):
    """The command that a command in a sandbox begins with; [] where the system has no sandbox for ordinary users."""
    names = (
        "--user",
        "--map-root-user",
        "--net",
        "--ipc",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--mount",
    )
    command = ["unshare", *names, "sh", str(ROOT / "tools" / "sandbox.sh"), str(folder)]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [*command, "sh", "-c", 'touch "$0/x"', str(folder)], capture_output=True, timeout=20
        )
        if done.returncode == 0:
            return command
    return []


def environment(home):
    """All that a submission gets of the environment."""
    return {
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
        ),
        **{name: str(home) for name in ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")},
        **{
            "LANG": "C.UTF-8",
            "USER": "learner",
            "LOGNAME": "learner",
            "MPLBACKEND": "Agg",
            "CUDA_VISIBLE_DEVICES": "",
        },
        **{
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
        },
    }


def sandbox_works():
    """Whether this system has a sandbox for ordinary users."""
    with tempfile.TemporaryDirectory() as folder:
        return bool(sandbox(folder))


class Trial:
    """One start of the tests on one script. Its messages are in .messages; .why says what ended it before its end."""

    def __init__(self, source, exercise, skip, limits, deadline):
        self.messages, self.why, self.noise = [], "", b""
        self.key, self.limits, self.deadline = secrets.token_bytes(32), limits, deadline
        work = Path(tempfile.mkdtemp(prefix="judge-"))
        try:
            self.run(work, source, exercise, skip)
        finally:
            kill_descendants()
            shutil.rmtree(work, ignore_errors=True)

    def run(self, work, source, exercise, skip):
        """Lay out the folders, start the process, and listen until it ends."""
        course, home, script = work / "course", work / "home", work / "target" / FILES[exercise]
        for folder in (course / "tests", home, script.parent):
            folder.mkdir(parents=True)
        for path in [*ROOT.glob("tests/*.py"), ROOT / "pyproject.toml"]:
            shutil.copy(path, course / path.relative_to(ROOT))
        shutil.copy(ROOT / "tools" / "inside.py", course)
        script.write_bytes(source)
        os.chmod(script, 0o444)
        ours, theirs = os.pipe()
        lifeline, held = (
            os.pipe()
        )  # the process ends when nobody holds the other end any more, were we killed
        job = {
            "channel": theirs,
            "key": self.key.hex(),
            "script": str(script),
            "course": str(course),
        }
        job |= {"exercise": exercise, "skip": sorted(skip), "hidden": [str(ROOT)]}
        job |= {"seconds": self.limits["test_seconds"], "gigabytes": self.limits["gigabytes"]}
        job |= {"observe": self.limits["observe"], "lifeline": lifeline}
        process = subprocess.Popen(
            [*sandbox(home), sys.executable, str(course / "inside.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs, lifeline],
            cwd=course,
            env=environment(home),
            start_new_session=True,
        )
        os.close(theirs), os.close(lifeline)
        threading.Thread(target=self.drain, args=[process.stdout], daemon=True).start()
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(job).encode() + b"\n")
        try:
            self.listen(ours)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            os.close(ours), os.close(held)
        status = process.wait()
        if not self.why and not self.ended():
            self.why = "ended the process before the test was over"
            self.why += f" (signal {-status})" if status < 0 else f" (exit status {status})"

    def drain(self, pipe):
        """Read what the process prints, so that it never waits for us; keep the end of it."""
        with contextlib.suppress(OSError, ValueError):
            while chunk := pipe.read1(65536):
                self.noise = (self.noise + chunk)[-NOISE:]

    def ended(self):
        """Whether the tests said that they are through."""
        return bool(self.messages) and self.messages[-1]["event"] == "end"

    def listen(self, descriptor):
        """Take messages until there are no more; stop what takes too long or too much."""
        buffer, allowed, patience = b"", 60, time.monotonic() + 60
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not self.why:
                if selector.select(0.2):
                    chunk = os.read(descriptor, 65536)
                    if not chunk:
                        return
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    for line in lines:
                        self.take(line)
                    if len(buffer) > 2**20:
                        self.why = "wrote to the channel for results itself"
                    allowed = (self.messages or [{}])[-1].get(
                        "seconds", self.limits["test_seconds"]
                    )
                    patience = time.monotonic() + allowed + 5
                    if self.ended():
                        return
                elif time.monotonic() > patience:
                    self.why = f"did not end in {allowed:g} s: look for a loop that does not end"
                if time.monotonic() > self.deadline:
                    self.why = "the time for this exercise was over"
                self.why = self.why or excess(self.limits)

    def take(self, line):
        """Keep a message if it is signed and numbered as ours are; nobody else has the key."""
        signature, _, body = line.partition(b" ")
        genuine = hmac.compare_digest(
            signature, hmac.digest(self.key, body, "sha256").hex().encode()
        )
        message = json.loads(body) if genuine else {}
        if message.get("number") == len(self.messages):
            self.messages.append(message)
        else:
            self.why = "wrote to the channel for results itself"


def descendants():
    """{pid: bytes of memory} of all processes that come from this one; {} where there is no /proc."""
    parents, sizes = {}, {}
    for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (
                    Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                )
                parents[int(entry.name)] = int(fields[1])
                sizes[int(entry.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    found, fresh = set(), {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return {pid: sizes[pid] for pid in found}


def excess(limits):
    """What the processes take too much of, or ""."""
    running = descendants()
    if len(running) > limits["processes"]:
        return f"started {len(running)} processes"
    if sum(running.values()) > (limits["gigabytes"] + 1) * 2**30:
        return f"used more than {limits['gigabytes']:g} GB of memory"
    return ""


def adopt_orphans():
    """Have processes whose parents are gone become this one's children, so that none escapes (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def kill_descendants():
    """Kill whatever a submission has left running."""
    while running := descendants():
        for pid in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


# --- one exercise ---------------------------------------------------------------------------------------------------


def judge_exercise(place, exercise, limits, only=False):
    """The result of one exercise: its status, what was caught, and how each task's tests went."""
    result = {
        "exercise": exercise,
        "file": FILES[exercise],
        "status": "judged",
        "why": "",
        "caught": [],
        "tasks": {},
    }
    try:
        path = find_file([place], exercise, only)
        if path is None:
            return result | {"status": "missing", "why": missing([place], exercise)}
        try_tests(result, read_file(path), exercise, limits)
    except (Refused, OSError) as error:
        result |= {"status": "refused", "why": str(error)}
    return result


def try_tests(result, source, exercise, limits):
    """Start the tests until each of them has run, or has had its chance; fill in result."""
    tests, results, lost, deadline = {}, {}, {}, time.monotonic() + limits["seconds"]
    for _ in range(STARTS):
        trial = Trial(source, exercise, {*results, *lost}, limits, deadline)
        running = None
        for message in trial.messages:
            if message["event"] == "collected":
                tests = message["tests"]
            elif message["event"] == "start":
                running = message["test"]
            elif message["event"] == "result":
                results[message["test"]], running = message, None
            elif message["event"] == "caught":
                result["caught"] += [message["what"]] * (message["what"] not in result["caught"])
        if not tests:
            last = trial.noise.decode(errors="replace").strip().splitlines()[-1:] or [trial.why]
            result |= {"status": "error", "why": f"the tests could not be started: {last[0]}"}
            return
        if trial.why.startswith("wrote to the channel"):
            result["caught"] = [*{**dict.fromkeys(result["caught"]), trial.why: None}]
        left = [name for name in tests if name not in results and name not in lost]
        if not left or trial.ended() or not trial.why:
            break
        culprit = running or left[0]
        lost |= {name: trial.why for name in left if tests[name] == tests[culprit]}
        if trial.why.startswith("the time"):
            break
    for name, task in tests.items():
        found = result["tasks"].setdefault(task, {"passed": 0, "tests": 0, "messages": []})
        outcome = results.get(name, {"passed": False, "message": lost.get(name, "was not run")})
        found["tests"] += 1
        found["passed"] += outcome["passed"]
        if not outcome["passed"]:
            add_message(found["messages"], re.split(r"::|\[", name)[1], outcome["message"])
    if lost:
        result |= {"status": "stopped", "why": next(iter(lost.values()))}


def add_message(messages, test, message):
    """Add a failed test's message; the cases of one test say the same, so the first one's stands for all."""
    for known in messages:
        if known[0] == test or known[1] == message:
            known[2] += 1
            return
    messages.append([test, message, 1])


# --- the command ----------------------------------------------------------------------------------------------------


def add_flags(parser):
    """The flags that judge.py and grade.py share."""
    parser.add_argument(
        "--exercises", nargs="+", choices=list(FILES), default=list(FILES), metavar="N"
    )
    parser.add_argument(
        "--points", type=Path, metavar="FILE", help="a table with the columns task and points"
    )
    for name, what in (
        ("seconds", "for an exercise"),
        ("test_seconds", "for a test"),
        ("gigabytes", "of memory"),
    ):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(
            flag, type=positive, default=SETTINGS[name], metavar="N", help=f"{what} (%(default)g)"
        )
    parser.add_argument(
        "--observe", action="store_true", help=argparse.SUPPRESS
    )  # for those whom grade.py trusts


def positive(text):
    """A number above 0."""
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return value


def limits_of(args):
    """The limits that flags set."""
    return {"seconds": args.seconds, "test_seconds": args.test_seconds, "gigabytes": args.gigabytes}


def stop_with_stdin():
    """End this process when its stdin does: whoever started it is gone."""

    def wait():
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submission", type=Path, help="a learner's folder, or one file")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="where the result goes (default: a report, to the screen)",
    )
    parser.add_argument(
        "--gradescope", type=Path, metavar="FILE", help="where Gradescope's results.json goes"
    )
    parser.add_argument(
        "--github", action="store_true", help="tell GitHub Actions; status 1 if a task is not done"
    )
    parser.add_argument(
        "--attached", action="store_true", help="stop when stdin ends, as tools/grade.py needs it"
    )
    add_flags(parser)
    args = parser.parse_args()
    if not os.path.lexists(args.submission):
        parser.error(f"{args.submission}: there is no such folder or file")
    points = reports.read_points(args.points)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if args.attached:
        stop_with_stdin()
    adopt_orphans()
    limits = SETTINGS | limits_of(args) | {"observe": args.observe}
    results = [
        judge_exercise(args.submission, n, limits, len(args.exercises) == 1)
        for n in sorted(args.exercises)
    ]
    scored = [reports.score(result, points) for result in results]
    learner = os.path.basename(os.path.abspath(args.submission))
    if args.json:
        reports.write(args.json, json.dumps({"learner": learner, "exercises": scored}, indent=1))
    if args.gradescope:
        reports.write(args.gradescope, reports.gradescope(scored))
    if args.github:
        print(reports.github(scored))
        if "GITHUB_STEP_SUMMARY" in os.environ:
            with open(
                os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8", errors="backslashreplace"
            ) as summary:
                summary.write(f"```text\n{reports.report(learner, scored)}```\n")
        sys.exit(reports.total(scored) < reports.total(scored, "of"))
    if not (args.json or args.gradescope):
        print(reports.report(learner, scored))


if __name__ == "__main__":
    main()
