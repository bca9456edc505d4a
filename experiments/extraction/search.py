"""Searching images by an image: those whose features point in the most similar direction."""

import dataclasses
import difflib
import math
import pathlib

import numpy as np

from experiments.config import DataConfig
from experiments.config.sections import from_mapping
from experiments.data.pipeline import Preparation
from experiments.data.source import MemorySplit
from experiments.errors import UserError
from experiments.extraction.embedding import Embedding
from experiments.extraction.extract import checksum, folder_of, images_to_extract
from experiments.extraction.feature_files import Features, read_features
from experiments.extraction.picture import draw_search
from experiments.extraction.pixels import pictures_of, read_picture
from experiments.finished_run import find_model, read_model
from experiments.io import appearing, local_path, new_output

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

    def text_of(self, similarity):
        """A similarity with as many digits as tell the first neighbour from the last: 3 to 6."""
        spread = self.similarities[0] - self.similarities[-1] if len(self.similarities) else 1.0
        digits = 1 - math.floor(math.log10(spread)) if spread > 0 else FEWEST
        return f"{similarity:.{min(max(digits, FEWEST), MOST)}f}"


def run(features, queries, output, k=NEIGHBOURS, data="", model="", say=print):
    """Draws each query and the images nearest to it by cosine similarity; a query is not its own neighbour.

    Args:
        features: path of a file of `launch.extract`.
        queries: names of images in it, or paths of image files.
        output: path of the new PNG file.
        k: number of nearest images.
        data: `folder:PATH` where the folder of the images has been moved to; empty for where it was.
        model: where the model has been moved to; empty for where it was. Only files without features need it.
        say: function that takes a line for the user.

    Returns:
        A list of `Found`.

    Raises:
        UserError: if features, queries, model or output cannot be used.
    """
    if not 0 < len(queries) <= MOST_QUERIES:
        raise UserError(f"--query names 1 to {MOST_QUERIES} images, got {len(queries)}.")
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
    own = [read_picture(one.name) if one.position is None else pictures[one.position] for one in found]
    with appearing(output) as temporary:
        draw_search(temporary, found, own, pictures, _captions(table))
    for one in found:
        say(one.name)
        for i, similarity in zip(one.neighbours, one.similarities):
            say(f"  {one.text_of(similarity)}  {table.names[i]}")
    say(f"drawn: {output}")
    return found


def nearest(vector, features, k, left_out=None):
    """Returns the images most similar to one.

    Args:
        vector: `(C,)`, its features.
        features: `(N, C)`.
        k: number of images; all where there are not so many.
        left_out: position that is not to be found, or None.

    Returns:
        `(positions, similarities)`, each `(K,)`, the most similar first; of equal ones the first in the file.
    """
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(vector)
    similarities = features @ vector / np.maximum(lengths, np.finfo(np.float32).tiny)
    order = np.argsort(-similarities, kind="stable")
    order = order[order != left_out][:k] if left_out is not None else order[:k]
    return order, similarities[order]


def _images(table: Features, data):
    """Returns the `DataConfig` of the images that the features are of."""
    images = from_mapping(DataConfig, table.record["data"], "data.")
    if not data:
        return images
    if folder_of(images) is None or not data.startswith("folder:"):
        raise UserError(f"--data={data}: the features are of {images.source}; a folder alone can have been moved.")
    return images_to_extract(dataclasses.replace(images, source=data), table.record["split"])


def _vectors(queries, table, images, path, model):
    """Returns `(vectors, positions)` of the queries; the position of a file without features is None."""
    index = {str(name): position for position, name in enumerate(table.names)}
    positions = [_position(query, index, folder_of(images)) for query in queries]
    unknown = [query for query, position in zip(queries, positions) if position is None]
    for query in unknown:
        if not pathlib.Path(query).is_file():
            similar = difflib.get_close_matches(query, list(index)[:10000], n=1)
            hint = f" Did you mean {similar[0]}?" if similar else ""
            raise UserError(f"--query={query} is no image file, and no name in {path}.{hint}")
    computed = iter(_embed(unknown, table, images, path, model) if unknown else ())
    vectors = [next(computed) if position is None else table.features[position] for position in positions]
    return vectors, positions


def _position(query, index, folder):
    """Returns where an image stands among the features, by its name or, in the folder, by its path; or None."""
    if query in index or folder is None:
        return index.get(query)
    path = pathlib.Path(query).absolute()
    # Of the file itself a link counts as it stands: the folder may hold links to images that lie elsewhere.
    for file, root in ((path, folder), (path.parent.resolve() / path.name, folder.resolve())):
        if file.is_relative_to(root) and (name := file.relative_to(root).as_posix()) in index:
            return index[name]
    return None


def _embed(files, table, images, path, model):
    """Returns the features of image files, `(N, C)`, by the model that made the others."""
    weights = find_model(model or table.record["model"])
    if checksum(weights) != table.record["model_sha256"]:
        raise UserError(f"{weights} is not the model that made {path}: extract again, or name that one with --model.")
    contents = np.array([str(file).encode() for file in files], object)
    split = MemorySplit(contents, np.full(len(files), -1), are_paths=True)
    (embedded,) = Embedding(read_model(weights), Preparation.of(images), len(files))(split)
    if len(embedded.unreadable):
        raise UserError(f"--query={files[embedded.unreadable[0]]} cannot be read as an image.")
    return embedded.features


def _captions(table):
    """Returns the function from a position to what stands below an image: its name and, if it tells more, its class."""

    def caption(position):
        label, name = table.labels[position], str(table.names[position])
        known = label >= 0 and table.classes[label] not in name
        return f"{name} ({table.classes[label]})" if known else name

    return caption
