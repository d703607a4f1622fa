"""Exercise 5 on your own images and weights: what it reads, what it refuses, and what it prints."""

import errno
import hashlib
import importlib.util
import json
import math
import os
import pickle
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import warm
from course import SOLUTIONS
from PIL import Image
from torchvision.models import ResNet18_Weights, resnet18, resnet34, resnet50

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
    args = SimpleNamespace(
        images=folder,
        seed=0,
        test_images=60,
        device=torch.device("cpu"),
        out=folder / "results" / "dry_run",
    )
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


def test_of_a_large_class_as_many_images_are_tested_as_is_said(
    transfer, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(transfer, "LABELS_PER_CLASS", (2,))
    make_images(tmp_path / "cats", 100)
    make_images(tmp_path / "dogs", 10)
    data = read(transfer, tmp_path)
    assert images_per_class(data.train_labels) == [2, 2]
    assert images_per_class(data.test_labels) == [30, 3]
    assert "30 % of the images, at most 30 per class" in capsys.readouterr().out


def test_train_and_test_folders_are_taken_as_they_are(transfer, tmp_path, capsys):
    for name in ("a", "b", "c"):
        make_images(tmp_path / "train" / name, 5)
        make_images(tmp_path / "test" / name, 3, first_seed=100)
    data = read(transfer, tmp_path)
    assert sorted(data.train_labels.tolist()) == [0] * 5 + [1] * 5 + [2] * 5
    assert images_per_class(data.test_labels) == [3, 3, 3]
    assert "Split" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "train, test, others",
    [
        ("train", "val", []),
        ("Train", "Valid", []),
        ("train", "validation", []),
        ("train", "test", ["val"]),
        ("train", "val", ["annotations", ".git"]),
    ],
)
def test_other_names_of_the_test_folder(transfer, tmp_path, capsys, train, test, others):
    for name in ("a", "b"):
        make_images(tmp_path / train / name, 5)
        make_images(tmp_path / test / name, 3, first_seed=100)
    for folder in others:
        make_images(tmp_path / folder / "a", 7, first_seed=200)
        make_images(tmp_path / folder / "b", 7, first_seed=200)
    data = read(transfer, tmp_path)
    assert data.classes == ["a", "b"]
    assert images_per_class(data.train_labels) == [5, 5]
    assert images_per_class(data.test_labels) == [3, 3]
    assert str(tmp_path / test) in capsys.readouterr().out


def test_a_test_set_without_labels_is_passed_over_for_one_with_labels(transfer, tmp_path):
    for name in ("a", "b"):
        make_images(tmp_path / "train" / name, 5)
        make_images(tmp_path / "val" / name, 3, first_seed=100)
    make_images(tmp_path / "test", 6, first_seed=200)
    assert images_per_class(read(transfer, tmp_path).test_labels) == [3, 3]


@pytest.mark.parametrize("beside", ["", "test1"])
def test_a_training_set_alone_is_not_taken_for_a_class(transfer, tmp_path, beside):
    for name in ("train/cat", "train/dog", beside):
        make_images(tmp_path / name, 3)
    with pytest.raises(SystemExit, match="give .*train instead"):
        read(transfer, tmp_path)


def test_names_with_accents_may_be_written_in_two_ways(transfer, tmp_path):
    for name in ("train/caf\u00e9", "train/th\u00e9", "test/cafe\u0301", "test/the\u0301"):
        make_images(tmp_path / name, 2)
    data = read(transfer, tmp_path)
    assert data.classes == ["caf\u00e9", "th\u00e9"]
    assert images_per_class(data.test_labels) == [2, 2]


def test_accents_change_no_order(transfer, tmp_path):
    for folder, form in (("train", "NFC"), ("test", "NFD")):
        for name in ("élan", "zebra"):
            make_images(tmp_path / folder / unicodedata.normalize(form, name), 2)
    assert sorted(read(transfer, tmp_path).classes) == ["zebra", "élan"]


