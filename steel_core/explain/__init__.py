"""Explainers: raw signed attributions; `steel_core.render.pictures` turns them into pictures."""
