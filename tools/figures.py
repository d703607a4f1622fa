"""Make the figures of docs/figures with the solutions' default runs on shapes.

python tools/figures.py         those of all exercises, one after another
python tools/figures.py 3 5     those of exercises 3 and 5
python tools/figures.py --logs  only those of the longer runs in docs/logs, which takes seconds
python tools/figures.py --dry-run --out DIR     one tiny step of everything: does it work?
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]
from bench import load_solution  # noqa: E402
from course import SOLUTIONS  # noqa: E402

LOGS = ROOT / "docs" / "logs"


def make_figures(exercise, folder, flags):
    """Run an exercise's solution and keep its figures in folder."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, SOLUTIONS[exercise], "--data", "shapes", "--out", out, *flags]
        subprocess.run(command, check=True)
        for path in Path(out).rglob(f"exercise_0{exercise}*.png"):  # a dry run's are further down
            save_small(path, folder / path.name)


def draw_logs(folder):
    """Draw the figures of exercise 4's longer runs: what its solution wrote as JSON."""
    solution = load_solution("4")
    for path in sorted(LOGS.glob("exercise_04_*.json")):
        run = json.loads(path.read_text("utf-8"))
        figure = solution.draw_figure(
            argparse.Namespace(**run["settings"]),
            run["table"],
            run["runs"],
            run["gains"],
            run["data"],
            run["training_images"],
        )
        target = folder / f"{path.stem}.png"
        figure.savefig(target)
        save_small(target, target)


def save_small(source, target):
    """Save a figure with 256 colours, which makes the file a third as large."""
    figure = Image.open(source).convert("RGB")
    figure = figure.quantize(256, Image.Quantize.MAXCOVERAGE)
    figure.save(target, optimize=True)
    print(f"Wrote {target}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", metavar="N", help="their numbers (default: all)")
    parser.add_argument("--logs", action="store_true", help="draw the longer runs' figures only")
    parser.add_argument("--dry-run", action="store_true", help="hand this flag on to the solutions")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "docs" / "figures",
        metavar="DIR",
        help="default: docs/figures",
    )
    args = parser.parse_args()
    flags = ["--dry-run"] if args.dry_run else []
    exercises = [] if args.logs else args.exercises or list(SOLUTIONS)
    for exercise in exercises:
        if exercise not in SOLUTIONS:
            parser.error(f"there is no exercise {exercise}: give some of {', '.join(SOLUTIONS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.logs:
        draw_logs(args.out)
    for exercise in exercises:
        make_figures(exercise, args.out, flags)


if __name__ == "__main__":
    main()
