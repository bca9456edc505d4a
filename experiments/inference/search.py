"""Image search: the images whose features have the highest cosine similarity to those of a query."""

import dataclasses
import difflib
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.config import DataConfig, from_mapping
from experiments.data.augmentation import views
from experiments.data.decoding import decode_and_crop, problem_of
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from experiments.data.sources import open_source
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.evaluation.features import PooledFeatures
from experiments.finished_run import find_model, read_model
from experiments.inference.extract import folder_of, images_to_extract
from experiments.inference.feature_files import Features, read_features
from experiments.io import appearing, checksum, local_path, new_output
from experiments.picture_text import plain_text
from experiments.types import Log

PER_ROW = 8  # nearest images beside each other
SIDE, GAP = 1.75, 0.12  # inches: of an image, and between two
TITLE, CAPTION = 0.3, 0.5  # inches above and below an image
LETTERS = 25  # of a line of a caption
DPI = 110


def draw_search(
    path: str | os.PathLike[str],
    found: Sequence["Found"],
    queries: Sequence[np.ndarray | None],
    pictures: Mapping[int, np.ndarray | None],
    caption: Callable[[int], str],
) -> None:
    """Draws a row or more for each query: the query in the first column, then the nearest images.

    Images keep their shape. Above each is its cosine similarity to the query, below it its name.

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
    own = [one.name if one.position is None else caption(one.position) for one in found]
    with plain_text([*own, *(caption(position) for one in found for position in one.neighbours)]):
        figure, axes = _grid(len(rows), columns)
        for row, (i, start) in zip(axes, rows):
            one = found[i]
            if start == 0:
                _draw(row[0], queries[i], own[i], "query")
            shown = slice(start, start + PER_ROW)
            for axis, position, similarity in zip(row[1:], one.neighbours[shown], one.similarities[shown]):
                _draw(axis, pictures[int(position)], caption(position), one.text_of(similarity))
        figure.savefig(path, format="png")


def _grid(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """Returns a figure and its axes, a list for each row; only images will be drawn in them."""
    width, height = SIDE + GAP, TITLE + SIDE + CAPTION
    size = (columns * width, rows * height)
    figure = Figure(figsize=size, dpi=DPI)

    def cell(row: int, column: int) -> Axes:
        corner = (column * width + GAP / 2, (rows - 1 - row) * height + CAPTION)
        axis = figure.add_axes((corner[0] / size[0], corner[1] / size[1], SIDE / size[0], SIDE / size[1]))
        axis.set_axis_off()
        return axis

    return figure, [[cell(row, column) for column in range(columns)] for row in range(rows)]


def _draw(axis: Axes, image: np.ndarray | None, name: str, mark: str) -> None:
    if image is None:
        axis.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8, transform=axis.transAxes)
        axis.set_aspect("equal")
    else:
        axis.imshow(image)
        axis.set_aspect("equal", adjustable="datalim")  # centred in its square, so that texts are level within a row
    is_query = mark == "query"
    axis.set_title(mark, fontsize=10, fontweight="bold" if is_query else "normal", color="C3" if is_query else "black")
    axis.text(0.5, -0.03, _wrap(name), ha="center", va="top", fontsize=7, transform=axis.transAxes)


def _wrap(name: str) -> str:
    """Breaks a long name into one line for the folders and up to two for the file; most names differ at their end."""
    if len(name) <= LETTERS:
        return name
    folders, slash, file = name.rpartition("/")
    folders, file = _end(folders + slash, LETTERS), _end(file, 2 * LETTERS)
    return "\n".join(line for line in (folders, file[:LETTERS], file[LETTERS:]) if line)


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[len(text) - most + 1 :]}"


def pictures_of(images: DataConfig, names: Sequence[str] | np.ndarray) -> list[np.ndarray | None]:
    """Returns whole images, a list of `(H, W, 3)` uint8, None for one that cannot be read.

    Args:
        images: the `DataConfig` that the names came from.
        names: those of the images, as `launch.extract` gave them.
    """
    folder = folder_of(images)
    if folder is not None:
        return [read_picture(folder / name, images) for name in names]
    source = open_source(images)
    wanted: dict[str, list[int]] = {}
    for name in names:
        split, position = name.split("/")
        wanted.setdefault(split, []).append(int(position))
    contents: dict[str, tf.Tensor] = {}
    for split, positions in wanted.items():
        part = source.split(split).take(np.array(positions))
        found = zip(positions, part.in_order())
        contents |= {f"{split}/{position}": part.read(content) for position, (content, _) in found}
    return [_decode(contents[name], images) for name in names]


def read_picture(path: str | os.PathLike[str], images: DataConfig) -> np.ndarray | None:
    """Returns the image in a file, as `pictures_of` does."""
    try:
        return _decode(tf.io.read_file(str(path)), images)
    except tf.errors.OpError:
        return None


def _decode(content: bytes | tf.Tensor, images: DataConfig) -> np.ndarray | None:
    """Returns the channels that pictures show; if the model sees grey images, the original colours."""
    reading, shown = Reading.of(images), images.shown
    if reading.is_plain:
        reading, shown = dataclasses.replace(reading, channels=3), (0, 1, 2)
    try:
        pixels = decode_and_crop(tf.constant(content), views.whole_window, reading).numpy()[..., shown]
    except tf.errors.OpError:
        return None
    pixels = np.clip(np.nan_to_num(pixels).round(), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if len(shown) == 1 else pixels


NEIGHBOURS = 8
MOST_QUERIES = 50
FEWEST, MOST = 3, 6  # digits of a similarity


@dataclasses.dataclass(frozen=True)
class Found:
    """A query and the images nearest to it.

    Args:
        name: of the query, as it was given.
        position: of the query among the features; None for a file that is not among them.
        neighbours: `(K,)` positions of the nearest images, the nearest first.
        similarities: `(K,)` their cosine similarities.
    """

    name: str
    position: int | None
    neighbours: np.ndarray
    similarities: np.ndarray

    def text_of(self, similarity: float) -> str:
        """A similarity with enough digits, 3 to 6, to distinguish the first neighbour from the last."""
        spread = self.similarities[0] - self.similarities[-1] if len(self.similarities) else 1.0
        digits = 1 - math.floor(math.log10(spread)) if spread > 0 else FEWEST
        return f"{similarity:.{min(max(digits, FEWEST), MOST)}f}"


def run(
    features: str | os.PathLike[str],
    queries: Sequence[str],
    output: str | os.PathLike[str],
    k: int = NEIGHBOURS,
    data: str = "",
    model: str | os.PathLike[str] = "",
    log: Log = print,
) -> list[Found]:
    """Draws each query and the images nearest to it by cosine similarity; a query is not its own neighbour.

    Args:
        features: path of a file of `launch.extract`.
        queries: names of images in it, or paths of image files.
        output: path of the new PNG file.
        k: number of nearest images.
        data: `folder:PATH`, the new path of the images if they have been moved; empty if not.
        model: new path of the model if it has been moved; empty if not. Only files without features need the model.
        log: function that takes a line for the user.

    Returns:
        A list of `Found`.

    Raises:
        UserError: if features, queries, model or output cannot be used.
    """
    if not 0 < len(queries) <= MOST_QUERIES:
        raise UserError(f"--query must name 1 to {MOST_QUERIES} images, got {len(queries)}.")
    path = local_path(features)
    table = read_features(path)
    images = _images(table, data)
    output = new_output(output, (".png",))

    vectors, positions = _vectors(queries, table, images, path, model)
    found = [
        Found(name, position, *nearest(vector, table.features, k, position))
        for name, vector, position in zip(queries, vectors, positions)
    ]
    shown = sorted({int(i) for one in found for i in (*one.neighbours, one.position) if i is not None})
    pictures = dict(zip(shown, pictures_of(images, table.names[shown])))
    own = [read_picture(one.name, images) if one.position is None else pictures[one.position] for one in found]
    with appearing(output) as temporary:
        draw_search(temporary, found, own, pictures, _captions(table))
    for one in found:
        log(one.name)
        for i, similarity in zip(one.neighbours, one.similarities):
            log(f"  {one.text_of(similarity)}  {table.names[i]}")
    log(f"drawn: {output}")
    return found


def nearest(
    vector: np.ndarray, features: np.ndarray, k: int, left_out: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images most similar to one.

    Args:
        vector: `(C,)`, its features.
        features: `(N, C)`.
        k: number of images; all if there are fewer.
        left_out: position to exclude, or None.

    Returns:
        `(positions, similarities)`, each `(K,)`, the most similar first; of equal ones the first in the file.
    """
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(vector)
    similarities = features @ vector / np.maximum(lengths, np.finfo(np.float32).tiny)
    order = np.argsort(-similarities, kind="stable")
    order = order[order != left_out][:k] if left_out is not None else order[:k]
    return order, similarities[order]


