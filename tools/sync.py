"""Bring the generated text in step with its originals; with --check, only say what is out of step.

    python tools/sync.py            rewrite what is out of step
    python tools/sync.py --check    change nothing; exit status 1 if anything is out of step

Two things are generated; everything else in the ten scripts is written by hand, in solutions/:

1. The given code. Between the lines "# %% Given: ..." and "# %% Run" a solution has those
   definitions of tools/given.py that it uses, directly or through one another, word for word and in
   their order. A name that a solution defines itself is its own.
2. The learner's files. In a solution, a comment "# Task 1.1: what to do" starts a hole that runs to
   the end of its function. The learner's file has "# TODO 1.1: what to do" and a
   NotImplementedError there instead.

A learner's file is rewritten only while it is as this tool made it: from the solution at hand, from
the one that git has as HEAD, or in this tool's last run. Anything else in it may be somebody's
work, committed or not: it is refused.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIVEN = "# %% Given: the same in every file that uses it\n"
RUN = "# %% Run\n"
TASK = re.compile(r"( +)# Task (\d+\.\d+): ")


class Broken(Exception):
    """A source from which nothing can be generated; the message says which line, and why."""


def parse(text, name):
    """The syntax tree of a source."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise Broken(f"{name}, line {error.lineno}: {error.msg}") from None


# The given code


@dataclass
class Definition:
    """A definition at the top level of a module."""

    name: str
    text: str  # with the comment right above it
    uses: set  # the names that it mentions
    is_constant: bool


def definitions(text, name):
    """The functions, classes and constants of a module, in their order."""
    lines = text.splitlines(keepends=True)
    found = []
    for node in parse(text, name).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            defined = node.targets[0].id
        else:
            continue
        decorators = [decorator.lineno for decorator in getattr(node, "decorator_list", [])]
        start = min([node.lineno, *decorators]) - 1
        while start > 0 and lines[start - 1].startswith("#"):
            start -= 1
        found.append(
            Definition(
                name=defined,
                text="".join(lines[start : node.end_lineno]),
                uses=names_in(node),
                is_constant=isinstance(node, ast.Assign),
            )
        )
    return found


def names_in(tree):
    """The names that a piece of code mentions."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def used_definitions(text, name, given):
    """Those of the given definitions that a script uses, directly or through one another."""
    own = {definition.name for definition in definitions(text, name)}
    available = {definition.name: definition for definition in given if definition.name not in own}
    waiting = names_in(parse(text, name)) & set(available)
    used = set()
    while waiting:
        current = waiting.pop()
        used.add(current)
        waiting |= (available[current].uses & set(available)) - used
    return [definition for definition in given if definition.name in used]


def join(used):
    """The text of definitions: two empty lines around functions and classes, none in between."""
    parts = []
    for before, definition in zip([None, *used], used):
        together = before is not None and before.is_constant and definition.is_constant
        parts.append(definition.text if together else f"\n\n{definition.text}")
    return "".join(parts)


def with_given_code(text, name, given):
    """A solution's text with the given code that it needs."""
    for line in (GIVEN, RUN):
        count = text.count(line)
        if count != 1:
            raise Broken(f"{name}: has the line {line.strip()!r} {count} times, not once")
    before, _, rest = text.partition(GIVEN)
    after = rest.partition(RUN)[2]
    used = used_definitions(before + after, name, given)
    return f"{before}{GIVEN}{join(used)}\n\n{RUN}{after}"


# The learner's files


def make_stub(text, name):
    """The learner's file for a solution's text."""
    functions = list(qualified_functions(parse(text, name)))
    lines = text.splitlines(keepends=True)
    stub = []
    number = 0  # lines of the solution that are done
    holes = 0
    while number < len(lines):
        match = TASK.match(lines[number])
        if not match:
            stub.append(lines[number])
            number += 1
            continue
        indent, task = match.groups()
        function_name, function = innermost(functions, number + 1)
        if function is None:
            raise Broken(f"{name}, line {number + 1}: the hole {task} is not in a function")
        comment = [lines[number].replace("# Task ", "# TODO ", 1)]
        while lines[number + len(comment)].startswith(f"{indent}# "):
            comment.append(lines[number + len(comment)])
        if number + len(comment) >= function.end_lineno:
            raise Broken(f"{name}, line {number + 1}: the hole {task} has nothing below it")
        stub += comment
        stub.append(f'{indent}raise NotImplementedError("TODO {task}: {function_name}")\n')
        number = function.end_lineno
        holes += 1
    if not holes:
        raise Broken(f'{name}: has no hole, that is, no comment "# Task 1.1: ..." in a function')
    return "".join(stub)


