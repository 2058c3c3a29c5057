"""What an audit found: the verdict in three words, the excess over the controls, findings, pairs, limits."""

import functools
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import offer
from dashboard.components.common.gallery import gallery
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import SHARE, draw_table
from dashboard.components.common.text import capital, plain
from dashboard.components.common.verdict import marked
from dashboard.services.audits import audit_report as figures
from dashboard.services.audits import audit_sentences as sentences
from dashboard.services.models import Predictor
from steel_core.render import percent, plots

_VERDICTS = {
    "evidence for a shortcut": ("gpp_bad", "red"),
    "evidence against": ("verified_user", "green"),
    "not enough data": ("balance", "orange"),
    "nothing to test": ("search_off", "gray"),
}
_SEVERITIES = dict(
    zip(services.audits.SEVERITIES, (("dangerous", "red"), ("visibility", "orange"), ("check", "gray")), strict=True)
)
_LEGS = {True: "✓ shown", False: "✗ ruled out", None: "– undecided"}


def marked_verdict(verdict: str) -> str:
    """A verdict as Markdown: icon, words and colour; the words alone would do."""
    icon, colour = _VERDICTS[verdict]
    return f":{colour}[:material/{icon}: {capital(verdict)}]"


def link_to_run(
    name: str, label: str, icon: str = ":material/open_in_new:", width: int | Literal["content"] = "content"
) -> None:
    query = {"view": "Data set", "run": name}
    st.page_link("app_pages/audit.py", label=label, icon=icon, query_params=query, width=width)


def minute_of(run: Any) -> str:
    return f"{run.at[:16].replace('T', ' ')} UTC"


def show_run(run: Any) -> None:
    first = run.reports[0]
    st.caption(
        f"{plain(first['model'])} on {plain(run.data)} · {first['images']} images · "
        f"{plain(minute_of(run))} · {max(1, round(run.seconds))} s"
    )
    with st.container(horizontal=True):
        offer("Report as page (HTML)", functools.partial(services.audits.page, run), f"audit-{run.name}.html")
        offer("Report in numbers (JSON)", lambda: services.files.as_json(run.to_json()), f"audit-{run.name}.json")
    if len(run.reports) > 1:
        with st.grid(len(run.reports), min_column_width=170):
            for report in run.reports:
                with st.container(border=True, height="stretch"):
                    st.caption(capital(report["audit"].replace("-", " ")))
                    st.markdown(f"**{marked_verdict(report['verdict'])}**")
    for report in run.reports:
        with st.container(border=True), guarded():
            _question(run, report)


def _question(run: Any, report: dict[str, Any]) -> None:
    st.caption(plain(report["question"]))
    st.markdown(f"## {marked_verdict(report['verdict'])}")
    st.markdown(f"**{plain(sentences.explain_verdict(report))}**")
    if lack := sentences.describe_lack(report):
        st.markdown(f":material/pending: What it lacked: {plain(lack)}.")
    if report["audit"] == "white-stain" and report["verdict"] == "evidence for a shortcut":
        st.markdown(":material/healing: “Cure” above tells how it is trained away, and what that changed.")
    if report["audit"] != "properties":  # one excess says little there: three legs must agree
        if report["excess"] is not None:
            _figures(report)
        st.markdown(f":material/troubleshoot: {plain(sentences.describe_power(report))}")
    _plots(report)
    if report["audit"] == "discover":
        _suspects(run, report)
    else:
        _findings(report)
    _classes(report)
    if report["audit"] == "white-stain":
        _pairs(run, report)
    if evidence := sentences.describe_evidence(report):
        st.markdown(f":material/target: {plain(evidence)}")
    _moves(report)
    st.markdown("**Limits**")
    limits = ["A map shows influence, not cause.", *report["limits"]]
    st.markdown("\n".join(f"- {plain(limit)}" for limit in limits))
    with st.expander("Settings and hashes: what makes this report again"):
        facts = {name: report[name] for name in ("model", "model_hash", "data", "data_hash", "seed", "code_version")}
        st.json(facts | {"settings": report["settings"]}, expanded=1)


