"""From the bytes of an image file to pixels."""

import tensorflow as tf

from experiments.config.data import MAX_PIXELS


def decode_and_crop(encoded, choose_window, channels, max_pixels=MAX_PIXELS):
    """Decodes the part of an image that is needed.

    Of a JPEG only the blocks under the window are decoded, with Pillow's arithmetic. CMYK becomes RGB, an alpha channel
    is dropped, a palette looked up, of 16 bits the upper 8 count, of an animation the first picture. The format is told
    by the first bytes; a note in the file that it is to be shown turned is not heeded.

    Args:
        encoded: scalar string tensor, the bytes of a JPEG, PNG, BMP or GIF file.
        choose_window: function from `(height, width)`, an int32 tensor, to `(top, left, height, width)`.
        channels: 1 or 3.
        max_pixels: largest number of pixels that an image may have; a larger one is not decoded at all.

    Returns:
        `(h, w, channels)` uint8.

    Raises:
        InvalidArgumentError: when it is run, if the bytes are no such file, cut short, or of too many pixels. A
            BMP with a palette is read wrong: its colours' numbers become grey values. (Folders leave such files out.)
    """

    def decode_jpeg():
        size = tf.io.extract_jpeg_shape(encoded)[:2]
        with tf.control_dependencies([_check_size(size, max_pixels)]):
            window = choose_window(size)
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")

    def decode_other():
        with tf.control_dependencies([_check_size(_declared_size(encoded), max_pixels)]):
            image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        top, left, height, width = tf.unstack(choose_window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    image = tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), decode_jpeg, decode_other), (None, None, 3))
    return tf.image.rgb_to_grayscale(image) if channels == 1 else image


def _declared_size(encoded):
    """Returns the two sides that the first bytes of a PNG, GIF or BMP declare, `(2,)`."""

    def sides(start, kind, little_endian=True):
        field = tf.strings.substr(encoded, start, 2 * kind.size)
        return tf.cast(tf.io.decode_raw(field, kind, little_endian=little_endian), tf.int64)

    def begins_with(*magic):
        return tf.reduce_any(tf.strings.substr(encoded, 0, len(magic[0])) == list(magic))

    return tf.cond(
        begins_with(b"\x89PNG"),
        lambda: sides(16, tf.int32, little_endian=False),
        lambda: tf.cond(begins_with(b"GIF8"), lambda: sides(6, tf.uint16), lambda: sides(18, tf.int32)),
    )


def _check_size(size, max_pixels):
    """Returns the operation that raises InvalidArgumentError for an image of more than `max_pixels`."""
    # A BMP that is stored from top to bottom has a negative height.
    pixels = tf.reduce_prod(tf.abs(tf.cast(size, tf.int64)))
    return tf.debugging.assert_less_equal(pixels, tf.constant(max_pixels, tf.int64), "too many pixels")
