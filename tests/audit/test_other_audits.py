"""Edges and unknown artefacts: each finds what was written into a model, and is silent otherwise."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from audit.handmade import SIDE, predictor, sheets

from steel_core.audit.discover import _bound_in_pixels, audit_discover, format_retest_command
from steel_core.audit.edges import audit_edges
from steel_core.audit.settings import DiscoverSettings, EdgeSettings, StainSettings
from steel_core.audit.stains import cut_stain
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW
from steel_core.audit.white_stain import audit_white_stain
from steel_core.types import SteelImage


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
    assert report.flip_rate > 0.4
    assert report.control_flip_rate == 0
    evidence = report.detail["evidence_in_border"]
    assert evidence["interval_of_difference"][0] > 0 or evidence["share"] > evidence["area"]
    json.dumps(report.to_json())


def test_a_model_that_looks_at_the_defect_passes_the_edge_test():
    report = audit_edges(predictor(0.0), sheets(200))
    assert report.verdict == AGAINST
    assert report.n == 200 and report.flip_rate == 0  # defects at the border stay, and are not hidden
    assert set(report.findings[0].per_class) == {"clear", "defect"}
    assert {row["change"] for row in report.detail["moves"]} == {"shift", "crop"}


def test_the_edge_control_replaces_as_much_as_the_border_and_neither_touches_the_defect(monkeypatch):
    defect = np.zeros((SIDE, SIDE), bool)
    defect[:, :12] = True  # the border meets it, the band has room beside it
    data = replace(sheets(20), defects=(defect,) * 20)
    model, seen = predictor(0.0), []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda grids: seen.extend(grids) or logits(grids))
    audit_edges(model, data, EdgeSettings(moves=()))
    assert len(seen) == 60  # as they are, then border and band of each
    for i in range(0, 20, 2):  # clear sheets: no two pixels are alike
        border, band = (picture != data.grids[i] for picture in seen[20 + 2 * i : 22 + 2 * i])
        assert np.count_nonzero(band) == np.count_nonzero(border) > 700
        assert not (border | band)[defect].any()


def test_a_defect_that_fills_the_border_is_no_evidence_and_the_report_says_which_class_was_not_tested():
    data = sheets(60)
    full = np.ones((SIDE, SIDE), bool)
    data = replace(data, defects=tuple(full if i % 2 else defect for i, defect in enumerate(data.defects)))
    report = audit_edges(predictor(0.0), data)
    assert report.n == 30 and set(report.findings[0].per_class) == {"clear"}
    assert any("No image of defect counts" in limit for limit in report.limits)


QUICK = DiscoverSettings(mapped=100, pasted=60)


def test_an_unknown_artefact_is_found_and_confirmed():
    model = predictor(1.0)
    report = audit_discover(model, sheets(160, stained_clear=0.9), QUICK)
    assert report.verdict == FOR
    assert report.findings[0].name == "patches of clear"
    assert report.findings[0].flip_rate > 0.5
    assert report.findings[0].cluster["exemplars"]
    json.dumps(report.to_json())


def test_the_box_of_an_exemplar_holds_what_was_planted_and_pasting_it_confirms_the_shortcut():
    """From finding to statistic to retest: the box is cut out of a picture of three times the size, and tested."""
    model, small = predictor(1.0), sheets(160, stained_clear=0.9)
    large = replace(small, sizes=((3 * SIDE, 2 * SIDE),) * len(small))
    finding = audit_discover(model, large, QUICK).findings[0]
    asked = StainSettings(family=False, elsewhere=4, towards="clear")
    for exemplar in finding.cluster["exemplars"]:
        left, top, width, height = exemplar["box"]
        picture = cv2.resize(large.grids[exemplar["row"]], (2 * SIDE, 3 * SIDE), interpolation=cv2.INTER_NEAREST)
        white = picture > 0.9
        assert white[top : top + height, left : left + width].sum() > 0.9 * white.sum()
        assert width * height < 0.25 * picture.size
        assert exemplar["path"] == exemplar["file"] == f"{exemplar['row']}.png"
    image = SteelImage(np.rint(255 * picture).astype(np.uint8), exemplar["file"], "0" * 64)
    again = audit_white_stain(model, large, cut_stain(image, exemplar["box"], asked))
    assert again.verdict == FOR


@pytest.mark.parametrize(
    ("rows", "columns", "size", "box"),
    [
        ((10, 20), (30, 50), (SIDE, SIDE), (30, 10, 20, 10)),
        ((10, 20), (30, 50), (2 * SIDE, 4 * SIDE), (120, 20, 80, 20)),
        ((63, 64), (63, 64), (SIDE, SIDE), (60, 60, 4, 4)),
        ((0, 1), (0, 64), (SIDE // 2, SIDE // 2), (0, 0, 32, 4)),
    ],
)
def test_a_box_is_in_pixels_of_the_image_and_can_be_cut_out(rows, columns, size, box):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[slice(*rows), slice(*columns)] = True
    assert _bound_in_pixels(mask, size) == box


def test_the_command_of_a_retest_can_be_pasted_into_a_shell():
    cluster = {"label": "rolled-in scale", "exemplars": [{"path": "a b/1.png", "box": [1, 2, 30, 40]}]}
    command = shlex.split(format_retest_command(cluster, "my model", Path("my data")))
    assert command[command.index("--stain-from") + 1] == str(Path("my data/a b/1.png"))
    assert command[command.index("--box") + 1] == "1,2,30,40"
    assert command[-2:] == ["--towards", "rolled-in scale"] and command[command.index("--checkpoint") + 1] == "my model"


def test_defects_themselves_are_no_artefact():
    report = audit_discover(predictor(0.0), sheets(160), QUICK)
    assert report.verdict == AGAINST


def test_where_nothing_tells_the_defects_their_patches_are_a_question_and_no_shortcut():
    """The defects' own patches make defects of clear sheets: only a person can tell that from a shortcut."""
    report = audit_discover(predictor(0.0), sheets(160, known=False), QUICK)
    asked = [finding for finding in report.findings if finding.name == "patches of defect"]
    assert asked and max(finding.excess for finding in asked) > 0.3
    assert all(finding.verdict != FOR and finding.legs == {"not the defect": None} for finding in asked)
    assert report.verdict == TOO_FEW
    assert any("a person must look" in finding.sentence.lower() for finding in asked)


@pytest.mark.parametrize("run", [audit_edges, audit_discover])
def test_few_images_decide_nothing(run):
    report = run(predictor(0.0), sheets(12))
    assert report.verdict == TOO_FEW
    assert run is audit_edges or "Evidence is sorted into kinds from 40 images on; here are 12." in report.limits
