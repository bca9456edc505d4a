"""Converts an image as stored to the values that the model sees: channels, scale, and pixels without data.

All values are brought to [0, 255] in float32, without rounding: 0 is black, or the lower end of `data.value_range`;
values outside of that range are clipped.
"""

import dataclasses
import io
from typing import Self

import numpy as np

from experiments.config import MAX_PIXELS, DataConfig
from experiments.data.formats import FIRST, Header, Stored, UnreadableError, check_size, read_header, upright

FLOATING = ("TIFF", "NPY")  # formats that have floating point
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey, as in TensorFlow


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the values of image files are read; the fields are those of `DataConfig`.

    Args:
        channels: number of channels of the result; 0 for files that are only listed, with any number.
        bands: channels of the file to use, counted from 1; empty for all.
        value_range: `(low, high)`, the values that stand for black and white; empty for the range of the file's type,
            of floating point [0, 1].
        no_data: values of pixels without data, beside NaN, which is written `nan`; empty where all pixels have data.
        background: what shows through transparent pixels, in [0, 1]: one number, or one for each channel.
        pages: of a TIFF file, `first` or `all`.
        max_pixels: largest number of pixels of an image that is decoded.
    """

    channels: int = 3
    bands: tuple[int, ...] = ()
    value_range: tuple[float, ...] = ()
    no_data: tuple[float | str, ...] = ()
    background: tuple[float, ...] = (1.0,)
    pages: str = FIRST
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, data: DataConfig) -> Self:
        """Returns the reading of a `DataConfig`."""
        return cls(**{field.name: getattr(data, field.name) for field in dataclasses.fields(cls)})

    @property
    def has_gaps(self) -> bool:
        """Whether pixels may be without data: NaN among the values."""
        return bool(self.no_data)

    @property
    def is_plain(self) -> bool:
        """Whether 8-bit images, grey or colour, are read as other programs show them."""
        of_8_bits = set(self.no_data) <= {"nan"} and self.pages == FIRST
        return self.channels in (1, 3) and of_8_bits and not self.bands and not self.value_range

    def check(self, header: Header) -> None:
        """Raises UnreadableError for an image that is too large, or whose channels do not match the configuration.

        Grey and colour are converted into each other; alpha counts as a channel if the number is then right, or if a
        band names it.
        """
        check_size(header, self.max_pixels)
        colours = header.channels - header.alpha
        if self.bands:
            if max(self.bands) > header.channels:
                raise UnreadableError(
                    f"it has {header.channels} channels, and data.bands asks for number {max(self.bands)}"
                )
        elif self.channels and self.channels not in (colours, header.channels) and {self.channels, colours} != {1, 3}:
            raise UnreadableError(
                f"it has {colours} channels, and the model takes {self.channels}; for training, data.channels sets "
                "that number, and data.bands chooses among an image's channels"
            )

    def values(self, content: bytes) -> np.ndarray:
        """Decodes the bytes of a file: `(H, W, channels)` float32 in [0, 255], upright, NaN where there is no data.

        Raises:
            UnreadableError: if the file cannot be read, or does not fit the configuration.
            Exception: of any type, from the libraries, for a damaged file.
        """
        _, header, decode = read_header(io.BytesIO(content), self.pages)
        self.check(header)
        return self._of_stored(decode())

    def is_float(self, content: bytes) -> bool:
        """Whether the values of a file, given as bytes, are floating point; raises the same errors as `values`."""
        name, header, decode = read_header(io.BytesIO(content), self.pages)
        self.check(header)
        if name not in FLOATING or (stored := decode()).pixels.dtype.kind != "f":
            return False
        dataclasses.replace(self, no_data=self.no_data or ("nan",))._of_stored(stored)
        return True

    def _of_stored(self, stored: Stored) -> np.ndarray:
        pixels = upright(stored.pixels, stored.orientation)
        opacity, count = None, pixels.shape[-1]
        last_is_asked_for = max(self.bands) == count if self.bands else self.channels == count
        if stored.alpha and not last_is_asked_for:
            largest = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
            opacity, pixels = pixels[..., -1:] / np.float32(stored.largest or largest), pixels[..., :-1]
            if not ((opacity >= 0) & (opacity <= 1)).all():  # or NaN
                raise UnreadableError("its alpha channel has values outside of [0, 1]")
        if self.bands:
            pixels = pixels[..., [band - 1 for band in self.bands]]
        values = self._scaled(pixels, stored.largest)
        if values.shape[-1] != self.channels:
            is_colour = self.channels == 1
            values = (
                values @ np.array(LUMA, np.float32)[:, np.newaxis]
                if is_colour
                else np.repeat(values, self.channels, axis=-1)
            )
        if opacity is not None:
            values = np.float32(255 * np.array(self.background)) * (1 - opacity) + values * opacity
        return np.ascontiguousarray(values, np.float32)

    def _scaled(self, pixels: np.ndarray, largest: int) -> np.ndarray:
        is_float = pixels.dtype.kind == "f"
        gaps = ~np.isfinite(pixels) if is_float else np.zeros(pixels.shape, bool)
        with np.errstate(over="ignore"):  # a number beyond the type of the pixels is equal to none
            for value in self.no_data:
                gaps |= pixels == float(value)
        if gaps.any() and not self.has_gaps:
            raise UnreadableError("it has pixels without data (NaN): set data.no_data=nan")
        if self.value_range:
            low, high = self.value_range
        elif is_float:
            low, high = 0.0, 1.0
            known = pixels[~gaps]
            if known.size and (known.min() < low or known.max() > high):
                raise UnreadableError(
                    f"its values range from {known.min():g} to {known.max():g}, but floating point should be in "
                    "[0, 1]: set data.value_range=LOW,HIGH"
                )
        else:
            limits = np.iinfo(pixels.dtype)
            low, high = float(limits.min), float(largest or limits.max)
        if pixels.dtype == np.uint8 and (low, high) == (0.0, 255.0):
            values = pixels.astype(np.float32)
        else:
            values = ((pixels.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.float32).clip(0.0, 255.0)
        return np.where(gaps, np.float32(np.nan), values) if gaps.any() else values
