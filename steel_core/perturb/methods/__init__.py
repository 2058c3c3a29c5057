"""Perturbations by family; each registers itself in `steel_core.perturb.base.PERTURBATIONS`."""
