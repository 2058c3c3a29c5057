"""Backbones, their shared interface, and checkpoints."""
