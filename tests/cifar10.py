"""A small archive in CIFAR-10's own format, for torchvision's own loader, where the real one is not on disk."""

import io
import pickle
import tarfile

import numpy as np
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import calculate_md5

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def make_archive(folder, monkeypatch, count=64):
    """Write folder/cifar-10-python.tar.gz with count pictures a batch, and let torchvision trust its checksums.

    A picture of class k is dark but for a bright square whose place and colour tell k.
    """
    random = np.random.RandomState(0)
    members = {"batches.meta": {"label_names": CLASSES, "num_cases_per_batch": count, "num_vis": 3072}}
    for name in [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]:
        labels = random.randint(10, size=count)
        pictures = random.randint(80, size=(count, 3, 32, 32))
        for picture, label in zip(pictures, labels):
            row, column = 4 + 12 * (label // 5), 2 + 6 * (label % 5)
            picture[label % 3, row : row + 8, column : column + 6] += 170
        members[name] = {
            "batch_label": name,
            "labels": labels.tolist(),
            "data": pictures.astype(np.uint8).reshape(count, -1),
            "filenames": [f"{i}.png" for i in range(count)],
        }
    archive = folder / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            blob = pickle.dumps(content)
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    monkeypatch.setattr(CIFAR10, "tgz_md5", calculate_md5(archive))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, None] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    return folder
