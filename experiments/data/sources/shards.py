"""Images in shards, tar files that are read sequentially: of `launch.prepare`, or public WebDatasets.

`shards:PATH` is a folder that `launch.prepare` has packed; its manifest lists the classes and splits.

`webdataset:PATTERN` selects tar files by their names, with `{000..123}`, `{train,val}`, `*`, `?` and `[...]`.
Consecutive members of the same name up to its first dot are a sample: an image (`.jpg`, `.png` and so on) and its
label, if any: a `.cls` file with a number or a name, or a `.json` file with `label`, `labels` or `cls`, one or a list.
Samples without an image are counted. Shards with the word `train`, `val` (`valid`, `validation`) or `test` in their
names form splits, if there are any for `train`.

Missing validation and test splits are drawn from the training images, as in folders. Each epoch reads the shards in a
new order, in groups that together hold `data.shuffle_buffer` images, at most 8 shards, and shuffles the images of each
group. The operating system is asked to read each shard ahead, so that reading an image does not wait for the disk.
"""

import dataclasses
import glob
import json
import os
import pathlib
import re
import tarfile
import time

import numpy as np

from experiments.data.decoding import SUFFIXES
from experiments.data.files import part_of
from experiments.data.source import MemorySplit, Source
from experiments.data.sources.index import look_at, stamp
from experiments.data.sources.labels_file import SPLITS, encode_labels
from experiments.data.splits import UNLABELLED, with_held_out
from experiments.errors import UserError
from experiments.io import local_path

AT_ONCE = 8  # shards, of which the images are mixed
MANIFEST = "manifest.json"
FORMAT = "fcmae shards, version 1"


def open_shards(path, config):
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
    samples = {}
    for shard in manifest["shards"]:
        file = root / shard["file"]
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            raise UserError(f"{file} is missing or damaged: run the same launch.prepare command again.")
        samples.setdefault(shard["split"], []).append((file, _recorded_samples(file)))
    splits, label_sets = _splits(samples, tuple(manifest["classes"]), config.shuffle_buffer)
    left_out = [tuple(pair) for shard in manifest["shards"] for pair in shard["left_out"]]
    notes = [f"{manifest['images']:,} images in {len(manifest['shards']):,} shards of {manifest['source']}"]
    source = _source(f"shards:{root}", splits, tuple(manifest["classes"]), label_sets, notes, config)
    return dataclasses.replace(source, skipped=tuple(sorted(left_out)))


def read_manifest(root):
    """Returns the manifest of a folder of shards, a dictionary.

    Raises:
        UserError: if there is none.
    """
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT:
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{root} holds no shards of launch.prepare: it has no {MANIFEST} that can be read.")


def _recorded_samples(file):
    """Returns the samples of a shard, as `samples_of` does, from the record beside it."""
    try:
        return json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return samples_of(file)["samples"]


def open_webdataset(pattern, config):
    """Opens tar files; arguments, result and errors are those of `open_shards`, for the pattern of their names."""
    files = expand(pattern)
    now = time.time_ns()
    stamps = {str(file): stamp(file, now) for file in files}
    found = look_at(f"webdataset:{pattern}", stamps, lambda file: samples_of(pathlib.Path(file)), "", chunk=1)
    split_of = {file: _split_named(pathlib.Path(file).name) for file in found}
    if "train" not in split_of.values():
        split_of = dict.fromkeys(found, "train")
    samples = {}
    for file, content in found.items():
        samples.setdefault(split_of[file] or "train", []).append((pathlib.Path(file), content["samples"]))
    labels = [tuple(sample[3] or ()) for shards in samples.values() for _, some in shards for sample in some]
    if not labels:
        raise UserError(f"webdataset:{pattern} holds no image ({', '.join(SUFFIXES)}).")
    class_names = encode_labels(labels)[1]
    class_names = class_names if len(class_names) > 1 else ()
    splits, label_sets = _splits(samples, class_names, config.shuffle_buffer)
    notes = [f"{len(labels):,} images in {len(files):,} shards, {len(class_names) or 'no'} classes"]
    if without := sum(content["without_image"] for content in found.values()):
        notes.append(f"left out: {without:,} samples without an image")
    return _source(f"webdataset:{pattern}", splits, class_names, label_sets, notes, config)


