"""Models and baselines on the same images."""
