"""The picture of a search: each query, and the images nearest to it."""

from matplotlib.figure import Figure

PER_ROW = 8  # nearest images beside each other
SIDE, GAP = 1.75, 0.12  # inches: of an image, and between two
TITLE, CAPTION = 0.3, 0.5  # inches above and below an image
LETTERS = 25  # of a line of a caption
DPI = 110


def draw_search(path, found, queries, pictures, caption):
    """Draws a row or more for each query: the query in the first column, then the nearest images.

    Images keep their shape. Above each stands its cosine similarity to the query, below it its name.

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
    figure, axes = _grid(len(rows), columns)
    for row, (i, start) in zip(axes, rows):
        one = found[i]
        if start == 0:
            name = one.name if one.position is None else caption(one.position)
            _draw(row[0], queries[i], name, "query")
        shown = slice(start, start + PER_ROW)
        for axis, position, similarity in zip(row[1:], one.neighbours[shown], one.similarities[shown]):
            _draw(axis, pictures[int(position)], caption(position), one.text_of(similarity))
    figure.savefig(path, format="png")


def _grid(rows, columns):
    """Returns a figure and its axes, a list for each row; a place for nothing but an image is left blank."""
    width, height = SIDE + GAP, TITLE + SIDE + CAPTION
    size = (columns * width, rows * height)
    figure = Figure(figsize=size, dpi=DPI)

    def cell(row, column):
        corner = (column * width + GAP / 2, (rows - 1 - row) * height + CAPTION)
        axis = figure.add_axes((corner[0] / size[0], corner[1] / size[1], SIDE / size[0], SIDE / size[1]))
        axis.set_axis_off()
        return axis

    return figure, [[cell(row, column) for column in range(columns)] for row in range(rows)]


def _draw(axis, image, name, mark):
    if image is None:
        axis.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8, transform=axis.transAxes)
        axis.set_aspect("equal")
    else:
        axis.imshow(image)
        _make_square(axis, *image.shape[:2])
    is_query = mark == "query"
    axis.set_title(mark, fontsize=10, fontweight="bold" if is_query else "normal", color="C3" if is_query else "black")
    axis.text(0.5, -0.03, _wrap(name), ha="center", va="top", fontsize=7, transform=axis.transAxes)


def _make_square(axis, height, width):
    """Puts an image into the middle of a square, so that what stands above and below is level in a row."""
    half = max(height, width) / 2
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    axis.set_xlim(middle_x - half, middle_x + half)
    axis.set_ylim(middle_y + half, middle_y - half)


def _wrap(name):
    """Breaks a name that is too long into a line of folders and up to two of the file; most differ at their end."""
    if len(name) <= LETTERS:
        return name
    folders, slash, file = name.rpartition("/")
    folders, file = _end(folders + slash, LETTERS), _end(file, 2 * LETTERS)
    return "\n".join(line for line in (folders, file[:LETTERS], file[LETTERS:]) if line)


def _end(text, most):
    return text if len(text) <= most else f"…{text[len(text) - most + 1 :]}"
