"""Where submissions run: bubblewrap, unshare or a container; and a probe that nothing gets out."""

import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("torch", "torchvision", "matplotlib", "numpy", "tqdm", "pytest")


class NoSandbox(Exception):
    """Submissions cannot be run here; the message says why."""


class Sandbox:
    """A way to run judges, and the clean copy of the course's tests that they use."""

    def __init__(self, way, folder):
        self.way = way  # "bubblewrap", "unshare", "none", or an image's name
        self.course = Path(folder, "course")
        places = {sys.base_prefix, sys.prefix, str(Path(sys.executable).resolve().parents[1])}
        for name in NEEDED:
            spec = find_spec(name)
            if spec is None:
                raise NoSandbox(f"this Python has no {name}: activate the course's environment")
            places.add(str(Path(spec.origin).parents[1]))
        self.folders = "\n".join(sorted(places))
        tests = [path for path in ROOT.glob("tests/*.py") if is_needed(path.name)]
        for path in (ROOT / "pyproject.toml", *tests, *ROOT.glob("grading/*.*")):
            place = self.course / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)

    def start(self, scratch, submission, script, *arguments, errors=None):
        """A process that runs a script of grading/ on a submission. It ends when its stdin does.

        scratch: an empty folder. errors: a file for what it writes to stderr.
        """
        places = [str(place) for place in (scratch, self.course, submission)]
        command = ["sh", ROOT / "grading" / "sandbox.sh", self.way, *places, self.folders]
        command += [sys.executable, script, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors or pipe, text=True)

    def probe(self):
        """Raise NoSandbox if a process in the sandbox sees anything of the host's."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as local:
            local.bind(f"{folder}/socket")
            local.listen()
            scratch = Path(folder, "scratch")
            scratch.mkdir()
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = f"{server.getsockname()[1]:04X}"
                words = (folder, str(Path.home()), port)
                said, errors = self.start(scratch, scratch, "probe.sh", *words).communicate()
        if said.strip() != "sealed":
            raise NoSandbox(f"{self.way}: {(said + errors).strip()[-300:]}")


def is_needed(name):
    """Whether a file of tests/ is needed to judge a submission."""
    return name.startswith("test_exercise_") or not name.startswith(("test_", "made_"))


def choose(folder, image=None):
    """The first sandbox that works; raises NoSandbox if none does."""
    problems = []
    for way in [image] if image else ["bubblewrap", "unshare"]:
        sandbox = Sandbox(way, folder)
        try:
            sandbox.probe()
            return sandbox
        except NoSandbox as problem:
            problems.append(str(problem))
    raise NoSandbox("; ".join(problems))
