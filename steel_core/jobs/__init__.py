"""What runs: a queue of processes, and the log of each run."""
