"""tools/claims.py: every claim can be checked on a run, and kept runs are used again."""

import sys
from pathlib import Path

import pytest
import warm
from course import SOLUTIONS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import claims  # noqa: E402


def test_every_exercise_has_claims():
    assert list(claims.CLAIMS) == list(SOLUTIONS)


@pytest.mark.parametrize("exercise", SOLUTIONS)
def test_a_table_is_printed(exercise, tmp_path):
    command = [claims.__file__, exercise, "--seeds", "0", "--dry-run"]
    finished = warm.run(command, tmp_path)
    assert finished.returncode == 0, finished.stderr
    table = finished.stdout[finished.stdout.index("| exercise") :].splitlines()
    assert len(table) == 2 + len(claims.CLAIMS[exercise])


def test_a_claim_names_the_seeds_with_which_it_holds():
    runs = {seed: {"loss": seed} for seed in range(4)}
    assert claims.holds_with(lambda run: run["loss"] > 1, runs) == "2, 3 of 0, 1, 2, 3"
    assert claims.holds_with(lambda run: run["loss"] > 9, runs) == "none of 0, 1, 2, 3"
    assert claims.holds_with(lambda run: run["another"] > 9, runs) == "-"


def test_a_kept_run_is_read_and_not_made_again(tmp_path):
    (tmp_path / "exercise_02.json").write_text('{"degradation": 1}', "utf-8")
    assert claims.run_solution("2", 0, tmp_path, []) == {"degradation": 1}


def test_a_lead_is_that_of_the_paired_seeds():
    accuracy = {"a": [[0.5, 0.7, 0.9]], "b": [[0.4, 0.6, 0.8]], "c": [[0.1, 0.9, 0.5]]}
    run = {"labels_per_class": [2], "accuracy": accuracy}
    mean, error = claims.lead(run, "a", "b", 2)
    assert mean == pytest.approx(10)
    assert error == pytest.approx(0, abs=1e-6)
    assert claims.leads(run, "a", "b", 2)
    assert not claims.leads(run, "a", "c", 2)
