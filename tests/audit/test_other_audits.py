"""Edges, properties and unknown artefacts: each finds what was written into a model, and is silent otherwise."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from audit.handmade import SIDE, predictor, sheets

from steel_core.audit.discover import DiscoverSettings, audit_discover
from steel_core.audit.edges import audit_edges
from steel_core.audit.properties import audit_properties
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW
from steel_core.data.base import unknown_spec
from steel_core.data.index import DatasetIndex


def index_of(data, folder):
    table = pd.DataFrame({"path": list(data.names), "labels": ["|".join(own) for own in data.labels]})
    from PIL import Image

    for name, grid in zip(data.names, data.grids, strict=True):
        Image.fromarray((grid * 255).astype(np.uint8)).save(folder / name)
    return DatasetIndex.build(folder, unknown_spec("hand-made"), table)


def framed(n=80):
    """Sheets whose defective ones have a dark frame, four pixels wide, and their defect in the middle."""
    data = sheets(n, seed=2)
    grids = []
    for i, grid in enumerate(data.grids):
        out = np.clip(np.random.default_rng(i).normal(0.5, 0.03, grid.shape), 0, 1).astype(np.float32)
        if i % 2:
            out[:4], out[-4:] = 0.02, 0.02
            out[:, :4], out[:, -4:] = 0.02, 0.02
        grids.append(out)
    middle = np.zeros((SIDE, SIDE), bool)
    middle[28:36, 28:36] = True
    empty = np.zeros_like(middle)
    return replace(data, grids=tuple(grids), defects=tuple(middle if i % 2 else empty for i in range(n)))


def test_a_model_that_looks_at_the_frame_is_found():
    report = audit_edges(predictor(0.0), framed())
    assert report.verdict == FOR
    assert report.effect.flip_rate > 0.4
    assert report.effect.control_flip_rate == 0
    evidence = report.detail["evidence_in_border"]
    assert evidence["interval_of_difference"][0] > 0 or evidence["share"] > evidence["area"]
    json.dumps(report.to_json())


def test_a_model_that_looks_at_the_defect_passes_the_edge_test():
    report = audit_edges(predictor(0.0), sheets(200))
    assert report.verdict == AGAINST
    assert report.effect.n < 200  # defects at the border, or under the band, are no evidence
    assert {row["change"] for row in report.detail["moves"]} == {"shift", "crop"}


def test_properties_find_the_stain_by_three_legs(tmp_path):
    data = sheets(160, stained_clear=0.9)
    model = predictor(1.0)
    report = audit_properties(model, data, index_of(data, tmp_path))
    stain = next(finding for finding in report.findings if finding.name == "stain-likeness")
    assert stain.legs == {"data": True, "model": True, "evidence": True}
    assert report.verdict == FOR
    assert stain.detail["data"]["high"] == "clear"
    assert stain.detail["data"]["above_majority"] > 0.3
    json.dumps(report.to_json())


def test_a_property_in_the_data_alone_is_not_red(tmp_path):
    data = sheets(160, stained_clear=0.9)
    report = audit_properties(predictor(0.0), data, index_of(data, tmp_path))
    stain = next(finding for finding in report.findings if finding.name == "stain-likeness")
    assert stain.legs["data"]
    assert stain.legs["model"] is False
    assert stain.verdict == AGAINST
    assert report.verdict == AGAINST


def test_a_property_is_cleared_only_by_an_interval(tmp_path):
    """Too few sheets to rule out that the model follows the stain: its data leg is shown, nothing else is."""
    data = sheets(40, stained_clear=0.9)
    report = audit_properties(predictor(0.0), data, index_of(data, tmp_path))
    stain = next(finding for finding in report.findings if finding.name == "stain-likeness")
    assert stain.legs["data"] is True
    assert stain.legs["model"] is None
    assert stain.verdict == report.verdict == TOO_FEW
    assert "model: undecided" in stain.sentence


def test_what_cannot_be_changed_is_a_doubt_only_where_it_goes_with_the_label(tmp_path):
    model = predictor(0.0)
    model.model.head.bias.data[:] = torch.tensor([50.0, 0.0])  # says clear whatever it sees
    data = sheets(160)
    silent = audit_properties(model, data, index_of(data, tmp_path))
    texture = next(finding for finding in silent.findings if finding.name == "background texture")
    assert texture.verdict == TOO_FEW
    assert any("background texture" in limit for limit in silent.limits)
    assert silent.verdict == AGAINST
    names = tuple(f"{(80 if i % 2 else 0) + i // 2:03d}.png" for i in range(160))
    (tmp_path / "in order").mkdir()
    ordered = replace(data, names=names)
    report = audit_properties(model, ordered, index_of(ordered, tmp_path / "in order"))
    order = next(finding for finding in report.findings if finding.name == "acquisition order")
    assert order.legs == {"data": True, "model": None, "evidence": None}
    assert report.verdict == TOO_FEW


def test_a_dark_defect_does_not_make_its_sheet_dark(tmp_path):
    data = sheets(160, defect=30)
    report = audit_properties(predictor(0.0), data, index_of(data, tmp_path))
    legs = {finding.name: finding.legs["data"] for finding in report.findings}
    assert not legs["brightness"]
    assert not legs["contrast"]
    assert report.verdict == AGAINST


QUICK = DiscoverSettings(mapped=100, pasted=60)


def test_an_unknown_artefact_is_found_and_confirmed():
    model = predictor(1.0)
    report = audit_discover(model, sheets(160, stained_clear=0.9), QUICK)
    assert report.verdict == FOR
    assert report.findings[0].name == "patches of clear"
    assert report.findings[0].effect.flip_rate > 0.5
    assert report.findings[0].detail["cluster"]["exemplars"]
    json.dumps(report.to_json())


def test_defects_themselves_are_no_artefact():
    report = audit_discover(predictor(0.0), sheets(160), QUICK)
    assert report.verdict == AGAINST


@pytest.mark.parametrize("run", [audit_edges, audit_discover])
def test_few_images_decide_nothing(run):
    assert run(predictor(0.0), sheets(12)).verdict == TOO_FEW
