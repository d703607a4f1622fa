"""The answers that tools/kill_matrix.py tries: they are enough, and of many kinds."""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest
from course import SOLUTIONS

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "variants"), str(ROOT / "tools")]
from changes import apply  # noqa: E402
from kill_matrix import load  # noqa: E402

VARIANTS = load()
MODELS = {"1.2", "1.3", "2.1", "2.2", "4.1", "4.2"}
BLOCKS = {"1.1", "2.1", "4.1"}


def test_answers_have_names_of_their_own():
    twice = [
        key
        for key, count in Counter((v.task, v.name, v.right) for v in VARIANTS).items()
        if count > 1
    ]
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


def test_what_names_a_wrong_answer_says_more_than_that_it_is_wrong():
    """None: the message names nothing; the kill matrix wants names for nine in ten."""
    for variant in VARIANTS:
        if variant.says is not None:
            assert len(variant.says) >= 10, (variant.task, variant.name)


@pytest.mark.parametrize("exercise", SOLUTIONS)
def test_right_answers_change_every_hole_twice(exercise):
    solution = SOLUTIONS[exercise].read_text("utf-8")
    changes = Counter()
    for variant in VARIANTS:
        if variant.right and variant.task[0] == exercise:
            changes.update(
                function_texts(solution).items() - function_texts(apply(variant)[1]).items()
            )
    counts = {name: count for (name, _), count in changes.items()}
    for name in holes(solution):
        assert counts.get(name, 0) >= 2, name


def definitions(text):
    """(name, node) of all functions and methods; methods as Class.name."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield f"{node.name}.{part.name}", part


def function_texts(text):
    """{name: its code} of all functions and methods."""
    return {name: ast.dump(node) for name, node in definitions(text)}


def holes(text):
    """The names of the functions and methods with a hole."""
    lines = enumerate(text.splitlines(), 1)
    starts = [number for number, line in lines if line.lstrip().startswith("# Task ")]
    names = set()
    for name, node in definitions(text):
        if any(node.lineno < start <= node.end_lineno for start in starts):
            names.add(name)
    return names
