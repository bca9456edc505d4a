"""Downloads and prepares a data set of TensorFlow Datasets, or packs a folder into shards that are read sequentially.

python -m launch.prepare --source=tfds:fashion_mnist [--data_dir=FOLDER]
python -m launch.prepare --source=tfds:imagenet2012 --manual_dir=FOLDER_OF_THE_ARCHIVES [--data_dir=FOLDER]
python -m launch.prepare --source=folder:PATH --size=288 --output=SHARDS [--labels_file=FILE]
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments import prepare
from launch.command import require_flags, run_command


def main(_: list[str]) -> None:
    """Prepares what the flags name."""
    values = flags.FLAGS
    require_flags(source="tfds:fashion_mnist")
    prepare.run(values.source, values.data_dir, values.manual_dir, values.output, values.size, values.labels_file)


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "tfds:NAME or folder:PATH.")
    flags.DEFINE_string("data_dir", "", "Folder for the data set, data.dir of a run; default: that of its library.")
    flags.DEFINE_string("manual_dir", "", "Folder of files that you have downloaded, for data sets that need them.")
    flags.DEFINE_string("output", "", "Output folder for the shards, with --source=folder:PATH.")
    flags.DEFINE_integer("size", 0, "Reduce images whose shorter side has more pixels than this; 0 keeps all sizes.")
    flags.DEFINE_string("labels_file", "", "File with the labels of the folder; see data.labels_file.")
    run_command(main)
