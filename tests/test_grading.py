"""The grader: who handed in what, the sandbox, verdicts, reports, and a whole made class."""

import argparse
import contextlib
import csv
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import made_class
import pytest
import warm
from course import FILES, ROOT, TASKS

sys.path.insert(0, str(ROOT / "grading"))
import grade as grader
import reports
import review
import sandbox
import submissions

NAME = made_class.NAME
GRADE = [sys.executable, str(ROOT / "grading" / "grade.py")]
RIGHT = made_class.RIGHT.encode()
pytestmark = pytest.mark.timeout(600)


def grade(folder, *flags, environment=None):
    """Run the grader on folder/class; returns (exit status, what it printed)."""
    command = [*GRADE, folder / "class", "--out", folder / "out", "--seconds", "20", *flags]
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    return done.returncode, done.stdout


def table_of(folder):
    """{learner: row of grades.csv}."""
    with open(folder / "out" / "grades.csv", newline="", encoding="utf-8-sig") as file:
        return {row["learner"]: row for row in csv.DictReader(file)}


def lay_out(folder, files):
    """Write files: {path: bytes}; a path that ends with / is a folder."""
    for path, data in files.items():
        place = Path(folder, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(data)


# Who handed in what


LAYOUTS = {
    "canvas": (
        {
            f"doejane_123_98765_{NAME}": b"1",
            "doejane_LATE_123_98766_exercise_02_ablation_skip-1.py": b"2",
            "doejane_124_98767_exercise_01.py": b"3",
        },
        {"doejane_123": {"1": b"1", "2": b"2"}, "doejane_124": {"1": b"3"}},
    ),
    "moodle": (
        {
            f"Jane Doe_1234_assignsubmission_file_/{NAME}": b"1",
            "Jane Doe_1234_assignsubmission_onlinetext_/onlinetext.html": b"",
            "Jane Doe_1235_assignsubmission_file/exercise_02.py": b"2",
            f"Jan Doe_1236_assignsubmission_file_{NAME}": b"3",
        },
        {"Jane Doe_1234": {"1": b"1"}, "Jane Doe_1235": {"2": b"2"}, "Jan Doe_1236": {"1": b"3"}},
    ),
    "brightspace": (
        {
            f"46-123 - Jane Doe - Oct 5, 2025 1041 PM/{NAME}": b"late",
            f"46-123 - Jane Doe - Oct 5, 2025 941 AM/{NAME}": b"early",
            "47-123 - Jane Doe - Sep 30, 2025 200 PM - exercise_01.py": b"2",
            "index.html": b"",
        },
        {"46_Jane Doe": {"1": b"late"}, "47_Jane Doe": {"1": b"2"}},
    ),
    "blackboard": (
        {
            f"Homework 1_jdoe_attempt_2025-10-05-22-41-10_{NAME}": b"late",
            f"Homework 1_jdoe_attempt_2025-10-05-12-41-10_{NAME}": b"early",
            "Homework 1_jdoe_attempt_2025-10-05-22-41-10.txt": b"",
            f"Homework 1_j_doe_attempt_2025-10-05-12-41-10_{NAME}": b"2",
        },
        {"Homework 1_jdoe": {"1": b"late"}, "Homework 1_j_doe": {"1": b"2"}},
    ),
    "canvas, anonymous": (
        {
            f"anon_Ab3xY_98765_{NAME}": b"1",
            "LATE_anon_Ab3xY_98766_exercise_02_ablation_skip.py": b"2",
            f"anon_Ab3xZ_98767_{NAME}": b"3",
        },
        {"anon_Ab3xY": {"1": b"1", "2": b"2"}, "anon_Ab3xZ": {"1": b"3"}},
    ),
    "teams": (
        {
            f"Jane Doe/Homework/Version 9/{NAME}": b"early",
            f"Jane Doe/Homework/Version 10/{NAME}": b"late",
        },
        {"Jane Doe": {"1": b"late"}},
    ),
    "gradescope": (
        {f"submission_98/{NAME}": b"1", f"submission_99/x/{NAME}": b"2", "metadata.yml": b""},
        {"submission_98": {"1": b"1"}, "submission_99": {"1": b"2"}},
    ),
    "clones": (
        {
            f"course-janedoe/{NAME}": b"1",
            f"course-janedoe/solutions/{NAME}": b"not theirs",
            "course-janedoe/tests/test_exercise_01_build_resnet18.py": b"not theirs",
            f"course-janedoe/.git/{NAME}": b"not theirs",
        },
        {"course-janedoe": {"1": b"1"}},
    ),
    "names": (
        {
            "a_exercise_01.py": b"1",
            "a__exercise_01.py": b"2",
            "A_exercise_01.py": b"3",
            f"b/{NAME}.txt": b"4",
            "c/My Exercise 1 (1).PY": b"5",
            "d/exercise_01 (1).py": b"not this",
            "d/data/cifar-10-python.tar.gz": b"no archive of theirs",
            "f.tar.gz": b"an archive of theirs",
            f"d/{NAME}": b"6",
            "e/deep/down/exercise_1.py": b"7",
            "notes.txt": b"",
            "grades.csv": b"",
            ".DS_Store": b"",
            "nothing/notes.txt": b"",
        },
        {
            "a": {"1": b"1"},
            "a_": {"1": b"2"},
            "A": {"1": b"3"},
            "b": {"1": b"4"},
            "c": {"1": b"5"},
            "d": {"1": b"6"},
            "e": {"1": b"7"},
            "nothing": {},
            "f": {},
        },
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_people_are_neither_split_nor_merged(tmp_path, layout):
    files, expected = LAYOUTS[layout]
    lay_out(tmp_path / "class", files)
    learners, strays = submissions.find_learners(tmp_path / "class")
    found = {}
    for learner, places in learners.items():
        found[learner] = {}
        for exercise in "12":
            data = None
            with contextlib.suppress(submissions.Refused):
                data, _ = submissions.choose(places, FILES[exercise], False, tmp_path)
            if data:
                found[learner][exercise] = data
    assert found == expected
    assert set(strays) == {name for name in files if "/" not in name and name in NOBODYS}


NOBODYS = {"index.html", "metadata.yml", "notes.txt", "grades.csv"}


def choose(folder, files, alone=False):
    """(the bytes of what is taken from a learner's folder, the names of what is not)."""
    lay_out(folder / "anna", files)
    places = [(folder / "anna", "anna", "")]
    return submissions.choose(places, NAME, alone, tempfile.mkdtemp(dir=folder))


def test_a_zip_file_is_a_folder(tmp_path):
    (tmp_path / "anna").mkdir()
    with zipfile.ZipFile(tmp_path / "anna" / "homework.zip", "w") as archive:
        archive.writestr(f"work/{NAME}", b"x = 1")
        archive.writestr(f"__MACOSX/work/._{NAME}", b"junk")
        archive.writestr("work/big.bin", bytes(10))
    assert choose(tmp_path, {}) == (b"x = 1", [])


def test_a_zip_file_of_a_whole_project_is_judged(tmp_path):
    (tmp_path / "anna").mkdir()
    with zipfile.ZipFile(tmp_path / "anna" / "homework.zip", "w") as archive:
        archive.writestr(f"work\\{NAME}", b"x = 1")  # as old tools of Windows write it
        archive.writestr(f"work\\solutions\\{NAME}", b"not theirs")
        archive.writestr(f"work\\tests\\test_{NAME}", b"not theirs")
        for folder in (".venv", "env/lib/site-packages"):
            archive.writestr(f"work/{folder}/torch.py", bytes(21 * 2**20))
    assert choose(tmp_path, {}) == (b"x = 1", [])


def test_a_folder_called_solutions_may_be_the_learners(tmp_path):
    assert choose(tmp_path, {f"solutions/{NAME}": b"1"}) == (b"1", [])


def test_two_copies_are_one_file(tmp_path):
    assert choose(tmp_path, {f"a/{NAME}": b"1", f"b/{NAME}": b"1"}) == (b"1", [NAME])
    with pytest.raises(submissions.Refused, match=f"a/{NAME} and c/{NAME}"):
        choose(tmp_path, {f"c/{NAME}": b"2"})


def test_the_courses_solution_is_not_the_learners(tmp_path):
    files = {"exercise_01_anna.py": b"1", f"solutions/{NAME}": b"not theirs"}
    assert choose(tmp_path, files) == (b"1", [])


def test_a_backup_of_an_earlier_version_is_no_later_attempt(tmp_path):
    assert choose(tmp_path, {NAME: b"1", f"Version 1/{NAME}": b"0"}) == (b"1", [NAME])


def test_an_exercise_that_was_not_handed_in_is_missing(tmp_path):
    """Whatever else is wrong in the folder."""
    files = {FILES["2"]: b"2", "exercise_03.docx": b"", "data/photos.zip": b"no zip"}
    assert choose(tmp_path, files) == (None, [])
    (tmp_path / "anna" / "lib64").symlink_to(tmp_path)
    assert choose(tmp_path, {}) == (None, [])


def test_a_later_attempt_that_cannot_be_read_is_named(tmp_path):
    layout = "Homework_jdoe_attempt_2025-10-{}-10-00-00_exercise_01.{}"
    lay_out(tmp_path / "class", {layout.format("05", "py"): b"1", layout.format("06", "rar"): b""})
    learners, _ = submissions.find_learners(tmp_path / "class")
    (places,) = learners.values()
    assert submissions.choose(places, NAME, False, tmp_path) == (b"1", ["exercise_01.rar"])


def test_what_is_not_taken_is_named(tmp_path):
    assert choose(tmp_path, {"main.py": b"1"}) == (None, ["main.py"])
    assert choose(tmp_path / "b", {"main.py": b"", FILES["2"]: b""}) == (None, ["main.py"])
    assert choose(tmp_path, {}, alone=True) == (b"1", [])
    assert choose(tmp_path, {"exercise_01 (1).py": b"2"}) == (b"2", [])
    assert choose(tmp_path, {NAME: b"3"}) == (b"3", ["exercise_01 (1).py"])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"exercise_01 (1).py": b"1", "exercise_01 (2).py": b"2"}, "more than one"),
        ({f"a/{NAME}": b"1", f"b/{NAME}": b"2"}, f"a/{NAME} and b/{NAME}"),
        ({"exercise_01_build_resnet18.docx": b"PK"}, "is no .py file"),
        ({"exercise_01_build_resnet18": b"x = 1"}, "is no .py file"),
        ({"exercise_01.zip": b"no zip"}, "cannot be unpacked"),
        ({"exercise_01.ipynb": b"{}"}, "is a notebook"),
        ({"homework.rar": b"Rar!"}, "homework.rar cannot be unpacked here"),
        ({"homework.tar.gz": b"\x1f\x8b"}, "homework.tar.gz cannot be unpacked here"),
        ({NAME: b" " * (2**20 + 1)}, "no script"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(tmp_path, files, says):
    with pytest.raises(submissions.Refused, match=says):
        choose(tmp_path, files)


@pytest.mark.parametrize(
    "flags, says",
    [
        (("--seconds", "0"), "--seconds 0: must be more than 0"),
        (("--seed", "20260115120000"), "--seed 20260115120000: must be from 0 to 1,000,000,000"),
        (("--jobs", "0"), "--jobs 0: at least 1"),
    ],
)
def test_numbers_out_of_range_get_one_sentence(tmp_path, flags, says):
    (tmp_path / "class").mkdir()
    status, output = grade(tmp_path, *flags)
    assert status == 2
    assert says in output


def test_a_name_that_is_too_long_for_a_file_is_cut():
    name = 80 * "\u0e01"  # a Thai letter, of three bytes
    assert len(os.fsencode(reports.file_name(name))) < 200
    assert reports.file_name(name) != reports.file_name(f"{name}2")
    assert reports.file_name("anna") == "anna.txt"


def test_links_and_pipes_are_refused(tmp_path):
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / NAME).symlink_to(made_class.SOLUTIONS / NAME)
    with pytest.raises(submissions.Refused, match="link"):
        choose(tmp_path, {})
    (tmp_path / "anna" / NAME).unlink()
    os.mkfifo(tmp_path / "anna" / NAME)
    with pytest.raises(submissions.Refused, match="no file"):
        choose(tmp_path, {})


# The command line, and what it writes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task,points\n1.1,6,\n", "'1.1,6,' must be"),
        ("task,points\n1.1,6\n1.1,7\n", "'1.1,7' must be"),
        ("task,points\n9.9,6\n", "'9.9,6' must be"),
        ("task,points\n1.1,six\n", "'1.1,six' must be"),
        ("", "first line"),
        ("1.1,6\n1.2,6\n", "first line"),
        ("task,points\n", "first line"),
    ],
)
def test_a_points_file_with_a_slip_gets_one_sentence(tmp_path, text, says):
    (tmp_path / "points.csv").write_text(text)
    (tmp_path / "class").mkdir()
    status, printed = grade(tmp_path, "--points", tmp_path / "points.csv")
    assert status == 2
    assert says in printed.splitlines()[-1]
    assert "Traceback" not in printed


