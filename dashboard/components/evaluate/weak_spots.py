"""Where the model is weak, and which images it does not know at all."""

import html

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import draw_plot
from dashboard.components.common.text import plain
from dashboard.components.common.worst_images import worst_images
from dashboard.components.evaluate.headline import countable
from dashboard.services.evaluation import Evaluation
from dashboard.services.models import Predictor
from steel_core.render import percent


@st.fragment
@guarded()
def weak(model: Predictor, data: str, evaluation: Evaluation) -> None:
    """Segments with intervals and correction; the gate's measured rates and what it stopped here."""
    st.subheader("Weak segments")
    if countable(evaluation):
        _segments(model, data, evaluation)
    st.subheader("Unfamiliar images")
    _unfamiliar(model, data, evaluation)


def _segments(model: Predictor, data: str, evaluation: Evaluation) -> None:
    table = services.evaluation.estimates(evaluation).segments
    if table.empty:
        st.info("Too few images to look at segments.", icon=":material/group_off:")
        return
    sure = table[table["weak"].astype(bool)]
    if sure.empty:
        st.markdown(
            f"**No segment is weak beyond chance:** {len(table)} were looked at, and p was corrected for that many "
            "looks (Holm). That proves no strength where images are few."
        )
    else:
        named = [f"{row['property'].replace('_', ' ')} {row['segment']}" for row in sure.to_dict("records")]
        worst = ", ".join(f"**{plain(name)}**" for name in named)
        st.markdown(
            f"Weak beyond chance: {worst}. {len(table)} segments were looked at, and p was corrected for it (Holm)."
        )
    names = [f"{row['property']}: {row['segment']}" for row in table.to_dict("records")]

    def take() -> None:
        for point in st.session_state["plot Weak segments"]["selection"]["points"][:1]:
            if point.get("customdata"):
                st.session_state["segment"] = html.unescape(": ".join(point["customdata"]))
                st.session_state["segment-page"] = 1

    draw_plot(services.evaluation.plots(evaluation)["Weak segments"], "Weak segments", take, by="points")
    chosen = st.selectbox(
        "Images of",
        names,
        None,
        format_func=lambda name: name.replace("_", " "),
        key="segment",
        placeholder="Choose a segment, or click on its point above",
    )
    if chosen in names:
        rows = services.evaluation.in_segment(evaluation, table.iloc[names.index(chosen)])
        worst_images(model, data, rows, "segment-page")
    with st.expander("All segments as a table"):
        st.dataframe(
            table.drop(columns=["start", "end"]).rename(columns={"p_holm": "p, corrected"}),
            hide_index=True,
            column_config=dict.fromkeys(
                ("error", "low", "high", "elsewhere"), st.column_config.NumberColumn(format="percent")
            )
            | dict.fromkeys(("p", "p, corrected"), st.column_config.NumberColumn(format="%.3g")),
            alt="Error rate of each segment with interval, rate elsewhere and corrected p",
        )


def _unfamiliar(model: Predictor, data: str, evaluation: Evaluation) -> None:
    gate = model.card.familiarity
    if not gate:
        st.info(
            "This model has no gate: it gives a verdict on any picture, even one of no steel. Teach it:",
            icon=":material/help_center:",
        )
        st.code(
            f"python -m steel_core checkpoint familiarity --checkpoint {model.card.name} --data FOLDER --who NAME",
            "bash",
        )
        return
    st.markdown(
        "The gate says **unfamiliar: no verdict** to a picture unlike all that the model has learnt from. "
        "Its own rates, measured on images that had no part in it:"
    )
    st.dataframe(
        pd.DataFrame(
            [
                {
                    "Images": name,
                    "Called unfamiliar": percent(rate.unfamiliar) if rate.unfamiliar is not None else "–",
                    "95 %": " to ".join(percent(end) for end in rate.interval if end is not None),
                    "n": rate.n,
                }
                for name, rate in gate.rates.items()
            ]
        ),
        hide_index=True,
        alt="Share of each set of images that the gate calls unfamiliar",
    )
    strange = evaluation.table[evaluation.table["strangeness"] > 1].sort_values("strangeness", ascending=False)
    st.markdown(f"In this part: **{len(strange):,} of {len(evaluation):,}** images are unfamiliar.")
    if len(strange):
        worst_images(model, data, strange, "strange-page")
