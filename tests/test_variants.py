"""The answers that tools/kill_matrix.py runs: they fit the solutions, and there are enough for every task."""

import ast
import importlib
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "variants"))
from changes import SOLUTIONS, apply  # noqa: E402

VARIANTS = [v for n in range(1, 6) for v in importlib.import_module(f"exercise_0{n}").VARIANTS]
MODELS = {"1.2", "1.3", "2.1", "2.2", "4.1", "4.2"}
BLOCKS = {"1.1", "2.1", "4.1"}


@pytest.mark.parametrize("exercise", "12345")
def test_every_answer_is_a_change_to_its_solution(exercise):
    solution = next(SOLUTIONS.glob(f"exercise_0{exercise}_*.py")).read_text("utf-8")
    for variant in VARIANTS:
        if variant.task[0] == exercise:
            name, text = apply(variant)
            assert text != solution, variant.name
            ast.parse(text)


def test_answers_have_names_of_their_own():
    twice = [key for key, count in Counter((v.task, v.name, v.right) for v in VARIANTS).items() if count > 1]
    assert not twice


def test_there_are_enough_wrong_answers_for_every_task():
    counts = Counter(v.task for v in VARIANTS if not v.right)
    assert counts["1.1"] >= 12
    for task in sorted(counts):
        assert counts[task] >= (6 if task in MODELS else 4), task


def test_there_are_right_answers_in_other_styles_for_every_task():
    counts = Counter(v.task for v in VARIANTS if v.right)
    assert set(counts) == {v.task for v in VARIANTS}
    for task in sorted(counts):
        assert counts[task] >= (8 if task in BLOCKS else 2), task


def test_every_wrong_answer_has_a_name():
    """What the message says, and it must say more than that something is wrong."""
    for variant in VARIANTS:
        assert variant.right or len(variant.says or "") >= 10, (variant.task, variant.name)


@pytest.mark.parametrize("exercise", "12345")
def test_right_answers_change_every_hole_twice(exercise):
    solution = next(SOLUTIONS.glob(f"exercise_0{exercise}_*.py")).read_text("utf-8")
    changes = Counter()
    for variant in VARIANTS:
        if variant.right and variant.task[0] == exercise:
            changes.update(function_texts(solution).items() - function_texts(apply(variant)[1]).items())
    counts = {name: count for (name, _), count in changes.items()}
    for name in holes(solution):
        assert counts.get(name, 0) >= 2, name


def function_texts(text):
    """{name: its code} of all functions and methods; methods as Class.name."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.dump(node)
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(part, ast.FunctionDef):
                found[f"{node.name}.{part.name}"] = ast.dump(part)
    return found


def holes(text):
    """The names of the functions and methods with a hole."""
    starts = [i for i, line in enumerate(text.splitlines(), 1) if line.lstrip().startswith("# Task ")]
    found = set()
    for node in ast.parse(text).body:
        for part in [node, *(node.body if isinstance(node, ast.ClassDef) else ())]:
            if isinstance(part, ast.FunctionDef) and any(part.lineno < i <= part.end_lineno for i in starts):
                found.add(part.name if part is node else f"{node.name}.{part.name}")
    return found
