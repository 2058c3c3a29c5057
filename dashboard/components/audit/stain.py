"""Which stain is pasted: one drawn by the program, or a real one that the visitor marks with a box in an image."""

from collections.abc import Callable

import streamlit as st

from dashboard import services
from dashboard.components.common.text import capital, plain
from dashboard.services.audits import audit_report as figures
from dashboard.services.bench import StainSettings
from dashboard.services.datasets import DatasetIndex, Refused, Source
from dashboard.services.images import FirstLook
from dashboard.services.models import Predictor
from steel_core.render import audit_plots

DRAWN, CUT = KINDS = ("Drawn by the program", "Cut out of an image")

Box = tuple[int, int, int, int]  # left, top, width and height, in pixels

_TEXTURES = {"film": "Steel shows through", "grain": "A crust", "flat": "Plain white"}
_FIELDS = {"cut left": "From the left", "cut top": "From the top", "cut width": "Width", "cut height": "Height"}


def which_stain(model: Predictor) -> StainSettings | None:
    """The stain that was chosen, without a `source` if it is drawn; None, and a sentence why, if none is marked yet."""
    if st.segmented_control("Stain", KINDS, default=DRAWN, required=True, key="stain kind") == DRAWN:
        return _drawn()
    source = _picture()
    if source is None:
        st.info("Here is no image to cut a stain out of. “Another image” takes one of your own.")
        return None
    seen = services.images.first_look(model, source)
    if isinstance(seen, Refused):
        st.error(plain(seen.sentence), icon=":material/broken_image:")
        return None
    with st.grid(2, min_column_width=280, gap="medium"):
        with st.container():
            box = _box(source, seen)
        with st.container():
            if box:
                return _cut(source, box)
            st.info("Drag a box over the stain, or type where it is, in pixels.", icon=":material/highlight_alt:")
            return None


def choose_image(label: str, listed: Callable[[DatasetIndex], list[str]], key: str) -> Source | None:
    """One of the listed images of the chosen data set, each by its name and what it shows; None where there is none."""
    data = st.session_state.get("data")
    index = services.datasets.dataset(data) if data else None
    paths = listed(index) if index else []
    if not index or not paths:
        return None

    def titled(path: str) -> str:
        source = services.datasets.find(index, path)
        return f"{source.name}: {', '.join(source.labels)}" if source.labels else source.name

    path = st.selectbox(label, paths, format_func=titled, key=f"{key} {data}", width=320)
    return services.datasets.find(index, path)


def _drawn() -> StainSettings:
    with st.grid(4, min_column_width=130):
        shape = st.selectbox("Kind of stain", services.bench.SHAPES, format_func=capital, key="stain shape")
        texture = st.selectbox(
            "Texture", services.bench.TEXTURES, format_func=_TEXTURES.__getitem__, key="stain texture"
        )
        number = st.number_input("Number", 1, 9, key="stain number", help="Stains that share the area.")
        seed = st.number_input("Drawing", 0, 999, key="stain seed", help="Another number draws other outlines.")
    return StainSettings.from_json({"shape": shape, "texture": texture, "number": number, "seed": seed})


def _picture() -> Source | None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        offered = choose_image("Image with the stain", services.bench.perhaps_stained, "cut of")
        with st.popover("Another image", icon=":material/upload:"):
            own = st.file_uploader(f"An image with a stain ({services.datasets.LIMITS})", key="cut file")
    return services.datasets.uploaded(own) if own else offered


def _box(source: Source, seen: FirstLook) -> Box | None:
    """A plot to drag the box on, and its numbers for the keyboard; another image begins without a box."""
    if st.session_state.get("cut key") != source.key:
        st.session_state["cut key"] = source.key
        st.session_state.update(dict.fromkeys(_FIELDS))

    def take() -> None:
        for drag in st.session_state["cut pad"]["selection"]["box"][:1]:
            edges = []
            for axis, full in (("x", seen.width), ("y", seen.height)):
                edges.append([round(min(max(percent, 0), 100) / 100 * full) for percent in sorted(drag[axis])])
            (left, right), (top, bottom) = edges
            st.session_state.update(zip(_FIELDS, (left, top, right - left, bottom - top), strict=True))

    pad = st.container()
    with st.grid(4, min_column_width=110):
        numbers = [
            st.number_input(side, min_value=0, step=1, key=field, help=f"In pixels of {seen.width} x {seen.height}.")
            for field, side in _FIELDS.items()
        ]
    box: Box | None = None
    outline = None
    if None not in numbers:
        left, top, width, height = box = (numbers[0], numbers[1], numbers[2], numbers[3])
        x, y = 100 / seen.width, 100 / seen.height
        outline = (left * x, top * y, (left + width) * x, (top + height) * y)
    pad.plotly_chart(
        audit_plots.box_pad(seen.picture().display(), outline),
        key="cut pad",
        on_select=take,
        selection_mode="box",
        config={"displayModeBar": False},
        alt=f"{source.name}: drag a box over the stain. The four fields below do the same.",
    )
    return box


def _cut(source: Source, box: Box) -> StainSettings | None:
    marked = services.bench.cut_out(source, box)
    if isinstance(marked, Refused):
        st.error(f"{plain(capital(marked.sentence))}.", icon=":material/error:")
        return None
    stencil = services.audits.read_stencil(marked.cut_stain)
    assert stencil is not None
    st.image(
        figures.draw_cut_stain(stencil),
        width=240,
        output_format="PNG",
        alt=f"The stain that was cut out of {source.name}, fading out at its edge",
    )
    what = (
        "Nothing in the box is far brighter than the steel, so all of the box is cut out."
        if stencil.cover.all()
        else "Cut out is what is far brighter than the steel in the box."
    )
    st.caption(f"{what} It fades out at its edge and keeps its own brightness.")
    return marked
