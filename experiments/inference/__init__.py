"""Uses of a trained model: export, features, search, predicted masks."""