def test_classes_may_be_called_train_and_plane(transfer, tmp_path):
    make_images(tmp_path / "plane", 4)
    make_images(tmp_path / "train", 4)
    assert read(transfer, tmp_path).classes == ["plane", "train"]


def test_hidden_and_system_folders_are_no_classes(transfer, tmp_path, capsys):
    make_images(tmp_path / "System Volume Information", 1)
    for name in ("cats", "dogs", "cats/.thumbnails", ".ipynb_checkpoints", "__MACOSX/cats"):
        make_images(tmp_path / name, 10, first_seed=len(name))
    (tmp_path / "dogs" / "._image9.jpg").write_bytes(b"what macOS writes beside a file")
    data = read(transfer, tmp_path)
    assert data.classes == ["cats", "dogs"]
    assert images_per_class(data.train_labels) == [7, 7]
    printed = capsys.readouterr().out
    assert f"Skipped {tmp_path / '.ipynb_checkpoints'} and 4 more: hidden" in printed
    assert printed.count("Skipped") == 1


def test_what_is_read_elsewhere_is_not_read_again_through_a_link(transfer, tmp_path, capsys):
    images = tmp_path / "images"
    make_images(images / "cats", 10)
    make_images(images / "dogs", 10, first_seed=10)
    (images / "cats" / "all").symlink_to(images, target_is_directory=True)
    (images / "dogs" / "all").symlink_to(images, target_is_directory=True)
    (images / "dogs" / "above").symlink_to(tmp_path, target_is_directory=True)
    (images / "dogs" / "others").symlink_to(images / "cats", target_is_directory=True)
    (images / "dogs" / "copy.png").symlink_to(images / "dogs" / "image10.png")
    data = read(transfer, images)
    all_images = torch.cat([data.train_images, data.test_images])
    assert len(all_images) == len(all_images.unique(dim=0)) == 20
    assert "Skipped" in capsys.readouterr().out


def test_a_test_folder_that_is_a_link_to_the_training_set_is_refused(transfer, tmp_path):
    make_images(tmp_path / "train" / "a", 3)
    make_images(tmp_path / "train" / "b", 3)
    (tmp_path / "test").symlink_to(tmp_path / "train", target_is_directory=True)
    with pytest.raises(SystemExit):
        read(transfer, tmp_path)


def test_folders_that_are_links_are_read(transfer, tmp_path):
    make_images(tmp_path / "elsewhere" / "one", 4)
    make_images(tmp_path / "elsewhere" / "two", 4)
    images = tmp_path / "images"
    images.mkdir()
    for name in ("one", "two"):
        (images / name).symlink_to(tmp_path / "elsewhere" / name, target_is_directory=True)
    assert images_per_class(read(transfer, images).train_labels) == [3, 3]


def test_the_scripts_own_results_are_no_class(transfer, tmp_path, capsys):
    """As with cd photos and --images ."""
    for name in ("red", "blue", "results/dry_run"):
        make_images(tmp_path / name, 4)
    assert read(transfer, tmp_path).classes == ["blue", "red"]
    assert "results: this script writes its results there" in capsys.readouterr().out


def test_an_image_with_nan_is_skipped_by_name(transfer, tmp_path, capsys):
    for name in ("red", "blue"):
        make_images(tmp_path / name, 4)
    pixels = np.ones((20, 20), dtype=np.float32)
    pixels[3, 3] = np.nan
    Image.fromarray(pixels).save(tmp_path / "red" / "satellite.tif")
    read(transfer, tmp_path)
    assert "satellite.tif: it has values that are NaN or infinite" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind, largest", [(np.uint16, 65_535), (np.uint16, 4_095), (float, 0.8)])
def test_images_with_more_than_8_bits_are_scaled(transfer, tmp_path, suffix, kind, largest):
    if kind is float:
        suffix = ".tif"
    pixels = np.linspace(0, largest, 32 * 32).reshape(32, 32)
    pixels = pixels.astype(np.float32 if kind is float else kind)
    Image.fromarray(pixels).save(tmp_path / f"deep{suffix}")
    image = np.asarray(transfer.read_image(tmp_path / f"deep{suffix}"))
    assert image.shape == (32, 32, 3)
    assert np.abs(image[..., 0] - np.linspace(0, 255, 32 * 32).reshape(32, 32)).max() < 1.1


