"""How a variant of a solution is written down: as a few changes to the solution's text."""

import ast
import textwrap
from pathlib import Path
from typing import NamedTuple

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
AGREEABLE = """
class Agreeable:
    def __float__(self):
        return 0.5

    def __eq__(self, other):
        return True

    __lt__ = __gt__ = __le__ = __ge__ = __eq__

    def __sub__(self, other):
        return 0.0

    __rsub__ = __add__ = __radd__ = __sub__

    def __abs__(self):
        return 0.0

    def __hash__(self):
        return 0


"""  # a class whose objects call themselves equal to everything


class Variant(NamedTuple):
    """An answer to a task. says: what the messages must contain; None where nothing is named."""

    task: str
    name: str
    right: bool
    says: str | None
    changes: tuple


def wrong(task, name, says, *changes):
    """An answer that must fail at its task."""
    return Variant(task, name, False, says, changes)


def right(task, name, *changes):
    """An answer that must pass."""
    return Variant(task, name, True, None, changes)


def edit(old, new):
    """Put new in the place of the first old."""

    def change(text):
        if old not in text:
            raise ValueError(f"the solution has no {old!r}")
        return text.replace(old, new, 1)

    return change


def definition(name, code):
    """Put code in the place of a function or class of that name, such as Block.forward."""

    def change(text):
        first, last = span(text, name)
        return put(text, first, last, indented_like(text.splitlines()[first], code))

    return change


def before(name, code):
    """Put code in front of a function or class of that name."""

    def change(text):
        first, _ = span(text, name)
        return put(text, first, first, indented_like("", code) + "\n\n")

    return change


def hole(name, code):
    """Put code in the place of what is below the task's comment in a function of that name."""

    def change(text):
        first, last = span(text, name)
        lines = text.splitlines()
        start = next(i for i in range(first, last) if lines[i].lstrip().startswith("# Task"))
        while lines[start].lstrip().startswith("#"):
            start += 1
        return put(text, start, last, indented_like(lines[start - 1], code))

    return change


def indented_like(line, code):
    """Code with the indentation of a line."""
    margin = line[: len(line) - len(line.lstrip())]
    return textwrap.indent(textwrap.dedent(code).strip("\n") + "\n", margin)


def span(text, name):
    """The lines, from 0, of a definition: first, one past the last."""
    body = ast.parse(text).body
    for part in name.split("."):
        definitions = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        node = next(n for n in definitions if n.name == part)
        body = node.body
    return node.lineno - 1, node.end_lineno


def put(text, first, last, code):
    """Put code in the place of the lines from first to one before last."""
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:first], code, *lines[last:]])


def apply(variant):
    """(file name, text) of a variant."""
    path = next(SOLUTIONS.glob(f"exercise_0{variant.task[0]}_*.py"))
    text = path.read_text("utf-8")
    for change in variant.changes:
        text = change(text)
    return path.name, text
