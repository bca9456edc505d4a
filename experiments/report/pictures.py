"""Pictures that lie in files, as parts of a page."""

import base64
import dataclasses
import io

from PIL import Image

from experiments.report.markup import tag

LARGE = 400_000  # bytes above which a picture is compressed with a loss that cannot be seen
QUALITY = 88


class DamagedPicture(Exception):  # noqa: N818  (its message is part of a sentence)
    """A file holds no picture that can be shown."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        kind: `png` or `webp`.
        content: the encoded picture, bytes.
        width: pixels.
        height: pixels.
    """

    kind: str
    content: bytes
    width: int
    height: int

    def element(self, description):
        """Returns the picture as HTML that needs no other file; `description` stands for it where none is shown."""
        source = f"data:image/{self.kind};base64,{base64.b64encode(self.content).decode()}"
        return tag("img", src=source, alt=description, width=self.width, height=self.height)


def read_picture(path):
    """Returns the `Picture` in a PNG file.

    Raises:
        DamagedPicture: if it cannot be decoded.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            if len(content) <= LARGE:
                return Picture("png", content, *image.size)
            smaller = io.BytesIO()
            image.convert("RGB").save(smaller, "webp", quality=QUALITY)
            return Picture("webp", smaller.getvalue(), *image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedPicture(str(error).partition(" <")[0] or type(error).__name__) from error
