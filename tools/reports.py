"""What tools/judge.py and tools/grade.py write: points, reports, and the formats that other programs read."""

import csv
import io
import json
import os
import re
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import course  # noqa: E402
from course import FILES  # noqa: E402, F401  the graders take it from here

NAMES = course.TASKS
NEEDED = ("torch", "torchvision", "pytest", "pytest_timeout", "tqdm")
HINT = "An instructor who finds this harmless has it judged again without these guards: --trust LEARNER."


for package in NEEDED:  # or every submission would seem to be broken
    if find_spec(package) is None:
        raise SystemExit(
            f"This Python has no {package}. Activate the course's environment, or see README's set-up."
        )


def write(path, text):
    """Write a file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "wb", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def read_points(path):
    """{"1.1": points, ...} from a table with the columns task and points; the course's own for None."""
    if path is None:
        return course.points()
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            points = {row["task"].strip(): float(row["points"]) for row in csv.DictReader(file)}
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    except (KeyError, ValueError, TypeError, AttributeError):
        raise SystemExit(
            f"{path}: needs the columns task and points, with lines such as 1.1,6"
        ) from None
    odd = next((task for task, value in points.items() if not 0 <= value < 1e6), None)
    if odd:
        raise SystemExit(f"{path}: {points[odd]:g} points for task {odd}: give a number from 0")
    unknown = sorted(set(points) - set(NAMES))
    if unknown or not points:
        raise SystemExit(
            f"{path}: there is no task {unknown[0]}"
            if unknown
            else f"{path}: has no line below the title"
        )
    return {task: int(value) if value.is_integer() else value for task, value in points.items()}


def score(result, points, trusted=False):
    """Give every task of an exercise's result its points: all of them if all of its tests passed, else none."""
    tasks = {}
    for task in (task for task in points if task[0] == result["exercise"]):
        found = result["tasks"].get(task, {"passed": 0, "tests": 0, "messages": []})
        won = points[task] if found["tests"] and found["passed"] == found["tests"] else 0
        tasks[task] = found | {
            "of": points[task],
            "points": won if trusted or not result["caught"] else 0,
            "won": won,
        }
    totals = {name: sum(task[name] for task in tasks.values()) for name in ("points", "won", "of")}
    return (
        result
        | {"tasks": tasks, "script": result["tasks"].get("script"), "trusted": trusted}
        | totals
    )


def status(result):
    """An exercise's status in a few words: "" if there is nothing to say."""
    if result["caught"]:
        verdict = "trusted" if result["trusted"] else f"{result['won']:g} points withheld"
        return plain(f"look at this, {verdict}: {'; '.join(result['caught'])}")
    return "" if result["status"] == "judged" else f"{result['status']}: {result['why']}"


def total(exercises, name="points"):
    """The sum of points over exercises."""
    return sum(result[name] for result in exercises)


def task_text(found):
    """What there is to say about a task, in lines."""
    if found["tests"] == 0:
        return "not run"
    lines = [f"{found['passed']} of {found['tests']} tests pass"]
    for test, message, cases in found["messages"]:
        lines += [
            f"{test}{f' ({cases} cases)' if cases > 1 else ''}:",
            *(f"    {plain(line)}" for line in message.splitlines()),
        ]
    return "\n".join(lines)


def report(learner, exercises):
    """A learner's report, as plain text."""
    lines = [f"{learner}: {total(exercises):g} of {total(exercises, 'of'):g} points", ""]
    for result in exercises:
        title = f"Exercise {result['exercise']}: {result['points']:g} of {result['of']:g} points"
        if result["status"] == "missing":
            lines += [f"{title} ({result['file']} was not handed in)"]
            continue
        lines += ["", f"{title} ({result['file']})"]
        lines += [f"  {status(result)}"] * bool(status(result))
        lines += [f"  {HINT}"] * bool(result["caught"] and not result["trusted"])
        for task, found in sorted(result["tasks"].items()) if result["status"] != "refused" else ():
            first, *rest = task_text(found).splitlines()
            lines += [
                f"  {task}  {NAMES[task]:<22} {found['points']:g} of {found['of']:g}   {first}"
            ]
            lines += [f"       {line}" for line in rest]
        if result["script"]:
            first, *rest = task_text(result["script"]).splitlines()
            lines += [f"  The script as a whole: {first}", *(f"       {line}" for line in rest)]
    return "\n".join(lines) + "\n"


