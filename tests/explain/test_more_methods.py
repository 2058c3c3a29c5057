"""DeepLIFT, SmoothGrad, occlusion, LIME and the two controls, each against something worked out another way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import DeepLift as CaptumDeepLift
from tiny_nets import CONFIG, LinearNet, backbone, noise, one_thread, tiny  # noqa: F401
from torch import nn

from steel_core.errors import UsageError
from steel_core.explain.__main__ import methods_page
from steel_core.explain.base import EXPLAINERS, TargetLogit
from steel_core.explain.engine import masked_scores
from steel_core.explain.hooks import isolated
from steel_core.explain.methods.deep_lift import contributions
from steel_core.models.base import BACKBONES, Classifier

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:(Input Tensor 0 did not|Setting forward, backward hooks):UserWarning"),
]

FIRST = torch.tensor([0])
CONTROLS = [name for name in EXPLAINERS if EXPLAINERS[name].info.control]


def attribute(name, model, images, targets=FIRST, seed=0, **parameters):
    return EXPLAINERS[name](**parameters).attribute(model, images, targets, seed=seed)


@pytest.fixture
def line():
    torch.manual_seed(0)
    return LinearNet(3 * 12 * 15).eval()


# What all have in common


@pytest.mark.parametrize("name", ["deep-lift", "smooth-grad", "occlusion", "lime"])
def test_the_map_of_a_contrast_is_the_difference_of_two_maps(name):
    """True of every method that is linear in the logits, as these are."""
    net, images = tiny(), noise(2, 3, 7, 9)
    first, second = (attribute(name, net, images, torch.tensor([k, k])) for k in (0, 2))
    contrast = attribute(name, net, images, torch.tensor([[1.0, 0.0, -1.0]] * 2))
    torch.testing.assert_close(contrast, first - second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smooth-grad", {"samples": 1}),
        ("smooth-grad", {"noise": -0.1}),
        ("smooth-grad", {"noise": float("nan")}),
        ("occlusion", {"steps": 0}),
        ("lime", {"samples": 1}),
        ("lime", {"superpixels": 0}),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, parameters):
    with pytest.raises(UsageError, match="expected"):
        EXPLAINERS[name](**parameters)


def test_the_page_of_methods_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "methods.md"
    assert page.read_text(encoding="utf-8") == methods_page(), "run python -m steel_core.explain > docs/methods.md"


# DeepLIFT


@pytest.mark.parametrize("name", ["squeezenet-reduced", "resnet18", "efficientnet-lite-reduced"])
def test_deep_lift_sums_to_the_difference_of_the_logits(name):
    """Overlapping max-pooling, residual sums and folded normalisation included."""
    model, images, targets = backbone(name, 4).double(), noise(3, 3, 64, 80).double(), torch.tensor([1, 3, 0])
    references = noise(3, 3, 64, 80, seed=2).double()
    with torch.no_grad():
        for reference in (references, torch.zeros_like(references[:1])):
            expected = (model(images) - model(reference)).gather(1, targets[:, None])[:, 0]
            got = contributions(model, images, reference, targets).sum(dim=(1, 2, 3))
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_deep_lift_equals_captum_where_nothing_is_pooled():
    model, images = backbone("efficientnet-lite-reduced", 4).double(), noise(2, 3, 64, 80).double()
    targets = torch.tensor([1, 3])
    with isolated(model) as private:
        logit = TargetLogit(private, targets.repeat(2))  # captum appends the references to the batch
        expected = CaptumDeepLift(logit).attribute(images.clone(), torch.zeros_like(images)).detach()
    got = contributions(model, images, torch.zeros_like(images[:1]), targets)
    assert (got - expected).norm() < 1e-9 * expected.norm()


class PoolNet(Classifier):
    """The maxima of columns 0 to 3, 2 to 5 and 4 to 7, weighed by 1, 10 and 100."""

    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.MaxPool2d((1, 4), stride=(1, 2)))

    def classify(self, features):
        return (features[:, 0, 0] * torch.tensor([1.0, 10.0, 100.0])).sum(dim=1, keepdim=True)


def test_deep_lift_gives_a_pixel_its_share_of_every_window_it_wins():
    peaks = torch.tensor([0, 0, 9, 0, 0, 0, 1, 0.0]).reshape(1, 1, 1, 8)
    by_hand = torch.tensor([0, 0, 9 + 90, 0, 0, 0, 100, 0.0]).reshape(1, 1, 1, 8)
    nothing = torch.zeros_like(peaks)
    net = PoolNet().eval()
    assert torch.equal(contributions(net, peaks, nothing, FIRST), by_hand)
    assert torch.equal(contributions(net, nothing, peaks, FIRST), -by_hand)


def test_deep_lift_of_one_relu_by_hand():
    """ReLU of 2 x - y - 1 at (3, 1) against (0, 0): it rises by 4 while its input rises by 5."""
    net = LinearNet(2, classes=1).eval()
    net.features.append(nn.Conv2d(1, 1, (1, 2))).append(nn.ReLU())
    net.head = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.features[0].weight.copy_(torch.tensor([2.0, -1.0]).reshape(1, 1, 1, 2))
        net.features[0].bias.fill_(-1)
        net.head.weight.fill_(1)
    image = torch.tensor([3.0, 1.0]).reshape(1, 1, 1, 2)
    got = contributions(net, image, torch.zeros_like(image), FIRST)
    torch.testing.assert_close(got.flatten(), torch.tensor([2 * 3 * 4 / 5, -1 * 4 / 5]), rtol=1e-6, atol=0)


def test_deep_lift_of_an_image_equal_to_the_reference_is_zero():
    assert torch.equal(attribute("deep-lift", tiny(), torch.zeros(1, 3, 7, 9)), torch.zeros(1, 1, 7, 9))


def test_deep_lift_refuses_a_network_it_has_no_rule_for():
    class Squared(LinearNet):
        def classify(self, features):
            return super().classify(features * features)

    with pytest.raises(UsageError, match="expected a network"):
        attribute("deep-lift", Squared(3 * 7 * 9).eval(), noise(1, 3, 7, 9))


# SmoothGrad


def test_smooth_grad_of_a_linear_net_is_its_weights_without_error(line):
    *_, last = EXPLAINERS["smooth-grad"]().refine(line, noise(1, 3, 12, 15), FIRST)
    torch.testing.assert_close(last.values[0, 0], line.head.weight[0].detach().reshape(3, 12, 15).sum(dim=0))
    assert last.noise.item() < 1e-3  # the rounding of a variance


def test_smooth_grad_without_noise_is_the_gradient():
    net, images = tiny(), noise(2, 3, 7, 9)
    targets = torch.tensor([0, 2])
    expected = attribute("gradient", net, images, targets)
    torch.testing.assert_close(attribute("smooth-grad", net, images, targets, noise=0.0), expected)


def test_smooth_grad_refines_towards_what_attribute_returns():
    net, images = tiny(), noise(2, 3, 7, 9)
    steps = list(EXPLAINERS["smooth-grad"](samples=20).refine(net, images, FIRST.repeat(2), seed=3))
    assert torch.equal(steps[-1].values, attribute("smooth-grad", net, images, FIRST.repeat(2), seed=3, samples=20))
    assert [step.share for step in steps] == [0.4, 0.8, 1.0]
    assert all(step.noise.shape == (2,) for step in steps)


def test_smooth_grad_knows_its_own_error():
    """What it reports of itself is what maps of many seeds differ from their mean by."""
    net, image = tiny(), noise(1, 3, 7, 9)
    ends = [[*EXPLAINERS["smooth-grad"](samples=24).refine(net, image, FIRST, seed=seed)][-1] for seed in range(60)]
    maps = torch.stack([end.values for end in ends])
    spread = (maps - maps.mean(dim=0)).square().sum(dim=(1, 2, 3, 4)).mean().sqrt() / maps.mean(dim=0).norm()
    assert np.mean([end.noise.item() for end in ends]) == pytest.approx(spread.item(), rel=0.2)


# Occlusion and LIME


def test_masks_hide_behind_mean_grey():
    net, image = tiny(), noise(1, 3, 7, 9)
    half = torch.ones(7, 9)
    half[:, 4:] = 0
    hidden = image.clone()
    hidden[..., 4:] = 0
    with torch.no_grad():
        expected = torch.cat([net(image), net(hidden), net(torch.zeros_like(image))])[:, 1]
    got = masked_scores(net, image, torch.tensor([1]), [torch.ones(7, 9), half, torch.zeros(7, 9)])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("size", [(4, 60), (17, 17), (50, 31), (200, 200)])
def test_occlusion_leaves_no_pixel_out(size):
    """Every pixel of a picture on which the score rests evenly matters."""
    net = LinearNet(3 * size[0] * size[1], classes=1).eval()
    nn.init.ones_(net.head.weight)
    values = attribute("occlusion", net, torch.ones(1, 3, *size))
    assert torch.isfinite(values).all()
    assert values.min() > 0


def test_lime_of_a_linear_net_is_what_each_superpixel_adds(line):
    """There the regression is exact but for its penalty: each superpixel weighs the sum of weight times pixel."""
    image = noise(1, 3, 12, 15) + 1
    got = attribute("lime", line, image, samples=2000, superpixels=6)[0, 0]
    added = (line.head.weight[0].reshape(3, 12, 15) * image[0]).sum(dim=0).detach()
    levels = got.unique()
    assert 2 <= len(levels) <= 15
    expected = torch.stack([added[got == level].sum() for level in levels])
    torch.testing.assert_close(levels, expected, rtol=0.03, atol=0.02 * expected.abs().max().item())


def test_lime_finds_the_one_patch_that_counts():
    net = LinearNet(3 * 40 * 40, classes=1).eval()
    image = torch.full((1, 3, 40, 40), 0.2)
    image[..., 10:20, 20:30] = 2.0
    with torch.no_grad():
        net.head.weight.zero_().view(3, 40, 40)[:, 10:20, 20:30] = 1
    values = attribute("lime", net, image)[0, 0]
    strong = values > values.max() / 2
    assert strong[12:18, 22:28].all()
    strong[8:22, 18:32] = False
    assert not strong.any()


@pytest.mark.parametrize("name", ["lime", "occlusion", "smooth-grad", "deep-lift", "sobel"])
def test_a_flat_picture_has_a_map_too(name):
    assert torch.isfinite(attribute(name, tiny(), torch.full((1, 3, 7, 9), 0.7))).all()


# The controls


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_know_nothing_of_the_model(name):
    images = noise(1, 3, 7, 9)
    assert torch.equal(attribute(name, tiny(0), images), attribute(name, tiny(1), images))


def test_random_blobs_differ_by_image_and_by_seed_and_are_smooth():
    images = noise(2, 3, 64, 96)
    one, other = attribute("random", tiny(), images, FIRST.repeat(2)).squeeze(1)
    again = attribute("random", tiny(), images, FIRST.repeat(2), seed=1)[0, 0]
    for a, b in ((one, other), (one, again)):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.5
    assert np.corrcoef(one[:, 1:].flatten(), one[:, :-1].flatten())[0, 1] > 0.9
    assert one.std().item() == pytest.approx(1, rel=1e-4)


def test_random_blobs_lie_anywhere():
    """Over many pictures no place is preferred: the middle holds no more than the rim."""
    images = noise(300, 1, 24, 24)
    mean = attribute("random", tiny(), images, FIRST.repeat(300)).mean(dim=0)
    assert mean.abs().max() < 5 / 300**0.5


def test_sobel_sees_a_step_and_nothing_else():
    image = torch.zeros(1, 3, 9, 12)
    image[..., 6:] = 1
    edges = attribute("sobel", tiny(), image)[0, 0]
    assert (edges[:, 5:7] > 0.5).all()
    edges[:, 5:7] = 0
    assert edges.max() < 1e-6


def test_the_result_takes_no_gradient_whatever_the_memory_layout():
    """An image of one channel layout is not copied on its way, and must not become the leaf of the caller's graph."""
    model = BACKBONES["small-cnn"](3).eval()
    images = noise(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    values = EXPLAINERS["deep-lift"]().attribute(model, images, torch.tensor([1]))
    assert not values.requires_grad
    assert not images.requires_grad
