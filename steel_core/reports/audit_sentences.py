"""An audit in plain sentences, from what `AuditReport.to_json` wrote, perhaps read back from a file."""

from typing import Any, NamedTuple

from steel_core import render
from steel_core.audit.report import format_difference
from steel_core.audit.statistics import AGAINST, FOR, LEAST, NOTHING, TOO_FEW

SHORTCUT, SUSPICIOUS, QUIET = "shortcut", "worth a look", "no finding"  # how severe a finding is, the worst first

EXCESS = (
    "Excess: the verdicts that the change turns beyond those that its strongest control turns, on the same images at "
    "the same places. Hiding steel turns verdicts too; only what goes beyond that is the doing of what is shown. The "
    "interval holds the true value in 95 of 100 such audits."
)
"""What the estimate at the heart of every audit means."""

_PRESENT = {
    "white-stain": "This model takes a harmless white stain for a sign of {towards}.",
    "edges": "The border of the picture turns verdicts of this model.",
    "properties": "A property of the picture, and not the steel, goes with the label and moves this model.",
    "discover": "There is something beside the defects that goes with a label and turns verdicts by itself.",
}

_ABSENT = {
    "white-stain": "No stain of the family turns more verdicts of this model than a patch that is no stain.",
    "edges": "The border of the picture turns hardly more verdicts than a band inside it.",
    "properties": "No property of the picture both goes with the label and moves this model.",
    "discover": "No evidence beside the defects was found that turns verdicts by itself.",
}


class Suspect(NamedTuple):
    """A cluster of a report's `detail["clusters"]`, and the finding of pasting it; None where it was not pasted."""

    cluster: dict[str, Any]
    severity: str
    finding: dict[str, Any] | None


def explain_verdict(report: dict[str, Any]) -> str:
    if report["verdict"] == FOR and "cut_stain" in report["detail"]:
        return f"This model takes a stain like the one that was cut out for a sign of {report['detail']['towards']}."
    if report["verdict"] == FOR:
        return _PRESENT[report["audit"]].format(towards=report["detail"].get("towards", "a class"))
    if report["verdict"] == AGAINST:
        return _ABSENT[report["audit"]]
    if report["verdict"] == NOTHING:
        return "Nothing was found that could be put to the test."
    if not report["findings"]:
        return "No image could be tested, so nothing can be said."
    return "These images are too few, or the effect lies too close to what is put up with, to tell."


def describe_lack(report: dict[str, Any]) -> str:
    """What a test lacked to exclude what is tolerated, in a few words; "" where it lacked nothing."""
    if report["verdict"] == NOTHING:
        return "there was nothing to test, so it does not count"
    open_ones = [finding for finding in report["findings"] if finding["verdict"] == TOO_FEW]
    if report["verdict"] != TOO_FEW:
        return ""
    if not open_ones:
        return "no image could be tested"
    worst = max(open_ones, key=lambda finding: (None in finding["legs"].values(), finding["interval"][0]))
    if worst["legs"].get("not the defect", True) is None:
        return f"whether {worst['name']} are the defect itself, a person must say"
    if worst["groups"] < LEAST:
        return f"{worst['name']}: {worst['groups']} independent images, {LEAST} are the least"
    high, tolerated = format_difference(worst["interval"][1]), render.percent(report["settings"]["tolerated"])
    return (
        f"{worst['name']}: in {worst['groups']} independent images the excess may be up to {high}, and {tolerated} are "
        "put up with"
    )


def describe_power(report: dict[str, Any]) -> str:
    """What effect would have been found in so many images, and what could have been missed, in one sentence."""
    if report["excess"] is None or report["detectable"] is None:
        return "No image could be tested."
    if report["detectable"] >= 1:
        return f"{report['groups']} independent images are too few to find any effect dependably; {LEAST} is the least."
    return (
        f"With {report['groups']} independent images, an excess of {render.percent(report['detectable'])} or more "
        "would have been found 4 times in 5. A smaller one could have been missed."
    )


def describe_finding(finding: dict[str, Any]) -> str:
    verdict = finding["verdict"]
    return f"{verdict[0].upper()}{verdict[1:]}. {finding['sentence']}"


