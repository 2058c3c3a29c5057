"""Inside the classical chain: what it segments in an image, what it measures, and what each feature counts for."""

import streamlit as st

from dashboard import services
from dashboard.components.common.guard import guarded
from dashboard.components.common.progress import duration, result_of
from dashboard.components.common.text import plain
from dashboard.services.classical_chain import ChainSteps, FittedBaseline
from dashboard.services.datasets import Refused, Source
from dashboard.services.jobs import Job
from dashboard.services.leaderboard import ComparisonRequest, Leaderboard
from steel_core.render import percent

_MOST = 10  # features by name
_OFFERED = 500  # images to choose from


def chain(asked: ComparisonRequest, board: Leaderboard) -> None:
    """Its steps for an image of those compared, or for one's own; offered where it must learn first."""
    if services.classical_chain.NAMED not in {entry.name for entry in board.entries}:
        return
    st.subheader("Inside the classical chain")
    st.markdown(
        "It needs no network: it segments what deviates from its surroundings, measures shape and texture, and lets a "
        "forest of decision trees vote. Each step can be looked at."
    )
    job = services.classical_chain.teaching(asked, board)
    if job and job.failed:
        services.jobs.board().forget(services.classical_chain.CHAIN, asked)
    if job and result_of(job, "chain", lambda: None) is not None:
        _inside(job)
    elif job is None:
        words = f"Look inside, {duration(services.classical_chain.seconds_to_teach(board))} to learn"
        st.button(words, on_click=services.classical_chain.start, args=(asked, board), icon=":material/account_tree:")


@st.fragment
@guarded()
def _inside(job: Job[FittedBaseline]) -> None:
    source = _chosen(job.about)
    if source is None:
        return
    steps = services.classical_chain.inside(job, source)
    if isinstance(steps, Refused):
        st.error(plain(steps.sentence), icon=":material/broken_image:")
        return
    seen, outlined = services.classical_chain.outlined(steps)
    count = int(steps.features["candidates"])
    with st.grid(2, min_column_width=260, width=900):
        words = f"1. As it sees {plain(source.name)}, {steps.grid.shape[0]} × {steps.grid.shape[1]} pixels"
        st.image(seen, words, width="stretch", alt=f"{source.name} in grey")
        regions = "one region deviates" if count == 1 else f"{count or 'no'} regions deviate"
        words = f"2. Candidates: {regions} from the surroundings" + ("; 1 is the largest" if count > 1 else "")
        st.image(outlined, words, width="stretch", alt=f"{source.name}, {words}")
    if not count:
        st.caption(":material/info: With no candidate, texture and brightness alone decide.")
    _verdict(steps, source.labels)


def _verdict(steps: ChainSteps, actual: tuple[str, ...]) -> None:
    probs = steps.probs
    likeliest = max(probs, key=probs.__getitem__)
    truth = f" Labelled {plain(', '.join(actual))}." if actual else ""
    st.markdown(f"3. The forest says **{plain(likeliest)}**, {percent(probs[likeliest])}.{truth}")
    ranked = sorted(probs, key=probs.__getitem__, reverse=True)
    label = st.selectbox(  # without a key: it begins anew, with what is said of this picture
        "What counts for or against", ranked, format_func=lambda name: f"{name}, {percent(probs[name])}", width=320
    )
    st.dataframe(
        services.classical_chain.contributions(steps, label, _MOST),
        hide_index=True,
        width=640,
        height="content",
        column_config={
            "Feature": st.column_config.Column(width="medium"),
            "Value": st.column_config.NumberColumn(format="%.4g", width="small"),
            "Adds": st.column_config.NumberColumn(format="%+.3f", width="small", help="To the probability."),
        },
        placeholder="–",
        alt=f"Features that count most for or against {label}, with what each adds to its probability",
    )
    st.caption(
        f"SHAP values (TreeSHAP): without any feature the forest would say {plain(label)} with "
        f"{percent(steps.before[label])}; what the features add leads to {percent(probs[label])}. They tell what the "
        "forest went by, not what caused the defect. Spread: of the grey levels; pattern: share of a local binary "
        "pattern; contrast, homogeneity, energy, correlation: of grey levels 1 or 4 pixels apart; candidates': "
        "means over them, weighed by area."
    )


def _chosen(board: Leaderboard) -> Source | None:
    offered = services.classical_chain.images(board, _OFFERED)
    with st.grid(2, min_column_width=260, width=900):
        path = st.selectbox(
            "Image, those named wrong first" + (f" ({_OFFERED} of {board.n:,})" if board.n > _OFFERED else ""),
            list(offered),
            format_func=lambda one: offered.get(one, one),
            key="chain image",
        )
        own = st.file_uploader(f"or one of your own ({services.datasets.LIMITS})", key="chain upload")
    if own:
        return services.datasets.uploaded(own)
    return services.datasets.find(board.index, path) if path else None
