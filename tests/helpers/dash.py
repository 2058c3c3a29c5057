"""What the tests of the dashboard share: models and data made on the spot, and the words of a page."""

import io
import time
from pathlib import Path

import numpy as np
import torch
from helpers.small import make_card
from PIL import Image

from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.models.base import BACKBONES
from steel_core.models.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[2]
DEFECTS = ("crazing", "inclusion", "patches", "pitted surface", "rolled-in scale", "scratches")


def report(n, classes):
    """Figures as `metrics.EvaluationReport.to_json` writes them."""
    spread = dict.fromkeys(("accuracy", "macro_recall", "macro_f1", "auc", "ece"), (0.9, 0.99))
    return {
        "classes": list(classes),
        "n": n,
        "groups": n - 10,
        "accuracy": 0.96,
        "macro_recall": 0.97,
        "macro_f1": 0.96,
        "auc": None,
        "ece": 0.2,
        "recall": dict.fromkeys(classes, 0.98) | {classes[0]: 0.81},
        "support": dict.fromkeys(classes, n // len(classes)),
        "confusion": [],
        "intervals": spread | {"recall": dict.fromkeys(classes, (0.75, 0.99))},
    }


def write_model(folder, classes, **card):
    torch.manual_seed(0)
    network = BACKBONES["squeezenet-reduced"](len(classes))
    background = np.random.default_rng(0).integers(90, 160, (2, 64, 64), dtype=np.uint8)
    settings = {
        "title": f"A model of {len(classes)} classes",
        "temperature": 0.05,
        "background": "2 grey images",
    } | card
    save_checkpoint(
        folder,
        make_card(folder.name, classes, **settings),
        network.state_dict(),
        background,
    )


def furnish(home):
    """Two sound models, one without figures, a damaged one, and a data set with an unreadable image."""
    models, data = home / "models", home / "data" / "sheets"
    write_model(models / "a-six", DEFECTS, metrics={"test": report(120, DEFECTS)}, created="2026-01-02T03:04:05")
    write_model(
        models / "b-clear",
        ("clear", "defect"),
        notes=("It learnt a *planted* shortcut.",),
        metrics={"test": report(900, ("clear", "defect"))},
        thresholds={"clear": 1.0, "defect": 1.0},
    )
    write_model(models / "c-bare", DEFECTS, thresholds=dict.fromkeys(DEFECTS, 0.0))
    write_model(models / "d-damaged", DEFECTS)
    weights = models / "d-damaged" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    write_sheets(StripMill(size=(64, 64), seed=1), 60, data)
    (data / "images" / "sheet-000003.png").write_bytes(b"no picture at all")


def png(seed=0, size=(64, 64), white=False):
    """The bytes of a PNG of noise, or of nothing but white."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(np.full_like(noise, 255) if white else noise).save(file, "PNG")
    return file.getvalue()


def words(test):
    """Everything a page of `AppTest` says, in one string."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "html", "metric", "expander")
    return "\n".join(str(getattr(e, "value", "") or getattr(e, "label", "")) for kind in kinds for e in test.get(kind))


def finished(test):
    """The page once all maps are made: in a browser it draws itself anew, here it is asked to."""
    until = time.monotonic() + 100
    while ":material/hourglass_top: " in words(test).replace(":material/hourglass_top: For each map", ""):
        assert time.monotonic() < until, "the maps are not finished"
        time.sleep(0.2)
        test.run()
    return test


def waited(test, seconds=100):
    """The page once no progress bar is on it."""
    until = time.monotonic() + seconds
    while test.get("progress"):
        assert time.monotonic() < until, "the work is not finished"
        time.sleep(0.2)
        test.run()
    return test


def begin(test):
    """Press the button of the offered work, and wait until it is done."""
    next(b for b in test.button if b.label.startswith("Begin, about")).click().run()
    return waited(test)


def upload(test, *files):
    test.file_uploader(key="files").set_value([(name, content, "image/png") for name, content in files])
    return test.run()
