"""What comes of verdicts: points, reports for learners, and what an instructor reads."""

import csv
import hashlib
import io
import json
import os
import re

import needed  # noqa: F401
from course import TASKS, points

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]+")


def write(path, text):
    """Write text whole or not at all; control characters but newlines become spaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        unfinished.write_bytes(CONTROL.sub(" ", text).encode("utf-8", "backslashreplace"))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def file_name(learner):
    """The name of a learner's report; one that is too long for a file is cut, and stays unique."""
    if len(learner) > 50:  # perhaps of four bytes each
        learner = f"{learner[:40]}_{hashlib.sha256(os.fsencode(learner)).hexdigest()[:20]}"
    return f"{learner}.txt"


def read_points(path):
    """{task: points} from a table with the columns task and points; the course's own for None."""
    if path is None:
        return points()
    worth = {}
    header, *lines = path.read_text("utf-8-sig", "replace").strip().splitlines() or [""]
    for line in filter(str.strip, lines):
        task, _, value = re.sub(r"\s", "", line).partition(",")
        if task not in TASKS or task in worth or not re.fullmatch(r"\d{1,6}(\.\d+)?", value):
            raise ValueError(f"{path}: {line!r} must be a task, a comma and points, each task once")
        worth[task] = float(value)
    if re.sub(r"\s", "", header).lower() != "task,points" or not worth:
        raise ValueError(f"{path}: the first line must be task,points, the next ones like 1.1,6")
    return worth


def score(verdict, worth):
    """The verdict with its "tasks", "points" and "of". A task scores when all of its tests pass."""
    own = [task for task in worth if task.startswith(f"{verdict['exercise']}.")]
    tasks = {task: score_task(verdict["tests"], task, worth[task]) for task in own}
    return {**verdict, "tasks": tasks, "points": total(tasks), "of": total(tasks, "of")}


def score_task(tests, task, most):
    """The points of a task, how many of its tests pass, and the messages of the others."""
    tests = {name: test for name, test in tests.items() if test["task"] == task}
    messages = {}
    for name, test in tests.items():
        if not test["passed"]:  # the cases of a test say the same
            messages.setdefault(name.partition("[")[0], test["message"])
    passed = sum(test["passed"] for test in tests.values())
    state = "none"
    if passed:
        state = "some" if messages else "all"
    return {
        "points": most if state == "all" else 0,
        "of": most,
        "state": state,
        "count": f"{passed} of {len(tests)} tests pass" if tests else "not tested",
        "messages": list(dict.fromkeys(messages.values())),
    }


def total(parts, key="points"):
    """The sum of a number over tasks or exercises."""
    return sum(part[key] for part in parts.values())


def report(learner, verdicts):
    """What a learner is told, as plain text. verdicts: {exercise: scored verdict}."""
    lines = [f"{learner}: {total(verdicts):g} of {total(verdicts, 'of'):g} points"]
    for verdict in verdicts.values():
        lines += ["", f"{verdict['file']}: {verdict['status']}"]
        for task, result in verdict["tasks"].items():
            points_won = f"{result['points']:g} of {result['of']:g} points"
            lines.append(f"  {task}  {TASKS[task]:<22} {points_won}   {result['count']}")
            told = "\n".join(result["messages"]).splitlines()
            if told and verdict["status"].startswith("ok"):
                told.append(f"Hints: EXERCISES.md, {task}")
            lines += [f"       {line}" for line in told]
    return "\n".join([*lines, ""])


def gradescope(verdicts):
    """Gradescope's results.json."""
    tests = [
        {
            "name": f"{task} {TASKS[task]}",
            "score": result["points"],
            "max_score": result["of"],
            "output": "\n".join([verdict["status"], result["count"], *result["messages"]]),
        }
        for verdict in verdicts.values()
        for task, result in verdict["tasks"].items()
    ]
    return json.dumps({"score": total(verdicts), "tests": tests}, indent=1)


def cell(value):
    """A value for a spreadsheet, which must not take a learner's words for a formula."""
    text = " ".join(value.split()) if isinstance(value, str) else f"{value:g}"
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def table(people):
    """grades.csv. people: {learner: {exercise: scored verdict}}."""
    rows = [table_row(learner, verdicts) for learner, verdicts in people.items()]
    ends = ["total", "of", "status", "look at"]
    middle = set().union(*rows) - {"learner", *ends}
    text = io.StringIO()
    writer = csv.DictWriter(text, ["learner", *sorted(middle), *ends], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return "\ufeff" + text.getvalue()  # or Excel takes UTF-8 for something else


def table_row(learner, verdicts):
    """A learner's line of grades.csv, as {column: text}."""
    row = {"learner": learner}
    for exercise, verdict in verdicts.items():
        row |= {task: result["points"] for task, result in verdict["tasks"].items()}
        if verdict["tasks"]:
            row[f"exercise {exercise}"] = verdict["points"]
    row["total"] = total(verdicts)
    row["of"] = total(verdicts, "of")
    unusual = [f"{e}: {v['status']}" for e, v in verdicts.items() if v["status"] != "ok"]
    row["status"] = "; ".join(unusual) or "ok"
    row["look at"] = sum(len(verdict["look"]) for verdict in verdicts.values())
    return {column: cell(value) for column, value in row.items()}


def review(people):
    """review.txt: what to look at, learner by learner."""
    lines = ["Nothing here has changed a grade. Read these lines, and ask."]
    for learner, verdicts in people.items():
        for verdict in verdicts.values():
            if verdict["look"]:
                lines.append(f"\n{learner}, {verdict['file']}")
                lines += [f"  {remark}" for remark in verdict["look"]]
    return "\n".join([*lines, ""])
