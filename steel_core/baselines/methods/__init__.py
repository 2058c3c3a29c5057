"""Baselines; each registers itself in `steel_core.baselines.base.BASELINES`."""
