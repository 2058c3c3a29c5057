"""The fast path against the plain one, on every registered backbone and some of torchvision's."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_nets import backbone, noise, one_thread, tiny  # noqa: F401
from torch import nn

from steel_core.explain import cpu_kernels, engine
from steel_core.explain.base import EXPLAINERS
from steel_core.models.base import BACKBONES

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
    pytest.mark.usefixtures("one_thread"),
]

CLASSES = 4
OF_TORCHVISION = [
    f"torchvision:{name}"
    for name in ("resnet18", "mobilenet_v3_small@features", "shufflenet_v2_x0_5@conv5", "squeezenet1_1@features")
]
SIZES = {1: (65, 83), 8: (35, 46)}
"""Odd numbers of rows and columns, for a batch of that many images."""

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest distance of two results as a share of their norm."""

ROUNDED = {"gradient", "guided gradient", "guided-grad-cam"}
"""What goes backward through all ReLUs: rounding in float32 opens or closes one here and there."""


def results(model, images, targets):
    """All that the engine computes for the methods that it serves."""
    logits, averaged = engine.predict(model, images)
    gradient_logits, gradient = engine.gradients(model, images, targets)
    answer = {"logits": logits, "averaged features": averaged, "logits beside": gradient_logits, "gradient": gradient}
    if engine.supports(model):
        forward, both = (engine.explain(model, images, targets, guided=guided) for guided in (False, True))
        answer |= {"logits of a forward pass": forward.logits, "logits of both": both.logits}
        answer |= {"Grad-CAM": forward.cam, "the same beside": both.cam, "guided gradient": both.guided}
    for method in ("grad-cam", "guided-grad-cam"):
        answer[method] = EXPLAINERS[method]().attribute(model, images, targets)
    return answer


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("batch", SIZES)
@pytest.mark.parametrize("folded", [False, True], ids=["as trained", "folded"])
@pytest.mark.parametrize("name", [*BACKBONES, *OF_TORCHVISION])
def test_both_paths_give_the_same(name, folded, batch, dtype):
    model, images = backbone(name, CLASSES, folded).to(dtype), noise(batch, 3, *SIZES[batch]).to(dtype)
    targets = nn.functional.one_hot(torch.arange(batch) % CLASSES, CLASSES).to(dtype)
    with torch.no_grad():
        targets *= model(images).sign()  # so that something argues for the target, which Guided Grad-CAM keeps
    fast = results(model.to(memory_format=torch.channels_last), images, targets)
    with cpu_kernels.plain_path():
        plain = results(model.to(memory_format=torch.contiguous_format), images, targets)
    for what, expected in plain.items():
        assert expected.any(), what
        tolerance = 2e-2 if dtype == torch.float32 and what in ROUNDED else TOLERANCE[dtype]
        assert (fast[what] - expected).norm() < tolerance * expected.norm(), what


def test_the_plain_path_calls_nothing_of_the_fast_one(monkeypatch):
    def fast(*_, **__):
        raise AssertionError("the fast path")

    for name in ("_convolve", "_drop_negative", "linear_head_cams"):
        monkeypatch.setattr(cpu_kernels, name, fast)
    model, images, targets = backbone("squeezenet-reduced", CLASSES), noise(1, 3, 33, 40), torch.tensor([1])
    with cpu_kernels.plain_path():
        results(model, images, targets)
    with pytest.raises(AssertionError, match="the fast path"):
        results(model, images, targets)


def test_the_switch_is_the_calling_threads_and_falls_back():
    with ThreadPoolExecutor(1) as pool:
        assert not cpu_kernels.is_plain()
        with cpu_kernels.plain_path():
            assert cpu_kernels.is_plain()
            assert not pool.submit(cpu_kernels.is_plain).result()
            with pytest.raises(ZeroDivisionError), cpu_kernels.plain_path():
                raise ZeroDivisionError
            assert cpu_kernels.is_plain()
        assert not cpu_kernels.is_plain()


@pytest.mark.parametrize(("value", "plain"), [("1", True), ("0", False), ("", False)])
def test_the_environment_decides_for_the_whole_process(value, plain):
    code = "from steel_core.explain.cpu_kernels import is_plain; print(is_plain())"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"STEEL_PLAIN_PATH": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(plain)
