"""The report is one whole file: nothing is fetched, nothing of the data acts as markup, figures are the library's."""

import dataclasses
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.small import make_checkpoint
from PIL import Image

from steel_core import render
from steel_core.data.open import open_dataset
from steel_core.evaluation.store import load_or_evaluate
from steel_core.inference.predictor import Predictor
from steel_core.reports.evaluation_report import render_evaluation_html

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for k, name in enumerate(("clear", "defect")):
        (root / "plates" / name).mkdir(parents=True)
        for i in range(24):
            pixels = rng.normal(90 + 60 * k, 30, (64, 64)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "plates" / name / f"{name}-{i}.png")
    predictor = Predictor.load(make_checkpoint(root / "model", title=f"A test {EVIL}"), "cpu")
    index = open_dataset(root / "plates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEEL_CACHE", str(root / "cache"))
        return load_or_evaluate(predictor, index), predictor, index


@pytest.fixture(scope="module")
def page(evaluated):
    evaluation, predictor, index = evaluated
    evaluation = dataclasses.replace(
        evaluation, table=evaluation.table.assign(file=f"{EVIL}.png"), left_out=(f"{EVIL}: damaged",)
    )
    return render_evaluation_html(evaluation, predictor, index, worst=2, with_images=True)


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_is_fetched_and_nothing_of_the_data_is_markup(page):
    tags = Tags(page).found
    assert "default-src 'none'" in next(a["content"] for t, a in tags if "http-equiv" in a)
    pictures = [a for t, a in tags if t == "img"]
    assert len(pictures) == 4, "two images, each with one map"
    for attributes in pictures:
        assert attributes["src"].startswith("data:image/png;base64,")
        assert attributes["alt"]
    assert not [t for t, a in tags if t in ("link", "iframe") or (t == "script" and "src" in a)]
    assert EVIL not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "&lt;img src=x" in page


def test_plotly_is_there_once_and_every_plot_has_a_text(page):
    assert page.count("plotly.js v") == 1
    figures = [a for t, a in Tags(page).found if t == "figure"]
    assert len(figures) >= 7
    assert all(len(a["aria-label"]) > 30 for a in figures)


def test_figures_are_those_of_the_evaluation(page, evaluated):
    report = evaluated[0].report
    assert f"<td>{report.macro_recall:.3f}</td><td>{report.intervals['macro_recall'][0]:.3f}</td>" in page
    assert f"n = {report.n} images" in page
    share = render.percent(report.accuracy)
    assert re.search(rf"the likeliest class is right on\s+{re.escape(share)} of {report.n} \(95 %", page)
    assert "Costs of a sheet: escape 1, false call 1, a person&#39;s look 0.1." in page
    about = json.loads(html.unescape(re.search(r"<details>.*?<pre>(.*?)</pre>", page, re.S)[1]))
    assert about["name"] and len(json.dumps(about)) < 10_000, "the card, but no list of thousands of numbers"


def test_images_that_may_not_be_passed_on_are_left_out(evaluated):
    evaluation, predictor, index = evaluated
    page = render_evaluation_html(evaluation, predictor, index, worst=2)
    assert not [t for t, _ in Tags(page).found if t == "img"]
    assert "Their pictures are not in this report" in page
    assert evaluation.top_losses(1)["file"].iloc[0] in page


def test_without_labels_there_is_still_a_report(evaluated):
    evaluation, predictor, _ = evaluated
    page = render_evaluation_html(dataclasses.replace(evaluation, table=evaluation.table.assign(label="")), predictor)
    assert "no image has a label" in page
    assert "What the model said" in page
