"""The dashboard in a real browser, as a visitor meets it."""

import json
import os
import re
from pathlib import Path

import pytest
from helpers.dash import ROOT, png

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

NEU = Path(os.environ.get("STEEL_DATA", ROOT.parent / "shared" / "data")) / "neu-cls" / "images"
SHIPPED = ROOT / "assets" / "models" / "neu-six-class"
MAPS = ("Grad-CAM", "Guided Grad-CAM", "SHAP")


def upload(page, *files):
    page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    )


def expect_maps(page):
    for title in MAPS:
        expect(page.get_by_role("img", name=re.compile(rf"^{title}.* map of "))).to_be_visible()
    expect(page.get_by_text("How this map was made")).to_have_count(len(MAPS))  # drawn below what says "being refined"
    expect(page.get_by_text("being refined")).to_have_count(0, timeout=180_000)
    expect(page.get_by_text("The report holds the maps that are finished")).to_have_count(0, timeout=180_000)


def save(page, button):
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_an_uploaded_image_gets_a_verdict_three_maps_and_a_report(visit):
    page = visit("/inspect?model=c-bare")
    upload(page, ("plate.png", png(size=(120, 160))))
    expect(page.get_by_text("cannot clear a sheet")).to_be_visible()
    expect(page.get_by_role("list", name="Calibrated probabilities").get_by_role("listitem")).to_have_count(6)
    expect_maps(page)
    name, content = save(page, "Report as picture (PNG)")
    assert name == "plate-report.png" and content.startswith(b"\x89PNG")
    name, content = save(page, "Report in numbers (JSON)")
    content = json.loads(content)
    assert content["file"] == "plate.png" and set(content["maps"]) == {"grad-cam", "guided-grad-cam", "shap"}


@pytest.mark.real_data
@pytest.mark.skipif(not NEU.is_dir(), reason="the NEU images are not here")
@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the shipped model is not here")
def test_a_real_scratch_is_named_by_the_shipped_model(visit):
    page = visit("/inspect?model=neu-six-class")
    upload(page, ("Sc_1.bmp", (NEU / "Sc_1.bmp").read_bytes()))  # of the test part: never learnt from
    expect(page.get_by_role("heading", name="Scratches")).to_be_visible()
    expect(page.get_by_text("served to test this model")).to_be_visible()
    expect_maps(page)


def test_an_upload_is_explained_refined_faded_and_carried_away(visit):
    page = visit("/explain?model=c-bare")
    upload(page, ("plate.png", png(size=(120, 160))))
    expect_maps(page)
    expect(page.get_by_text(re.compile(r"noise: \d+ %")).first).to_be_visible()
    shap = page.get_by_role("img", name=re.compile(r"^SHAP.* map of "))
    words, shown = shap.get_attribute("alt"), shap.get_attribute("src")
    page.get_by_role("slider", name="Opacity of the maps").press("ArrowLeft")
    expect(shap).not_to_have_attribute("src", shown)
    assert shap.get_attribute("alt") == words  # the same raw map, drawn anew
    name, content = save(page, "Mask (PNG)")
    assert name == "plate-grad-cam-mask.png" and content.startswith(b"\x89PNG")
    name, content = save(page, "Boxes (JSON)")
    assert json.loads(content)["width"] == 160 and "boxes" in json.loads(content)


def test_the_choice_of_methods_lies_in_the_url_and_can_be_shared(visit):
    page = visit("/explain?model=a-six&data=sheets&image=images/sheet-000001.png&slow=")
    page.get_by_role("button", name="Control: edges").click()
    expect(page.get_by_role("img", name=re.compile("^Control: edges map of "))).to_be_visible()
    assert "methods=" in page.url
    shared = visit(page.url[page.url.index("/explain") :])
    expect(shared.get_by_role("img", name=re.compile("^Control: edges map of "))).to_be_visible()


def test_a_bad_file_gets_its_sentence_beside_a_good_one(visit):
    page = visit("/inspect?model=a-six")
    upload(page, ("good.png", png()), ("bad.png", b"this is no picture"))
    expect(page.get_by_text("bad.png: expected a picture")).to_be_visible()
    expect(page.get_by_text("2 images:")).to_be_visible()
    expect_maps(page)
    name, content = save(page, "All verdicts (CSV)")
    assert name == "verdicts.csv" and content.count(b".png") >= 2


def test_filters_lie_in_the_url_and_model_and_data_survive_a_change_of_page(visit):
    page = visit("/explore?model=b-clear&data=sheets")
    page.get_by_role("combobox", name="Class").click()
    page.get_by_role("option", name="patches").click()
    page.wait_for_url(re.compile("label=patches"))
    page.get_by_role("link", name="Inspect").first.click()
    expect(page.get_by_text("Or try a sample")).to_be_visible()
    expect(page.get_by_role("combobox", name="Model")).to_have_value("b-clear")
    assert "model=b-clear" in page.url


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/inspect", "/inspect?data=sheets&image=images/sheet-000001.png", "/explore",
                                  "/explain?data=sheets&image=images/sheet-000001.png", "/methods"])  # fmt: skip
def test_a_phone_shows_every_page_without_scrolling_sideways(visit, path, theme):
    page = visit(path, width=390, height=844, theme=theme)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    wide = page.evaluate("() => [document.documentElement, document.querySelector('[data-testid=stMain]')]"
                         ".map(e => e.scrollWidth - e.clientWidth)")  # fmt: skip
    assert max(wide) <= 0
    assert page.evaluate("() => [...document.images].every(i => i.hasAttribute('alt'))")


def test_the_camera_takes_a_picture_when_it_is_asked_for(visit):
    page = visit("/inspect?model=a-six")
    assert page.locator("video").count() == 0
    page.get_by_text("Use the camera").click()
    page.wait_for_function("() => document.querySelector('video')?.videoWidth > 0")  # before, no picture is taken
    page.get_by_role("button", name="Take Photo").click()
    expect(page.get_by_text("cannot clear a sheet")).to_be_visible()
