"""Prepares images: downloads a data set of TensorFlow Datasets, or packs a folder into shards."""

import logging
import os
from typing import TYPE_CHECKING

from experiments.errors import RunError, UserError
from experiments.io import local_path
from experiments.types import Log

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def run(
    source: str,
    directory: str = "",
    manual_dir: str = "",
    output: str | os.PathLike[str] = "",
    size: int = 0,
    labels_file: str = "",
    log: Log = print,
) -> dict[str, int]:
    """Downloads and prepares a data set, unless it is prepared; or packs a folder, see `experiments.data.packing.pack`.

    Args:
        source: `tfds:NAME` or `folder:PATH`.
        directory: where to prepare it; empty for TensorFlow Datasets' own default.
        manual_dir: folder of files that a person has to download, as for ImageNet; empty for the default,
            `downloads/manual` in the directory.
        output: folder for the shards of a folder.
        size: largest shorter side of the images in shards; 0 for any.
        labels_file: of the folder, see `DataConfig`.
        log: function that takes a line for the user.

    Returns:
        `{split: number of images}`.

    Raises:
        UserError: if there is no such data set, or files are missing that a person has to download.
        RunError: if the download or the preparation fails.
    """
    kind, _, name = source.partition(":")
    if kind == "folder" and name:
        return _pack(source, output, size, labels_file, log)
    if kind != "tfds" or not name:
        raise UserError(
            f"--source={source}: only tfds:NAME and folder:PATH can be prepared; others are used as they are."
        )
    if output or size or labels_file:
        raise UserError("--output, --size and --labels_file are for --source=folder:PATH.")
    if manual_dir and not local_path(manual_dir).is_dir():
        raise UserError(f"--manual_dir={manual_dir}: there is no such folder.")
    from experiments.data.sources.tfds import find_builder  # importing TensorFlow Datasets takes seconds

    builder = find_builder(name, directory)
    if builder.info.splits:
        log(f"{source} is prepared in {builder.data_dir}.")
    else:
        log(f"preparing {source} in {builder.data_dir}")
        _prepare(builder, source, manual_dir)
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    for split, count in counts.items():
        log(f"  {split:<20} {count:,}")
    return counts


def _pack(source: str, output: str | os.PathLike[str], size: int, labels_file: str, log: Log) -> dict[str, int]:
    from experiments.data.packing import pack  # TensorFlow

    if not output:
        raise UserError("--output is missing: name a folder for the shards, such as --output=shards.")
    counts: dict[str, int] = {}
    for shard in pack(source, output, size, labels_file, log)["shards"]:
        counts[shard["split"]] = counts.get(shard["split"], 0) + shard["images"]
    return counts


def _prepare(builder: "tfds.core.DatasetBuilder", source: str, manual_dir: str) -> None:
    import tensorflow_datasets as tfds

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of each of the many attempts
    config = tfds.download.DownloadConfig(manual_dir=str(local_path(manual_dir)) if manual_dir else None)
    needed = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # builders may raise anything
        if needed and isinstance(error, (AssertionError, FileNotFoundError)):
            where = manual_dir or config.manual_dir or f"{builder.data_path.parents[1]}/downloads/manual"
            raise UserError(
                f"{source} has files that TensorFlow Datasets cannot download: put them into {where}, or name their "
                f"folder with --manual_dir. {needed}"
            ) from error
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise RunError(f"{source} cannot be prepared: {type(error).__name__}: {reason}") from error
    if not builder.info.splits:
        raise RunError(f"{source} cannot be prepared: the result has no images.")
