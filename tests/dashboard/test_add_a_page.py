"""The example of docs/add-a-page.md, run as it stands."""

import re
import shutil
import sys
import types

import pytest
from helpers.dash import ROOT

from dashboard import services

pytestmark = pytest.mark.usefixtures("own_folders")

LAST = "        st.Page("


def module(name, source, **known):
    one = types.ModuleType(name)
    vars(one).update(known)
    exec(compile(source, f"{name} on the page", "exec"), vars(one))
    return one


def test_the_example_passes_its_own_test(app, home, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "add-a-page.md").read_text(encoding="utf-8")
    page, line, component, service, test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    shutil.copytree(ROOT / "dashboard" / "app_pages", tmp_path / "dashboard" / "app_pages")
    (tmp_path / "dashboard" / "app_pages" / "darkest.py").write_text(page, encoding="utf-8")
    script = (ROOT / "dashboard" / "app.py").read_text(encoding="utf-8")
    before, last, after = script.rpartition(LAST)
    (tmp_path / "dashboard" / "app.py").write_text(
        f"{before}{' ' * 8}{line.rstrip()},\n{last}{after}", encoding="utf-8"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))  # the copy adds its own folder
    monkeypatch.setitem(app.__globals__, "ROOT", tmp_path)

    added = module("service", service, Collection=services.explore.Collection)
    monkeypatch.setattr(services.explore, "darkest", added.darkest, raising=False)
    folder = "dashboard.components.darkest"
    monkeypatch.setitem(sys.modules, folder, types.ModuleType(folder))
    name = f"{folder}.darkest_images"
    monkeypatch.setitem(sys.modules, name, module(name, component))

    checks = [check for name, check in vars(module("test", test)).items() if name.startswith("test_")]
    assert checks
    for check in checks:
        check(app, home)
