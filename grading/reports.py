"""What comes of verdicts: points, reports for learners, and what an instructor reads."""

import csv
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from course import TASKS, points

NUMBER = re.compile(r"\d{1,6}(\.\d+)?")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]+")


def write(path, text):
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".", delete=False) as file:
        file.write(CONTROL.sub(" ", text).encode("utf-8", "backslashreplace"))
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def read_points(path):
    """{task: points} from a table with the columns task and points; the course's own for None."""
    if path is None:
        return points()
    worth = {}
    for line in path.read_text("utf-8-sig").strip().splitlines()[1:]:
        task, _, value = re.sub(r"\s", "", line).partition(",")
        if line.strip() and (task not in TASKS or task in worth or not NUMBER.fullmatch(value)):
            raise ValueError(f"{line!r} must be a task, a comma and its points, each task once")
        if line.strip():
            worth[task] = float(value)
    if not worth:
        raise ValueError("the first line must be task,points and the next ones like 1.1,6")
    return worth


def score(verdict, worth):
    """The verdict with its "tasks", "points" and "of". A task scores when all of its tests pass."""
    tasks = {}
    for task in (task for task in worth if task[0] == verdict["exercise"]):
        tests = {name: test for name, test in verdict["tests"].items() if test["task"] == task}
        messages = {}
        for name, test in tests.items():
            if not test["passed"]:  # the cases of a test say the same
                messages.setdefault(name.partition("[")[0], test["message"])
        passed = sum(test["passed"] for test in tests.values())
        state = "none"
        if passed:
            state = "some" if messages else "all"
        won = worth[task] if state == "all" else 0
        tasks[task] = {"points": won, "of": worth[task], "state": state}
        tasks[task]["count"] = f"{passed} of {len(tests)} tests pass"
        tasks[task]["messages"] = list(dict.fromkeys(messages.values()))
    return {**verdict, "tasks": tasks, "points": total(tasks), "of": total(tasks, "of")}


def total(parts, key="points"):
    """The sum of a number over tasks or exercises."""
    return sum(part[key] for part in parts.values())


def report(learner, verdicts):
    """What a learner is told, as plain text. verdicts: {exercise: scored verdict}."""
    lines = [f"{learner}: {total(verdicts):g} of {total(verdicts, 'of'):g} points"]
    for verdict in verdicts.values():
        lines += ["", f"{verdict['file']}: {verdict['status']}"]
        for task, found in verdict["tasks"].items():
            won = f"{found['points']:g} of {found['of']:g} points   {found['count']}"
            lines.append(f"  {task}  {TASKS[task]:<22} {won}")
            for message in found["messages"]:
                lines += [f"       {line}" for line in message.splitlines()]
            if found["messages"] and verdict["status"] == "ok":
                lines.append(f"       Hints: EXERCISES.md, {task}")
    return "\n".join([*lines, ""])


def gradescope(verdicts):
    """Gradescope's results.json."""
    tests = []
    for verdict in verdicts.values():
        for task, found in verdict["tasks"].items():
            output = "\n".join([f"{verdict['status']}, {found['count']}", *found["messages"]])
            result = {"name": f"{task} {TASKS[task]}", "score": found["points"]}
            tests.append({**result, "max_score": found["of"], "output": output})
    return json.dumps({"score": total(verdicts), "tests": tests}, indent=1)


def cell(value):
    """A value for a spreadsheet, which must not take a learner's words for a formula."""
    text = value if isinstance(value, str) else f"{value:g}"
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else " ".join(text.split())


def table(people):
    """grades.csv. people: {learner: {exercise: scored verdict}}."""
    lines = []
    for learner, verdicts in people.items():
        line = {"learner": learner, "total": total(verdicts), "of": total(verdicts, "of")}
        line["look at"] = sum(len(verdict["look"]) for verdict in verdicts.values())
        status = [f"{n}: {v['status']}" for n, v in verdicts.items() if v["status"] != "ok"]
        line["status"] = "; ".join(status) or "ok"
        for exercise, verdict in verdicts.items():
            line |= {task: found["points"] for task, found in verdict["tasks"].items()}
            line |= {f"exercise {exercise}": verdict["points"]} if verdict["tasks"] else {}
        lines.append({name: cell(value) for name, value in line.items()})
    ends = ["total", "of", "status", "look at"]
    middle = sorted({name for line in lines for name in line} - {"learner", *ends})
    text = io.StringIO()
    writer = csv.DictWriter(text, ["learner", *middle, *ends], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def review(people):
    """review.txt: what to look at, learner by learner."""
    lines = ["Nothing here has changed a grade. Read these lines, and ask."]
    for learner, verdicts in people.items():
        for verdict in verdicts.values():
            if verdict["look"]:
                lines.append(f"\n{learner}, {verdict['file']}")
                lines += [f"  {remark}" for remark in verdict["look"]]
    return "\n".join([*lines, ""])
