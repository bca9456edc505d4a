"""Benchmarks of the training step, its memory and the input pipeline."""
