"""Measures how fast training or its input is, and prints a table.

python -m launch.benchmark --what=input [--stages=pretraining,...] [--image_size=224] [--batch_size=64] [--cores=0]
    [--json=FILE]
python -m launch.benchmark --what=step [--variant=atto] [--image_size=224] [--batch_size=8] [--mask_ratio=0.6]
    [--execution=sparse,dense] [--precision=float32] [--backend=tensorflow] [--without=onednn,...] [--json=FILE]
    [--plot=FILE]
python -m launch.benchmark --what=profile [the flags of step that say which one]

--what=step times the training step of FCMAE (forward, backward, AdamW). Each contender named by --execution is a
process of its own: `sparse` and `dense` are the executions of the Keras model on --backend, `pytorch` is the same
masked dense model in plain PyTorch, compiled. All get the same images and masks. They take turns of --steps steps,
--rounds times, so that what else the machine does meets all of them; the table shows medians over the rounds and, in
brackets, the lowest and the highest. Comparisons (sparse/dense 2.1: sparse is 2.1 times as fast) are made within each
round, then summarised in the same way. The other columns:

  GFLOP/step    operations of all convolutions and matrix products of a step, computed from the sizes of the model
  GFLOP/s       the same, by the median time of a step
  of product    share of the rate of a large matrix product of the same precision on the same device, measured after
                each turn; of the fastest framework, if the contenders use two
  peak MiB      on a CPU the largest resident memory of the contender's process, from its start to the end of the
                warmup; on a GPU the most that the framework has allocated there
  above import  on a CPU the same, less what the process had when its framework was imported

A mask ratio of 0 stands for a single hidden patch: without one there is no loss. --plot draws the time of a step over
the share of visible patches, for two or more mask ratios.

--without adds contenders that show what makes the step fast: the first execution, without one of these.

  onednn              oneDNN's kernels in TensorFlow
  depthwise_gradient  the gradient of the depthwise kernels as a convolution
  patch_products      stem and downsampling as matrix products
  compiled_chains     chains of element-wise operations compiled by XLA
  fused_adamw         Adam's step in one pass over memory
  hidden_only         a decoder that predicts hidden patches alone

--what=profile shows where the time of the step goes: TensorFlow's operations, as its profiler counts them.

--what=input times the input pipeline, from JPEG files as large as ImageNet's (500x375 pixels, 110 kB) to batches, with
and without each of its stages. Beside it Pillow does the same to one file after the other, in as many processes as
there are cores: `pillow` decodes, takes a random crop, resizes it (bicubic), flips it and makes a uint8 array;
`pillow_normalize` makes a normalized float32 array. All take turns as above. What --stages names:

  crop                reads, decodes, takes a random crop and resizes it
  crop_normalize      that, and normalizes
  pretraining         that, and flips; from files, as from a folder
  pretraining_stream  the same from encoded images in memory, one after another
  randaugment, color_jitter, erasing, mixing (Mixup and CutMix)   `pretraining` and one thing more
  finetuning          `pretraining` with RandAugment, erasing and mixing
  evaluation          the centre crop, resized and normalized

The columns: images/s of all cores together, the same divided by the number of cores, the milliseconds that cores worked
for an image, and how many times as fast as Pillow it is, within rounds.

Run nothing else beside it: a busy machine slows the contenders unequally, PyTorch most. On Linux the table says how
many cores others kept busy.
"""

import importlib.util
import json
import os

if importlib.util.find_spec("tensorflow"):
    import launch.environment  # noqa: F401  (before anything that imports Keras)
else:
    os.environ.setdefault("KERAS_BACKEND", "jax")

from absl import flags

from experiments.benchmarks import profile, settings, step
from experiments.benchmarks.pipeline import measure as pipeline
from experiments.benchmarks.pipeline.settings import InputSettings
from experiments.benchmarks.plot import draw_mask_ratios
from experiments.config import parse_size
from experiments.errors import UserError
from launch.command import run_command, writable_file

SHARED = ("image_size", "batch_size", "rounds", "steps", "warmup")  # flags of both, with defaults of their own


def measure_step():
    """Measures the training step that the flags describe; returns all figures."""
    return step.run(_step_settings())


def measure_profile():
    """Profiles the training step that the flags describe; returns all figures."""
    return profile.run(_step_settings())


