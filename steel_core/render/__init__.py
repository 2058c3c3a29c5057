"""How maps, pictures and plots are drawn. Only here raw values become colours."""

from steel_core.render.heat_map import FAINT, colour, evidence, evidence_scale, legend, overlay, thumbnail
from steel_core.render.outlines import Sign, assign_signs, draw_annotations, draw_boxes, draw_outline
from steel_core.render.report_png import Panel, render_report_png
from steel_core.render.words import describe_provenance, describe_region, describe_target, percent, summarise_map

__all__ = [
    "FAINT", "Panel", "Sign", "assign_signs", "colour", "describe_provenance", "describe_region", "describe_target",
    "draw_annotations", "draw_boxes", "draw_outline", "evidence", "evidence_scale", "legend", "overlay", "percent",
    "render_report_png", "summarise_map", "thumbnail",
]  # fmt: skip
