"""What layers that narrow a layer of Keras take from it."""


def check_layer_arguments(arguments):
    """Raises TypeError unless the arguments are those of every layer: what it computes has one form only."""
    if unknown := set(arguments) - {"name", "dtype", "trainable"}:
        raise TypeError(f"Unknown arguments: {', '.join(sorted(unknown))}.")
