"""One file a backbone; each registers itself in `steel_core.models.base.BACKBONES`."""
