"""Evaluate in a real browser: a click on a cell, a finding that stays, a threshold that Inspect obeys."""

import json
import re
import shutil

import pandas as pd
import pytest
from helpers.dash import furnish
from helpers.serving import dashboard

from steel_core.data.open import open_dataset
from steel_core.evaluation.store import load_or_evaluate
from steel_core.inference.predictor import Predictor

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

LAST_MAP = re.compile("^SHAP.* map of ")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("evaluate")
    furnish(home)
    shutil.copytree(home / "models" / "b-clear", home / "models" / "y-copy")
    return home


@pytest.fixture(scope="module")
def server(home):
    """A dashboard of its own, which keeps findings and evaluations in a folder of its own."""
    with dashboard(home, STEEL_DATA=home / "data") as address:
        yield address


@pytest.fixture(scope="module")
def table(home) -> pd.DataFrame:
    """What the page must show: the evaluation, made past the page."""
    rows = load_or_evaluate(
        Predictor.load(home / "models" / "y-copy"),
        open_dataset(home / "data" / "sheets"),
        home / "cache" / "evaluations",
    )
    return rows.select("all").table


def shown(page):
    return page.locator('[data-testid="stPageLink"] a[href*="image="]')


def test_compute_then_click_a_cell_and_see_exactly_its_images(visit, table, home):
    page = visit("/evaluate?model=b-clear&data=sheets&part=all")
    page.get_by_role("button", name="Compute, about").or_(page.get_by_text("59 images")).first.wait_for()
    if page.get_by_role("button", name="Compute, about").count():
        page.get_by_role("button", name="Compute, about").click()
    expect(page.get_by_text("59 images of sheets")).to_be_visible()
    chart = page.locator('[data-testid="stVegaLiteChart"]')
    cells = chart.locator("canvas, svg").first
    expect(cells).to_be_visible()
    box = cells.bounding_box()
    # the lower right quarter of the plot: actual defect, predicted defect
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.8)
    page.wait_for_url("**actual=defect*predicted=defect**")
    mine = table[(table["label"] == "defect") & (table["pred"] == "defect")].sort_values(
        "loss", ascending=False, kind="stable"
    )
    expect(page.get_by_text(f"Actual defect, predicted defect: {len(mine)} images")).to_be_visible()
    expect(shown(page)).to_have_text([file.split("/")[-1] for file in mine["file"]][:12])


def test_dragging_over_a_histogram_shows_the_images_behind_it(visit, table):
    page = visit("/evaluate?model=y-copy&data=sheets&part=all&tab=Worst+images")
    plot = page.locator('[data-testid="stPlotlyChart"] .nsewdrag').first
    expect(plot).to_be_visible()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2, steps=8)
    page.mouse.move(box["x"] + box["width"] * 0.98, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    start, end = (page.get_by_role("spinbutton", name=f"Loss, {which}") for which in ("from", "to"))
    expect(start).not_to_have_value("")
    low, high = (float(field.input_value()) for field in (start, end))
    assert 0.3 * table["loss"].max() < low < high < 1.2 * table["loss"].max()
    inside = table[table["loss"].between(low, high)].sort_values("loss", ascending=False, kind="stable")
    expect(shown(page)).to_have_text([file.split("/")[-1] for file in inside["file"]][:12])


def test_a_confused_pair_leads_to_its_cell_and_the_address_holds_it(visit, table):
    wrong = table[table["label"] != table["pred"]]
    actual, predicted = wrong.value_counts(["label", "pred"]).index[0]
    page = visit("/evaluate?model=y-copy&data=sheets&part=all&tab=Figures")
    page.get_by_role("button", name=re.compile(f"{actual} called {predicted}")).first.click()
    page.wait_for_url(f"**actual={actual}*predicted={predicted}**")
    count = f"Actual {actual}, predicted {predicted}: {len(wrong[wrong['pred'] == predicted])} images"
    expect(page.get_by_text(count)).to_be_visible()
    again = visit(page.url.removeprefix(page.evaluate("location.origin")))
    expect(again.get_by_text(count)).to_be_visible()


def test_the_camera_of_a_plot_saves_a_png(visit, table, tmp_path):
    page = visit("/evaluate?model=y-copy&data=sheets&part=all&tab=Calibration")
    plot = page.locator('[data-testid="stPlotlyChart"]').first
    plot.hover()
    with page.expect_download() as download:
        plot.locator('[data-title*="PNG" i]').first.click()
    assert download.value.suggested_filename == "calibration.png"
    download.value.save_as(tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_a_finding_is_there_after_a_reload(visit, table, home):
    worst = table.sort_values("loss", ascending=False, kind="stable").iloc[0]
    page = visit("/evaluate?model=y-copy&data=sheets&part=all&tab=Worst+images")
    name = page.get_by_role("textbox", name="Your name")
    name.fill("Ada")
    name.press("Enter")
    page.wait_for_load_state("networkidle")
    finding = page.get_by_role("button", name="model wrong").or_(page.get_by_role("radio", name="model wrong")).first
    expect(finding).to_be_enabled()
    finding.click()
    expect(page.get_by_text("Ada, 20")).to_be_visible()
    page.wait_for_load_state("networkidle")
    again = visit("/evaluate?model=y-copy&data=sheets&part=all&tab=Worst+images&images=triaged")
    expect(again.get_by_text("Ada, 20")).to_be_visible()
    expect(shown(again)).to_have_text([worst["file"].split("/")[-1]])


def test_a_saved_threshold_changes_the_verdict_of_inspect(visit, table, home):
    inspect = "/inspect?model=y-copy&data=sheets&image=images/sheet-000010.png"
    before = visit(inspect)
    expect(before.get_by_role("heading", name="Refer to a person")).to_be_visible()
    expect(before.get_by_role("img", name=LAST_MAP)).to_be_visible()
    page = visit("/evaluate?model=y-copy&data=sheets&tab=Thresholds")
    for label in ("clear", "defect"):
        field = page.get_by_role("spinbutton", name=f"{label} (in force")
        field.fill("0")
        field.press("Tab")
    page.get_by_role("textbox", name="Who answers for it").fill("Ada")
    page.get_by_role("textbox", name="Why").fill("fewer looks")
    page.get_by_role("button", name="Save thresholds").click()
    expect(page.get_by_text("Thresholds saved by Ada")).to_be_visible()
    assert json.loads((home / "models" / "y-copy" / "card.json").read_text())["thresholds"] == {"clear": 0, "defect": 0}
    after = visit(inspect)
    expect(after.get_by_role("img", name=LAST_MAP)).to_be_visible()
    expect(after.get_by_role("heading", name="Refer to a person")).to_have_count(0)
