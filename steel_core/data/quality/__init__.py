"""What is odd about a data set: near-duplicates, leaks, labels, properties."""