def qualified_functions(node, prefix=""):
    """Every (qualified name, function) below a node of the syntax tree."""
    for child in ast.iter_child_nodes(node):
        inside = prefix
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inside = f"{prefix}{child.name}."
        yield from qualified_functions(child, inside)


def innermost(functions, line):
    """The (qualified name, function) that a line is in; (None, None) outside of all functions."""
    around = [
        (name, function)
        for name, function in functions
        if function.lineno < line <= function.end_lineno
    ]
    return max(around, key=lambda pair: pair[1].lineno, default=(None, None))


def generate(root):
    """The text that each generated file ought to have, {path: text}, the solutions first."""
    solutions = sorted((root / "solutions").glob("exercise_*.py"))
    if not solutions:
        raise Broken(f"{root / 'solutions'}: has no exercise_0N_*.py")
    given_path = root / "tools" / "given.py"
    given = definitions(given_path.read_text("utf-8"), "tools/given.py")
    wanted = {}
    for path in solutions:
        wanted[path] = with_given_code(path.read_text("utf-8"), f"solutions/{path.name}", given)
    for path in solutions:
        wanted[root / path.name] = make_stub(wanted[path], f"solutions/{path.name}")
    return wanted


# Nobody's work is lost


def in_git(root, path):
    """The text that HEAD has of a path, or None."""
    place = f"HEAD:./{path.relative_to(root).as_posix()}"
    shown = subprocess.run(["git", "show", place], cwd=root, capture_output=True)
    if shown.returncode != 0:
        return None
    return shown.stdout.decode("utf-8", "replace")


def record_path(root):
    """Where this tool keeps what it last wrote: in git's own folder. None without git."""
    command = ["git", "rev-parse", "--absolute-git-dir"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if answer.returncode != 0:
        return None
    return Path(answer.stdout.strip(), "course-sync.json")


def is_generated(root, path, record):
    """Whether a learner's file is as this tool made it, so that nobody's work is lost with it."""
    text = path.read_text("utf-8", errors="replace")
    if record.get(path.name) == digest(text):
        return True
    solution = in_git(root, root / "solutions" / path.name)
    if solution is None:
        return False
    try:
        return text == make_stub(solution, path.name)
    except Broken:
        return False


def digest(text):
    """A fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_whole(path, text):
    """Write a file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, "utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def is_stale(path, text):
    """Whether a file is missing or has another text."""
    return not path.exists() or path.read_text("utf-8", "replace") != text


def rewrite(root, wanted, stale):
    """Write what is out of step. Returns the learners' files that were left alone."""
    store = record_path(root)
    record = {}
    if store and store.exists():
        record = json.loads(store.read_text())
    refused = []
    for path in stale:
        is_learners = path.parent == root
        if is_learners and path.exists() and not is_generated(root, path, record):
            refused.append(path)
            continue
        write_whole(path, wanted[path])
        print(f"wrote {path.relative_to(root)}")
        if is_learners and store:
            record[path.name] = digest(wanted[path])
            write_whole(store, json.dumps(record, indent=1))
    return refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="only report; exit status 1 if anything is out of step"
    )
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the repository (default: the one this tool is in)"
    )
    args = parser.parse_args()
    root = args.root.resolve()
    try:
        wanted = generate(root)
    except Broken as broken:
        sys.exit(str(broken))
    stale = [path for path, text in wanted.items() if is_stale(path, text)]
    if args.check:
        for path in stale:
            print(f"out of step: {path.relative_to(root)}")
        sys.exit("run: python tools/sync.py" if stale else 0)
    refused = rewrite(root, wanted, stale)
    for path in refused:
        print(
            f"left alone: {path.name} has been edited, and that work would be lost. "
            "Move the file away and run again."
        )
    if not stale:
        print("everything is in step")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