def gradescope(exercises):
    """Gradescope's results.json. What was caught is for the instructor's eyes."""
    tests = []
    for result in exercises:
        for task, found in sorted(result["tasks"].items()):
            done = bool(found["points"])
            tests.append(
                {
                    "name": f"{task} {NAMES[task]}",
                    "score": found["points"],
                    "max_score": found["of"],
                    "status": "passed" if done else "failed",
                    "output": task_text(found)
                    if result["status"] not in ("missing", "refused")
                    else "",
                    "output_format": "text",
                    "visibility": "visible",
                }
            )
        if status(result):
            hidden = "hidden" if result["caught"] else "visible"
            tests.append(
                {
                    "name": f"Exercise {result['exercise']}",
                    "output": status(result),
                    "output_format": "text",
                }
                | {"status": "failed", "visibility": hidden}
            )
    said = [
        f"Exercise {r['exercise']}: held back until your instructor has looked at it."
        for r in exercises
        if r["caught"]
    ]
    output = "\n".join(said) or "A task scores when all of its tests pass."
    return json.dumps(
        {"score": total(exercises), "output": output, "output_format": "text", "tests": tests},
        indent=1,
    )


def github(exercises):
    """The two notices from which GitHub Classroom reads points, as commands to GitHub Actions."""
    points, of = total(exercises), total(exercises, "of")
    report = json.dumps({"totalPoints": points, "maxPoints": of})
    return f"::notice title=Autograding complete::Points {points:g}/{of:g}\n::notice title=Autograding report::{report}"


def junit(learner, exercises):
    """JUnit XML: a suite an exercise, a case a task."""
    root = ElementTree.Element("testsuites", name=printable(learner))
    for result in exercises:
        cases = result["tasks"]
        lost = sum(not found["points"] for found in cases.values())
        suite = ElementTree.SubElement(
            root, "testsuite", name=result["file"], tests=str(len(cases)), failures=str(lost)
        )
        for task, found in sorted(cases.items()):
            case = ElementTree.SubElement(
                suite, "testcase", classname=result["file"], name=f"{task} {NAMES[task]}"
            )
            if not found["points"]:
                text = printable("\n".join(filter(None, [status(result), task_text(found)])))
                ElementTree.SubElement(case, "failure", message=text.partition("\n")[0]).text = text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def printable(text):
    """A text without the characters that XML does not allow."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)


def table(grades):
    """grades.csv: a row a learner. grades: {learner: exercises}."""
    first = next(iter(grades.values()), [])
    tasks = [task for result in first for task in sorted(result["tasks"])]
    lines = io.StringIO()
    rows = csv.writer(lines, lineterminator="\n")
    rows.writerow(
        [
            "learner",
            *tasks,
            *(f"exercise {result['exercise']}" for result in first),
            "total",
            "of",
            "status",
        ]
    )
    for learner, exercises in grades.items():
        found = {
            task: task_found["points"]
            for result in exercises
            for task, task_found in result["tasks"].items()
        }
        row = [
            learner,
            *(found[task] for task in tasks),
            *(result["points"] for result in exercises),
        ]
        rows.writerow(
            [
                cell(value)
                for value in [*row, total(exercises), total(exercises, "of"), summary(exercises)]
            ]
        )
    return lines.getvalue()


def summary(exercises):
    """What there is to say about a learner's exercises, each thing once, with the exercises that it is true of."""
    said = {}
    for result in exercises:
        text = "missing" if result["status"] == "missing" else status(result)
        said.setdefault(text, []).append(result["exercise"])
    said.pop("", None)
    return (
        "; ".join(f"exercise {' '.join(numbers)}: {text}" for text, numbers in said.items()) or "ok"
    )


def plain(text):
    """A text in one line, without control characters."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)


def cell(value):
    """A value for a spreadsheet, which must not take a learner's words for a formula."""
    if not isinstance(value, str):
        return f"{value:g}"
    text = plain(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
