"""Studies on one accelerator, in JAX, whether pretraining improves results on small images; needs no TensorFlow.

python -m launch.jax_study --images=CIFAR --workdir=runs/jax_study --part=pretrain --seeds=0,1,2
python -m launch.jax_study --images=CIFAR --workdir=runs/jax_study --part=finetune --labels=250,1000,4000,0
python -m launch.jax_study --workdir=runs/jax_study --part=report

Parts that are complete are not repeated; several processes may do other seeds or labels in the same folder.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes may share the device

from absl import flags

from experiments.config import Config
from experiments.errors import UserError
from experiments.jax_study import study as jax_study
from launch.command import define_config_flags, require_flags, run_command, use_preset_by_default


def main(_: list[str]) -> None:
    """Does the part of the study that the flags name."""
    values = flags.FLAGS
    require_flags(workdir="runs/jax_study")
    if values.part == "report":
        from experiments.jax_study.report import report_lines

        print(*report_lines(values.workdir), sep="\n")
        return
    require_flags(images="CIFAR")
    config = Config.from_dict(values.config.to_dict())
    unknown = [count for count in map(int, values.labels) if count not in jax_study.LENGTHS]
    if unknown:
        raise UserError(f"--labels={unknown[0]}: choose from {', '.join(map(str, jax_study.LENGTHS))}; 0 means all.")
    splits = jax_study.read_folder(values.images, config.data.validation_share)
    study = jax_study.JaxStudy(config, splits, values.workdir)
    if values.part == "pretrain":
        for seed in map(int, values.seeds):
            study.pretrain(seed)
        return
    for count in map(int, values.labels):
        for start in values.starts:
            study.finetune(jax_study.LENGTHS[count], start)


if __name__ == "__main__":
    use_preset_by_default("cifar10")
    define_config_flags("Folder for the records of the study.")
    flags.DEFINE_string("images", None, "Folder with train/CLASS/ and test/CLASS/, images of one size.")
    flags.DEFINE_enum("part", "pretrain", ["pretrain", "finetune", "report"], "Part of the study to run.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of pretraining.")
    flags.DEFINE_list("labels", [str(count) for count in jax_study.LENGTHS], "Numbers of labels; 0 for all.")
    flags.DEFINE_list("starts", list(jax_study.STARTS), "Starts of fine-tuning.")
    run_command(main)
