"""One description of an exercise: a new one costs its own files, and no edit anywhere else."""

import csv
import shutil

import course
import pytest
import warm
from course import ROOT, SOLUTIONS, TASKS

SOLUTION = '''"""Exercise 6: a toy.

    6.1  double   twice a number

Check:  pytest tests/test_exercise_06_toy.py
"""

import torch

EXERCISE = "exercise_06_toy"


# %% Your part


def double(x):
    """Twice x."""
    # Task 6.1: multiply by two.
    return 2 * x


def run():
    """Print an example."""
    print(double(torch.ones(1)), BLUE)


# %% Given: the same in every file that uses it


# %% Run

if __name__ == "__main__":
    run()
'''
TEST = '''"""Exercise 6: a toy."""

import pytest
from messages import Wrong, calling


@pytest.mark.task("6.1")
def test_double(lesson):
    with calling("double(3)"):
        result = lesson.double(3)
    if result != 6:
        raise Wrong(f"double(3) returned {result}, expected 6.")
'''


def run(folder, *command):
    """Run a command of the course in a copy of it; returns what it printed."""
    done = warm.run(command, folder)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the repository with a sixth exercise."""
    folder = tmp_path_factory.mktemp("course") / "repo"
    ignored = shutil.ignore_patterns(".*", "data", "results", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=ignored)
    (folder / "solutions" / "exercise_06_toy.py").write_text(SOLUTION)
    (folder / "tests" / "test_exercise_06_toy.py").write_text(TEST)
    status, printed = run(folder, "tools/sync.py")
    assert status == 0, printed
    return folder


@pytest.mark.timeout(120)
def test_a_new_exercise_is_generated_and_tested(extended):
    stub = (extended / "exercise_06_toy.py").read_text()
    assert 'raise NotImplementedError("TODO 6.1: double")' in stub
    assert '\nBLUE = "' in stub
    status, printed = run(extended, "-m", "pytest", "tests/test_exercise_06_toy.py")
    assert status == 1
    assert "6.1  double" in printed
    assert "TODO 6.1: double is not written yet" in printed
    status, printed = run(
        extended, "-m", "pytest", "--target", "solutions", "-k", "exercise_06 or 1_3"
    )
    assert status == 0, printed
    assert "1 of 1  tests pass   done" in printed


@pytest.mark.timeout(120)
def test_tasks_have_their_names_in_a_course_without_solutions(extended):
    solutions = extended / "solutions"
    solutions.rename(extended / "elsewhere")
    status, printed = run(extended, "-m", "pytest", "tests/test_exercise_06_toy.py")
    (extended / "elsewhere").rename(solutions)
    assert status == 1
    assert "6.1  double" in printed


@pytest.mark.timeout(120)
def test_a_new_exercise_is_graded(extended, tmp_path):
    for learner, text in (("anna", SOLUTION), ("ben", SOLUTION.replace("2 * x", "3 * x"))):
        folder = tmp_path / "class" / learner
        folder.mkdir(parents=True)
        (folder / "exercise_06_toy.py").write_text(text.replace(", BLUE", ""))
    grade = ["grading/grade.py", tmp_path / "class", "--out", tmp_path / "out", "--exercises", "6"]
    status, printed = run(extended, *grade)
    assert status == 0, printed
    with open(tmp_path / "out" / "grades.csv", newline="", encoding="utf-8-sig") as file:
        points = {row["learner"]: row["6.1"] for row in csv.DictReader(file)}
    assert points == {"anna": "4", "ben": "0"}


def test_every_task_has_points_and_they_make_100():
    points = course.points()
    assert set(points) == set(TASKS)
    assert sum(points.values()) == 100
    assert set(course.POINTS) <= set(TASKS)
    assert set(course.MINUTES) <= set(SOLUTIONS)


def test_every_exercise_has_all_its_parts():
    page = (ROOT / "EXERCISES.md").read_text("utf-8")
    for exercise, path in SOLUTIONS.items():
        assert (ROOT / path.name).exists()
        assert (ROOT / "tests" / f"test_{path.name}").exists()
        assert (ROOT / "tests" / "variants" / f"exercise_0{exercise}.py").exists()
        assert f"\n## Exercise {exercise}: " in page
