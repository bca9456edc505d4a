"""Predicts a mask for each image of a folder with a segmentation model.

python -m launch.predict --model=runs/camvid_segmented --data=PATH --output=predicted

The new folder has `masks/`, PNG files with the numbers of the classes, `overlays/`, the images overlaid with the
colours of their classes, and `classes.txt`.
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments.inference import predict
from launch.command import require_flags, run_command


def main(_: list[str]) -> None:
    """Predicts what the flags name."""
    values = flags.FLAGS
    require_flags(model="runs/segmented", data="images", output="predicted")
    predict.run(values.model, values.data, values.output, values.overlays)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Workdir of a segmentation run, or a segmenter*.keras in it.")
    flags.DEFINE_string("data", None, "Folder of images, at any depth.")
    flags.DEFINE_string("output", None, "New folder.")
    flags.DEFINE_bool("overlays", True, "Whether to write the images overlaid with the colours of their classes.")
    run_command(main)
