"""The engine against captum and shap, on every backbone, every layer, models of torchvision, and from many threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shap
import torch
from captum.attr import GuidedBackprop, GuidedGradCam, LayerAttribution, LayerGradCam
from tiny_nets import LinearNet, noise, one_thread, tiny  # noqa: F401
from torch import nn

from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS
from steel_core.explain.hooks import isolated
from steel_core.models.base import BACKBONES, BackboneConfig, Classifier
from steel_core.models.batch_norm import fold_for_inference

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
    pytest.mark.usefixtures("one_thread"),
]

GOLDEN = Path(__file__).parents[1] / "golden" / "maps.npz"
CLASSES, SIZE = 4, (64, 80)


def backbone(name, folded=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BACKBONES[name](CLASSES).eval()
        nn.init.normal_(model.head.weight, std=0.1)
    return fold_for_inference(model) if folded else model


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("n", [1, 3])  # one image is another way for a kernel of one pixel
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_one_pass_agrees_with_captum(name, folded, n):
    model, images, targets = backbone(name, folded).double(), noise(n, 3, *SIZE).double(), torch.tensor([3, 0, 2])[:n]
    result = engine.explain(model, images, targets)
    with isolated(model) as private:
        torch.testing.assert_close(result.logits, private(images).detach(), rtol=1e-9, atol=1e-12)
        cam = LayerGradCam(private, private.features).attribute(images, targets).detach()
        guided = GuidedBackprop(private).attribute(images.clone().requires_grad_(), targets).detach()
        both = GuidedGradCam(private, private.features).attribute(
            images.clone().requires_grad_(), targets, interpolate_mode="bilinear"
        )
    for answer in (result, engine.explain(model, images, targets, guided=False)):
        assert relative(answer.cam, cam) < 1e-9
    assert relative(result.guided, guided) < 1e-9
    assert relative(engine.guided_grad_cam(result.guided, result.cam), both.detach().sum(1, keepdim=True)) < 1e-9


class WithTable(nn.Module):
    """A frozen network with a ReLU on what no gradient reaches, as in Swin's table of places."""

    def __init__(self):
        super().__init__()
        self.body = BACKBONES["small-cnn"](CLASSES)
        self.config = self.body.config
        self.register_buffer("table", torch.linspace(-1, 1, 3)[None, :, None, None])

    def forward(self, images):
        return self.body(images + torch.relu(self.table))


def test_a_relu_that_no_gradient_reaches_is_left_alone():
    model, images, target = WithTable().eval().requires_grad_(False), noise(1, 3, *SIZE), torch.tensor([1])
    _, got = engine.gradients(model, images, target, guided=True)
    _, expected = engine.gradients(model.body, images + torch.relu(model.table), target, guided=True)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("layer", ["features.0", "features.1", "features.3", "features.4.squeeze", "features.9", ""])
def test_any_layer_agrees_with_captum(layer):
    model, images, targets = backbone("squeezenet-reduced").double(), noise(2, 3, *SIZE).double(), torch.tensor([1, 3])
    with isolated(model) as private:
        module = private.get_submodule(layer or "features")
        expected = LayerAttribution.interpolate(
            LayerGradCam(private, module).attribute(images, targets), SIZE, interpolate_mode="bilinear"
        ).detach()
        both = GuidedGradCam(private, module).attribute(
            images.clone().requires_grad_(), targets, interpolate_mode="bilinear"
        )
    got = EXPLAINERS["grad-cam"](layer).attribute(model, images, targets)
    assert relative(got, expected) < 1e-9
    got = EXPLAINERS["guided-grad-cam"](layer).attribute(model, images, targets)
    assert relative(got, both.detach().sum(dim=1, keepdim=True)) < 1e-9


@pytest.mark.parametrize("name", BACKBONES)
def test_the_layers_that_are_listed_can_be_explained(name):
    model = backbone(name)
    result = engine.layers(model, SIZE)
    assert model.config.cam_layer in result
    assert len(result) == len(model.features)
    rows = [grid[0] for grid in result.values()]
    assert rows == sorted(rows, reverse=True)
    for layer, grid in result.items():
        cam = engine.explain(model, noise(1, 3, *SIZE), torch.tensor([0]), layer=layer, guided=False).cam
        assert cam.shape[2:] == grid


