"""The scripts as people run them: alone in an empty folder, with bad input, interrupted."""

import importlib.util
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
import warm
from course import ROOT, SOLUTIONS

FIRST = SOLUTIONS["1"]
ABLATION = SOLUTIONS["2"]
SWEEP = SOLUTIONS["4"]
NO_SIGINT = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")


def load(path):
    """A solution as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_to(folder, path):
    """A copy of a script in a folder."""
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    return copy


def use_few_test_images(script):
    """Lower the number of test images in a script's budgets, for which there is no flag."""
    text, count = re.subn(r'"test_images": [\d_]+', '"test_images": 50', script.read_text("utf-8"))
    assert count
    script.write_text(text, "utf-8")


@pytest.fixture(params=SOLUTIONS.values(), ids=lambda path: path.stem)
def alone(request, tmp_path):
    """A solution copied into an empty folder."""
    return copy_to(tmp_path, request.param)


def run(script, *flags):
    """Run a script from its folder: no traceback is ever right."""
    done = warm.run([script.name, *flags], script.parent)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def one_line(done):
    """The only line of an error."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]


def names(folder):
    """The names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.timeout(120)
def test_a_script_runs_alone_and_writes_its_results(alone):
    command = [sys.executable, alone.name, "--dry-run"]
    done = subprocess.run(command, cwd=alone.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stem = alone.stem[: len("exercise_01")]
    folder = alone.parent / "results" / "dry_run"
    record = json.loads((folder / f"{stem}.json").read_text())
    assert {"settings", "versions", "seconds"} < set(record)
    for path in folder.iterdir():
        assert path.name.startswith(stem)
        assert path.stat().st_size > 10_000 or path.suffix != ".png"
        assert f"Wrote {path.relative_to(alone.parent)}" in done.stdout
    assert (folder / f"{stem}.png").exists()
    assert names(alone.parent / "results") == ["dry_run"]
    assert "%" not in done.stdout, "a dry run has no findings"
    assert "shapes" in done.stdout


@pytest.mark.parametrize("exercise", SOLUTIONS)
def test_an_older_python_gets_one_sentence(exercise, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 6))
    with pytest.raises(SystemExit, match="Python 3.10 or newer is needed; this is"):
        runpy.run_path(str(SOLUTIONS[exercise]), run_name="__main__")


@pytest.mark.parametrize("exercise", SOLUTIONS)
@pytest.mark.parametrize("package", ["torch", "torchvision", "matplotlib", "tqdm"])
def test_a_python_without_a_package_gets_one_sentence(exercise, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=f"{package}.*Install what is missing, or activate"):
        runpy.run_path(str(SOLUTIONS[exercise]), run_name="__main__")


