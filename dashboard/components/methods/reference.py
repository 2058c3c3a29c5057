"""The table of a published study, to stand beside ours."""

import pandas as pd
import streamlit as st

# Dice, IoU and images a second of an interpretability study on Severstal strips of 64 x 400 pixels, as it reports them.
_BINARY = {
    "Guided Grad-CAM": (0.308, 0.195, 17.0),
    "Guided backprop": (0.295, 0.184, 23.0),
    "Grad-CAM": (0.207, 0.124, 54.0),
    "DeepLIFT": (0.170, 0.101, 9.8),
    "DeepSHAP": (0.119, 0.065, 1.9),
    "Integrated gradients": (0.101, 0.057, 3.9),
    "LIME": (0.071, 0.040, 1.6),
}
_FIVE = {
    "Guided Grad-CAM": (0.363, 0.236, 16.0),
    "Guided backprop": (0.315, 0.199, 22.0),
    "Grad-CAM": (0.236, 0.144, 44.0),
    "DeepLIFT": (0.316, 0.204, 7.5),
    "DeepSHAP": (0.243, 0.150, 1.9),
    "Integrated gradients": (0.115, 0.066, 3.8),
    "LIME": (0.071, 0.041, 1.6),
}


def reference() -> None:
    """The study's table, with the sentence that its figures are no race."""
    st.subheader("Beside a published study")
    st.markdown(
        "Its images are others (Severstal strips, 64 × 400 pixels), and it gives neither intervals nor controls, so "
        "its figures are no race. **The honest yardsticks are the two controls on the same images**, random and edges: "
        "a method that does not beat them has not found the defect by what the model learnt."
    )
    heads = ("Dice", "IoU", "Images a second")
    rows = [
        {"Method": name}
        | {f"{head}, defect or not": value for head, value in zip(heads, _BINARY[name], strict=True)}
        | {f"{head}, five classes": value for head, value in zip(heads, _FIVE[name], strict=True)}
        for name in _BINARY
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="Dice, IoU and speed by method in the published study")
