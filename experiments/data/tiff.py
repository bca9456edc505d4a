"""What TIFF files say of their pixels: pages, orientation, and the value of missing data."""

import io
import logging
import re
import typing

if typing.TYPE_CHECKING:
    import tifffile

PAGE = 2  # the bit of `NewSubfileType` of one page of several
ORIENTATION, XMP, GDAL_NO_DATA = 274, 700, 42113  # tags


def tiff_file(file: typing.BinaryIO) -> "tifffile.TiffFile":
    """Returns the `tifffile.TiffFile` of an open file."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it warns of every damaged tag, even unimportant ones
    return tifffile.TiffFile(file)


def first_page(tiff: "tifffile.TiffFile") -> "tifffile.TiffPage":
    """Returns the first page of a TIFF file."""
    return typing.cast("tifffile.TiffPage", tiff.pages[0])


def full_pages(tiff: "tifffile.TiffFile") -> list[typing.Any]:
    """Returns the pages of a TIFF file that are no overviews, masks or the like."""
    pages: list[typing.Any] = list(tiff.pages)  # pages, or frames, which have the tags of an earlier page, `keyframe`
    return [page for page in pages if page.keyframe.subfiletype & ~PAGE == 0]


def tiff_orientation(page: "tifffile.TiffPage") -> int:
    """Returns the orientation of a page of a TIFF file, 1 to 8; 1 if the file does not give it."""
    tag = page.tags.get(ORIENTATION)
    if tag is None and (notes := page.tags.get(XMP)) is not None:
        found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", bytes(notes.value))
        return int(found[1]) if found else 1
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def declared_no_data(content: bytes) -> float | None:
    """Returns the value that the first page of a TIFF file declares as missing data, as GDAL writes it; None for none.

    Args:
        content: the bytes of an image file of any format.
    """
    if content[:2] not in (b"II", b"MM"):
        return None
    try:
        tag = first_page(tiff_file(io.BytesIO(content))).tags.get(GDAL_NO_DATA)
        return float(tag.value) if tag else None
    except (TypeError, ValueError):  # a text that is no number, or not a TIFF file
        return None
