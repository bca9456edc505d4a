"""From the bytes of an image file to pixels."""

import tensorflow as tf


def decode_and_crop(encoded, choose_window, channels):
    """Decodes the part of an image that is needed.

    Of a JPEG only the blocks under the window are decoded, with Pillow's arithmetic. CMYK becomes RGB, an alpha channel
    is dropped, a palette looked up, of 16 bits the upper 8 count, of an animation the first picture. The format is told
    by the first bytes; a note in the file that it is to be shown turned is not heeded.

    Args:
        encoded: scalar string tensor, the bytes of a JPEG, PNG, BMP or GIF file.
        choose_window: function from `(height, width)`, an int32 tensor, to `(top, left, height, width)`.
        channels: 1 or 3.

    Returns:
        `(h, w, channels)` uint8.

    Raises:
        InvalidArgumentError: when it is run, if the bytes are no such file, or cut short. A BMP with a palette is read
            wrong: its colours' numbers become grey values. (Folders leave such files out.)
    """

    def decode_jpeg():
        window = choose_window(tf.io.extract_jpeg_shape(encoded)[:2])
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")

    def decode_other():
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        top, left, height, width = tf.unstack(choose_window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    image = tf.ensure_shape(tf.cond(tf.io.is_jpeg(encoded), decode_jpeg, decode_other), (None, None, 3))
    return tf.image.rgb_to_grayscale(image) if channels == 1 else image
