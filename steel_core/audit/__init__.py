"""Is the model looking at the steel? Tests with matched controls, each ending in a verdict of three words."""
