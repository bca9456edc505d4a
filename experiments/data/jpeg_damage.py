"""Detects damage in the middle of a JPEG file, which decoders do not report.

Pillow and TensorFlow read a JPEG with zeroed, lost or foreign bytes in its middle without an error: libjpeg warns, and
leaves the rest of the picture grey or shifted. The entropy-coded data has no checksum, but after such bytes the decoder
is out of sync, and its last block is not where the data ends. So a file is damaged if data is left over after the last
block, if the data ends before it, or if it contains a marker that does not belong there. Damage after which the decoder
resynchronizes by chance is not detected: most flipped bits, and short runs of lost or zeroed bytes more often than long
ones.
"""

import io
import logging
import os
import re
import struct
from collections.abc import Sequence
from typing import cast

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from experiments.data.files import memoized

FRAMES = (0xC0, 0xC1, 0xC2)  # sequential and progressive, of Huffman codes; arithmetic codes may end early
OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN, END, INTERVAL = 0xDA, 0xD9, 0xDD
SEGMENTS = frozenset((0xC4, 0xCC, 0xDB, 0xDC, INTERVAL, 0xFE, *range(0xE0, 0xF0)))
BARE = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))  # markers without a length; decoders skip them between segments
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # other forms of the expression take as long as decoding
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
PADDING = b"\x00\xaa\x55\xaa\x55\xaa\x55\xaa"  # as many bytes as decoders read ahead; no marker behind \xff
SPARE = 3  # bytes that may be left over, besides zeros: some programs and cameras pad to whole words
STRAY = 8  # MCUs, of up to 32 pixels a side, that the padding bits of the last byte may change
MAX_SIDE, MAX_PIXELS = 65500, 2**26  # of images that are decoded twice for the check
NAMED = 20  # damaged files that a run names
WHOLE, DAMAGED = 0, 1

_found: set[bytes] = set()  # keys of damaged images


