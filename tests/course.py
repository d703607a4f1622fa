"""What the exercises are: read from the solutions' names and docstrings, and from one small table.

An exercise is a solution, exercise_0N_name.py, a test file and a section of EXERCISES.md; a new one
needs no edit here unless its points or minutes are unusual.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POINTS = {"1.1": 6, "1.2": 6}  # what a task is worth; every other one 4
MOST_DRAWS = 10**9  # the largest --draw, or a grader's --seed
MINUTES = {"2": 3, "4": 3}  # what a default run may take on 2 cores; every other one 2


def find_solutions(root=ROOT):
    """{"1": path of its solution, ...} by the exercise's number."""
    solutions = {}
    for path in sorted(root.glob("solutions/exercise_0*.py")):
        solutions[path.name[len("exercise_0")]] = path
    return solutions


def read_tasks(scripts):
    """{"1.1": "BasicBlock", ...} from the lists of tasks that the scripts' docstrings have."""
    tasks = {}
    for path in scripts:
        pairs = re.findall(r"^    (\d+\.\d+)  (\w+)", path.read_text("utf-8"), re.MULTILINE)
        tasks.update(pairs)
    return tasks


SOLUTIONS = find_solutions()
FILES = {exercise: path.name for exercise, path in SOLUTIONS.items()}
# Learners may have been given everything but the solutions.
TASKS = read_tasks(SOLUTIONS.values() or sorted(ROOT.glob("exercise_0*.py")))


def points():
    """{"1.1": what the task is worth, ...}."""
    return {task: POINTS.get(task, 4) for task in TASKS}


def minutes(exercise):
    """What an exercise's default run may take on 2 cores without a GPU."""
    return MINUTES.get(exercise, 2)
