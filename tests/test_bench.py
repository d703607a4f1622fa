"""tools/bench.py: its other loop does what it should, and what it prints follows from what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import bench  # noqa: E402


@pytest.fixture(scope="module")
def loaded():
    """Exercise 2's solution, its budget, and a few pictures at its size."""
    return bench.load("02", "cpu", 40, test_images=30)


def test_both_loops_see_the_same_pictures(loaded):
    lesson, _, data = loaded
    loader = bench.textbook_loader(data.test_images, data.test_labels, data, 30, training=False)
    (images, labels), (ours, our_labels) = next(iter(loader)), next(iter(lesson.test_batches(data)))
    assert torch.equal(labels, our_labels)
    torch.testing.assert_close(images, ours.contiguous(), atol=1e-5, rtol=1e-5)


def test_both_loops_count_the_same_right_answers(loaded):
    lesson, _, data = loaded
    torch.manual_seed(0)
    model = lesson.build_network(8, skip=True)
    loader = bench.textbook_loader(data.test_images, data.test_labels, data, 7, training=False)
    assert bench.textbook_accuracy(model, loader) == pytest.approx(lesson.accuracy(model, lesson.test_batches(data)))


def test_the_textbook_loop_learns(loaded):
    lesson, _, data = loaded
    torch.manual_seed(0)
    model = lesson.build_network(8, skip=True)
    plain = bench.textbook_loader(data.train_images, data.train_labels, data, 20, training=False)
    before = bench.textbook_accuracy(model, plain)
    loader = bench.textbook_loader(data.train_images, data.train_labels, data, 20, training=True)
    bench.textbook_train(model, loader, 15, 0, batch_size=128)
    assert bench.textbook_accuracy(model, plain) > before + 0.2


@pytest.mark.parametrize("bent", [False, True])
def test_growth_says_whether_cost_is_linear(capsys, bent):
    seconds = {size: [0.5 + 0.01 * size] for size in (100, 200, 400, 800)}
    if bent:
        seconds[100] = [9.0]
    bench.print_growth("pictures", seconds, "an epoch")
    said = capsys.readouterr().out
    assert "| 200 | 2.50 |" in said
    assert ("fits all of them" in said) is not bent and ("100 (" in said) is bent


@pytest.mark.timeout(300)
def test_the_table_and_the_file_have_what_was_measured(tmp_path):
    command = [sys.executable, ROOT / "tools" / "bench.py", "--rows", "plain-56", "--dry-run", "--device", "cpu"]
    done = subprocess.run([*command, "--json", "b.json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "b.json").read_text("utf-8"))
    (row,) = record["numbers"]
    assert (row["row"], row["pictures_a_turn"], row["turns"]) == ("plain-56", 64, 1)
    for what in ("train", "evaluate"):
        speed = row[what]
        assert speed["lowest"] <= speed["ratio"] <= speed["highest"] and min(speed["ours"], speed["textbook"]) > 0
        assert f"{speed['ours']:,.0f} / {speed['textbook']:,.0f} | **{speed['ratio']:.2f}**" in done.stdout
    assert min(row["start_up"].values()) > 0.5 and min(row["megabytes"].values()) > 100
    assert record["machine"]["torch"] == torch.__version__ in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.timeout(300)
def test_the_fast_preset_is_measured_beside_the_textbook(tmp_path):
    command = [sys.executable, ROOT / "tools" / "bench.py", "fast", "--dry-run", "--device", "cpu", "--json", "b.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "b.json").read_text("utf-8"))["numbers"]
    assert [(line["batch_size"], line["smoothing"]) for line in lines] == [(32, 0), (512, 0.1), (512, 0.1)]
    for line in lines:
        assert f"| {line['accuracy']:.2%} | {line['seconds']:.1f} |" in done.stdout


def test_bad_flags_get_one_sentence(tmp_path):
    for flags in (["--rounds", "0"], ["--rows", "VGG"], ["--json", str(tmp_path / "none" / "b.json")]):
        done = subprocess.run([sys.executable, ROOT / "tools" / "bench.py", *flags], capture_output=True, text=True)
        assert done.returncode == 2 and flags[0] in done.stderr and "Traceback" not in done.stderr
