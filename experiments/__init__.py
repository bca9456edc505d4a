"""Experiments: configuration, data, optimization, training, evaluation."""
