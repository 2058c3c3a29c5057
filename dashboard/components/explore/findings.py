"""What is wrong with the data, as far as pictures and labels tell: images, evidence, and the rate of false alarms."""

import functools
import math

import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import offer
from dashboard.components.common.plot import draw_table
from dashboard.components.common.text import capital, counted, plain
from dashboard.components.explore.long_work import offer_work
from dashboard.components.explore.pictures import tiles
from dashboard.services.explore import Collection, DataFinding
from dashboard.services.models import Predictor

_PAGE = 8
_SHOWN = 8  # images of one finding
_TITLES = {  # what predicts the label stands above
    "unreadable": "Unreadable",
    "near-duplicates": "Near-duplicates",
    "leak": "Leaks",
    "label": "Suspicious labels",
    "odd": "Odd images",
}


def findings(collection: Collection, model: Predictor | None) -> None:
    """Each kind with its findings; what can be carried away."""
    all_findings = services.explore.findings(collection, model)
    if all_findings is None:
        offer_work("check", model, collection.name)
        return
    images = counted(len(collection.index), "image")
    counts = {kind: sum(one.kind == kind for one in all_findings) for kind in _TITLES}
    if not any(counts.values()):
        st.success(f"Nothing was found in {images}. What was looked for:", icon=":material/check:")
        for kind, heading in _TITLES.items():
            st.markdown(f"**{heading}.** {plain(services.explore.KINDS[kind])}")
        return
    by_kind = " · ".join(f"{_TITLES[kind]} {n:,}" for kind, n in counts.items())
    st.markdown(
        f"**{counted(sum(counts.values()), 'finding')}** in all {images}, whatever is filtered above: {by_kind}"
    )
    _exports(collection, all_findings)
    kinds = {title: kind for kind, title in _TITLES.items()}  # a link holds what is read here
    first_one = next(_TITLES[kind] for kind, n in counts.items() if n)
    kind = kinds[
        st.segmented_control("Kind", list(kinds), default=first_one, required=True, key="kind", bind="query-params")
    ]
    st.caption(f"False alarms, measured: {plain(services.explore.KINDS[kind])}")
    mine = [one for one in all_findings if one.kind == kind]
    if not mine:
        st.info("Nothing of this kind was found.", icon=":material/check:")
        return
    pages = math.ceil(len(mine) / _PAGE)
    current = min(st.pagination(pages, key="finding", bind="query-params"), pages) if pages > 1 else 1
    first = (current - 1) * _PAGE
    st.caption(f"{first + 1:,} to {min(first + _PAGE, len(mine)):,} of {counted(len(mine), 'finding')}")
    for number, one in enumerate(mine[first : first + _PAGE], first + 1):
        with st.container(border=True):
            _finding(collection, one, number)


def _finding(collection: Collection, one: DataFinding, number: int) -> None:
    st.markdown(f"**{number}.** {plain(one.sentence)}")
    evidence = [
        f"{capital(name.replace('_', ' '))}: {_value(value)}"
        for name, value in one.evidence.items()
        if value not in ([], "")
    ]
    if evidence:
        st.caption(plain(" · ".join(evidence)))
    tiles(collection, one.rows[:_SHOWN], outlines=False, name=f"finding-{number}-")
    if len(one.rows) > _SHOWN:
        with st.expander(f"All {counted(len(one.rows), 'image')}"):
            draw_table([{"File": file} for file in one.files], "Images of this finding")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " to ".join(map(_value, value)) if len(value) == 2 else f"{len(value)}"
    return str(value)


def _exports(collection: Collection, findings: list[DataFinding]) -> None:
    name = collection.name
    with st.container(horizontal=True):
        offer("Findings (CSV)", lambda: services.explore.findings_to_csv(findings), f"{name}-findings.csv")
        offer("Findings (JSON)", lambda: services.explore.findings_json(collection, findings), f"{name}-findings.json")
        cleaned = functools.partial(services.explore.cleaned_manifest, collection, findings)
        offer("Cleaned manifest (CSV)", cleaned, f"{name}-cleaned.csv")
    st.caption(
        "The cleaned manifest leaves out what cannot be read and second copies, takes suspicious labels off, and keeps "
        "near-duplicates together, leaking ones in train. Put it into the data set's folder to use it. The data set "
        "itself is never changed."
    )
