"""Runnable recipes that read from top to bottom: train, cross-validate, evaluate."""
