"""The scripts as people run them: alone in an empty folder, with bad input, without a network, interrupted."""

import importlib.util
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cifar10 import make_archive
from torchvision.datasets import CIFAR10

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = sorted(ROOT.glob("solutions/exercise_0*.py"))
FIRST = SOLUTIONS[0]


@pytest.fixture(scope="module")
def given():
    """Exercise 1's solution as a module; the given part is the same in all."""
    spec = importlib.util.spec_from_file_location("given", FIRST)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=SOLUTIONS, ids=lambda path: path.stem)
def alone(request, tmp_path):
    """A solution copied into an empty folder."""
    copy = tmp_path / request.param.name
    copy.write_bytes(request.param.read_bytes())
    return copy


def run(script, *flags, **more):
    """Run a script from its folder as a person would: no traceback is ever right."""
    done = subprocess.run(
        [sys.executable, script.name, *map(str, flags)], cwd=script.parent, capture_output=True, text=True, **more
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def one_line(done):
    """The only line of an error, without what a progress bar left."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.timeout(120)
def test_a_script_runs_alone_and_writes_its_results(alone):
    done = run(alone, "--dry-run")
    assert done.returncode == 0, done.stderr
    stem = alone.stem[:11]
    record = json.loads((alone.parent / "results" / f"{stem}.json").read_text())
    assert {"settings", "versions", "seconds"} < set(record)
    assert (alone.parent / "results" / f"{stem}.png").stat().st_size > 10_000
    weights = ["exercise_05_source.pt"] if stem == "exercise_05" else []
    written = sorted(p.name for p in (alone.parent / "results").iterdir())
    assert written == [f"{stem}.json", f"{stem}.png", *weights]
    assert "shapes" in done.stdout and "cpu" in done.stdout or torch.cuda.is_available()


def test_a_stub_alone_says_which_task_comes_first(tmp_path):
    for path in SOLUTIONS:
        stub = tmp_path / path.name
        stub.write_bytes((ROOT / path.name).read_bytes())
        number = next(
            i for i, line in enumerate(stub.read_text().splitlines(), 1) if "raise NotImplementedError" in line
        )
        done = run(stub)
        assert done.returncode == 1
        line = one_line(done)
        assert line.startswith("TODO ") and f"is not written yet ({stub.name}, line {number})" in line
        assert line.endswith(f"Check it with: pytest tests/test_{stub.name}")


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--epochs", "0"], "--epochs 0: give a whole number from 1"),
        (["--epochs", "1.5"], "--epochs"),
        (["--train-images", "-5"], "--train-images -5: give a whole number from 1"),
        (["--seed", "99999999999"], "--seed"),
        (["--bogus"], "--bogus"),
        (["--data", "mnist"], "mnist"),
        (["--data-dir", FIRST.name], "is a file"),
        (["--out", FIRST.name], "cannot write there"),
        pytest.param(
            ["--device", "cuda"], "finds none", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_flag_gets_one_sentence(tmp_path, flags, said):
    script = tmp_path / FIRST.name
    script.write_bytes(FIRST.read_bytes())
    done = run(script, *flags)
    assert done.returncode == 2 and said in one_line(done)


def arguments(folder, **changes):
    """The arguments that load_data reads."""
    defaults = {"data": "cifar10", "data_dir": folder, "train_images": 50, "test_images": 40, "epochs": 1}
    return SimpleNamespace(**{**defaults, "device": torch.device("cpu"), **changes})


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails at once, as it does without a network."""

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_cifar10_is_unpacked_whole_and_read(given, tmp_path, monkeypatch, no_network):
    make_archive(tmp_path, monkeypatch)
    data = given.load_data(arguments(tmp_path))
    assert data.name == "CIFAR-10" and data.train_images.shape == (50, 3, 32, 32)
    assert data.test_images.shape == (40, 3, 32, 32) and data.train_images.dtype == torch.uint8
    halves = CIFAR10(tmp_path, train=True)
    assert (data.train_images[7].permute(1, 2, 0).numpy() == halves.data[7]).all()
    assert data.train_labels[:50].tolist() == halves.targets[:50]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_auto_takes_cifar10_if_it_is_there_and_never_downloads(given, tmp_path, monkeypatch, no_network):
    assert given.load_data(arguments(tmp_path, data="auto")).name == "shapes"
    assert list(tmp_path.iterdir()) == []
    make_archive(tmp_path, monkeypatch)
    assert given.load_data(arguments(tmp_path, data="auto")).name == "CIFAR-10"


def test_no_network_gets_one_sentence(given, tmp_path, no_network):
    with pytest.raises(SystemExit, match="CIFAR-10 cannot be fetched .*no network.* use --data shapes"):
        given.load_data(arguments(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == [], "something half-written is left"


def test_a_truncated_archive_gets_one_sentence_and_stays(given, tmp_path, monkeypatch, no_network):
    archive = make_archive(tmp_path, monkeypatch) / CIFAR10.filename
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit, match="cifar-10-python.tar.gz is damaged.*use --data shapes"):
        given.load_data(arguments(tmp_path))
    assert archive.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize(
    "content", [b"", b"garbage", pickle.dumps({"labels": [1]})], ids=["empty", "garbage", "partial"]
)
@pytest.mark.parametrize("data", ["auto", "cifar10"])
def test_a_damaged_folder_gets_one_sentence(given, tmp_path, monkeypatch, no_network, content, data):
    make_archive(tmp_path, monkeypatch)
    given.load_data(arguments(tmp_path))
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(SystemExit, match="is damaged: delete it .* use --data shapes"):
        given.load_data(arguments(tmp_path, data=data))


def interrupt(script, flags, sign):
    """Run a script, press Ctrl-C when its progress bar shows the sign; returns (exit status, what stderr got)."""
    command = [sys.executable, script.name, "--data", "shapes", *flags]
    process = subprocess.Popen(
        command,
        cwd=script.parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # A shell starts its background jobs with SIGINT ignored, and the script would inherit that from these tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.set_blocking(process.stderr.fileno(), False)
    seen, deadline = b"", time.monotonic() + 60
    while sign not in seen and time.monotonic() < deadline:
        seen += process.stderr.read() or b""
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    os.set_blocking(process.stderr.fileno(), True)
    seen += process.communicate(timeout=30)[1]
    return process.returncode, seen.decode()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.timeout(120)
def test_ctrl_c_leaves_no_half_written_file_and_no_traceback(alone):
    status, said = interrupt(alone, [], b"batch/s")
    assert status == 1 and "Traceback" not in said and "Stopped" in said
    assert list((alone.parent / "results").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.timeout(120)
def test_an_interrupted_ablation_goes_on_with_the_next_network(tmp_path):
    script = tmp_path / "exercise_02_ablation_skip.py"
    script.write_bytes((ROOT / "solutions" / script.name).read_bytes())
    flags = ["--epochs", "2", "--train-images", "1024", "--depths", "8", "14"]
    assert interrupt(script, flags, b"residual-8-seed0:  ")[0] == 1
    assert "dry_run" in run(script, "--data", "shapes", "--dry-run").stdout, "it leaves alone what has been finished"
    done = run(script, "--data", "shapes", *flags)
    assert done.returncode == 0, done.stderr
    assert "plain-8-seed0: finished before the run was interrupted" in done.stdout
    assert "residual-14-seed0: finished before" not in done.stdout
    results = tmp_path / "results"
    assert sorted(p.name for p in results.iterdir()) == ["dry_run", "exercise_02.json", "exercise_02.png"]
    record = (results / "exercise_02.json").read_bytes()
    run(script, "--data", "shapes", "--dry-run")
    assert (results / "exercise_02.json").read_bytes() == record
    histories = json.loads((results / "exercise_02.json").read_text())["histories"]
    assert "plain-8-seed0" not in done.stderr and len(histories) == 2 * 2 * 2, "kinds x depths x seeds"
    run(script, "--data", "shapes", *flags)
    again = json.loads((results / "exercise_02.json").read_text())["histories"]
    for name in histories:
        assert [h["loss"] for h in again[name]] == [h["loss"] for h in histories[name]], name


def test_results_are_written_whole_or_not_at_all(given, tmp_path, monkeypatch):
    class Broken:
        def savefig(self, path):
            path.write_bytes(b"half a figure")
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["exercise_01_build_resnet18.py"])
    args = SimpleNamespace(out=tmp_path, start=time.perf_counter())
    with pytest.raises(KeyboardInterrupt):
        given.save_results(args, Broken(), {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_importing_a_script_does_nothing(tmp_path):
    command = "import sys; sys.path.insert(0, sys.argv[1]); import " + FIRST.stem
    done = subprocess.run(
        [sys.executable, "-c", command, str(FIRST.parent)], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_augment_shifts_and_mirrors_each_picture_by_itself(given):
    images = torch.randint(1, 255, (3, 3, 32, 32), dtype=torch.uint8)
    shift, flip = torch.tensor([[4, 4], [0, 8], [4, 4]]), torch.tensor([False, False, True])
    got = given.augment(images, shift, flip)
    assert torch.equal(got[0], images[0])
    assert torch.equal(got[1, :, 4:, :28], images[1, :, :28, 4:]) and not got[1, :, :4].any()
    assert torch.equal(got[2], images[2].flip(2))


def test_shapes_are_the_same_every_time_and_all_classes_occur(given):
    images, labels = given.draw_shapes(500, seed=3)
    again, _ = given.draw_shapes(500, seed=3)
    other, _ = given.draw_shapes(500, seed=4)
    assert images.shape == (500, 3, 32, 32) and images.dtype == torch.uint8
    assert torch.equal(images, again) and not torch.equal(images, other)
    assert labels.bincount(minlength=10).min() >= 25
    outline, outline_labels = given.draw_shapes(500, seed=3, style="outline")
    assert torch.equal(labels, outline_labels) and not torch.equal(images, outline)


def test_training_repeats_itself_with_one_seed(given):
    data = given.load_data(arguments(None, data="shapes", train_images=96))
    histories = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
        history = given.train(model, data, epochs=2, seed=seed, batch_size=32)
        assert [set(h) for h in history] == 2 * [{"epoch", "loss", "accuracy", "seconds"}]
        histories.append([(h["loss"], h["accuracy"]) for h in history])
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize("epochs", range(1, 12))
def test_a_training_of_any_number_of_steps_ends(given, epochs):
    data = given.load_data(arguments(None, data="shapes", train_images=16))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    assert len(given.train(model, data, epochs=epochs, seed=0, batch_size=32)) == epochs


@pytest.mark.parametrize("milestones", [None, (2, 3)])
def test_the_learning_rate_and_the_weight_decay_are_as_said(given, monkeypatch, milestones):
    rates, groups = [], []

    class Noting(torch.optim.SGD):
        def step(self, *args):
            rates.append(self.param_groups[0]["lr"])
            groups[:] = self.param_groups
            return super().step(*args)

    monkeypatch.setattr(torch.optim, "SGD", Noting)
    data = given.load_data(arguments(None, data="shapes", train_images=64))
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    given.train(model, data, epochs=5, seed=0, batch_size=32, weight_decay=0.01, milestones=milestones)
    peak = 0.1 * 32 / 128
    if milestones:
        assert rates == pytest.approx([peak, peak, peak / 10] + 7 * [peak / 100])
    else:
        assert len(rates) == 10 and max(rates) == pytest.approx(peak) and rates.index(max(rates)) == 1
        assert rates[1:] == sorted(rates[1:], reverse=True) and rates[-1] < peak / 100
    decays = {p.shape: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {(10, 3072): 0.01, (10,): 0, (3,): 0}


@pytest.mark.parametrize("script, preset", [(FIRST, "fast"), (SOLUTIONS[1], "paper")], ids=["fast", "paper"])
@pytest.mark.timeout(120)
def test_a_preset_changes_the_budget_and_flags_change_the_preset(tmp_path, script, preset):
    (copy := tmp_path / script.name).write_bytes(script.read_bytes())
    done = run(copy, "--dry-run", "--preset", preset)
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("preset", copy)
    lesson = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lesson)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(sys, "argv", [copy.name, "--preset", preset, "--epochs", "3"])
        args = vars(lesson.parse_args())
    wanted = lesson.BUDGET["cpu"] | lesson.BUDGET[preset] | {"epochs": 3}
    assert {name: args[name] for name in wanted} == wanted or torch.cuda.is_available()


@pytest.mark.parametrize("smoothing", [0, 0.1, 0.5])
def test_smoothing_spreads_a_share_of_each_label(given, smoothing):
    data = given.load_data(arguments(None, data="shapes", train_images=32))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    torch.nn.init.zeros_(model[1].weight)  # so every picture has the same logits
    costs = -model[1].bias.detach().log_softmax(0)
    expected = (1 - smoothing) * costs[data.train_labels].mean() + smoothing * costs.mean()
    (epoch,) = given.train(model, data, epochs=1, seed=0, batch_size=32, smoothing=smoothing)
    assert epoch["loss"] == pytest.approx(expected.item(), rel=0.01)  # in bfloat16 on some machines


def test_a_mirrored_model_adds_the_logits_of_picture_and_mirror_image(given):
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10)), torch.randn(4, 3, 32, 32)
    logits = given.Mirrored(model)(x)
    torch.testing.assert_close(logits, model(x) + model(torch.stack([x[..., 31 - i] for i in range(32)], dim=3)))


def test_the_figure_is_drawn_for_every_outcome(given):
    data = given.load_data(arguments(None, data="shapes", train_images=20, test_images=20))
    history = [{"epoch": i, "loss": 2.0, "accuracy": 0.1, "test_accuracy": 0.2} for i in range(1, 31)]
    for said in (data.test_labels, (data.test_labels + 1) % 10):  # all right, all wrong
        given.draw_figure(history, said, data).savefig(io.BytesIO())


def test_the_ablations_figure_is_drawn_for_many_depths_and_lost_runs():
    spec = importlib.util.spec_from_file_location("ablation", ROOT / "solutions" / "exercise_02_ablation_skip.py")
    ablation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ablation)
    depths, nan = list(range(8, 62, 6)), float("nan")
    for losses in ([2.0, 1.0], [nan, nan], [1.0, nan]):
        epochs = [{"loss": loss, "test_error": 0.5} for loss in losses]
        histories = {(kind, depth, 0): epochs for kind in ("plain", "residual") for depth in depths}
        args = SimpleNamespace(depths=depths, epochs=2, seeds=1, size=16)
        names = ("plain-8", "residual-8", "residual-56")
        gaps, lesions = ablation.degradation(histories), dict.fromkeys(names, [0.5, 0.1, 0.2])
        figure = ablation.draw_figure(args, histories, gaps, lesions, SimpleNamespace(name="shapes"))
        figure.savefig(io.BytesIO())
        ablation.describe(args, gaps, lesions)


def sweep(folder, processes):
    """Run exercise 4's dry run under torchrun; returns its numbers."""
    script = ROOT / "solutions" / "exercise_04_depth_scaling.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    flags = ["--data", "shapes", "--dry-run", "--threads", "1", "--out", str(folder)]
    done = subprocess.run(
        [*command, str(script), *flags], capture_output=True, text=True, timeout=300, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "exercise_04.json").read_text()), done.stdout


@pytest.mark.timeout(600)
def test_torchrun_shares_the_sweep_and_changes_no_number(tmp_path):
    (alone, _), (shared, said) = sweep(tmp_path / "one", 1), sweep(tmp_path / "two", 2)
    assert (alone["processes"], shared["processes"]) == (1, 2)
    assert list(alone["trainings"]) == list(shared["trainings"]) and len(alone["trainings"]) == 4
    for name, row in alone["trainings"].items():
        for key in ("accuracy", "parameters", "macs"):
            assert shared["trainings"][name][key] == row[key], (name, key)
        assert shared["trainings"][name]["history"][0]["loss"] == row["history"][0]["loss"], name
    assert said.count("Wrote") == 2, "process 0 alone speaks"
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["exercise_04.json", "exercise_04.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.timeout(300)
def test_an_interrupted_sweep_goes_on_with_the_next_network(tmp_path):
    script = tmp_path / "exercise_04_depth_scaling.py"
    script.write_bytes((ROOT / "solutions" / script.name).read_bytes())
    flags = ["--epochs", "1", "--train-images", "320"]
    assert interrupt(script, flags, b"ResNet-34, seed 0:  ")[0] == 1
    done = run(script, "--data", "shapes", *flags)
    assert done.returncode == 0, done.stderr
    assert "ResNet-18, seed 0: finished before the run was interrupted" in done.stdout
    assert "ResNet-18" not in done.stderr and "ResNet-101, seed 0: finished" not in done.stdout
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["exercise_04.json", "exercise_04.png"]


@pytest.mark.parametrize(
    "flags, said", [(["--width", "8"], "from 16"), (["--threads", "0"], "from 1"), (["--seeds", "-1"], "from 1")]
)
def test_exercise_4_refuses_what_it_cannot_do(tmp_path, flags, said):
    script = tmp_path / "exercise_04_depth_scaling.py"
    script.write_bytes((ROOT / "solutions" / script.name).read_bytes())
    done = run(script, "--data", "shapes", *flags)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.timeout(60)
def test_accuracy_may_use_numpy_where_the_network_computes_in_bfloat16(tmp_path):
    text = FIRST.read_text("utf-8")
    start = text.index("torch.bfloat16, enabled=(")
    end = text.index("\n\n", start)
    text = text[:start] + "torch.bfloat16)" + text[end:]
    right = "(model(images).argmax(dim=1) == labels).sum().item()"
    text = text.replace(right, "(model(images).numpy().argmax(axis=1) == labels.numpy()).sum()")
    (script := tmp_path / FIRST.name).write_text(text, "utf-8")
    done = run(script, "--dry-run", "--device", "cpu")
    assert done.returncode == 0 and right not in text, done.stderr
