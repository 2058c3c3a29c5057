"""Methods: how good the explanations of the chosen model are, measured; for data scientists."""

import streamlit as st

from dashboard import services
from dashboard.components.methods.quality_table import agreement, behind, headline, plots, table
from dashboard.components.methods.reference import reference

st.title("Methods")
st.markdown("How far the maps of this model can be trusted: what was measured, on which images, with intervals.")
name = st.session_state.get("model")
if not name:
    st.info("No model is here yet. The Overview says how to get one.", icon=":material/deployed_code:")
    st.stop()
measured = services.models.predictor(name).card.quality
if not measured:
    st.info(
        "The explanations of this model were not measured yet. Measure them on images that it has not learnt from, "
        "best with masks or boxes:",
        icon=":material/query_stats:",
    )
    st.code(f"python -m steel_core quality --checkpoint {name} --data FOLDER --store", language="bash")
    reference()
    st.stop()
data = st.segmented_control("Measured on", list(measured), default=next(iter(measured)), required=True, key="measured")
quality = measured[data or next(iter(measured))]
rows = services.quality.rows(name, quality.data)
headline(name, quality)
chosen = table(quality)
if chosen:
    behind(name, quality, rows, *chosen)
st.subheader("Metric by metric")
plots(quality, rows)
agreement(quality)
reference()
