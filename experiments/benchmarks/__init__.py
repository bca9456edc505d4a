"""Measuring how fast training is: the step of pretraining."""
