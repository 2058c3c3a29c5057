"""Many images at a glance: progress while they are looked at, a table of verdicts, the choice of one."""

import functools
from collections import Counter
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import offer
from dashboard.components.common.text import plain
from dashboard.components.common.verdict import words
from dashboard.services.datasets import Refused, Source
from dashboard.services.images import FirstLook, Looks
from dashboard.services.models import Predictor


def look_at_all(model: Predictor, sources: Sequence[Source]) -> Looks:
    """The verdict on each image, with progress shown; a bad file does not stop the others."""
    looks = []
    bar = st.progress(0.0, f"Looking at {len(sources)} images") if len(sources) > 1 else None
    for done, source in enumerate(sources, 1):
        looks.append((source, services.images.first_look(model, source)))
        if bar:
            bar.progress(done / len(sources), f"{done} of {len(sources)} images looked at")
    if bar:
        bar.empty()
    return looks


def refusals(looks: Looks, shown: int = 3) -> None:
    """One sentence for each of the first files that were not read; the table of verdicts lists all of them."""
    bad = [seen.sentence for _, seen in looks if isinstance(seen, Refused)]
    for sentence in bad[:shown]:
        st.error(plain(sentence), icon=":material/broken_image:")
    if len(bad) > shown:
        st.error(f"{len(bad) - shown} more files were not read; the table lists them.", icon=":material/broken_image:")


def choose_one(looks: Looks) -> tuple[Source, FirstLook]:
    """The table of all verdicts, and the image that is shown in detail. At least one image must have been read."""
    good = {source.key: (source, seen) for source, seen in looks if isinstance(seen, FirstLook)}
    if len(looks) == 1:
        return next(iter(good.values()))
    outcomes = Counter(words(seen.prediction) for _, seen in good.values())
    counts = ", ".join(f"{n} {plain(outcome)}" for outcome, n in outcomes.most_common())
    unread = len(looks) - len(good)
    st.markdown(f"**{len(looks)} images:** {counts}" + (f", {unread} not read" if unread else ""))
    keys = [source.key for source, _ in looks]

    def take_row() -> None:
        rows = st.session_state["verdicts"]["selection"]["rows"]
        if rows and keys[rows[0]] in good:
            st.session_state["detail"] = keys[rows[0]]

    st.dataframe(
        pd.DataFrame([_cells(source, seen) for source, seen in looks]),
        column_config={
            "Picture": st.column_config.ImageColumn(width="small"),
            "Confidence": st.column_config.ProgressColumn(format="%.1f %%", min_value=0, max_value=100),
        },
        hide_index=True,
        row_height=56,
        height=min(420, 40 + 56 * len(looks)),
        key="verdicts",
        on_select=take_row,
        selection_mode="single-row",
        alt="Verdict and confidence of each image",
    )
    if st.session_state.get("detail") not in good:
        st.session_state["detail"] = next(iter(good))
    titles = {key: f"{source.name}: {words(seen.prediction)}" for key, (source, seen) in good.items()}
    chosen = st.selectbox("Show in detail", list(good), format_func=titles.__getitem__, key="detail", placeholder="")
    return good[chosen]


def _cells(source: Source, seen: FirstLook | Refused) -> dict[str, object]:
    if isinstance(seen, Refused):
        return {"Picture": None, "File": source.name, "Verdict": "Not read", "Confidence": None, "Note": seen.sentence}
    return {
        "Picture": services.files.inline(services.images.row_picture(seen)),
        "File": source.name,
        "Verdict": words(seen.prediction),
        "Confidence": 100 * seen.prediction.confidence,
        "Note": seen.prediction.note,
    }


def verdict_buttons(model: Predictor, looks: Looks) -> None:
    with st.container(horizontal=True):
        offer("All verdicts (CSV)", functools.partial(services.images.verdicts_csv, looks), "verdicts.csv")
        offer("All verdicts (JSON)", functools.partial(services.images.verdicts_json, model, looks), "verdicts.json")