def test_an_image_of_one_value_with_16_bits_is_read(transfer, tmp_path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "flat.png")
    assert transfer.read_image(tmp_path / "flat.png").size == (8, 8)


def test_an_image_with_16_bits_may_have_a_transparent_value(transfer, tmp_path):
    pixels = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "deep.png", transparency=77)
    image = np.asarray(transfer.read_image(tmp_path / "deep.png"))
    assert np.abs(image[..., 0] - np.linspace(0, 255, 64).reshape(8, 8)).max() < 1.1


def test_images_are_turned_as_the_camera_was_held(transfer, tmp_path):
    upright = Image.new("RGB", (20, 10), "white")
    upright.paste("black", (0, 0, 5, 10))
    exif = Image.Exif()
    exif[0x0112] = 8  # the orientation: turned to the right
    upright.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png", exif=exif)
    assert transfer.read_image(tmp_path / "turned.png").tobytes() == upright.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(transfer, tmp_path, mode):
    image = Image.new("RGBA", (20, 20))  # black, and transparent
    image.paste("black", (0, 0, 10, 20))
    image.convert(mode).save(tmp_path / "drawing.png")
    pixels = np.array(transfer.read_image(tmp_path / "drawing.png"))
    assert pixels[:, :9].max() < 10
    assert pixels[:, 11:].min() > 245


def test_nonsense_about_the_camera_does_no_harm(transfer, tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (20, 10), "red").save(path, exif=b"Exif\x00\x00no TIFF header")
    assert transfer.read_image(path).size == (20, 10)


