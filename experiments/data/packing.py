"""Packs a folder of images into shards that are read sequentially, with labels and splits.

A shard is a tar file of up to 1,024 images in random order, each beside a `.json` of its name and labels: a WebDataset,
which other software reads too. `manifest.json` describes the shards, with counts and checksums; a file beside each
shard records the positions of its images. The same images, labels and size give the same bytes.
"""

import concurrent.futures
import hashlib
import io
import json
import os
import pathlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from PIL import Image

from experiments.config import DataConfig
from experiments.data.decoding import DAMAGED
from experiments.data.formats import ORIENTATION, SUFFIXES, UnreadableError, format_of, orientation_of, read_header
from experiments.data.jpeg_damage import is_damaged
from experiments.data.source import MemorySplit, Source
from experiments.data.sources.folder import open_folder
from experiments.data.sources.shards import (
    FORMAT,
    MANIFEST,
    VERSION,
    is_intact,
    read_manifest,
    samples_of,
    write_manifest,
)
from experiments.data.sources.text import printable
from experiments.data.values import Reading
from experiments.errors import RunError, UserError
from experiments.io import TEMPORARY, checksum, is_url, local_path, reason, replacing
from experiments.lock import LOCK, sole_use_of
from experiments.types import Log

IMAGES = 1024  # of a shard
AT_ONCE = 64  # images in memory
NAMED = 5  # images left out that a line names
QUALITY = 95  # of JPEG
KINDS = {"JPEG": ".jpg", "PNG": ".png"}  # what is written smaller, with its suffix


def pack(
    source: str, output: str | os.PathLike[str], size: int = 0, labels_file: str = "", log: Log = print
) -> dict[str, Any]:
    """Packs the images of a folder, or resumes packing: finished shards are kept if their checksums are right.

    Images whose shorter side is above `size` are reduced: JPEG files are saved as JPEG of quality 95, PNG files without
    loss. All other files are copied byte by byte: small images, other formats, more than 8 bits, a palette or
    transparency.

    Args:
        source: `folder:PATH`.
        output: path of the folder for the shards.
        size: largest shorter side in pixels; 0 for any.
        labels_file: see `DataConfig`.
        log: function that takes a line for the user.

    Returns:
        The manifest, a dictionary.

    Raises:
        UserError: if the images or the output cannot be used.
        RunError: if a file cannot be read or written.
    """
    path = local_path(source.partition(":")[2]).absolute()
    if is_url(output):
        raise UserError(f"--output={output}: shards are written to a local folder; copy them from there.")
    if size < 0:
        raise UserError(f"--size={size} must be a number of pixels, or 0 to keep images as they are.")
    data = DataConfig(source=f"folder:{path}", labels_file=labels_file, validation_share=0.0, test_share=0.0)
    folder = open_folder(path, data, Reading(channels=0))
    for note in folder.notes:
        log(f"  {note}")
    splits = {name: split for name in ("train", "validation", "test", "unlabelled") if (split := folder.get(name))}
    plan = [shard for name, split in splits.items() for shard in _plan(name, cast(MemorySplit, split), path, folder)]
    with sole_use_of(local_path(output), log, "--output"):
        return _write_shards(local_path(output), plan, folder, size, log)


def _write_shards(
    root: pathlib.Path, plan: Sequence[tuple[str, str, list]], folder: Source, size: int, log: Log
) -> dict[str, Any]:
    """Writes the shards of a plan that a folder lacks; returns the manifest."""
    manifest = _begin(root, folder, size, _fingerprint(plan, folder, size))
    done = {shard["file"]: shard for shard in manifest["shards"] if _is_whole(root / shard["file"], shard)}
    for name, split, images in plan:
        if name not in done:
            done[name] = {"file": name, "split": split, **_write_shard(root / name, images, size)}
            log(f"  {name}: {done[name]['images']:,} images, {done[name]['bytes'] / 2**20:.1f} MiB")
            shards = [done[name] for name, _, _ in plan if name in done]
            counts = {"complete": len(shards) == len(plan), "images": sum(shard["images"] for shard in shards)}
            manifest = {**manifest, **counts, "shards": shards}
            write_manifest(root, manifest)
    left_out = [pair for shard in manifest["shards"] for pair in shard["left_out"]]
    if not manifest["images"]:
        raise UserError(f"{root}: no image could be packed, such as {left_out[0][0]}: {left_out[0][1]}.")
    for image, why in left_out[:NAMED]:
        log(f"  left out: {image}: {why}")
    more = f", {len(left_out):,} left out" if left_out else ""
    log(f"{root}: {manifest['images']:,} images in {len(plan):,} shards{more}")
    return manifest


