"""The leaderboard: asked for, watched while it is made, and shown as table, dots with intervals, and curves."""

import functools
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import offer
from dashboard.components.common.paired import show_comparison
from dashboard.components.common.plot import draw_plot
from dashboard.components.common.progress import duration, result_of
from dashboard.components.common.text import plain
from dashboard.services.leaderboard import ComparisonRequest, Entry, Leaderboard

_FIRST = ["Model", "Macro recall", "Behind the best", "95 %", "Shortcut"]  # what a narrow screen shall show
_LAST = ["Best map, Dice", "Size", "Speed"]
_CURVES = 4  # models whose curves are drawn where none was chosen


def obtain_leaderboard(asked: ComparisonRequest) -> Leaderboard | None:
    """The leaderboard; None where it must be made first, which is then offered or under way."""
    job = services.jobs.board().get(services.leaderboard.COMPARISON, asked)
    if job and job.failed:
        services.jobs.board().forget(services.leaderboard.COMPARISON, asked)
    board = result_of(job, "comparison", functools.partial(_offer, asked))
    if board and job and services.leaderboard.is_outdated(asked, job):
        st.info("A model or the data set has changed since this was compared.", icon=":material/update:")
        st.button("Compare again", on_click=services.leaderboard.start, args=(asked,))
    return board


def _offer(asked: ComparisonRequest) -> None:
    names = ", ".join(services.models.available()) + (", and the baselines" if asked.baselines else "")
    st.info(
        f"To be compared on {plain(asked.data)}, as far as they know its labels: {plain(names)}. Evaluations that are "
        "there already are used.",
        icon=":material/balance:",
    )
    words = f"Compare, at most {duration(services.leaderboard.seconds_to_compare(asked))}"
    st.button(words, on_click=services.leaderboard.start, args=(asked,), type="primary")


def table(board: Leaderboard) -> list[str]:
    """The table, which can be sorted and whose rows can be chosen; names of the chosen ones."""
    best = board.entries[0]
    apart = [entry for entry in board.entries[1:] if entry.behind and not entry.behind.excludes_zero]
    rivals = f"; these images cannot tell it from {', '.join(entry.name for entry in apart)}" if apart else ""
    st.markdown(f"**{plain(best.name)}** has the highest macro recall{plain(rivals)}.")
    st.caption(f"{plain(board.about)}. In brackets: 95 % intervals.")
    for remark in board.remarks:
        st.caption(f":material/info: {plain(remark.rstrip('.'))}.")
    columns = {
        "Behind the best": st.column_config.NumberColumn(format="%+.3f", help="In macro recall, on the same images."),
        "Size": st.column_config.NumberColumn("Size, MB", format="%.1f", help="Of the weights."),
        "Speed": st.column_config.NumberColumn(
            format="%.2f", help="Images a second as a share of the fastest model's, timed in turn."
        ),
    }
    event = st.dataframe(
        pd.DataFrame([_row(entry, cells) for entry, cells in zip(board.entries, board.cells(), strict=True)]),
        hide_index=True,
        column_order=_FIRST + [name for name in services.leaderboard.ESTIMATES.values() if name not in _FIRST] + _LAST,
        key="leaderboard",
        on_select="rerun",
        selection_mode="multi-row",
        column_config={"Model": st.column_config.Column(pinned=True)} | columns,
        placeholder="–",
        alt="All models with their figures and intervals, the best first",
    )
    st.caption(plain(services.leaderboard.CAUTION))
    offer("Table (CSV)", board.to_csv, "leaderboard.csv")
    if board.absent:
        with st.expander(f"Not compared: {len(board.absent)}"):
            for name, reason in board.absent.items():
                st.markdown(f"**{plain(name)}**: {plain(reason)}")
    return [board.entries[i].name for i in event["selection"]["rows"] if i < len(board.entries)]


def _row(entry: Entry, cells: dict[str, str]) -> dict[str, object]:
    """The cells in words, but numbers where sorting words would put them in the wrong order."""
    behind = entry.behind
    numbers = {
        "Behind the best": round(behind.difference, 3) + 0.0 if behind else 0.0,
        "Size": entry.size / 1e6 if entry.size else None,
        "Speed": entry.speed,
    }
    row: dict[str, object] = {}
    for heading, cell in cells.items():
        row[heading] = numbers.get(heading, cell)
        if heading == "Behind the best":
            row["95 %"] = f"{behind.low:+.3f} to {behind.high:+.3f}" if behind else "the best"
    return row


def plots(board: Leaderboard, chosen: Sequence[str]) -> None:
    """One figure of all models as dots with intervals, and the curves of the chosen ones."""
    st.subheader("Figure by figure")
    names = services.leaderboard.ESTIMATES
    metric = st.segmented_control(
        "Figure", list(names), format_func=lambda name: names[name], default="macro_recall", required=True, key="dots",
        label_visibility="collapsed",
    )  # fmt: skip
    draw_plot(services.leaderboard.dots(board, metric), names[metric])
    st.caption("Diamonds: baselines. Bars: 95 % intervals." + (" Less is better." if metric == "ece" else ""))
    st.subheader("Curves")
    label = st.selectbox("Curves of", board.classes, key="leaders of", width=320)
    entries = [entry for entry in board.entries if entry.name in chosen] or list(board.entries[:_CURVES])
    drawn = services.leaderboard.overlaid_curves(entries, label)
    if not drawn:
        st.info(f"All of these images are {plain(label)}, or none is: there is no curve.", icon=":material/show_chart:")
    with st.grid(2, min_column_width=330):
        for heading, curve in drawn.items():
            with st.container():
                st.markdown(f"**{heading}**")
                draw_plot(curve, f"{heading} of several")
    st.caption("Choose rows of the table to see theirs.")


def disagreements(data: str, board: Leaderboard) -> None:
    models = [entry.name for entry in board.entries if not entry.baseline]
    if not models or len(board.entries) < 2:
        return
    st.subheader("Two of them side by side")
    by_name = {entry.name: entry for entry in board.entries}
    with st.grid(2, min_column_width=240, width=640):
        # A key for each list of names: the browser would keep the place of a choice in a list that has changed.
        one = st.selectbox("Model", models, key=f"one of {sorted(by_name)}")
        rivals = [name for name in by_name if name != one]
        other = st.selectbox("against", rivals, key=f"against one of {sorted(rivals)}")
    show_comparison(services.models.predictor(one), data, by_name[one].evaluation, by_name[other].evaluation)
