"""One file a layout; each registers itself in `steel_core.data.readers.base.READERS`."""
