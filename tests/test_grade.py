"""The graders: everybody gets what they deserve, whatever a submission does, and whatever happens to the grader."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import made_class
import pytest

TOOLS = made_class.ROOT / "tools"
sys.path.insert(0, str(TOOLS))
import judge  # noqa: E402
import reports  # noqa: E402

SMALL = [name for name, learner in made_class.CLASS.items() if learner.small]
RESULT = {"exercise": "1", "file": made_class.NAME, "status": "judged", "why": "", "caught": []}
DONE, LOST = (
    {"passed": 2, "tests": 2, "messages": []},
    {"passed": 1, "tests": 2, "messages": [["test_x", "wrong", 1]]},
)


def grade(submissions, out, *flags, **settings):
    """Run tools/grade.py to its end."""
    command = [sys.executable, TOOLS / "grade.py", submissions, "--out", out, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, **settings)


def rows(out):
    """grades.csv as {learner: row}."""
    with open(out / "grades.csv", newline="", encoding="utf-8") as file:
        return {row["learner"]: row for row in csv.DictReader(file)}


def check_class(out, names):
    """Everyone has a row, with the points that they deserve and a status that says why."""
    found = rows(out)
    assert list(found) == sorted(names)
    bad = {}
    for name, row in found.items():
        points, status, *_ = made_class.CLASS[name]
        suspected = "look at this" in row["status"]
        if (
            float(row["total"]) != points
            or status not in row["status"]
            or (suspected and not status)
        ):
            bad[name] = (row["total"], points, row["status"])
    assert not bad


@pytest.fixture(scope="module")
def small_class(tmp_path_factory):
    """The small class, graded: (submissions, out)."""
    folder = tmp_path_factory.mktemp("class")
    made_class.make(folder / "submissions", SMALL)
    done = grade(folder / "submissions", folder / "grades", "--exercises", "1")
    assert done.returncode == 0, done.stderr
    return folder / "submissions", folder / "grades"


def test_small_class_gets_what_it_deserves(small_class):
    check_class(small_class[1], SMALL)


def test_everyone_gets_a_report_and_the_formats_of_others(small_class):
    for name in SMALL:
        folder, row = small_class[1] / "learners" / name, rows(small_class[1])[name]
        assert f"{row['total']} of 20 points" in (folder / "report.txt").read_text("utf-8")
        scope = json.loads((folder / "results.json").read_text("utf-8"))
        assert (
            scope["score"]
            == sum(test["score"] for test in scope["tests"] if "score" in test)
            == float(row["total"])
        )
        assert sum(test.get("max_score", 0) for test in scope["tests"]) == 20
        suite = ElementTree.parse(folder / "junit.xml").getroot().find("testsuite")
        assert (len(suite), len(suite.findall("testcase/failure"))) == (
            4,
            sum(row[t] == "0" for t in made_class.TASKS),
        )


def test_report_says_what_pytest_says(small_class):
    text = (small_class[1] / "learners" / "half_done" / "report.txt").read_text("utf-8")
    assert "TODO 1.1: BasicBlock.__init__ is not written yet" in text
    assert "1.3  make_shortcut          4 of 4" in text


def test_second_run_judges_nothing_again_and_says_the_same(small_class):
    submissions, out = small_class
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    start = time.monotonic()
    assert grade(submissions, out, "--exercises", "1").returncode == 0
    assert time.monotonic() - start < 10
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_changed_file_is_judged_again(small_class, tmp_path):
    submissions, out = small_class
    made_class.make(tmp_path / "submissions", ["untouched"])
    os.makedirs(tmp_path / "grades" / "judged")
    os.symlink(out / "judged" / "right_in_exercise_1", tmp_path / "grades" / "judged" / "untouched")
    assert grade(tmp_path / "submissions", tmp_path / "grades", "--exercises", "1").returncode == 0
    assert rows(tmp_path / "grades")["untouched"]["total"] == "0"


def judges_of(folder):
    """The processes that have a folder in their command lines or as their home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in path.read_text(errors="replace"):
                found.append(path.parent.name)
        except OSError:
            pass
    return found


