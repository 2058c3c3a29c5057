"""A search over the few settings that matter, within a number of minutes: short trainings, judged on validation."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from steel_core.data.index import DatasetIndex
from steel_core.device import choose_device, seed_everything, tune_memory
from steel_core.errors import DataError, UsageError
from steel_core.files import write_bytes
from steel_core.jobs.run_log import RunStopped
from steel_core.models.base import BACKBONES
from steel_core.progress import Progress, Say, no_progress
from steel_core.records import to_toml
from steel_core.training.fit import Fit, run_fit
from steel_core.training.new_model import initial_weights, new_model, with_cam_layer
from steel_core.training.prepare import Prepared, prepare
from steel_core.training.settings import TrainingSettings

BACKBONES_TRIED = ("small-cnn", "squeezenet-reduced", "efficientnet-lite-reduced")
SHORT = 0.25
"""Share of a whole training's epochs that each trial gets, by the backbone that needs most, unless `epochs` tells."""

BEST = "best.toml"
"""The file of the settings that were best, which `train --config` takes."""

_JOURNAL, _TABLE = "search.journal", "trials.csv"
_STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "given up"}
_BROKEN_OFF = "broken off"  # by the user, or by a power cut


@dataclass(frozen=True)
class SearchResult:
    """The `best` settings, by validation loss, and a row for each trial: its state, skill, seconds and settings."""

    best: TrainingSettings
    trials: pd.DataFrame
    interrupted: bool


def search(
    index: DatasetIndex,
    out: Path,
    minutes: float,
    config: TrainingSettings = TrainingSettings(),
    backbones: Sequence[str] = BACKBONES_TRIED,
    *,
    device: str = "auto",
    report: Say = print,
    progress: Progress = no_progress,
) -> SearchResult:
    """Try learning rate, weight decay, dropout, strength of the augmentation and backbone, by short trainings.

    The test split is not looked at. What a trial reached served to choose it, so it is better than new images will
    show: train with the settings, and trust the test figures of that. The first trial starts from `config`; the one
    under way when `minutes`, all work included, are over is given up. `out` holds `trials.csv` for people, a journal
    from which a later call with the same data and settings goes on, and the best settings in `best.toml`.

    Raises:
        DataError: the data cannot be trained on, or no trial ended in time.
        UsageError: a setting is unknown or impossible.

    Sources: tree-structured Parzen estimator, Bergstra et al., NeurIPS 2011, and median stopping, Golovin et al., KDD
    2017, by Optuna (Akiba et al., KDD 2019).
    """
    begun = time.monotonic()
    if not minutes > 0 or not backbones:
        raise UsageError(f"expected a positive number of minutes and a backbone, got {minutes:g} and {len(backbones)}")
    short = config if config.epochs else config.replace(effort=config.effort * SHORT)
    for backbone in backbones:
        BACKBONES[backbone]  # what cannot be tried is refused before anything is read
        initial_weights(short.replace(backbone=backbone))
    tune_memory()
    prepared = prepare(index, short.replace(backbone=backbones[0]), report, progress)
    size, n = prepared.preprocessing.input_size, len(prepared.parts["train"])
    epochs = max(short.replace(backbone=backbone).for_images(n).epochs for backbone in backbones)
    trials = _Trials(
        prepared,
        [with_cam_layer(name, size) for name in backbones],
        short.replace(epochs=epochs),
        choose_device(device).type,
        begun + 60 * minutes,
        progress,
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a trial that the user breaks off is no news
    out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / _JOURNAL))),
        study_name=_name(prepared, short, backbones),
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=epochs // 3),
    )
    done = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + done)  # another seed, lest the same trials come again
    if not done:
        study.enqueue_trial(
            {"learning_rate": config.learning_rate or 2e-3, "weight_decay": config.weight_decay,
             "dropout": config.dropout, "augmentation": 1.0, "backbone": trials.backbones[0]}
        )  # fmt: skip
    else:
        report(f"going on after {done} trials")

    def record(study: optuna.Study, trial: FrozenTrial) -> None:
        write_bytes(out / _TABLE, _table(study).to_csv(index=False).encode())  # whatever happens to the next one
        state = _STATES.get(trial.state, _BROKEN_OFF)
        value = f", validation loss {trial.value:.4f}" if trial.state == TrialState.COMPLETE else ""
        settings = [f"{name} {x:.2g}" if isinstance(x, float) else str(x) for name, x in trial.params.items()]
        report(f"trial {trial.number + 1} {state}{value}: {', '.join(settings)}")
        if time.monotonic() > trials.deadline:
            study.stop()

    interrupted = False
    try:
        study.optimize(trials, callbacks=[record])
    except KeyboardInterrupt:
        interrupted = True
    write_bytes(out / _TABLE, _table(study).to_csv(index=False).encode())
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not completed:
        raise DataError(f"no trial of {epochs} epochs ended within {minutes:g} minutes; give it more")
    best = study.best_params
    whole = config.replace(
        epochs=0,
        **{name: best[name] for name in ("learning_rate", "weight_decay", "dropout", "backbone")},
        augmentation=config.augmentation.scaled(best["augmentation"]),
    )
    write_bytes(out / BEST, to_toml(whole).encode())
    return SearchResult(whole, _table(study), interrupted)


