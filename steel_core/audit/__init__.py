"""Is the model looking at the steel? Tests with matched controls, each ending in a verdict of three words.

Legend of shapes in this package: N images, K classes, C channels; H, W of the grid that the network sees.
"""
