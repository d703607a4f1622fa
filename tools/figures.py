"""Make the figures of docs/figures with the solutions' default runs on shapes.

python tools/figures.py             all five, one after another
python tools/figures.py 3 5         those of exercises 3 and 5
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def make_figure(solution):
    """Run a solution and keep its figure, with 256 colours, which makes the file a third as large."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, solution, "--data", "shapes", "--out", out], check=True)
        name = f"{solution.name[:11]}.png"
        picture = Image.open(Path(out, name)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
        picture.save(ROOT / "docs" / "figures" / name, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", type=int, help="their numbers (default: all)")
    wanted = parser.parse_args().exercises
    for solution in sorted(ROOT.glob("solutions/exercise_0*.py")):
        if not wanted or int(solution.name[9:11]) in wanted:
            make_figure(solution)


if __name__ == "__main__":
    main()
