"""The pages: links lead somewhere, figures exist, commands run, words are those of the field."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm
from course import ROOT, SOLUTIONS

sys.path.insert(0, str(ROOT / "tools"))
import kill_matrix
from bench import load_solution

README = ROOT / "README.md"
EXERCISES = ROOT / "EXERCISES.md"
PAGES = [README, EXERCISES, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page):
    """The anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@each_page
def test_figures_are_small_and_have_alternative_text(page):
    figures = re.findall(r"!\[(.*?)\]\(([^)]+)\)", page.read_text("utf-8"), re.DOTALL)
    for text, name in figures:
        assert len(text) > 40, f"{name} needs a text that says what it shows"
        assert (page.parent / name).stat().st_size < 200_000, name


def test_the_pages_are_no_longer_than_promised():
    assert len(README.read_text("utf-8").splitlines()) <= 100
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60
    sections = re.split(r"^## ", EXERCISES.read_text("utf-8"), flags=re.MULTILINE)
    exercises = [section for section in sections if section.startswith("Exercise ")]
    assert len(exercises) == len(SOLUTIONS)
    for section in exercises:
        assert len(section.splitlines()) <= 330, section.splitlines()[0]


@each_page
def test_details_are_closed(page):
    text = page.read_text("utf-8")
    opened = text.count("<details>")
    assert opened == text.count("</details>") == text.count("<summary>")


def test_the_readme_and_ci_run_the_same_test_command():
    assert "pytest --target solutions\n" in README.read_text("utf-8")
    assert "\npytest --target solutions\n" in (ROOT / ".ci" / "run").read_text("utf-8")


@each_page
def test_files_that_the_pages_name_exist(page):
    made_by_others = {"review.txt", "learners/NAME.txt", "anna_exercise_01.py", "my_network.py"}
    for name in re.findall(r"[\w/.]*\w+\.(?:py|txt|toml)\b", page.read_text("utf-8")):
        if name in made_by_others:
            continue
        if name != "solutions/exercise_06_name.py" and "exercise_06" not in name:  # to be written
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_pages_say_how_many_answers_the_kill_matrix_has():
    variants = kill_matrix.load()
    wrong = sum(not variant.right for variant in variants)
    text = " ".join((ROOT / "docs" / "grading.md").read_text("utf-8").split())
    assert f"{wrong:,} wrong answers and {len(variants) - wrong} right ones" in text


