"""Images in shards, tar files that are read sequentially: of `launch.prepare`, or public WebDatasets.

`shards:PATH` is a folder that `launch.prepare` has packed; its manifest lists the classes and splits.

`webdataset:PATTERN` selects tar files by their names, with `{000..123}`, `{train,val}`, `*`, `?` and `[...]`.
Consecutive members of the same name up to its first dot are a sample: an image (`.jpg`, `.png` and so on) and its
label, if any: a `.cls` file with a number or a name, or a `.json` file with `label`, `labels` or `cls`, one or a list.
Samples without an image, further images of a sample and images whose label cannot be used are counted, as are shards
that may be cut. Shards with the word `train`, `val` (`valid`, `validation`) or `test` in their
names form splits, if there are any for `train`.

Missing validation and test splits are drawn from the training images, as in folders. Each epoch reads the shards in a
new order, in groups that together hold `data.shuffle_buffer` images, at most 8 shards, and shuffles the images of each
group. The operating system is asked to read each shard ahead, so that reading an image does not wait for the disk.
"""

import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import re
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import numpy as np

from experiments.config import DataConfig
from experiments.data.decoding import SUFFIXES
from experiments.data.files import parts_of
from experiments.data.source import MemorySplit, Source
from experiments.data.sources.index import look_at, stamp
from experiments.data.sources.labels_file import SPLITS, encode_labels
from experiments.data.sources.text import printable, quoted
from experiments.data.splits import UNLABELLED, with_held_out
from experiments.errors import UserError
from experiments.io import checksum, local_path, replacing

AT_ONCE = 8  # shards, of which the images are mixed
MANIFEST = "manifest.json"
FORMAT, VERSION = "fcmae shards, version ", "2"
JSON_ERRORS = (OSError, ValueError, RecursionError)


def open_shards(path: str | os.PathLike[str], config: DataConfig) -> Source:
    """Opens the shards that `launch.prepare` has written.

    Args:
        path: of their folder.
        config: a `DataConfig`.

    Returns:
        A `Source`.

    Raises:
        UserError: if the folder holds no shards or is incomplete, or the shares leave no image to train on.
    """
    root = local_path(path)
    manifest = read_manifest(root)
    if not manifest["complete"]:
        raise UserError(f"{root} is not complete: run the same launch.prepare command again.")
    samples: dict[str, list[Any]] = {}
    for shard in manifest["shards"]:
        file = root / shard["file"]
        if not os.path.isfile(file) or file.stat().st_size != shard["bytes"]:
            raise _damaged(file)
        if packed := _packed_samples(file, shard):
            samples.setdefault(shard["split"], []).append((file, packed))
    splits, label_sets = _splits(samples, tuple(manifest["classes"]), config.shuffle_buffer)
    left_out = [tuple(pair) for shard in manifest["shards"] for pair in shard["left_out"]]
    notes = [f"{manifest['images']:,} images in {len(manifest['shards']):,} shards of {manifest['source']}"]
    source = _source(printable(f"shards:{root}"), splits, tuple(manifest["classes"]), label_sets, notes, config)
    return dataclasses.replace(source, skipped=tuple(sorted(left_out)))


def read_manifest(root: pathlib.Path) -> dict[str, Any]:
    """Returns the manifest of a folder of shards, a dictionary.

    Raises:
        UserError: if there is none, or it is not what `write_manifest` wrote.
    """
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except JSON_ERRORS:
        manifest = None
    if not isinstance(manifest, dict) or not str(manifest.get("format")).startswith(FORMAT):
        raise UserError(f"{root} holds no shards of launch.prepare: it has no {MANIFEST} that can be read.")
    if manifest["format"] != FORMAT + VERSION:
        raise UserError(f"{root} holds shards of another version of this software: pack the images again.")
    if manifest.pop("sha256", None) != _digest(manifest):
        raise UserError(f"{path} is damaged: remove {root} and pack again with launch.prepare.")
    return manifest