def checked(encoded: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of an image file, in the graph of a data set; a damaged JPEG is an error there, and is logged.

    A process checks each image once and remembers the result: later epochs do not pay for it.

    Args:
        encoded: scalar string tensor.
        key: scalar string tensor that identifies the image: the path of the file, or its bytes again.

    Raises:
        InvalidArgumentError: when it is run, if `is_damaged`.
    """

    def whole() -> tf.Tensor:
        result = memoized(_check, key, encoded, key)
        with tf.control_dependencies([tf.debugging.assert_equal(result, tf.constant(WHOLE, tf.int64), "damaged JPEG")]):
            return tf.identity(encoded)

    return tf.cond(tf.io.is_jpeg(encoded), whole, lambda: encoded)


def _check(content: bytes | np.ndarray, key: bytes | np.ndarray) -> np.int64:
    content, key = (cast(bytes, np.asarray(value, object).item()) for value in (content, key))
    if not is_damaged(content):
        return np.int64(WHOLE)
    known = key in _found  # checked twice at the same time
    _found.add(key)
    if len(_found) <= NAMED and not known:
        name = "an image" if key == content else os.fsdecode(key)
        more = "; further ones are not named" if len(_found) == NAMED else ""
        logging.getLogger("experiments").warning("%s is a damaged JPEG and counts as unreadable%s.", name, more)
    return np.int64(DAMAGED)


def is_damaged(content: bytes) -> bool:
    """Whether the entropy-coded data of a JPEG file, given as bytes, does not end where its picture does.

    The usual kind, of one scan without restart markers, is decoded to an eighth of its size, which takes two thirds
    as long as in full; the others are decoded twice in full. Other files, and kinds of JPEG that are not checked, count
    as intact: the decoder decides.
    """
    try:
        structure = _structure(content)
        if structure is None:
            return False
        frame, scans, restarts = structure
        if not scans or any(match[0][1] != 0xD0 + i % 8 for found in restarts for i, match in enumerate(found)):
            return True
        assert frame is not None
        if content[frame + 1] != 0xC2 and len(scans) == 1 and not any(restarts):
            return _ends_elsewhere(content, *scans[0])
        return _ends_elsewhere_in_a_scan(content, frame, scans)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return False
    except Exception:  # whatever the damage leads Pillow to
        return True


def _structure(content: bytes) -> tuple[int | None, list[tuple], list[list]] | None:
    """Returns the position of the frame header, the span of each scan's data, and the restart markers in it.

    None for kinds of files that are not checked; no scans if a marker is in the wrong place.
    """
    at, frame, scans, interval = 2, None, [], 0
    while (at := content.find(b"\xff", at)) >= 0:
        while content[at + 1 : at + 2] == b"\xff":  # fill bytes
            at += 1
        found, size = content[at + 1 : at + 2], int.from_bytes(content[at + 2 : at + 4])
        marker = found[0] if found else END
        if marker == END or marker in OTHER_FRAMES:
            break
        if marker in FRAMES:
            frame = at
        elif marker == INTERVAL:
            interval = int.from_bytes(content[at + 4 : at + 6])
        elif marker == SCAN:
            end = SCAN_END.search(content, at + 2 + size)
            if end is None or content[end.start() + 1] not in SEGMENTS | {SCAN, END}:
                return frame, [], []
            scans.append((at + 2 + size, end.start()))
        elif marker not in SEGMENTS | BARE:
            return frame, [], []
        at = scans[-1][1] if marker == SCAN else at + 2 + (0 if marker in BARE else size)
    if frame is None or marker in OTHER_FRAMES:
        return None
    restarts = [list(RESTART.finditer(content, *scan)) for scan in scans]
    return frame, [] if any(restarts) and not interval else scans, restarts


class _InTwoParts(io.BytesIO):
    """A file that gives Pillow its image data in two parts, and records how far the decoder had to read."""

    def __init__(self, *parts: bytes) -> None:
        super().__init__(parts[0])
        self.parts: list[bytes] | None = None
        self.waiting = list(parts)

    def read(self, size: int | None = -1) -> bytes:
        if self.parts is None:
            return super().read(size)
        return self.parts.pop(0) if self.parts else b""


def _ends_elsewhere(content: bytes, start: int, end: int) -> bool:
    """Whether the data of the only scan ends before its last block or continues after it."""
    needed = max(start, start + len(content[start:end].rstrip(b"\x00\xff")) - 1 - SPARE)
    file = _InTwoParts(content[:needed], content[needed:end] + PADDING)
    with Image.open(file) as image:
        image.draft(image.mode, (1, 1))
        file.parts = file.waiting
        try:
            image.load()
        except OSError as error:
            if "truncated" in str(error):
                return True
            raise
    return bool(file.parts)


def _ends_elsewhere_in_a_scan(content: bytes, frame: int, scans: Sequence[tuple[int, int]]) -> bool:
    """Whether the data of a scan, or between restart markers, ends before the last block or continues after it."""
    # The picture is extended downwards. Left-over data shows in the extension, which is otherwise grey. Data appended
    # to each scan also shows there, and inside the picture only if the scan ends too early.
    height, width, components = struct.unpack_from(">HHB", content, frame + 5)
    block = 8 * max(content[frame + 11 + 3 * i] & 15 for i in range(components))
    bottom = -(-height // block) * block
    stray = -(-STRAY // -(-width // 32)) * block  # rows of pixels
    taller = bottom + stray + 3 * block
    if taller > MAX_SIDE or taller * width > MAX_PIXELS:
        return False

    def decode(padding: bytes) -> np.ndarray:
        parts = [content[: frame + 5], taller.to_bytes(2), content[frame + 7 : scans[0][0]]]
        for (start, end), (following, _) in zip(scans, [*scans[1:], (len(content), 0)]):
            codes = RESTART.sub(lambda match: padding + match[0], content[start:end])
            parts += [codes, padding, content[end:following]]
        with Image.open(io.BytesIO(b"".join(parts))) as image:
            return np.asarray(image)

    pixels = decode(b"")
    below = pixels[bottom + 1 :].copy()
    below[: stray + 1, : 32 * STRAY + 8] = below[-1, -1]  # and what is smoothed into the surroundings
    return bool((below != below[-1, -1]).any() or (pixels[: height - 1] != decode(8 * PADDING)[: height - 1]).any())