def test_killed_and_started_again_it_goes_on(small_class, tmp_path):
    submissions, out = small_class
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [
        sys.executable,
        TOOLS / "grade.py",
        submissions,
        "--out",
        tmp_path / "grades",
        "--exercises",
        "1",
    ]
    process = subprocess.Popen(
        [*command, "--jobs", "2"], stderr=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 300
    while not list((tmp_path / "grades").rglob("exercise_01.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while judges_of(tmp_path):
        assert time.monotonic() < deadline, "a judge outlives the grader"
        time.sleep(0.2)
    kept = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "grades").rglob("exercise_01.json")
    }
    assert 0 < len(kept) < len(SMALL) and not (tmp_path / "grades" / "grades.csv").exists()
    assert (
        grade(submissions, tmp_path / "grades", "--exercises", "1", env=environment).returncode == 0
    )
    assert (tmp_path / "grades" / "grades.csv").read_bytes() == (out / "grades.csv").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.whole_class
def test_whole_class_gets_what_it_deserves(tmp_path):
    made_class.make(tmp_path / "submissions", made_class.CLASS)
    done = grade(tmp_path / "submissions", tmp_path / "grades", "--test-seconds", "12")
    assert done.returncode == 0, done.stderr
    check_class(tmp_path / "grades", made_class.CLASS)


@pytest.mark.whole_class
def test_without_a_sandbox_nothing_is_won_by_cheating_either(tmp_path):
    names = [
        "right_in_exercise_1",
        "writes_the_results",
        "really_exits_in_forward",
        "replaces_and_puts_back",
    ]
    names += ["leaves_processes_behind", "hangs_and_catches_everything", "writes_result_files"]
    made_class.make(tmp_path / "submissions", names)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "unshare").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = grade(
        tmp_path / "submissions", tmp_path / "grades", "--test-seconds", "12", env=environment
    )
    assert done.returncode == 0 and "No sandbox here" in done.stderr
    check_class(tmp_path / "grades", names)
    assert not judges_of("sleep\x001000")


# --- the parts ------------------------------------------------------------------------------------------------------


def scored(tasks, points=None, trusted=False, **changes):
    """A made result of exercise 1, with its points."""
    return reports.score(
        RESULT | {"tasks": tasks} | changes, points or {"1.1": 6, "1.2": 4}, trusted
    )


def test_task_scores_only_if_all_of_its_tests_passed():
    result = scored({"1.1": DONE, "1.2": LOST})
    assert (result["tasks"]["1.1"]["points"], result["tasks"]["1.2"]["points"]) == (6, 0)
    assert (result["points"], result["of"]) == (6, 10)
    assert scored({})["points"] == 0
    assert scored({"1.1": {"passed": 0, "tests": 0, "messages": []}})["points"] == 0


def test_caught_cheat_scores_nothing_unless_trusted():
    assert scored({"1.1": DONE}, caught=["reads the tests"])["points"] == 0
    assert "6 points withheld: reads the tests" in reports.status(
        scored({"1.1": DONE}, caught=["reads the tests"])
    )
    assert scored({"1.1": DONE}, trusted=True, caught=["reads the tests"])["points"] == 6


def test_what_was_caught_is_for_the_instructor_only():
    scope = json.loads(reports.gradescope([scored({"1.1": DONE}, caught=["reads the tests"])]))
    said = [test for test in scope["tests"] if "reads the tests" in test["output"]]
    assert [test["visibility"] for test in said] == ["hidden"] and "reads the tests" not in scope[
        "output"
    ]


@pytest.mark.parametrize("learner", ["=1+1", "+a", "-a", "@a"])
def test_spreadsheet_takes_no_name_for_a_formula(learner):
    line = reports.table({learner: [scored({"1.1": DONE})]}).splitlines()[1]
    assert line.startswith(f"'{learner},")


def test_names_and_messages_of_every_kind_can_be_written(tmp_path):
    odd = 'a,"b\ud83d\udc00\udcff\x00\x1b<&'
    result = scored({"1.1": {"passed": 0, "tests": 1, "messages": [["test_x", odd, 1]]}})
    reports.write(tmp_path / "grades.csv", reports.table({odd: [result]}))
    reports.write(tmp_path / "junit.xml", reports.junit(odd, [result]))
    reports.write(tmp_path / "report.txt", reports.report(odd, [result]))
    reports.write(tmp_path / "results.json", reports.gradescope([result]))
    assert len(rows(tmp_path)) == 1
    ElementTree.parse(tmp_path / "junit.xml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task,points\n9.9,1\n", "there is no task 9.9"),
        ("task,points\n1.1,much\n", "task and points"),
        ("a,b\n1,2\n", "task and points"),
        ("task,points\n", "has no line"),
    ],
)
def test_bad_table_of_points_gets_a_sentence(tmp_path, text, message):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(SystemExit, match=message):
        reports.read_points(tmp_path / "points.csv")


def test_points_have_every_task_and_make_100():
    points = reports.read_points(None)
    assert set(points) == set(reports.NAMES) and sum(points.values()) == 100


