"""The example of docs/add-an-explainer.md, run as it stands."""

import re

import oracles
import pytest
import torch
from helpers.small import ROOT
from tiny_nets import noise, one_thread, tiny  # noqa: F401

from steel_core.explain.base import EXPLAINERS

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = (ROOT / "docs" / "add-an-explainer.md").read_text(encoding="utf-8")


@pytest.fixture
def example(monkeypatch):
    """Both pieces as the page shows them, entered for the time of a test."""
    monkeypatch.setattr(EXPLAINERS, "_entries", {name: EXPLAINERS[name] for name in EXPLAINERS})
    monkeypatch.setattr(oracles, "ORACLES", dict(oracles.ORACLES))
    method, oracle = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    exec(compile(method, "the method on the page", "exec"), {"__name__": "example"})
    exec(compile(oracle, "the oracle on the page", "exec"), vars(oracles) | {"__name__": "example"})
    return "input-x-gradient"


def test_the_example_agrees_with_its_oracle(example):
    oracles.assert_agrees(example)


def test_the_example_without_its_oracle_is_refused(example):
    del oracles.ORACLES[example]
    with pytest.raises(pytest.fail.Exception, match=f"expected an oracle for {example}"):
        oracles.assert_agrees(example)


def test_the_example_keeps_the_contract(example):
    images = noise(2, 3, 7, 9)
    values = EXPLAINERS[example]().attribute(tiny(), images, torch.tensor([0, 1]))
    assert values.shape == (2, 1, 7, 9)
    assert values.dtype == torch.float32
    assert not values.requires_grad


def test_the_page_names_what_there_is():
    """Every module, class and file that stands on the page in code."""
    for module, name in re.findall(r"`(?:with )?(engine|hooks|cpu_kernels|methods\.\w+)\.(?!py`)(\w+)", PAGE):
        assert hasattr(__import__(f"steel_core.explain.{module}", fromlist=[name]), name), f"{module}.{name}"
    for file in re.findall(r"`(\w+\.py)`", PAGE):
        assert (ROOT / "steel_core" / "explain" / "methods" / file).is_file(), file
    for file in re.findall(r"`((?:tests|steel_core)/[\w/]+\.py)`", PAGE):
        assert (ROOT / file).is_file(), file
