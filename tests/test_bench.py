"""tools/bench.py: its other loop does what it should, and what it prints is what it measured."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import warm

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "tools" / "bench.py"
sys.path.insert(0, str(ROOT / "tools"))
import bench  # noqa: E402
import given  # noqa: E402
import textbook  # noqa: E402


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
    return warm.run([BENCH, *flags], folder)


def dry_run(folder, *flags):
    """A dry run of tools/bench.py: what it printed, and its record."""
    finished = run_bench(folder, *flags, "--dry-run", "--device", "cpu", "--json", "bench.json")
    assert finished.returncode == 0, finished.stderr
    record = json.loads((folder / "bench.json").read_text("utf-8"))
    return finished.stdout, record


def test_both_loops_see_the_same_images(data):
    images = data.test_images
    labels = data.test_labels
    loader = textbook.make_loader(images, labels, data, 30, training=False)
    textbook_images, textbook_labels = next(iter(loader))
    our_images, our_labels = next(iter(given.test_batches(data)))
    assert torch.equal(textbook_labels, our_labels)
    torch.testing.assert_close(textbook_images, our_images.contiguous(), atol=1e-5, rtol=1e-5)


def test_both_loops_measure_the_same_accuracy(data, network):
    loader = textbook.make_loader(data.test_images, data.test_labels, data, 7, training=False)
    our_accuracy = given.accuracy(network, given.test_batches(data))
    assert textbook.accuracy(network, loader) == pytest.approx(our_accuracy)


def test_the_textbook_loop_learns(data, network):
    images = data.train_images
    labels = data.train_labels
    unaugmented = textbook.make_loader(images, labels, data, 20, training=False)
    before = textbook.accuracy(network, unaugmented)
    loader = textbook.make_loader(images, labels, data, 20, training=True)
    textbook.train(network, loader, 15, 0, rate=0.1)
    assert textbook.accuracy(network, unaugmented) > before + 0.2


def test_a_share_of_the_limit_is_that_of_each_turn():
    limit = bench.compare_with_limit([20, 30, 90], {"float32": [50, 50, 50], "bfloat16": [100] * 3})
    assert limit["of"] == "bfloat16"
    assert limit["share"] == pytest.approx(0.3)
    assert limit["matrix_gflops"] == {"float32": 50, "bfloat16": 100}
    assert bench.limit_cells(limit) == [
        "30",
        "50 in float32, 100 in bfloat16",
        "**30 %** of bfloat16 (20 %-90 %)",
    ]


def test_operations_are_those_of_three_passes(network):
    images = torch.zeros(2, 3, 16, 16)
    forward = given.nn.Conv2d(3, 16, 3, padding=1, bias=False)
    # Multiply-adds of a layer, times two, and as many for the gradient of its weights. Images need
    # no gradient; the other layers have a third pass for that of their input.
    assert bench.gflop_per_image(forward, images) == pytest.approx(2 * 2 * 16 * 16 * 27 * 16 / 1e9)
    two = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 10), torch.nn.Linear(10, 10))
    expected = 2 * (2 * 768 * 10 + 3 * 10 * 10) / 1e9
    assert bench.gflop_per_image(two, images) == pytest.approx(expected)


def test_company_is_started_together(monkeypatch, capsys):
    events = []

    class Training:
        def __init__(self, loop, name, options):
            self.pipe = SimpleNamespace(send=events.append)
            self.turns = bench.os.environ["GOMP_SPINCOUNT"]

        def receive(self):
            events.append("received")
            return 2.0 if self.turns == "1000" else 4.0

        def stop(self):
            pass

    monkeypatch.setattr(bench, "LoopProcess", Training)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    options = SimpleNamespace(networks=None, rounds=1, dry_run=False)
    (row,) = bench.measure_busy(options)
    assert events[:6] == ["five steps", "received", *2 * ["five steps"], *2 * ["received"]]
    assert row["seconds"]["1,000"] == {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}
    assert "| 1,000 | 2.0 (0.5) |" in capsys.readouterr().out
    assert bench.os.environ["GOMP_SPINCOUNT"] == "7"


def test_seconds_until_an_accuracy_is_reached():
    epochs = [(10, 0.5), (11, 0.7), (12, 0.6), (13, 0.8)]
    history = [{"seconds": seconds, "test_accuracy": accuracy} for seconds, accuracy in epochs]
    assert bench.seconds_to_accuracy({"history": [history]}, 0.7) == 21
    assert bench.seconds_to_accuracy({"history": [history]}, 0.71) == 46
    assert bench.seconds_to_accuracy({"history": [history]}, 0.9) is None


# A GPU, for some minutes


@pytest.fixture(scope="module")
def gpu_run(tmp_path_factory):
    """The dry run of the command for a GPU: its folder, what it printed, and its record."""
    folder = tmp_path_factory.mktemp("gpu")
    printed, record = dry_run(folder, "gpu", "--networks", "plain-56")
    return folder, printed, record


@pytest.mark.timeout(600)
def test_the_table_and_the_file_have_what_was_measured(gpu_run):
    folder, printed, record = gpu_run
    part = record["numbers"]["plain-56"]
    (row,) = part["numbers"]
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
    assert f"| plain-56 | {row['limit']['training_gflops']:,.0f} | " in printed
    assert row["limit"]["share"] > 0
    assert min(row["seconds_to_first_step"].values()) > 0.5
    assert min(row["peak_megabytes"].values()) > 100
    assert part["machine"] == record["machine"]
    assert record["machine"]["torch"] == torch.__version__
    assert torch.__version__ in printed
    assert sorted(path.name for path in folder.iterdir()) == ["bench.json", "bench.json.parts"]


def test_the_fast_preset_is_measured_beside_the_textbook(gpu_run):
    _, printed, record = gpu_run
    rows = record["numbers"]["fast"]["numbers"]
    assert [row["batch_size"] for row in rows] == [32, 512, 512]
    assert [row["smoothing"] for row in rows] == [0, 0.1, 0.1]
    for row in rows:
        (accuracy,) = row["test_accuracy"]
        (seconds,) = row["seconds"]
        shown = f"{100 * accuracy:.2f} %"
        assert f"| {shown} | {shown} | {seconds:.1f} |" in printed
    reached = rows[1]["history"][0][0]["test_accuracy"] >= rows[0]["test_accuracy"][0]
    assert (rows[1]["seconds_to_textbook"] is not None) is reached


def test_the_papers_recipe_comes_last(gpu_run):
    _, printed, record = gpu_run
    assert list(record["numbers"]) == ["plain-56", "fast", "exercise_02"]
    settings = record["numbers"]["exercise_02"]["settings"]
    assert settings["preset"] == "paper"
    assert settings["epochs"] == 1


@pytest.mark.timeout(300)
def test_what_is_measured_is_not_measured_again(gpu_run):
    folder, _, before = gpu_run
    printed, again = dry_run(folder, "gpu", "--networks", "plain-56")
    assert "==" not in printed
    assert again["numbers"] == before["numbers"]


def test_a_part_that_is_too_slow_or_fails_is_left_out(tmp_path, monkeypatch, capsys):
    def write(text):
        code = f"import sys; open(sys.argv[1], 'w').write('{text}')"
        return lambda folder: [sys.executable, "-c", code, folder / f"{text}.json"]

    def fail(folder):
        return [sys.executable, "-c", "raise SystemExit(3)"]

    def unplanned(folder):
        raise FileNotFoundError(2, "No such file", "plain-56.json")

    def sleep(folder):
        return ["sleep", "600"]

    parts = {
        "1.json": write("1"),
        "fail.json": fail,
        "unplanned.json": unplanned,
        "sleep.json": sleep,
        "2.json": write("2"),
    }
    monkeypatch.setattr(bench, "gpu_parts", lambda options: parts)
    options = SimpleNamespace(json=tmp_path / "all.json", minutes=0.1)
    assert bench.measure_gpu(options) == {"1": 1}
    printed = capsys.readouterr().out
    assert "fail.json: failed with exit status 3" in printed
    assert "unplanned.json: cannot be planned without plain-56.json" in printed
    assert "sleep.json: not finished" in printed
    assert "== 2.json" not in printed


def test_a_process_that_is_too_slow_ends_with_all_it_has_started(tmp_path):
    late = tmp_path / "late"
    command = ["sh", "-c", f"(sleep 2; touch {late}) & sleep 600"]
    with pytest.raises(subprocess.TimeoutExpired):
        bench.run_in_time(command, 0.3)
    time.sleep(2.5)
    assert not late.exists()


def test_the_papers_epochs_are_as_many_as_fit(tmp_path):
    for name, speed in (("plain-56", 5_000), ("residual-56", 10_000)):
        both = {"images_per_second": {"ours": speed, "textbook": 1}}
        record = {"numbers": [{"training": both, "testing": both}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(record), "utf-8")
    # An epoch of 60,000 images takes 12 and 6 seconds, and 20/56 of them with 20 layers.
    options = SimpleNamespace(minutes=9, dry_run=False)
    assert bench.paper_epochs(options, tmp_path) == str(int(0.7 * 540 / (18 * 76 / 56)))
    options.minutes = 1
    assert bench.paper_epochs(options, tmp_path) == "1"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--json FILE"),
        (["--json", "bench.json", "--device", "cpu"], "torch finds no GPU here"),
    ],
)
def test_without_a_file_or_a_gpu_there_is_one_sentence(tmp_path, flags, words):
    finished = run_bench(tmp_path, "gpu", *flags)
    assert finished.returncode == 2
    assert words in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("flag", "value"), [("--rounds", "0"), ("--networks", "VGG"), ("--json", "none/bench.json")]
)
def test_bad_flags_get_one_sentence(tmp_path, flag, value):
    finished = run_bench(tmp_path, flag, value)
    assert finished.returncode == 2
    assert flag in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_profile_shows_where_the_time_goes(tmp_path):
    finished = warm.run([ROOT / "tools" / "profile_training.py", "plain-56"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    rows = [line.strip("| ").split(" | ") for line in finished.stdout.splitlines()]
    shares = {row[0]: float(row[1].split()[0]) for row in rows if row[-1].endswith("%")}
    assert 97 <= sum(shares.values()) <= 103
    assert shares["convolutions, backward"] > shares["convolutions, forward"] > 0
    convolutions = [row for row in rows if "x" in row[0] and len(row) == 5]
    assert [row[:2] for row in convolutions] == [
        ["16, 16x16", "18"],
        ["32, 8x8", "17"],
        ["64, 4x4", "17"],
    ]
