"""Backbones by family; each registers itself in `steel_core.models.base.BACKBONES`."""
