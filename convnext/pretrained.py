"""The strict loader of pretrained weights: every variable is loaded, left out by name, or an error.

A source is read as a mapping from variable names relative to the model (`stage_0/block_1/norm/gamma`) to
arrays; the names of a model's own variables are made the same way, so sources and targets meet by name.
"""

import dataclasses
import pathlib
import zipfile

import keras

HEAD = ("head_norm/", "head/")
DECODER = "decoder/"


class PretrainedError(ValueError):
    """Pretrained weights that cannot be found, cannot be read, or do not fit the model."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a load did, by variable name.

    Args:
        source: where the weights came from.
        loaded: variables that took their value from the source.
        left_out: variables of the source that were left out on purpose (another classifier, a decoder).
        missing: variables of the model that the source lacks, or has for another number of classes, and that
            keep their initial values (the classifier alone).
    """

    source: str
    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self):
        parts = [f"{self.source}: {len(self.loaded)} variables loaded"]
        if self.left_out:
            parts.append(f"left out on purpose: {', '.join(self.left_out)}")
        if self.missing:
            parts.append(f"newly initialised: {', '.join(self.missing)}")
        return "; ".join(parts)


def load_pretrained(model, source):
    """Loads the weights of `source` into `model`, strictly.

    The encoder's variables must match one by one, in name and shape. The classification head is loaded where
    both have one of the same size, and left out otherwise. On an error the model keeps the weights it had.

    Args:
        model: a `ConvNeXt`.
        source: a run's workdir (its `classifier.keras` or `encoder.keras`), or a `.keras` file.

    Returns:
        A `LoadReport`.

    Raises:
        PretrainedError: if the source is not there, cannot be read, or does not fit.
    """
    path = find_weights(source)
    values = _read(path)
    targets = named_variables(model)
    fits = {name for name in targets if name in values and values[name].shape == tuple(targets[name].shape)}
    head_fits = all(name in fits for name in targets if name.startswith(HEAD))
    loaded = [name for name in targets if name in fits and (head_fits or not name.startswith(HEAD))]
    missing = [name for name in targets if name not in loaded]
    left_out = [name for name in values if name not in loaded]
    _check(path, targets, values, missing, left_out)
    for name in loaded:
        targets[name].assign(values[name])
    return LoadReport(str(path), tuple(loaded), tuple(left_out), tuple(missing))


def find_weights(source):
    """Returns the file that holds the weights of `source`, a workdir or a file.

    Raises:
        PretrainedError: if there is none.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        for name in ("classifier.keras", "encoder.keras"):
            if (path / name).is_file():
                return path / name
        raise PretrainedError(
            f"{path} has no encoder.keras: no run has finished there. Start its command again to finish it, or name "
            "another workdir."
        )
    if not path.exists():
        raise PretrainedError(f"There is no {path}: pretrained weights are a run's workdir or a .keras file.")
    if path.suffix != ".keras":
        raise PretrainedError(
            f"{path} is not a kind of weights that can be read: name a run's workdir or a .keras file."
        )
    return path


def named_variables(model):
    """Returns `{name: variable}` of the model's weights, names relative to the model.

    The state of random generators is no weight and does not appear.
    """
    prefix = model.name + "/"
    return {
        variable.path.removeprefix(prefix): variable
        for variable in model.weights
        if "seed_generator" not in variable.path
    }


def _read(path):
    """Returns `{name: array}` of a `.keras` file; of an autoencoder, its backbone's weights and those of `decoder/`."""
    if not zipfile.is_zipfile(path):
        raise PretrainedError(f"{path} is no .keras file, or it is cut short.")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the damage leads to: zip, JSON, HDF5 or type errors.
        raise PretrainedError(f"{path} cannot be read as a Keras model: {_first_line(error)}") from error
    variables = named_variables(model)
    if hasattr(model, "backbone"):
        decoder = {name: variable for name, variable in variables.items() if name.startswith(DECODER)}
        variables = {**named_variables(model.backbone), **decoder}
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}


def _check(path, targets, values, missing, left_out):
    wrong = [name for name in missing if not name.startswith(HEAD)]
    unknown = [name for name in left_out if not name.startswith((*HEAD, DECODER)) and name not in wrong]
    if not wrong and not unknown:
        return
    differences = [
        f"{name}: the model has {_shape(targets, name)}, the file has {_shape(values, name)}"
        for name in (*wrong, *unknown)
    ]
    shown = "; ".join(differences[:4])
    more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
    fitting = len(targets) - len(missing)
    raise PretrainedError(f"{path} does not fit the model ({fitting} of {len(targets)} variables do): {shown}{more}.")


def _shape(variables, name):
    return tuple(variables[name].shape) if name in variables else "no such variable"


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
