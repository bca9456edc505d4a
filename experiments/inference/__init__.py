"""What a trained model is used for: export, features, search."""