def rate_severity(finding: dict[str, Any]) -> str:
    """How severe a finding is: `SHORTCUT`, `SUSPICIOUS` or `QUIET`."""
    if finding["verdict"] == FOR:
        return SHORTCUT
    in_data = finding["verdict"] != AGAINST and finding["legs"].get("data") is True
    return SUSPICIOUS if in_data or (finding["excess"] is not None and finding["interval"][0] > 0) else QUIET


def describe_outcomes(finding: dict[str, Any]) -> str:
    """What people would see of the defective sheets, in one sentence; "" where that was not counted."""
    counted = {name: of for name, of in finding.get("outcomes", {}).items() if of["n"]}
    if not counted:
        return ""
    parts = [
        f"{name} {', '.join(f'{render.percent(of[word])} {word}' for word in ('passed', 'referred', 'named wrong'))}"
        for name, of in counted.items()
    ]
    return f"What would become of {next(iter(counted.values()))['n']} defective sheets: {'; '.join(parts)}."


def describe_evidence(report: dict[str, Any]) -> str:
    """How much of the evidence lies where no steel should count, in one sentence; "" where that was not measured."""
    inside, border = (report["detail"].get(name) or {} for name in ("evidence_inside", "evidence_in_border"))
    if inside.get("stain") is not None:
        shares = {name: render.percent(inside[name]) for name in ("stain", "before", "clean steel", "area")}
        return (
            f"Of the evidence for {inside['class']}, {shares['stain']} lies inside the stain, against "
            f"{shares['before']} at the same place before, {shares['clean steel']} with clean steel, and "
            f"{shares['area']} of the area (n = {inside['n']})."
        )
    if border.get("share") is not None:
        low, high = (format_difference(end) for end in border["interval_of_difference"])
        return (
            f"{render.percent(border['share'])} of the evidence lies in the border, which is "
            f"{render.percent(border['area'])} of the area (difference {low} to {high}, n = {border['n']})."
        )
    return ""


def sort_by_severity(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Severity and finding of each, the worst first, then in the order of the report."""
    order = [SHORTCUT, SUSPICIOUS, QUIET]
    return sorted(
        ((rate_severity(finding), finding) for finding in report["findings"]),
        key=lambda pair: order.index(pair[0]),
    )


def describe_other_directions(report: dict[str, Any]) -> list[str]:
    """What the stain does towards the classes that the verdict does not rest on, a sentence each."""
    return [
        f"The other way, {name}: the stain turns {render.percent(effect['flip_rate'])} of {effect['n']} images, its "
        f"strongest control, {effect['control'].replace('-', ' ')}, {render.percent(effect['control_flip_rate'])}. "
        "The verdict does not rest on it."
        for name, effect in report["detail"].get("other_direction", {}).items()
        if effect["n"]
    ]


def explain_not_pasted(report: dict[str, Any], cluster: dict[str, Any]) -> str:
    if cluster["kind"] == "maps":
        return "Shown, not pasted: a place cannot be cut out."
    beside, least = cluster["beside_the_defect"], report["settings"].get("beside", 0.8)
    if beside is not None and beside < least:
        met = render.percent(1 - beside)
        return f"Not pasted: {met} of these patches meet the defect, and to look at a defect is no shortcut."
    return "Not pasted: others go with a label more closely."


def list_suspects(report: dict[str, Any], most: int = 6) -> list[Suspect]:
    """The clusters of a search, those that were pasted first; none of other audits."""
    pasted = sort_by_severity(report)
    suspects = [
        Suspect(cluster, *next((pair for pair in pasted if pair[1].get("cluster") == cluster), (QUIET, None)))
        for cluster in report["detail"].get("clusters", [])
    ]
    return sorted(suspects, key=lambda one: one.finding is None)[:most]


def describe_cluster(cluster: dict[str, Any]) -> str:
    low, high = (render.percent(end) for end in cluster["interval"])
    alike = {"maps": "evidence lies in the same place", "patches": "evidence lies on a patch that looks alike"}
    return (
        f"{cluster['n']} images whose {alike[cluster['kind']]}: {render.percent(cluster['share'])} of them are "
        f"{cluster['label']} (95 % interval {low} to {high}), which is the label of "
        f"{render.percent(cluster['prior'])} of all."
    )
