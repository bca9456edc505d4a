"""What a model is worth: top-1, k-NN and linear probe."""
