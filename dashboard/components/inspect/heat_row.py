"""The heat-map row of Inspect: the picture beside one map a method, with the choice of class and opacity."""

import functools

import streamlit as st

from dashboard import services
from dashboard.components.common.downloads import report_buttons
from dashboard.components.common.guard import guarded
from dashboard.components.common.maps import Cell, legends, opacity, show_maps, waiting
from dashboard.components.common.text import plain
from dashboard.services.datasets import Source
from dashboard.services.images import FirstLook
from dashboard.services.maps import Style
from dashboard.services.models import Predictor


@st.fragment
@guarded()
def heat_row(model: Predictor, source: Source, seen: FirstLook) -> None:
    """Maps of one image. Opacity draws the cached raw maps anew."""
    st.subheader("What influenced the model")
    st.markdown(f":material/info: {services.maps.CAUTION}")
    with st.grid(2, min_column_width=240):
        target, against = _question(model, seen)
        style = Style(opacity())
    if against:
        st.markdown(
            f"The maps show what makes the model lean to **{plain(target)}** (red) rather than to "
            f"**{plain(against)}** (blue)."
        )
    count, upright = 1 + len(services.maps.MAPS), seen.width <= 3 * seen.height
    places = st.columns(count) if upright else [st.container() for _ in range(count)]
    with places[0]:
        st.markdown("**Picture as it came**")
        st.image(services.files.inline(seen.preview), width="stretch", alt=f"{source.name}, the picture as it came")
    read = functools.cache(source.read)  # decoded once for all methods, and only if a map is missing
    cells = []
    for place, name in zip(places[1:], services.maps.MAPS, strict=True):
        with place:
            cells.append(Cell(model, seen, read, services.maps.wanted_map(name, target, against), waiting(model, name)))
    legends(services.maps.MAPS)
    maps = show_maps(cells, style)
    ready = [one for one in maps if one]
    report_buttons(model, source, seen, ready, style)
    if len(ready) < len(maps):
        st.caption("The report holds the maps that are finished.")


def _question(model: Predictor, seen: FirstLook) -> tuple[str, str]:
    """The class to explain, and the one it is contrasted with, or "". A doubtful image begins with the contrast."""
    best, second = services.images.two_likeliest(model, seen)
    doubtful = model.is_doubtful(seen.prediction)
    questions = [(name, "") for name in model.classes]
    if second:
        questions.insert(0 if doubtful else len(questions), (best, second))

    def words(question: tuple[str, str]) -> str:
        name, against = question
        if against:
            return f"why {name} rather than {against}"
        return f"{name} (predicted)" if name == best else name

    return st.selectbox(
        "Class to explain",
        questions,
        index=0 if doubtful and second else questions.index((best, "")),
        format_func=words,
        key=f"target {seen.prediction.image_sha256} {model.hash}",
        help="The maps show what speaks for this class. The predicted class comes first; where the model is in doubt, "
        "what tells the likeliest class from the next one.",
    )