def test_points_are_read_as_spreadsheets_write_them(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("\ufefftask,points\r\n1.1, 6\r\n1.2,2.5\r\n\r\n", "utf-8")
    assert reports.read_points(path) == {"1.1": 6, "1.2": 2.5}
    assert set(reports.read_points(None)) == set(TASKS)


def test_a_learners_words_are_no_formula(tmp_path):
    test = {"task": "1.1", "passed": False, "message": "=1+1 <script>\x07"}
    verdict = {"exercise": "1", "file": NAME, "status": "=ok", "tests": {"t": test}, "look": []}
    people = {"=Anna": {"1": reports.score(verdict, {"1.1": 6})}}
    assert "\n'=Anna,0,0,0,6,1: =ok" in reports.table(people)
    assert reports.cell(" =1+1") == "'=1+1"
    reports.write(tmp_path / "report.txt", reports.report("=Anna", people["=Anna"]))
    assert "\x07" not in (tmp_path / "report.txt").read_text()


def test_exercises_that_were_graded_before_stay_in_the_table(tmp_path):
    lay_out(tmp_path / "class", {f"anna/{NAME}": RIGHT, "ben/": b"", f"anna/{FILES['2']}": b"1 +"})
    assert grade(tmp_path, "--exercises", "1")[0] == 0
    assert grade(tmp_path, "--exercises", "2")[0] == 0
    rows = table_of(tmp_path)
    assert (rows["anna"]["exercise 1"], rows["anna"]["exercise 2"]) == ("20", "0")
    assert "2: exercise_02_ablation_skip.py cannot be imported" in rows["anna"]["status"]
    assert rows["ben"]["status"] == "1: missing; 2: missing"
    assert rows["anna"]["of"] == "40"
    report = (tmp_path / "out" / "learners" / "anna.txt").read_text()
    assert "anna: 20 of 40 points" in report
    seed = (tmp_path / "out" / "seed.txt").read_text()
    assert f"--seed {seed}" in grade(tmp_path, "--exercises", "1")[1]


def test_gradescopes_zip_judges_a_submission(tmp_path):
    folder = ROOT / "grading" / "gradescope"
    make = ["bash", folder / "make_zip.sh", tmp_path / "autograder.zip", "1"]
    subprocess.run(make, check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        assert {"setup.sh", "run_autograder"} <= set(archive.namelist())
        archive.extractall(tmp_path / "source")
    lay_out(tmp_path / "submission", {NAME: made_class.VANDALS["wrong_in_one_task"][0].encode()})
    (tmp_path / "results").mkdir()
    environment = os.environ | {"AUTOGRADER": str(tmp_path), "PYTHON": sys.executable}
    run = ["bash", tmp_path / "source" / "run_autograder"]
    subprocess.run(run, check=True, env=environment, capture_output=True)
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["score"] == 16
    assert {test["name"][:3] for test in results["tests"]} == {"1.1", "1.2", "1.3", "1.4"}


# The sandbox


def test_the_probe_notices_what_can_be_seen(tmp_path):
    room = sandbox.Sandbox("none", tmp_path)
    script = room.course / "grading" / "probe.sh"
    text = script.read_text()
    loops = text[text.index("for place in") : text.index('[ -n "$found" ]')]
    script.write_text(text.replace(loops, ""))  # they would write on this machine
    assert "other processes are seen" in room.probe()


def test_nothing_runs_where_no_sandbox_works(tmp_path):
    lay_out(tmp_path, {f"class/anna/{NAME}": b"import os\nos.system('touch /tmp/escaped')"})
    for name in ("unshare", "bwrap", "docker"):
        lay_out(tmp_path, {f"bin/{name}": b"#!/bin/sh\nexit 1\n"})
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for flags in ((), ("--container", "image")):
        status, printed = grade(tmp_path, "--exercises", "1", *flags, environment=environment)
        assert status == 1
        assert "No sandbox works here" in printed
        assert not (tmp_path / "out" / "grades.csv").exists()
    assert not Path("/tmp/escaped").exists()


def test_a_container_gets_no_network_and_only_what_it_needs(tmp_path):
    words = tmp_path / "words"
    docker = f'#!/bin/sh\nprintf "%s\\n" "$@" >{words}\necho sealed\n'
    lay_out(tmp_path, {"bin/docker": docker.encode(), f"class/anna/{NAME}": RIGHT})
    (tmp_path / "bin" / "docker").chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    status, printed = grade(
        tmp_path, "--exercises", "1", "--container", "image", environment=environment
    )
    assert status == 1
    assert "Not judged, through no fault of theirs: anna. The first of them: " in printed
    given = words.read_text().splitlines()
    assert {"run", "--network=none", "--read-only", "--cap-drop=ALL", "image"} <= set(given)
    assert sum(word.startswith("--volume") for word in given) == 2


LOOKS_AROUND = """import glob, socket
SEEN = []
for place in ("/home", "/root", "/run", "/var", "/work", "/mnt", {places}):
    SEEN += glob.glob(place + "/*") + glob.glob(place + "/.ssh")
own = {{str(os.getppid()), *os.listdir("/proc/self/task")}}  # its threads have numbers, too
for pid in map(str, range(2, 5000)):
    if os.path.exists(f"/proc/{{pid}}/environ") and pid not in own:
        SEEN.append(pid)
with open("/proc/net/unix") as file:
    SEEN += file.readlines()[1:]
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=2)
    SEEN.append("network")
except OSError:
    pass
for place in ("/", "/usr", "/etc", "/course/tests", "/submission"):
    try:
        open(place + "/x", "w")
        SEEN.append(place)
    except OSError:
        pass
SEEN += [name for name in os.environ if "SECRET" in name]
if SEEN:
    raise RuntimeError(f"seen: {{SEEN}}")
torch.multiprocessing.get_context("fork").Pool(2).map(len, ["a"])"""


def test_a_submission_sees_nothing_of_the_host(tmp_path):
    home = Path.home() / f"secret-{os.getpid()}"
    home.write_text("secret")
    local = socket.socket(socket.AF_UNIX)
    local.bind("\0abstract")
    local.listen()
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = f"{str(tmp_path)!r}, {str(ROOT)!r}, {str(ROOT / 'solutions')!r}"
        code = LOOKS_AROUND.format(places=places, port=server.getsockname()[1])
        anna = made_class.at_import(code).encode()
        lay_out(tmp_path / "class", {f"anna/{NAME}": anna, f"ben/{NAME}": RIGHT})
        status, printed = grade(tmp_path, "--exercises", "1", environment={"SECRET": "1"})
    home.unlink()
    local.close()
    assert status == 0, printed
    assert {row["total"] for row in table_of(tmp_path).values()} == {"20"}, table_of(tmp_path)


# A verdict is final only if the submission itself caused it


def start_grading(folder, *flags):
    """The grader at work on folder/class, in a process group of its own."""
    command = [*GRADE, str(folder / "class"), "--out", str(folder / "out"), "--exercises", "1"]
    command += flags
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
        # A shell starts its background jobs with SIGINT ignored, and the grader would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def judges():
    """The processes of judge.py, and those in which it runs tests."""
    found = []
    for path in map(Path, glob.glob("/proc/[0-9]*/cmdline")):
        with contextlib.suppress(OSError):
            if b"grading/judge.py" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def parent_of(pid):
    """The process that has started another one; 0 if that has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def wait_for_workers(process):
    """The processes in which a grader's judges run tests, once there are some."""
    while process.poll() is None:
        mine = [p for p in judges() if parent_of(p) in judges() and descends(p, process.pid)]
        if mine:
            return mine
        time.sleep(0.1)
    raise AssertionError("the grader ended without a worker")


def descends(pid, ancestor):
    """Whether a process comes from another one."""
    while pid > 1 and pid != ancestor:
        pid = parent_of(pid)
    return pid == ancestor


def test_what_is_killed_or_paused_from_outside_is_judged_all_the_same(tmp_path):
    lay_out(tmp_path / "class", {f"anna/{NAME}": RIGHT})
    process = start_grading(tmp_path)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        time.sleep(3)
        for pid in wait_for_workers(process):
            os.kill(pid, number)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait() == 0
    assert table_of(tmp_path)["anna"]["total"] == "20"


@pytest.mark.parametrize("flags", [["--jobs", "8"], ["--no-sandbox"]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_grader_that_is_asked_to_stop_stops(number, flags, tmp_path):
    lay_out(tmp_path / "class", {f"{name}/{NAME}": RIGHT for name in "abcdefgh"})
    process = start_grading(tmp_path, *flags)
    some = wait_for_workers(process)
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) == 1
    assert not set(some) & set(judges())
    assert not list(tmp_path.glob("out/scratch-*"))
    assert not list(tmp_path.glob("out/grades.csv"))


def test_a_judge_that_is_killed_gives_no_verdict(tmp_path):
    lay_out(tmp_path / "class", {f"anna/{NAME}": RIGHT, "ben/": b""})
    process = start_grading(tmp_path)
    for pid in wait_for_workers(process):
        os.kill(parent_of(pid), signal.SIGKILL)
    assert process.wait() == 1
    row = table_of(tmp_path)["anna"]
    assert row["status"].startswith("1: not judged")
    assert row["1.1"] == ""
    assert grade(tmp_path, "--exercises", "1")[0] == 0
    assert table_of(tmp_path)["anna"]["total"] == "20"


def test_a_judge_whose_pytest_fails_gives_no_verdict(tmp_path):
    room = sandbox.Sandbox("none", tmp_path)
    (room.course / "tests" / "conftest.py").write_text("")  # so it knows no --target
    lay_out(tmp_path, {f"submission/{NAME}": RIGHT})
    output, errors = room.run(tmp_path, "judge.py", NAME, "1", "30")
    assert not output
    assert "pytest ended with" in errors


def test_a_full_disk_gives_no_verdict(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    script = (
        f'mount -t tmpfs -o size=8m tmpfs {out} && "$@"; code=$?; cat {out}/grades.csv; exit $code'
    )
    lay_out(tmp_path / "class", {f"anna/{NAME}": RIGHT})
    command = [*GRADE, tmp_path / "class", "--out", out, "--exercises", "1", "--no-sandbox"]
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    done = subprocess.run([*unshare, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Not judged" in done.stderr
    assert "not judged: the disk is full" in done.stdout


def test_an_error_without_a_message_is_named_by_its_kind(tmp_path, monkeypatch):
    def choose(*places):
        raise MemoryError

    monkeypatch.setattr(submissions, "choose", choose)
    options = argparse.Namespace(out=tmp_path, exercises=["1"])
    room = argparse.Namespace(folder=tmp_path)
    assert grader.grade("anna", [], "1", options, room)["status"] == "not judged: MemoryError"


def test_a_verdict_from_another_place_to_run_is_not_taken_again(tmp_path, monkeypatch):
    fingerprints = set()
    for flags in ([], ["--no-sandbox"], ["--container", "old"], ["--container", "new"]):
        command = ["grade.py", tmp_path, "--out", tmp_path.with_name("out"), "--seed", "1", *flags]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        fingerprints.add(grader.read_options().fingerprint)
    assert len(fingerprints) == 4


def test_other_random_inputs_are_other_inputs(tmp_path):
    printed = []
    for draw in ("0", "7"):
        flags = ["-q", f"--draw={draw}", f"tests/test_{NAME}", "--target", str(tmp_path)]
        subtraction = "        return F.relu(branch - self.shortcut(x))"
        answer = made_class.edit(made_class.ADDITION, subtraction)
        (tmp_path / NAME).write_text(answer(made_class.RIGHT))
        done = warm.run(["-m", "pytest", "-p", "no:cacheprovider", "-x", *flags], ROOT)
        printed.append(next(line for line in done.stdout.splitlines() if "got" in line))
    assert printed[0] != printed[1]


# A whole class


def state_of_the_host():
    """What must be as before: files in the usual places, and processes of submissions."""
    folders = (tempfile.gettempdir(), Path.home(), "/dev/shm", ROOT, ROOT / "tests")
    files = {path for folder in folders for path in Path(folder).iterdir()}
    return {path for path in files if "pytest" not in path.name}, judges()


@pytest.mark.whole_class
@pytest.mark.timeout(3600)
def test_a_class_is_graded_and_a_kill_in_between_changes_nothing(tmp_path):
    everybody = made_class.make_class()
    made_class.write(tmp_path / "class", everybody)
    before = state_of_the_host()
    process = start_grading(tmp_path)
    while process.poll() is None and len(list((tmp_path / "out").glob("verdicts/*/*"))) < 9:
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    status, printed = grade(tmp_path, "--exercises", "1", "--seconds", "30")
    assert status == 0, printed
    assert state_of_the_host() == before
    rows = table_of(tmp_path)
    review_page = (tmp_path / "out" / "review.txt").read_text()
    for name, learner in everybody.items():
        row = rows[name]
        if not name.startswith("cheat"):
            assert float(row["total"]) == learner.points, row
        assert learner.status in row["status"], row
        assert (learner.look or "") in review_page.partition(f"\n{name},")[2].partition("\n\n")[0]


@pytest.mark.parametrize("name", made_class.make_class())
def test_the_list_names_cheats_and_leaves_honest_files_alone(name):
    learner = made_class.make_class()[name]
    file = learner.file if isinstance(learner.file, bytes) else learner.file.encode()
    found = review.look_at(file, made_class.STUB.encode(), "1")
    if learner.look is None:
        assert not found
    assert (learner.look or "") in "\n".join(found)


def test_the_list_says_which_exercise_may_have_what():
    data = b"import torchvision\ntorchvision.models.resnet18()\n"
    assert review.look_at(data, b"", "5") == []
    line = "line 2: torchvision.models.resnet18 (ready-made networks)"
    assert line in review.look_at(data, b"", "4")


SHORTCUT = """layers = []
if stride != 1 or in_channels != out_channels:
    layers += [nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)]
    layers += [nn.BatchNorm2d(num_features=out_channels)]
return nn.Sequential(*layers)"""
NETWORK = """self.stem = nn.Sequential()
self.stem.append(nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False))
self.stem.append(nn.BatchNorm2d(64))
self.stem.append(nn.ReLU())
self.stages = nn.Sequential()
for stage in range(4):
    width = 2**stage * 64
    before = width if stage == 0 else width // 2
    self.stages.append(BasicBlock(before, width, min(stage, 1) + 1))
    self.stages.append(BasicBlock(width, width))
self.head = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, num_classes))"""


def test_copies_are_named():
    stub = made_class.STUB.encode()
    part, mark, rest = made_class.RIGHT.partition("# %% The experiment")
    start = part.index("def make_shortcut")
    end = part.index("def accuracy")
    moved = part[:start] + part[end:] + part[start:end]
    counters = "    correct = 0\n", "    total = 0\n"
    assert "".join(counters) in moved
    moved = moved.replace("".join(counters), "".join(reversed(counters)))  # statements, too
    renamed = moved.replace(" branch ", " left ").replace("branch)", "left)")
    renamed += mark + rest.replace("history", "epochs")
    other = made_class.hole("accuracy", made_class.ACCURACY)(made_class.RIGHT)
    other = made_class.hole("make_shortcut", SHORTCUT)(other)
    other = made_class.hole("ResNet18.__init__", NETWORK)(other)
    shapes = {"anna": RIGHT, "ben": renamed.encode(), "carl": stub, "dora": other.encode()}
    shapes = {name: review.shape(data, stub) for name, data in shapes.items()}
    assert review.alike(shapes) == [["anna", "ben"]]


def test_what_is_not_the_script_costs_nobody_anything(tmp_path):
    """A link, a broken archive and an environment beside the scripts; folders of like names."""
    files = {
        f"anna/{NAME}": RIGHT,
        "anna/photos.zip": b"version https://git-lfs.github.com/spec/v1",
        "anna/env/lib/module.py": b"",
        f"ben/{NAME}": RIGHT + b"x = 1" + b" + 1" * 1200 + b"\n",
        "carl/hand_in.zip": b"no archive",
    }
    lay_out(tmp_path / "class", files)
    (tmp_path / "class/anna/data").symlink_to("/usr")
    (tmp_path / "class/anna/env/lib64").symlink_to("lib")
    assert grade(tmp_path, "--exercises", "1")[0] == 0
    table = table_of(tmp_path)
    assert table["anna"]["total"] == table["ben"]["total"] == "20"
    assert "hand_in.zip cannot be unpacked" in table["carl"]["status"]
    assert "cannot be searched (RecursionError)" in (tmp_path / "out/review.txt").read_text()


def test_names_may_have_marks_that_are_no_letters():
    """Python allows them in names, and regular expressions do not call them letters."""
    text = "x\u0304 = 1\nx\u0304 += x\u0304\nprint(x\u0304.real)\n".encode()
    assert review.look_at(text, b"", "1") == []


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_a_place_that_cannot_be_used_gets_one_sentence(tmp_path, out):
    (tmp_path / "class").mkdir()
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*GRADE, tmp_path / "class", "--out", tmp_path / out], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"{tmp_path / 'file'}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "earlier, later", [("115 PM", "245 PM"), ("1259 PM", "100 PM"), ("941 AM", "1041 AM")]
)
def test_brightspace_writes_times_without_a_colon(earlier, later):
    dates = [submissions.sortable(f"Oct 5, 2025 {time}") for time in (earlier, later)]
    assert dates == sorted(dates)


def test_one_learner_in_a_folder_that_others_use(tmp_path):
    """Each report is its own learner's."""
    for name, text, points in (("zoe", RIGHT, 20), ("anna", (ROOT / NAME).read_bytes(), 0)):
        lay_out(tmp_path / name, {NAME: text})
        command = [*GRADE, tmp_path / name, "--one", "--out", tmp_path / "out", "--exercises", "1"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert f"{name}: {points} of 20 points" in done.stdout
