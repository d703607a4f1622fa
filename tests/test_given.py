"""tools/given.py, the code that the exercises share, as a module by itself."""

import argparse
import errno
import io
import json
import os
import pickle
import shutil
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import pytest
import torch
from cifar10 import make_archive
from torch import nn
from torchvision.datasets import CIFAR10

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import given  # noqa: E402

CPU = torch.device("cpu")


def arguments(folder=None, **changes):
    """The arguments that load_data reads."""
    defaults = {
        "data": "shapes",
        "data_dir": folder,
        "train_images": 50,
        "test_images": 40,
        "epochs": 1,
        "device": CPU,
    }
    return SimpleNamespace(**{**defaults, **changes})


def load_shapes(count):
    """A small training set of shapes."""
    return given.load_data(arguments(train_images=count))


def linear_model():
    """The simplest model that takes an image."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def train(model, data, epochs=1, seed=0, batch_size=32, rate=0.025, decay=0.0, **more):
    """given.train with the optimizer and the schedule that most exercises use."""
    optimizer = given.make_sgd(model, rate, decay)
    schedule = given.one_cycle(optimizer, epochs * given.count_steps(data, batch_size))
    return given.train(
        model,
        data,
        optimizer,
        schedule,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        label="test",
        **more,
    )


# CIFAR-10


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails at once, as it does without a network."""

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_cifar10_is_unpacked_and_read(tmp_path, monkeypatch, no_network):
    make_archive(tmp_path, monkeypatch)
    data = given.load_data(arguments(tmp_path, data="cifar10"))
    assert data.name == "CIFAR-10"
    assert data.train_images.shape == (50, 3, 32, 32)
    assert data.test_images.shape == (40, 3, 32, 32)
    assert data.train_images.dtype == torch.uint8
    original = CIFAR10(tmp_path, train=True)
    assert (data.train_images[7].permute(1, 2, 0).numpy() == original.data[7]).all()
    assert data.train_labels.tolist() == original.targets[:50]


def test_auto_takes_cifar10_if_it_is_there_and_never_downloads(tmp_path, monkeypatch, no_network):
    assert given.load_data(arguments(tmp_path, data="auto")).name == "shapes"
    assert list(tmp_path.iterdir()) == []
    make_archive(tmp_path, monkeypatch)
    given.load_data(arguments(tmp_path, data="cifar10"))
    assert given.load_data(arguments(tmp_path, data="auto")).name == "CIFAR-10"


def test_no_network_gets_one_sentence(tmp_path, no_network):
    with pytest.raises(SystemExit, match="cannot be downloaded .*no network.* use --data shapes"):
        given.load_data(arguments(tmp_path / "new", data="cifar10"))


@pytest.mark.parametrize(
    "number, named",
    [
        (errno.ENOSPC, []),
        (errno.EACCES, ["a file"]),
        (errno.EROFS, ["a file"]),
        (errno.ENOENT, ["Z:\\data"]),
        (errno.EINVAL, ["a file"]),
    ],
)
def test_a_disk_that_takes_nothing_is_not_called_a_network(tmp_path, monkeypatch, number, named):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number), *named)

    monkeypatch.setattr(CIFAR10, "download", refuse)
    expected = f"cannot be kept in .*{os.strerror(number)}.*name another --data-dir"
    with pytest.raises(SystemExit, match=expected):
        given.load_data(arguments(tmp_path, data="cifar10"))


