"""Whether a run survives what happens to it: killed and started again, and in memory that does not grow."""
