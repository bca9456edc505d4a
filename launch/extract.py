"""Writes the features of images into a file.

python -m launch.extract --model=runs/own --data=folder:PATH --output=features.npz
python -m launch.extract --model=runs/own --output=features.parquet [--split=test]

A row for each image that can be read: its name, the features of the last stage averaged over the positions (float32),
and its class where the folder has them.
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments.inference import extract
from launch.command import define_image_flags, image_settings, require_flags, run_command


def main(_: list[str]) -> None:
    """Extracts what the flags name."""
    values, images = flags.FLAGS, image_settings()
    require_flags(model="runs/own", output="features.npz")
    extract.run(values.model, values.output, values.data, values.data_dir, values.split, values.batch_size, images)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Workdir of a finished run, or weights.")
    flags.DEFINE_string("output", None, "New .npz or .parquet file.")
    flags.DEFINE_string("data", "", "Images, written as data.source, such as folder:PATH; by default the run's.")
    flags.DEFINE_string("data_dir", "", "Folder of TensorFlow Datasets; by default that of the run.")
    flags.DEFINE_enum("split", extract.ALL, [extract.ALL, *extract.SPLITS], "Split whose features are extracted.")
    flags.DEFINE_integer("batch_size", extract.BATCH_SIZE, "Images at a time.", lower_bound=1)
    define_image_flags()
    run_command(main)