def _figures(report: dict[str, Any]) -> None:
    low, high = report["interval"]
    tolerated = report["settings"].get("tolerated", 0.05)
    control = report["findings"][0]["control"].replace("-", " ")
    tiles = (
        ("Verdicts turned", percent(report["flip_rate"]), f"of {report['n']} images that count"),
        ("By the strongest control", percent(report["control_flip_rate"]), capital(control)),
        ("Excess", f"{100 * report['excess']:+.1f} %", f"95 %: {100 * low:+.1f} % to {100 * high:+.1f} %"),
        ("Put up with", percent(tolerated), "an excess up to this is no finding"),
    )
    with st.grid(4, min_column_width=170):
        for title, value, words in tiles:
            with st.container(border=True, height="stretch"):
                st.metric(title, value, help=sentences.EXCESS if title == "Excess" else None)
                st.caption(plain(words))


def _plots(report: dict[str, Any]) -> None:
    against = figures.plot_controls(report)
    doses = figures.plot_doses(report)
    if against is not None:
        st.markdown("**The stain against each control**" if doses else "**The change against each control**")
        st.caption("Orange diamond: what is tested. Blue: controls of the same outline at the same place.")
        _chart(against, f"controls {report['audit']}")
    if doses is not None:
        st.markdown("**Each stain that was tested, beside the defect**")
        st.caption("Orange diamonds: the worst on one half of the images, which the other half had to prove.")
        _chart(doses, "doses")


def _chart(figure: go.Figure, key: str) -> None:
    st.plotly_chart(figure, key=key, theme=None, config={"displayModeBar": False}, alt=plots.alternative(figure))


def _findings(report: dict[str, Any]) -> None:
    st.markdown("**Findings, the most severe first**")
    if not (findings := sentences.sort_by_severity(report)):
        st.markdown("Nothing could be tested.")
    telling = [pair for pair in findings if pair[0] != services.audits.SEVERITIES[-1]]
    quiet = findings[len(telling) :]
    for severity, finding in telling or quiet[:1]:
        _finding(severity, finding)
    if rest := quiet if telling else quiet[1:]:
        with st.expander(f"{len(rest)} more were tested: {services.audits.SEVERITIES[-1]}"):
            for severity, finding in rest:
                _finding(severity, finding)
    for sentence in sentences.describe_other_directions(report):
        st.caption(plain(sentence))
    if report["audit"] == "properties" and findings:
        st.caption("A property is a shortcut only where data and model both show it. One that rules it out clears it.")
        rows = (
            {"Property": finding["name"]}
            | {leg: _LEGS[holds] for leg, holds in finding["legs"].items()}
            | {"verdict": finding["verdict"]}
            for _, finding in findings
        )
        draw_table(rows, "For each property, what data and model say, and its verdict")


def _finding(severity: str, finding: dict[str, Any]) -> None:
    icon, colour = _SEVERITIES[severity]
    st.markdown(f":{colour}[:material/{icon}: **{capital(severity)}**] · {plain(sentences.describe_finding(finding))}")
    if severity == services.audits.SEVERITIES[-1]:  # one sentence is enough
        st.caption(plain(sentences.describe_outcomes(finding)))
    elif len(outcomes := figures.tabulate_outcomes(finding)):
        st.caption(f"What would become of {outcomes['images'].max()} defective sheets")
        draw_table(
            outcomes,
            "Shares of defective sheets that would be passed, referred or named wrong, by what is shown",
            dict.fromkeys(("passed", "referred", "named wrong"), SHARE),
        )


def _classes(report: dict[str, Any]) -> None:
    table = figures.tabulate_classes(report["findings"][0]) if report["findings"] else pd.DataFrame()
    if len(table) < 1:
        return
    st.markdown("**By class**")
    names = {"class": "Class", "flip_rate": "Turned", "control_flip_rate": "Strongest control", "excess": "Excess"}
    names |= {"low": "95 % from", "high": "to", "drop": "Confidence lost"}
    meaning = "Probability of the class that was named before, beyond what the strongest control costs."
    draw_table(
        table.rename(columns=names | {"n": "Images"}).dropna(axis="columns", how="all"),
        "Share of verdicts turned for each class, with controls and intervals",
        dict.fromkeys(list(names.values())[1:], SHARE)
        | {"Confidence lost": st.column_config.NumberColumn(format="percent", help=meaning)},
    )