@dataclass(frozen=True)
class _Trials:
    prepared: Prepared
    backbones: list[str]
    config: TrainingSettings
    device: str
    deadline: float
    progress: Progress

    def __call__(self, trial: Trial) -> float:
        begun = time.monotonic()
        strength = trial.suggest_float("augmentation", 0.25, 2.0)
        config = self.config.replace(
            backbone=trial.suggest_categorical("backbone", self.backbones),
            learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-3, 0.2, log=True),
            dropout=trial.suggest_float("dropout", 0.0, 0.5),
            augmentation=self.config.augmentation.scaled(strength),
        )
        seed_everything(config.seed)
        model = new_model(config, len(self.prepared.dataset.classes))
        fit = Fit(model, self.prepared.table, self.prepared.preprocessing, config, choose_device(self.device))

        def within_time(_: str, done: int, of: int) -> None:
            self.progress(f"trial {trial.number + 1}", done, of)
            if done < of and time.monotonic() > self.deadline:
                raise RunStopped("out of time")

        def hopeless(history: list[dict[str, float]], *_: Any) -> bool:
            trial.report(min(row["val_loss"] for row in history), len(history))
            return trial.should_prune()

        parts = self.prepared.parts
        with TemporaryDirectory() as folder:
            state = Path(folder) / "state.pt"
            assert config.learning_rate is not None
            rate, silent = config.learning_rate, lambda _: None
            try:
                result = run_fit(fit, parts["train"], parts["val"], rate, state, silent, within_time, hopeless)
            except RunStopped:
                raise optuna.TrialPruned from None
        if not result.history:
            raise optuna.TrialPruned  # the loss was no number from the start
        best = result.history[result.epoch - 1]
        reached = {name: value for name, value in best.items() if name.startswith("val_") and name != "val_loss"}
        trial.set_user_attr("reached", reached)
        trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
        return best["val_loss"]


def _name(prepared: Prepared, config: TrainingSettings, backbones: Sequence[str]) -> str:
    settings = [config.to_json(), config.init, list(backbones)]  # as given: each backbone has a start of its own
    content = [prepared.dataset.table["split"].to_list(), prepared.table.hashes, *settings]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def _table(study: optuna.Study) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trial": trial.number + 1,
            "state": _STATES.get(trial.state, _BROKEN_OFF),
            "val_loss": trial.value if trial.state == TrialState.COMPLETE else None,
            **trial.user_attrs.get("reached", {}),
            "seconds": trial.user_attrs.get("seconds"),
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.params
    )
