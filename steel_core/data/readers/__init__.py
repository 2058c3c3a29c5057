"""One file a layout; each registers itself in `steel_core.data.base.READERS`."""
