"""Layers made of layers, whose frozen parts stay frozen when they are copied or saved."""

from collections.abc import Iterator
from typing import Any

import keras

OF_KERAS = set(dir(keras.Model))


class Composite:
    """Mixin that keeps the `trainable` flag of every nested layer; name it before the base class of Keras.

    Keras sets the flag of the layers that a layer has when `trainable` is assigned, and saves the flag of the layer
    alone. Here a layer that becomes part of a frozen one is frozen too, and the configuration lists the parts whose
    flag differs from that of the layer around them. So `from_config`, `keras.models.clone_model` and a `.keras` file
    restore what was frozen and what was not, and the optimizer of a saved model finds its variables.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if not getattr(self, "trainable", True):  # not set yet while Keras constructs the layer
            for _, part in _children_in(name, value):
                part.trainable = False

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()  # type: ignore[misc]
        flags = {path: part.trainable for path, part, parent in _parts(self) if part.trainable != parent.trainable}
        return {**config, "trainable_parts": flags} if flags else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        flags = config.pop("trainable_parts", {})
        layer = super().from_config(config)  # type: ignore[misc]
        for path, part, _ in _parts(layer):
            if path in flags:
                part.trainable = flags[path]
        return layer


class CompositeModel(Composite, keras.Model):
    """The base class of models, whose optimizer is built before TensorFlow traces a step of `fit`.

    Keras creates its variables in the first trace, which is then done again without: that doubles the start of `fit`.
    """

    def make_train_function(self, force: bool = False) -> Any:
        if self.built and self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)


def attributes(layer: keras.layers.Layer, *names: str) -> dict[str, Any]:
    """Returns `{name: value}` of attributes of a layer that are arguments of it, for `get_config`."""
    return {name: getattr(layer, name) for name in names}


def _parts(layer: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer, keras.layers.Layer]]:
    """Yields `(path, part, parent)` of all nested layers, parents first; a path is like `stages/0/blocks/1/grn`."""
    for attribute in sorted(set(dir(layer)) - OF_KERAS):  # with PyTorch `vars` has no layers
        if isinstance(getattr(type(layer), attribute, None), property):  # which may raise, or compute something
            continue
        for name, part in _children_in(attribute, getattr(layer, attribute, None)):
            yield prefix + name, part, layer
            yield from _parts(part, f"{prefix}{name}/")


def _children_in(name: str, value: Any) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields `(name, layer)` of what a public attribute holds: a layer, or a list of layers."""
    if name.startswith("_"):
        return
    if isinstance(value, keras.layers.Layer):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _children_in(f"{name}/{i}", item)
