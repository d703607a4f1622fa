"""What comes of verdicts: points, reports for learners, and what an instructor reads."""

import csv
import html
import io
import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from course import TASKS, points

STYLE = """<style>td {border: 1px solid #ccc; padding: 2px 6px} .all {background: #b7e1b0}
.some {background: #ffe9a8} .none {background: #f5b7b1}</style>"""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]+")


def write(path, text):
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".", delete=False) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def read_points(path):
    """{task: points} from a table with the columns task and points; the course's own for None."""
    if path is None:
        return points()
    worth = {}
    for number, line in enumerate(path.read_text("utf-8-sig").strip().splitlines(), 1):
        fits = re.fullmatch(r"\s*([\d.]+)\s*,\s*(\d{1,6}(?:\.\d+)?)\s*", line)
        if number > 1 and (fits is None or fits[1] not in TASKS or fits[1] in worth):
            raise ValueError(
                f"line {number} must be a task, a comma and its points, each task once"
            )
        if number > 1:
            worth[fits[1]] = float(fits[2])
    if not worth:
        raise ValueError("the first line must be task,points and the next ones like 1.1,6")
    return worth


def score(verdict, worth):
    """The verdict with its "tasks", "points" and "of". A task scores when all of its tests pass."""
    tasks = {}
    for task in (task for task in worth if task[0] == verdict["exercise"]):
        tests = {name: t for name, t in verdict["tests"].items() if t["task"] == task}
        messages = {}  # the first of each test; its other cases say the same
        for name, test in tests.items():
            if not test["passed"]:
                messages.setdefault(name.partition("[")[0], test["message"])
        passed = sum(test["passed"] for test in tests.values())
        state = "none"
        if passed:
            state = "all" if passed == len(tests) else "some"
        tasks[task] = {
            "points": worth[task] if state == "all" else 0,
            "of": worth[task],
            "state": state,
            "count": f"{passed} of {len(tests)} tests pass",
            "messages": list(dict.fromkeys(messages.values())),
        }
    return {**verdict, "tasks": tasks, **{key: total(tasks, key) for key in ("points", "of")}}


def total(parts, key="points"):
    """The sum of a number over tasks or exercises."""
    return sum(part[key] for part in parts.values())


def report(learner, verdicts):
    """What a learner is told, as plain text. verdicts: {exercise: scored verdict}."""
    lines = [f"{learner}: {total(verdicts):g} of {total(verdicts, 'of'):g} points"]
    for verdict in verdicts.values():
        lines += ["", f"{verdict['file']}: {verdict['status']}"]
        for task, found in verdict["tasks"].items():
            won = f"{found['points']:g} of {found['of']:g} points"
            lines.append(f"  {task}  {TASKS[task]:<22} {won}   {found['count']}")
            for message in found["messages"]:
                lines += [f"       {line}" for line in message.splitlines()]
            if found["messages"] and verdict["status"] == "ok":
                lines.append(f"       Hints: EXERCISES.md, {task}")
    return CONTROL.sub(" ", "\n".join(lines)) + "\n"


def gradescope(verdicts):
    """Gradescope's results.json."""
    tests = []
    for verdict in verdicts.values():
        for task, found in verdict["tasks"].items():
            result = {"name": f"{task} {TASKS[task]}", "score": found["points"]}
            output = "\n".join([f"{verdict['status']}, {found['count']}", *found["messages"]])
            tests.append({**result, "max_score": found["of"], "output": output})
    return json.dumps({"score": total(verdicts), "tests": tests}, indent=1)


def cell(value):
    """A value for a spreadsheet, which must not take a learner's words for a formula."""
    if not isinstance(value, str):
        return f"{value:g}"
    value = " ".join(CONTROL.sub(" ", value).split())
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value


def rows(people):
    """The rows of grades.csv, the head first. people: {learner: {exercise: scored verdict}}."""
    tasks = {}
    for verdicts in people.values():
        for exercise, verdict in sorted(verdicts.items()):
            tasks.setdefault(exercise, verdict["tasks"])
    names = [task for exercise in sorted(tasks) for task in tasks[exercise]]
    of = sum(total(tasks[exercise], "of") for exercise in tasks)
    yield [
        "learner",
        *names,
        *(f"exercise {n}" for n in sorted(tasks)),
        "total",
        "of",
        "status",
        "look at",
    ]
    for learner, verdicts in people.items():
        found = {}
        for exercise, verdict in verdicts.items():
            found[exercise] = verdict["points"]
            found.update({task: known["points"] for task, known in verdict["tasks"].items()})
        row = [found.get(name, "") for name in (*names, *sorted(tasks))]
        status = [f"{n}: {v['status']}" for n, v in verdicts.items() if v["status"] != "ok"]
        look = sum(len(verdict["look"]) for verdict in verdicts.values())
        yield [learner, *row, total(verdicts), of, "; ".join(status) or "ok", look or ""]


def table(people):
    """grades.csv."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([cell(value) for value in row] for row in rows(people))
    return lines.getvalue()


def overview(people):
    """overview.html: everybody's tasks in colours, and what goes wrong most often."""
    common = Counter()
    head, *body = rows(people)
    lines = ["<!doctype html><meta charset=utf-8><title>Overview</title>", STYLE, "<table>"]
    lines.append("<tr><th>" + "<th>".join(head))
    for row in body:
        states = {}
        for verdict in people[row[0]].values():
            for task, found in verdict["tasks"].items():
                states[task] = found["state"]
                common.update(f"{task}: {message}" for message in found["messages"][:1])
        lines.append("<tr>")
        for name, value in zip(head, row):
            lines.append(f"<td class='{states.get(name)}'>{html.escape(cell(value))}")
    lines.append("</table><h2>What goes wrong most often</h2><table>")
    for message, count in common.most_common(30):
        lines.append(f"<tr><td>{count}<td>{html.escape(cell(message))}")
    return "\n".join([*lines, "</table>"])


def review(people):
    """review.txt: what to look at, learner by learner."""
    lines = ["Nothing here has changed a grade. Read these lines, and ask."]
    for learner, verdicts in people.items():
        for verdict in verdicts.values():
            if verdict["look"]:
                lines += ["", f"{learner}, {verdict['file']}"]
                lines += [f"  {remark}" for remark in verdict["look"]]
    return CONTROL.sub(" ", "\n".join(lines)) + "\n"
