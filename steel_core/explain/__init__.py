"""Explainers: raw signed attributions; `steel_core.render.heat_map` turns them into pictures."""
