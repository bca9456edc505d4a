"""What runs an experiment: configuration, data, optimisation, training, evaluation."""
