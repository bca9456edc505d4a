"""The training loop, distribution, checkpoints, tracking and callbacks."""
