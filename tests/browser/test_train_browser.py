"""Train in a real browser: from the shipped images to a model in every chooser, though the dashboard is restarted."""

import re

import pytest
from helpers.serving import dashboard

from steel_core.models.checkpoint import load_checkpoint

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture
def server(home):
    with dashboard(home, STEEL_DATA=None) as address:
        yield address


def test_a_tiny_run_ends_in_a_model_that_every_chooser_offers(visit, home):
    page = visit("/train?data=strip-mill")
    page.get_by_text("Quick look").click()
    expect(page.get_by_text("A quarter of the epochs")).to_be_visible()
    page.get_by_text("Advanced").click()
    for role, label, value in (("spinbutton", "Epochs", "2"), ("textbox", "Pixels", "64x64")):
        field = page.get_by_role(role, name=label, exact=True)
        field.fill(value)
        field.press("Tab")
    name = page.get_by_role("textbox", name="Name of the model")
    name.fill("tiny-steel")
    name.press("Tab")
    page.get_by_text("Only clear or defect").click()
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Start the training").click()
    page.wait_for_url(re.compile("run=2"))
    again = page.url[page.url.index("/train") :]
    page.context.clear_cookies()
    with dashboard(home, STEEL_DATA=None) as other:  # another dashboard reads the same files
        page.goto(other + again)
        expect(page.get_by_text("Finished", exact=True)).to_be_visible(timeout=240_000)
        expect(page.get_by_text("Validation images, as the network learns")).to_be_visible()
        expect(page.get_by_role("button", name="Audit it")).to_be_visible()
        assert load_checkpoint(home / "models" / "tiny-steel").card.classes == ("clear", "defect")
        page.goto(f"{other}/train?model=neu-six-class&data=strip-mill")  # another model is chosen above
        page.get_by_role("link", name="tiny-steel").click()
        expect(page.get_by_text("Finished", exact=True)).to_be_visible()
        page.wait_for_url(re.compile("run=2"))
        page.get_by_role("button", name="Evaluate it").click()
        page.wait_for_url(re.compile("/evaluate.*model=tiny-steel"))
        expect(page.get_by_role("combobox", name="Model")).to_have_value("tiny-steel")
        expect(page.get_by_role("combobox", name="Data set")).to_have_value("strip-mill")
        page.goto("about:blank")  # before its server is gone
    assert "Traceback" not in (home / "log").read_text()
