"""Images of an evaluation with their maps, a page at a time."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import services
from dashboard.components.common.gallery import image_link
from dashboard.components.common.text import counted, plain
from dashboard.services.datasets import Refused
from dashboard.services.models import Predictor
from steel_core.render import percent
from steel_core.types import CLEAR

PAGE = 12


def worst_images(
    model: Predictor, data: str, rows: pd.DataFrame, name: str, below: Callable[[Mapping[Any, Any]], None] | None = None
) -> None:
    """One page of images in the order of `rows`: predicted, actual, loss and probability above each, its map beside it.

    `name` tells the page's number, also in the URL, from those of other galleries; `below` draws more from a row.
    """
    pages = max(1, math.ceil(len(rows) / PAGE))
    chosen = st.pagination(pages, key=name, bind="query-params") if pages > 1 else 1
    first = (min(chosen, pages) - 1) * PAGE
    part = rows.iloc[first : first + PAGE]
    st.caption(f"{first + 1:,} to {first + len(part):,} of {counted(len(rows), 'image')}" if len(part) else "No images")
    maps, waiting, index = [], st.empty(), services.datasets.dataset(data)
    with st.grid(3, min_column_width=300):
        for row in part.to_dict("records"):
            source = services.datasets.source(index, row["row"])
            with st.container(border=True, gap="xsmall"):
                st.markdown(_above(row))
                with st.grid(1 if row.get("tiles", 1) > 1 else 2, min_column_width=110):  # a strip is wide
                    alt = f"{source.name}, actual {row['label'] or 'unlabelled'}"
                    _show(st.empty(), services.datasets.thumbnail(source), alt)
                    slot = st.empty()
                    slot.skeleton(height=140)
                    maps.append((slot, source, row))
                link = image_link(row["file"], data)
                st.page_link("app_pages/explain.py", label=plain(source.name), icon="", query_params=link)
                if below:
                    below(row)
    for number, (slot, source, row) in enumerate(maps, 1):  # after all pictures: a map takes longer
        waiting.caption(f":material/hourglass_top: Making the maps, {number} of {len(maps)}")
        alt = f"Grad-CAM of {source.name} for {row['pred']}"
        _show(slot, services.maps.row_map(model, source, row["pred"]), alt)
    waiting.empty()
    if len(part):
        st.caption(f"Maps: Grad-CAM for the predicted class. {services.maps.CAUTION}")


def _show(place: DeltaGenerator, picture: bytes | Refused, alt: str) -> None:
    if isinstance(picture, Refused):
        place.caption(plain(picture.sentence))
    else:
        place.image(services.files.inline(picture), width="stretch", alt=alt)


def is_right(row: Mapping[Any, Any]) -> bool:
    """Whether what is named in a row of an evaluation's table is what is there: all the classes, and no other."""
    if "named" not in row:
        return bool(row["label"] == row["pred"])
    return bool(row["label"]) and {*row["label"].split("|")} - {CLEAR} == {*row["named"].split("|")} - {""}


def _above(row: Mapping[Any, Any]) -> str:
    named = str(row.get("named", row["pred"])).replace("|", ", ") or "no class"  # several, if the model may name them
    answer = plain(named) if row["outcome"] == named else f"{plain(named)} ({plain(row['outcome'])})"
    loss = "" if math.isnan(row["loss"]) else f" · loss {row['loss']:.2f}"
    actual = plain(row["label"].replace("|", ", ")) or "unlabelled"
    wrong = ":material/close: " if row["label"] and not is_right(row) else ""
    return f"{wrong}Predicted **{answer}**, actual **{actual}**{loss} · probability {percent(row['confidence'])}"
