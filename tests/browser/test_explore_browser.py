"""Explore in a real browser: filters and links, a box and a lasso that filter, the image's own page."""

import re

import numpy as np
import pytest
from helpers.dash import furnish
from helpers.serving import dashboard

from steel_core.data.images.read import encode_png
from steel_core.data.open import open_dataset
from steel_core.files import write_bytes

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("explore")
    furnish(home)
    upright = home / "data" / "strips" / "defect" / "upright.png"
    write_bytes(upright, encode_png(np.random.default_rng(0).integers(90, 150, (640, 64), dtype=np.uint8)))
    return home


@pytest.fixture(scope="module")
def server(home):
    """A dashboard of its own, which keeps what it measures in a folder of its own."""
    with dashboard(home, STEEL_DATA=home / "data") as address:
        yield address


def begin(page):
    """Press the offered work, unless an earlier test did, and wait until it is done."""
    start = page.get_by_role("button", name=re.compile("^Begin, about"))
    plot = page.locator(".js-plotly-plot")
    start.or_(plot).first.wait_for()
    if start.count():
        start.first.click()
    expect(page.get_by_test_id("stProgress")).to_have_count(0)
    expect(start).to_have_count(0)


def found(page):
    """How many images the gallery says it holds."""
    text = page.get_by_text(re.compile(r"^\d+ to \d+ of \d+ images$"))
    return int(text.first.inner_text().split()[4])


def drag(page, plot, points):
    """Press at the first point, in shares of the plot's sides, move along the others, let go."""
    area = plot.locator(".nsewdrag.drag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def test_filters_lie_in_the_url_and_the_link_shows_the_same_to_others(visit):
    page = visit("/explore?model=b-clear&data=sheets")
    page.get_by_role("combobox", name="Class").click()
    page.get_by_role("option", name="patches").click()
    page.wait_for_url(re.compile("label=patches"))
    expect(page.get_by_role("button", name="Class: patches")).to_be_visible()
    n = found(page)
    again = visit(page.url[page.url.index("/explore") :])
    assert 0 < n == found(again) < 60


def test_a_tile_opens_the_image_in_the_same_tab_and_the_way_back_keeps_the_filter(visit, home):
    index = open_dataset(home / "data" / "sheets")
    index = index.select(index.table["labels"] == "patches")
    name = index[0].path.name
    page = visit("/explore?model=a-six&data=sheets&label=patches")
    link = page.get_by_role("link", name=name)
    assert f"image=images%2F{name}" in link.get_attribute("href")
    link.click()
    expect(page.get_by_text("The link to this image:")).to_be_visible()
    page.wait_for_url(re.compile(f"image=images%2F{name}"))
    assert len(page.context.pages) == 1
    shared = visit(page.url[page.url.index("/explore") :])  # what somebody else sees who gets the link
    expect(shared.get_by_role("heading", name=name)).to_be_visible()
    shared.get_by_role("link", name="Inspect").last.click()
    expect(shared.get_by_text("Labelled in its data set: patches")).to_be_visible()
    page.get_by_role("button", name="Back to the gallery").click()
    expect(page.get_by_text(f"of {len(index)} images")).to_be_visible()
    page.wait_for_url(lambda url: "image=" not in url and "label=patches" in url)


def test_the_browser_s_own_way_back_keeps_the_filter_too(visit, home):
    n = int((open_dataset(home / "data" / "sheets").table["labels"] == "patches").sum())
    page = visit("/explore?model=a-six&data=sheets&label=patches")
    page.get_by_role("link", name=re.compile("^sheet-")).first.click()
    expect(page.get_by_text("The link to this image:")).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.go_back()
    expect(page.get_by_text(f"of {n} images")).to_be_visible()
    page.wait_for_url(lambda url: "image=" not in url and "label=patches" in url)


def test_a_box_over_a_distribution_filters_the_gallery_and_its_chip_takes_it_back(visit):
    page = visit("/explore?model=a-six&data=sheets&tab=Distributions")
    begin(page)
    plot = page.locator(".st-key-plot-brightness")
    drag(page, plot, [(0.1, 0.2), (0.45, 0.8)])
    page.wait_for_url(re.compile("range=brightness"))
    chip = page.get_by_role("button", name=re.compile("Brightness: "))
    expect(chip).to_be_visible()
    expect(page.get_by_text("of 60 images")).to_have_count(0)
    assert 0 < found(page) < 59
    chip.click()
    expect(page.get_by_text("1 to 24 of 60 images")).to_be_visible()


def test_a_lasso_on_the_map_filters_the_gallery(visit):
    page = visit("/explore?model=a-six&data=sheets&tab=Map")
    begin(page)
    drag(
        page,
        page.get_by_test_id("stPlotlyChart").first,
        [(0.05, 0.05), (0.5, 0.05), (0.5, 0.95), (0.05, 0.95), (0.05, 0.06)],
    )
    page.wait_for_url(re.compile("around="))
    expect(page.get_by_role("button", name="Drawn on the map")).to_be_visible()
    expect(page.get_by_text("of 60 images")).to_have_count(0)
    assert 0 < found(page) < 59


def test_an_upright_strip_is_no_taller_than_a_screen_and_begins_with_its_worst_tile(visit):
    page = visit("/explore?model=c-bare&data=strips&image=defect/upright.png", height=900)
    expect(page.get_by_text("How this map was made")).to_be_visible()
    said = page.get_by_text(re.compile(r"number \d+")).first.inner_text()
    expect(page.get_by_role("spinbutton", name="Tile")).to_have_value(re.search(r"number (\d+)", said).group(1))
    tall = page.evaluate("() => [...document.querySelectorAll('[data-testid=stImage] img')].map(i => i.clientHeight)")
    assert len(tall) >= 3 and max(tall) <= 720


@pytest.mark.parametrize(
    ("query", "theme"),
    [
        ("tab=Distributions", "dark"),
        ("tab=Map", "light"),
        ("tab=Findings", "light"),
        ("image=images/sheet-000004.png", "dark"),
    ],
)
def test_a_phone_shows_every_part_without_scrolling_sideways(visit, query, theme):
    page = visit(f"/explore?model=a-six&data=sheets&{query}", width=390, height=844, theme=theme)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    wide = page.evaluate("() => [document.documentElement, document.querySelector('[data-testid=stMain]')]"
                         ".map(e => e.scrollWidth - e.clientWidth)")  # fmt: skip
    assert max(wide) <= 0
    assert page.evaluate("() => [...document.images].every(i => i.hasAttribute('alt'))")
