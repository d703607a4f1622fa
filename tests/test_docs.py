"""README.md and EXERCISES.md: links lead somewhere, figures exist and are small, commands are the ones that run."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "EXERCISES.md"]


def anchors(page):
    """The anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = ROOT / name if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_figures_are_small_and_have_alternative_text():
    for page in PAGES:
        for text, name in re.findall(r"!\[(.*?)\]\(([^)]+)\)", page.read_text("utf-8"), re.DOTALL):
            assert len(text) > 40, f"{name} needs a text that says what it shows"
            assert (ROOT / name).stat().st_size < 200_000, name


def test_the_pages_are_no_longer_than_promised():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200
    sections = re.split(r"^## ", (ROOT / "EXERCISES.md").read_text("utf-8"), flags=re.MULTILINE)
    exercises = [section for section in sections if section.startswith("Exercise ")]
    assert len(exercises) == 5
    for section in exercises:
        assert len(section.splitlines()) <= 250, section.splitlines()[0]


def test_details_are_closed():
    for page in PAGES:
        text = page.read_text("utf-8")
        assert text.count("<details>") == text.count("</details>") == text.count("<summary>"), page


def test_the_readme_and_ci_run_the_same_test_command():
    assert "pytest --target solutions\n" in (ROOT / "README.md").read_text("utf-8")
    assert "\npytest --target solutions\n" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_files_that_the_pages_name_exist():
    for page in PAGES:
        for name in re.findall(r"[\w/.]*\w+\.(?:py|txt|toml)\b", page.read_text("utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_readme_says_how_many_answers_the_kill_matrix_has():
    sys.path.insert(0, str(ROOT / "tests" / "variants"))
    variants = [v for n in range(1, 6) for v in importlib.import_module(f"exercise_0{n}").VARIANTS]
    wrong = sum(not variant.right for variant in variants)
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"{wrong} wrong answers and {len(variants) - wrong} right ones" in text


# --- every command of the README runs -------------------------------------------------------------------------------

ELSEWHERE = {  # what cannot be run here, and the file that runs it
    "pytest --target solutions": ".ci/run",
    "pip install -r requirements.txt": ".ci/run",
    "python tools/kill_matrix.py": ".ci/run",
    "python tools/sync.py": ".ci/run",
    "bash .ci/run": None,  # it runs this test
    "ptw . tests/test_exercise_01_build_resnet18.py -x": None,  # a package that the course does not need
    "pip install pytest-watcher": None,
    "uv run exercise_01_build_resnet18.py": None,  # installs torch a second time
    "!python exercise_01_build_resnet18.py": None,  # Colab's own
    "python solutions/exercise_05_transfer_learning.py --images DIR --weights imagenet": None,  # a download
}
SHORTER = {"tools/judge.py": "--exercises 1", "tools/grade.py": "--exercises 1"}


def readme_commands():
    """The README's commands, each once: lines of its code blocks, and code in its text that begins like a command."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    parts = [part for block in blocks for line in block.splitlines() for part in line.split("#")[0].split(" && ")]
    parts += re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = [" ".join(part.split()) for part in parts]
    begins = ("python ", "pytest ", "torchrun ", "pip ", "uv ", "ptw ", "bash ", "!python ")
    return sorted({command for command in commands if command.startswith(begins)})


def test_commands_that_run_elsewhere_do():
    commands = readme_commands()
    for command, place in ELSEWHERE.items():
        assert command in commands, f"the README has no {command} any more"
        assert place is None or command in (ROOT / place).read_text("utf-8"), f"{place} does not run {command}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the repository in which a learner has solved everything; and what the README's names stand for."""
    folder = tmp_path_factory.mktemp("clone") / "repo"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv", "data", "results", "__pycache__"))
    for place in (folder, folder / "SUBMISSIONS" / "anna", folder / "FOLDER", folder / "DIR"):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "solutions" / "exercise_01_build_resnet18.py", place)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", [command for command in readme_commands() if command not in ELSEWHERE])
def test_commands_of_the_readme_run(finished, command):
    program, _, rest = command.partition(" ")
    script = rest.split()[0]
    if "exercise_0" in script or program == "torchrun" or script.endswith(("bench.py", "seeds.py")):
        command += "" if "--dry-run" in command else " --dry-run"
    if script.endswith(("figures.py", "measure_shapes.py")):
        command += " --dry-run"
    if program == "pytest" and "tests/" not in command:
        command += " tests/test_exercise_01_build_resnet18.py"
    command = f"{command} {SHORTER.get(script, '')}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=finished, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


@pytest.mark.timeout(120)
def test_the_readmes_transcript_is_what_the_tests_say(tmp_path):
    words = " ".join((ROOT / "README.md").read_text("utf-8").split())
    stub = (ROOT / "exercise_01_build_resnet18.py").read_text("utf-8")
    right = (ROOT / "solutions" / "exercise_01_build_resnet18.py").read_text("utf-8")
    line = "return F.relu(branch) + self.shortcut(x)"
    mistaken = right.replace("return F.relu(branch + self.shortcut(x))", line)
    assert mistaken != right and f"`{line}`" in words
    for text in (stub, mistaken):
        (tmp_path / "exercise_01_build_resnet18.py").write_text(text, "utf-8")
        command = [sys.executable, "-m", "pytest", "-x", f"--target={tmp_path}", "-p", "no:cacheprovider"]
        command.append("tests/test_exercise_01_build_resnet18.py")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        said = [
            line for line in done.stdout.splitlines() if line.startswith(("1.1 ", "----------", "Basic", "The like"))
        ]
        assert said and all(" ".join(line.split()) in words for line in said), said
