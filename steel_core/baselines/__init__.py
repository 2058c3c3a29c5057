"""What a network must beat: majority class, pixels, and the classical chain."""
