"""Type aliases for annotations: tensors and shapes."""

from typing import Any

# A tensor of the backend of Keras, or what it takes for one: its own, a NumPy array, a `keras.Variable`.
Tensor = Any
# The shape of a tensor, one number per axis; None for an axis of unknown size.
Shape = tuple[Any, ...]
