"""Compare: every model and baseline on the same images; which is best, by how much, and where two disagree."""

import streamlit as st

from dashboard import services
from dashboard.components.compare.classical_chain import chain
from dashboard.components.compare.leaderboard import disagreements, obtain_leaderboard, plots, table

st.title("Compare")
st.markdown("All models on the same images, none of which any of them has learnt from.")
data = st.session_state.get("data")
if not data or not services.models.available():
    missing = "data set" if not data else "model"
    st.info(f"No {missing} is here yet, so nothing can be compared.", icon=":material/deployed_code:")
    st.stop()
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    part = st.segmented_control(
        "Images",
        services.leaderboard.PARTS,
        default="test",
        required=True,
        key="compared part",
        help="“test” is the test split; “held-out” are all images that served no model to learn or to choose.",
    )
    baselines = st.toggle(
        "With baselines",
        key="baselines",
        bind="query-params",
        help="The majority class, pixels without a network, and the classical chain, learnt on the train split: what a "
        "network must beat. Below, the steps of the chain can be looked at for any image.",
    )
    binary = services.leaderboard.tells_types(data) and st.toggle(
        "Only clear or defect",
        key="two-classes",
        bind="query-params",
        help="All defect types are one class; models that know the types are left out.",
    )
asked = services.leaderboard.ComparisonRequest(data, part, baselines, binary)
comparison = obtain_leaderboard(asked)
if comparison is None:
    st.stop()
chosen = table(comparison)
plots(comparison, chosen)
disagreements(data, comparison)
chain(asked, comparison)
