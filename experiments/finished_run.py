"""Models of finished runs, and weights without a run: their files, configurations and classes."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from convnext.backbone import ConvNeXt
from convnext.factory import create_from_weights
from convnext.segmentation import Segmenter
from convnext.weights.loader import PretrainedError, find_weights
from experiments.config import IMAGE_SETTINGS, SPLIT_FIELDS, Config, DataConfig, ModelConfig, size_text
from experiments.data.segmentation_masks import CLASSES, ClassTable
from experiments.errors import UserError
from experiments.io import is_url, local_path
from experiments.models import make_segmenter
from experiments.training.workdir import CONFIG, finished_summary, read_json
from experiments.types import Log


def find_model(model: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of the model that `--model` names: a workdir, or a file.

    Raises:
        UserError: if there is none.
    """
    try:
        return find_weights(model)
    except PretrainedError as error:
        raise UserError(f"--model={model}: {error}") from error


def find_segmenter(model: str | os.PathLike[str]) -> pathlib.Path | None:
    """Returns the path of the segmentation model that `--model` names, or None if it names none.

    Args:
        model: the workdir of a run, of which it is the model of the end, or one of its files; none at a URL.
    """
    if is_url(model):
        return None
    path = local_path(model)
    path = path / "segmenter.keras" if path.is_dir() else path
    return path if path.is_file() and path.name.startswith("segmenter") and path.suffix == ".keras" else None


def read_segmenter(path: pathlib.Path) -> tuple[Segmenter, Config, ClassTable]:
    """Returns the `Segmenter` of a run, the run's `Config`, with the classes of the run, and their `ClassTable`.

    Raises:
        UserError: if it cannot be read, or is not of a run.
    """
    config, classes = recorded_config(path), path.parent / CLASSES
    if config is None:
        raise UserError(f"{path.parent} has no {CONFIG}, which says how to build {path.name} and prepare its images.")
    table = ClassTable.read(classes, config.data.ignore_label)
    model = make_segmenter(config, len(table.names))
    try:
        model.load_weights(path)
    except Exception as error:  # whatever the damage leads Keras to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as the model of its run: {reason}") from error
    return model, dataclasses.replace(config, data=dataclasses.replace(config.data, class_names=str(classes))), table


def recorded_config(path: pathlib.Path) -> Config | None:
    """Returns the `Config` of the run that a model's file lies in, or None if there is no record of one."""
    recorded = path.parent / CONFIG
    if not recorded.exists():
        return None
    remedy = "it says how the images are prepared; recreate it by running the command of the run with another --workdir"
    record = read_json(recorded, remedy)
    if "config" not in record:  # Transformers has a file of this name too
        return None
    return Config.from_dict(record["config"])


def check_no_image_settings(path: pathlib.Path, images: Mapping[str, Any] | None) -> None:
    """Raises UserError if settings of images, see `config_of`, are given for a segmentation model."""
    if images:
        raise UserError(
            f"{path} is a segmentation model, whose images are prepared as the {CONFIG} beside it says: leave out "
            "--image_preset, --image_size, --mean, --std and --crop."
        )


def config_of(
    path: pathlib.Path,
    model: ConvNeXt,
    data: str = "",
    data_dir: str = "",
    labels_file: str = "",
    images: Mapping[str, Any] | None = None,
    log: Log = print,
) -> Config:
    """Returns the `Config` of the run that a model's file lies in, for the images of the run or for others.

    For weights without a run, `images` has to say how images are prepared.

    Args:
        path: of the model.
        model: the `ConvNeXt`.
        data: `digits`, `tfds:NAME` or `folder:PATH`; empty for the images of the run.
        data_dir: where TensorFlow Datasets keeps its data; empty for that of the run.
        labels_file: of a folder; empty for that of the run, or none for other images.
        images: fields of `DataConfig` that say how images are prepared, in place of those on record.
        log: function that takes a line for the user.

    Raises:
        UserError: if nothing says how images are prepared, or which.
    """
    config = recorded_config(path)
    changes = dict(images or {})
    if config is None:
        if not changes:
            raise UserError(
                f"There is no {CONFIG} beside {path} that says how its images are prepared: give "
                f"--image_preset={'|'.join(IMAGE_SETTINGS)}, or --image_size, --mean, --std and --crop."
            )
        if not data:
            raise UserError(f"--data is missing: {path} is not part of a run whose images could be used.")
        if (channels := model.image_shape[-1]) != 3 and not {"mean", "std"} <= changes.keys():
            raise UserError(f"{path} takes images of {channels} channels: give --mean and --std, a number for each.")
        sizes = ModelConfig(depths=model.depths, dims=model.dims, stem_stride=model.stem_stride)
        config = Config(model=sizes, data=DataConfig(**{"channels": channels, "evaluation_view": "centre", **changes}))
        size = size_text(config.data.image_size)
        log(f"images: {size}, mean {config.data.mean}, std {config.data.std}, crop {config.data.evaluation_crop:g}")
    return with_images(config, data, data_dir, labels_file, changes)


def with_images(
    config: Config,
    data: str = "",
    data_dir: str = "",
    labels_file: str = "",
    changes: Mapping[str, Any] | tuple[()] = (),
) -> Config:
    """Returns a `Config` for other images; arguments as of `config_of`, and further changes of its `DataConfig`."""
    changes = dict(changes)
    changes |= {name: value for name, value in (("source", data), ("dir", data_dir)) if value}
    if data:  # the names of splits and the labels file are those of the run's own data set
        changes |= dict.fromkeys((*SPLIT_FIELDS, "labels_file"), "")
    if labels_file:
        changes["labels_file"] = labels_file
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def is_classifier(path: pathlib.Path) -> bool:
    """Whether a file of a run is a classifier: that of its end, the average, or the best."""
    return path.name.startswith("classifier") and path.suffix == ".keras"


def recorded_classes(path: pathlib.Path) -> list[str] | None:
    """Returns the names of the classes that a classifier was fine-tuned on, or None if there is no record of them."""
    return (finished_summary(path.parent) or {}).get("classes")


def is_multi_label_classifier(path: pathlib.Path) -> bool:
    """Whether a classifier has a sigmoid for each class, by the record of its run."""
    return (finished_summary(path.parent) or {}).get("multi_label", False)


def read_model(path: str | os.PathLike[str], **overrides: Any) -> ConvNeXt:
    """Returns the `ConvNeXt` of a file of weights; its sizes are read from them.

    Args:
        path: of the file.
        **overrides: arguments of the model.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return create_from_weights(path, **overrides)
    except PretrainedError as error:
        raise UserError(str(error)) from error
