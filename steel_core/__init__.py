"""Steel Lens core: data, models and explanations for steel-surface defect review."""

__version__ = "0.1.0"
