"""Exercise 5 on your own images and weights: what it reads, what it refuses, and what it prints."""

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
from course import SOLUTIONS
from PIL import Image
from torchvision.models import ResNet18_Weights, resnet18

SOLUTION = SOLUTIONS["5"]
WEIGHTS = ResNet18_Weights.IMAGENET1K_V1


@pytest.fixture(scope="module")
def transfer():
    """Exercise 5's solution as a module."""
    spec = importlib.util.spec_from_file_location("exercise_05_solution", SOLUTION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_images(folder, count, width=40, height=30, first_seed=0):
    """Write count random PNG images into a folder, each from a seed of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + count):
        random = np.random.RandomState(seed)
        pixels = random.randint(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image{seed}.png")


def read(transfer, folder):
    """The training set and the test set that the script makes of a folder, of 16x16 images."""
    args = SimpleNamespace(images=folder, seed=0, test_images=60, device=torch.device("cpu"))
    image_format = transfer.ImageFormat(
        size=16,
        resize=16,
        mean=torch.zeros(1, 3, 1, 1),
        deviation=torch.ones(1, 3, 1, 1),
    )
    return transfer.read_folders(args, image_format)


def images_per_class(labels):
    return labels.bincount().tolist()


# Images


def test_a_folder_per_class_is_split_class_by_class(transfer, tmp_path, capsys):
    make_images(tmp_path / "cats", 10)
    make_images(tmp_path / "dogs", 20, width=17, height=50)
    data = read(transfer, tmp_path)
    assert data.classes == ["cats", "dogs"]
    assert images_per_class(data.train_labels) == [7, 14]
    assert images_per_class(data.test_labels) == [3, 6]
    assert data.train_images.shape == (21, 3, 16, 16)
    assert data.train_images.dtype == torch.uint8
    all_images = torch.cat([data.train_images, data.test_images])
    assert len(all_images.unique(dim=0)) == 30, "no image is in both sets"
    assert "at random, class by class" in capsys.readouterr().out
    same_seed = read(transfer, tmp_path)
    assert torch.equal(same_seed.test_images, data.test_images), "the same seed splits alike"


def test_train_and_test_folders_are_taken_as_they_are(transfer, tmp_path, capsys):
    for name in ("a", "b", "c"):
        make_images(tmp_path / "train" / name, 5)
        make_images(tmp_path / "test" / name, 3, first_seed=100)
    data = read(transfer, tmp_path)
    assert data.train_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert images_per_class(data.test_labels) == [3, 3, 3]
    assert "Split" not in capsys.readouterr().out


def test_unreadable_files_are_skipped_and_named(transfer, tmp_path, capsys):
    make_images(tmp_path / "a", 6)
    make_images(tmp_path / "b", 6)
    (tmp_path / "a" / "broken.png").write_bytes(b"not an image")
    whole_file = (tmp_path / "a" / "image0.png").read_bytes()
    (tmp_path / "b" / "cut.png").write_bytes(whole_file[: len(whole_file) // 2])
    (tmp_path / "b" / "notes.txt").write_text("no image, and not named")
    Image.new("L", (20, 20), 7).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (20, 20)).save(tmp_path / "b" / "transparent.png")
    data = read(transfer, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("Skipped") == 2
    assert "broken.png" in printed
    assert "cut.png" in printed
    assert len(data.train_labels) + len(data.test_labels) == 14


def test_two_images_per_class_are_enough(transfer, tmp_path):
    make_images(tmp_path / "a", 2)
    make_images(tmp_path / "b", 2)
    data = read(transfer, tmp_path)
    assert data.train_labels.tolist() == [0, 1]
    assert data.test_labels.tolist() == [0, 1]


def test_no_more_images_are_read_than_are_used(transfer, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "LABELS_PER_CLASS", (2, 4))
    make_images(tmp_path / "a", 50)
    make_images(tmp_path / "b", 50)
    data = read(transfer, tmp_path)
    assert images_per_class(data.train_labels) == [4, 4]
    assert images_per_class(data.test_labels) == [10, 10]


def one_class(folder):
    make_images(folder / "cats", 5)


def one_image(folder):
    make_images(folder / "many", 5)
    make_images(folder / "few", 1)


def empty_class(folder):
    make_images(folder / "many", 5)
    (folder / "none").mkdir()


def no_class_folders(folder):
    make_images(folder, 5)


def empty_folder(folder):
    assert list(folder.iterdir()) == []


def no_folder(folder):
    folder.rmdir()


def different_classes(folder):
    make_images(folder / "train" / "a", 2)
    make_images(folder / "train" / "b", 2)
    make_images(folder / "test" / "a", 2)
    make_images(folder / "test" / "c", 2)


@pytest.mark.parametrize(
    "make, expected",
    [
        (one_class, "has one class, cats; a classifier needs two"),
        (one_image, "class few has too few images"),
        (empty_class, "class none has too few images"),
        (no_class_folders, "needs a folder for each class"),
        (empty_folder, "needs a folder for each class"),
        (no_folder, "needs a folder for each class"),
        (different_classes, "train and test have different classes"),
    ],
)
def test_folders_that_cannot_be_used_get_one_sentence(transfer, tmp_path, make, expected):
    folder = tmp_path / "images"
    folder.mkdir()
    make(folder)
    with pytest.raises(SystemExit) as stopped:
        read(transfer, folder)
    message = stopped.value.code
    assert expected in message
    assert "\n" not in message


# Weights


@pytest.fixture
def cached_resnet18(tmp_path, monkeypatch):
    """A ResNet-18 that lies in torch's cache, under the name that torchvision looks for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = resnet18()
    folder = tmp_path / "cache" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file_name = WEIGHTS.url.rsplit("/", 1)[1]
    torch.save(network.state_dict(), folder / file_name)
    return network


def test_imagenet_weights_come_through_torchvisions_own_loader(transfer, cached_resnet18):
    loaded = transfer.load_weights("imagenet").state_dict()
    cached = cached_resnet18.state_dict()
    assert list(loaded) == list(cached)
    for name in cached:
        assert torch.equal(loaded[name], cached[name]), name


@pytest.mark.usefixtures("cached_resnet18")
def test_images_for_imagenet_weights_are_prepared_by_their_own_transforms(transfer, tmp_path):
    folder = tmp_path / "images"
    make_images(folder / "a", 2, width=400, height=300)
    make_images(folder / "b", 2, width=300, height=500, first_seed=10)
    args = SimpleNamespace(
        images=folder, seed=0, test_images=10, size=16, device=torch.device("cpu")
    )
    image_format = transfer.image_format(args, None, transfer.load_weights("imagenet"))
    data = transfer.read_folders(args, image_format)
    all_images = torch.cat([data.train_images, data.test_images])
    prepared = transfer.normalise(all_images, data)
    prepare = WEIGHTS.transforms()
    paths = sorted(folder.glob("*/*.png"))
    assert len(paths) == 4
    for path in paths:
        expected = prepare(Image.open(path).convert("RGB"))
        differences = (prepared - expected).abs().amax(dim=(1, 2, 3))  # the order is random
        assert differences.min() < 1e-4, path.name


def test_a_checkpoint_is_read_back(transfer, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pt"
    for saved in (transfer.SmallResNet(7, width=8), resnet18(num_classes=3)):
        torch.save(saved.state_dict(), path)
        loaded = transfer.load_weights(str(path))
        assert type(loaded) is type(saved)
        assert len(loaded.fc.bias) == len(saved.fc.bias)
        assert torch.equal(loaded.layer4[0].conv1.weight, saved.layer4[0].conv1.weight)


class Malicious:
    """An object that writes the file harm, beside a path, when it is unpickled."""

    def __init__(self, path):
        self.path = path.with_name("harm")

    def __reduce__(self):
        return Path.touch, (self.path,)


def malicious_checkpoint(path):
    torch.save({"fc.bias": Malicious(path)}, path)


def malicious_pickle(path):
    path.write_bytes(pickle.dumps(Malicious(path)))


def text_file(path):
    path.write_text("hello")


def empty_file(path):
    path.write_bytes(b"")


def other_tensors(path):
    torch.save({"a": torch.zeros(2)}, path)


def list_of_numbers(path):
    torch.save([1, 2], path)


def one_stage(path):
    torch.save(resnet18(num_classes=4).layer1.state_dict(), path)


def no_file(path):
    assert not path.exists()


@pytest.mark.parametrize(
    "write, expected",
    [
        (malicious_checkpoint, "refused"),
        (malicious_pickle, "refused"),
        (text_file, "refused"),
        (empty_file, "cannot be loaded"),
        (other_tensors, "fits neither"),
        (list_of_numbers, "fits neither"),
        (one_stage, "fits neither"),
        (no_file, "there is no such file"),
    ],
)
def test_other_files_are_refused_in_one_sentence(transfer, tmp_path, write, expected):
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(SystemExit) as stopped:
        transfer.load_weights(str(path))
    message = stopped.value.code
    assert expected in message
    assert "\n" not in message
    assert not (tmp_path / "harm").exists()


# Both


def dry_run(folder, *flags):
    """A dry run of the solution in a folder, on its images; returns what it printed."""
    command = [sys.executable, SOLUTION, "--dry-run", "--data", "shapes", "--out", "out"]
    done = subprocess.run(
        [*command, "--images", "images", *flags], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_your_images_and_your_weights_from_the_command_line(tmp_path):
    make_images(tmp_path / "images" / "red", 6)
    make_images(tmp_path / "images" / "blue", 6, first_seed=10)
    assert "Pretrained" in dry_run(tmp_path)
    results = tmp_path / "out" / "dry_run"
    weights = results / "exercise_05_source.pt"
    assert weights.is_file()
    assert "Pretrained" not in dry_run(tmp_path, "--weights", weights)
    record = json.loads((results / "exercise_05.json").read_text("utf-8"))
    assert record["classes"] == ["blue", "red"]
