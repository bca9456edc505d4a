"""Measuring how fast the input pipeline is, from image files to batches."""
