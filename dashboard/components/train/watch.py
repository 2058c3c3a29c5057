"""Runs: all of them, and one as it goes on: how far it is, curves, examples, its end, what can be done with it."""

import functools
from typing import Any

import streamlit as st

from dashboard import services
from dashboard.components.common.chooser import drop_from_address
from dashboard.components.common.estimates import show_estimates
from dashboard.components.common.guard import guarded
from dashboard.components.common.plot import draw_plot
from dashboard.components.common.progress import duration
from dashboard.components.common.text import capital, plain
from steel_core.errors import SteelError
from steel_core.render import percent

_POLL = 2.0  # seconds
_WARNING = "WARNING: "  # as the command line begins one
_STATUS = {
    "waiting": ("Waits its turn", ":material/schedule:"),
    "running": ("At work", ":material/hourglass_top:"),
    "stopping": ("Stops after this epoch", ":material/hourglass_bottom:"),
    "done": ("Finished", ":material/check_circle:"),
    "stopped": ("Stopped", ":material/pause_circle:"),
    "failed": ("Failed", ":material/error:"),
    "crashed": ("Cut off", ":material/power_off:"),
}


def watched(name: str) -> None:
    st.button("All runs, and a new one", on_click=drop_from_address, args=("run",), icon=":material/arrow_back:")
    run = services.training.RunQueue().get(name)
    if run is None:
        st.info(f"There is no run “{plain(name[:40])}” here.", icon=":material/search_off:")
    elif run.unfinished:
        _followed(name)
    else:
        _shown(run)


@st.fragment(run_every=_POLL)
@guarded()
def _followed(name: str) -> None:
    queue = services.training.RunQueue()
    queue.wake()
    run = queue.get(name)
    if run is None or not run.unfinished:
        st.rerun()
    _shown(run)


def _shown(run: services.training.Run) -> None:
    words, icon = _STATUS[run.status]
    st.subheader(plain(str(run.about.get("model", run.name))))
    preset = services.training.PRESETS.get(str(run.about.get("preset")))
    st.markdown(
        f"{icon} **{words}** · {plain(preset.title if preset else '')} · {plain(services.training.architecture(run))} "
        f"on {plain(str(run.about.get('data', '')))}"
    )
    if run.sentence:
        st.error(plain(run.sentence), icon=":material/error:")
    _how_far(run)
    _what_to_do(run)
    warnings = [text for text in run.state.messages if text.startswith(_WARNING)]
    for text in dict.fromkeys(warnings):
        st.warning(plain(text.removeprefix(_WARNING)), icon=":material/warning:")
    if run.status == "done":
        _result(run, warnings)
    drawn = services.training.curves(run)
    with st.grid(max(len(drawn), 1), min_column_width=330):
        for heading, figure in drawn.items():
            with st.container():
                st.markdown(f"**{heading}**")
                draw_plot(figure, f"{heading} of {run.name}")
    _examples(run)
    if run.state.messages:
        with st.expander("What it reported"):
            for message in run.state.messages:
                st.caption(plain(message))


def _how_far(run: services.training.Run) -> None:
    state = run.state
    if run.status == "waiting":
        others = (
            "It is next" if not run.ahead else f"{run.ahead} {'run comes' if run.ahead == 1 else 'runs come'} first"
        )
        st.caption(f"{others}. It starts by itself, also when this page is left.")
    last = state.history[-1] if state.history else None
    step = state.progress if run.unfinished and run.status != "waiting" else None
    if step and step["time"] < (last or {}).get("time", 0.0):  # the epoch that ended since says more
        step = None
    share = min(step["done"] / max(step["of"], 1), 1.0) if step else 0.0
    of = last.get("of", last["epoch"]) if last else 1
    ended = last["epoch"] / of if last else 1.0
    if step and (step["what"] != "training" or share < ended):  # before the first epoch of an attempt; after the last
        st.progress(share, f"{capital(plain(step['what']))}: {step['done']} of {step['of']}")
    elif last:
        left = f", {duration(state.seconds_left)} left" if run.status == "running" and state.seconds_left else ""
        done = 1.0 if run.status == "done" else share or ended
        st.progress(done, f"{last['epoch']} of at most {of} epochs{left}")
    elif run.unfinished and run.status != "waiting":
        st.progress(0.0, "Starting")


