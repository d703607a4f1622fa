"""Where submissions run: bubblewrap, unshare or a container; and a probe that nothing gets out."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import needed

ROOT = Path(__file__).resolve().parent.parent
HOW_TO_RUN = {"timeout": 4 * 3600, "start_new_session": True}  # a Ctrl-C is the grader's alone


class Sandbox:
    """A way to run judges, and the clean copy of the course's tests that they use."""

    def __init__(self, way, folder):
        self.way = way  # "bubblewrap", "unshare", "none", or an image's name
        self.folder = folder
        self.stdin, self.end_of_stdin = os.pipe()
        self.course = Path(folder, "course")
        places = {sys.base_prefix, sys.prefix, str(Path(sys.executable).resolve().parents[1])}
        places |= {str(Path(find_spec(name).origin).parents[1]) for name in needed.PACKAGES}
        self.folders = "\n".join(sorted(places))
        for path in (ROOT / "pyproject.toml", *ROOT.glob("tests/*.py"), *ROOT.glob("grading/*.*")):
            place = self.course / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)

    def run(self, folder, script, *arguments):
        """What a script of grading/ writes to stdout and to stderr. It sees folder/submission."""
        (folder / "room").mkdir(exist_ok=True)
        places = [folder / "room", self.course, folder / "submission", self.folders]
        command = ["sh", ROOT / "grading" / "sandbox.sh", self.way, *places, sys.executable]
        command += [script, *arguments]
        texts = [folder / "output", folder / "errors"]  # files, for these have a limit (sandbox.sh)
        with open(texts[0], "wb") as output, open(texts[1], "wb") as errors:
            subprocess.run(command, stdin=self.stdin, stdout=output, stderr=errors, **HOW_TO_RUN)
        return [path.read_text(errors="replace").strip() for path in texts]

    def stop(self):
        """Make all judges end by themselves, soon."""
        os.close(self.end_of_stdin)

    def probe(self):
        """What is seen of the host, or why nothing runs; or "sealed", and perhaps warnings."""
        (self.folder / "submission").mkdir(exist_ok=True)
        return " ".join(self.run(self.folder, "probe.sh", self.folder, Path.home()))


def choose(folder, way=None):
    """The sandbox of this way, or the first that works; ends the grader if none does."""
    if not shutil.which("sh"):
        sys.exit("There is no shell (sh) here. On Windows, run this in WSL.")
    problems = []
    for name in [way] if way else ["bubblewrap", "unshare"]:
        sandbox = Sandbox(name, folder)
        found = "sealed" if way == "none" else sandbox.probe()
        if found.startswith("sealed"):
            return sandbox
        problems.append(f"{name}: {found}")
    sys.exit(f"No sandbox works here: {'; '.join(problems)}\nSee docs/grading.md.")
