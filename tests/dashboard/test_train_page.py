"""Train: what is asked becomes one command line; every state of a run is shown, and leads on."""

import argparse
import shutil

import numpy as np
import pytest
from filelock import FileLock
from helpers.dash import report, words, write_model
from streamlit.testing.v1 import AppTest

from dashboard import services
from steel_core.cli import train as train_command
from steel_core.cli.settings_flags import read_settings
from steel_core.data.augmentation import Augmentation
from steel_core.data.images.read import read_image
from steel_core.errors import DataError, UsageError
from steel_core.jobs.queue import RunQueue
from steel_core.jobs.run_log import RunLog
from steel_core.training.settings import PRESETS, TrainingSettings

FIGURES = {"val": report(12, ("clear", "defect")), "test": report(12, ("clear", "defect"))}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A queue of one's own, in which nothing starts by itself."""
    monkeypatch.setenv("STEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(RunQueue, "_start", lambda _: None)
    monkeypatch.setattr("dashboard.services.training.seconds_to_train", lambda *_: 754.0)
    services.training.expected_seconds.clear()


def epoch(number, sure, of=4):
    row = {"epoch": number, "train_loss": 1 / number, "val_loss": 1.2 / number, "val_macro_recall": 1 - 0.5 / number}
    row |= {"learning_rate": 1e-3, "best": number, "seconds": 2.0, "seconds_left": 120.0 * (of - number), "of": of}
    return row | {"examples": [{"probs": {"clear": 1 - sure, "defect": sure}}]}


def run(*events, model="mine", taken=True):
    """A run with these events; with `taken` it is out of the queue."""
    about = {"model": model, "data": "sheets", "preset": "quick-look", "backbone": "small-cnn"}
    name = RunQueue().submit(["train"], about)
    log = RunLog(RunQueue().folder / name)
    if taken:
        (log.folder / "queued").unlink()
    for event, content in events:
        log.write(event, **content)
    return name, log


STARTED = (
    "start",
    {"name": "mine", "classes": ["clear", "defect"], "epochs": 4,
     "examples": [{"picture": "example-0.png", "file": "sheet-1.png", "actual": "defect"}]},
)  # fmt: skip


def parsed(asked):
    """The arguments of a queued run, as its process will read them."""
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    name, *arguments = asked.command
    assert name == "train"
    return parser.parse_args([*arguments, "--config", str(asked.folder / "run.toml")])


def test_the_form_names_the_data_and_what_it_costs(app):
    test = app("train", data="sheets")
    said = words(test)
    assert "60 images" in said and "clear" in said
    assert "From ImageNet weights, at most 160 epochs: about 13 minutes at this" in said
    assert [button for button in test.button if button.label == "Start the training"]
    assert not test.exception and not test.error


def test_what_is_asked_is_what_the_command_line_trains_with(app, home):
    test = app("train", data="sheets")
    test.segmented_control(key="preset").set_value("quick-look").run()
    test.text_input(key="name for sheets").set_value("my-model")
    test.toggle(key="binary").set_value(True)
    test.selectbox(key="backbone quick-look").set_value("small-cnn")
    test.number_input(key="quick-look epochs").set_value(7)
    test.text_input(key="quick-look input_size").set_value("64x64")
    test.toggle(key="quick-look balanced").set_value(False)
    test.slider(key="quick-look noise").set_value(0.0).run()
    next(button for button in test.button if button.label == "Start the training").click().run()
    asked = services.training.history()[0]
    assert test.query_params["run"] in (asked.name, [asked.name])
    assert asked.status == "waiting"
    assert asked.about == {"model": "my-model", "data": "sheets", "preset": "quick-look", "backbone": "small-cnn"}
    arguments = parsed(asked)
    assert arguments.data == home / "data" / "sheets"
    assert arguments.out == home / "models" / "my-model"
    assert arguments.binary
    usual = PRESETS["quick-look"].config
    assert read_settings(arguments) == usual.replace(
        backbone="small-cnn",
        init="random",
        epochs=7,
        input_size=(64, 64),
        balanced=False,
        augmentation=usual.augmentation.replace(noise=0.0),
    )
    said = words(test)
    assert "Waits its turn" in said and "It is next" in said


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_trained_with_as_it_is(app, preset):
    services.training.start(preset, PRESETS[preset].config, "as-it-is", "sheets")
    (asked,) = services.training.history()
    assert read_settings(parsed(asked)) == PRESETS[preset].config.replace(init="imagenet")


@pytest.mark.parametrize("size", ["200", "99999x99999", "2000x64"])
def test_a_size_that_cannot_be_meant_is_refused_and_the_variations_stay(app, size):
    test = app("train", data="sheets")
    test.slider(key="sound noise").set_value(0.6)
    test.text_input(key="sound input_size").set_value(size).run()
    assert "expected" in test.error[0].value
    assert not [button for button in test.button if button.label == "Start the training"]
    test.text_input(key="sound input_size").set_value("64x64").run()
    assert test.slider(key="sound noise").value == 0.6
    assert not test.error


def test_every_setting_has_its_widget(app):
    test = app("train", data="sheets")
    keys = {
        box.key for kind in ("number_input", "selectbox", "text_input", "toggle", "slider") for box in test.get(kind)
    }
    for record in (TrainingSettings, Augmentation):
        asked = set(record.model_fields) - {"backbone", "augmentation"}
        assert {f"sound {name}" for name in asked} <= keys


@pytest.mark.parametrize(
    ("name", "says"), [("a-six", "already"), ("Über", "small letters"), ("../x", "small letters"), ("mine", "already")]
)
def test_a_name_that_is_taken_or_none_is_refused_with_a_sentence(app, name, says):
    run(model="mine")
    test = app("train", data="sheets")
    test.text_input(key="name for sheets").set_value(name).run()
    next(button for button in test.button if button.label == "Start the training").click().run()
    assert says in "\n".join(error.value for error in test.error)
    assert "Runs" in [heading.value for heading in test.subheader]  # the rest of the page stays
    assert len(services.training.history()) == 1


def test_what_cannot_be_trained_on_is_refused_before_it_is_asked_for(app, monkeypatch):
    def refuse(*_):
        raise DataError("expected images of at least 2 classes, got clear")

    monkeypatch.setattr("dashboard.services.training.seconds_to_train", refuse)
    test = app("train", data="sheets")
    assert [error.value for error in test.error] == ["expected images of at least 2 classes, got clear"]
    assert not [button for button in test.button if button.label == "Start the training"]


def test_the_variations_are_shown_on_an_image_of_the_data(app, home):
    source = services.datasets.source(services.datasets.open_folder(home / "data" / "sheets"), 0)
    config = PRESETS["sound"].config
    first, *others = services.training.varied(source, config.augmentation, 3)
    assert len(others) == 3 and len({first, *others}) == 4
    shown = read_image(first, name="x.jpg").grey()
    assert np.abs(shown - source.read().grey()).mean() < 0.02
    test = app("train", data="sheets")
    next(button for button in test.button if button.label == "Another image").click().run()
    assert not test.exception and not test.error


def test_a_run_at_work_shows_how_far_it_is(app, home):
    name, log = run(STARTED, ("epoch", epoch(1, 0.2)), ("epoch", epoch(2, 0.9)))
    log.save_pictures([np.full((8, 8), 99, np.uint8)])
    with FileLock(log.folder / "lock"):
        test = app("train", data="sheets", run=name)
        said = words(test)
        assert "At work" in said
        assert "Actual: defect: 20.0 % at first, 90.0 % now" in said
        (bar,) = test.get("progress")
        assert bar.proto.text == "2 of at most 4 epochs, about 4 minutes left"
        assert bar.proto.value == 50
        assert len(test.get("plotly_chart")) == 1
        next(button for button in test.button if button.label.startswith("Stop")).click().run()
        assert log.stop_requested
        assert "Stops after this epoch" in words(test)
    assert not test.exception and not test.error
    assert str(home) not in words(test)


@pytest.mark.parametrize(
    ("what", "done", "says", "share"),
    [
        ("training", 13, "2 of at most 4 epochs, about 4 minutes left", 65),
        ("training", 2, "Training: 2 of 20", 10),  # it began anew with another rate
        ("measuring maps", 3, "Measuring maps: 3 of 20", 15),
    ],
)
def test_what_goes_on_since_the_last_epoch_is_told(app, what, done, says, share):
    name, log = run(STARTED, ("epoch", epoch(1, 0.2)), ("epoch", epoch(2, 0.9)))
    log.write("progress", what=what, done=done, of=20)
    with FileLock(log.folder / "lock"):
        (bar,) = app("train", data="sheets", run=name).get("progress")
    assert (bar.proto.text, bar.proto.value) == (says, share)


def test_all_settings_stay_in_sight_while_an_architecture_is_mistyped():
    def page():
        from dashboard.components.train.settings import advanced

        advanced("sound", "resnet81")

    test = AppTest.from_function(page).run()
    assert not test.exception
    assert {"Dropout", "Weight decay", "Seed"} <= {box.label for box in test.number_input}


def test_a_run_that_was_cut_off_says_so_and_goes_on(app):
    name, _ = run(STARTED, ("epoch", epoch(1, 0.2)))
    test = app("train", data="sheets", run=name)
    assert "Cut off" in words(test) and "was cut off" in "\n".join(error.value for error in test.error)
    next(button for button in test.button if button.label == "Go on").click().run()
    assert "Waits its turn" in words(test)


def test_a_failed_run_shows_its_sentence_as_it_is(app):
    name, _ = run(STARTED, ("failed", {"message": "init: expected *random* or imagenet"}))
    test = app("train", data="sheets", run=name)
    assert [error.value for error in test.error] == [r"init\: expected \*random\* or imagenet"]
    assert "Try again" in [button.label for button in test.button]


def test_a_finished_run_leads_to_its_model(app, home):
    write_model(home / "models" / "e-new", ("clear", "defect"), metrics=FIGURES, notes=("It is *new*.",))
    try:
        done = ("done", {"name": "e-new", "out": str(home / "models" / "e-new"), "metrics": FIGURES})
        name, _ = run(STARTED, ("epoch", epoch(4, 0.9)), done, model="e-new")
        test = app("train", data="sheets", run=name)
        assert test.session_state["model"] != "e-new"
        leads = {button.label: button for button in test.button}
        assert {"Evaluate it", "Audit it", "Inspect images with it"} <= leads.keys()
        assert r"It is \*new\*\." in words(test)
        assert "e-new" in test.selectbox(key="model").options
        leads["Evaluate it"].click().run()
        assert test.session_state["model"] == "e-new"
        assert not test.exception and not test.error
    finally:
        shutil.rmtree(home / "models" / "e-new")


def test_the_list_of_runs_leads_to_each(app):
    first, _ = run(STARTED, ("stopped", {}), model="first")
    second, _ = run(model="second", taken=False)
    test = app("train", data="sheets")
    links = [link.proto for link in test.get("page_link") if "run=" in link.proto.query_string]
    assert [link.label for link in links] == ["second", "first"]
    assert [second in links[0].query_string, first in links[1].query_string] == [True, True]


def test_a_link_to_no_run_says_so(app):
    assert r"There is no run “nothing”" in words(app("train", data="sheets", run="nothing"))


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_runs(app, home, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("STEEL_DATA", str(home / "data"))
    monkeypatch.setattr("dashboard.services.datasets.SHIPPED", home / "data")
    monkeypatch.setenv("STEEL_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(UsageError, match="models: the folder of models cannot be made"):
        services.training.start("sound", PRESETS["sound"].config, "new", "sheets")
    assert services.training.history() == []


def test_any_classifier_of_torchvision_can_be_named(app):
    config = PRESETS["sound"].config.replace(backbone="torchvision:mobilenet_v3_small")
    services.training.start("sound", config, "x", "sheets")
    assert read_settings(parsed(services.training.history()[0])) == config.replace(init="random")
