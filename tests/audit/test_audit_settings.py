"""Settings and reports of audits are read as they were written, and what cannot be meant is refused with a sentence."""

import json

import pytest
from audit.handmade import predictor, sheets

from steel_core.audit.report import AuditReport
from steel_core.audit.settings import AuditSettings, DiscoverSettings, EdgeSettings, PropertySettings, StainSettings
from steel_core.audit.white_stain import audit_white_stain
from steel_core.errors import UsageError

QUICK = StainSettings(elsewhere=4, family=False)


@pytest.mark.parametrize(
    "settings",
    [
        AuditSettings(kinds=("edges",), stain=QUICK),
        QUICK,
        EdgeSettings(moves=()),
        PropertySettings(margin=0.1),
        DiscoverSettings(most=4),
    ],
)
def test_settings_are_read_as_they_were_written(settings):
    assert type(settings).from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_a_report_is_read_as_it_was_written_with_what_its_kind_adds():
    report = audit_white_stain(predictor(1.0), sheets(40), QUICK)
    again = AuditReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again.to_json() == report.to_json()
    assert again.findings == report.findings
    assert (report.finding, report.n, report.excess) == (
        "towards clear",
        report.findings[0].n,
        report.findings[0].excess,
    )
    assert set(report.summary()) < set(report.to_json())


@pytest.mark.parametrize(
    ("settings", "wrong", "sentence"),
    [
        (AuditSettings, {"limit": 0}, "limit: expected"),
        (AuditSettings, {"kinds": ["stains"]}, r"kinds\.0: expected 'white-stain'"),
        (StainSettings, {"shape": "square"}, "shape: expected 'blot'"),
        (StainSettings, {"area": 0.5}, "area"),
        (StainSettings, {"opacity": 0.0}, "opacity"),
        (EdgeSettings, {"depth": 1}, "depth: expected no such setting"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(settings, wrong, sentence):
    with pytest.raises(UsageError, match=sentence):
        settings(**wrong)


def test_every_setting_is_described_for_people():
    for settings in (AuditSettings, StainSettings, EdgeSettings, PropertySettings, DiscoverSettings):
        assert [name for name, field in settings.model_fields.items() if not field.description] == []
