"""The property test asks the images learnt from, and puts what it finds into others."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from audit.handmade import SIDE, predictor, sheets
from PIL import Image

from steel_core.audit.components import COMPONENTS, compress, estimate_jpeg_quality, make_place
from steel_core.audit.properties import audit_properties
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW
from steel_core.data.index import DatasetIndex, unknown_spec

ALL = np.ones((96, 96), bool)


def index_of(data, folder):
    table = pd.DataFrame({"path": list(data.names), "labels": ["|".join(own) for own in data.labels]})
    for name, grid in zip(data.names, data.grids, strict=True):
        Image.fromarray((grid * 255).astype(np.uint8)).save(folder / name)
    return DatasetIndex.build(folder, unknown_spec("hand-made"), table)


def steel(seed, level=0.5, grain=0.03):
    noise = np.random.default_rng(seed).normal(0, 1, (96, 96)).astype(np.float32)
    return np.clip(level + grain * noise, 0, 1).astype(np.float32)


def waved(grid):
    return np.clip(grid + 0.06 * np.sin(np.arange(96) * 2 * np.pi / 8)[:, None], 0, 1).astype(np.float32)


def vignetted(grid):
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    return (grid * (1 - 0.25 * (x**2 + y**2))).astype(np.float32)


def lined(grid):
    out = grid.copy()
    out[:, :3] = 0.95
    return out


CHANGES = {
    "brightness": lambda grid: np.clip(grid + 0.2, 0, 1),
    "contrast": lambda grid: grid.mean() + 2 * (grid - grid.mean()),
    "sharpness": lambda grid: cv2.GaussianBlur(grid, (0, 0), 1.5),
    "vignette": vignetted,
    "waves": waved,
    "border at the left": lined,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_component_is_carried_over_and_its_own_changes_nothing(name):
    component, plain, carrier = COMPONENTS[name], steel(1), CHANGES[name](steel(2))
    own = component.put(plain, ALL, component.take(plain, ALL))
    assert np.abs(own - plain).mean() < 0.004
    given = component.put(plain, ALL, component.take(carrier, ALL))
    assert differ(given, CHANGES[name](plain), name) < 0.6 * differ(plain, CHANGES[name](plain), name)
    if name != "sharpness":  # what was blurred away does not come back
        taken = component.put(carrier, ALL, component.take(plain, ALL))
        assert differ(taken, steel(2), name) < 0.6 * differ(carrier, steel(2), name)


def differ(a, b, name):
    """How far two pictures are apart; for slow light, which leaves the brightness alone, apart from that."""
    away = a - b
    return float(np.abs(away - (away.mean() if name == "vignette" else 0)).mean())


def test_a_place_is_a_window_and_nothing_else():
    stamped = steel(3)
    stamped[70:80, 60:80] = 0.95
    place = make_place((0.78, 0.72))
    given = place.put(steel(1), ALL, place.take(stamped, ALL))
    assert given[72:78, 62:78].mean() > 0.85
    assert np.array_equal(given[:48], steel(1)[:48])


@pytest.mark.parametrize("quality", [20, 40, 60])
def test_the_quality_of_a_compression_is_told(quality):
    texture = cv2.GaussianBlur(steel(4, grain=0.3), (0, 0), 1.2)
    assert abs(estimate_jpeg_quality(compress(texture, quality)) - quality) <= 5
    assert estimate_jpeg_quality(texture) == 100


def bright(n, share=0.92, seed=0):
    """Sheets of which most clear ones are lit: their grey is 0.16 higher."""
    data = sheets(n, seed=seed)
    rng = np.random.default_rng([seed, 1])
    lit = [
        np.clip(grid + 0.16 * (rng.random() < (0.03 if i % 2 else share)), 0, 1) for i, grid in enumerate(data.grids)
    ]
    return replace(data, grids=tuple(grid.astype(np.float32) for grid in lit))


def lit_model(shortcut):
    """White begins at a grey of 0.62: light alone argues for clear."""
    model = predictor(shortcut)
    model.model.features[0].bias.data[0] = -0.6
    model.model.head.weight.data[1, 1] *= 4  # so dark a defect is seen in any light
    return model


def test_a_property_that_is_learnt_is_found_also_where_the_audited_are_clean(tmp_path):
    learnt, audited = bright(160), sheets(160, seed=5)
    paths = tuple(f"audited-{name}" for name in audited.paths)
    audited = replace(audited, rows=audited.rows + 160, paths=paths)
    both = replace(
        learnt,
        grids=learnt.grids + audited.grids,
        labels=learnt.labels + audited.labels,
        paths=learnt.paths + audited.paths,
    )
    report = audit_properties(lit_model(1.0), audited, index_of(both, tmp_path), learnt=learnt)
    assert report.verdict == FOR
    first = report.findings[0]
    assert first.name == "brightness" and first.legs == {"data": True, "model": True}
    assert first.data["label"] == "clear" and first.data["strength"] > 0.7
    assert first.flip_rate > 0.8
    assert first.control_flip_rate < 0.1
    assert first.outcomes["changed"]["passed"] > first.outcomes["as it is"]["passed"]
    json.dumps(report.to_json())
    # The audited alone do not tell it.
    alone = audit_properties(lit_model(1.0), audited, index_of(both, tmp_path))
    assert alone.verdict != FOR
    assert any("None of the images learnt from are here" in limit for limit in alone.limits)


def test_a_property_in_the_data_alone_is_not_red(tmp_path):
    data = bright(160)
    report = audit_properties(lit_model(0.0), data, index_of(data, tmp_path), learnt=data)
    lit = next(finding for finding in report.findings if finding.name == "brightness")
    assert lit.legs == {"data": True, "model": False}
    assert lit.verdict == AGAINST


def test_few_images_leave_the_model_undecided(tmp_path):
    learnt = bright(160)
    few = learnt.select(range(16))
    report = audit_properties(lit_model(1.0), few, index_of(learnt, tmp_path), learnt=learnt)
    lit = next(finding for finding in report.findings if finding.name == "brightness")
    assert lit.legs == {"data": True, "model": None}
    assert lit.verdict == report.verdict == TOO_FEW
    assert "model: undecided" in lit.sentence


def test_marks_are_left_to_the_white_stain_test(tmp_path):
    data = sheets(160, stained_clear=0.95)
    report = audit_properties(predictor(1.0), data, index_of(data, tmp_path), learnt=data)
    marks = next(finding for finding in report.findings if finding.name == "bright marks")
    assert marks.legs["data"] is True and marks.n == 0
    assert any("white-stain test" in limit for limit in report.limits)


def test_a_dark_defect_does_not_make_its_sheet_dark(tmp_path):
    data = sheets(160, defect=30)
    report = audit_properties(predictor(0.0), data, index_of(data, tmp_path))
    assert report.verdict != FOR
    assert not any(finding.legs["data"] for finding in report.findings if finding.name in ("brightness", "contrast"))


def test_sheets_without_labels_ask_nothing(tmp_path):
    data = sheets(20)
    bare = replace(data, labels=((),) * 20)
    assert audit_properties(predictor(0.0), bare, index_of(data, tmp_path)).verdict == TOO_FEW
    assert SIDE == 64
