"""What each explainer's map must be, worked out another way: slowly from the paper, by hand, by captum or by scipy.

One function an explainer, tied to its name, of one image on a network of two convolutions in float64. `test_oracles.py`
compares them, and wants an oracle for every explainer of this library.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, DeepLiftShap, IntegratedGradients
from scipy import ndimage
from skimage.segmentation import slic
from tiny_nets import TinyNet, noise, tiny
from torch import Tensor

from steel_core.explain.base import EXPLAINERS, Explainer, TargetLogit
from steel_core.explain.hooks import isolated

IMAGES = noise(3, 3, 7, 9).double()
BACKGROUND = noise(5, 3, 7, 9, seed=2).double()
TARGETS = torch.tensor([0, 1, 2])
SEED = 5


class Case(NamedTuple):
    """One image (1, 3, 7, 9), and what is asked about it; all numbers are float64."""

    net: TinyNet
    image: Tensor
    target: int
    background: Tensor
    seed: int

    def logit(self, images: Tensor) -> Tensor:
        """The target's (N,) of any images (N, 3, 7, 9)."""
        return self.net(images)[:, self.target]

    def gradient(self, image: Tensor) -> Tensor:
        """Of the target's logit at an image (1, 3, 7, 9), by autograd."""
        leaf = image.clone().requires_grad_()
        return torch.autograd.grad(self.logit(leaf).sum(), leaf)[0]


class Oracle(NamedTuple):
    """The map (7, 9) of a case, the explainer's settings for it, and how far the two may lie apart."""

    expect: Callable[[Case], Any]
    parameters: dict[str, Any]
    rtol: float
    atol: float


ORACLES: dict[str, Oracle] = {}


def oracle(name: str, *, rtol: float = 1e-9, atol: float = 1e-12, **parameters: Any) -> Callable[..., Any]:
    """Decorator that ties an oracle to an explainer; `parameters` are the explainer's settings."""

    def tie(expect: Callable[[Case], Any]) -> Callable[[Case], Any]:
        ORACLES[name] = Oracle(expect, parameters, rtol, atol)
        return expect

    return tie


def find_oracle(name: str) -> Oracle:
    if name not in ORACLES:
        pytest.fail(f"expected an oracle for {name} in tests/explain/oracles.py")
    return ORACLES[name]


def assert_agrees(name: str, explainer: Explainer | None = None) -> None:
    """That the explainer of that name, or another one, gives what the oracle of that name expects."""
    expect, parameters, rtol, atol = find_oracle(name)
    net = tiny(seed=4).double()
    explainer = explainer or EXPLAINERS[name](**parameters)
    values = explainer.attribute(net, IMAGES, TARGETS, background=BACKGROUND, seed=SEED)[:, 0]
    cases = [Case(net, IMAGES[k : k + 1], k, BACKGROUND, SEED) for k in TARGETS.tolist()]
    expected = torch.stack([torch.as_tensor(expect(case)).detach().double() for case in cases])
    assert (expected.abs().amax(dim=(1, 2)) > 1e4 * atol).all(), "the tolerance would let anything pass"
    torch.testing.assert_close(values, expected, rtol=rtol, atol=atol)


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


def cam_by_hand(case):
    """Grad-CAM grid of a `TinyNet`: the head's weights are the gradients."""
    weights = {name: value.detach().numpy() for name, value in case.net.named_parameters()}
    image = case.image[0].numpy()
    hidden = conv_by_loops(image, weights["features.0.weight"], weights["features.0.bias"], pad=1).clip(0)
    features = conv_by_loops(hidden, weights["features.2.weight"], weights["features.2.bias"], stride=2).clip(0)
    gradient = weights["head.weight"][case.target].reshape(features.shape)
    return sum(gradient[k].mean() * features[k] for k in range(len(features)))


def guided_gradient_by_hand(case):
    """Through a `TinyNet` (1, 3, 7, 9): masked where an activation's input or gradient is negative."""
    first, _, second, _ = case.net.features
    with torch.no_grad():
        before1 = first(case.image)
        before2 = second(before1.clamp(min=0))
        gradient = case.net.head.weight[case.target].reshape(before2.shape)
        gradient = gradient * (before2 > 0) * (gradient > 0)
        gradient = F.conv_transpose2d(gradient, second.weight, stride=2, output_padding=(0, 0))
        gradient = F.pad(gradient, (0, before1.shape[3] - gradient.shape[3], 0, before1.shape[2] - gradient.shape[2]))
        gradient = gradient * (before1 > 0) * (gradient > 0)
        return F.conv_transpose2d(gradient, first.weight, padding=1)


@oracle("grad-cam", rtol=1e-10)
def grad_cam(case):
    return bilinear_by_loops(cam_by_hand(case), 7, 9)


@oracle("guided-backprop")
def guided_backprop(case):
    return guided_gradient_by_hand(case)[0].sum(dim=0)


@oracle("guided-grad-cam", atol=1e-14)
def guided_grad_cam(case):
    cam = cam_by_hand(case).clip(0)  # the paper's ReLU
    return guided_backprop(case).numpy() * bilinear_by_loops(cam, 7, 9)


@oracle("guided-input")
def guided_input(case):
    medians = case.image.flatten(2).sort(dim=2).values[..., 31]  # of 63 pixels
    return (guided_gradient_by_hand(case) * (case.image - medians[..., None, None]))[0].sum(dim=0)


