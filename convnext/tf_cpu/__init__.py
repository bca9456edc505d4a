"""What stands in for operations that TensorFlow is slow at on a CPU."""
