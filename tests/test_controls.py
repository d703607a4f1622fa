"""tools/controls.py: every control runs, and changes what it says."""

import sys
from pathlib import Path

import pytest
import torch
import warm
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import controls  # noqa: E402
from bench import load_solution  # noqa: E402


@pytest.mark.parametrize("name", controls.CONTROLS)
def test_every_control_runs(name, tmp_path):
    finished = warm.run([controls.__file__, name, "--dry-run"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "This was a dry run" in finished.stdout


def test_the_usual_start_has_no_zero_weights():
    solution = load_solution("4")
    controls.usual_start(solution)
    for module in solution.build_resnet(50, width=16).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())


def test_padding_with_background_leaves_a_uniform_image_uniform():
    model = load_solution("5").SmallResNet(10, 16)
    background = torch.randn(1, 3, 1, 1)
    features = controls.pad_with(background, model).conv1(background.expand(1, 3, 8, 8))
    assert torch.allclose(features, features[:, :, :1, :1].expand_as(features), atol=1e-6)