FOREIGN = re.compile(
    r"\bpictures?\b|rightly|\bunseen\b|right answers? for|names [\d.]+ ?%|"
    r"\b(images|pictures|pixels|steps|labels|multiply-adds|milliseconds|seconds|numbers|factor\S*) "
    r"an? (second|class|layer|step|epoch|image|picture|seed|training|network)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("pattern", ["*.md", "docs/*.md", "*.py", "solutions/*.py", "tests/*.py"])
def test_the_words_are_those_of_the_field(pattern):
    for path in sorted(ROOT.glob(pattern)):
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            word = FOREIGN.search(line)
            assert not word, f"{path.name}, line {number}: {word[0]}"


# Every command of the pages runs

ELSEWHERE = {  # what is not run here, and what runs it if that is not a test
    "pytest --target solutions": ".ci/run",
    "pip install -r requirements.txt": ".ci/run",
    "pip install -r requirements.txt -r tools/requirements.txt": ".ci/run",
    "python tools/kill_matrix.py": None,  # by hand: .ci/run tries a twelfth
    "python tools/kill_matrix.py --own --share 12": ".ci/run",
    "python tools/sync.py --check": ".ci/run",
    "python tools/sync.py": None,  # tests/test_sync.py
    "pytest --draw=SEED": None,  # SEED stands for a number
    "python tools/bench.py": None,  # tests/test_bench.py
    "python tools/profile_training.py": None,
    "python tools/bench.py busy --networks plain-56 ResNet-18 --rounds 3": None,
    "python tools/bench.py runs": None,  # tests/test_scripts.py runs each script
    "torchrun --standalone --nproc-per-node 2 solutions/exercise_04_depth_scaling.py": None,
    "python tools/claims.py 2": None,  # tests/test_claims.py
    "python tools/claims.py 2 --depths 20 32 44": None,
    "python tools/kill_matrix.py 1.4": None,  # the same
    "python exercise_01_build_resnet18.py": None,  # tests/test_scripts.py
    "python exercise_01_build_resnet18.py --dry-run": None,
    "python solutions/exercise_01_build_resnet18.py": None,
    "python grading/grade.py SUBMISSIONS --out GRADES": None,  # tests/test_grading.py
    "python grading/grade.py FOLDER --one --out GRADES": None,
    "pytest --target=DIR": None,  # tests/test_harness.py
    "pytest -x tests/test_exercise_01_build_resnet18.py": None,
    "pytest -m whole_class tests/test_grading.py": None,  # by hand: it takes a quarter of an hour
    "bash .ci/run": None,  # it runs this test
    "pre-commit install": None,  # a package that the course does not need
    "ptw . tests/test_exercise_01_build_resnet18.py -x": None,  # the same
    "pip install pytest-watcher": None,
    "uv run exercise_01_build_resnet18.py": None,  # installs torch a second time
    "!python exercise_01_build_resnet18.py --device cpu": None,  # Colab's own
    "python solutions/exercise_05_transfer_learning.py --images DIR --weights imagenet": None,
}
BEGINNINGS = (
    "python ",
    "pytest ",
    "torchrun ",
    "pip ",
    "uv ",
    "ptw ",
    "bash ",
    "!python ",
    "pre-commit ",
)
COMMAND_PAGES = [page for page in PAGES if page != EXERCISES]


def commands():
    """The pages' commands, each once: lines of code blocks, and code in the text."""
    parts = []
    for page in COMMAND_PAGES:
        text = page.read_text("utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                parts += line.split("#")[0].split(" && ")
        parts += re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    cleaned = {" ".join(part.split()) for part in parts}
    return sorted(command for command in cleaned if command.startswith(BEGINNINGS))


def test_commands_that_run_elsewhere_do():
    known = commands()
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    for command, place in ELSEWHERE.items():
        assert command in known or command.startswith("pip "), f"no page has {command} any more"
        if place:
            assert command.replace("pip install ", "") in ci, f"{place} does not run {command}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the repository, with exercise 1 solved."""
    folder = tmp_path_factory.mktemp("clone") / "repo"
    ignored = shutil.ignore_patterns(".git", ".venv", "data", "results", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=ignored)
    shutil.copy(ROOT / "solutions" / "exercise_01_build_resnet18.py", folder)
    return folder


def in_short(command):
    """The command with what makes it short."""
    program, _, rest = command.partition(" ")
    script = rest.split()[0]
    is_run = "exercise_0" in script or program == "torchrun"
    is_measurement = script.endswith(("bench.py", "claims.py", "figures.py", "measure_shapes.py"))
    if script.endswith("figures.py"):
        return f"{command} 3 --dry-run"
    if program != "pytest" and (is_run or is_measurement) and "--dry-run" not in command:
        return f"{command} --dry-run"
    if program == "pytest" and "tests/" not in command:
        return f"{command} tests/test_exercise_01_build_resnet18.py"
    return command


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", [command for command in commands() if command not in ELSEWHERE])
def test_commands_of_the_pages_run(finished, command):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        in_short(command),
        shell=True,
        cwd=finished,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


@pytest.mark.timeout(120)
def test_the_readmes_transcript_is_what_the_tests_say(tmp_path):
    words = " ".join(README.read_text("utf-8").split())
    name = SOLUTIONS["1"].name
    mistake = "return F.relu(branch) + self.shortcut(x)"
    solution = SOLUTIONS["1"].read_text("utf-8")
    mistaken = solution.replace("return F.relu(branch + self.shortcut(x))", mistake)
    assert mistaken != solution
    assert f"`{mistake}`" in words
    for text in ((ROOT / name).read_text("utf-8"), mistaken):
        (tmp_path / name).write_text(text, "utf-8")
        flags = ["-x", f"--target={tmp_path}", "-p", "no:cacheprovider", f"tests/test_{name}"]
        done = warm.run(["-m", "pytest", *flags], ROOT)
        beginnings = ("1.1 ", "----------", "Basic", "The like")
        lines = [line for line in done.stdout.splitlines() if line.startswith(beginnings)]
        assert lines
        for line in lines:
            assert " ".join(line.split()) in words


def test_the_numbers_by_hand_are_what_the_solutions_compute():
    exercise_2 = load_solution("2")
    network = exercise_2.build_network(20, skip=False)
    assert f"{sum(p.numel() for p in network[1][0].parameters()):,}" in EXERCISES.read_text("utf-8")
    losses = {("plain", 20): (0.8, 1.0), ("plain", 44): (0.5, 0.9)}
    histories = {}
    for (kind, depth), final_losses in losses.items():
        for seed, loss in enumerate(final_losses):
            histories[kind, depth, seed] = [{"loss": loss}]
            histories["residual", depth, seed] = [{"loss": 0}]
    assert exercise_2.degradation(histories)["plain"] == pytest.approx(-0.2)
    assert load_solution("3").change_per_layer([8, 4, 2, 0, 0.5]) == pytest.approx(0.5)
    exercise_4 = load_solution("4")
    for channels, size in ((64, 32), (512, 4)):
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1)
        assert exercise_4.count_macs(layer, (channels, size, size)) == 37_748_736
    rows = [{"macs": 1e9, "accuracy": 0.90}, {"macs": 3e9, "accuracy": 0.92}]
    assert exercise_4.marginal_gains(rows) == pytest.approx([1])
    share = exercise_4.train_depths(lambda *_: None, [18, 34, 50], [0, 1], 16, 1, 4)
    assert list(share) == [(18, 1), (50, 1)]


def test_the_clear_differences_of_the_sweep_are_those_of_its_log():
    log = json.loads((ROOT / "docs" / "logs" / "exercise_04_five_seeds.json").read_text("utf-8"))
    differences = load_solution("4").clear_differences(log["runs"])
    pair = r"from (\d+) to (\d+) layers ([+-])([\d.]+) ± ([\d.]+) points"
    clear = re.findall(pair, "; ".join(differences))
    assert clear
    words = " ".join(EXERCISES.read_text("utf-8").split())
    for shallow, deep, sign, points, error in clear:
        more = "more" if sign == "+" else "*less*"
        assert f"From {shallow} to {deep} layers: {points} ± {error} points {more}" in words
    assert len(re.findall(r"- From \d+ to \d+ layers: ", words)) == len(clear)
