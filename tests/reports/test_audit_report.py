"""The report of an audit: the very stain is made again, the file needs nothing else, and severity follows its rule."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.small import make_checkpoint

from steel_core.audit.run import audit
from steel_core.audit.settings import AuditSettings, StainSettings
from steel_core.audit.stains import cut_stain
from steel_core.audit.statistics import AGAINST, FOR, TOO_FEW
from steel_core.data.open import open_dataset
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.inference.predictor import Predictor
from steel_core.reports.audit_report import draw_exemplar, make_pairs, render_audit_html, tabulate_outcomes
from steel_core.reports.audit_sentences import (
    describe_evidence,
    describe_finding,
    describe_lack,
    describe_outcomes,
    explain_verdict,
    list_suspects,
    rate_severity,
)
from steel_core.types import SteelImage

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    write_sheets(StripMill(size=(64, 64), seed=1), 24, root / "sheets")
    predictor = Predictor.load(make_checkpoint(root / "model", title=f"A test {EVIL}"), "cpu")
    index = open_dataset(root / "sheets")
    index = replace(index, spec=replace(index.spec, redistributable=True))
    stain = StainSettings(areas=(0.05,), brightnesses=(0.92,), elsewhere=4)
    reports = audit(predictor, index, AuditSettings(kinds=("white-stain", "edges"), part="all", stain=stain))
    return [json.loads(json.dumps(one.to_json(), default=str)) for one in reports], predictor, index


def test_a_pair_holds_the_very_stain_of_the_audit(audited):
    (white, edges), predictor, index = audited
    if not white["detail"]["examples"]:
        pytest.skip("this untrained model calls every sheet clear")
    pairs = make_pairs(predictor, index, white, most=3)
    assert [pair.file for pair in pairs] == [one["file"] for one in white["detail"]["examples"][:3]]
    for pair, example in zip(pairs, white["detail"]["examples"], strict=False):
        probs = [row.prediction.probs["clear"] for row in pair.rows[:2]]
        assert probs == pytest.approx([example["before"], example["after"]], abs=2e-3)  # pictures of 16 bits
    assert make_pairs(predictor, index, edges) == []


def test_a_stain_that_was_cut_out_is_kept_and_its_pairs_hold_it(audited):
    (white, _), predictor, index = audited
    if not white["detail"]["examples"]:
        pytest.skip("this untrained model calls every sheet clear")
    row = int((index.table["labels"] == "clear").to_numpy().argmax())
    asked = StainSettings(areas=(0.05,), brightnesses=(0.92,), elsewhere=4)
    asked = cut_stain(index.image(row), (4, 8, 40, 30), asked)
    (cut,) = audit(predictor, index, AuditSettings(kinds=("white-stain",), part="all", stain=asked))
    report = json.loads(json.dumps(cut.to_json(), default=str))
    pairs = make_pairs(predictor, index, report, most=3)
    assert len(pairs) == min(3, len(report["detail"]["examples"]))
    for pair, example in zip(pairs, report["detail"]["examples"], strict=False):
        assert pair.rows[1].title == "Cut-out stain"
        probs = [shown.prediction.probs["clear"] for shown in pair.rows[:2]]
        assert probs == pytest.approx([example["before"], example["after"]], abs=2e-3)  # pictures of 16 bits
    page = render_audit_html([report], predictor, index)
    assert "The stain that was cut out and pasted" in page and report["settings"]["cut_from"] in page


def test_a_search_shows_its_exemplars_with_their_boxes_and_the_command_of_the_retest(audited):
    (white, _), predictor, index = audited
    image = index.image(3)
    exemplar = {"row": 3, "file": image.name, "path": f"images/{image.name}", "sha256": image.sha256}
    cluster = {"kind": "patches", "label": "clear", "share": 0.9, "prior": 0.5, "interval": [0.8, 0.95], "n": 30}
    cluster["exemplars"] = [exemplar | {"box": [40, 10, 12, 16]}, exemplar | {"sha256": "0" * 64, "box": [0, 0, 4, 4]}]
    other = cluster | {"kind": "maps", "n": 31}
    finding = white["findings"][0] | {"cluster": cluster, "name": "patches of clear", "sentence": "It turns 9 of 10."}
    search = white | {"audit": "discover", "detail": {"clusters": [other, cluster]}, "findings": [finding]}
    assert [one.cluster["n"] for one in list_suspects(search)] == [30, 31]  # the pasted one first
    page = render_audit_html([search], predictor, index)
    tags = Tags()
    tags.feed(page)
    assert [tag["alt"] for tag in tags.images] == [f"{image.name}, box 40,10,12,16"] * 2  # the other file has changed
    assert f"--stain-from FOLDER/images/{image.name} --box 40,10,12,16 --towards clear" in page
    assert "30 images whose evidence lies on a patch that looks alike: 90.0" in page


@pytest.mark.parametrize(("height", "width", "box"), [(64, 64, (40, 10, 12, 16)), (40, 200, (170, 5, 20, 30))])
def test_an_exemplar_is_outlined_where_its_box_lies(height, width, box):
    image = SteelImage(np.full((height, width), 90, np.uint8), "1.png", "0" * 64)
    side, (_, top, wide, high) = min(height, width), box
    shown = draw_exemplar(image, box, side)
    assert shown.shape == (side, side, 3)
    yellow = np.argwhere((shown == (255, 214, 10)).all(axis=2))
    assert (np.ptp(yellow, axis=0) + 1).tolist() == [high, wide]
    assert yellow[:, 0].min() == top  # the whole height is shown


def test_no_pair_is_made_with_another_model_or_of_a_changed_file(audited):
    (white, _), predictor, index = audited
    assert make_pairs(predictor, index, white | {"model_hash": "0" * 64}) == []
    examples = [one | {"sha256": "0" * 64} for one in white["detail"]["examples"]]
    assert make_pairs(predictor, index, white | {"detail": white["detail"] | {"examples": examples}}) == []


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.addresses, self.images = [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("src", "href") if given.get(name)]
        if tag == "img":
            self.images.append(given)


def test_the_page_needs_nothing_else_escapes_what_came_from_data_and_holds_hashes_and_pictures(audited):
    (white, edges), predictor, index = audited
    examples = [one | {"file": f"{EVIL}.png"} for one in white["detail"]["examples"]]
    report = white | {"data": f"sheets {EVIL}", "detail": white["detail"] | {"examples": examples}}
    page = render_audit_html([report, edges], predictor, index)
    assert EVIL not in page
    tags = Tags()
    tags.feed(page)
    assert all(address.startswith("data:") for address in tags.addresses)
    assert len(tags.images) == 4 * min(4, len(examples))
    assert all(image["alt"] for image in tags.images)
    assert white["model_hash"] in page and white["data_hash"] in page
    assert "Content-Security-Policy" in page and "A map shows influence, not cause" in page
    assert white["question"] in page and edges["question"] in page
    seen = {"passed": 0.125, "referred": 0.6, "named wrong": 0.0, "n": 40}
    told = white | {"findings": [white["findings"][0] | {"outcomes": {"dark-stain": seen}}]}
    assert "<td>dark stain</td><td>12.5 %</td>" in " ".join(render_audit_html([told]).replace("\n", "").split())
    without = render_audit_html([white], predictor, replace(index, spec=replace(index.spec, redistributable=False)))
    assert "<img" not in without


@pytest.mark.parametrize(
    ("changed", "severity"),
    [
        ({"verdict": FOR}, "shortcut"),
        ({}, "worth a look"),  # more than nothing, and not proved
        ({"interval": [-0.01, 0.3]}, "no finding"),
        ({"excess": None, "interval": [-1, 1]}, "no finding"),
        ({"legs": {"data": True, "model": None}, "excess": None}, "worth a look"),
        ({"legs": {"data": True, "model": False}, "verdict": AGAINST, "interval": [-0.01, 0.02]}, "no finding"),
    ],
)
def test_severity_follows_verdict_interval_and_what_the_data_show(changed, severity):
    finding = {"verdict": TOO_FEW, "excess": 0.2, "interval": [0.1, 0.3], "legs": {}} | changed
    assert rate_severity(finding) == severity


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"groups": 12}, "12 independent images, 20 are the least"),
        ({}, "may be up to +9.0 %, and 5.0 % are put up with"),
        ({"legs": {"not the defect": None}}, "a person must say"),
    ],
)
def test_what_a_test_lacked_is_said(changed, words):
    finding = {
        "name": "towards clear",
        "verdict": TOO_FEW,
        "groups": 60,
        "interval": [-0.02, 0.09],
        "legs": {},
    } | changed
    report = {"verdict": TOO_FEW, "settings": {"tolerated": 0.05}, "findings": [finding]}
    assert words in describe_lack(report)
    assert describe_lack(report | {"verdict": AGAINST}) == ""
    assert "nothing to test" in describe_lack(report | {"verdict": "nothing to test"})


def test_outcomes_are_told_of_the_defective_sheets():
    seen = {"n": 80, "passed": 0.01, "referred": 0.1, "named wrong": 0.0}
    sentence = describe_outcomes({"outcomes": {"as it is": seen, "stain": seen | {"passed": 0.45}}})
    assert "80 defective sheets" in sentence and "stain 45.0 % passed" in sentence
    assert describe_outcomes({"outcomes": {"as it is": seen | {"n": 0}}}) == describe_outcomes({}) == ""


@pytest.mark.parametrize("kind", ["white-stain", "edges", "properties", "discover"])
def test_every_question_has_plain_words_for_every_verdict(kind):
    report = {"audit": kind, "detail": {"towards": "scratches"}, "findings": [{}]}
    words = [explain_verdict(report | {"verdict": verdict}) for verdict in (FOR, AGAINST, TOO_FEW)]
    assert len(set(words)) == 3
    assert kind != "white-stain" or "a sign of scratches" in words[0]


def test_a_finding_tells_its_own_verdict():
    finding = {"sentence": "A stain turns 3 of 90 images.", "verdict": TOO_FEW}
    assert describe_finding(finding) == "Not enough data. A stain turns 3 of 90 images."


def test_the_share_of_evidence_is_told_where_it_was_measured(audited):
    (white, edges), _, _ = audited
    inside = {"class": "clear", "n": 40, "area": 0.05, "before": 0.06, "stain": 0.29, "clean steel": 0.08}
    report = white | {"detail": white["detail"] | {"evidence_inside": inside}}
    sentence = describe_evidence(report)
    assert sentence == (
        "Of the evidence for clear, 29.0 % lies inside the stain, against 6.0 % at the same place before, 8.0 % with "
        "clean steel, and 5.0 % of the area (n = 40)."
    )
    border = {"n": 60, "share": 0.3, "area": 0.25, "interval_of_difference": [-0.01, 0.12]}
    framed = edges | {"detail": edges["detail"] | {"evidence_in_border": border}}
    assert "(difference -1.0 % to +12.0 %, n = 60)" in describe_evidence(framed)
    page = render_audit_html([report, framed])
    assert sentence in page and "The whole picture moved, or cut" in page
    unknown = dict.fromkeys(("stain", "before", "clean steel"))
    none = white | {"detail": white["detail"] | {"evidence_inside": inside | unknown | {"n": 0}}}
    assert describe_evidence(none) == ""


def test_outcomes_are_a_row_for_each_picture_shown():
    seen = {"passed": 0.1, "referred": 0.6, "named wrong": 0.0, "n": 40}
    table = tabulate_outcomes(
        {"outcomes": {"as it is": seen, "dark-stain": seen | {"passed": 0.3}, "no": seen | {"n": 0}}}
    )
    assert list(table["shown"]) == ["as it is", "dark stain"] and list(table["passed"]) == [0.1, 0.3]
    assert tabulate_outcomes({}).empty
