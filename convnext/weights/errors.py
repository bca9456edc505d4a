"""What goes wrong with weights."""


class PretrainedError(ValueError):
    """Pretrained weights that cannot be found, cannot be read, or do not fit the model."""
