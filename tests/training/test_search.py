"""The search for settings: its budget, its table, and how it goes on."""

import json
from itertools import count
from types import SimpleNamespace

import pandas as pd
import pytest

from steel_core.cli.main import main
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError, UsageError
from steel_core.records import read_toml
from steel_core.training import search as module
from steel_core.training.fit import FitResult, run_fit
from steel_core.training.search import search
from steel_core.training.settings import TrainingSettings

CONFIG = TrainingSettings(epochs=3, batch_size=16)
SMALL = ("small-cnn", "squeezenet-reduced")


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(40, 40), seed=9, clear_share=0.5), 40, out)
    return open_dataset(out).binary()


@pytest.fixture
def planted(monkeypatch):
    """A fit whose loss is least at a dropout of 0.1 and the second backbone; ends the time after twelve trials."""
    tried = []

    def fake(fit, train, val, rate, state, report, progress, on_epoch):
        tried.append(fit.config)
        loss = abs(fit.config.dropout - 0.1) + (fit.config.backbone == "small-cnn")
        history = [{"epoch": e, "val_loss": loss, "val_macro_recall": 0.5} for e in (1, 2, 3)]
        if len(tried) % 12 == 0:
            raise KeyboardInterrupt
        return FitResult({}, 3, history)

    monkeypatch.setattr(module, "run_fit", fake)
    return tried


def test_the_best_settings_are_those_of_the_lowest_loss(sheets, tmp_path, planted):
    outcome = search(sheets, tmp_path, 10, CONFIG, SMALL, report=quiet)
    assert outcome.interrupted
    finished = outcome.trials[outcome.trials["state"] == "finished"]
    best = finished.loc[finished["val_loss"].idxmin()]
    assert len(finished) == 11
    assert outcome.best.dropout == pytest.approx(best["dropout"])
    assert outcome.best.backbone == best["backbone"] == "squeezenet-reduced"
    assert outcome.best.augmentation.noise == pytest.approx(CONFIG.augmentation.noise * best["augmentation"])
    first = planted[0]
    assert (first.dropout, first.weight_decay, first.augmentation) == (
        CONFIG.dropout,
        CONFIG.weight_decay,
        CONFIG.augmentation,
    ), "the settings as they are come first, so the search is never worse"


def test_a_later_call_goes_on_with_other_trials(sheets, tmp_path, planted):
    first = search(sheets, tmp_path, 10, CONFIG, SMALL, report=quiet)
    lines = []
    second = search(sheets, tmp_path, 10, CONFIG, SMALL, report=lines.append)
    assert any(line == "going on after 12 trials" for line in lines)
    assert len(second.trials) == len(first.trials) + 12
    assert second.trials["dropout"].nunique() > 20
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table["trial"]) == list(range(1, 25))
    assert list(table[table["state"] == "broken off"]["trial"]) == [12, 24]
    other = search(sheets, tmp_path, 10, TrainingSettings(epochs=2, batch_size=16), SMALL, report=quiet)
    assert len(other.trials) == 12, "trials with other settings are not taken for these"


def test_a_real_trial_ends_in_a_command(sheets, tmp_path, capsys, monkeypatch):
    trials = []

    def one(*args):
        trials.append(args)
        if len(trials) == 2:
            raise KeyboardInterrupt
        return run_fit(*args)

    monkeypatch.setattr(module, "run_fit", one)
    flags = ["--data", str(sheets.root), "--binary", "--epochs", "1", "--batch-size", "16", "--json"]
    status = main(["search", *flags, "--minutes", "60", "--backbones", "small-cnn", "--out", str(tmp_path)])
    content = json.loads(capsys.readouterr().out)
    assert status == 130
    assert [trial["state"] for trial in content["trials"]] == ["finished", "broken off"]
    assert 0 <= content["trials"][0]["val_macro_recall"] <= 1
    assert "train --data" in content["train"]
    assert content["train"].endswith(f"--config {tmp_path / 'best.toml'}")
    best = TrainingSettings(**read_toml(tmp_path / "best.toml", TrainingSettings))
    assert (best.backbone, best.learning_rate, best.batch_size) == ("small-cnn", 0.002, 16)
    assert best.epochs == 0, "the number of a trial's epochs is not that of a whole training"


def test_a_search_ends_with_its_time_and_gives_the_trial_up_that_is_under_way(sheets, tmp_path, monkeypatch):
    """By a clock on which every look takes a second."""
    clock = count()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))

    def fake(fit, train, val, rate, state, report, progress, on_epoch):
        for step in range(20):
            progress("training", step, 20)
        return FitResult({}, 1, [{"epoch": 1, "val_loss": 1.0, "val_macro_recall": 0.5}])

    monkeypatch.setattr(module, "run_fit", fake)
    outcome = search(sheets, tmp_path, 1.0, CONFIG, SMALL, report=quiet)
    assert list(outcome.trials["state"]) == ["finished", "finished", "given up"]
    assert next(clock) < 66
    assert not outcome.interrupted


def test_too_little_time_and_wrong_names_are_sentences(sheets, tmp_path):
    with pytest.raises(DataError, match="give it more"):
        search(sheets, tmp_path, 1e-9, CONFIG, ("small-cnn",), report=quiet)
    with pytest.raises(UsageError, match="minutes"):
        search(sheets, tmp_path, 0, CONFIG, SMALL, report=quiet)
    with pytest.raises(UsageError, match="unknown backbone"):
        search(sheets, tmp_path, 1, CONFIG, ("resnet-1000",), report=quiet)
