"""What to train: data, recipe, architecture and name, with what it will cost."""

import datetime

import streamlit as st

from dashboard import services
from dashboard.components.common.progress import duration
from dashboard.components.common.text import plain
from dashboard.components.train.settings import advanced, variations
from steel_core.errors import SteelError, UsageError

_STARTS = {"imagenet": "ImageNet weights", "random": "random weights"}
_FEW = 20  # images of a class below which the page warns


def form(data: str) -> None:
    """Asks, and starts a run; its name is then in the URL."""
    index = services.datasets.dataset(data)
    facts = services.datasets.describe_dataset(index)
    counts = ", ".join(f"{plain(name) or 'unlabelled'} {count:,}" for name, count in facts["labels"].items())
    st.markdown(f"**{plain(index.spec.title)}**: {facts['n']:,} images; {counts}. Choose another data set above.")
    rare = [name for name, count in facts["labels"].items() if name and count < _FEW]
    if rare:
        st.caption(
            f":material/info: Fewer than {_FEW} images of {plain(', '.join(rare))}: expect little there, and wide "
            "intervals."
        )
    presets = services.training.PRESETS
    preset = st.segmented_control(
        "Recipe", list(presets), format_func=lambda name: presets[name].title, default="sound", required=True,
        key="preset",
    )  # fmt: skip
    st.caption(plain(presets[preset].costs))
    with st.grid(2, min_column_width=240, width=800):
        name = st.text_input(
            "Name of the model",
            f"{_slug(data)}-{datetime.datetime.now(datetime.UTC):%m%d-%H%M}",
            key=f"name for {data}",
            max_chars=60,
            help="Small letters, digits and hyphens. It stands in every chooser once the model is there.",
        )
        titles = services.training.backbones()
        usual = presets[preset].config
        backbone = st.selectbox(
            "Architecture", list(titles), list(titles).index(usual.backbone),
            format_func=lambda one: titles.get(one, one), key=f"backbone {preset}", accept_new_options=True,
            help="Or type torchvision:NAME for any classifier of torchvision, as in torchvision:mobilenet_v3_small.",
        )  # fmt: skip
    binary = services.leaderboard.tells_types(data) and st.toggle(
        "Only clear or defect", key="binary", help="All defect types are one class; needs fewer images."
    )
    try:
        refused = None
        with st.expander("Advanced"):
            try:
                config = advanced(preset, backbone)
            except UsageError as error:  # said below: what is not drawn would lose what was set
                config, refused = usual, error
        with st.expander("How images are varied, shown on your own"):
            config = variations(preset, config, data)
        if refused:
            raise refused
        seconds = services.training.expected_seconds(data, config, binary)
        epochs = services.training.expected_epochs(data, config)
        st.caption(
            f":material/hourglass_top: From {_STARTS[config.start]}, at most {epochs} epochs: {duration(seconds)} at "
            "this machine's pace right now, less where nothing more is learnt, up to twice as long where it must begin "
            "anew with another learning rate; near-duplicates and maps come on top. The page can be left meanwhile."
        )
        if st.button("Start the training", type="primary", icon=":material/play_arrow:"):
            st.query_params["run"] = services.training.start(preset, config, name, data, binary=binary)
            st.rerun()
    except SteelError as error:  # the runs below stay in sight
        st.error(plain(str(error)), icon=":material/error:")


def _slug(text: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower())
    return kept.strip("-")[:40] or "model"
