"""Image files of the kinds that exist, made on the spot: those that are read, and those that cannot be.

Pillow and TensorFlow write a few of them; the headers of the others are put together here.
"""

import base64
import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from tests.experiments.images import encode, gradient

HEIGHT, WIDTH = 7, 13
PIXELS = gradient(HEIGHT, WIDTH)
PIXELS[2:4, 3:6] = np.random.default_rng(0).integers(0, 256, (2, 3, 3))
LARGER = Image.fromarray(np.kron(PIXELS, np.ones((3, 3, 1), np.uint8)))  # for JPEG: more than one block
FRAMES = [Image.fromarray(np.roll(PIXELS, shift, axis=0)).quantize(16) for shift in (0, 3)]

RGB555, RGB565 = (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)
BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
RLE8, RLE4, BITFIELDS = 1, 2, 3
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the types of colour
PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]

# Of 8x8 pixels, grey; libjpeg-turbo's programs and imagecodecs wrote them.
ARITHMETIC_JPEG = {
    "JPEG, arithmetic coding": base64.b85decode(
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y3k(Yi"
        "3<(Mf3jfIf3kU!R00;pA5di<p00saM5C#9*00;pA002J#{{YhOeIvmY&FT?60|dqY*#"
    ),
    "JPEG, arithmetic coding, progressive": base64.b85decode(
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y3k(Yi"
        "3<(Mf3jfLg3kU!R00;pA5di<p00aOK|Jncu0RaF200I91rGWp;00a;P|Jncu0RaF31p*d#p1l9e00a;P|Jncu0RaF8KLQ<}&F=rq00a;P"
        "|Jncu0RaF3KOszdVE@_x2mt{A000pG%m4%s1^?Or2mt{A0Y4BVU6B9T"
    ),
}
REFUSED_JPEG = {
    "lossless": base64.b85decode(
        "|JeWF01!$>Nk#wx0RR9200961|HA+a2mlBG2mt{R0RO}Q761VO0RR910000000000000C92>;pu2mt{A0RRBc=}J<RrlL}mr75VCr722k"
        "B`Hc$nu$tMl%}Fml%*-Cl%*+3Y9%R3QlJ0X"
    ),
    "12 bits": base64.b85decode(
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y3k(Yi"
        "3<(Mf3je_X3k(1V00;pA5di<h02BZL0000000000000000000B|HJ?s5C8xM0{{R30000000000000aPDmX_~V{-r600;pA002J#74o;~"
        "ClT4RxT=$l1OM3"
    ),
    "lossless of 16 bits": base64.b85decode(
        "|JeWF01!$>Nk#wx0RR9200961|HA+a5C8}O2mt{R0RO}Q761VO0RR910000000000000aP5dYc$2mt{A0RRBW07wEr5&)0{fFuH-0zeV~"
        "kOY7v0U!wgr~r@zfFuDR2>?g}Kq>$v0U!wgNCH3-0FVlR2>?g}KoS6u1b`$0paMV=0FVTLBmp1^0H^?v1b`#~APE3S0zfJNBmp1^07wEr"
        "5&)17|Je"
    ),
    "LS": base64.b85decode(
        "|JeWN03cIPNk&Eh0ssI300008000083J3-P0003j0003j|L6b+00001|JeWc01F5J2mlBH0TBTI+5iXv0RR910D^^hSG8aS3`3Zt1{sxA"
        "R6vM`i5v}Wwy+Z0ZBQk)+JH-Kw}AiI"
    ),
}


def bmp(bits, rows, header=40, compression=0, masks=(), palette=b"", top_down=False):
    """A BMP file.

    Args:
        bits: of a pixel.
        rows: bytes of each row, from the top; or all bytes of the pixels.
        header: size of the second header, which tells its version: 12 OS/2, 40 Windows 3, 108 V4, 124 V5.
        compression: as the header has it.
        masks: of the colours, for `BITFIELDS`.
        palette: bytes.
        top_down: whether the rows are stored from the top.
    """
    if isinstance(rows, list):
        rows = b"".join(row + bytes(-len(row) % 4) for row in (rows if top_down else rows[::-1]))
    if header == 12:
        second = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        height = -HEIGHT if top_down else HEIGHT
        colours = len(palette) // 4
        second = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, bits, compression, len(rows), 0, 0, colours, 0)
        packed = b"".join(struct.pack("<I", mask) for mask in masks)
        second += packed if header == 40 else (packed + bytes(header))[: header - 40]
    start = 14 + len(second) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + second + palette + rows


def png(values, bits, colour, before=(), interlaced=False):
    """A PNG file of `(H, W, C)` values of so many bits each.

    Args:
        values: integers.
        bits: of a value.
        colour: the type of colour, by its number.
        before: chunks before the pixels, `(kind, content)`.
        interlaced: whether the pixels come in Adam7's seven passes.
    """
    passes = [values[top::down, left::right] for top, left, down, right in ADAM7] if interlaced else [values]
    rows = b"".join(b"\0" + row for part in passes if part.size for row in packed_rows(part, bits, ">"))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def chunk(kind, content):
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def packed_rows(values, bits, order="<"):
    """Returns the bytes of each row of `(H, ...)` values of so many bits, in the byte order of 16 and 32 bits."""
    rows = values.reshape(len(values), -1)
    if bits >= 8:
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    unpacked = np.unpackbits(rows.astype(np.uint8)[..., np.newaxis], axis=-1)[..., 8 - bits :]
    return [np.packbits(row).tobytes() for row in unpacked]


def runs(indices, bits):
    """The pixels of a BMP of 8 or 4 bits as runs of length 1."""
    rows = [b"".join(bytes([1, value << (8 - bits)]) for value in row) + b"\0\0" for row in indices[::-1]]
    return b"".join(rows) + b"\0\1"


def colours(count):
    """`count` colours that are not in the order of their brightness, as bytes of RGB."""
    return [bytes((37 * i % 256, 91 * i % 256, 13 * i % 256)) for i in range(count)]


def gif(screen=None, **options):
    """A GIF file; with `screen`, of a picture that lies inside a larger screen at (3, 2)."""
    content = bytearray(encode(FRAMES[0], "gif", **options))
    if screen:
        at = 13 + 3 * 2 ** ((content[10] & 7) + 1)
        while content[at] != 0x2C:  # extensions
            at += 2
            while content[at]:
                at += content[at] + 1
            at += 1
        content[6:10] = struct.pack("<HH", *screen)
        content[at + 1 : at + 5] = struct.pack("<HH", 3, 2)
    return bytes(content)


def without_segment(content, marker):
    """A JPEG file without its segments of a kind."""
    at, kept = 2, content[:2]
    while content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        kept += content[at:end] if content[at + 1] != marker else b""
        at = end
    return kept + content[at:]


def jpeg(mode="RGB", **options):
    """A JPEG file of high quality."""
    return encode(LARGER, "jpeg", mode=mode, **{"quality": 95, **options})


def ycck():
    """A JPEG file with the ink's colours turned into YCC, as graphics programs write: Pillow's, marked as such."""
    content = bytearray(jpeg("CMYK"))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


def good_kinds():
    """Returns `{name: content}` of files that are read."""
    return {**_good_bmp(), **_good_png(), **_good_gif(), **_good_jpeg()}


def _good_bmp():
    files, rng = {}, np.random.default_rng(0)
    for bits in (1, 4, 8):
        indices = rng.integers(0, 2**bits, (HEIGHT, WIDTH))
        rows, palette = packed_rows(indices, bits), b"".join(colour + b"\0" for colour in colours(2**bits))
        for top_down in (False, True):
            order = ", from the top" if top_down else ""
            files[f"BMP, palette of {bits} bits{order}"] = bmp(bits, rows, palette=palette, top_down=top_down)
        files[f"BMP, palette of {bits} bits, OS/2"] = bmp(bits, rows, 12, palette=b"".join(colours(2**bits)))
        files[f"BMP, palette of {bits} bits, V5"] = bmp(bits, rows, 124, palette=palette)
        greys = np.linspace(0, 255, 2**bits).round().astype(np.uint8)
        for name, ramp in (("grey", greys), ("grey from white to black", greys[::-1])):
            palette = b"".join(bytes((grey, grey, grey, 0)) for grey in ramp.tolist())
            files[f"BMP, {name}, {bits} bits"] = bmp(bits, rows, palette=palette)
        if bits > 1:
            compression = RLE8 if bits == 8 else RLE4
            coded = runs(indices.tolist(), bits)
            files[f"BMP, runs of {bits} bits"] = bmp(bits, coded, compression=compression, palette=palette)

    red, green, blue = (PIXELS[..., i].astype(np.uint32) for i in range(3))
    rows555 = packed_rows(red >> 3 << 10 | green >> 3 << 5 | blue >> 3, 16)
    rows565 = packed_rows(red >> 3 << 11 | green >> 2 << 5 | blue >> 3, 16)
    files["BMP, 16 bits"] = bmp(16, rows555)
    files["BMP, 16 bits, masks of 555"] = bmp(16, rows555, compression=BITFIELDS, masks=RGB555)
    for header in (40, 108, 124):
        files[f"BMP, 16 bits, 565, header of {header}"] = bmp(16, rows565, header, BITFIELDS, RGB565)
    files["BMP, 16 bits, 565, from the top"] = bmp(16, rows565, 40, BITFIELDS, RGB565, top_down=True)

    bgr = PIXELS[..., ::-1]
    alpha = np.full((HEIGHT, WIDTH, 1), 200, np.uint8)
    rows24, rows32 = packed_rows(bgr, 8), packed_rows(np.dstack([bgr, alpha]), 8)
    for header in (12, 40, 52, 56, 64, 108, 124):
        files[f"BMP, 24 bits, header of {header}"] = bmp(24, rows24, header)
    files["BMP, 24 bits, from the top"] = bmp(24, rows24, top_down=True)
    files["BMP, 32 bits"] = bmp(32, rows32)
    files["BMP, 32 bits, from the top"] = bmp(32, rows32, top_down=True)
    files["BMP, 32 bits, masks"] = bmp(32, rows32, 40, BITFIELDS, BGRA[:3])
    files["BMP, 32 bits, V4"] = bmp(32, rows32, 108, BITFIELDS, BGRA)
    rows32 = packed_rows(np.dstack([PIXELS, alpha]), 8)
    files["BMP, 32 bits, V5, red first"] = bmp(32, rows32, 124, BITFIELDS, (0xFF, 0xFF00, 0xFF0000, 0xFF000000))
    return files | {"DIB, a BMP without its first header": files["BMP, 24 bits, header of 40"][14:]}


def _good_png():
    files, rng = {}, np.random.default_rng(0)
    for colour, depths in PNG_BITS.items():
        for bits in depths:
            values = rng.integers(0, 2**bits, (HEIGHT, WIDTH, PNG_CHANNELS[colour]))
            palette = [(b"PLTE", b"".join(colours(2**bits)))] if colour == 3 else []
            transparent = {0: struct.pack(">H", int(values[0, 0, 0])), 3: bytes(2)}
            transparent[2] = struct.pack(">HHH", *values[0, 0].tolist()) if colour == 2 else b""
            for interlaced in (False, True):
                name = f"PNG, colour {colour}, {bits} bits" + ", interlaced" * interlaced
                files[name] = png(values, bits, colour, palette, interlaced)
                if colour in transparent:
                    chunks = [*palette, (b"tRNS", transparent[colour])]
                    files[name + ", transparent colour"] = png(values, bits, colour, chunks, interlaced)
    files["PNG, gamma"] = png(PIXELS, 8, 2, [(b"gAMA", struct.pack(">I", 100000))])
    files["PNG, an unknown chunk"] = png(PIXELS, 8, 2, [(b"teSt", b"what")])
    files["PNG, something behind its end"] = files["PNG, gamma"] + b"behind"
    files["PNG, animated"] = encode(FRAMES[0], save_all=True, append_images=FRAMES[1:])
    return files


def _good_gif():
    more = {"save_all": True, "append_images": FRAMES[1:]}
    return {
        "GIF": gif(),
        "GIF of 1987": b"GIF87a" + gif(interlace=0)[6:],
        "GIF, interlaced": gif(interlace=1),
        "GIF, a transparent colour": gif(transparency=3),
        "GIF, grey": encode(PIXELS[..., 0], "gif"),
        "GIF, animated": gif(**more),
        "GIF, animated, with a background between": gif(**more, disposal=2),
        "GIF inside a larger screen": gif(screen=(WIDTH + 9, HEIGHT + 4)),
        "GIF inside a larger screen, transparent": gif(screen=(WIDTH + 9, HEIGHT + 4), transparency=1),
        "GIF without its end": gif()[:-1],
    }


def _good_jpeg():
    files = {f"JPEG, subsampling {i}": jpeg(subsampling=i) for i in range(3)}
    for mode in ("L", "RGB", "CMYK"):
        files[f"JPEG, {mode}"] = jpeg(mode)
        files[f"JPEG, {mode}, progressive"] = jpeg(mode, progressive=True)
        files[f"JPEG, {mode}, restart markers"] = jpeg(mode, restart_marker_blocks=1)
    files["JPEG, YCCK"] = ycck()
    files["JPEG, RGB without YCC"] = jpeg(keep_rgb=True)
    files["JPEG with pictures behind it (MPO)"] = encode(LARGER, "mpo", save_all=True, append_images=[LARGER])
    files["JPEG, something behind its end"] = jpeg() + b"behind"
    files["JPEG, fill bytes"] = jpeg()[:2] + b"\xff\xff" + jpeg()[2:]
    files["JPEG without JFIF"] = without_segment(jpeg(), 0xE0)
    files["JPEG without tables of codes"] = without_segment(jpeg(), 0xC4)
    return files | ARITHMETIC_JPEG


def without_chunk(content, name):
    """Returns a PNG without the chunks of a name."""
    at = content.index(name) - 4
    length = int.from_bytes(content[at : at + 4])
    return content[:at] + content[at + 12 + length :]


def with_header_byte(content, position, value):
    """Returns a PNG with another byte in its header, and the checksum of that."""
    header = bytearray(content[16:29])
    header[position] = value
    return content[:8] + chunk(b"IHDR", bytes(header)) + content[33:]


def before_end(content, addition):
    """Returns a PNG with something before its last chunk."""
    return content[:-12] + addition + content[-12:]


def with_thumbnail(content):
    """Returns a JPEG with another one, whole, in a segment of its header."""
    inside = b"Exif\0\0" + jpeg()
    return content[:2] + b"\xff\xe1" + (len(inside) + 2).to_bytes(2) + inside + content[2:]


def refused_kinds():
    """Returns `{name: (content, problem)}` of images that cannot be read, with what a person is told of each."""
    values = np.zeros((HEIGHT, WIDTH, 3), int)
    two_bits, rows16, rows32 = (packed_rows(values[..., 0], bits) for bits in (2, 16, 32))
    palette = b"".join(colour + b"\0" for colour in colours(4))
    apple = png(PIXELS, 8, 2).replace(b"\r\n\x1a\n", b"\r\n\x1a\n" + chunk(b"CgBI", bytes(4)), 1)
    rare = "a damaged {} file, or one of a kind that cannot be decoded here".format
    return {
        "BMP, 2 bits": (bmp(2, two_bits, palette=palette), rare("BMP")),
        "BMP, 16 bits, 444": (bmp(16, rows16, 40, BITFIELDS, (0xF00, 0xF0, 0xF)), rare("BMP")),
        "BMP, 10 bits a colour": (bmp(32, rows32, 40, BITFIELDS, (0x3FF00000, 0xFFC00, 0x3FF)), rare("BMP")),
        "BMP with a JPEG inside": (bmp(0, jpeg(), compression=4), rare("BMP")),
        "PNG of Apple": (apple, "PNG in Apple's variant cannot be decoded here"),
        "PNG without its palette": (png(values[..., :1], 8, 3), "a PNG without its palette"),
        "PNG without its end": (png(PIXELS, 8, 2)[:-12], "the file is truncated"),
        "PNG of no width": (png(values[:, :0], 8, 2), rare("PNG")),
        "PNG without a picture": (without_chunk(png(PIXELS, 8, 2), b"IDAT"), rare("PNG")),
        "PNG interlaced in an unknown way": (with_header_byte(png(PIXELS, 8, 2), 12, 2), rare("PNG")),
        "PNG with an unknown critical chunk": (before_end(png(PIXELS, 8, 2), chunk(b"ABCD", b"1")), rare("PNG")),
        "PNG with two headers": (before_end(png(PIXELS, 8, 2), png(PIXELS, 8, 2)[8:33]), rare("PNG")),
        "PNG whose end is truncated": (png(PIXELS, 8, 2)[:-1], "the file is truncated"),
        "JPEG without its end, but with that of a thumbnail": (with_thumbnail(jpeg()[:-2]), "the file is truncated"),
        "JPEG without its end": (jpeg()[:-2], "the file is truncated"),
        "JPEG without tables": (without_segment(jpeg(), 0xDB), "lossless JPEG cannot be decoded here"),
        "JPEG with something before it": (b"\0" + jpeg(), "not an image"),
        "JPEG, lossless": (REFUSED_JPEG["lossless"], "lossless JPEG cannot be decoded here"),
        "JPEG, 12 bits": (REFUSED_JPEG["12 bits"], rare("JPEG")),
        "JPEG, lossless of 16 bits": (REFUSED_JPEG["lossless of 16 bits"], rare("JPEG")),
        "JPEG-LS": (REFUSED_JPEG["LS"], rare("JPEG")),
        "PPM": (encode(PIXELS, "ppm"), "PPM is a format that cannot be decoded here"),
    }


def pillow_pixels(content):
    """Returns what Pillow shows on white, upright, `(H, W, 3)` uint8."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode.startswith("I"):
        transparent = image.info.get("transparency")
        values = np.asarray(image).astype(np.float64)
        pixels = np.where(values == transparent, 255, (values / 257).round()).astype(np.uint8)
        return np.repeat(pixels[..., np.newaxis], 3, axis=-1)
    image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
