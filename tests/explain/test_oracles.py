"""Each explainer against its oracle, and some against second ones on whole backbones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import assert_agrees, find_oracle
from tiny_nets import LinearNet, noise, one_thread, tiny  # noqa: F401
from torch import nn

from steel_core.explain.base import EXPLAINERS
from steel_core.models.base import BACKBONES

pytestmark = [
    pytest.mark.filterwarnings("ignore:(Input Tensor 0 did not|Setting (forward, )?backward hooks):UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]

NAMES = [name for name in EXPLAINERS if EXPLAINERS[name].__module__.startswith("steel_core.")]
"""Those of this library; what other packages add is theirs to test."""


@pytest.mark.parametrize("name", NAMES)
def test_an_explainer_agrees_with_its_oracle(name):
    assert_agrees(name)


@pytest.mark.parametrize("name", NAMES)
def test_an_explainer_with_its_sign_flipped_does_not(name):
    parameters = find_oracle(name).parameters

    class Flipped(EXPLAINERS[name]):
        def _attribute(self, query):
            return -super()._attribute(query)

    with pytest.raises(AssertionError, match="not close"):
        assert_agrees(name, Flipped(**parameters))


@pytest.mark.parametrize("check", [assert_agrees, test_an_explainer_with_its_sign_flipped_does_not])
def test_an_explainer_without_an_oracle_is_refused(check):
    with pytest.raises(pytest.fail.Exception, match=r"expected an oracle for grad-kam in tests/explain/oracles\.py"):
        check("grad-kam")


def test_grad_cam_of_a_linear_head_is_the_classes_share_of_the_logit():
    """Grad-CAM of a global average of a 1x1 convolution is the class activation map (Zhou et al., CVPR 2016)."""
    torch.manual_seed(0)
    net = BACKBONES["squeezenet-reduced"](classes=4).double().eval()
    images, targets = noise(2, 3, 64, 80).double(), torch.tensor([3, 1])
    with torch.no_grad():
        features = net.features(images)
        grid = (net.head.weight[targets] * features).sum(dim=1, keepdim=True) / features[0, 0].numel()
        logits = net(images).gather(1, targets[:, None])[:, 0] - net.head.bias[targets]
    torch.testing.assert_close(grid.sum(dim=(1, 2, 3)), logits, rtol=1e-10, atol=1e-12)
    expected = F.interpolate(grid, size=(64, 80), mode="bilinear", align_corners=False)
    got = EXPLAINERS["grad-cam"]().attribute(net, images, targets)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)


class GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (x > 0)


class GuidedReluModule(nn.Module):
    def forward(self, x):
        return GuidedRelu.apply(x)


def test_guided_grad_cam_of_squeezenet_equals_replaced_activations():
    torch.manual_seed(0)
    net = BACKBONES["squeezenet-reduced"](classes=4).double().eval()
    images, targets = noise(2, 3, 48, 64).double(), torch.tensor([2, 0])
    got = EXPLAINERS["guided-grad-cam"]().attribute(net, images, targets)
    cam = EXPLAINERS["grad-cam"]().attribute(net, images, targets)
    with torch.no_grad():
        features = net.features(images)
        grid = (net.head.weight[targets] * features).mean(dim=1, keepdim=True) * features.shape[1]
        cam = F.interpolate(grid.relu() / features[0, 0].numel(), size=(48, 64), mode="bilinear")
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, GuidedReluModule())
    images.requires_grad_()
    (guided,) = torch.autograd.grad(net(images).gather(1, targets[:, None]).sum(), images)
    expected = guided.sum(dim=1, keepdim=True) * cam
    assert expected.abs().max() > 0
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_shap_values_sum_to_the_difference_of_logits(target):
    """Completeness, within four standard errors of the Monte-Carlo mean."""
    net, image, background = tiny(), noise(1, 3, 7, 9) * 2, noise(4, 3, 7, 9, seed=2)
    samples = 1000
    got = EXPLAINERS["shap"](samples=samples).attribute(net, image, torch.tensor([target]), background=background)
    with torch.no_grad():
        expected = (net(image)[0, target] - net(background)[:, target].mean()).item()
    draws, products = np.random.RandomState(1), []
    for _ in range(200):  # one sample at a time, as in Erion et al., equation 3
        reference = background[draws.choice(len(background))]
        point = (reference + np.float32(draws.uniform()) * (image[0] - reference)).requires_grad_()
        (gradient,) = torch.autograd.grad(net(point[None])[0, target], point)
        products.append((gradient * (image[0] - reference)).sum().item())
    spread = np.std(products)
    tolerance = 4 * spread / samples**0.5
    assert tolerance < 0.25 * max(abs(expected), 0.2), "the tolerance would let anything pass"
    assert got.sum().item() == pytest.approx(expected, abs=tolerance)


def test_shap_of_a_linear_net_is_weight_times_difference():
    torch.manual_seed(0)
    net = LinearNet(3 * 5 * 6).eval()
    image, reference = noise(1, 3, 5, 6), noise(1, 3, 5, 6, seed=2)
    got = EXPLAINERS["shap"](samples=10).attribute(net, image, torch.tensor([1]), background=reference)
    expected = (net.head.weight[1].reshape(3, 5, 6) * (image - reference)[0]).sum(dim=0).detach()
    torch.testing.assert_close(got[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_shap_of_the_background_itself_is_zero():
    background = torch.full((1, 3, 7, 9), 0.3)
    got = EXPLAINERS["shap"]().attribute(tiny(), background.clone(), torch.tensor([0]), background=background)
    assert torch.equal(got, torch.zeros(1, 1, 7, 9))
