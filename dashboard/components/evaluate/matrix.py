"""The confusion matrix: a cell that is chosen shows its images, sorted by loss."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import SHARE, draw_table
from dashboard.components.common.text import counted, plain
from dashboard.components.common.worst_images import worst_images
from dashboard.components.evaluate.summary import countable
from dashboard.services.evaluation import ANY, Evaluation
from dashboard.services.models import Predictor
from steel_core.render import percent

_CHART, _TABLE, _CELL = "matrix", "cells", "cell"
_EACH_CLASS = {"label": "Class", "found": "There and named", "missed": "There, not named", "false": "Named, not there",
               "absent": "Neither"}  # fmt: skip
_WIDE = 66  # pixels that an interval needs; a narrower cell tells it at a touch, and in the table
_SIZE = f"bandwidth('x') < {_WIDE} ? clamp(bandwidth('x') / 3.6, 7, 12) : 15"


@st.fragment
@guarded()
def matrix(model: Predictor, data: str, evaluation: Evaluation) -> None:
    if not countable(evaluation):
        return
    left, right = st.columns([3, 2], gap="large")
    with right, st.container(horizontal=True):
        shares = st.segmented_control(
            "Show", ["percentages", "counts"], default="percentages", required=True, key="show", bind="query-params"
        )
        outcomes = evaluation.multi_label or st.toggle(
            "Count verdicts",
            key="verdicts-counted",
            bind="query-params",
            help="Count what a user is told, so that “refer” and “unfamiliar” are answers, too; "
            "else the likeliest class, whatever its probability.",
        )
    cells = services.evaluation.confusion_cells(evaluation, outcomes)
    columns = list(dict.fromkeys(cells["predicted"]))
    with right:
        with st.grid(2, min_column_width=130):
            actual = st.selectbox("Actual", [ANY, *evaluation.verdicts], key="actual", bind="query-params")
            predicted = st.selectbox("Predicted", [ANY, *columns], key="predicted", bind="query-params")
        _as_table(cells)
    with left:
        _chart(cells, shares == "percentages", actual, predicted)
        st.caption(
            "Rows: what an image shows. Columns: what the model says. Each cell: its share of the row, or count, and "
            "the 95 % interval, which narrow cells leave to the table. Grey: fewer than 30 images in the row. Choose a "
            "cell to see its images."
        )
    if evaluation.multi_label:
        st.info(services.evaluation.NO_MATRIX, icon=":material/grid_on:")
        counts = services.evaluation.class_counts(evaluation).rename(columns=_EACH_CLASS)
        draw_table(counts, "How often each class is found, missed and falsely named")
    rows = services.evaluation.in_cell(evaluation, actual, predicted, outcomes)
    if (actual, predicted) == (ANY, ANY):
        st.subheader("All images, by falling loss")
    else:
        st.subheader(f"Actual {plain(actual)}, predicted {plain(predicted)}: {counted(len(rows), 'image')}")
    worst_images(model, data, rows, "cell-page")


def _choose(cell: dict[str, str]) -> None:
    st.session_state["actual"], st.session_state["predicted"] = cell["actual"], cell["predicted"]
    if "cell-page" in st.session_state:
        st.session_state["cell-page"] = 1


def _as_table(cells: pd.DataFrame) -> None:
    """The same by keyboard: a row chooses its cell."""
    shown = cells[["actual", "predicted", "n", "share", "low", "high", "of"]].set_axis(
        ["Actual", "Predicted", "Images", "Share of row", "95 % from", "to", "Row"], axis="columns"
    )

    def choose() -> None:
        for row in st.session_state[_TABLE]["selection"]["rows"][:1]:
            _choose(cells.iloc[row][["actual", "predicted"]].to_dict())

    with st.expander("The matrix as a table"):
        st.dataframe(
            shown,
            hide_index=True,
            key=_TABLE,
            on_select=choose,
            selection_mode="single-row",
            column_config=dict.fromkeys(("Share of row", "95 % from", "to"), SHARE),
            alt="Count, share and interval of each cell of the confusion matrix",
        )


def _chart(cells: pd.DataFrame, shares: bool, actual: str, predicted: str) -> None:
    def choose() -> None:
        for cell in st.session_state[_CHART]["selection"][_CELL][:1]:
            _choose(cell)

    drawn = cells.assign(
        label=[_label(cell, shares) for cell in cells.to_dict("records")],
        interval=[_interval(cell, shares) for cell in cells.to_dict("records")],
        colour=cells["share"].fillna(0),
        dark=cells["share"].fillna(0).where(~cells["few"], 0) > 0.5,
        chosen=(cells["actual"] == actual) & (cells["predicted"] == predicted),
    )
    orders = {name: list(dict.fromkeys(cells[name])) for name in ("predicted", "actual")}
    base = alt.Chart(drawn).encode(
        x=alt.X("predicted:N", sort=orders["predicted"], title="predicted",
                axis=alt.Axis(orient="top", labelAngle=-30 if len(orders["predicted"]) > 4 else 0, labelOverlap=False)),
        y=alt.Y("actual:N", sort=orders["actual"], title="actual"),
    )  # fmt: skip
    rect = base.mark_rect(stroke="#8a929b", strokeWidth=1, cursor="pointer", tooltip=True).encode(
        color=alt.condition(
            "datum.few",
            alt.value("#c9ced3"),
            alt.Color("colour:Q", scale=alt.Scale(domain=[0, 1], range=["#e6eef5", "#0b4f83"]), legend=None),
        ),
        tooltip=["actual:N", "predicted:N", "label:N", "interval:N", alt.Tooltip("of:Q", title="images in the row")],
        description="label:N",
    )
    cell = alt.selection_point(name=_CELL, fields=["actual", "predicted"], on="click", clear=False, toggle=False)
    ink = alt.condition("datum.dark", alt.value("#ffffff"), alt.value("#10202c"))
    size, room = (alt.ExprRef(words) for words in (_SIZE, f"bandwidth('x') < {_WIDE} ? 0 : 1"))
    big = base.mark_text(fontSize=size, fontWeight=600, dy=-7, aria=False).encode(text="label:N", color=ink)
    small = base.mark_text(fontSize=11, dy=10, opacity=room, aria=False).encode(text="interval:N", color=ink)
    outline = base.mark_rect(filled=False, stroke="#d55e00", strokeWidth=4, aria=False).transform_filter("datum.chosen")
    chart = alt.layer(rect.add_params(cell), big, small, outline).properties(height=60 + 64 * len(orders["actual"]))
    st.altair_chart(
        chart,
        key=_CHART,
        on_select=choose,
        alt="Confusion matrix: "
        + "; ".join(
            f"{c['actual']} called {c['predicted']}: {c['n']} of {c['of']}" for c in cells.to_dict("records") if c["n"]
        ),
    )


def _label(cell: Mapping[Any, Any], shares: bool) -> str:
    return "–" if not cell["of"] else percent(cell["share"]) if shares else f"{cell['n']:,}"


def _interval(cell: Mapping[Any, Any], shares: bool) -> str:
    if not cell["of"]:
        return "no images"
    return "{low:.0%} to {high:.0%}".format(**cell) if shares else "{n_low:.0f} to {n_high:.0f}".format(**cell)
