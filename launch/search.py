"""Draws query images and the images most similar to them, using the features that launch.extract wrote.

python -m launch.search --features=features.npz --query=photo.jpg --output=search.png [--k=8]
python -m launch.search --features=features.npz --query=cats/1.jpg --query=dogs/7.jpg --output=search.png

A query is the name of an image in the file of features, or an image file; similar means a high cosine similarity.
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments.inference import search
from launch.command import require_flags, run_command


def main(_: list[str]) -> None:
    """Searches what the flags name."""
    values = flags.FLAGS
    require_flags(features="features.npz", query="photo.jpg", output="search.png")
    search.run(values.features, values.query, values.output, values.k, values.data, values.model)


if __name__ == "__main__":
    flags.DEFINE_string("features", None, "File that launch.extract wrote.")
    flags.DEFINE_multi_string("query", [], "Name of an image in the features file, or an image file; may be repeated.")
    flags.DEFINE_string("output", None, "New PNG file.")
    flags.DEFINE_integer("k", search.NEIGHBOURS, "Number of nearest images.", lower_bound=1)
    flags.DEFINE_string("data", "", "folder:PATH, if the folder of the images has been moved.")
    flags.DEFINE_string("model", "", "Workdir or file of the model, if it has been moved; only for new image files.")
    run_command(main)