def _plan(split: str, examples: MemorySplit, root: pathlib.Path, folder: Source) -> Iterator[tuple[str, str, list]]:
    """Yields `(file, split, [(path, name, labels), ...])` of the shards of a split, its images in random order."""
    names = folder.class_names
    sets = folder.label_sets if folder.label_sets is not None else np.eye(len(names), dtype=bool)
    order = np.random.default_rng(0).permutation(examples.num_examples)
    count = -(-len(order) // IMAGES)
    for i in range(count):
        chosen = order[i * IMAGES : (i + 1) * IMAGES]
        paths = [os.fsdecode(path) for path in examples.contents[chosen]]
        labels = [
            [] if label < 0 else [names[c] for c in np.flatnonzero(sets[label])] for label in examples.labels[chosen]
        ]
        images = [(path, os.path.relpath(path, root), own) for path, own in zip(paths, labels)]
        yield f"{split}-{i:05}-of-{count:05}.tar", split, images


def _fingerprint(plan: Sequence[tuple[str, str, list]], folder: Source, size: int) -> str:
    """Returns a text that changes with the images, their labels or the size."""
    content = hashlib.sha256(repr((size, folder.class_names, QUALITY)).encode())
    for name, _, images in plan:
        content.update(name.encode())
        for path, image, labels in images:
            try:
                status = os.stat(path)
            except OSError as error:
                raise _unreadable(path, error) from error
            content.update(repr((image, labels, status.st_size, status.st_mtime_ns)).encode())
    return content.hexdigest()


def _begin(root: pathlib.Path, folder: Source, size: int, fingerprint: str) -> dict[str, Any]:
    """Returns the manifest of a folder of shards, a new one if there is none."""
    try:
        is_empty = all(path.name.startswith(TEMPORARY) or path.name == LOCK for path in root.iterdir())
    except OSError as error:
        raise UserError(f"--output={root} cannot be used: {error.strerror}.") from error
    if is_empty:
        manifest = {
            "format": FORMAT + VERSION,
            "source": folder.name,
            "size": size,
            "classes": list(folder.class_names),
            "fingerprint": fingerprint,
            "complete": False,
            "images": 0,
            "shards": [],
        }
        write_manifest(root, manifest)  # at once: packing can be interrupted from now on
        return manifest
    if not (root / MANIFEST).exists():
        raise UserError(f"--output={root} holds other files: name a new folder.")
    manifest = read_manifest(root)
    if manifest["fingerprint"] != fingerprint:
        raise UserError(
            f"--output={root} holds shards of other images, labels or another --size: name a new folder, or remove it."
        )
    return manifest


def _is_whole(path: pathlib.Path, shard: Mapping[str, Any]) -> bool:
    """Whether a shard and its record on the disk match the manifest."""
    return is_intact(path, shard["sha256"]) and is_intact(path.with_suffix(".json"), shard["record_sha256"])


def _write_shard(path: pathlib.Path, images: Sequence[tuple[str, str, list]], size: int) -> dict[str, Any]:
    """Writes a shard and its record; returns its entry in the manifest."""
    left_out = []
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w") as tar, concurrent.futures.ThreadPoolExecutor() as executor:
            for start in range(0, len(images), AT_ONCE):
                some = images[start : start + AT_ONCE]
                made = executor.map(lambda image: _smaller(image[0], size), some)
                for i, ((_, name, labels), (content, suffix)) in enumerate(zip(some, made), start):
                    name = printable(name)
                    if content is None:
                        left_out.append([name, suffix])
                        continue
                    _add(tar, f"{i:05}{suffix}", content)
                    _add(tar, f"{i:05}.json", json.dumps({"name": name, "labels": labels}).encode())
        samples, num_bytes = samples_of(temporary)["samples"], temporary.stat().st_size
        facts = {"images": len(samples), "bytes": num_bytes, "sha256": checksum(temporary), "left_out": left_out}
        with replacing(path.with_suffix(".json")) as record:
            record.write_text(json.dumps(samples), encoding="utf-8")
            facts["record_sha256"] = checksum(record)
    return facts


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _smaller(path: str, size: int) -> tuple[bytes | None, str]:
    """Returns the bytes of an image, reduced if it is too large, and a suffix; None and the reason if unreadable."""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if content[:3] == b"\xff\xd8\xff" and is_damaged(content):
        return None, "a JPEG that is damaged"
    suffix = pathlib.Path(path).suffix.lower()
    kind = format_of(content[:32])
    suffix = KINDS.get(kind, suffix if suffix in SUFFIXES else ".png")  # readers go by the content, not the suffix
    try:
        read_header(io.BytesIO(content))
        # Of 16 bits Pillow would keep 8.
        if not size or kind not in KINDS or kind == "PNG" and content[24] > 8:
            return content, suffix
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            is_plain, shorter = image.mode in ("L", "RGB") and "transparency" not in image.info, min(image.size)
            if size >= shorter or not is_plain:
                return content, suffix
            orientation = orientation_of(image)
            target = [max(size, round(side * size / shorter)) for side in image.size]
            image.draft(None, (2 * target[0], 2 * target[1]))  # JPEG: decoded at a fraction, no smaller than this
            return _encoded(image.resize(target, Image.Resampling.BICUBIC), kind, orientation), suffix
    except UnreadableError as error:
        return None, str(error)
    except Exception:  # a damaged file can make the libraries raise anything
        return None, DAMAGED.format(kind)


def _unreadable(path: str, error: OSError) -> RunError:
    return RunError(f"{path} cannot be read: {reason(error)}; run the same command to continue.")


def _encoded(image: Image.Image, kind: str, orientation: int) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation != 1:  # the pixels keep their stored orientation
        exif[ORIENTATION] = orientation
    if kind == "PNG":
        image.save(file, "png", exif=exif)
    else:
        image.save(file, "jpeg", quality=QUALITY, exif=exif)
    return file.getvalue()
