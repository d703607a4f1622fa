"""Make the figures of docs/figures with the solutions' default runs on shapes.

python tools/figures.py             all five, one after another
python tools/figures.py 3 5         those of exercises 3 and 5
python tools/figures.py --dry-run --out DIR      one tiny step of everything, to see whether it works
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def make_figure(solution, folder, flags):
    """Run a solution and keep its figure in folder, with 256 colours, which makes the file a third as large."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, solution, "--data", "shapes", "--out", out, *flags], check=True)
        name = f"{solution.name[:11]}.png"
        picture = Image.open(Path(out, name)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
        picture.save(folder / name, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", type=int, help="their numbers (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="hand this flag on to the solutions")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "figures", metavar="DIR", help="default: docs/figures"
    )
    args = parser.parse_args()
    for solution in sorted(ROOT.glob("solutions/exercise_0*.py")):
        if not args.exercises or int(solution.name[9:11]) in args.exercises:
            make_figure(solution, args.out, ["--dry-run"] * args.dry_run)


if __name__ == "__main__":
    main()
