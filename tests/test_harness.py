"""The harness as learners and instructors meet it: pytest on made-up targets, through its real command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = ROOT / "solutions" / "exercise_01_build_resnet18.py"
TEST = "tests/test_exercise_01_build_resnet18.py"
FAST = ("-k", "not script_runs and not learns_cifar10")


def run_pytest(*flags, cwd=ROOT):
    """Returns (exit status, everything that pytest printed)."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, flags)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def target(tmp_path):
    """A function that writes an edited solution into a folder and returns that folder."""

    def write(*edits, text=None):
        text = SOLUTION.read_text("utf-8") if text is None else text
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new)
        (tmp_path / SOLUTION.name).write_text(text, "utf-8")
        return tmp_path

    return write


def row(output, task):
    """The closing table's row of a task."""
    return next(
        line
        for line in output.splitlines()
        if re.match(rf"{re.escape(task)}  \w+ .* tests pass ", line)
    )


def test_every_task_of_an_untouched_stub_fails_with_its_todo_line(tmp_path):
    for solution in sorted(ROOT.glob("solutions/exercise_0*.py")):
        (tmp_path / solution.name).write_bytes((ROOT / solution.name).read_bytes())
    status, output = run_pytest(
        f"--target={tmp_path}"
    )  # without "=", pytest takes a folder elsewhere for its root
    assert status == 1 and " passed" not in output and "Traceback" not in output
    holes = re.findall(
        r"TODO (\d+\.\d+): ", "".join(p.read_text("utf-8") for p in tmp_path.glob("*.py"))
    )
    assert holes
    for task in set(holes):
        assert re.search(
            rf" 0 of \d+ +tests pass   TODO {task}: \S+ is not written yet \(exercise_\S+, line \d+\)",
            row(output, task),
        )


def test_the_untouched_stubs_are_the_default_target():
    """As a learner runs it, from the root and from tests/."""
    for cwd in (ROOT, ROOT / "tests"):
        status, output = run_pytest("--collect-only", "-q", cwd=cwd)
        assert status == 0 and f"{Path(TEST).name}::" in output and "test_sync" not in output


def test_tasks_can_be_done_one_by_one(target):
    stub = (ROOT / SOLUTION.name).read_text("utf-8")
    hole = '        raise NotImplementedError("TODO 1.1: BasicBlock.__init__")\n'
    layers = (
        SOLUTION.read_text("utf-8")
        .split("and a batch norm for each.\n")[1]
        .split("\n    def forward")[0]
    )
    forward = '        raise NotImplementedError("TODO 1.1: BasicBlock.forward")\n'
    lines = SOLUTION.read_text("utf-8").split("a last ReLU.\n")[1].split("\n\nclass")[0]
    folder = target((hole, layers), (forward, lines), text=stub)
    status, output = run_pytest("--target", folder, TEST, *FAST)
    assert status == 1
    assert row(output, "1.1").endswith("done")
    for task in ("1.2", "1.3", "1.4"):
        assert f"TODO {task}" in row(output, task)


def test_a_task_that_needs_an_earlier_one_says_so(target):
    folder = target(
        (
            "        self.conv1 = nn.Conv2d(",
            '        raise NotImplementedError("TODO 1.1: BasicBlock.__init__")\n        self.conv1 = nn.Conv2d(',
        )
    )
    _, output = run_pytest("--target", folder, TEST, *FAST)
    assert (
        "task 1.2 needs another one first: TODO 1.1: BasicBlock.__init__ is not written yet"
        in row(output, "1.2")
    )
    assert row(output, "1.3").endswith("done")


def test_stopping_at_the_first_failure_shows_the_first_task(tmp_path):
    (tmp_path / SOLUTION.name).write_bytes((ROOT / SOLUTION.name).read_bytes())
    _, output = run_pytest("--target", tmp_path, "-x", TEST)
    assert "TODO 1.1" in row(output, "1.1") and "1.2  ResNet18" not in output


@pytest.mark.parametrize(
    "text, said",
    [
        ("x = 1\ndef f(:\n", "line 2: SyntaxError: "),
        (
            "import torch\nimport nonsense_module\n",
            "line 2: ModuleNotFoundError: No module named 'nonsense_module'",
        ),
        ("x = 1\n\n1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
        ("", "has no"),
    ],
    ids=["syntax", "import", "crash", "exit", "empty"],
)
def test_a_file_that_cannot_be_imported_is_explained_in_one_sentence(target, text, said):
    status, output = run_pytest("--target", target(text=text), TEST, *FAST)
    assert status == 1 and said in output and "Traceback" not in output and " passed" not in output
    assert output.count(said) <= 4, "said once a task at most"


def test_a_missing_file_is_named(tmp_path):
    status, output = run_pytest("--target", tmp_path, TEST, *FAST)
    assert status == 1 and f"there is no {SOLUTION.name} in {tmp_path}" in output


def test_a_missing_folder_is_named(tmp_path):
    status, output = run_pytest("--target", tmp_path / "nowhere")
    assert status == 4 and "there is no such folder" in output and "Traceback" not in output


def test_an_endless_loop_ends_at_its_task(target):
    folder = target(
        (
            "    model.eval()\n    right = total = 0\n",
            "    while True:\n        pass\n    right = total = 0\n",
        )
    )
    status, output = run_pytest(
        "--target", folder, "--timeout", 2, TEST, "-k", "accuracy or shortcut_is_the_identity"
    )
    assert status == 1 and "took longer than 2 s" in output
    assert row(output, "1.3").endswith("done") and "wrong" in row(output, "1.4")


def test_an_endless_loop_at_import_ends(target):
    folder = target(text="while True:\n    pass\n")
    status, output = run_pytest("--target", folder, "--timeout", 3, TEST, *FAST)
    assert status == 1 and "took longer than 3 s" in output


def test_an_exception_names_the_learners_line(target):
    folder = target(
        (
            "        return F.relu(branch + self.shortcut(x))",
            "        return F.relu(branch + self.shortcutt(x))",
        )
    )
    line = (
        SOLUTION.read_text("utf-8")
        .split("        return F.relu(branch + self.shortcut(x))")[0]
        .count("\n")
        + 1
    )
    _, output = run_pytest("--target", folder, TEST, *FAST)
    assert "BasicBlock(6, 6, stride=1) on an input (4, 6, 8, 8) raised AttributeError" in output
    assert f"({SOLUTION.name}, line {line})" in output


def test_pytests_own_tracebacks_are_there_for_who_wants_them(target):
    folder = target(("return right / total", "return 100 * right / total"))
    _, output = run_pytest("--target", folder, "--tb=short", TEST, *FAST)
    assert "FAILURES" in output and "it is a percentage" in output