def test_points_can_be_edited_without_judging_again(small_class, tmp_path):
    submissions, out = small_class
    (tmp_path / "points.csv").write_text("task,points\n1.1,0.5\n1.3,10\n")
    assert (
        grade(submissions, out, "--exercises", "1", "--points", tmp_path / "points.csv").returncode
        == 0
    )
    totals = {name: row["total"] for name, row in rows(out).items()}
    assert grade(submissions, out, "--exercises", "1").returncode == 0
    assert (totals["right_in_exercise_1"], totals["half_done"], totals["untouched"]) == (
        "10.5",
        "10",
        "0",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty"),
        ([made_class.NAME], "must hold a folder"),
    ],
)
def test_folder_that_is_no_class_gets_a_sentence(tmp_path, files, message):
    (tmp_path / "submissions").mkdir()
    for name in files:
        (tmp_path / "submissions" / name).touch()
    done = grade(tmp_path / "submissions", tmp_path / "grades")
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_grades_may_not_lie_among_the_submissions(small_class):
    done = grade(small_class[0], small_class[0] / "grades")
    assert done.returncode == 2 and "must lie outside" in done.stderr


def test_files_are_found_under_the_names_that_others_give_them(tmp_path):
    for name in (
        "anna.py",
        "bob_exercise_01_build_resnet18.py",
        "carl/deep/er/my exercise_01.py",
        "eve/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert judge.find_file([tmp_path / "anna.py"], "1", only=True) == tmp_path / "anna.py"
    with pytest.raises(judge.Refused, match="cannot tell"):
        judge.find_file([tmp_path / "anna.py"], "1")
    assert judge.find_file([tmp_path / "bob_exercise_01_build_resnet18.py"], "1").name.startswith(
        "bob"
    )
    assert judge.find_file([tmp_path / "bob_exercise_01_build_resnet18.py"], "2") is None
    assert judge.find_file([tmp_path / "carl"], "1").name == "my exercise_01.py"
    assert judge.find_file([tmp_path / "eve"], "1") is None
    (tmp_path / "carl" / "other exercise_01.py").touch()
    with pytest.raises(judge.Refused, match="more than one"):
        judge.find_file([tmp_path / "carl"], "1")


def test_missing_file_comes_with_what_may_have_been_meant(tmp_path):
    for name in ("main.py", "exercise_01.ipynb", "exercise_02_ablation_skip.py", "notes.txt"):
        (tmp_path / name).touch()
    text = "there is no exercise_01_build_resnet18.py; there is 'main.py' and 'exercise_01.ipynb'"
    assert judge.missing([tmp_path], "1") == text
    assert judge.missing([tmp_path / "exercise_02_ablation_skip.py"], "1") == text.partition(";")[0]


def test_file_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(judge.Refused, match="no file"):
        judge.read_file(tmp_path / "pipe.py")
    (tmp_path / "big.py").write_bytes(b" " * (judge.LARGEST + 1))
    with pytest.raises(judge.Refused, match="no script"):
        judge.read_file(tmp_path / "big.py")


def test_gradescopes_zip_judges_a_submission(tmp_path):
    command = [
        sys.executable,
        TOOLS / "gradescope" / "make_zip.py",
        tmp_path / "autograder.zip",
        "--exercises",
        "1",
    ]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        assert {"setup.sh", "run_autograder"} <= set(archive.namelist())
        archive.extractall(tmp_path / "source")
    made_class.make(tmp_path, ["half_done"])
    (tmp_path / "half_done").rename(tmp_path / "submission")
    environment = os.environ | {"AUTOGRADER": str(tmp_path), "PYTHON": sys.executable}
    subprocess.run(
        ["bash", tmp_path / "source" / "run_autograder"], check=True, env=environment, timeout=300
    )
    scope = json.loads((tmp_path / "results" / "results.json").read_text("utf-8"))
    assert scope["score"] == 8 and {test["name"][:3] for test in scope["tests"]} == set(
        made_class.TASKS
    )


def test_github_gets_its_notices(tmp_path):
    made_class.make(tmp_path, ["half_done"])
    command = [
        sys.executable,
        TOOLS / "judge.py",
        tmp_path / "half_done",
        "--exercises",
        "1",
        "--github",
    ]
    environment = os.environ | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (
        done.returncode == 1
        and '::notice title=Autograding report::{"totalPoints": 8, "maxPoints": 20}' in done.stdout
    )
    assert "half_done: 8 of 20 points" in (tmp_path / "summary.md").read_text("utf-8")