def _images(table: Features, data: str) -> DataConfig:
    """Returns the `DataConfig` of the images that the features belong to."""
    images = from_mapping(DataConfig, table.record["data"], "data.")
    if not data:
        return images
    if folder_of(images) is None or not data.startswith("folder:"):
        raise UserError(f"--data={data}: the features are of {images.source}; only a folder can be given a new path.")
    return images_to_extract(dataclasses.replace(images, source=data), table.record["split"])


def _vectors(
    queries: Sequence[str], table: Features, images: DataConfig, path: pathlib.Path, model: str | os.PathLike[str]
) -> tuple[list[np.ndarray], list[int | None]]:
    """Returns `(vectors, positions)` of the queries; the position of a file without features is None."""
    index = {str(name): position for position, name in enumerate(table.names)}
    positions = [_position(query, index, folder_of(images)) for query in queries]
    unknown = [query for query, position in zip(queries, positions) if position is None]
    for query in unknown:
        if not pathlib.Path(query).is_file():
            similar = difflib.get_close_matches(query, list(index)[:10000], n=1)
            hint = f" Did you mean {similar[0]}?" if similar else ""
            raise UserError(f"--query={query} is neither an image file nor a name in {path}.{hint}")
    computed = iter(_embed(unknown, table, images, path, model) if unknown else ())
    vectors = [next(computed) if position is None else table.features[position] for position in positions]
    return vectors, positions