def _step_settings():
    values = flags.FLAGS
    return settings.StepSettings(
        variant=values.variant,
        depths=_numbers("depths", int),
        dims=_numbers("dims", int),
        decoder_dim=values.decoder_dim,
        mask_ratio=_numbers("mask_ratio", float),
        execution=tuple(values.execution),
        without=tuple(values.without),
        precision=values.precision,
        backend=values.backend,
        **_given(SHARED),
    )


def measure_input():
    """Measures the input pipeline as the flags describe; returns all figures."""
    return pipeline.run(InputSettings(stages=tuple(flags.FLAGS.stages), **_given((*SHARED, "files", "cores"))))


BENCHMARKS = {"step": measure_step, "input": measure_input, "profile": measure_profile}


def main(arguments):
    """Measures what the flags name."""
    del arguments
    if flags.FLAGS.what is None:
        raise UserError(f"--what is missing: name what to measure, one of {', '.join(BENCHMARKS)}.")
    file, picture = writable_file("json"), _picture()
    results = BENCHMARKS[flags.FLAGS.what]()
    if file:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(f"written: {file}")
    if picture:
        draw_mask_ratios(picture, results)
        print(f"drawn: {picture}")


def _picture():
    """Returns the path of --plot, or None."""
    picture = writable_file("plot")
    if picture and (flags.FLAGS.what != "step" or len(flags.FLAGS.mask_ratio) < 2 or picture.suffix != ".png"):
        raise UserError("--plot names a .png file for --what=step over two or more mask ratios.")
    return picture


def _given(names):
    """Returns the flags that have a value, by name."""
    values = {name: getattr(flags.FLAGS, name) for name in names}
    values = {name: value for name, value in values.items() if value is not None}
    if size := values.get("image_size"):
        values["image_size"] = parse_size(size, "--image_size")
    return values


def _numbers(flag, kind):
    words = getattr(flags.FLAGS, flag)
    try:
        return tuple(kind(word) for word in words)
    except ValueError as error:
        example = "0.4,0.6" if kind is float else "2,2,6,2"
        raise UserError(f"--{flag}={','.join(words)}: a list of numbers such as {example} is needed.") from error


def _define_flags():
    """Defines the flags; the values that they have by themselves are those of `StepSettings` and `InputSettings`."""
    fields, of_input = settings.StepSettings(), InputSettings()

    def shared(name, meaning, define=flags.DEFINE_integer):
        defaults = f"{getattr(fields, name)} of step, {getattr(of_input, name)} of input"
        define(name, None, f"{meaning} (by itself {defaults}).")

    flags.DEFINE_enum("what", None, list(BENCHMARKS), "What to measure.")
    flags.DEFINE_string("json", None, "File for everything measured, with hardware, versions and commit.")
    flags.DEFINE_enum("variant", fields.variant, list(settings.VARIANTS), "Published size of the encoder.")
    flags.DEFINE_list("depths", [], "Blocks of each stage, in place of --variant; with --dims.")
    flags.DEFINE_list("dims", [], "Channels of each stage, in place of --variant; with --depths.")
    flags.DEFINE_integer("decoder_dim", fields.decoder_dim, "Channels of the decoder.")
    shared("image_size", "Of the images in pixels, as 224 or 96,160", flags.DEFINE_string)
    shared("batch_size", "Images of a step or batch")
    flags.DEFINE_list(
        "mask_ratio", [str(ratio) for ratio in fields.mask_ratio], "Shares of hidden patches: a table each."
    )
    flags.DEFINE_list("execution", list(fields.execution), f"Contenders: {', '.join(settings.CONTENDERS)}.")
    flags.DEFINE_list("without", [], f"Measures to take back, a contender each: {', '.join(settings.MEASURES)}.")
    flags.DEFINE_string("plot", None, "PNG file for a picture of --what=step over mask ratios.")
    flags.DEFINE_enum("precision", fields.precision, list(settings.PRECISIONS), "bfloat16 means mixed precision.")
    flags.DEFINE_enum("backend", fields.backend, list(settings.BACKENDS), "Backend of Keras.")
    shared("rounds", "How often every contender has its turn")
    shared("steps", "Training steps or batches of a turn")
    shared("warmup", "Training steps before the first turn, at least 3, or batches before each turn")
    flags.DEFINE_list("stages", list(of_input.stages), f"Contenders of --what=input: {', '.join(of_input.stages)}.")
    flags.DEFINE_integer("files", of_input.files, "Number of files that --what=input reads.")
    flags.DEFINE_integer("cores", of_input.cores, "Cores that --what=input may use; 0 for all.")


if __name__ == "__main__":
    _define_flags()
    run_command(main)
