"""CIFAR-10 for the tests: where the real one is not on disk, a small archive in its own format."""

import io
import pickle
import tarfile
from types import SimpleNamespace

import numpy as np
import torch
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import calculate_md5

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def is_complete(folder):
    """Whether all of CIFAR-10 is in a folder, undamaged."""
    try:
        CIFAR10(folder, train=False)
    except Exception:  # torchvision and pickle each raise their own
        return False
    return True


def load_cifar10(lesson, folder, train_images=64, test_images=64, epochs=1):
    """CIFAR-10 as the lesson's own load_data reads it from a folder."""
    args = SimpleNamespace(
        data="cifar10",
        data_dir=folder,
        train_images=train_images,
        test_images=test_images,
        device=torch.device("cuda" if cuda_works() else "cpu"),
        epochs=epochs,
    )
    return lesson.load_data(args)


def cuda_works():
    """Whether torch can compute on a CUDA GPU: one, or its cuDNN, may not fit this torch."""
    try:
        image = torch.ones(1, 1, 3, 3, device="cuda")
        torch.nn.functional.conv2d(image, image).item()
    except (RuntimeError, AssertionError):
        return False
    return True


def train_some_epochs(lesson, model, data, epochs):
    """Train a model with the lesson's own train, in batches of 16. Returns each epoch's loss."""
    optimizer = lesson.make_sgd(model, rate=0.0125, weight_decay=5e-4)
    schedule = lesson.one_cycle(optimizer, epochs * lesson.count_steps(data, 16))
    history = lesson.train(
        model, data, optimizer, schedule, epochs=epochs, batch_size=16, seed=0, label=""
    )
    return [epoch["loss"] for epoch in history]


def make_archive(folder, monkeypatch, count=64):
    """Write folder/cifar-10-python.tar.gz with count images per batch.

    torchvision is made to trust its checksums.
    """
    random = np.random.RandomState(0)
    members = {
        "batches.meta": {
            "label_names": CLASSES,
            "num_cases_per_batch": count,
            "num_vis": 3072,
        }
    }
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        members[name] = make_batch(name, random, count)
    archive = folder / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            blob = pickle.dumps(content)
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    train_list = [[name, None] for name, _ in CIFAR10.train_list]
    test_list = [[name, None] for name, _ in CIFAR10.test_list]
    monkeypatch.setattr(CIFAR10, "tgz_md5", calculate_md5(archive))
    monkeypatch.setattr(CIFAR10, "train_list", train_list)
    monkeypatch.setattr(CIFAR10, "test_list", test_list)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    return folder


def make_batch(name, random, count):
    """One of the archive's batches of random images, as CIFAR-10 has them.

    An image of class k is dark but for a bright square whose position and colour tell k.
    """
    labels = random.randint(10, size=count)
    images = random.randint(80, size=(count, 3, 32, 32))
    for image, label in zip(images, labels):
        row = 4 + 12 * (label // 5)
        column = 2 + 6 * (label % 5)
        image[label % 3, row : row + 8, column : column + 6] += 170
    return {
        "batch_label": name,
        "labels": labels.tolist(),
        "data": images.astype(np.uint8).reshape(count, -1),
        "filenames": [f"{i}.png" for i in range(count)],
    }
