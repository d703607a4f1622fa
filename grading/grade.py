"""Grade a class: one command, one folder of submissions, one table of grades.

    python grading/grade.py SUBMISSIONS --out GRADES
    python grading/grade.py FOLDER --one --out GRADES       a folder of one learner's

GRADES gets grades.csv, overview.html and review.txt for you, and learners/NAME.txt for the others.
Interrupted or killed, the same command goes on where it was. docs/grading.md says more.
"""

import argparse
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import needed  # noqa: F401
import reports
import review
import sandbox
import submissions

# reports has put tests/ on the path.
from course import FILES, MOST_DRAWS, SOLUTIONS
from tqdm import tqdm

ROOT = sandbox.ROOT
SOLUTION = "the course's solution"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def grade(learner, places, exercise, options, room):
    """Keep the verdict on one exercise of one learner, and return it."""
    verdict = {"learner": learner, "exercise": exercise, "file": FILES[exercise], "key": ""}
    verdict |= {"tests": {}, "look": [], "shape": []}
    name = hashlib.sha256(learner.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    kept = options.out / "verdicts" / f"exercise_0{exercise}" / f"{name}.json"
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        try:
            known = json.loads(kept.read_text()) if kept.exists() else verdict
            verdict = fill_in(verdict, known, places, options, room, Path(scratch))
        except submissions.Refused as refusal:
            verdict["status"] = f"refused: {refusal}"
        except Exception as error:  # of whatever kind: nobody's file may end the others' grading
            kept.unlink(missing_ok=True)
            return {**verdict, "status": f"not judged: {error or type(error).__name__}"}
    try:
        reports.write(kept, json.dumps(verdict))
    except OSError as error:
        return {**verdict, "status": f"not judged: {error}"}
    return verdict


def fill_in(verdict, known, places, options, room, scratch):
    """The whole verdict: the known one if nothing has changed. Raises OSError if there is none."""
    name = verdict["file"]
    data, others = submissions.choose(places, name, len(options.exercises) == 1, scratch)
    also = f"; there is also {', '.join(others)}" if others else ""
    if data is None:
        return {**verdict, "status": f"missing{also}"}
    key = hashlib.sha256(options.fingerprint + also.encode() + data).hexdigest()
    if known["key"] == key:
        return known
    for folder in ("submission", "room"):
        (scratch / folder).mkdir()
    (scratch / "submission" / name).write_bytes(data)
    job = {"file": name, "seed": options.seed, "seconds": options.seconds}
    with room.start(scratch, "judge.py", json.dumps(job)) as process:
        output = process.stdout.read()
    if not output:
        errors = (scratch / "errors").read_text(errors="replace")
        raise OSError(errors.strip()[-300:] or "the judge was stopped")
    judged = json.loads(output)
    messages = [test["message"] for test in judged["tests"].values()]
    broken = [message for message in messages if "cannot be imported" in message]
    reasons = [*broken, *(f"stopped: {why}" for why in judged["stopped"]), "ok"]
    status = reasons[0] + also
    stub = (ROOT / name).read_bytes()
    try:
        verdict["look"] = review.look_at(data, stub, verdict["exercise"])
        verdict["shape"] = review.shape(data, stub)
    except RecursionError:
        verdict["look"] = ["nested too deeply to be searched"]
    return {**verdict, "status": status, "tests": judged["tests"], "key": key}


def grade_all(learners, options, room):
    """The verdicts on all exercises of all learners, several at once."""
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            jobs = [
                pool.submit(grade, learner, places, exercise, options, room)
                for exercise in sorted(set(options.exercises))
                for learner, places in learners.items()
            ]
            return [job.result() for job in tqdm(as_completed(jobs), "judging", len(jobs))]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            room.stop()
            raise SystemExit("stopped; the same command goes on from here") from None


def name_the_similar(verdicts):
    """Add to what to look at: who has nearly the same code."""
    for exercise, solution in SOLUTIONS.items():
        own = {v["learner"]: v for v in verdicts if v["exercise"] == exercise}
        shapes = {learner: verdict["shape"] for learner, verdict in own.items()}
        stub = (ROOT / solution.name).read_bytes()
        shapes[SOLUTION] = review.shape(solution.read_bytes(), stub)
        for group in review.alike(shapes):
            for learner in set(group) - {SOLUTION}:
                others = [other for other in group if other != learner]
                some = others[-9:]  # the course's solution comes last
                own[learner]["look"].append(f"very similar to {', '.join(some)}")


def write_all(failed, options):
    """Write everything that GRADES holds, from all verdicts kept there. Returns them."""
    verdicts = [json.loads(path.read_text()) for path in options.out.glob("verdicts/*/*.json")]
    name_the_similar(verdicts)
    scored = [reports.score(verdict, options.points) for verdict in verdicts]
    scored += [reports.score(verdict, {}) for verdict in failed]
    people = {}
    for verdict in sorted(scored, key=lambda v: (v["learner"], v["exercise"])):
        people.setdefault(verdict["learner"], {})[verdict["exercise"]] = verdict
    for learner, own in people.items():
        reports.write(
            options.out / "learners" / reports.file_name(learner), reports.report(learner, own)
        )
    page = (ROOT / "grading" / "overview.html").read_text("utf-8")
    page = page.replace("PEOPLE", json.dumps(people).replace("<", "\\u003c"), 1)
    reports.write(options.out / "overview.html", page)
    reports.write(options.out / "grades.csv", reports.table(people))
    reports.write(options.out / "review.txt", reports.review(people))
    return people


def read_options():
    """The command line, and what follows from it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("submissions", type=Path, help="a folder with a folder or files of each learner")
    add("--out", type=Path, required=True, metavar="GRADES", help="where everything is written")
    add("--one", action="store_true", help="the folder is one learner's; print the report")
    add("--gradescope", type=Path, metavar="FILE", help="with --one: write Gradescope's results")
    add("--exercises", nargs="+", choices=FILES, default=list(FILES), metavar="N")
    add("--points", type=Path, metavar="FILE", help="a table with the columns task and points")
    add("--jobs", type=int, default=CORES, metavar="N", help="how many at once")
    add("--seed", type=int, help="which random inputs (default: drawn once for GRADES)")
    add("--seconds", type=float, default=30, help="for one test (default: 30)")
    add("--container", metavar="IMAGE", help="run submissions in Docker or Podman")
    add("--no-sandbox", action="store_true", help="run submissions with all that you may do")
    options = parser.parse_args()
    if not options.submissions.is_dir():
        parser.error(f"{options.submissions}: there is no such folder")
    if options.out.resolve().is_relative_to(options.submissions.resolve()):
        parser.error(f"--out {options.out}: must lie outside of {options.submissions}")
    if options.gradescope and not options.one:
        parser.error("--gradescope: give --one, too")
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    if not options.seconds > 0:
        parser.error(f"--seconds {options.seconds:g}: must be more than 0")
    if options.seed is not None and not 0 <= options.seed <= MOST_DRAWS:
        parser.error(f"--seed {options.seed}: must be from 0 to {MOST_DRAWS:,}")
    try:
        options.points = reports.read_points(options.points)
    except (OSError, ValueError) as error:
        parser.error(f"--points {options.points}: {error}")
    drawn = options.out / "seed.txt"
    try:
        if options.seed is None and drawn.exists():
            if not drawn.read_text().strip().isdecimal():
                parser.error(f"{drawn} holds no number: remove it, or give --seed")
            options.seed = int(drawn.read_text())
        elif options.seed is None:
            options.seed = 1 + secrets.randbelow(10**6)
        reports.write(drawn, str(options.seed))
    except OSError as error:
        parser.error(f"--out {options.out}: {error}")
    versions = [sys.version, version("torch"), version("pytest")]
    digest = hashlib.sha256(f"{options.seed} {options.seconds} {versions}".encode())
    for pattern in ("tests/*.py", "grading/*.*", "exercise_0*.py", "pyproject.toml"):
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    options.fingerprint = digest.digest()
    return options


def main():
    sys.stdout.reconfigure(errors="backslashreplace")  # for names in another encoding
    os.umask(0o022)  # a container's user must be able to read what is judged
    options = read_options()
    host = socket.gethostname()
    for folder in options.out.glob(f"scratch-{host}-*-*"):
        process = folder.name.split("-")[-2]
        if Path("/proc/self").exists() and not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)  # its grader was killed
    learners, strays = submissions.find_learners(options.submissions)
    if options.one:
        folder = options.submissions.resolve()
        learners = {folder.name: [(folder, folder.name, "")]}
        strays = []
    scratch = tempfile.mkdtemp(prefix=f"scratch-{host}-{os.getpid()}-", dir=options.out)
    options.scratch = Path(scratch).resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        way = "none" if options.no_sandbox else options.container
        room = sandbox.choose(options.scratch, way)
        print(f"sandbox: {room.way}; --seed {options.seed}", flush=True)
        done = grade_all(learners, options, room)
    except sandbox.NoSandbox as problem:
        raise SystemExit(f"No sandbox works here: {problem}\nSee docs/grading.md.") from None
    finally:
        shutil.rmtree(options.scratch, ignore_errors=True)
    failed = [verdict for verdict in done if verdict["status"].startswith("not judged")]
    people = write_all(failed, options)
    if options.one:
        (learner,) = learners
        print(reports.report(learner, people[learner]))
        if options.gradescope and not failed:
            reports.write(options.gradescope, reports.gradescope(people[learner]))
    print(f"nobody's work: {', '.join(strays) or 'nothing'}")
    print(f"{len(people)} learners: {options.out / 'grades.csv'}, overview.html, review.txt")
    if failed:
        names = ", ".join(sorted({verdict["learner"] for verdict in failed}))
        raise SystemExit(
            f"Not judged, through no fault of theirs: {names}. The first of them: "
            f"{failed[0]['status']}. Run the same command again, perhaps with a smaller --jobs."
        )


if __name__ == "__main__":
    main()
