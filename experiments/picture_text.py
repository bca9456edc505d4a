"""Text in pictures: names of classes, files and runs, in any script."""

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from matplotlib import font_manager

# Fonts that come with matplotlib and have other characters than they say, or boxes for all.
MISLEADING = ("cm", "STIXNonUnicode", "STIXSize", "Last Resort")


@contextlib.contextmanager
def plain_text(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Context in which pictures are made and saved with texts as they are: no formulas, whatever dollars they hold.

    Characters that the usual font lacks are drawn in another installed font that has them. Nothing is warned of where
    there is none.

    Args:
        texts: that the pictures show.

    Yields:
        The same, a tuple, with `class N`, counted from 1, in place of one that no installed fonts can show.
    """
    families, missing = _fonts_for("".join(sorted(set("".join(texts)))))
    settings: dict[Any, Any] = {
        "text.parse_math": False,
        "font.family": [*matplotlib.rcParams["font.family"], *families],
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield tuple(f"class {i}" if missing & set(text) else text for i, text in enumerate(texts, 1))


@functools.lru_cache
def _fonts_for(characters: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Returns families of fonts with the characters that the usual font lacks, and those that none has."""
    missing = {character for character in characters if character.isprintable()}
    missing -= _characters(font_manager.findfont(font_manager.FontProperties()))
    families = []
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.name, font.fname)) if missing else ():
        if not font.name.startswith(MISLEADING) and missing & (found := _characters(font.fname)):
            families.append(font.name)
            missing -= found
    return tuple(families), frozenset(missing)


def _characters(path: str) -> set[str]:
    try:
        return set(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # a damaged font
        return set()
