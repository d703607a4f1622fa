"""tools/sync.py on a small repository: edits reach every file, learners' work is never overwritten."""

import subprocess
import sys
from pathlib import Path

import pytest

SYNC = Path(__file__).resolve().parent.parent / "tools" / "sync.py"
SOLUTION = '''"""Exercise {n}: a docstring."""


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


# %% Given: the same in every file


def given():
    return {given}
'''
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


@pytest.fixture
def repository(tmp_path):
    """Three solutions and their learners' files, generated and committed."""
    (tmp_path / "solutions").mkdir()
    for n, name in enumerate(NAMES, 1):
        (tmp_path / "solutions" / name).write_text(SOLUTION.format(n=n, given=1))
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
    assert "        y = x  # a given line\n        # TODO 2.1: double it,\n        # and give it back.\n" in text
    assert '        raise NotImplementedError("TODO 2.1: Block.forward")\n\n\ndef double(x):' in text
    assert '    raise NotImplementedError("TODO 2.2: double")\n\n\n# %% Given' in text
    assert "Task" not in text and "2 * " not in text


def test_check_passes_when_all_is_in_step(repository):
    assert sync(repository, "--check") == (0, "")


def test_an_edit_to_the_given_part_reaches_every_file(repository):
    edit(repository / "solutions" / NAMES[0], "return 1", "return 41")
    status, said = sync(repository, "--check")
    assert status == 1
    for name in (f"solutions/{NAMES[1]}", f"solutions/{NAMES[2]}", *NAMES):
        assert f"out of step: {name}\n" in said
    assert "return 1" in (repository / NAMES[0]).read_text(), "--check changed a file"
    assert sync(repository)[0] == 0
    for path in [*repository.glob("exercise_*.py"), *repository.glob("solutions/*.py")]:
        assert "return 41" in path.read_text(), path
    assert sync(repository, "--check")[0] == 0


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
    edit(repository / "solutions" / NAMES[0], "return 1", "return 41")
    before = learner.read_text()
    status, said = sync(repository)
    assert status == 1 and f"left alone: {NAMES[0]}" in said
    assert learner.read_text() == before
    assert "return 41" in (repository / NAMES[1]).read_text(), "the other files are brought in step"


def test_without_git_an_existing_file_is_refused(tmp_path):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / NAMES[0]).write_text(SOLUTION.format(n=1, given=1))
    (tmp_path / NAMES[0]).write_text("somebody's work")
    status, said = sync(tmp_path)
    assert status == 1 and "left alone" in said
    assert (tmp_path / NAMES[0]).read_text() == "somebody's work"


def test_a_missing_stub_is_written(repository):
    (repository / NAMES[0]).unlink()
    assert sync(repository, "--check")[0] == 1
    assert sync(repository)[0] == 0
    assert (repository / NAMES[0]).exists()


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("# %% Given: the same in every file\n", "", "Given"),
        ("# Task 1.2: the same.\n    return 2 * x", "return 2 * x\n    # Task 1.2: the same.", "1.2"),
        ("def given():", "# Task 1.3: x\ndef given(:", "line"),
        ("# Task", "# Aufgabe", "no hole"),
    ],
)
def test_a_solution_that_cannot_be_used_is_named(repository, old, new, said):
    edit(repository / "solutions" / NAMES[0], old, new)
    for flags in ((), ("--check",)):
        status, output = sync(repository, *flags)
        assert status == 1 and said in output and NAMES[0] in output