@pytest.mark.parametrize(
    "error, advice",
    [
        (ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]"), "try again"),
        (
            URLError(ssl.SSLError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")),
            "see that the clock",
        ),
        (HTTPError(CIFAR10.url, 503, "busy", {}, None), "try again"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "try again"),
    ],
)
def test_a_network_that_fails_is_not_called_a_disk(tmp_path, monkeypatch, error, advice):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(SystemExit, match=f"cannot be downloaded .*: {advice}.*, or put https"):
        given.load_data(arguments(tmp_path, data="cifar10"))


def test_a_file_that_a_scanner_holds_for_a_moment_costs_no_download(tmp_path, monkeypatch):
    make_archive(tmp_path, monkeypatch)
    held = []
    replace = os.replace

    def hold_once(source, target):
        if not held:
            held.append(target)
            raise PermissionError(errno.EACCES, "Permission denied", source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", hold_once)
    assert given.load_data(arguments(tmp_path, data="cifar10")).name == "CIFAR-10"
    assert held


def test_an_archive_that_was_not_asked_for_is_named(tmp_path, capsys, no_network):
    (tmp_path / CIFAR10.filename).write_bytes(b"")
    given.load_data(arguments(tmp_path, data="auto"))
    assert f"--data cifar10 unpacks the {CIFAR10.filename}" in capsys.readouterr().out


def test_a_folder_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, no_network):
    make_archive(tmp_path, monkeypatch)
    given.load_data(arguments(tmp_path, data="cifar10"))

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(CIFAR10, "_check_integrity", refuse)
    with pytest.raises(SystemExit, match="cannot be read .Permission denied.: name another"):
        given.load_data(arguments(tmp_path, data="auto"))


def test_the_folder_of_the_batches_will_do(tmp_path, monkeypatch, no_network):
    make_archive(tmp_path, monkeypatch)
    given.load_data(arguments(tmp_path, data="cifar10"))
    for data in ("auto", "cifar10"):
        folder = tmp_path / CIFAR10.base_folder
        assert given.load_data(arguments(folder, data=data)).name == "CIFAR-10"
        monkeypatch.chdir(folder)
        assert given.load_data(arguments(Path("."), data=data)).name == "CIFAR-10"


def test_auto_says_where_it_has_looked_for_cifar10(tmp_path, capsys):
    given.load_data(arguments(tmp_path, data="auto"))
    assert f"No cifar-10-batches-py in {tmp_path}" in capsys.readouterr().out


class SlowResponse:
    """An archive that comes through the net in pieces, each with a pause before it."""

    url = CIFAR10.url

    def __init__(self, content):
        self.rest = content
        self.length = len(content)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(self, size=-1):
        size = self.length // 5 + 1
        time.sleep(0.1)
        piece = self.rest[:size]
        self.rest = self.rest[size:]
        return piece


def test_two_runs_may_fetch_cifar10_into_one_folder(tmp_path, monkeypatch):
    archive = make_archive(tmp_path, monkeypatch) / CIFAR10.filename
    content = archive.read_bytes()
    archive.unlink()
    second_may_start = threading.Event()

    def urlopen(request, *args, **kwargs):
        second_may_start.set()
        return SlowResponse(content)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(given.load_data, arguments(tmp_path, data="cifar10"))
        second_may_start.wait(timeout=10)
        time.sleep(0.3)  # the first is in the middle of its download
        second = pool.submit(given.load_data, arguments(tmp_path, data="cifar10"))
        errors = [first.exception(), second.exception()]  # a SystemExit would end the test, too
    assert errors == [None, None]
    assert [path.name for path in tmp_path.iterdir()] == [CIFAR10.base_folder]


def test_a_truncated_archive_gets_one_sentence_and_stays(tmp_path, monkeypatch, no_network):
    archive = make_archive(tmp_path, monkeypatch) / CIFAR10.filename
    truncated = archive.read_bytes()[:5000]
    archive.write_bytes(truncated)
    with pytest.raises(SystemExit, match="cannot be downloaded .*use --data shapes"):
        given.load_data(arguments(tmp_path, data="cifar10"))
    assert archive.read_bytes() == truncated


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", pickle.dumps({"labels": [1]})],
    ids=["empty", "garbage", "partial"],
)
def test_a_damaged_folder_gets_true_advice(tmp_path, monkeypatch, no_network, content):
    make_archive(tmp_path, monkeypatch)
    given.load_data(arguments(tmp_path, data="cifar10"))
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    advice = "incomplete or damaged: run this with --data cifar10, .* use --data shapes"
    with pytest.raises(SystemExit, match=advice):
        given.load_data(arguments(tmp_path, data="auto"))
    given.load_data(arguments(tmp_path, data="cifar10"))
    assert given.load_data(arguments(tmp_path, data="auto")).name == "CIFAR-10"


