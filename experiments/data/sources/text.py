"""Texts from files, such as names and cells of tables, as messages show them."""

import os
import unicodedata

LONGEST = 60  # characters of a text that a message quotes


def printable(text: str) -> str:
    """Returns a name as one line: bytes that are not UTF-8 are written as `\\xe9`, control characters as `\\n`."""
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    controls = {one for one in text if unicodedata.category(one) in ("Cc", "Zl", "Zp")}
    return text.translate({ord(one): one.encode("unicode_escape").decode() for one in controls})


def quoted(text: str) -> str:
    """Returns a text as one short `printable` line: what is longer than `LONGEST` is cut."""
    line = printable(text[: LONGEST + 1])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
