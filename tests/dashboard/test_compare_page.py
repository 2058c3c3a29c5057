"""Compare: the table is the leaderboard's, made by a worker, with what is missing told and not hidden."""

import shutil
import time

import pandas as pd
import pytest
from helpers.dash import words, write_model

from dashboard import services
from steel_core.data.open import open_dataset
from steel_core.leaderboard.checkpoints import build_leaderboard
from steel_core.models.checkpoint import update_card


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def places(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(cache))
    monkeypatch.setenv("STEEL_HOME", str(tmp_path / "home"))
    services.jobs.board.clear()
    yield
    services.jobs.board.clear()


def compared(test):
    """The page once the worker is done."""
    next(button for button in test.button if button.label.startswith("Compare")).click().run()
    until = time.monotonic() + 100
    while not any("leaderboard" in str(frame.proto.id) for frame in test.dataframe):
        assert time.monotonic() < until, words(test)
        time.sleep(0.2)
        test.run()
    return test


def rows(test) -> pd.DataFrame:
    return next(frame.value for frame in test.dataframe if "Model" in frame.value and "Speed" in frame.value)


def test_a_comparison_is_offered_made_and_shown_as_the_recipe_finds_it(app, home):
    test = app("compare", data="sheets")
    assert "To be compared on sheets" in words(test)
    table = rows(compared(test))
    board = build_leaderboard(open_dataset(home / "data" / "sheets"))
    assert list(table["Model"]) == [entry.name for entry in board.entries] == ["b-clear"]
    assert list(table["Macro recall"]) == [cells["Macro recall"] for cells in board.cells()]
    said = words(test)
    assert "Not compared: 3" in said
    assert "no words for clear" in said and "damaged" in said
    assert not test.exception and not test.error
    assert str(home) not in said


def test_two_rows_lead_to_the_images_on_which_they_disagree(app, home):
    shutil.copytree(home / "models" / "b-clear", home / "models" / "z-other")
    update_card(home / "models" / "z-other", lambda _: {"mean": 0.9})
    try:
        test = compared(app("compare", data="sheets"))
        board = build_leaderboard(open_dataset(home / "data" / "sheets"))
        first, second = board.entries
        table = rows(test)
        assert table["Behind the best"].iloc[1] == pytest.approx(second.behind.difference)
        assert "Two of them side by side" in words(test)
        differ = (first.evaluation.table["pred"] != second.evaluation.table["pred"]).sum()
        assert f"Where they disagree: {differ} images" in words(test)
        assert not test.exception and not test.error
        update_card(home / "models" / "z-other", lambda _: {"title": "Changed"})
        assert "has changed since this was compared" in words(test.run())
    finally:
        shutil.rmtree(home / "models" / "z-other")


def test_types_and_clear_or_defect_are_two_questions(app, home):
    folder = home / "models" / "z-types"
    try:
        write_model(folder, open_dataset(home / "data" / "sheets").classes)
        assert list(rows(compared(app("compare", data="sheets")))["Model"]) == ["z-types"]
        test = app("compare", data="sheets")
        test.toggle(key="two-classes").set_value(True).run()
        assert list(rows(compared(test))["Model"]) == ["b-clear"]
    finally:
        shutil.rmtree(folder)


def test_baselines_stand_beside_the_models(app):
    test = compared(app("compare", data="sheets", baselines="true"))
    assert {"majority (baseline)", "pixels (baseline)", "classical-chain (baseline)"} < set(rows(test)["Model"])
    assert not test.exception and not test.error


def test_where_nothing_can_be_compared_a_sentence_says_why(app, home, monkeypatch):
    monkeypatch.setattr(services.models, "available", lambda: {"a-six": home / "models" / "a-six"})
    test = app("compare", data="sheets")
    next(button for button in test.button if button.label.startswith("Compare")).click().run()
    until = time.monotonic() + 100
    while not test.error:
        assert time.monotonic() < until, words(test)
        time.sleep(0.2)
        test.run()
    assert "nothing can be compared" in words(test) and "no words for clear" in words(test)
    assert "To be compared" in words(test.run())  # and it can be asked again


def test_without_a_data_set_the_page_says_so(app, home, monkeypatch):
    monkeypatch.setenv("STEEL_DATA", str(home / "nowhere"))
    monkeypatch.setattr("dashboard.services.datasets.SHIPPED", home / "nowhere")
    services.datasets.datasets_in.clear()
    assert "No data set is here yet" in words(app("compare"))


def said_of(test):
    return next(box for box in test.selectbox if box.label == "What counts for or against")


def test_the_steps_of_the_chain_can_be_looked_at(app):
    test = compared(app("compare", data="sheets", baselines="true"))
    next(button for button in test.button if button.label.startswith("Look inside")).click().run()
    until = time.monotonic() + 100
    while "The forest says" not in words(test):
        assert time.monotonic() < until, words(test)
        time.sleep(0.2)
        test.run()
    table = next(frame.value for frame in test.dataframe if "Feature" in frame.value)
    assert len(table) == 11 and table["Feature"].iloc[-1].startswith("the other ")
    first = table["Adds"].sum()
    said = said_of(test)
    said.set_value(said.options[-1].partition(",")[0]).run()
    other = next(frame.value for frame in test.dataframe if "Feature" in frame.value)["Adds"].sum()
    assert first == pytest.approx(-other, abs=1e-6), "of two classes one gains what the other loses"
    for image in test.selectbox(key="chain image").options[1:4]:
        test.selectbox(key="chain image").set_value(image).run()
        likeliest, _, share = said_of(test).options[0].partition(", ")
        assert said_of(test).value == likeliest
        assert f"The forest says **{likeliest}**, {share}" in words(test)
    assert not test.exception and not test.error


def test_without_baselines_there_is_no_chain_to_look_into(app):
    assert "Inside the classical chain" not in words(compared(app("compare", data="sheets")))
