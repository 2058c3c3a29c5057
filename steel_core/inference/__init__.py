"""One path from a picture to a verdict."""
