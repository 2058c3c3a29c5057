"""Classifiers of torchvision by name: what is kept of them, what a checkpoint says, and their Grad-CAM."""

import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers.small import make_card, make_checkpoint, steel_image
from torch import nn
from torchvision import models

from steel_core.errors import CheckpointError, UsageError
from steel_core.inference.predictor import Predictor
from steel_core.models.base import BACKBONES
from steel_core.models.checkpoint import load_checkpoint, save_checkpoint
from steel_core.models.pretrained import load_features
from steel_core.training.new_model import with_cam_layer

NAME = "torchvision:mobilenet_v3_small"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


@pytest.mark.parametrize(
    ("name", "layer", "width"),
    [("mobilenet_v3_small", "features", 1024), ("resnet18", "layer4", 512), ("squeezenet1_1", "classifier.2", 512)],
)
def test_the_last_layer_with_a_grid_is_found_and_the_head_is_new(name, layer, width):
    backbone = with_cam_layer(f"torchvision:{name}", (64, 64))
    assert backbone == f"torchvision:{name}@{layer}"
    assert with_cam_layer(backbone, (64, 64)) == backbone
    model = BACKBONES[backbone](5).eval()
    assert model.head.weight.shape == (5, width)
    assert model.get_submodule(model.config.cam_layer) is model.get_submodule(f"features.0.{layer}")
    for size in ((64, 64), (40, 100)):
        assert model(torch.randn(2, 3, *size)).shape == (2, 5)
    assert not any(getattr(part, "inplace", False) for part in model.modules())


def test_weights_of_torchvision_give_the_features_of_torchvision():
    torch.manual_seed(0)
    theirs = models.resnet18(weights=None).eval()
    ours = BACKBONES["torchvision:resnet18"](3).eval()
    assert load_features(ours, theirs.state_dict()) == len(theirs.state_dict()) - 2
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.features(images).flatten(1), theirs(images))
    again = BACKBONES["torchvision:resnet18"](3).eval()
    load_features(again, ours.state_dict())  # a file of our own names serves as well
    torch.testing.assert_close(again.features(images), ours.features(images))


@pytest.mark.parametrize(
    "wrong", ["torchvision:nothing", "torchvision:", "torchvision:fcn_resnet50", "timm:resnet18", "no-such"]
)
def test_an_unknown_name_is_a_sentence(wrong):
    assert wrong not in BACKBONES
    with pytest.raises(UsageError, match=r"expected a name out of|there are: .*torchvision:NAME"):
        BACKBONES[wrong]


@pytest.mark.parametrize("wrong", [f"{NAME}@layer4", f"{NAME}@avgpool", "torchvision:vit_b_32"])
def test_what_grad_cam_or_the_program_cannot_use_is_refused(wrong):
    with pytest.raises(UsageError, match=r"with a grid|other proportions"):
        with_cam_layer(wrong, (224, 224))


def test_a_checkpoint_is_rebuilt_from_its_card_without_a_download(tmp_path, offline):
    backbone = f"{NAME}@features.8"
    torch.manual_seed(1)
    model = BACKBONES[backbone](2)
    nn.init.normal_(model.head.weight)
    card = make_card("net", backbone=backbone)
    save_checkpoint(tmp_path / "net", card, model.state_dict())
    predictor = Predictor.load(tmp_path / "net", "cpu")
    image = steel_image(64, 64)
    inputs = predictor.card.preprocessing.normalise(torch.from_numpy(image.grey())[None, None])
    expected = model.eval()(inputs)[0]
    np.testing.assert_allclose(predictor.predict([image])[0].logits, expected.detach().numpy(), rtol=1e-3, atol=1e-5)
    assert predictor.layers()["features.0.features.8"] == (4, 4)
    with pytest.raises(CheckpointError, match="could not be fetched"):
        BACKBONES[backbone].pretrained()


def test_grad_cam_of_the_stated_layer_is_the_papers(tmp_path):
    """The sum of the layer's maps, each weighed by its mean gradient; by plain autograd, without hooks."""
    backbone = "torchvision:resnet18@layer3"
    torch.manual_seed(2)
    model = BACKBONES[backbone](2).eval()
    nn.init.normal_(model.head.weight)
    card = make_card("net", backbone=backbone)
    save_checkpoint(tmp_path / "net", card, model.state_dict())
    image = steel_image(64, 64)
    predictor = Predictor.load(tmp_path / "net", "cpu")
    attribution = predictor.explain(image, "grad-cam", "defect")
    net = model.features[0]
    x = card.preprocessing.normalise(torch.from_numpy(image.grey())[None, None])
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = net.layer3(net.layer2(net.layer1(x))).detach().requires_grad_()
    logit = model.classify(net.avgpool(net.layer4(maps)))[0, 1]
    slopes = torch.autograd.grad(logit, maps)[0].mean(dim=(2, 3), keepdim=True)
    cam = nn.functional.interpolate((maps * slopes).sum(1, keepdim=True), (64, 64), mode="bilinear")
    np.testing.assert_allclose(attribution.values.squeeze(), cam.detach().numpy().squeeze(), rtol=1e-2, atol=1e-4)


def test_a_card_that_names_no_network_of_torchvision_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    card = json.loads((folder / "card.json").read_text())
    for wrong in ("torchvision:../../x", "torchvision:resnet18@layer9"):
        (folder / "card.json").write_text(json.dumps(card | {"backbone": wrong}))
        with pytest.raises(CheckpointError):
            load_checkpoint(folder)
