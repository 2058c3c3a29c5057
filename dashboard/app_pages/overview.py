"""Overview: what this is, how far the chosen model can be trusted, and what it looks like."""

import streamlit as st

from dashboard import services
from dashboard.components.common.estimates import show_estimates
from dashboard.components.common.gallery import image_link
from dashboard.components.common.text import plain
from dashboard.components.common.verdict import marked, other_data
from steel_core.render import percent

st.title("A second pair of eyes on every sheet")
st.markdown(
    "Steel Lens looks at pictures of steel surfaces, **names the defect, shows what led it there, and hands doubtful "
    "sheets to a person.**"
)
with st.container(horizontal=True):
    st.page_link("app_pages/inspect.py", label="Inspect your own images", icon=":material/frame_inspect:")
    st.page_link("app_pages/explore.py", label="Explore the data set", icon=":material/photo_library:")

name = st.session_state.get("model")
if not name:
    st.info(
        "No model is here yet. Train one with `python -m steel_core train`, "
        "or point `STEEL_MODELS` to a folder of models.",
        icon=":material/deployed_code:",
    )
    st.stop()
model = services.models.predictor(name)
card = model.card

st.subheader(plain(card.title))
if card.warnings:
    st.warning("\n\n".join(plain(note) for note in card.warnings), icon=":material/warning:")
show_estimates(card)

data = st.session_state.get("data")
if data and (shown := services.datasets.samples(data, model, 4)):
    st.subheader("What it sees")
    st.caption(
        f"Images of {plain(data)}{services.datasets.unlearnt(model)}, with its verdict. Red marks what speaks for the "
        "verdict, blue what speaks against it."
    )
    if other := other_data(model):
        st.caption(
            f":material/info: This is other steel than the model learnt from ({plain(other)}): expect wrong verdicts, "
            "as on any surface that a model does not know."
        )
    with st.grid(4, min_column_width=200):
        for path, source in shown:
            with st.container(border=True):
                slot = st.empty()
                with slot.container():
                    st.skeleton(height=240)
                    st.caption(":material/hourglass_top: Verdict and map are being made")
                seen = services.maps.example(model, source)
                with slot.container():
                    if isinstance(seen, services.datasets.Refused):
                        st.error(plain(seen.sentence), icon=":material/broken_image:")
                        continue
                    st.image(seen.overlay, width="stretch", alt=f"{source.name} with its Grad-CAM map")
                    st.markdown(f"**{marked(seen.seen.prediction)}** {percent(seen.seen.prediction.confidence)}")
                    st.caption(f"Labelled: {plain(', '.join(source.labels) or 'nothing')}")
                    st.page_link("app_pages/inspect.py", label="Look closer", query_params=image_link(path, data))

if card.data:
    st.subheader("What it learnt from")
    facts = [str(card.data.get(key) or "") for key in ("title", "licence", "citation")]
    count = card.data.get("images")
    lines = (
        f"**{plain(facts[0] or str(card.data.get('name', '')))}**" + (f", {count:,} images" if count else ""),
        f"Licence: {plain(facts[1])}" if facts[1] else "",
        f"Source: {plain(facts[2])}" if facts[2] else "",
    )
    st.markdown("  \n".join(filter(None, lines)))
