"""Reads and writes files of features, `.npz` and `.parquet`; writing is batch by batch, for any number of images.

Both hold for each image, in the same order:

    names      path in the folder, with slashes; or split and position, `test/17`
    splits     `train`, `validation` or `test`
    labels     number of its class, -1 without (Parquet: null)
    features   `(C,)` float32

and once: `classes`, the names of the classes; `skipped` and `skipped_reasons`, the files that have no features and why;
`record`, JSON that describes how the features were made. In an `.npz` they are arrays, none of which needs pickle; in
Parquet the columns are `name`, `split`, `label`, `class` and `features`, and the rest is JSON in the metadata.
"""

import dataclasses
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.data.sources.text import printable
from experiments.errors import UserError

SUFFIXES = (".npz", ".parquet")
ROWS = 4096  # images of a row group of Parquet


@dataclasses.dataclass(frozen=True)
class Features:
    """The content of a file.

    Args:
        names: `(N,)` strings.
        features: `(N, C)` float32.
        labels: `(N,)` int64, -1 without.
        classes: names of the classes.
        record: dictionary.
    """

    names: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    record: dict


class NpzWriter:
    """Writes an `.npz` on `close`; before, features are in an unnamed temporary file beside it, names in memory.

    Args:
        path: of the file.
        num_features: of an image, `C`.
        classes: names of the classes.
    """

    def __init__(self, path: pathlib.Path, num_features: int, classes: Sequence[str]) -> None:
        self._path = path
        self._classes = classes
        self._num_features = num_features
        self._names: list[str] = []
        self._splits: list[str] = []
        self._labels: list[np.ndarray] = []
        self._rows = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  (open until `close`)

    def add(self, names: Sequence[str], split: str, labels: np.ndarray, features: np.ndarray) -> None:
        """Adds images of a split: lists of names, `(N,)` labels and `(N, C)` features."""
        self._names += names
        self._splits += [split] * len(names)
        self._labels.append(labels)
        self._rows.write(np.ascontiguousarray(features, np.float32).tobytes())

    def close(self, skipped: Sequence[tuple[str, str]], record: dict[str, Any]) -> None:
        """Ends the file.

        Args:
            skipped: `[(name, reason), ...]`.
            record: dictionary.
        """
        self._rows.flush()
        shape = (len(self._names), self._num_features)
        arrays: dict[str, Any] = {
            "names": np.array(self._names, str),
            "splits": np.array(self._splits, str),
            "labels": np.concatenate(self._labels),
            "features": np.memmap(self._rows, np.float32, "r", shape=shape),
            "classes": np.array(self._classes, str),
            "skipped": np.array([name for name, _ in skipped], str),
            "skipped_reasons": np.array([reason for _, reason in skipped], str),
            "record": np.array(json.dumps(record)),
        }
        with open(self._path, "wb") as file:  # NumPy would append `.npz` to a path that does not end with exactly that
            np.savez(file, **arrays)
        self._rows.close()


class ParquetWriter:
    """Writes a Parquet file; the methods are those of `NpzWriter`."""

    def __init__(self, path: pathlib.Path, num_features: int, classes: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        self._arrow = pyarrow
        self._classes = classes
        self._schema = pyarrow.schema(
            {
                "name": pyarrow.string(),
                "split": pyarrow.string(),
                "label": pyarrow.int64(),
                "class": pyarrow.string(),
                "features": pyarrow.list_(pyarrow.float32(), num_features),
            }
        )
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._waiting: list[Any] = []

    def add(self, names: Sequence[str], split: str, labels: np.ndarray, features: np.ndarray) -> None:
        values = self._arrow.array(features.reshape(-1))
        known = [int(label) if label >= 0 else None for label in labels]
        columns = [
            [printable(name) for name in names],
            [split] * len(names),
            known,
            [None if label is None else self._classes[label] for label in known],
            self._arrow.FixedSizeListArray.from_arrays(values, features.shape[1]),
        ]
        self._waiting.append(self._arrow.table(columns, schema=self._schema))
        if sum(map(len, self._waiting)) >= ROWS:
            self._write()

    def close(self, skipped: Sequence[tuple[str, str]], record: dict[str, Any]) -> None:
        self._write()
        names, reasons = [printable(name) for name, _ in skipped], [reason for _, reason in skipped]
        facts = {"classes": self._classes, "skipped": names, "skipped_reasons": reasons, "record": record}
        self._writer.add_key_value_metadata({name: json.dumps(value) for name, value in facts.items()})
        self._writer.close()

    def _write(self) -> None:
        if self._waiting:
            table = self._arrow.concat_tables(self._waiting)
            self._writer.write_table(table, row_group_size=len(table))
        self._waiting = []


def feature_writer(path: pathlib.Path, num_features: int, classes: Sequence[str]) -> NpzWriter | ParquetWriter:
    """Returns the writer that the suffix of `path` names.

    Raises:
        UserError: if a package is missing.
    """
    if path.suffix.lower() == ".npz":
        return NpzWriter(path, num_features, classes)
    try:
        return ParquetWriter(path, num_features, classes)
    except ImportError as error:
        raise UserError(
            f"{path.name}: Parquet needs pyarrow, which is not installed: pip install pyarrow, or use an .npz file."
        ) from error


def read_features(path: pathlib.Path) -> Features:
    """Returns the `Features` of a file that `launch.extract` wrote.

    Raises:
        UserError: if it does not exist, or is not a file of features.
    """
    try:
        return _read_npz(path) if path.suffix.lower() == ".npz" else _read_parquet(path)
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}: make it with launch.extract.") from error
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs pyarrow, which is not installed: pip install pyarrow") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} was not written by launch.extract, or is damaged.") from error


def _read_npz(path: pathlib.Path) -> Features:
    with np.load(path, allow_pickle=False) as arrays:
        record = json.loads(str(arrays["record"]))
        classes = tuple(str(name) for name in arrays["classes"])
        return Features(arrays["names"], arrays["features"], arrays["labels"], classes, record)


def _read_parquet(path: pathlib.Path) -> Features:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        metadata = file.metadata.metadata
        table = file.read(["name", "label", "features"])
    column = table["features"].combine_chunks()
    features = column.values.to_numpy().reshape(len(table), column.type.list_size)
    labels = table["label"].fill_null(-1).to_numpy()
    classes = tuple(json.loads(metadata[b"classes"]))
    return Features(
        np.array(table["name"].to_pylist(), str), features, labels, classes, json.loads(metadata[b"record"])
    )
