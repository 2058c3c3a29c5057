"""Expected gradients: against shap on the same points, against sums that are known, and the error that they report."""

import math
from itertools import pairwise

import numpy as np
import pytest
import shap
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_nets import CONFIG, LinearNet, noise, one_thread, tiny  # noqa: F401
from torch import nn

from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, TargetLogit
from steel_core.explain.methods import expected_gradients
from steel_core.explain.methods.expected_gradients import evenly, products
from steel_core.models.base import BACKBONES, Classifier

pytestmark = pytest.mark.usefixtures("one_thread")

FIRST = torch.tensor([0])


class Curved(Classifier):
    """A cubic of each pixel: the map is known in closed form, and a few midpoints do not give it exactly."""

    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        total = (features**3).sum(dim=(1, 2, 3))
        return torch.stack([total, -total], dim=1)


class Walk(Classifier):
    """One logit whose slope along each pixel is a random walk: what the standard error takes for granted."""

    config = CONFIG
    steps = 4096

    def __init__(self, pixels: int, seed: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        walks = noise(pixels, self.steps, seed=seed).double().cumsum(1) / self.steps**0.5
        self.register_buffer("walks", walks)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        x = features[:, 0].flatten(1).clamp(0, 1 - 1e-9)
        pixels = torch.arange(x.shape[1])
        slopes = torch.stack([self.walks[pixels, (row.detach() * self.steps).long()] for row in x])
        return (slopes * x).sum(dim=1, keepdim=True)


def shap_map(samples=200, **inputs):
    return EXPLAINERS["shap"](samples=samples).attribute(**inputs)


@pytest.mark.parametrize("name", ["squeezenet-reduced", "resnet18", "efficientnet-lite-reduced"])
def test_agrees_with_shap_on_the_same_points(name):
    """shap draws a reference, then a share, for each sample from numpy's Mersenne twister."""
    torch.manual_seed(0)
    model = BACKBONES[name](3).eval()
    nn.init.normal_(model.head.weight, std=0.3)
    image, background = noise(1, 3, 48, 40), noise(4, 3, 48, 40, seed=2)
    explainer = shap.GradientExplainer(TargetLogit(model, torch.tensor([1])), background, batch_size=10)
    expected = torch.from_numpy(explainer.shap_values(image, nsamples=30, rseed=7)[..., 0]).sum(dim=1)[0]
    draws = np.random.RandomState(7)
    rows, shares = zip(*((draws.choice(4), draws.uniform()) for _ in range(30)), strict=True)
    got = products(model, image, torch.tensor([1]), background[list(rows)], torch.tensor(shares)).mean(dim=0)
    assert torch.linalg.norm(got - expected) < 5e-3 * torch.linalg.norm(expected)


@settings(max_examples=40, deadline=None)
@given(references=st.integers(1, 30), samples=st.integers(1, 90))
def test_a_linear_net_is_exact_for_any_numbers(references, samples):
    """Weight times difference from the mean of the references; every reference counts alike, however the steps fall."""
    net = LinearNet(3 * 3 * 4).double().eval()
    image, background = noise(1, 3, 3, 4).double(), noise(references, 3, 3, 4, seed=2).double()
    got = shap_map(samples, model=net, inputs=image, targets=torch.tensor([1]), background=background)
    weight = net.head.weight[1].reshape(3, 3, 4).detach()
    mean = evenly(background, samples).mean(dim=0)
    torch.testing.assert_close(got[0, 0], (weight * (image[0] - mean)).sum(dim=0), rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), samples=st.integers(1, 60))
def test_the_error_of_a_cubic_is_the_midpoint_rules(seed, samples):
    """The integral of the slope 3 (r + t d)^2 d over t from 0 to 1, by n midpoints, is d^3 / (4 n^2) too small."""
    image, reference = noise(1, 1, 3, 4, seed=seed).double(), noise(1, 1, 3, 4, seed=seed + 1).double()
    got = shap_map(samples, model=Curved(), inputs=image, targets=FIRST, background=reference)
    exact, step = image**3 - reference**3, image - reference
    torch.testing.assert_close(got, exact - step**3 / (4 * samples**2), rtol=1e-8, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), target=st.integers(0, 2))
def test_completeness(seed, target):
    """The sum is the logit minus the mean logit of the background, within a fiftieth of the values' magnitudes."""
    net, image, background = tiny(), noise(1, 3, 7, 9, seed=seed), noise(4, 3, 7, 9, seed=seed + 1)
    got = shap_map(400, model=net, inputs=image, targets=torch.tensor([target]), background=background)
    with torch.no_grad():
        expected = net(image)[0, target] - net(background)[:, target].mean()
    assert abs(got.sum() - expected) < 0.02 * got.abs().sum()