# Images


def test_augment_shifts_and_mirrors_each_image_by_itself():
    images = torch.randint(1, 255, (3, 3, 32, 32), dtype=torch.uint8)
    shift = torch.tensor([[4, 4], [0, 8], [4, 4]])
    flip = torch.tensor([False, False, True])
    augmented = given.augment(images, shift, flip)
    assert torch.equal(augmented[0], images[0])
    assert torch.equal(augmented[1, :, 4:, :28], images[1, :, :28, 4:])
    assert not augmented[1, :, :4].any()
    assert torch.equal(augmented[2], images[2].flip(2))


def test_shapes_are_the_same_every_time_and_all_classes_occur():
    images, labels = given.draw_shapes(500, seed=3)
    again, _ = given.draw_shapes(500, seed=3)
    other, _ = given.draw_shapes(500, seed=4)
    assert images.shape == (500, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert labels.bincount(minlength=10).min() >= 25
    outlines, outline_labels = given.draw_shapes(500, seed=3, style="outline")
    assert torch.equal(labels, outline_labels)
    assert not torch.equal(images, outlines)


def test_every_shape_has_an_inside_and_an_outside():
    v, u = torch.meshgrid(torch.linspace(-1.2, 1.2, 49), torch.linspace(-1.2, 1.2, 49))
    depths = given.shape_depths(u, v)
    assert tuple(depths) == given.SHAPES
    for name, depth in depths.items():
        share = (depth > 0).float().mean()
        assert 0.05 < share < 0.7, name


def test_shrink_takes_means_of_pixels():
    data = load_shapes(20)
    first = data.train_images[3, 1, 6:8, 10:12].float()
    assert given.shrink(data, 16) is data
    assert data.train_images.shape == (20, 3, 16, 16)
    assert data.test_images.shape == (40, 3, 16, 16)
    assert abs(data.train_images[3, 1, 3, 5] - first.mean()) <= 0.5


def test_normalised_images_have_mean_0_and_deviation_1():
    data = load_shapes(200)
    images = given.normalise(data.train_images, data)
    deviation, mean = torch.std_mean(images, dim=(0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-4, rtol=0)


def test_an_epoch_has_every_image_once():
    data = load_shapes(70)
    data.train_labels = torch.arange(70)
    batches = list(given.random_batches(data, 32, torch.Generator().manual_seed(0)))
    assert len(batches) == given.count_steps(data, 32) == 3
    labels = torch.cat([labels for _, labels in batches])
    assert labels.tolist() != list(range(70))
    assert sorted(labels.tolist()) == list(range(70))


# Training


def test_training_repeats_itself_with_one_seed():
    data = load_shapes(96)
    histories = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        history = train(linear_model(), data, epochs=2, seed=seed)
        assert [set(row) for row in history] == 2 * [{"epoch", "loss", "accuracy", "seconds"}]
        histories.append([(row["loss"], row["accuracy"]) for row in history])
    assert histories[0] == histories[1] != histories[2]


def test_what_is_added_after_an_epoch_is_in_the_history():
    history = train(linear_model(), load_shapes(32), after_epoch=lambda model: {"extra": 7})
    assert history[0]["extra"] == 7


def test_a_training_that_diverges_says_so(capsys):
    data = load_shapes(16)
    data.mean = torch.full((1, 3, 1, 1), float("nan"))
    train(linear_model(), data)
    assert "the loss is NaN or infinite: training has diverged" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", range(1, 12))
def test_a_training_of_any_number_of_steps_ends(epochs):
    history = train(linear_model(), load_shapes(16), epochs=epochs)
    assert len(history) == epochs


def test_the_learning_rate_rises_for_a_fifth_of_the_steps_and_falls():
    optimizer = torch.optim.SGD(linear_model().parameters(), lr=0.3)
    schedule = given.one_cycle(optimizer, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.3)
    assert rates.index(max(rates)) == 1
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.003


def test_only_weights_of_layers_decay():
    model = nn.Sequential(nn.BatchNorm2d(3), *linear_model())
    optimizer = given.make_sgd(model, rate=0.1, weight_decay=0.01)
    decays = {}
    for group in optimizer.param_groups:
        assert group["momentum"] == 0.9
        for parameter in group["params"]:
            decays[parameter.shape] = group["weight_decay"]
    assert decays == {(10, 3072): 0.01, (10,): 0, (3,): 0}


@pytest.mark.parametrize("smoothing", [0, 0.1, 0.5])
def test_smoothing_spreads_a_share_of_each_label(smoothing):
    data = load_shapes(32)
    model = linear_model()
    nn.init.zeros_(model[1].weight)  # so every image has the same logits
    costs = -model[1].bias.detach().log_softmax(0)
    expected = (1 - smoothing) * costs[data.train_labels].mean() + smoothing * costs.mean()
    (row,) = train(model, data, smoothing=smoothing)
    assert row["loss"] == pytest.approx(expected.item(), rel=0.01)  # in bfloat16 on some machines


def test_accuracy_counts_every_image_once():
    images = torch.eye(4)
    labels = torch.tensor([0, 1, 2, 0])
    batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    assert given.accuracy(nn.Identity(), batches) == 0.75


# Statistics


def test_the_standard_error_is_that_of_the_mean():
    assert given.standard_error([1.0, 2.0, 6.0], resolution=0.1) == pytest.approx((7 / 3) ** 0.5)
    error = given.standard_error([2.0], resolution=0.1)
    assert not given.is_clear(2.0, error)


def test_equal_differences_are_known_to_within_one_test_image():
    resolution = 10  # percentage points: ten test images
    assert not given.is_clear(20, given.standard_error([20, 20], resolution))
    assert given.is_clear(50, given.standard_error([50, 50, 50], resolution))


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_luck_makes_as_many_differences_clear_as_is_said(seeds):
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(200_000, seeds, generator=generator)
    means = differences.mean(dim=1).tolist()
    errors = (differences.std(dim=1) / seeds**0.5).tolist()
    share = sum(map(given.is_clear, means, errors)) / len(means)
    *_, comparisons, _ = given.chance_of_luck(seeds).split()
    assert share * int(comparisons) == pytest.approx(1, rel=0.06)


# Results


def test_a_share_is_shown_in_percent():
    assert given.percent(0.954, digits=1) == "95.4 %"
    assert given.percent(0.995) == "100 %"


def test_what_is_written_is_written_whole_or_not_at_all(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        given.written_whole(tmp_path / "figure.png") as path,
    ):
        path.write_bytes(b"half a figure")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no disk that is always full")
def test_an_unfinished_file_that_another_program_holds_does_no_harm(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EACCES, "in use", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with given.written_whole(tmp_path / "numbers.json") as path:
        path.write_text("{}")
    assert os.listdir(tmp_path) == ["numbers.json"]


def test_a_file_that_is_held_for_a_moment_is_replaced_all_the_same(tmp_path, monkeypatch):
    held = [True, True]
    real_replace = os.replace

    def replace(source, target):
        if held:
            held.pop()
            raise PermissionError(errno.EACCES, "held by another program")
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with given.written_whole(tmp_path / "numbers.json") as unfinished:
        unfinished.write_text("1")
    assert (tmp_path / "numbers.json").read_text() == "1"


def test_a_gpu_that_does_not_work_is_left_out(monkeypatch, capsys):
    real_ones = torch.ones

    def ones(*size, device):
        if device == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available\nand more")
        return real_ones(*size, device=device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "ones", ones)
    assert given.choose_device("auto", None) == torch.device("cpu")
    assert "cuda is there, but does not work: CUDA error: no kernel" in capsys.readouterr().out
    parser = argparse.ArgumentParser()
    with pytest.raises(SystemExit):
        given.choose_device("cuda", parser)
    assert "--device cuda cannot be used: leave the flag out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "expected"), [("150000 100000", 2), ("max 100000", 4), ("900000 100000", 4)]
)
def test_a_container_gets_as_many_threads_as_it_may_use_cores(tmp_path, limit, expected):
    before = torch.get_num_threads()
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    try:
        torch.set_num_threads(4)
        given.limit_threads(tmp_path / "nothing")
        given.limit_threads(tmp_path / "cpu.max")
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_line_that_was_left_below_the_code_is_named(tmp_path, monkeypatch):
    script = tmp_path / "exercise_01_build_resnet18.py"
    monkeypatch.setattr(given, "__file__", str(script))
    monkeypatch.setattr(sys, "argv", [str(script)])
    stub = '    raise NotImplementedError("TODO 1.3: make_shortcut")\n'
    for above, below, expected in (
        ("    # TODO 1.3: this\n", "\n\nx = 1\n", "TODO 1.3: make_shortcut is not written yet"),
        ('    """A docstring."""\n', "", "TODO 1.3: make_shortcut is not written yet"),
        ("    return 1\n\n", "", "TODO 1.3: make_shortcut: delete line 4 of exercise_01"),
        ("    # TODO 1.3: this\n", "    return 1\n", "1.3: make_shortcut: delete line 3 of"),
    ):
        script.write_text(f"def make_shortcut():\n{above}{stub}{below}")
        with pytest.raises(SystemExit, match=expected):
            given.stop_if_unwritten("exercise_01_build_resnet18")


def test_cells_do_not_read_the_file_that_they_come_from(tmp_path, monkeypatch):
    """Editors give cells a __file__, whose text may be older than the cells."""
    script = tmp_path / "exercise_01_build_resnet18.py"
    script.write_text('raise NotImplementedError("TODO 1.3: make_shortcut")\n')
    monkeypatch.setattr(given, "__file__", str(script))
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ipykernel_launcher.py"])
    given.stop_if_unwritten("exercise_01_build_resnet18")
    assert given.own_file() is None


def test_a_full_disk_is_called_so_when_tensors_are_written():
    with pytest.raises(OSError) as stopped:
        given.save_tensors({"weights": torch.zeros(100)}, Path("/dev/full"))
    assert stopped.value.errno == errno.ENOSPC


def test_numbers_are_saved_with_settings_and_without_nan(tmp_path):
    args = SimpleNamespace(out=tmp_path, start=time.perf_counter(), exercise="exercise_09", seed=4)
    given.save_numbers(args, {"loss": [1.5, float("nan")]})
    record = json.loads((tmp_path / "exercise_09.json").read_text("utf-8"))
    assert record["loss"] == [1.5, "NaN"]
    assert record["settings"]["seed"] == 4
    assert record["versions"]["torch"] == torch.__version__


def test_a_figure_needs_no_backend_and_no_style(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.autolayout: True\n")
    code = (
        "import given, pathlib, types\n"
        "figure = given.new_figure(2, 2)\n"
        "figure.subplots().plot([1, 2])\n"
        "args = types.SimpleNamespace(out=pathlib.Path('.'), exercise='x', dry_run=False)\n"
        "given.save_figure(args, figure)\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tools"),
        "MPLBACKEND": "module://nowhere.backend_inline",  # what a notebook leaves to its children
    }
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_dry_run_prints_no_findings_and_its_figure_is_marked(dry_run, tmp_path, capsys):
    args = SimpleNamespace(out=tmp_path, exercise="exercise_09", dry_run=dry_run)
    with given.printed_unless_dry_run(args):
        print("Depth pays.")
    figure = given.new_figure(2, 2)
    given.save_figure(args, figure)
    assert ("Depth pays." in capsys.readouterr().out) is not dry_run
    texts = [text.get_text() for text in figure.texts]
    assert ("dry run" in texts) is dry_run


def test_what_was_finished_is_not_computed_again(tmp_path):
    args = SimpleNamespace(out=tmp_path, exercise="exercise_09", start=0.0, device=CPU, epochs=3)
    calls = []

    def compute():
        calls.append(args.epochs)
        return {"loss": 0.5, "weights": {"w": torch.ones(2)}}

    for _ in range(2):
        result = given.finished_before(args, "plain-8", compute)
        assert result["loss"] == 0.5
        assert torch.equal(result["weights"]["w"], torch.ones(2))
    assert calls == [3]
    args.epochs = 4
    given.finished_before(args, "plain-8", compute)
    assert calls == [3, 4], "with other settings it is computed again"
    args.epochs = 3
    given.finished_before(args, "plain-8", compute)
    assert calls == [3, 4], "a run with other settings leaves it where it is"
    (kept,) = tmp_path.glob(f"*/{given.kept_path(args, 'plain-8').name}")
    kept.write_bytes(kept.read_bytes()[:100])
    given.finished_before(args, "plain-8", compute)
    assert calls == [3, 4, 3], "a damaged file counts as none"
    given.forget_finished(args, ["plain-8"])
    args.epochs = 4
    given.finished_before(args, "plain-8", compute)
    assert calls == [3, 4, 3], "what others have kept stays"
    given.forget_finished(args, ["plain-8"])
    assert list(tmp_path.iterdir()) == []


def test_another_run_may_end_while_a_result_is_kept(tmp_path, monkeypatch):
    args = SimpleNamespace(out=tmp_path, exercise="exercise_09", start=0.0, device=CPU)
    replace = os.replace

    def replace_late(source, target):
        given.forget_finished(args, ["plain-8"])  # as the other run does at its end
        replace(source, target)

    monkeypatch.setattr("os.replace", replace_late)
    assert given.finished_before(args, "plain-8", lambda: {"loss": 0.5}) == {"loss": 0.5}


# The command line


def test_a_number_out_of_range_gets_a_sentence():
    parse = given.whole_number(1, 9)
    assert parse("3") == 3
    for text in ("0", "10", "2.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not a whole number"):
            parse(text)


@pytest.mark.parametrize(
    "arguments, own",
    [
        (["exercise_01_build_resnet18.py", "--seed", "3"], ["--seed", "3"]),
        (["anna.py", "--dry-run"], ["--dry-run"]),
        (["/site-packages/ipykernel_launcher.py", "-f", "kernel.json"], []),
        (["/site-packages/ipykernel_launcher.py", "--f=kernel.json", "--stdin=9"], []),
        (["/dist-packages/colab_kernel_launcher.py", "-f", "kernel.json"], []),
        (["/site-packages/spyder_kernels/console/__main__.py", "-f", "k.json"], []),
        (["/pycharm/pydevconsole.py", "--mode=client", "--port=60057"], []),
    ],
)
def test_only_a_kernels_own_arguments_are_dropped(monkeypatch, arguments, own):
    monkeypatch.setattr(sys, "argv", arguments)
    assert given.own_arguments() == own


def test_a_preset_changes_the_budget_and_flags_change_the_preset(tmp_path, monkeypatch):
    budgets = {
        "cpu": {"epochs": 5, "train_images": 100, "test_images": 10, "batch_size": 32},
        "gpu": {"epochs": 9, "train_images": 900, "test_images": 90, "batch_size": 32},
        "fast": {"epochs": 2, "batch_size": 64},
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["x.py", "--device", "cpu", "--preset", "fast", "--train-images", "7"]
    )
    args = given.parse_args("exercise_09_x", budgets, lambda add: add("--preset", choices=["fast"]))
    assert (args.epochs, args.train_images, args.test_images, args.batch_size) == (2, 7, 10, 64)
    assert args.out == Path("results")
    assert args.exercise == "exercise_09"


@pytest.mark.parametrize("device, epochs", [("cpu", 5), ("mps", 5), ("cuda", 9)])
def test_only_cuda_has_the_larger_budget(device, epochs):
    args = SimpleNamespace(device=torch.device(device), epochs=None, dry_run=False)
    given.apply_budget(args, {"cpu": {"epochs": 5}, "gpu": {"epochs": 9}})
    assert args.epochs == epochs


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["x.py", "--device=cpu", "--out=~/out", "--data-dir=~/data"])
    budgets = {"cpu": {"epochs": 5, "train_images": 100, "test_images": 10}}
    args = given.parse_args("exercise_09_x", budgets)
    assert args.out == tmp_path / "out"
    assert args.data_dir == tmp_path / "data"


@pytest.fixture
def run_main(tmp_path, monkeypatch):
    """A function that runs given.main with an experiment of a test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x.py", "--device", "cpu"])
    monkeypatch.delattr(given, "__file__")
    budgets = {"cpu": {"epochs": 5, "train_images": 100, "test_images": 10}}
    return lambda experiment: given.main(experiment, "exercise_09_x", budgets)


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "GPU's memory is full"),
        (RuntimeError("MPS backend out of memory (MPS allocated)"), "The memory is full: close"),
        (RuntimeError("CUDA error: no kernel image is available"), "does not support this GPU"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "The memory is full"),
        (MemoryError(), "The memory is full"),
        (RuntimeError("CUDA-capable device(s) is/are busy or unavailable"), "Another program uses"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), "GPU's memory is full"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "run with --device cpu"),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full"),
    ],
)
def test_expected_mishaps_get_one_sentence(run_main, error, expected):
    def experiment(args):
        raise error

    with pytest.raises(SystemExit, match=expected):
        run_main(experiment)


def test_other_errors_keep_their_traceback(run_main):
    def experiment(args):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        run_main(experiment)


def test_apple_gpus_get_the_order_in_which_their_gradients_are_right():
    assert given.memory_format(torch.device("mps")) == torch.contiguous_format
    assert given.memory_format(torch.device("cpu")) == torch.channels_last
    assert given.memory_format(torch.device("cuda")) == torch.channels_last


def test_a_result_that_cannot_be_replaced_is_named(run_main):
    def experiment(args):
        (args.out / "exercise_09.json").mkdir()
        given.save_numbers(args, {"loss": 1})

    with pytest.raises(SystemExit, match="exercise_09.json cannot be written .*: close or remove"):
        run_main(experiment)


def test_a_folder_that_is_removed_during_a_run_is_made_again(run_main, tmp_path):
    def experiment(args):
        shutil.rmtree(args.out)
        given.save_numbers(args, {"loss": 1})

    run_main(experiment)
    assert (tmp_path / "results" / "exercise_09.json").exists()


def test_a_closed_stderr_does_no_harm(run_main, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    run_main(lambda args: list(given.tqdm(range(3))))


def test_the_home_of_nobody_is_no_error():
    assert given.expanded_path("~nobody_of_that_name/out") == Path("~nobody_of_that_name/out")


def test_a_log_file_gets_each_line_at_once(run_main, monkeypatch):
    log = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", log)
    written = []

    def experiment(args):
        print("shapes: 100 training images")
        written.append(log.buffer.getvalue())

    run_main(experiment)
    assert b"100 training images" in written[0]


def test_a_terminal_without_a_letter_gets_another_one(run_main, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    run_main(lambda args: print("0.5 ± 0.1 of caf\udce9"))
    terminal.flush()
    assert terminal.buffer.getvalue().split() == b"0.5 ? 0.1 of caf?".split()


def test_a_dry_run_writes_to_a_folder_of_its_own(tmp_path, monkeypatch):
    budgets = {"cpu": {"epochs": 5, "train_images": 100, "test_images": 10}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x.py", "--device", "cpu", "--dry-run"])
    args = given.parse_args("exercise_09_x", budgets)
    assert args.out == Path("results", "dry_run")
    assert (args.epochs, args.train_images, args.test_images) == (1, 32, 20)
