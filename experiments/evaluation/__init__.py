"""Evaluation: classification, segmentation, reconstruction, and probes of frozen features."""
