import shutil
from pathlib import Path

import pytest
from helpers.dash import furnish
from helpers.serving import dashboard

WAIT = 120_000  # milliseconds; machines are busy
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"][data-test-connection-state="CONNECTED"]'
ARGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
)


def find_chromium():
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    return None


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The address of a dashboard with test models and data; the shipped ones are there, too."""
    home = tmp_path_factory.mktemp("home")
    furnish(home)
    with dashboard(home, STEEL_DATA=home / "data") as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        own = Path(driver.chromium.executable_path)
        path = find_chromium() or (str(own) if own.exists() else None)
        if path is None:
            pytest.skip("no Chromium was found; install it, or run `playwright install chromium`")
        browser = driver.chromium.launch(executable_path=path, args=list(ARGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Opens a page and waits until it is idle: `visit("/explore?page=2", width=390)`. Errors fail the test."""
    opened, complaints = [], []

    def complain(message):
        # On a page's own address Streamlit first asks below it whether the server lies there, and meets a 404.
        probe = "/_stcore/" in message.location["url"]
        if message.type == "error" and not probe:
            complaints.append(f"{message.text} {message.location['url']}")

    def open_page(path="/", width=1440, height=900, theme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened.append((context, page))
        page.goto(server + path)
        idle(page)
        return page

    yield open_page
    for context, page in opened:
        assert page.locator('[data-testid="stException"]').count() == 0
        context.close()
    assert not complaints


def idle(page):
    """Wait until the script has run and nothing on the page is out of date."""
    page.wait_for_selector(IDLE)
    page.wait_for_function('() => !document.querySelector(\'[data-stale="true"], [data-testid="stSkeleton"]\')')
