"""Integrated gradients and DeepSHAP against captum, and what additive methods promise, over the registry."""

import pytest
import torch
from captum.attr import DeepLiftShap
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from tiny_nets import LinearNet, backbone, noise, one_thread, tiny  # noqa: F401

from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, TargetLogit
from steel_core.explain.hooks import isolated
from steel_core.explain.methods.expected_gradients import evenly

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:(Input Tensor 0 did not|Setting forward, backward hooks):UserWarning"),
]

TARGETS = torch.tensor([2, 0])
BACKBONE_NAMES = {"squeezenet-reduced": 2, "resnet18": 0, "efficientnet-lite-reduced": 1}
"""Each with the class whose logit differs most between noise and grey."""
ADDITIVE = [name for name in EXPLAINERS if EXPLAINERS[name].info.additive]


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_integrated_gradients_equals_captum(name):
    """On the same points, so up to rounding, which flips a ReLU here and there."""
    model, images = backbone(name, 3), noise(2, 3, 40, 48)
    got = EXPLAINERS["integrated-gradients"](samples=12).attribute(model, images, TARGETS)
    method = CaptumIntegratedGradients(model)
    expected = method.attribute(images, target=TARGETS, n_steps=12, method="riemann_middle").sum(dim=1, keepdim=True)
    assert torch.linalg.norm(got - expected) < 1e-3 * torch.linalg.norm(expected)


def test_integrated_gradients_of_a_linear_net_is_weight_times_pixel():
    net, image = LinearNet(3 * 5 * 6).double().eval(), noise(1, 3, 5, 6).double()
    got = EXPLAINERS["integrated-gradients"]().attribute(net, image, torch.tensor([1]))
    expected = (net.head.weight[1].reshape(3, 5, 6) * image[0]).sum(dim=0).detach()
    torch.testing.assert_close(got[0, 0], expected, rtol=1e-9, atol=1e-10)


def test_deep_shap_equals_captum_on_a_residual_network_without_max_pooling():
    """Max-pooling is left out: captum's rule for it does not add up, see `methods/deep_lift.py`."""
    net = backbone("efficientnet-lite-reduced", 3).double()
    images, background = noise(2, 3, 40, 48).double(), noise(3, 3, 40, 48, seed=2).double()
    got = EXPLAINERS["deep-shap"]().attribute(net, images, TARGETS, background=background)
    for row, target in enumerate(TARGETS):
        with isolated(net) as private:
            logit = TargetLogit(private, target[None])
            expected = DeepLiftShap(logit).attribute(images[row : row + 1], background).sum(dim=1)
        assert torch.linalg.norm(got[row] - expected) < 1e-4 * torch.linalg.norm(expected)


def test_deep_shap_is_the_mean_of_its_references_and_uses_them_evenly():
    net, image, background = tiny(), noise(1, 3, 7, 9), noise(9, 3, 7, 9, seed=2)
    first = torch.tensor([0])
    got = EXPLAINERS["deep-shap"](references=4).attribute(net, image, first, background=background)
    used = evenly(background, 4)
    each = [EXPLAINERS["deep-shap"]().attribute(net, image, first, background=one[None]) for one in used]
    torch.testing.assert_close(got, torch.stack(each).mean(dim=0))


def test_deep_shap_refuses_no_references():
    with pytest.raises(UsageError, match="expected at least 1, got 0"):
        EXPLAINERS["deep-shap"](references=0)


@pytest.mark.parametrize("backbone_name", BACKBONE_NAMES)
@pytest.mark.parametrize("name", ADDITIVE)
def test_additive_methods_sum_to_the_difference_of_logits(name, backbone_name):
    """Within a hundredth of the values' magnitudes; the reference is mean grey or the background."""
    model, image, background = backbone(backbone_name, 3), noise(1, 3, 32, 40), noise(2, 3, 32, 40, seed=2) * 0.3
    target = torch.tensor([BACKBONE_NAMES[backbone_name]])
    got = EXPLAINERS[name]().attribute(model, image, target, background=background)
    references = background if "background" in EXPLAINERS[name].info.needs else torch.zeros_like(image)
    with torch.no_grad():
        expected = (model(image) - model(references).mean(dim=0))[0, target]
    tolerance = 0.01 * got.abs().sum()
    assert abs(expected) > 2 * tolerance, "the tolerance would let anything pass"
    assert abs(got.sum() - expected) < tolerance


def test_the_additive_methods_are_known():
    assert {"shap", "deep-shap", "integrated-gradients"} <= set(ADDITIVE)