def test_a_constant_image_on_its_own_background_is_zero_without_error():
    grey = torch.full((1, 3, 7, 9), 0.3)
    *_, last = EXPLAINERS["shap"]().refine(tiny(), grey, FIRST, background=grey.expand(2, -1, -1, -1))
    assert torch.equal(last.values, torch.zeros(1, 1, 7, 9))
    assert last.noise.item() == 0


def test_more_references_than_samples_are_used_evenly():
    background = torch.arange(10.0)[:, None, None, None]
    assert evenly(background, 4).flatten().tolist() == [0, 2, 5, 7]
    assert evenly(background, 40).flatten().tolist() == list(range(10))


def test_several_targets_of_one_image():
    net, image, background = tiny(), noise(1, 3, 7, 9), noise(4, 3, 7, 9, seed=2)
    weights = torch.eye(3)
    together = shap_map(40, model=net, inputs=image.expand(3, -1, -1, -1), targets=weights, background=background)
    for target in range(3):
        alone = shap_map(40, model=net, inputs=image, targets=torch.tensor([target]), background=background)
        torch.testing.assert_close(together[target : target + 1], alone)


@pytest.mark.parametrize("name", ["shap", "integrated-gradients"])
def test_refinement_starts_at_once_gets_better_and_ends_with_the_map(name):
    net, images, background = tiny(), noise(2, 3, 7, 9), noise(20, 3, 7, 9, seed=2)
    method, targets = EXPLAINERS[name](), torch.tensor([0, 2])
    steps = list(method.refine(net, images, targets, background=background))
    exact = EXPLAINERS[name](samples=2000).attribute(net, images, targets, background=background)
    error = [torch.linalg.norm(step.values - exact).item() for step in steps]
    assert steps[0].share <= 8 / 50 and steps[-1].share == 1
    assert all(later.share >= min(1, 2 * earlier.share) for earlier, later in pairwise(steps))
    assert error[-1] < 0.2 * error[0]
    assert torch.equal(steps[-1].values, method.attribute(net, images, targets, background=background))
    assert all(step.noise.shape == (2,) and step.values.shape == (2, 1, 7, 9) for step in steps)


def test_any_beginning_is_spread_over_all_lines():
    """After each round the shares of all references together are nearly even, and so are each one's own."""
    which, shares = expected_gradients._plan(20, 200)
    for rounds in range(1, 11):
        seen = shares[: 20 * rounds].sort().values
        assert (seen - (torch.arange(20 * rounds) + 0.5) / (20 * rounds)).abs().max() < 0.12
        for row in range(20):
            own = shares[: 20 * rounds][which[: 20 * rounds] == row].sort().values
            assert len(own) == rounds
            assert own.diff(append=own[:1] + 1).max() < 2.3 / rounds
    for row in range(20):
        torch.testing.assert_close(shares[which == row].sort().values, (torch.arange(10).double() + 0.5) / 10)


@pytest.mark.parametrize("samples", [16, 50, 75])
def test_the_standard_error_is_right_where_its_assumption_holds(samples):
    """On random walks, ten times over; 400 pixels each, so that the spread of the ratio itself is small."""
    ratios = []
    for seed in range(10):
        model, reference = Walk(400, seed), torch.zeros(1, 1, 20, 20).double()
        image = reference + 1
        *_, last = EXPLAINERS["shap"](samples=samples).refine(model, image, FIRST, background=reference)
        exact = model.walks.mean(dim=1).reshape(1, 1, 20, 20)
        ratios.append((torch.linalg.norm(last.values - exact) / torch.linalg.norm(exact) / last.noise).item())
    assert 0.8 < np.median(ratios) < 1.25
    assert min(ratios) > 0.7
    assert max(ratios) < 1.4


def test_the_standard_error_follows_the_error_of_a_network():
    """Within a factor of two and a half, however many the samples; it falls with them."""
    torch.manual_seed(0)
    model = BACKBONES["squeezenet-reduced"](3).eval()
    image, background = noise(1, 3, 33, 33), noise(6, 3, 33, 33, seed=2) * 0.3
    exact = shap_map(900, model=model, inputs=image, targets=FIRST, background=background)
    reported = []
    for samples in (18, 60, 120):
        *_, last = EXPLAINERS["shap"](samples=samples).refine(model, image, FIRST, background=background)
        error = torch.linalg.norm(last.values - exact) / torch.linalg.norm(exact)
        assert 0.4 < error / last.noise.item() < 2.5
        reported.append(last.noise.item())
    assert reported == sorted(reported, reverse=True)


def test_a_single_point_says_nothing_about_its_error():
    (only,) = EXPLAINERS["shap"](samples=1).refine(
        tiny(), noise(1, 3, 7, 9), FIRST, background=noise(4, 3, 7, 9, seed=2)
    )
    assert only.share == 1 and math.isinf(only.noise.item())


@pytest.mark.parametrize("name", ["shap", "integrated-gradients"])
def test_settings_that_mean_nothing_are_refused(name):
    with pytest.raises(UsageError, match="expected at least 1, got 0"):
        EXPLAINERS[name](samples=0)
