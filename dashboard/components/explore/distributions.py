"""How numbers are spread in each class; what is dragged over in a plot becomes a filter."""

import html
from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.explore.filters import first_page, set_range
from dashboard.components.explore.long_work import offer_work
from dashboard.services.explore import Collection, Filter
from dashboard.services.models import Predictor
from steel_core.render import plots

_COUNTS, _PLACES = "Images by class", "Where defects lie"


def distributions(collection: Collection, asked: Filter, model: Predictor | None) -> None:
    """Every plot of the images that match, ranges aside; then the same as a table."""
    open_ = services.explore.everything_but_ranges(asked)
    figures = services.distributions.plots(collection, open_)
    st.caption(
        "Drag over a plot to filter the images below by that range; choose a bar to see its class. The filter appears "
        "above as a chip. “Range of a number” does the same by keyboard."
    )
    _legend(services.distributions.class_marks(collection, open_))
    with st.grid(2, min_column_width=330):
        for name, figure in figures.items():
            with st.container(gap="xsmall"):
                st.markdown(f"**{name[:1].upper()}{name[1:]}**")
                _plot(name, figure)
    if "brightness" not in collection.numbers:
        offer_work("properties", model, collection.name)
    elif not figures:
        st.info(
            "Nothing is left to draw: no image matches the class, split, source and group.",
            icon=":material/bar_chart_off:",
        )
    with st.expander("Numbers of each class as a table"):
        st.dataframe(
            services.distributions.quartiles(collection, open_),
            hide_index=True,
            alt="Quartiles of each number by class",
        )


def _legend(marks: dict[str, tuple[str, str]]) -> None:
    collection = "".join(
        f'<span style="margin-right:1rem"><span style="color:{colour}">{sign}</span> '
        f"{html.escape(label or 'unlabelled')}</span>"
        for label, (colour, sign) in marks.items()
    )
    st.html(f'<div role="note" aria-label="Classes in the distributions" style="font-size:.9rem">{collection}</div>')


def _plot(name: str, figure: Any) -> None:
    key = f"plot {name}"
    drawn = figure.to_dict()
    if name != _COUNTS:
        drawn["layout"] |= {"dragmode": "select"} | ({} if name == _PLACES else {"selectdirection": "h"})

    @guarded()
    def take() -> None:
        chosen = st.session_state[key]["selection"]
        if name == _COUNTS:
            for point in chosen["points"][:1]:
                st.session_state["label"] = figure.data[0].customdata[point["point_index"]] or "(none)"
                first_page()
        for box in chosen["box"][:1]:
            if name == _PLACES:
                set_range("defect_column", *sorted(box["x"]))
                set_range("defect_row", *sorted(box["y"]))
            elif name != _COUNTS:
                set_range(figure.layout.meta["name"], *sorted(box["x"]))

    st.plotly_chart(
        drawn,
        theme=None,
        key=key,
        on_select=take,
        selection_mode=("points",) if name == _COUNTS else ("box",),
        alt=plots.alternative(figure),
        config={"displaylogo": False},
    )