@oracle("gradient", rtol=1e-5, atol=1e-8)
def gradient_by_finite_differences(case):
    """All channels of a pixel change together: the slope along grey."""
    steps = 1e-6 * torch.eye(63).double().reshape(63, 1, 7, 9)
    return (case.logit(case.image + steps) - case.logit(case.image - steps)).reshape(7, 9) / 2e-6


@oracle("smooth-grad", rtol=1e-7, atol=1e-9, samples=11, noise=0.2)
def gradient_of_noisy_copies(case):
    generator = torch.Generator().manual_seed(case.seed)
    spread = 0.2 * (case.image.max() - case.image.min())
    copies = [case.image + spread * torch.randn(1, 7, 9, generator=generator) for _ in range(11)]
    return torch.stack([case.gradient(copy)[0].sum(dim=0) for copy in copies]).mean(dim=0)


@oracle("integrated-gradients", rtol=1e-6, atol=1e-8, samples=12)  # captum takes its steps in float32
def integrated_gradients_by_captum(case):
    method = IntegratedGradients(case.net)
    return method.attribute(case.image, target=case.target, n_steps=12, method="riemann_middle")[0].sum(dim=0)


@oracle("shap", rtol=1e-9, atol=1e-12, samples=20)
def expected_gradients_by_loops(case):
    """The midpoints of four equal steps for each of five references, point by point."""
    total = torch.zeros(3, 7, 9).double()
    for reference in case.background:
        for step in range(4):
            point = reference + (step + 0.5) / 4 * (case.image - reference)
            total += (case.gradient(point) * (case.image - reference))[0] / 20
    return total.sum(dim=0)


@oracle("deep-lift")
def deep_lift_by_captum(case):
    with isolated(case.net) as private:
        logit = TargetLogit(private, torch.tensor([case.target] * 2))  # captum appends the reference to the batch
        return DeepLift(logit).attribute(case.image.clone(), torch.zeros_like(case.image))[0].sum(dim=0)


@oracle("deep-shap")
def deep_shap_by_captum(case):
    with isolated(case.net) as private:
        logit = TargetLogit(private, torch.tensor([case.target]))
        return DeepLiftShap(logit).attribute(case.image.clone(), case.background)[0].sum(dim=0)


@oracle("occlusion", steps=3)
def occlusion_by_loops(case):
    """Three places a side: windows of rows 0-3, 2-4, 4-6 (of 7) and columns 0-3, 2-6, 4-8 (of 9)."""
    falls = [[[] for _ in range(9)] for _ in range(7)]
    for rows in (range(4), range(2, 5), range(4, 7)):
        for columns in (range(4), range(2, 7), range(4, 9)):
            hidden = case.image.clone()
            for i in rows:
                for j in columns:
                    hidden[0, :, i, j] = 0
            fall = (case.logit(case.image) - case.logit(hidden)).item()
            for i in rows:
                for j in columns:
                    falls[i][j].append(fall)
    return [[np.mean(cell) for cell in row] for row in falls]


@oracle("lime", rtol=1e-7, atol=1e-9, samples=40, superpixels=6)
def lime_by_the_normal_equations(case):
    """Weighted least squares with a penalty of 1 on all but the intercept; SLIC and the draws are the method's own."""
    grey = case.image[0].mean(dim=0).numpy()
    labels = slic(grey, n_segments=6, compactness=0.1, sigma=1.0, start_label=0, channel_axis=None)
    names = sorted(set(labels.ravel()))
    draws = torch.rand(40, len(names), generator=torch.Generator().manual_seed(case.seed)).numpy() < 0.5
    draws[0] = True
    rows, logits, weights = [], [], []
    for draw in draws:
        hidden = case.image.clone()
        for name, shown in zip(names, draw, strict=True):
            if not shown:
                hidden[0, :, torch.from_numpy(labels == name)] = 0
        cosine = draw.sum() / (np.sqrt(draw.sum()) * np.sqrt(len(names))) if draw.any() else 0.0
        rows.append([1.0, *draw.astype(float)])
        logits.append(case.logit(hidden).item())
        weights.append(np.sqrt(np.exp(-((1 - cosine) ** 2) / 0.25**2)))
    design, weighted = np.array(rows), np.diag(weights)
    penalty = np.diag([0.0, *np.ones(len(names))])
    solution = np.linalg.solve(design.T @ weighted @ design + penalty, design.T @ weighted @ np.array(logits))
    return np.select([labels == name for name in names], list(solution[1:]))


@oracle("random", rtol=1e-9, atol=1e-9)
def blobs_by_an_explicit_kernel(case):
    """White noise, seeded with the pixels and the seed, under a Gaussian cut at four deviations, edges mirrored."""
    seed = crc32(case.image[0].float().numpy().tobytes(), case.seed)
    values = torch.randn(7, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
    places = np.arange(-2, 3)  # the deviation is 7 / 16 of a pixel
    kernel = np.exp(-0.5 * (places / (7 / 16)) ** 2)
    for axis in (0, 1):
        padded = np.pad(values, [(2, 2) if axis == side else (0, 0) for side in (0, 1)], mode="symmetric")
        values = np.apply_along_axis(np.convolve, axis, padded, kernel / kernel.sum(), mode="valid")
    return values / values.std(ddof=1)


@oracle("sobel")
def sobel_by_scipy(case):
    grey = case.image[0].mean(dim=0).numpy()
    return np.hypot(*(ndimage.sobel(grey, axis, mode="reflect") / 4 for axis in (0, 1))) / np.sqrt(2)
