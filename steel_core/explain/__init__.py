"""Explainers: raw signed attributions; `steel_core.render` turns them into pictures."""
