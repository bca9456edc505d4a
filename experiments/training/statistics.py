"""Statistics of the training images, computed when a run starts: mean, standard deviation, pixels without data.

`data.mean=auto` and `data.std=auto` are computed over a sample of the training images, each with the same weight, from
the values that the model sees, before any crop. They are recorded in the run's `config.json`, so that resuming,
evaluation and export use the same numbers. A run that starts from the weights of another run uses that run's numbers if
it has the same number of channels. Explicit numbers take precedence.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.config import AUTO, Config, DataConfig
from experiments.data.files import read_bytes
from experiments.data.formats import UnreadableError
from experiments.data.source import Split
from experiments.data.tiff import declared_no_data
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.io import FAULTS, as_path
from experiments.training.workdir import CONFIG, read_json
from experiments.types import Log, Path

SAMPLE = 1000  # images that mean and standard deviation are computed over
LOOKED_AT = 16  # images that are read to check that they fit the configuration
FEWEST = 1e-3  # least standard deviation, for a channel that hardly changes


def with_statistics(config: Config, split: Split, workdir: str | Path, log: Log) -> Config:
    """Returns the `Config` with numbers for `mean=auto` and `std=auto`, and with NaN as no data for floating point.

    Args:
        config: the `Config`.
        split: of the training images.
        workdir: path of the run's folder; numbers recorded there are used.
        log: function that takes a line for the user.

    Raises:
        UserError: if an image does not fit the configuration; the message names the file.
    """
    data = config.data
    own = _recorded(workdir)
    earlier = own or _recorded(config.pretrained)
    if earlier and earlier.channels == data.channels and AUTO in (data.mean, data.std):
        log(f"mean and standard deviation are those of {workdir if own else config.pretrained}")
        data = _with_numbers(data, earlier.mean, earlier.std)
    no_data = own.no_data if own and not data.no_data else data.no_data
    if not own:
        is_float, declared = _look_at(split, Reading.of(data))
        if missing := sorted(declared.difference(no_data)):
            flag = f"--config.data.no_data={','.join(map(_shown, missing))}"
            log(f"the images declare a value as missing data: to leave such pixels out, start a new run with {flag}")
        if is_float and not no_data:
            log("the images are floating point: NaN pixels count as missing data")
            no_data = ("nan",)
    data = dataclasses.replace(data, no_data=no_data)
    if AUTO in (data.mean, data.std):
        mean, std, count = statistics_of(split, Reading.of(data), config.seed)
        data = _with_numbers(data, mean, std)
        shown = ", ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(data.mean, data.std))
        log(f"mean ± standard deviation of the channels, over {count:,} training images: {shown}")
    return dataclasses.replace(config, data=data)


def statistics_of(split: Split, reading: Reading, seed: int = 0) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Returns mean and standard deviation of each channel, in [0, 1], and the number of images they are computed over.

    Args:
        split: the examples.
        reading: the `Reading`.
        seed: of the sample.

    Raises:
        UserError: if none can be read.
    """

    def sums(content: bytes) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            values = reading.values(content).reshape(-1, reading.channels) / 255.0
        except Exception:  # damage; what does not fit the configuration has been found before
            return None
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            values = np.clip(np.where(known, values, 0.0), 0.0, 1.0).astype(np.float64)
            count = known.sum(axis=0)
            return (values * known).sum(axis=0) / count, (np.square(values) * known).sum(axis=0) / count

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        found = [pair for pair in executor.map(sums, _contents(split, SAMPLE, seed)) if pair is not None]
    if not found:
        raise UserError("data.mean=auto: none of the training images can be read.")
    means, squares = (np.nanmean(values, axis=0) for values in zip(*found))  # NaN: a channel of an image without data
    std = np.sqrt(np.maximum(squares - np.square(means), 0.0))
    means, std = np.nan_to_num(means), np.nan_to_num(np.maximum(std, FEWEST), nan=1.0)  # where no image has data
    return tuple(means.tolist()), tuple(std.tolist()), len(found)


def _with_numbers(data: DataConfig, mean: str | tuple[float, ...], std: str | tuple[float, ...]) -> DataConfig:
    changes: dict[str, Any] = {
        name: numbers for name, numbers in (("mean", mean), ("std", std)) if getattr(data, name) == AUTO
    }
    return dataclasses.replace(data, **changes)


def _recorded(folder: str | Path) -> DataConfig | None:
    """Returns the `DataConfig` of the run in a folder; None where there is none."""
    if not str(folder):
        return None
    for place in (as_path(folder), as_path(folder).parent):  # it may be a file in one
        with contextlib.suppress(*FAULTS, UserError, KeyError):
            data = Config.from_dict(read_json(place / CONFIG)["config"]).data
            return None if AUTO in (data.mean, data.std) else data
    return None


def _contents(split: Split, most: int, seed: int) -> Iterator[bytes]:
    """Yields the bytes of some images, those of a folder chosen at random."""
    parts = _parts_of(split)
    for part in parts:
        read = functools.partial(lambda part, content, label: part.read(content), part)
        yield from part.some(-(-most // len(parts)), seed).map(read).ignore_errors().as_numpy_iterator()


def _parts_of(split: Split) -> tuple[Any, ...]:
    """Returns the splits of its sources, of a mix; else the split itself."""
    return getattr(split, "parts", (split,))


def _look_at(split: Split, reading: Reading) -> tuple[bool, set[float]]:
    """Returns whether some images are of floating point, and the numbers that some declare as missing data.

    An image that does not fit the configuration is a UserError.
    """
    is_float, declared = False, set()
    for name, content in _some_files(split, reading):
        value = None
        try:
            value = declared_no_data(content)
            if value is not None and np.isfinite(value):
                declared.add(value)
            is_float |= bool(content) and reading.is_float(content)
        except UnreadableError as error:
            unset = value in declared.difference(reading.no_data)
            hint = f" It declares {_shown(value)} as missing data: set data.no_data={_shown(value)}." if unset else ""
            raise UserError(f"{name}: {error}.{hint}") from error
        except Exception:  # damage, which is counted when it is met
            continue
    return is_float, declared


def _shown(value: float | None) -> str:
    """Returns the shortest text of a number that is the same number again."""
    return repr(value).removesuffix(".0")


def _some_files(split: Split, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """Yields names of some images and their bytes, empty where they cannot be read."""
    for part in _parts_of(split):
        if getattr(part, "are_paths", False):
            for path in part.contents[np.random.default_rng(0).permutation(len(part.contents))[:LOOKED_AT]]:
                yield os.fsdecode(path), read_bytes(path)
        elif not reading.is_plain:  # data sets of TensorFlow Datasets have JPEG and PNG files
            for content in _contents(part, LOOKED_AT, 0):
                yield "an image", content