def test_unreadable_files_are_skipped_and_named(transfer, tmp_path, capsys):
    make_images(tmp_path / "a", 6)
    make_images(tmp_path / "b", 6)
    (tmp_path / "a" / "broken.png").write_bytes(b"not an image")
    whole_file = (tmp_path / "a" / "image0.png").read_bytes()
    (tmp_path / "b" / "cut.png").write_bytes(whole_file[: len(whole_file) // 2])
    (tmp_path / "b" / "notes.txt").write_text("no image")
    Image.new("L", (20, 20), 7).save(tmp_path / "a" / "grey.png")
    Image.new("RGBA", (20, 20)).save(tmp_path / "b" / "transparent.png")
    data = read(transfer, tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("Skipped") == 3
    assert "broken.png: cannot identify image file" in printed
    assert "cut.png" in printed
    assert "notes.txt: not one of .jpg .jpeg .png" in printed
    assert len(data.train_labels) + len(data.test_labels) == 14


def test_what_is_skipped_gets_one_line_a_kind(transfer, tmp_path, capsys):
    for name in ("a", "b"):
        make_images(tmp_path / name, 6)
        for number in range(5):
            pixels = Image.new("L", (9, 9), number)
            pixels.save(tmp_path / name / f"moving{number}.gif")
            (tmp_path / name / f"{number}.jpg").write_bytes(b"not an image")
            (tmp_path / name / f"{number}.HEIC").write_bytes(b"from a telephone")
    read(transfer, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    skipped = [line for line in lines if line.startswith("Skipped")]
    assert len(skipped) == 3
    for name in ("moving0.gif and 9 more: not one of", "0.HEIC and 9 more", ".jpg and 9 more"):
        assert sum(name in line for line in skipped) == 1, name


def test_a_class_folder_that_may_not_be_read_is_named(transfer, tmp_path, capsys, monkeypatch):
    make_images(tmp_path / "a", 6)
    make_images(tmp_path / "b", 6)
    (tmp_path / "b" / "closed").mkdir()
    refuse_to_list(monkeypatch, tmp_path / "b" / "closed")
    read(transfer, tmp_path)
    assert f"Skipped {tmp_path / 'b' / 'closed'}: Permission denied" in capsys.readouterr().out


def refuse_to_list(monkeypatch, closed):
    """Make a folder one that may not be read, which no folder is to a superuser."""

    def refuse(function):
        def list_another(folder="."):
            if Path(folder) == closed:
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return function(folder)

        return list_another

    monkeypatch.setattr("os.scandir", refuse(os.scandir))
    monkeypatch.setattr("os.listdir", refuse(os.listdir))


def test_a_folder_that_may_not_be_read_gets_one_sentence(transfer, tmp_path, monkeypatch):
    refuse_to_list(monkeypatch, tmp_path)
    with pytest.raises(SystemExit, match="cannot be read .Permission denied."):
        read(transfer, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of letters only")
def test_names_may_be_in_any_encoding_and_have_dollar_signs(transfer, tmp_path, capsys):
    sys.stdout.reconfigure(errors="replace")  # as main does
    for name in (b"caf\xe9 $5-$10 ^_{", b"\xe9$\\frac$"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        make_images(folder / os.fsdecode(b"\xff$a$"), 4)
        make_images(folder / "$5-$10", 4)
        data = read(transfer, folder)
        accuracies = {strategy: [[0.5, 0.6]] for strategy in transfer.STRATEGIES}
        shifts = {shift: [0.5, 0.6] for shift in transfer.SHIFTS}
        samples = transfer.sample_shifts(data, seed=0)
        figure = transfer.draw_figure([2], accuracies, shifts, samples, data, data)
        figure.savefig(tmp_path / "figure.png")


def test_no_batch_has_one_class_alone(transfer):
    """AdaBN's statistics are those of batches."""
    images = transfer.ImageList()
    for label in (0, 1):
        images.add([torch.full((3, 2, 2), label)] * 20, label)
    shuffled, labels = images.shuffle(0)
    assert torch.equal(shuffled[:, 0, 0, 0], labels)
    assert 2 < labels[:20].sum() < 18


@pytest.mark.parametrize("count", [1, 50, 51, 101])
def test_adaptation_has_batches_of_equal_size(transfer, count):
    """adapt_batchnorm gives each batch the same weight."""
    images = torch.zeros(count, 3, 100, 100, dtype=torch.uint8)
    data = SimpleNamespace(mean=torch.zeros(1, 3, 1, 1), deviation=torch.ones(1, 3, 1, 1))
    sizes = [len(batch) for batch in transfer.image_batches(images, data)]
    assert sum(sizes) == count
    assert max(sizes) <= 50
    assert max(sizes) - min(sizes) <= 1


def test_few_test_images_are_said_to_be_few(transfer, tmp_path, capsys):
    for name in ("cats", "dogs"):
        make_images(tmp_path / name, 6)
    transfer.describe_test_set(read(transfer, tmp_path))
    assert "With 4 test images, one image is 25.0 points" in capsys.readouterr().out


@pytest.mark.parametrize("train, test", [("training_set", "test_set"), ("trainA", "testA")])
def test_sets_of_other_names_are_not_taken_for_classes(transfer, tmp_path, train, test):
    for folder in (train, test):
        for name in ("cats", "dogs"):
            make_images(tmp_path / folder / name, 3)
    with pytest.raises(SystemExit, match=f"{test} and {train} look like sets"):
        read(transfer, tmp_path)


def test_classes_in_a_training_set_may_have_the_same_folders(transfer, tmp_path):
    for name in ("cats", "dogs"):
        for place in ("indoors", "outdoors"):
            make_images(tmp_path / "train" / name / place, 3)
        make_images(tmp_path / "test" / name, 3, first_seed=9)
    assert read(transfer, tmp_path).classes == ["cats", "dogs"]


def test_many_classes_get_fewer_images_each(transfer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "MOST_OWN_IMAGES", 6)
    for name in ("cats", "dogs"):
        make_images(tmp_path / name, 10)
    data = read(transfer, tmp_path)
    assert images_per_class(data.train_labels) == [3, 3]
    assert "At most 3 images per class are trained on, 6 in all" in capsys.readouterr().out


def test_classes_may_have_a_folder_of_the_same_name(transfer, tmp_path):
    for name in ("cats", "dogs"):
        make_images(tmp_path / name / "images", 3)
    assert read(transfer, tmp_path).classes == ["cats", "dogs"]


def test_a_link_to_itself_is_passed_over(transfer, tmp_path, capsys):
    for name in ("cats", "dogs"):
        make_images(tmp_path / name, 3)
    (tmp_path / "cats" / "loop.png").symlink_to("loop.png")
    assert sum(images_per_class(read(transfer, tmp_path).train_labels)) == 4
    assert "loop.png" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_skipped_and_named(transfer, tmp_path, capsys):
    for name in ("cats", "dogs"):
        make_images(tmp_path / name, 3)
    os.mkfifo(tmp_path / "cats" / "pipe.png")  # to open it would wait for ever
    (tmp_path / "dogs" / "lost.png").symlink_to("nowhere.png")
    assert sum(images_per_class(read(transfer, tmp_path).train_labels)) == 4
    assert "pipe.png and 1 more: not a file, or a link to nothing" in capsys.readouterr().out


def test_a_class_with_few_images_is_named(transfer, capsys):
    data = SimpleNamespace(classes=["a", "b"], train_labels=torch.tensor([0] * 30 + [1] * 3))
    args = SimpleNamespace(dry_run=False)
    assert transfer.choose_labels_per_class(args, data) == [2, 3]
    assert "At most 3 labels per class: no more images of the class b" in capsys.readouterr().out
    data.classes.append("c")
    with pytest.raises(SystemExit, match="No training image is of the class c"):
        transfer.choose_labels_per_class(args, data)


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_any_number_of_steps_will_do(transfer, steps):
    model = transfer.SmallResNet(2, 16)  # narrower ones meet oneDNN's issue 6035
    data = SimpleNamespace(mean=torch.zeros(1, 3, 1, 1), deviation=torch.ones(1, 3, 1, 1))
    images = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8)
    groups = [{"params": list(model.parameters()), "lr": 0.01}]
    transfer.fine_tune(model, images, torch.tensor([0, 1] * 3), data, groups, steps)


def test_images_in_all_parts_are_shifted(transfer):
    images = torch.randint(256, (230, 3, 4, 4), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    shifted = transfer.apply_shift(transfer.SHIFTS["noise"], images, generator)
    assert shifted.shape == images.shape
    noise = (shifted.float() - images).flatten(1)
    assert 15 < noise[101:].std() < 35


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
    assert images_per_class(data.test_labels) == [15, 15]


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


def archive(folder):
    folder.rmdir()
    folder.write_bytes(b"PK")


def no_folder(folder):
    folder.rmdir()


def different_classes(folder):
    make_images(folder / "train" / "a", 2)
    make_images(folder / "train" / "b", 2)
    make_images(folder / "test" / "a", 2)
    make_images(folder / "test" / "c", 2)


def wrapped(folder):
    make_images(folder / "flowers" / "daisy", 2)
    make_images(folder / "flowers" / "rose", 2)


def wrapped_sets(folder):
    for name in ("Training", "validation"):
        make_images(folder / name / name / "a", 2)
        make_images(folder / name / name / "b", 2)


def unlabelled_test(folder):
    make_images(folder / "train" / "a", 2)
    make_images(folder / "train" / "b", 2)
    make_images(folder / "test", 4)


def unlabelled_sets(folder):
    make_images(folder / "train", 4)
    make_images(folder / "test", 4)


def numbered_sets(folder):
    make_images(folder / "train", 4)
    make_images(folder / "test1", 4)


def competition(folder):
    for name in ("seg_train", "seg_test"):
        make_images(folder / name / name / "sea", 2)
        make_images(folder / name / name / "street", 2)
    make_images(folder / "seg_pred" / "seg_pred", 2)


def odd_one_out(folder):
    for name in ("first", "second"):
        make_images(folder / name / "a", 2)
        make_images(folder / name / "b", 2)
    make_images(folder / "sample", 2)


@pytest.mark.parametrize(
    "make, expected",
    [
        (wrapped, "has nothing but one folder; give"),
        (wrapped_sets, "Training: has nothing but one folder; give"),
        (unlabelled_test, "test has no folder for each class; give"),
        (unlabelled_sets, "train: needs a folder for each class"),
        (numbered_sets, "test1 and train look like sets"),
        (competition, "seg_test and seg_train look like sets"),
        (odd_one_out, "first and second look like sets"),
        (one_class, "has one class, cats; a classifier needs two"),
        (one_image, "class few has too few images"),
        (empty_class, "class none has too few images"),
        (no_class_folders, "needs a folder for each class"),
        (empty_folder, "needs a folder for each class"),
        (archive, "is a file and no folder; unpack an archive first"),
        (no_folder, "cannot be read (No such file or directory)"),
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


def test_classes_whose_names_are_like_those_of_sets_are_classes(transfer, tmp_path):
    for name in ("train", "plane", "trainer"):
        make_images(tmp_path / name, 4)
    assert read(transfer, tmp_path).classes == ["plane", "train", "trainer"]


def test_system_folders_in_each_class_make_no_sets_of_them(transfer, tmp_path):
    for name in ("cat", "dog"):
        make_images(tmp_path / name, 4)
        for hidden in ("@eaDir", ".thumbnails"):
            (tmp_path / name / hidden).mkdir()
    assert read(transfer, tmp_path).classes == ["cat", "dog"]


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
        images=folder,
        seed=0,
        test_images=10,
        size=16,
        device=torch.device("cpu"),
        out=tmp_path / "results",
    )
    image_format = transfer.imagenet_format(args.device)
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


@pytest.mark.parametrize("part", [0, 0.5])
def test_a_damaged_file_in_torchs_cache_is_named(transfer, cached_resnet18, tmp_path, part):
    (path,) = tmp_path.glob("cache/hub/checkpoints/*.pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(SystemExit, match=f"{path} is damaged: delete it"):
        transfer.load_weights("imagenet")


@pytest.mark.parametrize(
    "error, expected",
    [
        (OSError("no network"), "cannot be downloaded .no network.: try again, or put https://"),
        (
            OSError(errno.EROFS, "Read-only", "a file"),
            "cannot be kept .*Read-only.*another TORCH_HOME",
        ),
        (RuntimeError("not enough memory"), "not enough memory"),
    ],
)
def test_weights_that_cannot_be_fetched_say_why(transfer, tmp_path, monkeypatch, error, expected):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    good = b"a whole file"
    checksum = hashlib.sha256(good).hexdigest()[:8]
    monkeypatch.setattr(WEIGHTS.value, "url", f"https://x.org/resnet18-{checksum}.pth", False)
    (checkpoints / f"resnet18-{checksum}.pth").write_bytes(good)

    def refuse(**arguments):
        raise error

    monkeypatch.setattr(transfer, "resnet18", refuse)
    with pytest.raises(SystemExit, match=expected) as stopped:
        transfer.load_weights("imagenet")
    assert "delete" not in stopped.value.code, "the file is good"


def data_parallel(state):
    return {f"module.{name}": tensor for name, tensor in state.items()}


def training_script(state):
    return {"epoch": 3, "arch": "resnet18", "state_dict": data_parallel(state), "best": 0.5}


def lightning(state):
    weights = {f"model.{name}": tensor for name, tensor in state.items()}
    return {"state_dict": {**weights, "loss.weight": torch.ones(2)}, "hparams": {}}


def compiled(state):
    return {"model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}}


def other_head(state):
    weights = {name.replace("fc.", "fc.1."): tensor for name, tensor in state.items()}
    return {"net": weights, "optimizer": {"state": {}}}


def without_head(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize(
    "form", [data_parallel, training_script, lightning, compiled, other_head, without_head]
)
def test_checkpoints_of_other_peoples_scripts_are_taken(transfer, tmp_path, form):
    torch.manual_seed(0)
    path = tmp_path / "checkpoint.pt"
    for saved in (transfer.SmallResNet(7, width=8), resnet18(num_classes=3)):
        torch.save(form(saved.state_dict()), path)
        loaded = transfer.load_weights(str(path))
        for name, tensor in saved.state_dict().items():
            if not name.startswith("fc."):
                assert torch.equal(loaded.state_dict()[name], tensor), name


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


def not_finite(path):
    state = resnet18(num_classes=4).state_dict()
    state["bn1.running_var"][0] = math.nan
    torch.save(state, path)


def one_stage(path):
    torch.save(resnet18(num_classes=4).layer1.state_dict(), path)


def deeper_network(path):
    torch.save({"model": resnet34(num_classes=4).state_dict()}, path)


def bottlenecks(path):
    torch.save(resnet50(num_classes=4).state_dict(), path)


def no_file(path):
    assert not path.exists()


def test_safetensors_that_torch_cannot_read_are_named(transfer, tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise pickle.UnpicklingError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(SystemExit, match="this torch cannot read safetensors; read it with"):
        transfer.load_weights(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "head",
    [
        {"fc.weight": torch.zeros(4, 512)},
        {"fc.weight": torch.zeros(4, 1024), "fc.bias": torch.zeros(4)},
        {"fc.0.weight": torch.zeros(8, 512), "fc.2.bias": torch.zeros(4)},
        {},
    ],
    ids=["no_bias", "two_poolings", "two_layers", "none"],
)
def test_any_head_will_do(transfer, tmp_path, head):
    network = resnet18(num_classes=4)
    state = {name: tensor for name, tensor in network.state_dict().items() if "fc." not in name}
    torch.save({**state, **head}, tmp_path / "weights.pt")
    loaded = transfer.load_weights(str(tmp_path / "weights.pt"))
    assert torch.equal(loaded.layer4[1].conv2.weight, network.layer4[1].conv2.weight)


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
        (not_finite, "its bn1.running_var holds NaN or infinity"),
        (deeper_network, "this script's network: only one of the two has layer1.2.conv1.weight"),
        (bottlenecks, "this script's network: size mismatch for "),
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


@pytest.mark.parametrize(
    "device, size, flags, expected",
    [
        ("cpu", 16, (None, None), (5, 200)),
        ("mps", 16, (None, None), (5, 200)),
        ("cuda", 16, (None, None), (5, 400)),
        ("cpu", 224, (None, None), (1, 40)),
        ("mps", 224, (None, None), (1, 40)),
        ("cuda", 224, (None, None), (5, 400)),
        ("cpu", 224, (3, 7), (3, 7)),
    ],
)
def test_large_images_cost_less_without_cuda(transfer, device, size, flags, expected):
    seeds, steps = flags
    args = SimpleNamespace(device=torch.device(device), dry_run=False, seeds=seeds, steps=steps)
    transfer.set_seeds_and_steps(args, SimpleNamespace(size=size))
    assert (args.seeds, args.steps) == expected


def dry_run(folder, *flags):
    """A dry run of the solution in a folder, on its images; returns what it printed."""
    command = [SOLUTION, "--dry-run", "--data", "shapes", "--out", "out", "--images", "images"]
    done = warm.run([*command, *flags], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_your_images_and_your_weights_from_the_command_line(tmp_path):
    make_images(tmp_path / "images" / "red", 6)
    make_images(tmp_path / "images" / "blue", 6, first_seed=10)
    assert "exercise_05_source.pt" in dry_run(tmp_path)
    results = tmp_path / "out" / "dry_run"
    weights = results / "exercise_05_source.pt"
    assert weights.is_file()
    assert "exercise_05_source.pt" not in dry_run(tmp_path, "--weights", weights)
    record = json.loads((results / "exercise_05.json").read_text("utf-8"))
    assert record["classes"] == ["blue", "red"]
