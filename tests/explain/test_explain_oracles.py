"""Each method against a slow second implementation, from the paper and without hooks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_nets import LinearNet, noise, one_thread, tiny  # noqa: F401
from torch import nn

from steel_core.explain.base import EXPLAINERS
from steel_core.models.base import BACKBONES

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
    pytest.mark.usefixtures("one_thread"),
]


def conv_by_loops(x, weight, bias, stride=1, pad=0):
    """Correlation of (C, H, W) with (O, C, k, k), one number at a time."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    out, size = weight.shape[0], weight.shape[2]
    rows, columns = (x.shape[1] - size) // stride + 1, (x.shape[2] - size) // stride + 1
    y = np.zeros((out, rows, columns))
    for o in range(out):
        for i in range(rows):
            for j in range(columns):
                patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
                y[o, i, j] = (patch * weight[o]).sum() + bias[o]
    return y


def bilinear_by_loops(grid, rows, columns):
    """Pixel centres aligned, edges repeated, as in every image editor."""
    out = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            y = np.clip((i + 0.5) * grid.shape[0] / rows - 0.5, 0, grid.shape[0] - 1)
            x = np.clip((j + 0.5) * grid.shape[1] / columns - 0.5, 0, grid.shape[1] - 1)
            top, left = int(y), int(x)
            low, right = min(top + 1, grid.shape[0] - 1), min(left + 1, grid.shape[1] - 1)
            dy, dx = y - top, x - left
            upper = grid[top, left] * (1 - dx) + grid[top, right] * dx
            lower = grid[low, left] * (1 - dx) + grid[low, right] * dx
            out[i, j] = upper * (1 - dy) + lower * dy
    return out


def cam_by_hand(net, image, target):
    """Grad-CAM grid of a `TinyNet`: the head's weights are the gradients."""
    weights = {name: value.detach().numpy() for name, value in net.named_parameters()}
    hidden = conv_by_loops(image, weights["features.0.weight"], weights["features.0.bias"], pad=1).clip(0)
    features = conv_by_loops(hidden, weights["features.2.weight"], weights["features.2.bias"], stride=2).clip(0)
    gradient = weights["head.weight"][target].reshape(features.shape)
    return sum(gradient[k].mean() * features[k] for k in range(len(features)))


@pytest.mark.parametrize("target", [0, 1, 2])
def test_grad_cam_equals_the_hand_computed_map(target):
    net, image = tiny().double(), noise(1, 3, 7, 9).double()
    expected = bilinear_by_loops(cam_by_hand(net, image[0].numpy(), target), 7, 9)
    got = EXPLAINERS["grad-cam"]().attribute(net, image, torch.tensor([target]))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(got[0, 0].numpy(), expected, rtol=1e-10, atol=1e-12)


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


def guided_gradient_by_hand(net, image, target):
    """Guided backpropagation through a `TinyNet`: masked where an activation's input or gradient is negative."""
    first, _, second, _ = net.features
    with torch.no_grad():
        before1 = first(image)
        before2 = second(before1.clamp(min=0))
        gradient = net.head.weight[target].reshape(before2.shape)
        gradient = gradient * (before2 > 0) * (gradient > 0)
        gradient = F.conv_transpose2d(gradient, second.weight, stride=2, output_padding=(0, 0))
        gradient = F.pad(gradient, (0, before1.shape[3] - gradient.shape[3], 0, before1.shape[2] - gradient.shape[2]))
        gradient = gradient * (before1 > 0) * (gradient > 0)
        return F.conv_transpose2d(gradient, first.weight, padding=1)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_guided_grad_cam_equals_the_explicit_masked_backward_pass(target):
    net, image = tiny(seed=2).double(), noise(1, 3, 7, 9).double()
    cam = cam_by_hand(net, image[0].numpy(), target).clip(0)  # the paper's ReLU
    guided = guided_gradient_by_hand(net, image, target)[0].sum(dim=0).numpy()
    got = EXPLAINERS["guided-grad-cam"]().attribute(net, image, torch.tensor([target]))
    np.testing.assert_allclose(got[0, 0].numpy(), guided * bilinear_by_loops(cam, 7, 9), rtol=1e-10, atol=1e-14)


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


def expected_gradients_by_loops(net, image, target, background, *, samples, seed):
    """One sample at a time, as in Erion et al., equation 3; shap's order of draws from numpy's Mersenne twister."""
    draws = np.random.RandomState(seed)
    products = []
    for _ in range(samples):
        reference = background[draws.choice(len(background))]
        share = np.float32(draws.uniform())
        point = (share * image + (1 - share) * reference).requires_grad_()
        (gradient,) = torch.autograd.grad(net(point[None])[0, target], point)
        products.append((gradient * (image - reference)).detach().double().numpy())
    return np.stack(products)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_shap_values_sum_to_the_difference_of_logits(target):
    """Completeness, within four standard errors of the Monte-Carlo mean."""
    net, image, background = tiny(), noise(1, 3, 7, 9) * 2, noise(4, 3, 7, 9, seed=2)
    samples = 1000
    got = EXPLAINERS["shap"](samples=samples).attribute(net, image, torch.tensor([target]), background=background)
    with torch.no_grad():
        expected = (net(image)[0, target] - net(background)[:, target].mean()).item()
    spread = (
        expected_gradients_by_loops(net, image[0], target, background, samples=200, seed=1).sum(axis=(1, 2, 3)).std()
    )
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
