"""tools/challenge.py: it trains for the time it is given, and refuses what is too large."""

import re
import shutil

import warm
from course import ROOT, SOLUTIONS

TINY = ("--minutes", "0.02", "--train-images", "64", "--test-images", "50")
NETWORK = """
from torch import nn


def build_network(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(CHANNELS, num_classes),
    )
"""


def run(folder, text):
    """Run the challenge on a file with this text, in a folder."""
    (folder / "my_network.py").write_text(text, "utf-8")
    return warm.run([ROOT / "tools" / "challenge.py", "my_network.py", *TINY], folder)


def test_a_network_is_trained_and_tested(tmp_path):
    finished = run(tmp_path, NETWORK.replace("CHANNELS", "4"))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("my_network: 162 parameters, ")
    assert "of 50 test images correctly (shapes, seed 0)" in finished.stdout
    assert " 0.0 epochs" not in finished.stdout


def test_a_large_network_is_refused(tmp_path):
    finished = run(tmp_path, NETWORK.replace("CHANNELS", "99"))
    assert finished.returncode == 1
    assert "has 3,772 parameters, 500 are allowed" in finished.stderr


def test_a_file_without_a_network_is_refused(tmp_path):
    finished = run(tmp_path, "RATE = 1\n")
    assert finished.returncode == 1
    assert "has no function build_network(num_classes)" in finished.stderr


def test_the_example_of_the_page_takes_part(tmp_path):
    page = (ROOT / "EXERCISES.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copy(SOLUTIONS["2"], tmp_path)
    finished = run(tmp_path, example)
    assert finished.returncode == 0, finished.stderr
