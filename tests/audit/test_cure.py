"""The cure: stains say nothing of the class any more, the ledger compares the same images, the card tells the story."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers.small import make_checkpoint

from steel_core.audit.artefacts import Artefacts
from steel_core.audit.cure import CureLedger, CureOutcome, cure, fit_class_offsets
from steel_core.audit.mark_segmenter import MarkSegmenter
from steel_core.audit.report import STATUS
from steel_core.audit.settings import CureSettings, StainSettings
from steel_core.audit.sheets import read_sheets
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW
from steel_core.audit.white_stain import audit_white_stain
from steel_core.cli.main import main
from steel_core.data.open import open_dataset
from steel_core.data.quality.clues import find_marks
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.errors import DataError, UsageError
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import load_checkpoint
from steel_core.training.images import read_images

DOSE = StainSettings(family=False, elsewhere=4)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "sheets"
    write_sheets(StripMill(size=(64, 64), seed=4, clear_share=0.5, stained_clear=0.9, stained_defect=0.05), 120, out)
    return open_dataset(out)


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_the_ledger_and_the_card(index, tmp_path, penalty):
    ill = make_checkpoint(tmp_path / "ill", notes=("Looks at stains.",))
    ledger = cure(
        ill,
        index,
        tmp_path / "cured",
        CureSettings(epochs=1, penalty=penalty),
        DOSE,
        device="cpu",
        scale_maps=False,
        notes=("For a demonstration only.",),
        report=lambda _: None,
    )
    old, new = load_checkpoint(ill), load_checkpoint(tmp_path / "cured")
    summary = new.card.training.cure
    assert summary.of_hash == old.hash
    assert summary.audit.before["verdict"] == ledger.audit_before.verdict
    assert "Looks at stains." not in new.card.notes
    assert ("Cured" in new.card.notes[0]) == (not ledger.failure) == new.card.title.endswith("cured")
    assert summary.failure == ledger.failure
    assert new.card.notes[1:] == ("For a demonstration only.",)
    assert set(ledger.before.escapes) == set(ledger.after.escapes) == {"defect"}
    assert ledger.before.n == ledger.after.n
    assert ledger.audit_before.data_hash == ledger.audit_after.data_hash
    changed = [not torch.equal(a, b) for a, b in zip(old.model.parameters(), new.model.parameters(), strict=True)]
    assert any(changed)
    assert not list(tmp_path.glob(".cured*"))


def test_the_command_tells_the_ledger_with_intervals_and_the_evidence_in_the_stain(index, tmp_path, capsys):
    ill = make_checkpoint(tmp_path / "ill")
    asked = ["cure", "--checkpoint", str(ill), "--data", str(index.root), "--out", str(tmp_path / "cured")]
    status = main([*asked, "--epochs", "1", "--limit", "24", "--device", "cpu"])
    ledger = load_checkpoint(tmp_path / "cured").card.training.cure.audit.to_json()
    printed = {line[:26].strip(): line[26:] for line in capsys.readouterr().out.splitlines()}
    for side in ("before", "after"):
        low, high = ledger[side]["accuracy_interval"]
        assert f"{ledger[side]['accuracy']:.3f} ({low:.3f} to {high:.3f})" in printed["accuracy"]
        share = ledger[side]["evidence_inside_stain"]["stain"]
        assert ("-" if share is None else f"{share:.3f}") in printed["evidence in the stain"]
    failed = load_checkpoint(tmp_path / "cured").card.training.cure.failure
    assert status == (3 if failed else STATUS[ledger["after"]["verdict"]])


def test_marks_are_found_painted_over_and_given_to_all_classes_and_hide_no_defect(index):
    binary = index.binary()
    table = read_images(binary, (64, 64), lambda *_: None)
    train = torch.arange(len(table.labels))
    clear = binary.classes.index("clear")
    artefacts = Artefacts.collect(binary, table, train, clear, CureSettings())
    labels = table.labels.numpy()
    assert artefacts.natural[clear] > artefacts.natural[1 - clear] + 0.3
    assert len(artefacts.donors) > 20 and all(labels[i] == clear and artefacts.carries[i] for i in artefacts.donors)
    before = [find_marks(artefacts.grids[i])[0].mean() for i in artefacts.donors]
    after = [find_marks(artefacts.painted[i])[0].mean() for i in artefacts.donors]
    assert np.mean(after) < 0.3 * np.mean(before)
    rng = np.random.default_rng(0)
    for i in range(1, 41):
        region, grid = artefacts.regions[i], artefacts.painted[i]
        for stained in (artefacts.give_mark(grid, i, rng), artefacts.draw_stain(grid, i, rng)):
            assert stained.dtype == np.float32 and stained.min() >= 0 and stained.max() <= 1
            assert not region.any() or (np.abs(stained - grid) > 0.01)[region].mean() <= 0.35  # with its soft edge


def test_where_no_mark_is_seen_images_stay_as_they_are(index):
    binary = index.binary()
    table = read_images(binary, (64, 64), lambda *_: None)
    even = replace(table, grids=torch.full_like(table.grids, 0.4))
    artefacts = Artefacts.collect(binary, even, torch.arange(40), 0, CureSettings(drawn=0.0))
    assert not artefacts.donors and not artefacts.natural.any()
    assert np.array_equal(artefacts.vary(3, np.random.default_rng(0)), artefacts.grids[3])
    assert "0% of every class" in artefacts.describe(binary.classes)


def test_marks_are_segmented_as_far_as_they_reach():
    """Marks that a local background hides: as large as a quarter of the picture, on grainy steel that is as bright."""
    rng = np.random.default_rng(4)
    grids, truth, suspected = [], [], np.arange(60) < 30
    for has in suspected:
        grid = rng.normal(rng.uniform(0.35, 0.6), rng.uniform(0.03, 0.2), (96, 96))
        cover = np.zeros((96, 96), np.float32)
        if has:
            cv2.circle(cover, tuple(map(int, rng.integers(30, 66, 2))), 26, 1.0, -1)
        cover = cv2.GaussianBlur(cover, (0, 0), 2)
        grids.append(np.clip(grid * (1 - cover) + 0.85 * cover, 0, 1).astype(np.float32))
        truth.append(cover > 0.5)
    seeds = [find_marks(grid)[0] for grid in grids]
    segmenter = MarkSegmenter.learn(grids[::2], seeds[::2], suspected[::2])
    unseen = [segmenter.segment(grid) for grid in grids[1::2]]
    met = [(a & b).sum() / (a | b).sum() for a, b, s in zip(unseen, truth[1::2], suspected[1::2], strict=True) if s]
    assert np.mean(met) > 0.75
    assert np.mean([mark.any() for mark, s in zip(unseen, suspected[1::2], strict=True) if not s]) < 0.1
    assert MarkSegmenter.learn(grids[:30], seeds[:30], suspected[:30]) is None  # nothing to tell them from


def test_where_nothing_tells_a_defect_stains_keep_off_where_the_model_looks(index, tmp_path):
    binary = index.binary()
    blind = replace(binary, table=binary.table.assign(mask=""))
    table = read_images(blind, (64, 64), lambda *_: None)
    ill = Predictor.load(make_checkpoint(tmp_path / "ill"), "cpu")
    artefacts = Artefacts.collect(blind, table, torch.arange(40), 0, CureSettings(), ill)
    defective = [i for i in range(len(table.labels)) if int(table.labels[i]) != binary.classes.index("clear")]
    assert np.mean([artefacts.regions[i].any() for i in defective]) > 0.9


def outcome(flips, balanced, gap=0.0):
    inside = {"class": "clear", "n": 40, "area": 0.1, "before": 0.1, "stain": 0.1, "clean steel": 0.1}
    return CureOutcome(
        stain="a mark",
        flip_rate=flips,
        control_flip_rate=0.01,
        controls={"mean-grey": 0.01},
        excess=None if flips is None else flips - 0.01,
        excess_interval=(-0.1, 1.0),
        excess_n=80,
        accuracy=balanced,
        accuracy_interval=(0.0, 1.0),
        balanced_accuracy=balanced,
        gap=gap,
        n=200,
        outcomes={},
        escapes={},
        ece=0.02,
        evidence_inside_stain=inside,
        evaluation={},
    )


@pytest.mark.parametrize(
    ("after", "verdict", "why"),
    [
        ((0.06, 0.95), AGAINST, ""),
        ((0.06, 0.95), TOO_FEW, "not shown"),
        ((None, 0.95), AGAINST, "could not be measured"),
        ((0.02, 0.95, None), AGAINST, "could not be measured"),
        ((0.04, 0.945), AGAINST, ""),
        ((0.64, 0.95), AGAINST, "still turns 64.0 % of the sheets; before, one turned 74.0 %"),
        ((0.02, 0.90), AGAINST, "fell from 0.950 to 0.900"),
        ((0.02, 0.95), FOR, "still finds"),
        ((0.02, 0.95, 0.6), AGAINST, "still named rightly 60.0 % oftener"),
    ],
)
def test_a_cure_that_fails_says_so(index, tmp_path, after, verdict, why):
    predictor = Predictor.load(make_checkpoint(tmp_path / "ill"), "cpu")
    sheets = read_sheets(predictor, index.binary(), "all", 24)
    report = audit_white_stain(predictor, sheets, DOSE)
    ledger = CureLedger(
        before=outcome(0.74, 0.95, 0.7),
        after=outcome(*after),
        audit_before=report.replace(verdict=FOR),
        audit_after=report.replace(verdict=verdict),
    )
    assert why in ledger.failure and bool(why) == bool(ledger.failure)
    assert ledger.status == (3 if why else STATUS[verdict])


def test_marks_are_as_common_in_the_copies_of_every_class(index):
    binary = index.binary()
    table = read_images(binary, (64, 64), lambda *_: None)
    rows = torch.arange(40, 120)
    clear = binary.classes.index("clear")
    artefacts = Artefacts.collect(binary, table, torch.arange(100), clear, CureSettings(drawn=0.0))
    both, where = artefacts.with_varied_copies(table, rows)
    assert len(where) == 160 and len(both.labels) == len(both.grids) == len(table.labels) + 160
    assert torch.equal(both.grids[: len(table.grids)], table.grids)
    marked = np.array([find_marks(both.grids[i, 0].float().numpy())[0].any() for i in where])
    shares = [marked[both.labels[where].numpy() == k].mean() for k in range(2)]
    assert abs(shares[0] - shares[1]) < 0.25
    assert 0.3 < np.mean(shares) < 0.8


def test_levelling_moves_the_border_to_where_errors_are_rarest():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [50, 200])
    margin = np.where(labels, rng.normal(1.0, 1.0, 250), rng.normal(-3.0, 1.0, 250))  # the border belongs at -1
    logits = np.c_[np.zeros(250), margin]
    offsets = fit_class_offsets(logits, labels)
    assert abs(offsets.sum()) < 1e-9
    assert 0.6 < offsets[1] - offsets[0] < 1.4

    def balanced(logits):
        right = logits.argmax(axis=1) == labels
        return (right[:50].mean() + right[50:].mean()) / 2

    assert balanced(logits + offsets) > balanced(logits) + 0.02
    assert np.abs(fit_class_offsets(logits + np.array([0.0, 1.0]), labels)).max() < 0.25
    assert np.isfinite(fit_class_offsets(logits[:50], labels[:50])).all()  # one class alone


def test_what_cannot_be_cured_is_refused(index, tmp_path):
    ill = make_checkpoint(tmp_path / "ill")
    with pytest.raises(DataError, match="train"):
        cure(ill, index.without_splits(), tmp_path / "out", settings=DOSE, device="cpu", report=lambda _: None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("kept")
    with pytest.raises(UsageError):
        cure(ill, index, tmp_path / "full", settings=DOSE, device="cpu")
    for wrong in ({"epochs": 0}, {"pasted": 0}, {"penalty": -1}):
        with pytest.raises(UsageError):
            CureSettings(**wrong)
