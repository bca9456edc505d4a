"""HTML put together from parts: whatever is not made here is escaped."""

import html

VOID = ("br", "col", "img", "link", "meta")  # elements without content


class Markup(str):
    """Text that is HTML already."""


def tag(name, /, *children, **attributes):
    """Returns an element.

    Args:
        name: of the element.
        *children: its content. `Markup` is taken as it is and everything else as text; lists are gone through, and
            None is left out.
        **attributes: of the element; None leaves one out. `class_` is `class`, `data_label` is `data-label`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{join(*children)}</{name}>")


def join(*children):
    """Returns several parts, one after the other; see `tag`."""
    return Markup("".join(_written(child) for child in children))


def table(head, rows, **attributes):
    """Returns a table that scrolls sideways where it is too wide, the first cell of each row its heading.

    Args:
        head: cells of the heading.
        rows: lists of cells. A cell that is an element `td` or `th` is taken as it is.
        **attributes: of the table.
    """
    head = tag("thead", tag("tr", [_cell("th", cell, scope="col") for cell in head]))
    body = [tag("tr", _cell("th", row[0], scope="row"), [_cell("td", cell) for cell in row[1:]]) for row in rows]
    return tag("div", tag("table", head, tag("tbody", body), **attributes), class_="scroll")


def fold(summary, *children, **attributes):
    """Returns content that is folded away behind a line."""
    return tag("details", tag("summary", summary), *children, **attributes)


def _cell(name, content, **attributes):
    made = isinstance(content, Markup) and content.startswith(("<td", "<th"))
    return content if made else tag(name, content, **attributes)


def _written(child):
    if child is None:
        return ""
    if isinstance(child, (list, tuple)):
        return join(*child)
    return child if isinstance(child, Markup) else html.escape(str(child))
