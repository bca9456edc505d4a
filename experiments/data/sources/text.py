"""Texts from files, such as names and cells of tables, as messages show them."""

import os

LONGEST = 60  # characters of a text that a message quotes


def printable(text):
    """Writes the bytes of names that are not UTF-8 as `\\xe9`, because they cannot be printed or written as text."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def quoted(text):
    """Returns a text as one short line: control characters are escaped, and what is longer than `LONGEST` is cut."""
    cut = printable(text[: LONGEST + 1])
    line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
