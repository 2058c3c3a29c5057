"""Losses against PyTorch's own and against the papers' formulas written out in NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, softmax

from steel_core.training.fit import LOSSES, image_losses

LOGITS = torch.tensor([[1.5, -2.0, 0.3], [0.5, 0.25, -1.0], [-3.0, 4.0, 0.0]])
LABELS = torch.tensor([0, 1, 2])
WEIGHTS = torch.tensor([1.0, 3.0, 0.5])


def mean(**settings):
    targets = settings.pop("targets", LABELS)
    each, weight = image_losses(LOGITS, targets, settings.pop("weights", WEIGHTS), **settings)
    return float(each.sum() / weight.sum())


def test_weighted_cross_entropy_is_that_of_torch():
    expected = F.cross_entropy(LOGITS, LABELS, weight=WEIGHTS)
    assert mean(loss="cross-entropy", head="softmax") == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_cross_entropy_and_binary_cross_entropy_are_those_of_torch(smoothing):
    ones = torch.ones(3)
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    value = mean(weights=ones, loss="cross-entropy", head="softmax", smoothing=smoothing)
    assert value == pytest.approx(float(expected), rel=1e-6)
    soft = F.one_hot(LABELS, 3) * (1 - smoothing) + smoothing / 2
    expected = F.binary_cross_entropy_with_logits(LOGITS, soft, reduction="none").sum(dim=1).mean()
    value = mean(weights=ones, loss="cross-entropy", head="sigmoid", smoothing=smoothing)
    assert value == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_focal_loss_by_its_formula(head):
    x, k, w = LOGITS.double().numpy(), LABELS.numpy(), WEIGHTS.double().numpy()
    if head == "softmax":
        p = softmax(x, axis=1)[range(3), k]
        each = -((1 - p) ** 2) * np.log(p)
    else:
        hot = np.eye(3)[k]
        p = np.where(hot == 1, expit(x), 1 - expit(x))
        each = (-((1 - p) ** 2) * np.log(p)).sum(axis=1)
    assert mean(loss="focal", head=head) == pytest.approx((each * w[k]).sum() / w[k].sum(), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_class_numbers_and_one_hot_targets_mean_the_same(loss, head):
    hot = F.one_hot(LABELS, 3).float()
    assert mean(loss=loss, head=head, smoothing=0.1) == pytest.approx(
        mean(targets=hot, loss=loss, head=head, smoothing=0.1), rel=1e-6
    )


def test_several_labels_an_image_and_none():
    """The image of no class counts once, and wants every probability to be low."""
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    each, weight = image_losses(LOGITS[:2], targets, WEIGHTS, loss="cross-entropy", head="sigmoid")
    assert weight.tolist() == [2.0, 1.0]
    p = expit(LOGITS[:2].double().numpy())
    wanted = np.where(targets.numpy() == 1, -np.log(p), -np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(each.double().numpy(), wanted * [2, 1], rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_gradients_stay_finite_where_the_network_is_certain(loss, head):
    logits = torch.tensor([[80.0, -80.0], [80.0, -80.0]], requires_grad=True)
    each, _ = image_losses(logits, torch.tensor([0, 1]), torch.ones(2), loss=loss, head=head, smoothing=0.05)
    each.sum().backward()
    assert torch.isfinite(each).all()
    assert torch.isfinite(logits.grad).all()
