import pytest
import streamlit as st
from helpers.dash import ROOT, furnish
from streamlit.testing.v1 import AppTest


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    furnish(home)
    return home


@pytest.fixture(autouse=True, scope="module")
def forgetful():
    """What an earlier file's pages kept in memory is not known to the next: each has its own places to store things."""
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture(scope="module")
def own_folders(tmp_path_factory):
    """What is measured and decided is kept apart from the user's own, and once for a file of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("STEEL_HOME", str(tmp_path_factory.mktemp("kept")))
        yield


@pytest.fixture
def app(home, monkeypatch):
    """Starts the dashboard on a page: `app("explore", model="a-six", page="2")`."""
    monkeypatch.setenv("STEEL_MODELS", str(home / "models"))
    monkeypatch.setenv("STEEL_DATA", str(home / "data"))
    monkeypatch.setattr("steel_core.models.checkpoint.ASSETS", home / "nothing")
    monkeypatch.setattr("dashboard.services.datasets.SHIPPED", home / "data")
    monkeypatch.setattr("dashboard.services.models.warm_up", lambda: None)
    monkeypatch.chdir(home)

    def start(page="overview", /, **query):
        test = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=120)
        if page != "overview":
            test.switch_page(f"app_pages/{page}.py")
        for name, value in query.items():
            test.query_params[name] = value
        return test.run()

    return start
