"""No ReLU changes memory that anything else reads: networks that give a ReLU a view, against captum."""

from contextlib import nullcontext

import pytest
import torch
from captum.attr import GuidedGradCam, LayerGradCam
from tiny_nets import noise, one_thread  # noqa: F401
from torch import nn

from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.cpu_kernels import plain_path
from steel_core.explain.hooks import isolated
from steel_core.models.base import BackboneConfig, Classifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
    pytest.mark.usefixtures("one_thread"),
]

TARGETS = torch.tensor([0, 2])


def overlapping(x, relu):
    return x[:, :3] + relu(x[:, 1:])


def every_channel(x, relu):
    first, second, third, fourth = x.unbind(1)
    return torch.stack([first, second, relu(third), fourth], dim=1)


def one_of_two_split(x, relu):
    one, other = x.split([1, 3], dim=1)
    return torch.cat([one, relu(other)], dim=1)


VIEWS = {
    "the second half of a chunk": lambda x, relu: torch.cat([x.chunk(2, 1)[0], relu(x.chunk(2, 1)[1])], dim=1),
    "the first half of a chunk": lambda x, relu: torch.cat([relu(x.chunk(2, 1)[0]), x.chunk(2, 1)[1]], dim=1),
    "split": one_of_two_split,
    "unbind": every_channel,
    "a slice of channels": lambda x, relu: torch.cat([x[:, :2], relu(x[:, 2:])], dim=1),
    "slices that overlap": overlapping,
    "a slice of rows": lambda x, relu: torch.cat([x[:, :, :3], relu(x[:, :, 3:])], dim=2),
    "every second column": lambda x, relu: torch.cat([x[..., ::2], relu(x[..., 1::2])], dim=3),
    "view": lambda x, relu: x + relu(x.view(x.shape)),
    "view of a part": lambda x, relu: x + relu(x.reshape(x.shape[0], 2, 2, *x.shape[2:])[:, 1]).repeat(1, 2, 1, 1),
    "permute": lambda x, relu: x + relu(x.permute(0, 1, 3, 2)).permute(0, 1, 3, 2),
}


class Rectified(nn.Module):
    """A ReLU on part of what comes in, while the rest of it, or all of it, is read too."""

    def __init__(self, part):
        super().__init__()
        self.relu = nn.ReLU()
        self.part = part

    def forward(self, x):
        return self.part(x, self.relu)


class Viewing(Classifier):
    """Such a part behind a layer that is kept, and behind a convolution that is not."""

    config = BackboneConfig("viewing", "made up", "features", 4, linear_head=False)

    def __init__(self, part):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            Rectified(part),
            nn.Sequential(nn.LazyConv2d(4, 3, padding=1), Rectified(part)),
            nn.LazyConv2d(4, 1),
        )
        self.last = Rectified(part)
        self.head = nn.LazyLinear(3)

    def classify(self, features):
        return self.head(self.last(features).flatten(1))


def viewing(part):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Viewing(part).eval()
        model(torch.zeros(1, 3, 6, 8))
    return model.double()


@pytest.mark.parametrize("layer", ["features.0", "features.1", "features.2", "features"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_relu_on_a_view_leaves_what_others_read(name, layer):
    """To the last digits, predictions and both maps; the layer that is read lies before a ReLU on part of it."""
    model = viewing(VIEWS[name])
    images = noise(2, 3, 6, 8).double().contiguous(memory_format=torch.channels_last)
    with isolated(model) as private:
        logits = private(images).detach()
        features = private.features(images).mean(dim=(2, 3)).detach()
        module = private.get_submodule(layer)
        cam = LayerGradCam(private, module).attribute(images.clone(), TARGETS).detach()
        both = GuidedGradCam(private, module).attribute(
            images.clone().requires_grad_(), TARGETS, interpolate_mode="bilinear"
        )
    for got in (engine.explain(model, images, TARGETS, layer=layer, guided=guided) for guided in (False, True)):
        torch.testing.assert_close(got.logits, logits, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(got.averaged, features, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(got.cam, cam, rtol=1e-9, atol=1e-12)
    product = engine.guided_grad_cam(got.guided, got.cam)
    torch.testing.assert_close(product, both.detach().sum(dim=1, keepdim=True), rtol=1e-9, atol=1e-12)
    with torch.inference_mode():  # where torch itself does not know its views
        predicted = engine.predict(model, images.clone())
    for values, expected in zip(predicted, (logits, features), strict=True):
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


def test_a_relu_on_a_detached_layer_leaves_the_layer():
    """Which shares its memory though torch does not call it a view."""
    model = viewing(lambda x, relu: x + relu(x.detach()))
    images = noise(2, 3, 6, 8).double()
    with isolated(model) as private:
        cam = LayerGradCam(private, private.features[0]).attribute(images.clone(), TARGETS).detach()
    torch.testing.assert_close(engine.explain(model, images, TARGETS, layer="features.0").cam, cam)


class InPlace(nn.Module):
    """Half of a convolution's channels are cut at zero in place, by a statement without a result."""

    def __init__(self, cut):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.cut = cut

    def forward(self, x):
        x = self.convolution(x)
        self.cut(x[:, 2:])
        return x


IN_PLACE = {
    "module": nn.ReLU(inplace=True),
    "function": lambda x: nn.functional.relu(x, inplace=True),
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu_(),
}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("cut", IN_PLACE)
def test_a_relu_in_place_on_a_view_is_that_of_the_network_written_without(cut, plain):
    model = viewing(VIEWS["a slice of channels"])
    other = viewing(VIEWS["a slice of channels"])
    stage = InPlace(IN_PLACE[cut]).double().eval()
    stage.convolution = other.features[0]
    other.features[0], other.features[1] = stage, nn.Identity()
    images = noise(2, 3, 6, 8).double()
    with plain_path() if plain else nullcontext():
        for layer in ("features.1", "features"):
            got, expected = (engine.explain(net, images, TARGETS, layer=layer) for net in (other, model))
            for one, two in zip(got[:-1], expected[:-1], strict=True):
                torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_a_relu_in_place_on_part_of_a_layer_is_refused():
    """Nothing could be right then: the map needs what the layer gave, and the network what became of it."""
    model = viewing(lambda x, relu: (relu(x[:, 2:]), x)[1])
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    with pytest.raises(UsageError, match="not in place"):
        engine.explain(model, noise(2, 3, 6, 8).double(), TARGETS)


def test_memory_that_is_used_again_is_not_taken_for_what_was_kept():
    """Of more images than a chunk holds, the memory of the first is free for the next."""
    model = viewing(VIEWS["a slice of channels"])
    stage = InPlace(IN_PLACE["torch.relu_"]).double().eval()
    stage.convolution = model.features[0]
    model.features[0], model.features[1] = stage, nn.Identity()
    images = noise(64, 3, 6, 8).double()
    expected = torch.cat([engine.predict(model, image[None])[0] for image in images])
    for _ in range(30):
        torch.testing.assert_close(engine.predict(model, images)[0], expected)
