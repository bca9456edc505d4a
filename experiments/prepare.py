"""Preparing a data set of TensorFlow Datasets: downloading it, and writing it as it will be read."""

import logging

from experiments.errors import RunError, UserError
from experiments.io import local_path


def run(source, directory="", manual_dir="", log=print):
    """Downloads and prepares a data set, unless it is prepared.

    Args:
        source: `tfds:NAME`.
        directory: where to prepare it; empty for TensorFlow Datasets' own default.
        manual_dir: folder of files that a person has to download, as for ImageNet; empty for the default,
            `downloads/manual` in the directory.
        log: function that takes a line for the user.

    Returns:
        `{split: number of images}`.

    Raises:
        UserError: if there is no such data set, or files are missing that a person has to download.
        RunError: if the download or the preparation fails.
    """
    kind, _, name = source.partition(":")
    if kind != "tfds" or not name:
        raise UserError(f"--source={source}: only tfds:NAME is prepared; digits and folders are read as they are.")
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


def _prepare(builder, source, manual_dir):
    import tensorflow_datasets as tfds

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of each of the many attempts
    config = tfds.download.DownloadConfig(manual_dir=str(local_path(manual_dir)) if manual_dir else None)
    needed = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # builders raise what they will
        if needed and isinstance(error, (AssertionError, FileNotFoundError)):
            where = manual_dir or config.manual_dir or f"{builder.data_path.parents[1]}/downloads/manual"
            raise UserError(
                f"{source} has files that TensorFlow Datasets cannot download: put them into {where}, or name their "
                f"folder with --manual_dir. {needed}"
            ) from error
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise RunError(f"{source} cannot be prepared: {type(error).__name__}: {reason}") from error
    if not builder.info.splits:
        raise RunError(f"{source} cannot be prepared: it came out without images.")
