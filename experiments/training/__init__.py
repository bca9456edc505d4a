"""The training loop, distribution, checkpoints, loggers and callbacks."""
