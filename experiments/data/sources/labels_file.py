"""A table of labels beside a folder of images: `data.labels_file`, a CSV or Parquet file.

Its columns: `path` of an image, relative to the folder; `label`, one or several, separated by `;`; and optionally
`split`, one of train, validation (or val, valid) and test. Other columns are ignored.

Labels are texts. If all of a file are whole numbers, as `1.0` in a column of integers with gaps, they are written as
integers.
"""

import csv
import dataclasses
import os
import pathlib
import re
import sys
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from experiments.data.sources.text import quoted
from experiments.errors import UserError
from experiments.io import local_path, reason

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    "test": "test",
}
SEPARATOR = ";"
WHOLE_NUMBER = re.compile(r"(-?\d+)(?:\.0+)?")


@dataclasses.dataclass(frozen=True)
class Row:
    """The row of an image in a labels file.

    Args:
        number: for messages: the first line in a CSV file, the row in a Parquet file.
        labels: names of classes, each once; empty if the cell is empty.
        split: `train`, `validation` or `test`; empty in a file without splits.
    """

    number: int
    labels: tuple[str, ...]
    split: str


def read_labels(path: str | os.PathLike[str], root: pathlib.Path, known: Container[str]) -> dict[str, Row]:
    """Reads a labels file.

    Args:
        path: of the file.
        root: folder of the images.
        known: paths of all its image files, relative to it.

    Returns:
        `{path of an image: Row}`, in the order of the file.

    Raises:
        UserError: if the file cannot be read, lacks a column, or has a row of too many cells, without a label's cell or
            without an image, a second row for an image, a label of several lines, or an unknown split.
    """
    file = local_path(path)
    has_splits, cells = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_csv(file)
    rows: dict[str, Row]
    rows, unknown = {}, []
    for number, name, label, split in cells:
        if not name:
            raise UserError(f"{file}, row {number} has no path; add it or remove the row.")
        image = os.path.normpath(os.path.relpath(name, root) if os.path.isabs(name) else name)
        if image not in known:
            unknown.append((number, name))
            continue
        if image in rows:
            raise UserError(
                f"{file}: rows {rows[image].number} and {number} are both for {quoted(name)}; keep one, with several "
                f"labels as a{SEPARATOR}b."
            )
        if has_splits and split.strip().lower() not in SPLITS:
            raise UserError(f"{file}, row {number}: split '{quoted(split)}' is not train, validation or test.")
        names = [part.strip() for part in label.split(SEPARATOR)]
        if broken := [name for name in names if "\n" in name or "\r" in name]:
            raise UserError(
                f"{file}, row {number}: the label '{quoted(broken[0])}' has a line break; close the quote before it."
            )
        labels = tuple(dict.fromkeys(part for part in names if part))
        rows[image] = Row(number, labels, SPLITS[split.strip().lower()] if has_splits else "")
    if unknown:
        number, name = unknown[0]
        more = f" ({len(unknown) - 1:,} more missing)" if len(unknown) > 1 else ""
        raise UserError(
            f"{file}, row {number}: there is no image {quoted(name)} in {root}{more}; write paths relative to that "
            "folder, with suffix, or remove the rows."
        )
    if not rows:
        raise UserError(f"{file} has no rows; add one for each labelled image.")
    return _with_integers(rows)


def _with_integers(rows: dict[str, Row]) -> dict[str, Row]:
    """Returns rows whose labels, if all are whole numbers, are written as integers: `1` for `1.0`."""
    numbers: dict[str, Any] = {label: WHOLE_NUMBER.fullmatch(label) for row in rows.values() for label in row.labels}
    if not all(numbers.values()):
        return rows
    return {
        image: dataclasses.replace(row, labels=tuple(dict.fromkeys(numbers[label][1] for label in row.labels)))
        for image, row in rows.items()
    }


def encode_labels(
    rows: Sequence[tuple[str, ...] | None], class_names: tuple[str, ...] = ()
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray | None]:
    """Numbers the labels of images, and names the classes in their order; numbers are in order of size.

    Args:
        rows: names of classes of each image, a tuple; None if they are not known.
        class_names: all classes in their order; empty for those of the images.

    Returns:
        `(labels, class_names, label_sets)`. Where each image has at most one class, `labels` `(N,)` int64 are the
        classes, -1 for none, and `label_sets` is None. Else they are rows of `label_sets`, see `Source`, -1 where they
        are not known; none of the classes is a set as well.
    """
    if not class_names:
        names = {name for row in rows for name in row or ()}
        class_names = tuple(sorted(names, key=_by_size if all(map(_is_number, names)) else None))
    index = {name: label for label, name in enumerate(class_names)}
    if all(len(row or ()) < 2 for row in rows):
        return np.array([index[row[0]] if row else -1 for row in rows], np.int64), class_names, None
    sets: list[Any] = [None if row is None else tuple(sorted(index[name] for name in row)) for row in rows]
    number = {one: label for label, one in enumerate(sorted(set(sets) - {None}))}
    label_sets = np.zeros((len(number), len(class_names)), bool)
    for one, label in number.items():
        label_sets[label, list(one)] = True
    return np.array([number.get(one, -1) for one in sets], np.int64), class_names, label_sets