def _position(query: str, index: Mapping[str, int], folder: pathlib.Path | None) -> int | None:
    """Returns the position of an image among the features, by its name or, in the folder, by its path; or None."""
    if query in index or folder is None:
        return index.get(query)
    path = pathlib.Path(query).absolute()
    # A link to the file itself is not resolved: the folder may hold links to images elsewhere.
    for file, root in ((path, folder), (path.parent.resolve() / path.name, folder.resolve())):
        if file.is_relative_to(root) and (name := file.relative_to(root).as_posix()) in index:
            return index[name]
    return None


def _embed(
    files: Sequence[str], table: Features, images: DataConfig, path: pathlib.Path, model: str | os.PathLike[str]
) -> np.ndarray:
    """Returns the features of image files, `(N, C)`, from the model that made the others."""
    weights = find_model(model or table.record["model"])
    if checksum(weights) != table.record["model_sha256"]:
        raise UserError(f"{weights} is not the model that made {path}: extract again, or give that model with --model.")
    contents = np.array([str(file).encode() for file in files], object)
    split = MemorySplit(contents, np.full(len(files), -1), are_paths=True)
    (batch,) = PooledFeatures(read_model(weights), Preprocessing.of(images), len(files)).batches(split)
    if len(batch.left_out):
        file = files[batch.left_out[0]]
        problem = problem_of(pathlib.Path(file), Reading.of(images)) or "it is damaged"
        raise UserError(f"--query={file} cannot be read as an image for the model: {problem}.")
    return batch.features


def _captions(table: Features) -> Callable[[int], str]:
    """Returns the function from a position to the caption of an image: its name and, if informative, its class."""

    def caption(position: int) -> str:
        label, name = table.labels[position], str(table.names[position])
        known = label >= 0 and table.classes[label] not in name
        return f"{name} ({table.classes[label]})" if known else name

    return caption
