"""The table of a published study, to stand beside ours."""

import pandas as pd
import streamlit as st

from dashboard.components.common.plot import draw_table

_HEADS = [f"{head}, {of}" for of in ("defect or not", "five classes") for head in ("Dice", "IoU", "Images a second")]
# What an interpretability study on Severstal strips of 64 x 400 pixels reports, in the order of the heads.
_STUDY = {
    "Guided Grad-CAM": (0.308, 0.195, 17.0, 0.363, 0.236, 16.0),
    "Guided backprop": (0.295, 0.184, 23.0, 0.315, 0.199, 22.0),
    "Grad-CAM": (0.207, 0.124, 54.0, 0.236, 0.144, 44.0),
    "DeepLIFT": (0.170, 0.101, 9.8, 0.316, 0.204, 7.5),
    "DeepSHAP": (0.119, 0.065, 1.9, 0.243, 0.150, 1.9),
    "Integrated gradients": (0.101, 0.057, 3.9, 0.115, 0.066, 3.8),
    "LIME": (0.071, 0.040, 1.6, 0.071, 0.041, 1.6),
}


def reference() -> None:
    """The study's table, with the sentence that its figures are no race."""
    st.subheader("Beside a published study")
    st.markdown(
        "Its images are others (Severstal strips, 64 × 400 pixels), and it gives neither intervals nor controls, so "
        "its figures are no race. **The honest yardsticks are the two controls on the same images**, random and edges: "
        "a method that does not beat them has not found the defect by what the model learnt."
    )
    table = pd.DataFrame.from_dict(_STUDY, orient="index", columns=_HEADS).rename_axis("Method").reset_index()
    draw_table(table, "Dice, IoU and speed by method in the published study")