@pytest.mark.parametrize("package", ["torch", "torchvision", "matplotlib", "numpy", "tqdm"])
def test_a_file_with_the_name_of_a_package_gets_one_sentence(package, tmp_path):
    script = shutil.copy(FIRST, tmp_path)
    (tmp_path / f"{package}.py").write_text("my_notes = 1\n")
    done = subprocess.run([sys.executable, script, "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert package in done.stderr and "rename it" in done.stderr


@pytest.mark.parametrize("version", ["2.5.1+cu124", "1.13.0a0+git"])
def test_an_older_torch_gets_one_sentence(version, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(sys, "argv", [FIRST.name, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"PyTorch 2.6 or newer is needed; this is {version[:6]}"):
        runpy.run_path(str(FIRST), run_name="__main__")


def test_a_stub_alone_says_which_task_comes_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path in SOLUTIONS.values():
        stub = copy_to(tmp_path, ROOT / path.name)
        lines = stub.read_text().splitlines()
        number = next(i for i, line in enumerate(lines, 1) if "raise NotImplementedError" in line)
        monkeypatch.setattr(sys, "argv", [stub.name])
        with pytest.raises(SystemExit) as end:  # as Python does with a script, without a new one
            runpy.run_path(stub.name, run_name="__main__")
        assert capsys.readouterr() == ("", "")
        message = end.value.code
        assert message.startswith("TODO ")
        assert message.endswith(f"is not written yet ({stub.name}, line {number})")
        (tmp_path / "tests").mkdir()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(stub.name, run_name="__main__")
        assert end.value.code == f"{message}. Check it with: pytest tests/test_{stub.name}"
        (tmp_path / "tests").rmdir()


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--epochs", "0"], "--epochs: 0 is not a whole number from 1"),
        (["--epochs", "1.5"], "--epochs: 1.5 is not"),
        (["--train-images", "-5"], "--train-images: -5 is not a whole number from 1"),
        (["--seed", "99999999999"], "--seed"),
        (["--bogus"], "--bogus"),
        (["--data", "mnist"], "mnist"),
        (["--data-dir", FIRST.name], "is a file"),
        (["--out", FIRST.name], "cannot write there"),
        pytest.param(
            ["--device", "cuda"],
            "finds none",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA"),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_flag_gets_one_sentence(tmp_path, monkeypatch, capsys, flags, expected):
    copy_to(tmp_path, FIRST)
    check_refused(FIRST, flags, expected, tmp_path, monkeypatch, capsys)


def check_refused(path, flags, expected, folder, monkeypatch, capsys):
    """A solution's command line in a folder ends with status 2 and one sentence."""
    lesson = load(path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [path.name, *flags])
    with pytest.raises(SystemExit) as end:
        lesson.main(lesson.run, lesson.EXERCISE, lesson.BUDGETS, lesson.add_flags)
    assert end.value.code == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    (line,) = errors.splitlines()
    assert expected in line


def interrupt(script, flags, sign):
    """Run a script, press Ctrl-C when its progress bar shows the sign.

    Returns (exit status, what stderr got).
    """
    process = subprocess.Popen(
        [sys.executable, script.name, "--data", "shapes", *flags],
        cwd=script.parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # A shell starts its background jobs with SIGINT ignored, and the script would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.set_blocking(process.stderr.fileno(), False)
    printed = b""
    deadline = time.monotonic() + 60
    while sign not in printed and time.monotonic() < deadline:
        printed += process.stderr.read() or b""
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    os.set_blocking(process.stderr.fileno(), True)
    printed += process.communicate(timeout=30)[1]
    return process.returncode, printed.decode()


@NO_SIGINT
@pytest.mark.timeout(120)
def test_ctrl_c_leaves_no_half_written_file_and_no_traceback(alone):
    status, printed = interrupt(alone, [], b"%|")
    assert status == -signal.SIGINT, "a shell's loop would go on"
    assert "Traceback" not in printed
    assert printed.endswith("Stopped: nothing is half-written.\n")
    assert names(alone.parent / "results") == []


@NO_SIGINT
@pytest.mark.timeout(120)
def test_an_interrupted_ablation_goes_on_with_the_next_network(tmp_path):
    script = copy_to(tmp_path, ABLATION)
    use_few_test_images(script)
    flags = ["--epochs", "2", "--train-images", "512", "--depths", "8", "14"]
    status, printed = interrupt(script, flags, b"residual-8-seed0:  ")
    assert status == -signal.SIGINT
    assert printed.endswith("the same command goes on from there.\n")
    assert run(script, "--data", "shapes", "--dry-run").returncode == 0
    done = run(script, "--data", "shapes", *flags)
    assert done.returncode == 0, done.stderr
    assert "plain-8-seed0: finished before the run was interrupted" in done.stdout
    assert "residual-14-seed0: finished before" not in done.stdout
    assert "plain-8-seed0" not in done.stderr
    results = tmp_path / "results"
    assert names(results) == ["dry_run", "exercise_02.json", "exercise_02.png"]
    record = (results / "exercise_02.json").read_bytes()
    run(script, "--data", "shapes", "--dry-run")
    assert (results / "exercise_02.json").read_bytes() == record
    histories = json.loads(record)["histories"]
    run(script, "--data", "shapes", *flags)
    again = json.loads((results / "exercise_02.json").read_text())["histories"]
    assert set(again) == set(histories)
    for name in histories:
        losses = [row["loss"] for row in histories[name]]
        assert [row["loss"] for row in again[name]] == losses, name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no head")
def test_output_that_nobody_reads_ends_a_script_in_one_sentence(tmp_path):
    script = copy_to(tmp_path, FIRST)
    command = f"{sys.executable} -u {script.name} --dry-run | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.stderr.rstrip().endswith("Leave out the | and what follows it")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_the_output_is_not_blamed_on_the_data(tmp_path):
    script = copy_to(tmp_path, FIRST)
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-u", script.name, "--dry-run"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert one_line(done).startswith("The disk is full")


def test_importing_a_script_does_nothing(tmp_path):
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import {FIRST.stem}"
    command = [sys.executable, "-c", code, str(FIRST.parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert names(tmp_path) == []


@pytest.mark.parametrize("script, preset", [(FIRST, "fast"), (ABLATION, "paper")])
@pytest.mark.timeout(120)
def test_a_preset_runs(tmp_path, script, preset):
    done = run(copy_to(tmp_path, script), "--dry-run", "--preset", preset)
    assert done.returncode == 0, done.stderr


def test_a_mirrored_model_adds_the_logits_of_an_image_and_its_mirror_image():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    x = torch.randn(4, 3, 32, 32)
    mirror_image = torch.stack([x[..., 31 - i] for i in range(32)], dim=3)
    logits = load(FIRST).Mirrored(model)(x)
    torch.testing.assert_close(logits, model(x) + model(mirror_image))


def test_the_figure_is_drawn_for_every_outcome():
    lesson = load(FIRST)
    args = SimpleNamespace(
        data="shapes", train_images=20, test_images=20, epochs=1, device=torch.device("cpu")
    )
    data = lesson.load_data(args)
    row = {"loss": 2.0, "accuracy": 0.1, "test_accuracy": 0.2}
    history = [{"epoch": epoch, **row} for epoch in range(1, 31)]
    all_correct = data.test_labels
    all_incorrect = (data.test_labels + 1) % 10
    for predictions, finding in ((all_correct, "no mistakes"), (all_incorrect, ": 100 %")):
        confusion = lesson.confusion_matrix(predictions, data)
        figure = lesson.draw_figure(history, confusion, predictions, data)
        figure.savefig(io.BytesIO())
        assert any(finding in axes.get_title() for axes in figure.axes)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_an_ablation_that_diverges_is_called_so(capsys, loss):
    lesson = load(SOLUTIONS["2"])
    args = SimpleNamespace(depths=[20, 44], seeds=1)
    histories = {
        (kind, depth, 0): [{"loss": loss if (kind, depth) == ("plain", 44) else 0.5}]
        for kind in ("plain", "residual")
        for depth in args.depths
    }
    gaps = lesson.degradation(histories)
    lesson.describe_degradation(args, histories, gaps, SimpleNamespace(classes=range(10)))
    printed = capsys.readouterr().out
    assert "leaves the final training loss undefined (a network diverged)" in printed
    assert "This is degradation" not in printed
    assert "nan" not in printed + lesson.effect_on("the training loss", gaps["plain"])


def test_what_an_ablation_finds_is_what_its_numbers_show():
    finding = load(SOLUTIONS["2"]).degradation_finding
    args = SimpleNamespace(start_at_identity=False)
    assert "does not show degradation" in finding(args, {"plain": 0.1, "residual": 0.5})
    assert finding(args, {"plain": 0.5, "residual": 0.2}).endswith("raises the loss by 0.20 nats.")
    assert finding(args, {"plain": 0.2, "residual": 0.5}).endswith("do not prevent it here.")
    args.start_at_identity = True
    assert "start at 0" in finding(args, {"plain": 0.5, "residual": 0.0})


@pytest.mark.timeout(120)
def test_a_script_runs_whatever_its_surroundings_set(tmp_path):
    script = copy_to(tmp_path, FIRST)
    command = [sys.executable, "-OO", script.name, "--dry-run"]
    # A notebook sets a backend for all that it starts, which may not be installed there.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "MPLBACKEND": "not_installed"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "This was a dry run" in done.stdout


def test_a_stub_with_a_byte_that_is_no_utf_8_says_which_task_comes_first(tmp_path):
    """With -m and in a notebook Python runs such a file, if the byte is in a comment."""
    stub = copy_to(tmp_path, ROOT / FIRST.name)
    text = stub.read_bytes()
    stub.write_bytes(text.replace(b"# %% Your part", b"# for my caf\xe9\n\n# %% Your part"))
    command = [sys.executable, "-m", stub.stem]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert one_line(done).startswith("TODO 1.1: BasicBlock.__init__ is not written yet")


@pytest.mark.parametrize(
    "numbers, expected",
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, (0, 1)),
        ({"RANK": "3", "LOCAL_RANK": "3"}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"}, (0, 1)),
        ({"RANK": "", "WORLD_SIZE": "none"}, (0, 1)),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
    ],
    ids=["no address", "no size", "old address", "no numbers", "torchrun"],
)
def test_numbers_of_processes_that_are_left_over_are_not_obeyed(monkeypatch, numbers, expected):
    for name, value in numbers.items():
        monkeypatch.setenv(name, value)
    args = SimpleNamespace(threads=torch.get_num_threads(), device=torch.device("cpu"))
    with load(SWEEP).process_group(args) as rank_and_world_size:
        assert rank_and_world_size == expected


def sweep(folder, processes):
    """Run exercise 4's dry run under torchrun; returns its numbers and what it printed."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    flags = ["--data", "shapes", "--dry-run", "--threads", "1", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, *torchrun, str(SWEEP), *flags],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "dry_run" / "exercise_04.json").read_text())
    return record, done.stdout


@pytest.mark.timeout(600)
def test_torchrun_shares_the_sweep_and_changes_no_number(tmp_path):
    alone, _ = sweep(tmp_path / "one", 1)
    shared, printed = sweep(tmp_path / "two", 2)
    assert (alone["processes"], shared["processes"]) == (1, 2)
    assert list(alone["runs"]) == list(shared["runs"])
    for name, row in alone["runs"].items():
        for key in ("accuracy", "parameters", "macs"):
            assert shared["runs"][name][key] == row[key], (name, key)
        assert shared["runs"][name]["history"][0]["loss"] == row["history"][0]["loss"], name
    assert printed.count("Wrote") == 2, "process 0 alone speaks"
    assert names(tmp_path / "two" / "dry_run") == ["exercise_04.json", "exercise_04.png"]


@NO_SIGINT
@pytest.mark.timeout(300)
def test_an_interrupted_sweep_goes_on_with_the_next_network(tmp_path):
    script = copy_to(tmp_path, SWEEP)
    use_few_test_images(script)
    flags = ["--epochs", "1", "--train-images", "160", "--threads", "1"]
    assert interrupt(script, flags, b"ResNet-34, seed 0:  ")[0] == -signal.SIGINT
    done = run(script, "--data", "shapes", *flags)
    assert done.returncode == 0, done.stderr
    assert "ResNet-18, seed 0: finished before the run was interrupted" in done.stdout
    assert "ResNet-18" not in done.stderr
    assert "ResNet-101, seed 0: finished" not in done.stdout
    assert names(tmp_path / "results") == ["exercise_04.json", "exercise_04.png"]


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--width", "8"], "from 16"),
        (["--threads", "0"], "from 1"),
        (["--seeds", "-1"], "from 1"),
    ],
)
def test_exercise_4_refuses_what_it_cannot_do(tmp_path, monkeypatch, capsys, flags, expected):
    check_refused(SWEEP, flags, expected, tmp_path, monkeypatch, capsys)


@pytest.mark.timeout(60)
def test_accuracy_may_use_numpy_where_the_network_computes_in_bfloat16(tmp_path):
    text = FIRST.read_text("utf-8")
    changes = {
        "enabled=multiplies_bfloat16(device)": "enabled=True",
        "model(images).argmax(dim=1)": "model(images).numpy().argmax(axis=1)",
        "(predictions == labels).sum().item()": "(predictions == labels.numpy()).sum()",
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    script = tmp_path / FIRST.name
    script.write_text(text, "utf-8")
    done = run(script, "--dry-run", "--device", "cpu")
    assert done.returncode == 0, done.stderr
