"""How far one map can be trusted: badges under it, and the words for what they mean."""

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.services.maps import Read
from dashboard.services.models import Predictor
from steel_core.types import Attribution

_WORDS = {
    "Faithfulness": "The strongest pixels of the map are removed, then the weakest; with a faithful map, the first "
    "cost the model more certainty (ROAD). The badge tells what share of this method's maps, on the images that were "
    "measured, are less faithful than this one.",
    "Stability": "Faint noise is added to the picture, too little to change the verdict. The badge tells how much the "
    "map changes; a map that changes much tells more of the noise than of the steel.",
    "Lift over area": "How many times denser the evidence lies in the map's region than over the whole picture. "
    "A value of 1 would be evidence spread evenly, which points nowhere.",
    "Randomisation": "The method is asked again about a model that has forgotten all it learnt. A map that stays as it "
    "was shows the picture and not the model. Measured for the method, not for this picture; "
    "open where that was not measured, or is not clear.",
}


def trust_badges(model: Predictor, read: Read, attribution: Attribution) -> None:
    """The badges of one finished map; nothing for a model whose maps were never measured."""
    if not model.card.quality:
        return
    trust = services.maps.trust(model, read, attribution)
    if trust is None:
        st.fragment(run_every=1.0)(_measuring)(model, read, attribution)
        return
    with st.container(horizontal=True, gap="xsmall"):
        if trust.percentile is not None:
            _badge(f"more faithful than {trust.percentile:.0%} of its maps", "Faithfulness")
        if trust.change is not None:
            _badge(f"noise changes it by {trust.change:.0%}", "Stability")
        if trust.lift is not None:
            _badge(f"evidence {trust.lift:.1f} times denser where marked", "Lift over area", trust.lift > 1)
        words_of = {
            True: "shows what the model learnt",
            False: "shows the picture, not the model",
            None: "not clear whether it shows the model",
        }
        _badge(words_of[trust.explains_model], "Randomisation", trust.explains_model)


def trust_words(model: Predictor) -> None:
    """What the badges mean, or how to get some."""
    if not model.card.quality:
        st.caption(
            ":material/info: How far maps of this model can be trusted was not measured yet. "
            "`python -m steel_core quality --checkpoint … --data … --store` measures it; then each map carries "
            "its own badges."
        )
        return
    with st.popover("What the badges mean", icon=":material/help:"):
        for name, meaning in _WORDS.items():
            st.markdown(f"**{name}.** {meaning}")


@guarded()
def _measuring(model: Predictor, read: Read, attribution: Attribution) -> None:
    if services.maps.trust(model, read, attribution):
        st.rerun()
    st.caption(":material/hourglass_top: Measuring how far to trust it")


def _badge(words: str, kind: str, good: bool | None = None) -> None:
    """Green or red only where there is a line to cross: chance for the lift, the test for randomisation."""
    icon = "info" if good is None else "check" if good else "close"
    st.badge(
        words.replace("%", " %"),
        icon=f":material/{icon}:",
        color="gray" if good is None else "green" if good else "red",
        help=f"{kind}: {_WORDS[kind]}",
    )
