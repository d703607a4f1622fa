"""Grade a class: one command, one folder of submissions, one table of grades.

    python grading/grade.py SUBMISSIONS --out GRADES
    python grading/grade.py FOLDER --one --out GRADES       a folder of one learner's

GRADES gets grades.csv, overview.html and review.txt for you, and learners/NAME.txt for the others.
Interrupted or killed, the same command goes on where it was. docs/grading.md says more.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import secrets
import signal
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
from course import FILES, MOST_DRAWS, SOLUTIONS
from tqdm import tqdm

ROOT = sandbox.ROOT
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def grade(learner, places, exercise, options, room):
    """Keep the verdict on one exercise of one learner, and return it."""
    verdict = {"learner": learner, "exercise": exercise, "file": FILES[exercise]}
    verdict.update(tests={}, look=[], shape={})
    name = hashlib.sha256(learner.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    kept = options.out / "verdicts" / f"exercise_0{exercise}" / f"{name}.json"
    try:
        known = json.loads(kept.read_text()) if kept.exists() else None
        with tempfile.TemporaryDirectory(dir=room.folder) as scratch:
            verdict = fill_in(verdict, known, places, options, room, Path(scratch))
        reports.write(kept, json.dumps(verdict))
    except Exception as error:  # of whatever kind: nobody's file may end the others' grading
        kept.unlink(missing_ok=True)
        verdict["status"] = f"not judged: {str(error) or type(error).__name__}"
    return verdict


def fill_in(verdict, known, places, options, room, scratch):
    """The whole verdict: the known one if nothing has changed. Raises OSError if there is none."""
    name = verdict["file"]
    try:
        data, others = submissions.choose(places, name, len(options.exercises) == 1, scratch)
    except submissions.Refused as refusal:
        return {**verdict, "status": f"refused: {refusal}"}
    also = f"; there is also {', '.join(others)}" if others else ""
    if data is None:
        return {**verdict, "status": f"missing{also}"}
    key = hashlib.sha256(options.fingerprint + also.encode() + data).hexdigest()
    if known and known.get("key") == key:
        return known
    (scratch / "submission").mkdir()
    (scratch / "submission" / name).write_bytes(data)
    output, errors = room.run(scratch, "judge.py", name, str(options.seed), str(options.seconds))
    if not output:
        raise OSError(errors[-300:] or "the judge was stopped")
    tests = json.loads(output)
    stub = (ROOT / name).read_bytes()
    try:
        verdict["look"] = review.look_at(data, stub, verdict["exercise"])
        verdict["shape"] = review.shape(data, stub)
    except Exception as error:  # of whatever kind
        verdict["look"] = [f"cannot be searched ({type(error).__name__})"]
    return {**verdict, "status": status_of(tests) + also, "tests": tests, "key": key}


def status_of(tests):
    """Why the first test that did not run did not, or "ok"."""
    for test in tests.values():
        if re.match("stopped: |.* cannot be imported", test["message"]):
            return test["message"]
    return "ok"


def grade_all(learners, options, room):
    """The verdicts on all exercises of all learners, several at once."""
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            pairs = itertools.product(sorted(set(options.exercises)), learners.items())
            jobs = [pool.submit(grade, *own, exercise, options, room) for exercise, own in pairs]
            return [job.result() for job in tqdm(as_completed(jobs), "judging", len(jobs))]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            room.stop()
            raise SystemExit("stopped; the same command goes on from here") from None


def name_the_similar(verdicts):
    """Add to what to look at: who has nearly the same code."""
    for exercise, solution in SOLUTIONS.items():
        own = {v["learner"]: v for v in verdicts if v["exercise"] == exercise}
        shape = review.shape(solution.read_bytes(), (ROOT / solution.name).read_bytes())
        own["the course's solution"] = {"shape": shape, "look": []}  # the last one of its group
        for group in review.alike({learner: verdict["shape"] for learner, verdict in own.items()}):
            for learner in group:
                others = [other for other in group if other != learner]
                own[learner]["look"].append(f"very similar to {', '.join(others[-9:])}")


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
        place = options.out / "learners" / reports.file_name(learner)
        reports.write(place, reports.report(learner, own))
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
    add("--exercises", nargs="+", choices=FILES, default=list(FILES), metavar="N")
    add("--points", type=Path, metavar="FILE", help="a table with the columns task and points")
    add("--jobs", type=int, default=CORES, metavar="N", help="how many at once")
    add("--seed", type=int, help="which random inputs (default: as last time in GRADES)")
    add("--seconds", type=float, default=30, help="for one test (default: 30)")
    add("--container", metavar="IMAGE", help="run submissions in Docker or Podman")
    add("--no-sandbox", action="store_true", help="run submissions with all that you may do")
    options = parser.parse_args()
    if not options.submissions.is_dir():
        parser.error(f"{options.submissions}: there is no such folder")
    if options.out.resolve().is_relative_to(options.submissions.resolve()):
        parser.error(f"--out {options.out}: must lie outside of {options.submissions}")
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    if not options.seconds > 0:
        parser.error(f"--seconds {options.seconds:g}: must be more than 0")
    if options.seed is not None and not 0 <= options.seed <= MOST_DRAWS:
        parser.error(f"--seed {options.seed}: must be from 0 to {MOST_DRAWS:,}")
    saved = options.out / "seed.txt"
    try:
        options.points = reports.read_points(options.points)
        if options.seed is None:
            options.seed = int(saved.read_text()) if saved.exists() else secrets.randbelow(10**6)
        reports.write(saved, str(options.seed))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    versions = [sys.version, version("torch"), version("pytest")]
    way = [options.no_sandbox, options.container]
    parts = [repr([options.seed, options.seconds, *way, *versions]).encode()]
    for pattern in ("tests/*.py", "grading/*.*", "exercise_0*.py", "pyproject.toml"):
        parts += [path.read_bytes() for path in sorted(ROOT.glob(pattern))]
    options.fingerprint = hashlib.sha256(b"".join(parts)).digest()
    return options


def main():
    sys.stdout.reconfigure(errors="backslashreplace")  # for names in another encoding
    os.umask(0o022)  # a container's user must be able to read what is judged
    options = read_options()
    learners, strays = submissions.find_learners(options.submissions)
    if options.one:
        folder = options.submissions.resolve()
        learners = {folder.name: [(folder, folder.name, "")]}
        strays = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=options.out.resolve()) as scratch:
        way = "none" if options.no_sandbox else options.container
        room = sandbox.choose(Path(scratch), way)
        print(f"sandbox: {room.way}; --seed {options.seed}", flush=True)
        done = grade_all(learners, options, room)
    failed = [verdict for verdict in done if verdict["status"].startswith("not judged")]
    people = write_all(failed, options)
    if options.one:
        (learner,) = learners
        print(reports.report(learner, people[learner]))
        reports.write(options.out / "results.json", reports.gradescope(people[learner]))
    print(f"Files of no learner: {', '.join(strays) or 'none'}")
    print(f"Learners: {len(people)}. See {options.out / 'grades.csv'}, overview.html, review.txt")
    if failed:
        names = ", ".join(sorted({verdict["learner"] for verdict in failed}))
        raise SystemExit(
            f"Not judged, through no fault of theirs: {names}. The first of them: "
            f"{failed[0]['status']}. Run the same command again, perhaps with a smaller --jobs."
        )


if __name__ == "__main__":
    main()
