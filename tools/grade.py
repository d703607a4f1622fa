"""Grade a class: one command, one folder of submissions, one table of grades.

    python tools/grade.py SUBMISSIONS --out GRADES
    python tools/grade.py SUBMISSIONS --out GRADES --exercises 1 2 --points my_points.csv

SUBMISSIONS holds a folder for each learner with any of the five exercise files, or single files such as
anna_exercise_01_build_resnet18.py. GRADES gets grades.csv, with a row for everyone, and for each learner a report
(report.txt), Gradescope's results.json and JUnit XML. Interrupted or killed, the same command goes on where it was;
what was judged once is judged again only if the file, the tests or the limits have changed. tools/judge.py says how
a submission is kept from doing harm, and README.md what it may still do.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path

import judge
import reports
from tqdm import tqdm

IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini")
RUNNING = set()  # the judges at work


def find_learners(folder):
    """{learner: [places]}: folders by their name, single files by what stands before exercise_0N in theirs."""
    learners = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in IGNORED:
            continue
        learner = entry.name
        if not entry.is_dir(follow_symlinks=False):
            learner = re.sub(r"[ _.-]*(exercise_0\d.*)?\.py$", "", entry.name)
            if not learner:
                raise SystemExit(
                    f"{folder} holds {entry.name} itself. It must hold a folder (or file) for each learner."
                )
        learners.setdefault(learner, []).append(Path(entry.path))
    if not learners:
        raise SystemExit(f"{folder} is empty. It must hold a folder (or file) for each learner.")
    return learners


def fingerprint(limits):
    """What a verdict depends on besides the submission: the tests, the tools, the limits and the packages."""
    versions = [
        sys.version,
        *(metadata.version(package) for package in ("torch", "torchvision", "pytest")),
    ]
    digest = hashlib.sha256(json.dumps([limits, versions]).encode())
    for path in sorted([*judge.ROOT.glob("tests/*.py"), *judge.ROOT.glob("tools/*.*")]):
        digest.update(path.read_bytes() if path.suffix in (".py", ".sh") else b"")
    return digest.hexdigest()


def judge_one(places, exercise, args, kept, base, trusted):
    """The result of one exercise of one learner: from an earlier run if nothing has changed, else from a judge."""
    empty = {"exercise": exercise, "file": reports.FILES[exercise], "caught": [], "tasks": {}}
    try:
        path = judge.find_file(places, exercise, only=len(args.exercises) == 1)
        if path is None:
            return empty | {"status": "missing", "why": judge.missing(places, exercise)}
        source = judge.read_file(path)
    except (judge.Refused, OSError) as error:
        return empty | {"status": "refused", "why": str(error)}
    digest = hashlib.sha256(base.encode() + source + b"trusted" * trusted).hexdigest()
    try:
        known = json.loads(kept.read_text("utf-8"))
        if known["digest"] == digest:
            return known["result"]
    except (OSError, ValueError, KeyError):
        pass
    result = run_judge(source, exercise, args, trusted)
    if result is None or result["status"] == "error":
        why = result["why"] if result else "the judge itself was stopped; start the command again"
        return empty | {"status": "error", "why": why}
    reports.write(kept, json.dumps({"digest": digest, "result": result}))
    return result


def run_judge(source, exercise, args, trusted):
    """The result of tools/judge.py on a script, or None if it came to no end. trusted: nothing is forbidden."""
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        script, answer = Path(folder, reports.FILES[exercise]), Path(folder, "result.json")
        script.write_bytes(source)
        command = [
            sys.executable,
            Path(judge.__file__),
            script,
            "--json",
            answer,
            "--exercises",
            exercise,
            "--attached",
        ]
        command += [
            f"--{name.replace('_', '-')}={value}" for name, value in judge.limits_of(args).items()
        ]
        command += ["--observe"] * trusted
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        RUNNING.add(process)
        try:
            process.wait(args.seconds + 300)  # it keeps to --seconds itself, as a rule
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        RUNNING.discard(process)
        process.stdin.close()
        try:
            return json.loads(answer.read_text("utf-8"))["exercises"][0]
        except (OSError, ValueError):
            return None


def judge_all(learners, args, base):
    """{learner: [result of each exercise]}, everything judged on all cores, with a progress bar."""
    results = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = {}
        for learner, places in learners.items():
            for exercise in args.exercises:
                kept = args.out / "judged" / learner / f"exercise_0{exercise}.json"
                job = pool.submit(
                    judge_one, places, exercise, args, kept, base, learner in args.trust
                )
                waiting[job] = (learner, exercise)
        try:
            for done in tqdm(
                as_completed(waiting), total=len(waiting), unit="file", desc="judging"
            ):
                results[waiting[done]] = done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.stdin.close()  # --attached: it stops
            raise
    return {
        learner: [results[learner, exercise] for exercise in args.exercises] for learner in learners
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "submissions", type=Path, help="a folder with a folder (or file) for each learner"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="GRADES",
        help="the folder for everything written",
    )
    parser.add_argument(
        "--jobs", type=int, default=cores(), help="judged at once (default: the cores, %(default)s)"
    )
    parser.add_argument(
        "--trust",
        nargs="+",
        default=[],
        metavar="LEARNER",
        help="give withheld points back to these",
    )
    judge.add_flags(parser)
    args = parser.parse_args()
    args.exercises = sorted(set(args.exercises))
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: give 1 or more")
    if not args.submissions.is_dir():
        parser.error(f"{args.submissions}: there is no such folder")
    if args.out.resolve().is_relative_to(args.submissions.resolve()):
        parser.error(f"--out {args.out}: must lie outside of {args.submissions}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        parser.error(f"--out {args.out}: cannot write there ({error.strerror})")
    points = reports.read_points(args.points)
    learners = find_learners(args.submissions)
    unknown = sorted(set(args.trust) - set(learners))
    if unknown:
        parser.error(f"--trust {unknown[0]}: there is no such learner")
    if not judge.sandbox_works():
        print(
            "No sandbox here (unshare): submissions keep the network and your files. Use a container.",
            file=sys.stderr,
        )
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on from here")
    )
    try:
        judged = judge_all(learners, args, fingerprint(judge.limits_of(args)))
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from here") from None
    write_grades(judged, points, args)


def write_grades(judged, points, args):
    """Everything that GRADES holds, and a few words on the screen."""
    grades = {
        learner: [reports.score(result, points, learner in args.trust) for result in results]
        for learner, results in judged.items()
    }
    for learner, exercises in grades.items():
        folder = args.out / "learners" / learner
        reports.write(folder / "report.txt", reports.report(learner, exercises))
        reports.write(folder / "results.json", reports.gradescope(exercises))
        reports.write(folder / "junit.xml", reports.junit(learner, exercises))
    reports.write(args.out / "grades.csv", reports.table(grades))
    look = [
        learner
        for learner, exercises in grades.items()
        if any(result["caught"] for result in exercises)
    ]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a folder's name may be no text at all
    print(
        f"{len(grades)} learners: {args.out / 'grades.csv'}, and a report each in {args.out / 'learners'}"
    )
    if look:
        print(f"Look at these reports yourself; points are withheld: {', '.join(look)}")
    errors = [
        learner
        for learner, exercises in grades.items()
        if any(r["status"] == "error" for r in exercises)
    ]
    if errors:
        raise SystemExit(
            f"Not judged, through no fault of theirs; start the command again: {', '.join(errors)}"
        )


def cores():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
