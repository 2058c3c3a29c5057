"""What is claimed about speed, each runnable by name; every script prints ratios taken in one run."""
