"""Run exercise 2's solution with --seed 0 to 4 and print the table that EXERCISES.md shows.

    python tools/seeds.py     about 10 minutes on 4 cores

More flags are handed on to the solution.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from course import SOLUTIONS  # noqa: E402

SEEDS = range(5)
KINDS = ("plain", "residual")


def run(seed, flags):
    """The numbers of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, SOLUTIONS["2"], "--seed", str(seed), *flags, "--out", folder]
        subprocess.run(command, check=True)
        (path,) = Path(folder).rglob("exercise_02.json")  # a dry run writes to a folder in it
        return json.loads(path.read_text("utf-8"))


def final_loss(histories, network):
    """The last epoch's training loss of a network such as plain-20, averaged over a run's seeds."""
    losses = []
    for name, history in histories.items():
        if name.startswith(f"{network}-"):
            losses.append(history[-1]["loss"])
    return sum(losses) / len(losses)


def header(depths):
    """The table's first two lines."""
    titles = ["--seed"]
    for kind in KINDS:
        titles += [f"{kind} {depths[0]}", f"{kind} {depths[-1]}"]
    for kind in KINDS:
        titles.append(f"{kind} gap")
    titles.append("seconds")
    return table_row(titles) + "\n" + "|---" * len(titles) + "|"


def run_row(seed, numbers):
    """One line of the table: final training losses, the two gaps, seconds."""
    depths = numbers["settings"]["depths"]
    cells = [str(seed)]
    for kind in KINDS:
        for depth in (depths[0], depths[-1]):
            loss = final_loss(numbers["histories"], f"{kind}-{depth}")
            cells.append(f"{loss:.2f}")
    for kind in KINDS:
        gap = numbers["degradation"][kind]
        cells.append(f"{gap:+.2f}")
    cells.append(f"{numbers['seconds']:.0f}")
    return table_row(cells)


def table_row(cells):
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main():
    flags = sys.argv[1:]
    runs = {seed: run(seed, flags) for seed in SEEDS}
    depths = runs[0]["settings"]["depths"]
    print(f"\n{header(depths)}")
    for seed, numbers in runs.items():
        print(run_row(seed, numbers))


if __name__ == "__main__":
    main()