def _what_to_do(run: services.training.Run) -> None:
    with st.container(horizontal=True):
        if run.status in ("waiting", "running"):
            words = "Take it out of the queue" if run.status == "waiting" else "Stop after this epoch"
            st.button(words, on_click=services.training.RunQueue().stop, args=(run.name,), icon=":material/stop:")
        elif run.status in ("stopped", "failed", "crashed"):
            words, icon = "Try again" if run.status == "failed" else "Go on", ":material/play_arrow:"
            resume = services.training.RunQueue().resume
            st.button(words, on_click=resume, args=(run.name,), icon=icon, type="primary")


def _result(run: services.training.Run, said: list[str]) -> None:
    name, data = str(run.about.get("model")), str(run.about.get("data"))
    if name not in services.models.available():
        st.info(f"The model {plain(name)} is not here any more.", icon=":material/search_off:")
        return
    try:
        card = services.models.predictor(name).card
    except SteelError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    for sentence in (one for one in card.warnings if _WARNING + one not in said):
        st.warning(plain(sentence), icon=":material/warning:")
    show_estimates(card)
    chosen = {"model": name, "data": data}
    with st.container(horizontal=True):
        for page, label, icon, more in (
            ("evaluate", "Evaluate it", ":material/monitoring:", {}),
            ("audit", "Audit it", ":material/policy:", {"view": "Data set"}),
            ("inspect", "Inspect images with it", ":material/frame_inspect:", {}),
        ):
            # A link to another model or data set than those chosen above would not move that choice.
            if st.button(label, icon=icon, on_click=st.session_state.update, kwargs=chosen):
                st.switch_page(f"app_pages/{page}.py", query_params=more)


def _examples(run: services.training.Run) -> None:
    examples = run.state.start.get("examples", [])
    by_epoch = [row["examples"] for row in run.state.history if row.get("examples")]
    if not examples or not by_epoch:
        return
    st.markdown("**Validation images, as the network learns**")
    with st.grid(min(len(examples), 6), min_column_width=140):
        for number, example in enumerate(examples):
            picture = services.training.example_picture(run, number)
            with st.container(border=True, gap="xsmall"):
                if picture:
                    st.image(picture, width="stretch", alt=f"{example['file']}, actual {example['actual']}")
                _show_prediction(example, [row[number]["probs"] for row in by_epoch if number < len(row)])


def _show_prediction(example: dict[str, Any], probs: list[dict[str, float]]) -> None:
    now, first, actual = probs[-1], probs[0], str(example["actual"])
    called = max(now, key=functools.partial(now.__getitem__))
    icon = ":material/check:" if called in actual.split("|") else ":material/close:"
    st.markdown(f"{icon} **{plain(called)}** {percent(now[called])}")
    course = f": {percent(first[actual])} at first, {percent(now[actual])} now" if actual in now else ""
    st.caption(f"Actual: {plain(actual)}{course}")


def history() -> None:
    """The runs of this server, the newest first, each with its link."""
    runs = services.training.history()
    if not runs:
        return
    st.subheader("Runs")
    for run in runs:
        words, icon = _STATUS[run.status]
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            label, link = plain(str(run.about.get("model", run.name))), {"run": run.name}
            st.page_link("app_pages/train.py", label=label, icon=":material/open_in_new:", query_params=link, width=260)
            epochs = f" · epoch {run.state.history[-1]['epoch']}" if run.state.history else ""
            st.markdown(
                f"{icon} {words}{epochs} · {plain(services.training.architecture(run))} "
                f"on {plain(str(run.about.get('data', '')))} · {run.name[:4]}-{run.name[4:6]}-{run.name[6:8]} "
                f"{run.name[9:11]}:{run.name[11:13]} UTC"
            )
