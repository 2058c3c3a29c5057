"""Methods by family; each registers itself in `steel_core.explain.base.EXPLAINERS`."""
