"""The parts of the Evaluate page, one a tab, and what they share."""
