"""One file a method; each registers itself in `steel_core.explain.base.EXPLAINERS`."""
