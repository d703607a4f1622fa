"""Exercise 5 on a user's own pictures and weights: what it reads, what it refuses, and what it says then."""

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, resnet18

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = ROOT / "solutions" / "exercise_05_transfer_learning.py"


@pytest.fixture(scope="module")
def transfer():
    """Exercise 5's solution as a module."""
    spec = importlib.util.spec_from_file_location("exercise_05_solution", SOLUTION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_pictures(folder, count, size=(40, 30), start=0, name="picture"):
    """Write count random PNG pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        pixels = np.random.RandomState(i).randint(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{i}.png")
    return folder


def read(transfer, folder, **more):
    args = SimpleNamespace(
        images=folder, seed=0, test_images=60, device=torch.device("cpu"), **more
    )
    form = SimpleNamespace(
        size=16, shrink=16, mean=torch.zeros(1, 3, 1, 1), deviation=torch.ones(1, 3, 1, 1)
    )
    return transfer.read_folders(args, form)


def test_a_folder_for_each_class_is_split_class_by_class(transfer, tmp_path, capsys):
    make_pictures(tmp_path / "cats", 10), make_pictures(tmp_path / "dogs", 20, (17, 50))
    data = read(transfer, tmp_path)
    assert data.classes == ["cats", "dogs"]
    assert data.train_labels.bincount().tolist() == [
        7,
        14,
    ] and data.test_labels.bincount().tolist() == [3, 6]
    assert data.train_images.shape == (21, 3, 16, 16) and data.train_images.dtype == torch.uint8
    both = [
        tuple(picture.flatten().tolist())
        for picture in torch.cat([data.train_images, data.test_images])
    ]
    assert len(set(both)) == 30, "no picture is in both halves"
    assert "at random, class by class" in capsys.readouterr().out
    assert torch.equal(read(transfer, tmp_path).test_images, data.test_images), (
        "the same seed splits alike"
    )


def test_train_and_test_folders_are_taken_as_they_are(transfer, tmp_path, capsys):
    for half, count in (("train", 5), ("test", 3)):
        for name in ("a", "b", "c"):
            make_pictures(tmp_path / half / name, count, start=100 * (half == "test"))
    data = read(transfer, tmp_path)
    assert (
        data.train_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
        and data.test_labels.bincount().tolist() == [3] * 3
    )
    assert "Split" not in capsys.readouterr().out


def test_unreadable_files_are_skipped_and_named(transfer, tmp_path, capsys):
    make_pictures(tmp_path / "a", 6), make_pictures(tmp_path / "b", 6)
    (tmp_path / "a" / "broken.png").write_bytes(b"not a picture")
    whole = (tmp_path / "a" / "picture0.png").read_bytes()
    (tmp_path / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "notes.txt").write_text("no picture, and not named")
    Image.new("L", (20, 20), 7).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (20, 20)).save(tmp_path / "b" / "clear.png")
    data = read(transfer, tmp_path)
    said = capsys.readouterr().out
    assert said.count("Skipped") == 2 and "broken.png" in said and "cut.png" in said
    assert len(data.train_labels) + len(data.test_labels) == 14


def test_two_pictures_a_class_are_enough(transfer, tmp_path):
    make_pictures(tmp_path / "a", 2), make_pictures(tmp_path / "b", 2)
    data = read(transfer, tmp_path)
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0, 1]


def test_no_more_pictures_are_read_than_are_used(transfer, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "LABELS", (2, 4))
    make_pictures(tmp_path / "a", 50), make_pictures(tmp_path / "b", 50)
    data = read(transfer, tmp_path)
    assert data.train_labels.bincount().tolist() == [
        4,
        4,
    ] and data.test_labels.bincount().tolist() == [10, 10]


def one_class(folder):
    make_pictures(folder / "only", 5)


def one_picture(folder):
    make_pictures(folder / "many", 5), make_pictures(folder / "few", 1)


def empty_class(folder):
    make_pictures(folder / "many", 5), (folder / "none").mkdir()


def no_folders(folder):
    make_pictures(folder, 5)


def other_classes(folder):
    for half, names in (("train", "ab"), ("test", "ac")):
        for name in names:
            make_pictures(folder / half / name, 2)


@pytest.mark.parametrize(
    "make, said",
    [
        (one_class, "has one class, only; a classifier needs two"),
        (one_picture, "class few has too few pictures"),
        (empty_class, "class none has too few pictures"),
        (no_folders, "needs a folder for each class"),
        (lambda folder: None, "needs a folder for each class"),
        (lambda folder: folder.rmdir(), "needs a folder for each class"),
        (other_classes, "train and test have different classes"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(transfer, tmp_path, make, said):
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)
    with pytest.raises(SystemExit) as stopped:
        read(transfer, folder)
    assert said in stopped.value.code and "\n" not in stopped.value.code


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A torch hub cache that holds a ResNet-18 under the name that torchvision looks for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    torch.manual_seed(0)
    model = resnet18()
    place = (
        tmp_path
        / "hub"
        / "hub"
        / "checkpoints"
        / ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    )
    place.parent.mkdir(parents=True)
    torch.save(model.state_dict(), place)
    return model


def test_imagenet_weights_come_through_torchvisions_own_loader(transfer, hub):
    network = transfer.load_weights("imagenet")
    for ours, theirs in zip(network.state_dict().values(), hub.state_dict().values()):
        assert torch.equal(ours, theirs)


def test_pictures_for_imagenet_weights_are_prepared_by_their_own_transforms(
    transfer, hub, tmp_path
):
    args = SimpleNamespace(
        images=tmp_path / "p", seed=0, test_images=10, size=16, device=torch.device("cpu")
    )
    (
        make_pictures(args.images / "a", 2, (400, 300)),
        make_pictures(args.images / "b", 2, (300, 500), 10),
    )
    form = transfer.picture_form(args, None, transfer.load_weights("imagenet"))
    data = transfer.read_folders(args, form)
    expected = torch.stack(
        [
            ResNet18_Weights.IMAGENET1K_V1.transforms()(Image.open(path).convert("RGB"))
            for path in sorted(args.images.glob("*/*.png"))
        ]
    )
    got = transfer.normalise(torch.cat([data.train_images, data.test_images]), data)
    for picture in expected:
        assert min((picture - other).abs().max() for other in got) < 1e-4


def test_a_checkpoint_is_read_back(transfer, tmp_path):
    torch.manual_seed(0)
    for model in (transfer.small_resnet(7), resnet18(num_classes=3)):
        torch.save(model.state_dict(), tmp_path / "w.pt")
        again = transfer.load_weights(str(tmp_path / "w.pt"))
        assert type(again) is type(model) and len(again.fc.bias) == len(model.fc.bias)
        assert torch.equal(again.layer4[0].conv1.weight, model.layer4[0].conv1.weight)


class Malicious:
    """Unpickling this would write a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize(
    "write, said",
    [
        (lambda path: torch.save({"fc.bias": Malicious(path.with_name("harm"))}, path), "refused"),
        (lambda path: path.write_bytes(pickle.dumps(Malicious(path.with_name("harm")))), "refused"),
        (lambda path: path.write_text("hello"), "refused"),
        (lambda path: path.write_bytes(b""), "cannot be loaded"),
        (lambda path: torch.save({"a": torch.zeros(2)}, path), "fits neither"),
        (lambda path: torch.save([1, 2], path), "fits neither"),
        (
            lambda path: torch.save(resnet18(num_classes=4).layer1.state_dict(), path),
            "fits neither",
        ),
        (lambda path: None, "there is no such file"),
    ],
)
def test_other_files_are_refused_in_one_sentence(transfer, tmp_path, write, said):
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(SystemExit) as stopped:
        transfer.load_weights(str(path))
    assert said in stopped.value.code and "\n" not in stopped.value.code
    assert not (tmp_path / "harm").exists()


@pytest.mark.timeout(180)
def test_own_pictures_and_own_weights_from_the_command_line(tmp_path):
    for i, name in enumerate(("red", "blue")):
        make_pictures(tmp_path / "pictures" / name, 6, start=10 * i)
    out = tmp_path / "out"
    command = [
        sys.executable,
        SOLUTION,
        "--dry-run",
        "--data",
        "shapes",
        "--out",
        out,
        "--images",
        tmp_path / "pictures",
    ]
    first = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert (out / "exercise_05_source.pt").is_file()
    again = subprocess.run(
        [*command, "--weights", out / "exercise_05_source.pt"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert again.returncode == 0 and "Pretrained" not in again.stdout, again.stderr
    assert json.loads((out / "exercise_05.json").read_text())["classes"] == ["blue", "red"]
