"""What a finished run left for those who use its model: the file, the configuration, the names of the classes."""

import dataclasses

from convnext.weights.loader import PretrainedError, create_from_weights, find_weights
from experiments.config import SPLIT_FIELDS, Config
from experiments.errors import UserError
from experiments.training.workdir import CONFIG, finished_summary, read_json


def find_model(model):
    """Returns the path of the model that `--model` names: a workdir, or a file.

    Raises:
        UserError: if there is none.
    """
    try:
        return find_weights(model)
    except PretrainedError as error:
        raise UserError(f"--model={model}: {error}") from error


def recorded_config(path):
    """Returns the `Config` of the run that a model's file lies in, or None if there is no record of one."""
    recorded = path.parent / CONFIG
    if not recorded.exists():
        return None
    remedy = "it says how the images are prepared; write it anew by the command of the run with another --workdir"
    record = read_json(recorded, remedy)
    if "config" not in record:  # Transformers has a file of this name too
        return None
    return Config.from_dict(record["config"])


def config_of(path, data="", data_dir=""):
    """Returns the `Config` of the run that a model's file lies in, for the images of the run or for others.

    Args:
        path: of the model.
        data: `digits`, `tfds:NAME` or `folder:PATH`; empty for the images of the run.
        data_dir: where TensorFlow Datasets keeps its data; empty for that of the run.

    Raises:
        UserError: if the configuration is not there.
    """
    config = recorded_config(path)
    if config is None:
        raise UserError(f"{path.parent} has no {CONFIG}, which says how the images of {path.name} are prepared.")
    changes = {name: value for name, value in (("source", data), ("dir", data_dir)) if value}
    if data:  # the names of splits and the labels file are those of the run's own data set
        changes |= dict.fromkeys((*SPLIT_FIELDS, "labels_file"), "")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def is_classifier(path):
    """Whether a file of a run is a classifier: that of its end, the average, or the best."""
    return path.name.startswith("classifier")


def recorded_classes(path):
    """Returns the names of the classes that a classifier was fine-tuned on, or None if there is no record of them."""
    return (finished_summary(path.parent) or {}).get("classes")


def read_model(path):
    """Returns the `ConvNeXt` of a file of weights; its sizes are read from them.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return create_from_weights(path)
    except PretrainedError as error:
        raise UserError(str(error)) from error
