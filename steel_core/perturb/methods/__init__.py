"""One file a perturbation; each registers itself in `steel_core.perturb.base.PERTURBATIONS`."""