def _pairs(run: Any, report: dict[str, Any]) -> None:
    if cut_from := report["settings"].get("cut_from"):
        st.caption(f":material/info: The stain was cut out of {plain(cut_from)}.")
        stain = services.audits.read_stencil(report["detail"].get("cut_stain", ""))
        if stain is None:
            st.caption("This run kept no picture of it, so pairs of pictures cannot be made again.")
            return
        st.image(
            figures.draw_cut_stain(stain),
            width=160,
            output_format="PNG",
            alt="The stain that was cut out and pasted, on dark grey",
        )
    model, pairs = services.audits.audited_model(run), services.audits.pairs(run, report)
    if model is None or not pairs:
        st.caption(
            ":material/info: The pairs of pictures need the very model and images of this run, and one of them has "
            "changed or gone."
        )
        return
    st.markdown("**With and without: the images that the stain moved the most**")
    st.caption("They were chosen because they moved; how often that happens, the figures above say.")
    with st.grid(4, min_column_width=250):
        for pair in pairs:
            with st.container(border=True):
                st.markdown(f"**{plain(pair.file)}**")
                with st.grid(2, min_column_width=90):
                    for row in pair.rows[:2]:
                        with st.container():
                            _side(model, pair, row)


def _side(model: Predictor, pair: Any, row: Any) -> None:
    target = row.attribution.target
    st.markdown(f"{plain(row.title)}  \n{marked(row.prediction)}")
    st.caption(f"{plain(target)} {percent(row.prediction.probs[target])}")
    st.image(
        services.bench.draw_map(model, row, pair.rows).picture,
        width="stretch",
        output_format="JPEG",
        alt=f"{pair.file}, {row.title.lower()}: {row.prediction.outcome}, with its Grad-CAM map for {target}",
    )


def _moves(report: dict[str, Any]) -> None:
    moves = pd.DataFrame(report["detail"].get("moves", []))
    if len(moves):
        st.caption("The whole picture moved, or cut, by a share of its side: a steady model turns hardly any verdict.")
        names = {"change": "Change", "severity": "By", "n": "Images", "flip_rate": "Turned"}
        moves = moves.rename(columns=names | {"confidence_drop": "Confidence lost"})
        columns = dict.fromkeys(("By", "Turned", "Confidence lost"), SHARE)
        draw_table(moves, "Share of verdicts turned by shifts and crops", columns)


def _suspects(run: Any, report: dict[str, Any]) -> None:
    st.markdown("**Evidence of one kind, the most severe first**")
    suspects = sentences.list_suspects(report)
    pasted = [(one, one.finding) for one in suspects if one.finding]
    if not pasted:
        st.markdown("Nothing could be tested.")
    for number, (one, finding) in enumerate(pasted):
        with st.container(border=True):
            _finding(one.severity, finding)
            st.markdown(plain(sentences.describe_cluster(one.cluster)))
            _exemplars(run, one.cluster, f"pasted{number}-")
            if services.retests.can_retest(run, one.cluster):
                _retest(run, one.cluster, number)
    if rest := suspects[len(pasted) :]:
        with st.expander(f"{len(rest)} more: seen, and not pasted"):
            for number, one in enumerate(rest):
                st.markdown(plain(sentences.describe_cluster(one.cluster)))
                st.caption(plain(sentences.explain_not_pasted(report, one.cluster)))
                _exemplars(run, one.cluster, f"seen{number}-")


def _exemplars(run: Any, cluster: dict[str, Any], name: str) -> None:
    tiles = services.retests.exemplars(run.data, cluster)
    gallery(
        [(path, source, _place(one)) for path, source, one in tiles],
        run.data,
        name=name,
        picture=lambda i: services.retests.exemplar_picture(tiles[i][1], tiles[i][2]),
    )


def _place(exemplar: dict[str, Any]) -> str:
    if "box" not in exemplar:
        return ""
    left, top, width, height = exemplar["box"]
    return f"{width} × {height} pixels at {left}, {top}"


def _retest(run: Any, cluster: dict[str, Any], number: int) -> None:

    def begin() -> None:
        with guarded():
            st.query_params["run"] = services.retests.start(run, cluster)

    for again in services.retests.history(run, cluster)[:3]:
        excess = again.reports[0]["excess"]
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f"The first patch tested by itself: {marked_verdict(again.verdict)}"
                + ("" if excess is None else f", excess {percent(excess)}")
            )
            link_to_run(again.name, minute_of(again))
    st.button(
        "Test the first patch by itself",
        key=f"retest {number}",
        icon=":material/experiment:",
        on_click=begin,
        help="Cuts it out and pastes it like a stain beside the defects of other classes, in several sizes, each with "
        "controls of the same outline at the same place.",
    )
    with st.expander("The same as a command"):
        command = services.retests.format_retest_command(cluster, run.reports[0]["model"], Path("FOLDER"))
        st.code(command, language="bash", wrap_lines=True)
