"""Data: images read safely, indexed data sets, splits without leakage, the procedural strip-mill."""
