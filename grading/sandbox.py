"""Where submissions run: bubblewrap, unshare or a container; and a probe that nothing gets out."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import needed

ROOT = Path(__file__).resolve().parent.parent


class NoSandbox(Exception):
    """Submissions cannot be run here; the message says why."""


class Sandbox:
    """A way to run judges, and the clean copy of the course's tests that they use."""

    def __init__(self, way, folder):
        self.way = way  # "bubblewrap", "unshare", "none", or an image's name
        self.processes = []
        self.stopped = False
        self.lock = Lock()
        self.course = Path(folder, "course")
        places = {sys.base_prefix, sys.prefix, str(Path(sys.executable).resolve().parents[1])}
        for name in needed.PACKAGES:
            places.add(str(Path(find_spec(name).origin).parents[1]))
        self.folders = "\n".join(sorted(places))
        for path in (ROOT / "pyproject.toml", *ROOT.glob("tests/*.py"), *ROOT.glob("grading/*.*")):
            place = self.course / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)

    def start(self, folder, script, *arguments):
        """A process that runs a script of grading/ on folder/submission, until its stdin ends.

        folder/room must be an empty folder. What goes to stderr is in folder/errors. Raises OSError
        after stop().
        """
        places = [folder / "room", self.course, folder / "submission", self.folders]
        command = ["sh", ROOT / "grading" / "sandbox.sh", self.way, *places, sys.executable]
        with open(folder / "errors", "wb") as errors, self.lock:
            if self.stopped:
                raise OSError("the grader was stopped")
            process = subprocess.Popen(
                [*command, script, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # a Ctrl-C is the grader's alone
            )
            self.processes.append(process)
        return process

    def stop(self):
        """Make all that run end by themselves, soon, and let nothing else start."""
        with self.lock:
            self.stopped = True
        for process in self.processes:
            process.stdin.close()

    def probe(self, folder):
        """Raise NoSandbox if a process in the sandbox sees anything of the host's."""
        for name in ("room", "submission"):
            (folder / name).mkdir(exist_ok=True)
        output, _ = self.start(folder, "probe.sh", folder, Path.home()).communicate()
        if output.strip() != "sealed":
            errors = (folder / "errors").read_text(errors="replace")
            raise NoSandbox(f"{self.way}: {(output + errors).strip()[-300:]}")


def choose(folder, way=None):
    """The sandbox of this way, or the first that works; raises NoSandbox if none does."""
    problems = []
    for name in [way] if way else ["bubblewrap", "unshare"]:
        sandbox = Sandbox(name, folder)
        try:
            if way != "none":
                sandbox.probe(folder)
            return sandbox
        except (NoSandbox, OSError) as problem:  # OSError: there is no sh
            problems.append(str(problem))
    raise NoSandbox("; ".join(problems))