def test_an_unknown_layer_is_a_sentence():
    with pytest.raises(UsageError, match=r"features\.99"):
        EXPLAINERS["grad-cam"]("features.99").attribute(tiny(), noise(1, 3, 7, 9), torch.tensor([0]))
    with pytest.raises(UsageError, match="maps"):
        EXPLAINERS["grad-cam"]("head").attribute(tiny(), noise(1, 3, 7, 9), torch.tensor([0]))


@pytest.mark.parametrize("method", ["grad-cam", "guided-backprop", "gradient"])
def test_a_contrast_is_the_question_about_the_difference_of_two_logits(method):
    model, images = tiny().double(), noise(2, 3, 7, 9).double()
    weights = torch.tensor([[1.0, -1, 0], [0, 1, -1]]).double()

    class Difference(Classifier):
        config = model.config

        def __init__(self):
            super().__init__()
            self.features = model.features

        def classify(self, features):
            return (model.classify(features) * weights).sum(dim=1, keepdim=True)

    expected = EXPLAINERS[method]().attribute(Difference().eval(), images, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(EXPLAINERS[method]().attribute(model, images, weights), expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    model, image = tiny().double(), noise(1, 3, 7, 9).double()
    got = EXPLAINERS["gradient"]().attribute(model, image, torch.tensor([2]))[0, 0]
    for row, column in [(0, 0), (3, 4), (6, 8)]:
        step = torch.zeros_like(image)
        step[..., row, column] = 1e-6
        with torch.no_grad():
            slope = (model(image + step) - model(image - step))[0, 2] / 2e-6
        assert got[row, column].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-8)


def test_chunks_of_any_size_give_the_same(monkeypatch):
    model, images, targets = backbone("squeezenet-reduced"), noise(11, 3, *SIZE), torch.arange(11) % CLASSES
    whole = engine.explain(model, images, targets)
    monkeypatch.setattr(engine, "batch_size", lambda device: 3)
    for one, other in zip(engine.explain(model, images, targets), whole, strict=True):
        assert (one is None and other is None) or relative(one, other) < 1e-4
    logits, averaged = engine.predict(model, images)
    assert relative(logits, whole.logits) < 1e-5
    assert relative(averaged, whole.averaged) < 1e-5


def test_nothing_the_caller_holds_is_changed_in_place():
    """A network that begins with a ReLU, and a layer that is followed by one."""

    class Odd(Classifier):
        config = BackboneConfig("odd", "made up", "features", 1, linear_head=False)

        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Dropout(), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
            self.relu = nn.ReLU()

        def classify(self, features):
            return self.relu(features).mean(dim=(2, 3))

    model, images = Odd().eval(), noise(2, 3, 9, 9).contiguous(memory_format=torch.channels_last)
    copy, targets = images.clone(), torch.tensor([0, 1])
    with isolated(model) as private:
        for layer in ("features.2", "features"):
            cam = LayerGradCam(private, private.get_submodule(layer)).attribute(copy.clone(), targets).detach()
            torch.testing.assert_close(engine.explain(model, images, targets, layer=layer).cam, cam)
        averaged = private.features(copy).mean(dim=(2, 3)).detach()
    torch.testing.assert_close(engine.predict(model, images)[1], averaged)
    engine.gradients(model, images, targets, guided=True)
    assert torch.equal(images, copy)


def test_expected_gradients_agree_with_shap_on_identical_samples():
    model, image, background = backbone("squeezenet-reduced"), noise(1, 3, *SIZE), noise(4, 3, *SIZE, seed=2)
    draws = np.random.RandomState(5)
    drawn = [(draws.choice(4), np.float32(draws.uniform())) for _ in range(50)]
    references = torch.stack([background[row] for row, _ in drawn])
    shares = torch.tensor([share for _, share in drawn])[:, None, None, None]
    points = shares * image + (1 - shares) * references
    _, slopes = engine.gradients(model, points, torch.full((50,), 2))
    with isolated(model) as private:
        there = shap.GradientExplainer(private, background).shap_values(image, nsamples=50, rseed=5)[0, ..., 2]
    got = (slopes * (image - references)).mean(dim=0).numpy()
    assert np.linalg.norm(got - there) < 5e-3 * np.linalg.norm(there)


@pytest.mark.parametrize("method", EXPLAINERS)
def test_every_explainer_takes_a_model_that_the_engine_does_not_serve(method):
    model = backbone("torchvision:mobilenet_v3_small@features")
    images = noise(1, 3, 64, 64)
    assert not engine.supports(model)
    values = EXPLAINERS[method]().attribute(model, images, torch.tensor([1]), background=noise(2, 3, 64, 64, seed=3))
    assert values.shape == (1, 1, 64, 64)
    assert torch.isfinite(values).all()
    assert values.any()


class Stripes(Classifier):
    """A network that sees left and right alike: its filters are their own mirror images."""

    config = BackboneConfig("stripes", "made up", "features", 4, linear_head=True)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Conv2d(4, 3, 1)
        with torch.no_grad():
            for part in (self.features[0], self.features[2]):
                part.weight += part.weight.flip(3)

    def classify(self, features):
        return self.head(features).mean(dim=(2, 3))


@pytest.mark.parametrize("method", ["grad-cam", "guided-grad-cam", "guided-backprop", "gradient"])
def test_flipping_the_image_flips_the_map(method):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Stripes().double().eval()
    image, target = noise(1, 3, 10, 14).double(), torch.tensor([1])
    explainer = EXPLAINERS[method]()
    flipped = explainer.attribute(model, image.flip(3), target).flip(3)
    result = explainer.attribute(model, image, target)
    assert result.any()
    torch.testing.assert_close(flipped, result, rtol=1e-9, atol=1e-12)


def golden_maps():
    """The maps that were written by `python tests/explain/test_engine.py`."""
    model, images = backbone("squeezenet-reduced"), noise(2, 3, 48, 48, seed=8)
    methods = ("grad-cam", "guided-grad-cam", "guided-backprop", "gradient")
    return {m: EXPLAINERS[m]().attribute(model, images, torch.tensor([0, 2])).numpy()[:, 0] for m in methods}


def test_golden_maps():
    """Rounding may differ between versions and machines; a change of method may not hide behind it."""
    with np.load(GOLDEN) as kept:
        for method, values in golden_maps().items():
            assert np.linalg.norm(values - kept[method]) < 1e-3 * np.linalg.norm(kept[method]), method


def test_eight_threads_on_one_model_equal_the_serial_result():
    """8 threads x 8 images x 50 rounds of mixed methods: 0 wrong, 0 raised."""
    model, images, background = tiny(), noise(8, 3, 7, 9), noise(2, 3, 7, 9, seed=4)
    methods = {"grad-cam": {}, "guided-grad-cam": {}, "guided-backprop": {}, "gradient": {}, "shap": {"samples": 4}}
    jobs = [(method, row) for row in range(8) for method in methods]

    def run(job):
        method, row = job
        explainer = EXPLAINERS[method](**methods[method])
        return explainer.attribute(model, images[row : row + 1], torch.tensor([row % 3]), background=background)

    serial = [run(job) for job in jobs] * 50
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(run, jobs * 50))
    wrong = [job for job, one, other in zip(jobs * 50, parallel, serial, strict=True) if not torch.equal(one, other)]
    assert not wrong


@pytest.mark.gpu
@pytest.mark.parametrize("name", BACKBONES)
def test_cuda_agrees_with_the_cpu(name):
    model, images, targets = backbone(name, folded=True), noise(3, 3, *SIZE), torch.tensor([0, 3, 2])
    here = engine.explain(model, images, targets)
    there = engine.explain(model.to("cuda"), images.to("cuda"), targets.to("cuda"))
    for one, other in zip(there, here, strict=True):
        assert relative(one.cpu(), other) < 2e-2


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **golden_maps())
