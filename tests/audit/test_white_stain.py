"""The white-stain test finds the shortcut that was written into a model, and is silent about one without."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from audit.handmade import SIDE, predictor, sheets

from steel_core.audit.bench import find_smallest_flip, run_bench
from steel_core.audit.settings import StainSettings
from steel_core.audit.stains import CONTROLS, DONOR, cut_stain, read_stencil
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW
from steel_core.audit.white_stain import REMOVED, audit_white_stain
from steel_core.errors import UsageError
from steel_core.perturb.methods.patches import WhiteStain
from steel_core.perturb.stencil import cut_box
from steel_core.progress import no_progress
from steel_core.types import SteelImage

QUICK = StainSettings(family=False, elsewhere=8)
FAMILY = StainSettings(elsewhere=8)


def test_a_shortcut_is_found_and_the_figures_are_those_of_the_rule():
    report = audit_white_stain(predictor(1.0), sheets(), QUICK)
    assert report.verdict == FOR
    assert report.status == 3
    content = json.loads(json.dumps(report.to_json()))
    assert content["flip_rate"] > 0.8
    assert content["control_flip_rate"] <= 0.1
    assert content["excess"] == content["flip_rate"] - content["control_flip_rate"]
    assert content["interval"][0] > 0.5
    assert content["n"] == 40
    assert set(content["per_class"]) == {"defect"}
    assert set(report.findings[0].controls) == {*CONTROLS, DONOR}
    inside = report.detail["evidence_inside"]
    assert inside["stain"] > 0.95
    assert inside["before"] < 0.2
    assert content["model_hash"] == "0" * 64
    assert content["data_hash"] == "1" * 64


def test_it_is_silent_on_a_model_that_does_not_look_at_white():
    report = audit_white_stain(predictor(0.0), sheets(160), QUICK)
    assert report.verdict == AGAINST
    assert report.status == 0
    assert report.flip_rate == report.control_flip_rate == 0


def test_few_images_decide_nothing():
    for shortcut in (0.0, 1.0):
        report = audit_white_stain(predictor(shortcut), sheets(20), QUICK)
        assert report.verdict == TOO_FEW
        assert report.status == 4
        assert report.detectable == 1.0


def test_an_image_whose_defect_a_patch_covers_is_no_evidence():
    """Defects so large that no stain fits beside them: the model flips, and nothing is counted."""
    crowded = sheets(80, defect=62)
    report = audit_white_stain(predictor(50.0), crowded, QUICK)
    assert report.n == 0
    assert report.verdict == TOO_FEW
    assert any("no evidence" in limit for limit in report.limits)
    # One such image among others is left out, and only it.
    mixed = sheets(80)
    full = np.ones((SIDE, SIDE), bool)
    mixed = replace(mixed, defects=tuple(full if i == 1 else mask for i, mask in enumerate(mixed.defects)))
    assert audit_white_stain(predictor(1.0), mixed, QUICK).n == 39


def test_hiding_the_defect_is_not_taken_for_a_shortcut():
    """Where nothing tells the defect, stains keep off where the model looks; elsewhere they only fill the table."""
    report = audit_white_stain(predictor(0.0), sheets(160, known=False), QUICK)
    assert report.verdict == AGAINST
    assert any("where the model looks" in limit for limit in report.limits)
    assert {row["position"] for row in report.detail["elsewhere"]} == {"anywhere", "on"}


def test_a_model_that_any_patch_turns_has_no_white_stain_shortcut():
    """Its logit for clear falls with the texture that any patch takes away or adds: here, dark pixels alone decide."""
    model = predictor(0.0)
    with pytest.MonkeyPatch.context() as patch:
        before = model.logits
        seen = {}

        def fooled(grids, progress=no_progress):
            logits = before(grids, progress)
            for row, grid in enumerate(grids):  # any change at all makes it clear
                known = seen.setdefault(grid[:1].tobytes() + grid[-1:].tobytes(), grid)
                if not np.array_equal(known, grid):
                    logits[row] = [9.0, 0.0]
            return logits

        patch.setattr(model, "logits", fooled)
        report = audit_white_stain(model, sheets(120), QUICK)
    assert report.verdict != FOR
    assert report.flip_rate > 0.5
    assert report.excess < 0.05


def test_a_model_without_clear_is_tested_towards_every_class():
    classes = ("patches", "scratches", "pits")
    data = sheets(120, first="patches", second="scratches")
    report = audit_white_stain(predictor(1.0, classes), data, QUICK)
    assert report.verdict == FOR
    assert report.findings[0].name == "towards patches"
    assert {finding.name for finding in report.findings} == {f"towards {name}" for name in classes}
    assert all(finding.p_corrected >= finding.p for finding in report.findings)
    with pytest.raises(UsageError, match="towards"):
        audit_white_stain(predictor(1.0, classes), data, QUICK.replace(towards="rust"))


def test_removing_a_natural_stain_is_tested_on_clear_sheets():
    model = predictor(1.0)
    model.model.head.bias.data[:] = 0
    model.model.head.bias.data[1] = 0.5  # without a stain it says defect
    report = audit_white_stain(model, sheets(120, stained_clear=0.9), QUICK)
    removal = next(finding for finding in report.findings if finding.name == "a stain removed")
    assert removal.n > 40
    assert removal.flip_rate > 0.9
    assert removal.control_flip_rate == 0
    assert removal.verdict == FOR


def test_each_of_the_two_tests_has_its_own_verdict():
    """Few natural stains to paint over do not make the answer about the pasted stain unsure; that they turn does."""
    few = audit_white_stain(predictor(0.0), sheets(160, stained_clear=0.1), QUICK)
    assert {finding.name: finding.verdict for finding in few.findings} == {"towards clear": AGAINST, REMOVED: TOO_FEW}
    assert few.verdict == AGAINST
    # The white spots alone make it say clear, and a stain pasted beside a defect is too weak to turn it.
    model = predictor(0.2)
    model.model.head.weight.data[1] = torch.tensor([0.0, 3000.0])
    model.model.head.bias.data[:] = torch.tensor([0.0, 0.5])
    stained = audit_white_stain(model, sheets(160, stained_clear=0.9), QUICK)
    assert {finding.name: finding.verdict for finding in stained.findings} == {REMOVED: FOR, "towards clear": AGAINST}
    assert stained.findings[0].name == REMOVED
    assert stained.verdict == FOR


def test_the_report_is_repeatable_and_an_image_does_not_depend_on_the_others():
    whole = audit_white_stain(predictor(0.6), sheets(40), QUICK).to_json()
    again = audit_white_stain(predictor(0.6), sheets(40), QUICK).to_json()
    assert {k: v for k, v in whole.items() if k != "created"} == {k: v for k, v in again.items() if k != "created"}
    other = audit_white_stain(predictor(0.6), sheets(40), QUICK.replace(seed=1)).to_json()
    assert other["detail"]["examples"] != whole["detail"]["examples"]


def test_progress_counts_up_and_can_stop_the_audit():
    seen = []
    audit_white_stain(predictor(0.0), sheets(20), QUICK, lambda what, done, of: seen.append((done, of)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]

    def stop(what, done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_white_stain(predictor(0.0), sheets(20), QUICK, stop)


def image_of(data, i):
    return SteelImage((data.grids[i] * 65535).astype(np.uint16), data.names[i], data.hashes[i])


def test_the_bench_shows_stain_and_controls_in_one_place():
    data = sheets()
    rows = run_bench(predictor(1.0), image_of(data, 1), area=0.05, defect=data.defects[1], watched="clear")
    assert [row.name for row in rows] == ["as it is", "white-stain", *CONTROLS]
    assert rows[0].prediction.pred == "defect"
    assert rows[1].prediction.pred == "clear"
    assert all(row.prediction.pred == "defect" for row in rows[2:4])
    assert all(np.array_equal(row.mask, rows[1].mask) for row in rows)
    assert rows[1].inside > 0.95
    assert all(row.counts for row in rows)
    row, column = np.argwhere(data.defects[1]).mean(axis=0) / SIDE
    on = run_bench(predictor(1.0), image_of(data, 1), WhiteStain(centre=(row, column)), defect=data.defects[1])
    assert not on[1].counts


def test_the_smallest_stain_that_flips_is_the_one_the_weights_ask_for():
    data = sheets()
    small = find_smallest_flip(predictor(1.0), image_of(data, 1), defect=data.defects[1])
    assert (small.before, small.after) == ("defect", "clear")
    weak = find_smallest_flip(predictor(0.5), image_of(data, 1), defect=data.defects[1])
    assert 0.002 < small.area < weak.area
    assert "mean-grey" not in small.controls
    assert find_smallest_flip(predictor(0.0), image_of(data, 1), defect=data.defects[1]) is None


def test_a_stain_cut_out_of_an_image_serves_as_well():
    data = sheets(80, stained_clear=1.0)
    image = SteelImage(np.rint(65535 * data.grids[0]).astype(np.uint16), "0.png", "0" * 64)
    settings = cut_stain(image, (0, 0, SIDE, SIDE), QUICK)
    source = cut_box(data.grids[0], (0, 0, SIDE, SIDE))
    report = audit_white_stain(predictor(1.0), sheets(), settings)
    assert report.verdict == FOR
    assert report.settings["stain"] == "cut out of a picture"
    kept = read_stencil(json.loads(json.dumps(report.to_json()))["detail"]["cut_stain"])
    np.testing.assert_allclose(kept.cover, source.cover, atol=1 / 255)
    np.testing.assert_allclose(kept.grey, source.grey, atol=1 / 255)
    assert "cut_stain" not in audit_white_stain(predictor(1.0), sheets(), QUICK).detail


@pytest.mark.parametrize("wrong", [{"area": 0.3}, {"softness": 2.0}, {"tolerated": 1.0}, {"brightness": 1.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        QUICK.replace(**wrong)
