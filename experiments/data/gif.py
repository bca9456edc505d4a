"""How large a GIF becomes when it is decoded."""

import struct

EXTENSION, PICTURE = b"\x21", b"\x2c"


def gif_pixels(path):
    """Returns the number of pixels of all pictures of a GIF file together, without decoding any.

    TensorFlow decodes all of them at once, also those that nobody sees, and each may be larger than the file's screen.
    """
    pixels = 0
    with open(path, "rb") as file:
        file.seek(6)
        _, _, flags, _, _ = struct.unpack("<HHBBB", file.read(7))
        _skip_palette(file, flags)
        while (block := file.read(1)) in (EXTENSION, PICTURE):
            if block == PICTURE:
                if len(head := file.read(9)) < 9:  # cut short
                    break
                _, _, width, height, flags = struct.unpack("<HHHHB", head)
                pixels += width * height
                _skip_palette(file, flags)
            file.seek(1, 1)  # the label of an extension, or the size of a picture's codes
            _skip_data(file)
    return pixels


def _skip_palette(file, flags):
    if flags & 0x80:
        file.seek(3 * 2 ** ((flags & 7) + 1), 1)


def _skip_data(file):
    while size := file.read(1):
        if not size[0]:
            return
        file.seek(size[0], 1)
