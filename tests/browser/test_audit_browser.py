"""The Audit page in a real browser: the stain is moved, and the verdict turns where the library says so."""

import re

import pytest
from helpers.dash import ROOT

from steel_core.audit.bench import find_smallest_flip, run_bench
from steel_core.audit.sheets import read_defect_mask
from steel_core.data.open import open_dataset
from steel_core.inference.predictor import Predictor
from steel_core.perturb.methods.patches import WhiteStain

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

SHIPPED = ROOT / "assets" / "models" / "strip-mill"
SHEETS = ROOT / "assets" / "demo" / "strip-mill"
FILE = "images/sheet-000014.png"
PAGE = f"/audit?model=strip-mill&data=strip-mill&image={FILE.replace('/', '%2F')}"


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the shipped model is not here")
def test_the_verdict_turns_at_the_size_that_the_library_names(visit):
    index = open_dataset(SHEETS)
    row = int((index.table["path"] == FILE).to_numpy().argmax())
    model, image = Predictor.load(SHIPPED), index.image(row)
    defect = read_defect_mask(index, row, (image.height, image.width), model.card.input_size)
    flip = find_smallest_flip(model, image, WhiteStain(), defect=defect, towards="clear")
    assert flip and 0.006 < flip.area < 0.05 and flip.counts and not flip.controls
    assert run_bench(model, image, WhiteStain(), 0.005, defect=defect)[1].prediction.pred == "defect"

    page = visit(PAGE)
    expect(page.get_by_text("A stain like this lets a bad sheet out")).to_be_visible()
    slider = page.get_by_role("slider", name="Area of the stain")
    slider.focus()
    slider.press("Home")  # the keyboard moves it, too
    expect(page.get_by_text("The likeliest class stays defect")).to_be_visible()
    page.get_by_role("button", name="Find the smallest stain").click()
    expect(page.get_by_text(re.compile(rf"A stain of {100 * flip.area:.1f} % of the sheet turns it"))).to_be_visible()
    page.get_by_role("button", name="Show this stain").click()
    expect(page.get_by_text("None of the 4 controls")).to_be_visible()
    assert page.evaluate("() => [...document.images].every(i => i.alt)")


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the shipped model is not here")
def test_a_phone_shows_the_bench_without_scrolling_sideways(visit):
    page = visit(PAGE, width=390, height=844, theme="dark")
    expect(page.get_by_role("img", name=re.compile("^Grad-CAM for clear, white stain")).first).to_be_visible()
    wide = page.evaluate("() => [document.documentElement, document.querySelector('[data-testid=stMain]')]"
                         ".map(e => e.scrollWidth - e.clientWidth)")  # fmt: skip
    assert max(wide) <= 0


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the shipped model is not here")
def test_a_box_that_is_dragged_over_a_stain_cuts_it_out(visit):
    page = visit("/audit?model=strip-mill&data=strip-mill")
    expect(page.get_by_text("How well each tells a class")).to_be_visible()  # what stands above has stopped growing
    page.get_by_text("Cut out of an image").click()
    expect(page.get_by_text("Drag a box over the stain")).to_be_visible()
    pad = page.locator(".nsewdrag").last  # above it stands the plot of what predicts the label
    pad.scroll_into_view_if_needed()
    at = pad.bounding_box()
    for step, (x, y) in enumerate(((0.45, 0.2), (0.6, 0.4), (0.7, 0.5))):
        page.mouse.move(at["x"] + x * at["width"], at["y"] + y * at["height"], steps=5)
        if step == 0:
            page.mouse.down()
    page.mouse.up()
    for name, value in (("From the left", 90), ("From the top", 40), ("Width", 50), ("Height", 60)):  # of 200 x 200
        field = page.get_by_role("spinbutton", name=name)
        expect(field).not_to_have_value("")
        assert abs(int(field.input_value()) - value) <= 1
    expect(page.get_by_role("img", name=re.compile("^The stain that was cut out of"))).to_be_visible()
    expect(page.get_by_text("None of the 4 controls")).to_be_visible()


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the shipped model is not here")
def test_from_the_cured_model_the_planted_shortcut_is_one_click_away(visit):
    page = visit("/audit?model=strip-mill-cured&data=strip-mill")
    expect(page.get_by_text("The likeliest class stays defect")).to_be_visible()
    page.get_by_role("button", name="See a model with a planted shortcut").click()
    expect(page.get_by_text("A stain like this lets a bad sheet out")).to_be_visible()
    expect(page.get_by_text("The same pictures, seen by")).to_be_visible()
    assert "model=strip-mill&" in page.url
