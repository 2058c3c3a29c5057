"""Explore: what a data set holds, picture by picture."""

import math

import streamlit as st

from dashboard import services
from dashboard.components.gallery import gallery
from dashboard.components.text import plain

PAGE = 24
ALL, NONE = "all", "(none)"

st.title("Explore")
name = st.session_state.get("data")
if not name:
    st.info(
        "No data set is here. Point `STEEL_DATA` to one, or to a folder of them, and start again.",
        icon=":material/folder_off:",
    )
    st.stop()
index = services.datasets.dataset(name)
facts = services.datasets.described(index)

st.markdown(f"**{plain(facts['title'])}** · {facts['n']:,} images")
st.markdown(plain(" · ".join(f"{label or 'unlabelled'} {n:,}" for label, n in facts["labels"].items())))
st.caption(
    f"Licence: {plain(facts['licence'])}" + (f"  \nSource: {plain(facts['citation'])}" if facts["citation"] else "")
)
if facts["problems"]:
    with st.expander(f"{len(facts['problems'])} entries were left out or look wrong"):
        for problem in facts["problems"][:50]:
            st.markdown(f"- {plain(problem)}")


def first_page() -> None:
    """After a change of filter, start at its first page."""
    st.session_state["page"] = 1


def offered(what: str) -> list[str]:
    """The choices of a filter."""
    return [ALL, *(key or NONE for key in facts[what])]


def clear() -> None:
    """Show everything again."""
    st.session_state.update(label=ALL, split=ALL, page=1)


wanted = {key: st.query_params.get(key) for key in ("label", "split", "page")}  # widgets drop what they do not know
with st.grid(2, min_column_width=130, width=640):
    label = st.selectbox("Class", offered("labels"), key="label", bind="query-params", on_change=first_page)
    split = st.selectbox("Split", offered("splits"), key="split", bind="query-params", on_change=first_page)
for key, word, known in (("label", "class", offered("labels")), ("split", "split", offered("splits"))):
    given = wanted[key]
    if given and given not in known:
        st.caption(f":material/info: There is no {word} “{plain(given[:80])}” here; showing all instead.")
matching = services.datasets.filtered(index, *({ALL: None, NONE: ""}.get(value, value) for value in (label, split)))

if not len(matching):
    st.info("No image matches these filters.", icon=":material/filter_alt_off:")
    st.button("Clear filters", on_click=clear, type="primary")
    st.stop()
pages = math.ceil(len(matching) / PAGE)
current = st.pagination(pages, key="page", bind="query-params") if pages > 1 else 1
if wanted["page"] and wanted["page"] not in map(str, range(1, pages + 1)):
    st.caption(f":material/info: There is no page “{plain(wanted['page'][:20])}” here; showing page {current} instead.")
first = (current - 1) * PAGE
st.caption(f"{first + 1:,} to {min(first + PAGE, len(matching)):,} of {len(matching):,} images")
gallery(
    [
        (path, source, plain(", ".join(source.labels) or "unlabelled") + (f" · {part}" if part else ""))
        for (path, source), part in zip(
            services.datasets.sources(matching, first, PAGE), matching.table["split"][first : first + PAGE], strict=True
        )
    ],
    name,
)