def expand(pattern):
    """Returns the paths of the files that match a pattern, in the order of its braces, and for `*` sorted by name.

    Raises:
        UserError: if it is a URL, or a file is missing or compressed.
    """
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UserError(f"webdataset:{pattern}: shards are read from local folders; download them first.")
    files = []
    for name in _without_braces(str(local_path(pattern))):
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name] * os.path.isfile(name)
        if not found:
            raise UserError(f"webdataset:{pattern}: there is no file {name}.")
        files += found
    for file in files:
        if not file.endswith(".tar"):
            raise UserError(f"webdataset:{pattern}: {file} is not a .tar file; unpack compressed ones, as by gunzip.")
    return [pathlib.Path(file) for file in dict.fromkeys(files)]


def _without_braces(text):
    """Yields the expansions of a text with `{000..123}` or `{a,b}`."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if not match:
        yield text
        return
    first, last, names = match.groups()
    width = len(first or "")
    between = names.split(",") if names else [f"{i:0{width}}" for i in range(int(first), int(last) + 1)]
    for name in between:
        yield from _without_braces(text[: match.start()] + name + text[match.end() :])


def _split_named(name):
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLITS[word] for word in words if word in SPLITS), "")


def samples_of(path):
    """Returns the samples of a tar file.

    Returns:
        `{"samples": [[offset, size, name, labels], ...], "without_image": count}`: where the bytes of the image are, a
        text to find it by, and a list of names of classes, or None.

    Raises:
        UserError: if it is not a tar file, or truncated.
    """
    samples, without_image, key, image, name, labels = [], 0, None, None, "", None

    def end_sample():
        nonlocal without_image
        if image:
            samples.append([*image, name, labels])
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
                    key, image, labels = os.path.join(folder, stem), None, None
                    name = key
                suffix = f".{suffix.lower()}"
                if suffix in SUFFIXES and not image:
                    image = member.offset_data, member.size
                elif suffix in (".cls", ".json"):
                    found, named = _label(tar.extractfile(member).read(), suffix)
                    labels, name = found if labels is None else labels, named or name
            # tarfile treats a damaged or truncated header as the end of the file.
            tar.fileobj.seek(tar.offset)
            rest = tar.fileobj.read(tarfile.BLOCKSIZE)
            if rest.strip(b"\0") or len(rest) not in (0, tarfile.BLOCKSIZE):
                raise tarfile.ReadError("unexpected end of data")
        end_sample()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{path} is no tar file, or damaged ({error}); fetch or write it anew.") from error
    return {"samples": samples, "without_image": without_image}


def _label(content, suffix):
    """Returns the names of classes in a `.cls` or `.json` member, or None; and the name of the image, if it has one."""
    text = content.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return ([text] if text else None), ""
    try:
        value = json.loads(text)
    except ValueError:
        return None, ""
    name = ""
    if isinstance(value, dict):
        name = value.get("name") if isinstance(value.get("name"), str) else ""
        value = next((value[field] for field in ("labels", "label", "cls") if field in value), None)
    if value is None:
        return None, name
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if isinstance(one, (str, int))], name


def _splits(samples, class_names, shuffle_buffer):
    """Returns `({split: MemorySplit}, label_sets)` of `{split: [(file, samples), ...]}`."""
    rows = [sample for shards in samples.values() for _, some in shards for sample in some]
    named = [tuple(dict.fromkeys(row[3] or ())) if class_names else () for row in rows]
    labels, _, label_sets = encode_labels(named, class_names)
    splits, start = {}, 0
    for split, shards in samples.items():
        sizes = [len(some) for _, some in shards]
        count = sum(sizes)
        contents = [part_of(file, *row[:2]) for file, some in shards for row in some]
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


def _source(name, splits, class_names, label_sets, notes, config):
    """Returns the `Source` of splits; validation and test are held out where they are missing."""
    shares = {"validation": config.validation_share, "test": config.test_share if class_names else 0.0}
    splits, too_small = with_held_out(splits, shares, name)
    return Source(name, splits, class_names, (*notes, *too_small), label_sets=label_sets)
