"""Flags, files and settings: every setting reaches all three, and they agree."""

import argparse

import pytest

from steel_core.cli import train as command
from steel_core.cli.settings_flags import read_settings
from steel_core.data.augmentation import Augmentation
from steel_core.errors import UsageError
from steel_core.records import describe_fields, parse_size, read_toml, to_toml
from steel_core.training.fit import LOSSES
from steel_core.training.settings import PRESETS, TrainingSettings


def settings(*flags):
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_arguments(parser)
    return read_settings(parser.parse_args(["--data", "d", "--out", "o", *map(str, flags)]))


OTHERS = {
    "backbone": "small-cnn", "head": "sigmoid", "epochs": 3, "effort": 2.5, "freeze_epochs": 1, "loss": "focal",
    "balanced": False, "patience": 4, "batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.1, "dropout": 0.3,
    "label_smoothing": 0.2, "average": 5, "init": "weights.pt", "batch_norm": False, "input_size": (64, 400),
    "augmentation": Augmentation(noise=0.4, flip=False), "half": False, "seed": 9,
}  # fmt: skip


def as_flags(name, value):
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if name == "augmentation":
        return ["--augment", "noise=0.4", "--augment", "flip=0"]
    return [flag, "x".join(map(str, value)) if isinstance(value, tuple) else value]


def test_every_setting_reaches_a_flag_and_a_file(tmp_path):
    assert set(OTHERS) == set(TrainingSettings.model_fields)
    expected = PRESETS["sound"].config.replace(**OTHERS)
    flags = [word for name, value in OTHERS.items() for word in as_flags(name, value)]
    assert settings(*flags) == expected
    (tmp_path / "run.toml").write_text(to_toml(expected))
    assert settings("--config", tmp_path / "run.toml") == expected


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('dropout = 0.4\nlearning_rate = "auto"\ninput_size = "64x32"\n[augmentation]\nnoise = 0.5\n')
    usual = PRESETS["quick-look"].config
    read = settings("--preset", "quick-look", "--config", file, "--dropout", 0.1, "--augment", "blur=0.2")
    assert read == usual.replace(
        dropout=0.1,
        learning_rate=None,
        input_size=(64, 32),
        augmentation=usual.augmentation.replace(noise=0.5, blur=0.2),
    )


def test_strength_scales_what_the_file_says(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[augmentation]\nnoise = 0.2\n")
    assert settings("--config", file, "--augment", "strength=0.5").augmentation.noise == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("colour = 1", "expected settings out of backbone, head.*got 'colour'"),
        ("[augmentation]\nhue = 1.0", "augmentation: expected settings out of flip.*got 'hue'"),
        ("dropout = 'much'", "dropout: expected a valid number"),
        ("dropout = true", "dropout: expected a valid number"),
        ("loss = 'hinge'", "loss: expected 'cross-entropy' or 'focal', got 'hinge'"),
        ("dropout =", "run.toml: expected a file of settings, as TOML"),
        ("input_size = [64]", "input size"),
        ("input_size = '9000x9000'", "input size.*less than or equal to 8192"),
        ("augmentation = 'auto'", r"run.toml: expected a table \[augmentation\], got 'auto'"),
    ],
)
def test_what_is_wrong_in_a_file_is_a_sentence(tmp_path, text, sentence):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        settings("--config", tmp_path / "run.toml")


def test_a_file_that_is_not_here_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: expected a file of settings"):
        settings("--config", tmp_path / "none.toml")


def test_a_grid_layer_is_put_behind_the_network():
    assert settings("--backbone", "torchvision:resnet18", "--cam-layer", "layer3").backbone.endswith("resnet18@layer3")


@pytest.mark.parametrize("text", ["large", "0x5", "5", "5x"])
def test_a_size_is_height_and_width(text):
    with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_what_the_settings_name_is_what_the_library_knows():
    fields = describe_fields(TrainingSettings)
    assert fields["loss"]["enum"] == list(LOSSES)
    assert all(field["description"] and field["title"] for field in fields.values())


def test_a_text_with_quotes_survives_the_file(tmp_path):
    odd = TrainingSettings(init='C:\\weights\\"new"\n.pt')
    (tmp_path / "run.toml").write_text(to_toml(odd))
    assert TrainingSettings(**read_toml(tmp_path / "run.toml", TrainingSettings)) == odd
