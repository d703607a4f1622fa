"""tools/sync.py on a small repository: edits reach every file, no learner's work is overwritten."""

import subprocess
import sys
from pathlib import Path

import pytest

SYNC = Path(__file__).resolve().parent.parent / "tools" / "sync.py"
GIVEN = '''"""The shared code."""

import math

# What everything is multiplied by.
FACTOR = 1
UNUSED = 5


def given():
    return helper() * FACTOR


def helper():
    return math.pi


def nobody_needs():
    return UNUSED
'''
SOLUTION = '''"""Exercise {n}: a docstring."""

import math


# %% Your part


class Block:
    def forward(self, x):
        """Doubles x."""
        y = x  # a given line
        # Task {n}.1: double it,
        # and give it back.
        y = 2 * y
        return y


def double(x):
    # Task {n}.2: the same.
    return 2 * x


def run():
    return {uses}


# %% Given: the same in every file that uses it


# %% Run

if __name__ == "__main__":
    run()
'''
USES = ("given()", "helper()", "1")  # what exercises 1 to 3 use of the given code
NAMES = ("exercise_01_one.py", "exercise_02_two.py", "exercise_03_three.py")


def git(root, *arguments):
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def sync(root, *flags):
    """Run the tool; returns (exit status, everything it printed)."""
    command = [sys.executable, SYNC, "--root", root, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def write_sources(root):
    """Three solutions and the given code."""
    (root / "solutions").mkdir()
    (root / "tools").mkdir()
    (root / "tools" / "given.py").write_text(GIVEN)
    for n, (name, uses) in enumerate(zip(NAMES, USES), 1):
        (root / "solutions" / name).write_text(SOLUTION.format(n=n, uses=uses))


@pytest.fixture
def repository(tmp_path):
    """Three solutions and their learners' files, generated and committed."""
    write_sources(tmp_path)
    git(tmp_path, "init", "-q")
    assert sync(tmp_path)[0] == 0
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "start")
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_stub_has_todos_where_the_solution_has_tasks(repository):
    text = (repository / NAMES[1]).read_text()
    assert "        y = x  # a given line\n        # TODO 2.1: double it,\n" in text
    assert "        # and give it back.\n        raise NotImplementedError" in text
    assert (
        '        raise NotImplementedError("TODO 2.1: Block.forward")\n\n\ndef double(x):' in text
    )
    assert '    raise NotImplementedError("TODO 2.2: double")\n\n\ndef run' in text
    assert "Task" not in text and "2 * " not in text


def test_check_passes_when_all_is_in_step(repository):
    assert sync(repository, "--check") == (0, "")


def given_part(path):
    """The given code of a script."""
    return path.read_text().partition("# %% Given")[2].partition("# %% Run")[0]


def test_a_script_has_the_given_code_that_it_uses_and_no_other(repository):
    for folder in (repository, repository / "solutions"):
        first, second, third = [given_part(folder / name) for name in NAMES]
        assert "# What everything is multiplied by.\nFACTOR = 1\n\n\ndef given():" in first
        assert first.index("def given") < first.index("def helper")
        assert "def helper" in second and "def given" not in second and "FACTOR" not in second
        assert "def " not in third
        assert "nobody_needs" not in first + second + third


def test_a_name_that_a_solution_defines_itself_is_its_own(repository):
    own = "def helper():\n    return 3\n\n\ndef run():"
    edit(repository / "solutions" / NAMES[0], "def run():", own)
    assert sync(repository)[0] == 0
    part = given_part(repository / NAMES[0])
    assert "def given" in part and "def helper" not in part


def test_an_edit_to_the_given_code_reaches_every_file_that_uses_it(repository):
    edit(repository / "tools" / "given.py", "math.pi", "math.e")
    status, printed = sync(repository, "--check")
    assert status == 1
    for name in NAMES[:2]:
        assert f"out of step: {name}\n" in printed
        assert f"out of step: solutions/{name}\n" in printed
    assert NAMES[2] not in printed
    assert "math.pi" in (repository / NAMES[0]).read_text(), "--check changed a file"
    assert sync(repository)[0] == 0
    for name in NAMES[:2]:
        assert "math.e" in (repository / name).read_text()
        assert "math.e" in (repository / "solutions" / name).read_text()
    assert sync(repository, "--check")[0] == 0


def test_an_edit_inside_the_given_part_of_a_solution_is_undone(repository):
    """Its only original is tools/given.py."""
    edit(repository / "solutions" / NAMES[1], "math.pi", "3")
    assert f"out of step: solutions/{NAMES[1]}" in sync(repository, "--check")[1]
    assert sync(repository)[0] == 0
    assert "math.pi" in (repository / "solutions" / NAMES[1]).read_text()


def test_an_edit_to_a_docstring_reaches_the_stub(repository):
    edit(repository / "solutions" / NAMES[2], "Doubles x.", "Gives twice x.")
    assert sync(repository, "--check")[1].count("out of step") == 1
    assert sync(repository)[0] == 0
    assert "Gives twice x." in (repository / NAMES[2]).read_text()


def test_two_edits_without_a_commit_between_them(repository):
    for old, new in (("Doubles x.", "First."), ("First.", "Second.")):
        edit(repository / "solutions" / NAMES[0], old, new)
        assert sync(repository)[0] == 0
    assert "Second." in (repository / NAMES[0]).read_text()


@pytest.mark.parametrize("state", ["unstaged", "staged", "committed", "untracked"])
def test_a_learners_work_is_refused_not_overwritten(repository, state):
    learner = repository / NAMES[0]
    edit(learner, 'raise NotImplementedError("TODO 1.2: double")', "return x + x")
    if state == "untracked":
        git(repository, "rm", "-q", "--cached", NAMES[0])
        git(repository, "commit", "-qm", "untrack")
    elif state != "unstaged":
        git(repository, "add", ".")
    if state == "committed":
        git(repository, "commit", "-qm", "solved")
    edit(repository / "tools" / "given.py", "math.pi", "math.e")
    before = learner.read_text()
    status, printed = sync(repository)
    assert status == 1 and f"left alone: {NAMES[0]}" in printed
    assert learner.read_text() == before
    assert "math.e" in (repository / NAMES[1]).read_text(), "the other files are brought in step"


def test_without_git_an_existing_file_is_refused(tmp_path):
    write_sources(tmp_path)
    (tmp_path / NAMES[0]).write_text("somebody's work")
    status, printed = sync(tmp_path)
    assert status == 1 and "left alone" in printed
    assert (tmp_path / NAMES[0]).read_text() == "somebody's work"


def test_a_missing_stub_is_written(repository):
    (repository / NAMES[0]).unlink()
    assert sync(repository, "--check")[0] == 1
    assert sync(repository)[0] == 0
    assert (repository / NAMES[0]).exists()


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("# %% Given: the same in every file that uses it\n", "", "Given"),
        ("# %% Run\n", "", "Run"),
        (
            "# Task 1.2: the same.\n    return 2 * x",
            "return 2 * x\n    # Task 1.2: the same.",
            "1.2",
        ),
        ("def run():", "# Task 1.3: x\ndef run(:", "line"),
        ("# Task", "# Aufgabe", "no hole"),
    ],
)
def test_a_solution_that_cannot_be_used_is_named(repository, old, new, expected):
    edit(repository / "solutions" / NAMES[0], old, new)
    for flags in ((), ("--check",)):
        status, output = sync(repository, *flags)
        assert status == 1 and expected in output and NAMES[0] in output
