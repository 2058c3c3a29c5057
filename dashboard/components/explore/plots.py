"""Numbers in each class, and images as the model sees them; what is dragged over, or drawn around, becomes a filter."""

import html
from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import draw_table
from dashboard.components.common.text import capital, plain
from dashboard.components.explore.filters import first_page, set_outline, set_range
from dashboard.components.explore.long_work import offer_work
from dashboard.components.explore.pictures import likeness
from dashboard.services.explore import Collection, Filter
from dashboard.services.models import Predictor
from steel_core.errors import SteelError
from steel_core.render import plots

_COUNTS, _PLACES = "Images by class", "Where defects lie"
_ALIKE = 12
_NAMES = {"labels": "label", "pred": "prediction", "verdict": "right or wrong", "split": "split", "source": "source"}
_CORNERS = 40  # of a line in the URL, at most


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
                st.markdown(f"**{capital(name)}**")
                _plot(name, figure)
    if "brightness" not in collection.numbers:
        offer_work("properties", model, collection.name)
    elif not figures:
        st.info(
            "Nothing is left to draw: no image matches the class, split, source and group.",
            icon=":material/bar_chart_off:",
        )
    with st.expander("Numbers of each class as a table"):
        draw_table(services.distributions.quartiles(collection, open_), "Quartiles of each number by class")


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


def feature_map(collection: Collection, asked: Filter, model: Predictor | None) -> None:
    """The map, coloured as chosen; what is drawn around filters the images below."""
    if model is None:
        st.info("No model is here yet, so nothing tells which images are alike.", icon=":material/deployed_code:")
        return
    if collection.embedded is None or not set(services.explore.PLACES) <= set(collection.numbers):
        offer_work("embedding", model, collection.name)
        return
    colours = {title: name for name, title in _NAMES.items() if name in collection.facts}
    colours |= {
        services.explore.title(name): name for name in collection.numbers if name not in services.explore.PLACES
    }
    colour = colours[st.selectbox("Colour by", list(colours), key="colour", bind="query-params", width=260)]
    figure, n = services.explore.feature_map(collection, services.explore.everything_but_ranges(asked), colour)

    @guarded()
    def take() -> None:
        chosen = st.session_state["feature map"]["selection"]
        for line in chosen["lasso"][:1]:
            step = max(1, -(-len(line["x"]) // _CORNERS))
            set_outline(list(zip(line["x"], line["y"], strict=True))[::step])
        for box in chosen["box"][:1]:
            (x0, x1), (y0, y1) = sorted(box["x"]), sorted(box["y"])
            set_outline([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])

    st.plotly_chart(
        figure,
        theme=None,
        key="feature map",
        on_select=take,
        selection_mode=("lasso", "box"),
        alt=plots.alternative(figure),
        config={"displaylogo": False, "scrollZoom": True},
    )
    st.caption(
        f"{n:,} images in the eyes of {plain(model.card.title)} (t-SNE of its features, stored). Those that lie "
        "together look alike to it; distances between groups mean nothing. Draw around some to see them below. By "
        "keyboard: “Range of a number”, place on the map."
    )
    with st.expander("Which images are most alike one of yours?", icon=":material/image_search:"):
        _own(collection, model)


def _own(collection: Collection, model: Predictor) -> None:
    file = st.file_uploader(f"A picture ({services.datasets.LIMITS})", key="alike to")
    if not file:
        return
    try:
        alike = services.explore.alike_to(collection, model, services.datasets.uploaded(file).read(), _ALIKE)
    except SteelError as error:
        st.error(plain(str(error)), icon=":material/broken_image:")
        return
    likeness(collection, alike, "own")
