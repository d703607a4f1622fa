"""Run exercise 2's solution from five seeds, one after another, and print the table that EXERCISES.md shows.

python tools/seeds.py                 about 10 minutes on 4 cores; more flags are handed on to the solution
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SOLUTION = Path(__file__).resolve().parent.parent / "solutions" / "exercise_02_ablation_skip.py"


def run(seed, flags):
    """The numbers of one run."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, SOLUTION, "--seed", str(seed), *flags, "--out", out], check=True)
        return json.loads(Path(out, "exercise_02.json").read_text("utf-8"))


def row(seed, numbers):
    """One line of the table: final training losses, the two gaps, seconds."""
    histories, gaps = numbers["histories"], numbers["degradation"]
    depths = numbers["settings"]["depths"]
    losses = [histories[f"{kind}-{depth}-{seed}"][-1]["loss"] for kind in gaps for depth in (depths[0], depths[-1])]
    cells = [str(seed), *(f"{loss:.2f}" for loss in losses), *(f"{gap:+.2f}" for gap in gaps.values())]
    return "| " + " | ".join([*cells, f"{numbers['seconds']:.0f}"]) + " |"


def main():
    rows = [row(seed, run(seed, sys.argv[1:])) for seed in range(5)]
    print(
        "\n| seed | plain, shallow | plain, deep | residual, shallow | residual, deep | plain gap | residual gap | s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
