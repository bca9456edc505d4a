"""Evaluates the model of a finished run, and its frozen features beside those of a randomly initialised model.

python -m launch.evaluate --model=runs/digits_finetuned [--data=digits] [--probe=NAME]
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments import evaluate
from launch.command import define_image_flags, image_settings, require_flags, run_command


def main(_: list[str]) -> None:
    """Evaluates what the flags name, and prints a table."""
    require_flags(model="runs/own")
    values, images = flags.FLAGS, image_settings()
    results = evaluate.run(
        values.model,
        values.data,
        values.data_dir,
        tuple(values.probe),
        values.split,
        values.batch_size,
        values.labels_file,
        images,
    )
    unit = "%" if {"map", *evaluate.PIXEL_PROBES} & results.keys() else "top-1 (%)"
    random = "random" if any("random" in figures for figures in results.values()) else ""
    print(f"{unit:<14} {'model':>8} {random:>8}".rstrip())
    for name, figures in results.items():
        print(f"{name:<14}", *(f"{figure:8.2f}" for figure in figures.values()))


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Workdir of a finished run, or weights.")
    flags.DEFINE_string("data", "", "Images, written as data.source, such as folder:PATH; by default the run's.")
    flags.DEFINE_string("data_dir", "", "Folder of TensorFlow Datasets; by default that of the run.")
    flags.DEFINE_string("labels_file", "", "File with the labels of the folder --data; see data.labels_file.")
    flags.DEFINE_multi_enum("probe", [], list(evaluate.PROBES), "What to measure; by default everything that applies.")
    flags.DEFINE_enum("split", "test", ["test", "validation"], "Images to evaluate on.")
    flags.DEFINE_integer("batch_size", 0, "Images at a time; 0 for as many as in the run.", lower_bound=0)
    define_image_flags()
    run_command(main)
