"""Extracts features: from the images of a source to a file of names and features."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.config import Config, DataConfig
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit, Split
from experiments.data.sources import open_source
from experiments.errors import UserError
from experiments.evaluation.devices import Devices
from experiments.evaluation.features import PooledFeatures
from experiments.finished_run import config_of, find_model, read_model
from experiments.inference.feature_files import SUFFIXES, feature_writer
from experiments.io import appearing, checksum, local_path, new_output
from experiments.training.distributed.strategy import make_strategy
from experiments.types import Log

SPLITS = ("train", "validation", "test", "unlabelled")
ALL = "all"
BATCH_SIZE = 64
SHOWN = 5  # skipped files that are named on the screen
UNREADABLE = "it cannot be decoded"


def run(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    data: str = "",
    data_dir: str = "",
    split: str = ALL,
    batch_size: int = BATCH_SIZE,
    images: Mapping[str, Any] | None = None,
    log: Log = print,
) -> int:
    """Writes the pooled features of all readable images of a source, in its order, each once.

    Args:
        model: workdir of a run, whose configuration says how images are prepared, or a file that
            `convnext.create_from_weights` reads.
        output: path of the new `.npz` or `.parquet` file, see `feature_files`.
        data: `digits`, `tfds:NAME` or `folder:PATH`; empty for the images of the run.
        data_dir: where TensorFlow Datasets keeps its data; empty for that of the run.
        split: `train`, `validation` or `test`, as a run with these images has them; `all` for all images.
        batch_size: images at a time.
        images: how images are prepared for weights without a run, see `finished_run.config_of`.
        log: function that takes a line for the user.

    Returns:
        Number of images.

    Raises:
        UserError: if model, images or output cannot be used.
    """
    path = find_model(model)
    output = new_output(output, SUFFIXES)
    strategy = make_strategy(Config())
    with strategy.scope():
        encoder = read_model(path)
    config = config_of(path, encoder, data, data_dir, images=images, log=log)
    to_read = images_to_extract(config.data, split)
    source = open_source(to_read)
    names = (split,) if split != ALL else [name for name in SPLITS if source.get(name)]
    splits = {name: source.split(name) for name in names}
    log(f"{path} on {sum(part.num_examples for part in splits.values()):,} images of {source.name}")

    batch_size = min(batch_size, max(part.num_examples for part in splits.values()))
    features = PooledFeatures(encoder, Preprocessing.of(to_read), batch_size, Devices(strategy))
    skipped, count = list(source.skipped) if split == ALL else [], 0
    with appearing(output) as temporary:
        writer = feature_writer(temporary, encoder.dims[-1], source.label_names)
        for name, part in splits.items():
            name_of = _naming(part, name, folder_of(to_read))
            for batch in features.batches(part, description=name):
                writer.add([name_of(i) for i in batch.positions], name, batch.labels, batch.features)
                skipped += [(name_of(i), UNREADABLE) for i in batch.left_out]
                count += len(batch.positions)
        if not count:
            raise UserError(f"{source.name} has no image that can be read.")
        made_by = {"model": str(path.absolute()), "model_sha256": checksum(path)}
        writer.close(skipped, {**made_by, "data": dataclasses.asdict(to_read), "split": split})
    _report(output, count, encoder.dims[-1], skipped, log)
    return count


def images_to_extract(data: DataConfig, split: str) -> DataConfig:
    """Returns the `DataConfig` of the images to read: with `all` nothing is held out; the path of a folder is absolute.

    Raises:
        UserError: if it is a mix of sources.
    """
    if len(data.sources) > 1:
        raise UserError(f"{data.source} is a mix: name one source with --data, as in --data={data.sources[0][0]}.")
    ((source, _),) = data.sources
    changes: dict[str, Any] = {"validation_share": 0.0, "test_share": 0.0} if split == ALL else {}
    images = dataclasses.replace(data, source=source, cache="none", **changes)
    folder = folder_of(images)
    return dataclasses.replace(images, source=f"folder:{folder.absolute()}") if folder else images


def folder_of(data: DataConfig) -> pathlib.Path | None:
    """Returns the folder that a `DataConfig` names, or None if it is another source."""
    kind, _, name = data.source.partition(":")
    return local_path(name) if kind == "folder" else None


def _naming(part: Split, name: str, folder: pathlib.Path | None) -> Callable[[int], str]:
    """Returns the function from a position in a split to the name of the image, its path if it is in a folder."""
    if folder is None:
        return lambda position: f"{name}/{position}"
    assert isinstance(part, MemorySplit)
    return lambda position: pathlib.Path(os.fsdecode(part.contents[position])).relative_to(folder).as_posix()


def _report(output: pathlib.Path, count: int, num_features: int, skipped: Sequence[tuple[str, str]], log: Log) -> None:
    log(f"{output}: {count:,} images, {num_features} features each")
    if skipped:
        log(f"skipped {len(skipped):,}, all of them listed in the file:")
        for name, reason in skipped[:SHOWN]:
            log(f"  {name}: {reason}")
        if len(skipped) > SHOWN:
            log(f"  and {len(skipped) - SHOWN:,} more")
