"""The picture of a search: each query, and the images nearest to it."""

import textwrap

from matplotlib.figure import Figure

PER_ROW = 8  # nearest images beside each other
SIDE = 1.75  # inches of an image
CAPTION = 0.62  # inches below it
LETTERS = 24  # of a line of a caption
LINES = 2
DPI = 110


def draw_search(path, found, queries, pictures, caption):
    """Draws a row or more for each query: the query in the first column, then the nearest images.

    Images keep their shape. Below each stand its name and its cosine similarity to the query.

    Args:
        path: of the PNG file.
        found: list of `Found`.
        queries: images of the queries, `(H, W, 3)` uint8, or None for one that cannot be read.
        pictures: `{position: image}` of the others, in the same form.
        caption: function from a position to the name of an image.
    """
    most = max(len(one.neighbours) for one in found)
    columns = 1 + min(most, PER_ROW)
    rows = [(i, start) for i, one in enumerate(found) for start in range(0, max(len(one.neighbours), 1), PER_ROW)]
    figure = Figure(figsize=(columns * SIDE * 1.06, len(rows) * (SIDE + CAPTION)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (i, start) in zip(axes, rows):
        one = found[i]
        if start == 0:
            name = one.name if one.position is None else caption(one.position)
            _draw(row[0], queries[i], name, "query")
        shown = slice(start, start + PER_ROW)
        for axis, position, similarity in zip(row[1:], one.neighbours[shown], one.similarities[shown]):
            _draw(axis, pictures[int(position)], caption(position), f"{similarity:.3f}")
    figure.savefig(path, format="png")


def _draw(axis, image, name, mark):
    if image is None:
        axis.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8, transform=axis.transAxes)
    else:
        axis.imshow(image)
    is_query = mark == "query"
    axis.set_title(mark, fontsize=10, fontweight="bold" if is_query else "normal", color="C3" if is_query else "black")
    axis.text(0.5, -0.04, _wrap(name), ha="center", va="top", fontsize=7, transform=axis.transAxes)


def _wrap(name):
    """Breaks a name into lines, and leaves out its beginning where it is too long: names mostly differ at their end."""
    most = LINES * LETTERS
    short = name if len(name) <= most else f"…{name[len(name) - most + 1 :]}"
    return "\n".join(textwrap.wrap(short, LETTERS)[:LINES])
