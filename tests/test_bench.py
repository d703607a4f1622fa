"""tools/bench.py: its other loop does what it should, and what it prints is what it measured."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "tools" / "bench.py"
sys.path.insert(0, str(ROOT / "tools"))
import bench  # noqa: E402
import given  # noqa: E402


@pytest.fixture(scope="module")
def data():
    """A few images at the size of exercise 2."""
    options = SimpleNamespace(data="shapes", data_dir=None, device=torch.device("cpu"))
    budget = {"epochs": 1, "train_images": 40, "test_images": 30, "size": 16}
    return bench.load_images(options, budget)


@pytest.fixture
def network():
    """A small network of exercise 2, always with the same weights."""
    torch.manual_seed(0)
    return bench.load_solution("2").build_network(8, skip=True)


def run_bench(folder, *flags):
    """Run tools/bench.py in a folder."""
    command = [sys.executable, BENCH, *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def dry_run(folder, *flags):
    """A dry run of tools/bench.py: what it printed, and its record."""
    finished = run_bench(folder, *flags, "--dry-run", "--device", "cpu", "--json", "bench.json")
    assert finished.returncode == 0, finished.stderr
    record = json.loads((folder / "bench.json").read_text("utf-8"))
    return finished.stdout, record


def test_both_loops_see_the_same_images(data):
    images = data.test_images
    labels = data.test_labels
    loader = bench.textbook_loader(images, labels, data, 30, training=False)
    textbook_images, textbook_labels = next(iter(loader))
    our_images, our_labels = next(iter(given.test_batches(data)))
    assert torch.equal(textbook_labels, our_labels)
    torch.testing.assert_close(textbook_images, our_images.contiguous(), atol=1e-5, rtol=1e-5)


def test_both_loops_measure_the_same_accuracy(data, network):
    loader = bench.textbook_loader(data.test_images, data.test_labels, data, 7, training=False)
    our_accuracy = given.accuracy(network, given.test_batches(data))
    assert bench.textbook_accuracy(network, loader) == pytest.approx(our_accuracy)


def test_the_textbook_loop_learns(data, network):
    images = data.train_images
    labels = data.train_labels
    unaugmented = bench.textbook_loader(images, labels, data, 20, training=False)
    before = bench.textbook_accuracy(network, unaugmented)
    loader = bench.textbook_loader(images, labels, data, 20, training=True)
    bench.textbook_train(network, loader, 15, 0, batch_size=128)
    assert bench.textbook_accuracy(network, unaugmented) > before + 0.2


@pytest.mark.parametrize("linear", [True, False])
def test_growth_says_whether_cost_is_linear(capsys, linear):
    seconds = {size: [0.5 + 0.01 * size] for size in (100, 200, 400, 800)}
    if not linear:
        seconds[100] = [9.0]
    bench.print_growth("image", seconds, "seconds per epoch")
    printed = capsys.readouterr().out
    assert "| 200 | 2.50 |" in printed
    assert ("fits all of them" in printed) is linear
    assert ("except at 100 (" in printed) is not linear


@pytest.mark.timeout(300)
def test_the_table_and_the_file_have_what_was_measured(tmp_path):
    printed, record = dry_run(tmp_path, "--networks", "plain-56")
    (row,) = record["numbers"]
    assert row["network"] == "plain-56"
    assert row["images_per_turn"] == 64
    assert row["turns"] == 1
    for job in ("training", "testing"):
        speed = row[job]["images_per_second"]
        ratio = row[job]["ratio"]
        assert min(speed.values()) > 0
        assert row[job]["lowest_ratio"] <= ratio <= row[job]["highest_ratio"]
        cells = f"{speed['ours']:,.0f} / {speed['textbook']:,.0f} | **{ratio:.2f}**"
        assert cells in printed
    assert min(row["seconds_to_first_step"].values()) > 0.5
    assert min(row["peak_megabytes"].values()) > 100
    assert record["machine"]["torch"] == torch.__version__
    assert torch.__version__ in printed
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.timeout(300)
def test_the_fast_preset_is_measured_beside_the_textbook(tmp_path):
    printed, record = dry_run(tmp_path, "fast")
    rows = record["numbers"]
    assert [row["batch_size"] for row in rows] == [32, 512, 512]
    assert [row["smoothing"] for row in rows] == [0, 0.1, 0.1]
    for row in rows:
        assert f"| {row['test_accuracy']:.2%} | {row['seconds']:.1f} |" in printed


@pytest.mark.parametrize(
    ("flag", "value"), [("--rounds", "0"), ("--networks", "VGG"), ("--json", "none/bench.json")]
)
def test_bad_flags_get_one_sentence(tmp_path, flag, value):
    finished = run_bench(tmp_path, flag, value)
    assert finished.returncode == 2
    assert flag in finished.stderr
    assert "Traceback" not in finished.stderr
