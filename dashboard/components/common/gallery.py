"""Pictures side by side; the whole of a tile is a link that can be copied."""

from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from dashboard import services
from dashboard.components.common.text import plain
from dashboard.services.datasets import Refused, Source
from dashboard.services.models import Predictor

# The link's area is stretched over its tile.
_WHOLE_TILE = """<style>
[class*="st-key-tile-"]{position:relative}
[class*="st-key-tile-"] [data-testid="stPageLink"]{position:static}
[class*="st-key-tile-"] a{position:static!important}
[class*="st-key-tile-"] a::after{content:"";position:absolute;inset:0;z-index:1}
[class*="st-key-tile-"]:has(a:focus-visible){outline:2px solid currentColor;outline-offset:4px}
[class*="st-key-tile-"] img{aspect-ratio:1;object-fit:contain;object-position:center;background:#8883}
</style>"""


def gallery(
    tiles: Sequence[tuple[str, Source, str]],
    data: str,
    columns: int = 8,
    page: str = "inspect",
    name: str = "",
    also: Mapping[str, str | Sequence[str]] | None = None,
    picture: Callable[[int], bytes | Refused] | None = None,
) -> None:
    """Thumbnails, each linking to its image on a page.

    A tile is a path within the data set, a source and a caption in Markdown. `picture` gives another picture than the
    thumbnail by the tile's number, `also` more for the links; `name` tells one gallery from another on the page.
    """
    st.html(_WHOLE_TILE)
    with st.grid(columns, min_column_width=140):
        for number, (path, source, caption) in enumerate(tiles):
            with st.container(key=f"tile-{name}{number}", gap="xsmall"):
                drawn = picture(number) if picture else services.datasets.thumbnail(source)
                if isinstance(drawn, Refused):
                    st.markdown(f":material/broken_image: Not readable. {plain(drawn.sentence)}")
                else:
                    alt = f"{source.name}, {', '.join(source.labels) or 'unlabelled'}"
                    st.image(services.files.inline(drawn), width="stretch", alt=alt)
                link, query = f"app_pages/{page}.py", {**(also or {}), **image_link(path, data)}
                st.page_link(link, label=plain(source.name), icon="", query_params=query, width="stretch")
                st.caption(caption)


def try_a_sample(page: str, model: Predictor) -> None:
    """Images of the data set to begin with, for a page that was given none."""
    name = st.session_state.get("data")
    st.subheader("Or try a sample")
    tried = services.datasets.samples(name, model, 8) if name else []
    if name and tried:
        st.caption(f"Images of {plain(name)}{services.datasets.unlearnt(model)}.")
        gallery([(path, source, plain(", ".join(source.labels))) for path, source in tried], name, page=page)
    else:
        st.caption("There are none here: no data set, or the model has learnt from all images of it.")


def image_link(path: str, data: str) -> dict[str, str]:
    """The query of a page that shows an image, with the model that is chosen now: whole, so that it can be copied."""
    return {"model": str(st.session_state.get("model") or ""), "data": data, "image": path}
