"""The estimates of a model from its card, each with its interval and against its target."""

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import services
from dashboard.components.common.plot import SHARE, draw_table
from dashboard.components.common.text import plain
from steel_core.render import percent

_PARTS = {"test": "test images, never used for training", "cross_validation": "cross-validation", "val": "validation"}
_ESTIMATES = {
    "accuracy": ("Named right", "Share of the images whose likeliest class is the right one (accuracy)."),
    "macro_recall": (
        "Found, mean of classes",
        "Share of a class that was found, as the mean over the classes (macro recall).",
    ),
    "mean_average_precision": (
        "Average precision",
        "How rightly images are ranked by each class that can be in them, as the mean over the classes.",
    ),
    "escape": ("Escapes", "Share of the defective sheets that are called clear."),
    "auc": ("Separation (AUC)", "How well the classes are told apart at any threshold; 1 is perfect, 0.5 is chance."),
    "ece": ("Calibration error", "Mean gap between confidence and share of right verdicts; 0 is best (ECE)."),
}
_SMALL = 200


def show_estimates(card: Any) -> None:
    """Three or four estimates with target, number of images and date; a sentence where none were measured."""
    part = next((name for name in _PARTS if isinstance(card.metrics.get(name), dict)), None)
    if part is None:
        st.info(
            "This model was not evaluated yet, so there are no figures to trust it by. "
            "`python -m steel_core evaluate` measures it.",
            icon=":material/query_stats:",
        )
        return
    estimates = card.metrics[part]
    with st.grid(4, min_column_width=200):
        for name, (title, meaning) in _ESTIMATES.items():
            if estimates.get(name) is not None:
                _show_estimate(title, meaning, name, estimates)
    n = estimates.get("n")
    of = f"{n:,} {_PARTS[part]}" if n else _PARTS[part]
    groups = estimates.get("groups")
    apart = (
        f", which show {groups:,} different places (pictures of one place are near-duplicates and tell little new: the "
        "ranges count them as one)"
        if groups and n and groups < n
        else ""
    )
    dated = f"; model of {plain(card.created[:10])}" if card.created else ""
    st.caption(f"Measured on {of}{apart}{dated}. Ranges: 95 % confidence intervals.")
    if n and n < _SMALL:
        st.caption(f":material/info: {n} images are a small sample: read the intervals, not the figures.")
    _repeated(card, part)
    _by_class(estimates)


def _repeated(card: Any, part: str) -> None:
    """What the same recipe reached in cross-validation, on more images than one test split holds."""
    folds = card.metrics.get("cross_validation")
    if part == "cross_validation" or not isinstance(folds, dict):
        return
    name = "mean_average_precision" if folds.get("multi_label") else "macro_recall"
    low, high = folds["intervals"][name]
    st.caption(
        f"The same recipe, repeated {folds['folds']} times so that each of {folds['n']:,} images is counted once "
        f"({folds['folds']}-fold cross-validation): {_ESTIMATES[name][0].lower()}, {percent(folds[name])} "
        f"(95 %: {percent(low)} to {percent(high)}). {plain(str(folds.get('caveat') or ''))}"
    )


def _show_estimate(title: str, meaning: str, name: str, estimates: dict[str, Any]) -> None:
    low, high = (estimates.get("intervals") or {}).get(name) or (None, None)
    value, target, upper = estimates[name], services.models.TARGETS.get(name), name == "ece"
    plain_number = name in ("auc", "mean_average_precision")
    show = (lambda x: f"{x:.3f}") if plain_number else percent
    sure, hope = (high, value) if upper else (low, value)
    reached = [target is not None and x is not None and (x <= target if upper else x >= target) for x in (sure, hope)]
    shown = show(value)
    if target is not None and not reached[1] and shown == show(target):  # missed by less than is shown
        shown = f"{value:.5f}" if plain_number else f"{100 * value:.3f} %"
    with st.container(border=True, height="stretch"):
        st.metric(title, shown, help=meaning)
        if low is not None and high is not None:
            st.markdown(f"95 %: {show(low)} to {show(high)}")
        if target is None:
            return
        icon, word = ("close", "missed")
        if reached[1]:
            icon, word = ("check", "reached") if reached[0] else ("more_horiz", "reached, not yet certain")
        goal = f"{'at most' if upper else 'at least'} {show(target)}"
        st.caption(f":material/{icon}: Target {goal}: {word}")


def _by_class(estimates: dict[str, Any]) -> None:
    recall, bounds = estimates.get("recall") or {}, (estimates.get("intervals") or {}).get("recall") or {}
    support = estimates.get("support") or {}
    if several := {name: of["recall"] for name, of in (estimates.get("per_class") or {}).items()}:
        recall = {name: of["value"] for name, of in several.items()}
        bounds = {name: (of["low"], of["high"]) for name, of in several.items()}
        support = {name: of["n"] for name, of in several.items()}
    recall = {name: share for name, share in recall.items() if share is not None}
    if not recall:
        return
    worst = min(recall, key=lambda name: recall[name])
    interval = f" (95 %: {percent(bounds[worst][0])} to {percent(bounds[worst][1])})" if bounds.get(worst) else ""
    with st.expander(f"Class by class; found least often: {plain(worst)}, {percent(recall[worst])}{interval}"):
        heads, shares = ("Class", "Found", "95 % from", "to", "Images"), ("Found", "95 % from", "to")
        rows = [(name, one, *(bounds.get(name) or (None, None)), support.get(name)) for name, one in recall.items()]
        alt = "Share of each class that was found, with its interval"
        draw_table(pd.DataFrame(rows, columns=heads), alt, dict.fromkeys(shares, SHARE))
