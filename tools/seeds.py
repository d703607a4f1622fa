"""Run exercise 2's solution with --seed 0 to 4, one after another, and print the table that EXERCISES.md shows.

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


def mean_loss(histories, network):
    """The mean over a run's seeds of the last epoch's training loss of a network such as plain-20."""
    losses = [history[-1]["loss"] for name, history in histories.items() if name.startswith(f"{network}-")]
    return sum(losses) / len(losses)


def row(seed, numbers):
    """One line of the table: final training losses, the two gaps, seconds."""
    histories, gaps, depths = numbers["histories"], numbers["degradation"], numbers["settings"]["depths"]
    losses = [mean_loss(histories, f"{kind}-{depth}") for kind in gaps for depth in (depths[0], depths[-1])]
    cells = [str(seed), *(f"{loss:.2f}" for loss in losses), *(f"{gap:+.2f}" for gap in gaps.values())]
    return "| " + " | ".join([*cells, f"{numbers['seconds']:.0f}"]) + " |"


def main():
    rows = [row(seed, run(seed, sys.argv[1:])) for seed in range(5)]
    print("\n| --seed | plain shallow | plain deep | residual shallow | residual deep | plain gap | residual gap | s |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
