"""Bring the generated files in step with the solutions; with --check, only say what is out of step.

    python tools/sync.py            rewrite what is out of step
    python tools/sync.py --check    change nothing; exit status 1 if anything is out of step

Two things are generated (everything else in the ten scripts is written by hand, in solutions/):

1. The given code. From the banner "# %% Given: the same in every file" to the end, every solution has the text of
   exercise 1's solution.
2. The learner's files. In a solution, a comment "# Task 1.1: what to do" starts a hole that runs to the end of its
   function. The learner's file has "# TODO 1.1: what to do" and a NotImplementedError there instead.

A learner's file is only rewritten while it is as this tool made it: from the solution at hand, from the one that git
has as HEAD, or in this tool's last run. Anything else in it may be somebody's work, committed or not: it is refused.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIVEN = "# %% Given: the same in every file\n"
TASK = re.compile(r"( +)# Task (\d+\.\d+): ")


class Broken(Exception):
    """A solution from which nothing can be generated; the message says which line, and why."""


def split_given(text, name):
    """A script's text before the given part's banner, and the text from there on."""
    if text.count(GIVEN) != 1:
        raise Broken(f"{name}: has the line {GIVEN.strip()!r} {text.count(GIVEN)} times; it must stand there once")
    start = text.index(GIVEN)
    return text[:start], text[start:]


def make_stub(text, name):
    """The learner's file for a solution's text."""
    try:
        functions = list(qualified_functions(ast.parse(text)))
    except SyntaxError as error:
        raise Broken(f"{name}, line {error.lineno}: {error.msg}") from None
    lines, out, skip_to, holes = text.splitlines(keepends=True), [], 0, 0
    for number, line in enumerate(lines, 1):
        if number <= skip_to:
            continue
        match = TASK.match(line)
        if not match:
            out.append(line)
            continue
        indent, task = match.groups()
        around = [f for f in functions if f[1].lineno < number <= f[1].end_lineno]
        if not around:
            raise Broken(f"{name}, line {number}: the hole {task} is not in a function")
        qualified, function = max(around, key=lambda f: f[1].lineno)
        comment = [line.replace("# Task ", "# TODO ", 1)]
        while lines[number - 1 + len(comment)].startswith(f"{indent}# "):
            comment.append(lines[number - 1 + len(comment)])
        if number + len(comment) > function.end_lineno:
            raise Broken(f"{name}, line {number}: the hole {task} has nothing below its comment")
        out += [*comment, f'{indent}raise NotImplementedError("TODO {task}: {qualified}")\n']
        skip_to, holes = function.end_lineno, holes + 1
    if not holes:
        raise Broken(f'{name}: has no hole, that is, no comment "# Task 1.1: ..." inside a function')
    return "".join(out)


def qualified_functions(node, prefix=""):
    """Every (qualified name, function) below an ast node."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, (ast.FunctionDef, ast.ClassDef))
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        yield from qualified_functions(child, f"{prefix}{child.name}." if named else prefix)


def generate(root):
    """The text that each generated file ought to have, {path: text}, the solutions first."""
    solutions = sorted((root / "solutions").glob("exercise_0*.py"))
    if not solutions:
        raise Broken(f"{root / 'solutions'}: has no exercise_0N_*.py")
    given = split_given(solutions[0].read_text("utf-8"), solutions[0].name)[1]
    wanted = {path: split_given(path.read_text("utf-8"), path.name)[0] + given for path in solutions}
    return wanted | {root / path.name: make_stub(text, f"solutions/{path.name}") for path, text in wanted.items()}


def in_git(root, path):
    """The text that HEAD has of a path, or None."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{path.relative_to(root).as_posix()}"], cwd=root, capture_output=True
    )
    return shown.stdout.decode("utf-8", "replace") if shown.returncode == 0 else None


def record_path(root):
    """Where this tool keeps what it last wrote: in git's own folder, which is never committed. None without git."""
    found = subprocess.run(["git", "rev-parse", "--absolute-git-dir"], cwd=root, capture_output=True, text=True)
    return Path(found.stdout.strip(), "course-sync.json") if found.returncode == 0 else None


def is_generated(root, path, record):
    """Whether a learner's file is as this tool made it, so that nobody's work is lost with it."""
    text = path.read_text("utf-8", errors="replace")
    if record.get(path.name) == digest(text):
        return True
    solution = in_git(root, root / "solutions" / path.name)
    try:
        return solution is not None and text == make_stub(solution, path.name)
    except Broken:
        return False


def digest(text):
    """A short fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_whole(path, text):
    """Write a file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, "utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only report; exit status 1 if anything is out of step")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: the one this tool lies in)")
    args = parser.parse_args()
    root = args.root.resolve()
    try:
        wanted = generate(root)
    except Broken as broken:
        sys.exit(str(broken))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8", "replace") != text]
    if args.check:
        for path in stale:
            print(f"out of step: {path.relative_to(root)}")
        sys.exit("run: python tools/sync.py" if stale else 0)

    store = record_path(root)
    record = json.loads(store.read_text()) if store and store.exists() else {}
    refused = []
    for path in stale:
        if path.parent == root and path.exists() and not is_generated(root, path, record):
            refused.append(path)
            continue
        write_whole(path, wanted[path])
        print(f"wrote {path.relative_to(root)}")
        if path.parent == root and store:
            record[path.name] = digest(wanted[path])
            write_whole(store, json.dumps(record, indent=1))
    for path in refused:
        print(
            f"left alone: {path.name} has been edited, and that work would be lost. Move the file away and run again."
        )
    if not stale:
        print("everything is in step")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
