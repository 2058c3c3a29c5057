"""One file a baseline; each registers itself in `steel_core.baselines.base.BASELINES`."""