def write_manifest(root: pathlib.Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest of a folder of shards, with its own checksum."""
    with replacing(root / MANIFEST) as temporary:
        temporary.write_text(json.dumps({**manifest, "sha256": _digest(manifest)}), encoding="utf-8")


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def _packed_samples(file: pathlib.Path, shard: Mapping[str, Any]) -> list[list[Any]]:
    """Returns the samples of a shard, as `samples_of` does: from the record beside it or, if that is damaged, itself.

    Args:
        file: path of the shard.
        shard: its entry in the manifest.
    """
    record = file.with_suffix(".json")
    if is_intact(record, shard["record_sha256"]):
        samples = json.loads(record.read_text(encoding="utf-8"))
        if not samples or _described(file, *samples[0][:2]) == samples[0][2:]:
            return samples
    if not is_intact(file, shard["sha256"]):
        raise _damaged(file)
    return samples_of(file)["samples"]


def _described(file: pathlib.Path, offset: int, size: int) -> list[Any] | None:
    """Returns `[name, labels]` of a packed image by the `.json` that follows it, which differs in other shards."""
    header = offset + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    try:
        with open(file, "rb") as opened:
            opened.seek(header)
            member = tarfile.TarInfo.frombuf(opened.read(tarfile.BLOCKSIZE), tarfile.ENCODING, "surrogateescape")
            labels, name, _ = _label(opened.read(member.size), ".json")
    except (OSError, tarfile.HeaderError):
        return None
    return [name, labels]


def is_intact(path: pathlib.Path, sha256: str) -> bool:
    """Whether a file can be read and has this checksum."""
    try:
        return checksum(path) == sha256
    except OSError:
        return False


def _damaged(file: pathlib.Path) -> UserError:
    return UserError(f"{file} is missing or damaged: run the same launch.prepare command again.")


def open_webdataset(pattern: str, config: DataConfig) -> Source:
    """Opens tar files; arguments, result and errors are those of `open_shards`, for the pattern of their names."""
    files = expand(pattern)
    now = time.time_ns()
    stamps = {str(file): stamp(file, now) for file in files}
    found = look_at(f"webdataset:{pattern}", stamps, lambda file: samples_of(pathlib.Path(file)), "", chunk=1)
    split_of = {file: _split_named(pathlib.Path(file).name) for file in found}
    if "train" not in split_of.values():
        split_of = dict.fromkeys(found, "train")
    samples: dict[str, list[Any]] = {}
    for file, content in found.items():
        samples.setdefault(split_of[file] or "train", []).append((pathlib.Path(file), content["samples"]))
    labels = [_labels(sample) for shards in samples.values() for _, some in shards for sample in some]
    if not labels:
        raise UserError(f"webdataset:{pattern} holds no image ({', '.join(SUFFIXES)}).")
    class_names = encode_labels(labels)[1]
    class_names = class_names if len(class_names) > 1 else ()
    splits, label_sets = _splits(samples, class_names, config.shuffle_buffer)
    notes = [f"{len(labels):,} images in {len(files):,} shards, {len(class_names) or 'no'} classes"]
    if without := sum(content["without_image"] for content in found.values()):
        notes.append(f"left out: {without:,} samples without an image")
    for field, what in (
        ("repeated", "left out: {:,} images that share the name of the one before"),
        ("bad_labels", "{:,} images have a label that cannot be used"),
    ):
        if names := [name for content in found.values() for name in content[field]]:
            notes.append(f"{what.format(len(names))}, such as {quoted(names[0])}")
    if cut := [file for file, content in found.items() if content["is_cut"]]:
        notes.append(f"{len(cut):,} shards lack the end-of-file mark and may be truncated, such as {printable(cut[0])}")
    return _source(f"webdataset:{pattern}", splits, class_names, label_sets, notes, config)


def expand(pattern: str) -> list[pathlib.Path]:
    """Returns the paths of the files that match a pattern, in the order of its braces, and for `*` sorted by name.

    Raises:
        UserError: if it is a URL, names no file, or a file is missing or compressed.
    """
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UserError(f"webdataset:{pattern}: shards are read from local folders; download them first.")
    files = []
    for name in _without_braces(str(local_path(pattern))):
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name] * os.path.isfile(name)
        if not found:
            raise UserError(f"webdataset:{pattern}: there is no file {name}.")
        files += found
    if not files:
        raise UserError(f"webdataset:{pattern} names no file: a range counts upwards, as in {{000..123}}.")
    for file in files:
        if not file.endswith(".tar"):
            raise UserError(f"webdataset:{pattern}: {file} is not a .tar file; decompress it first, as with gunzip.")
    return [pathlib.Path(file) for file in dict.fromkeys(files)]


def _without_braces(text: str) -> Iterator[str]:
    """Yields the expansions of a text with `{000..123}` or `{a,b}`."""
    match = re.search(r"\{(\d{1,18})\.\.(\d{1,18})\}|\{([^{}]*,[^{}]*)\}", text)
    if not match:
        yield text
        return
    first, last, names = match.groups()
    width = len(first or "")
    between = names.split(",") if names else (f"{i:0{width}}" for i in range(int(first), int(last) + 1))
    for name in between:
        yield from _without_braces(text[: match.start()] + name + text[match.end() :])


def _split_named(name: str) -> str:
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "")


def samples_of(path: pathlib.Path) -> dict[str, Any]:
    """Returns the samples of a tar file.

    Returns:
        `{"samples": [[offset, size, name, labels], ...], "without_image": count, "repeated": [name, ...],
        "bad_labels": [name, ...], "is_cut": boolean}`: where the bytes of the image are, a text to find it by, and a
        list of names of classes, or None; the number of samples without an image; names of samples for each of their
        images after the first; those of images without labels because theirs cannot be used; and whether the end of the
        file is missing.

    Raises:
        UserError: if it is not a tar file, or truncated.
    """
    samples: list[list[Any]]
    bad_labels: list[str]
    samples, without_image, repeated, bad_labels = [], 0, [], []
    key, image, name, labels, is_bad = None, None, "", None, False

    def end_sample() -> None:
        nonlocal without_image
        if image:
            samples.append([*image, name, labels])
            bad_labels.extend([name] * (is_bad and labels is None))
        elif key is not None:
            without_image += 1

    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, file = os.path.split(member.name)
                stem, _, suffix = file.partition(".")
                if not member.isfile() or not stem:
                    continue
                if os.path.join(folder, stem) != key:
                    end_sample()
                    key, image, labels, is_bad = os.path.join(folder, stem), None, None, False
                    name = printable(key)
                suffix = f".{suffix.lower()}"
                if suffix in SUFFIXES:
                    if image:
                        repeated.append(name)
                    image = image or (member.offset_data, member.size)
                elif suffix in (".cls", ".json"):
                    found, named, is_usable = _label(cast(IO[bytes], tar.extractfile(member)).read(), suffix)
                    labels, name = found if labels is None else labels, named or name
                    is_bad |= not is_usable
            # tarfile treats a damaged or truncated header as the end of the file.
            tar.fileobj.seek(tar.offset)
            end = tar.fileobj.read(2 * tarfile.BLOCKSIZE)  # two blocks of zeros
            rest = end[: tarfile.BLOCKSIZE]
            if rest.strip(b"\0") or len(rest) not in (0, tarfile.BLOCKSIZE):
                raise tarfile.ReadError("unexpected end of data")
        end_sample()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{path} is not a tar file, or is damaged ({error}); download or create it again.") from error
    return {
        "samples": samples,
        "without_image": without_image,
        "repeated": repeated,
        "bad_labels": bad_labels,
        "is_cut": end != bytes(2 * tarfile.BLOCKSIZE),
    }


def _label(content: bytes, suffix: str) -> tuple[list[str] | None, str, bool]:
    """Reads a `.cls` or `.json` member.

    Returns:
        `(labels, name, is_usable)`: the names of classes, or None; the name of the image, if it has one; and whether
        the member can be read, and its label, if it has one, is a text or an integer or a list of them.
    """
    text = content.decode("utf-8-sig", "replace").strip()
    if suffix == ".cls":
        return ([text] if text else None), "", True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, "", False
    name = ""
    if isinstance(value, dict):
        name = value["name"] if _is_text(value.get("name")) else ""
        value = next((value[field] for field in ("labels", "label", "cls") if field in value), None)
    if value is None:
        return None, name, True
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) or _is_text(one) for one in values):
        return None, name, False
    return list(map(str, values)), name, True


def _is_text(value: object) -> bool:
    """Whether a value of JSON is a text that can be written; half of a surrogate pair cannot."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _labels(sample: Sequence[Any]) -> tuple[str, ...] | None:
    """Returns the names of the classes of a sample, each once; None if its labels are not known."""
    return None if sample[3] is None else tuple(dict.fromkeys(sample[3]))


def _splits(
    samples: Mapping[str, list[Any]], class_names: tuple[str, ...], shuffle_buffer: int
) -> tuple[dict[str, MemorySplit], np.ndarray | None]:
    """Returns `({split: MemorySplit}, label_sets)` of `{split: [(file, samples), ...]}`."""
    rows = [sample for shards in samples.values() for _, some in shards for sample in some]
    named = [_labels(row) if class_names else None for row in rows]
    labels, _, label_sets = encode_labels(named, class_names)
    splits, start = {}, 0
    for split, shards in samples.items():
        sizes = [len(some) for _, some in shards]
        count = sum(sizes)
        contents = [part for file, some in shards for part in parts_of(file, (row[:2] for row in some))]
        at_once = max(1, min(AT_ONCE, shuffle_buffer * len(shards) // max(1, count)))
        splits[split] = MemorySplit(
            np.array(contents, dtype=object),
            np.full(count, -1) if split == UNLABELLED else labels[start : start + count],
            are_paths=True,
            names=np.array([row[2] for row in rows[start : start + count]], dtype=object),
            groups=np.repeat(np.arange(len(shards)), sizes),
            groups_at_once=at_once,
        )
        start += count
    return splits, label_sets


def _source(
    name: str,
    splits: dict[str, MemorySplit],
    class_names: tuple[str, ...],
    label_sets: np.ndarray | None,
    notes: Iterable[str],
    config: DataConfig,
) -> Source:
    """Returns the `Source` of splits; validation and test are held out where they are missing."""
    splits, too_small = with_held_out(splits, config, bool(class_names), name)
    return Source(name, splits, class_names, (*notes, *too_small), label_sets=label_sets)
