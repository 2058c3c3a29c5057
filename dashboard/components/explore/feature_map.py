"""Images as the model sees them: a map of its features, and the images most alike one of the visitor's own."""

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.text import plain
from dashboard.components.explore.filters import set_outline
from dashboard.components.explore.long_work import offer_work
from dashboard.components.explore.pictures import tiles
from dashboard.services.explore import Collection, Filter
from dashboard.services.models import Predictor
from steel_core.errors import SteelError
from steel_core.render import plots

_ALIKE = 12
_NAMES = {"labels": "label", "pred": "prediction", "verdict": "right or wrong", "split": "split", "source": "source"}
_CORNERS = 40  # of a line in the URL, at most


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
    figure, n = services.features.feature_map(collection, services.explore.everything_but_ranges(asked), colour)

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
        alike = services.features.alike_to(collection, model, services.datasets.uploaded(file).read(), _ALIKE)
    except SteelError as error:
        st.error(plain(str(error)), icon=":material/broken_image:")
        return
    likeness(collection, alike, "own")


def likeness(collection: Collection, alike: list[tuple[int, float]], name: str) -> None:
    """Images by falling likeness, with the number below each."""
    tiles(collection, [row for row, _ in alike], notes=[f"likeness {value:.3f}" for _, value in alike], name=f"{name}-")
    st.caption(
        "Likeness: the cosine between the model's features; 1 is the same. Alike to the model, not of one origin."
    )
