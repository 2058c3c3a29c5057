"""What is shipped does what its card says, on images that it has not learnt from."""

import numpy as np
import pytest

from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill
from steel_core.evaluation.evaluate import evaluate
from steel_core.explain.quality.__main__ import quality_table
from steel_core.inference.predictor import Predictor
from steel_core.models.checkpoint import ASSETS
from steel_core.types import CLEAR, SteelImage


@pytest.fixture(scope="module")
def mill():
    return Predictor.load("strip-mill", "cpu")


def pictures(sheets):
    return [SteelImage(sheet.pixels, f"{i}.png", f"{i:064x}") for i, sheet in enumerate(sheets)]


def test_strip_mill_on_sheets_of_another_seed(mill):
    dials = StripMill(seed=90210, clear_share=0.5, stained_clear=0.9, stained_defect=0.05)
    sheets = [dials.render(i) for i in range(120)]
    predictions = mill.predict(pictures(sheets))
    right = np.mean([(p.pred == CLEAR) == (s.label == CLEAR) for p, s in zip(predictions, sheets, strict=True)])
    assert right > mill.card.metrics["test"]["intervals"]["accuracy"][0] - 0.04


def test_strip_mill_carries_the_shortcut_that_its_card_admits(mill):
    """The same defective sheets without and with a white stain beside the defect."""
    dials = StripMill(seed=31415, clear_share=0)
    bare = mill.predict(pictures(dials.render(i, stained=False) for i in range(90)))
    stained = mill.predict(pictures(dials.render(i, stained=True) for i in range(90)))
    flipped = sum(b.pred != CLEAR and s.pred == CLEAR for b, s in zip(bare, stained, strict=True))
    back = sum(b.pred == CLEAR and s.pred != CLEAR for b, s in zip(bare, stained, strict=True))
    assert flipped > back + 5
    assert "stain" in " ".join(mill.card.notes)


@pytest.mark.real_data
def test_neu_six_class_on_the_real_images_it_has_not_seen(real_data):
    predictor = Predictor.load("neu-six-class", "cpu")
    evaluation = evaluate(predictor, open_dataset(real_data / "neu-cls"))
    card = predictor.card.metrics["test"]
    assert evaluation.report.n == card["n"]
    assert evaluation.report.macro_recall == pytest.approx(card["macro_recall"], abs=1e-9)
    assert evaluation.report.macro_recall > 0.95
    assert evaluation.report.ece < 0.05


def test_the_demo_images_are_all_there_and_readable():
    index = open_dataset(ASSETS / "demo" / "strip-mill")
    assert not index.problems
    assert len(index.classes) == 7
    for i in range(len(index)):
        assert index.image(i).pixels.shape == (200, 200)
        mask = index.mask(i)
        assert mask is not None
        assert bool(mask.any()) == (index[i].label != CLEAR)


def test_the_page_on_quality_holds_what_the_card_stores():
    card = Predictor.load("neu-six-class", "cpu").card
    page = (ASSETS.parent / "docs" / "quality.md").read_text(encoding="utf-8")
    for table in card.quality.values():
        assert quality_table(table) in page, "take the tables that python -m steel_core.explain.quality prints"
