"""One file a layout; each registers itself in `steel_core.data.readers.base.READERS`.

What is also written is written where it is read: manifests in `manifest`, COCO in `coco`.
"""