def _is_number(name: str) -> bool:
    """Whether a name is a number; those of so many digits that Python may refuse to convert them are texts."""
    return name.isdecimal() and len(name) <= sys.int_info.str_digits_check_threshold


def _by_size(name: str) -> tuple[int, str]:
    return int(name), name  # 1 and 01 are different names


def _read_csv(file: pathlib.Path) -> tuple[bool, list[tuple[int, str, str, str]]]:
    """Returns whether there is a column of splits, and the rows as `[(number, path, label, split), ...]`."""
    try:
        # File names may contain any bytes, and spreadsheets start UTF-8 files with a byte order mark.
        with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
            reader = csv.reader(opened)
            columns = next(reader, [])
            has_splits = _check_columns(file, columns)
            wanted = [columns.index(name) for name in ("path", "label", *["split"] * has_splits)]
            cells, end = [], reader.line_num
            for row in reader:
                number, end = end + 1, reader.line_num  # a quote may hold several lines
                if row:
                    _check_cells(file, number, row, columns)
                    path, label, *split = (row[i] if i < len(row) else "" for i in wanted)
                    cells.append((number, path, label, "".join(split)))
            return has_splits, cells
    except OSError as error:
        raise UserError(f"data.labels_file={file} cannot be read: {reason(error)}.") from error
    except csv.Error as error:
        raise UserError(f"{file} is not a comma-separated CSV file: {error}.") from error


def _check_cells(file: pathlib.Path, number: int, row: Sequence[str], columns: Sequence[str]) -> None:
    """Raises UserError if a row has more cells than the first line, or none for the label."""
    if columns.index("label") < len(row) <= len(columns):
        return
    shown = quoted(",".join(row))
    told = f"{file}, row {number} has {len(row)} cells ({shown}) where the first line has {len(columns)}"
    raise UserError(f"{told}: quote cells that contain commas, close all quotes, and omit no cell.")


def _read_parquet(file: pathlib.Path) -> tuple[bool, list[tuple[int, str, str, str]]]:
    """Does what `_read_csv` does; a label may also be a number, bytes of UTF-8, or a list of several."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{file}: reading Parquet needs pyarrow: pip install pyarrow, or use a CSV file.") from error
    try:
        table = parquet.ParquetFile(file)
        has_splits = _check_columns(file, table.schema_arrow.names)
        columns = table.read(columns=["path", "label", *["split"] * has_splits]).to_pydict()
    except FileNotFoundError as error:
        raise UserError(f"data.labels_file={file} cannot be read: {reason(error)}.") from error
    except (OSError, pyarrow.ArrowException, ValueError, OverflowError) as error:  # the latter of texts and times
        raise UserError(f"{file} is not a Parquet file: {str(error).splitlines()[0]}") from error
    splits = columns.get("split") or [""] * len(columns["path"])
    rows = zip(columns["path"], columns["label"], splits)
    cells: list[Any] = [(number, *map(_text, row)) for number, row in enumerate(rows, 1)]
    for (number, _, label, _), labels in zip(cells, columns["label"]):
        if isinstance(labels, list) and label.count(SEPARATOR) >= max(1, len(labels)):
            raise UserError(f"{file}, row {number}: a label of the list {quoted(label)} contains '{SEPARATOR}'.")
    return has_splits, cells


def _text(value: object) -> str:
    if isinstance(value, list):
        return SEPARATOR.join(map(_text, value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    is_missing = value is None or value != value  # NaN
    return "" if is_missing else str(value)


def _check_columns(file: pathlib.Path, columns: Sequence[str]) -> bool:
    """Returns whether there is a column of splits."""
    for needed in ("path", "label"):
        if list(columns).count(needed) != 1:
            shown = quoted(", ".join(map(repr, columns))) or "nothing"
            hint = "; separate cells by commas" if len(columns) == 1 and re.search(r"[;\t|]", columns[0]) else ""
            hint = "; save it as UTF-8" if "\0" in "".join(columns) else hint
            raise UserError(f"{file} needs a column {needed} in its first line, which has {shown}{hint}.")
    return "split" in columns
