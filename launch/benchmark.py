"""Measures how fast training or its input is, and prints a table.

python -m launch.benchmark --what=step [--candidates=sparse,dense,pytorch] [--variant=atto] [--image_size=224]
    [--batch_size=8] [--mask_ratio=0.6] [--precision=bfloat16] [--backend=tensorflow] [--ablate=onednn,...]
python -m launch.benchmark --what=step --config=fashion_mnist
python -m launch.benchmark --what=memory --config=imagenet_pretrain:tiny [--config.model.remat=block] [--memory_limit=4]
python -m launch.benchmark --what=input [--stages=pretraining,...] [--image_size=224] [--batch_size=64]
python -m launch.benchmark --what=input --source=folder:PATH [--crop=padded] [--pillow_folder=PATH]

--what=step times the training step of FCMAE (forward, backward, AdamW) on random images. Each of --candidates runs in
its own process: `sparse` and `dense` are the executions of the Keras model on --backend, `pytorch` is the same masked
dense model in plain PyTorch, compiled. All get the same images and masks. They take turns of --steps steps, --rounds
times, so that other load on the machine affects all of them; the table shows medians over the rounds and, in brackets,
the lowest and the highest. Candidates are compared within each round, and the ratios summarised likewise. --config
takes model, images, batch, mask ratio and precision from a preset; the flags above override it. The columns:

  GFLOP/step    operations of all convolutions and matrix products of a step, computed from the sizes of the model
  GFLOP/s       the same, by the median time of a step
  of matmul     share of the rate of a large matrix product of the same precision on the same device, measured after
                each turn; of the fastest framework, if the candidates use two
  peak MiB      on a CPU the largest resident memory of the candidate's process, from its start to the end of the
                warmup; on a GPU the most that the framework has allocated there
  above import  on a CPU the same, less what the process had when its framework was imported

A mask ratio of 0 stands for a single masked patch: without one there is no loss. --plot draws the time of a step
against the share of visible patches, for two or more mask ratios.

--ablate shows what each optimization contributes: for each one named, it adds the first of --candidates without it:

  onednn              oneDNN's kernels in TensorFlow
  depthwise_gradient  the gradient of the depthwise kernels as a convolution
  patch_products      stem and downsampling as matrix products
  compiled_chains     chains of element-wise operations compiled by XLA
  fused_adamw         Adam's step in one pass over memory
  masked_only         a decoder that predicts only masked patches

--what=memory finds the largest batch whose step fits into memory, to one part in eight, and prints the peak of each
batch that it tries, from --batch_size on. It takes the flags of --what=step, uses the first of --candidates, and takes
--memory_limit in GiB. With a preset, --config.model.remat=block shows what gradient checkpointing saves.

--what=input times the input pipeline, from files to batches: generated JPEG files, by default as large as
ImageNet's (--file_size=375,500 --file_kilobytes=110), or the training images of --source, written as data.source.
For comparison, Pillow does the same to one file after the other, in as many processes as there are cores: `pillow`
decodes, takes a random crop, resizes it (bicubic), flips it and makes a uint8 array; `pillow_normalize` makes a
normalized float32 array. It reads the same files, or those of --pillow_folder. All take turns as above. The values of
--stages:

  normalize           reads, decodes, takes a random crop, resizes and normalizes it
  pretraining         that, and flips; from files, as from a folder
  pretraining_stream  the same from encoded images in memory, one after another
  randaugment, color_jitter, erasing, mixing (Mixup and CutMix)   `pretraining` plus that operation
  finetuning          `pretraining` with RandAugment, erasing and mixing
  evaluation          the centre crop, resized and normalized

The columns: images/s of all cores together, the same divided by the number of cores, the CPU milliseconds per image,
and the speed relative to each of Pillow's candidates, within rounds.

Run nothing else meanwhile: a busy machine slows the candidates unequally, PyTorch most. On Linux the table shows how
many cores other processes kept busy. --json writes everything measured, with hardware, versions and commit.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
from typing import Any

if importlib.util.find_spec("tensorflow"):
    import launch.environment  # noqa: F401  (before anything that imports Keras)
else:
    os.environ.setdefault("KERAS_BACKEND", "jax")

from absl import flags

from experiments.benchmarks import candidates, memory, step
from experiments.config import CROPS, Config, parse_size
from experiments.errors import UserError
from launch import require_packages
from launch.command import define_config_flags, run_command, writable_file

WHAT = ("step", "memory", "input")
# Flags that only step and memory use, and flags that only input uses.
FLAGS_OF = {
    "step": ("config", "variant", "mask_ratio", "candidates", "ablate", "memory_limit", "precision", "backend"),
    "input": ("stages", "source", "pillow_folder", "crop", "files", "file_size", "file_kilobytes"),
}


def main(_: list[str]) -> None:
    """Measures what the flags name."""
    if flags.FLAGS.what is None:
        raise UserError(f"--what is missing: give one of {', '.join(WHAT)}.")
    file, picture = writable_file("json"), _picture()
    _check_flags()
    if flags.FLAGS.what == "step":
        results = step.run(_step_settings())
    elif flags.FLAGS.what == "memory":
        limit = flags.FLAGS.memory_limit
        results = memory.run(_step_settings(), limit and round(limit * 2**30))
    else:
        given = _given(*["source", "pillow_folder", "crop", "image_size", "batch_size", "rounds", "steps", "warmup"])
        given |= _given("stages", "files", "file_size", "file_kilobytes")
        require_packages("tensorflow")
        from experiments.benchmarks import input as pipeline  # imports packages that a step on JAX does not need

        results = pipeline.run(pipeline.InputSettings(**given))
    if file:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(f"written: {file}")
    if picture:
        step.draw_mask_ratios(picture, results)
        print(f"drawn: {picture}")


def _step_settings() -> step.StepSettings:
    """Returns the `StepSettings` of the flags, which override the preset."""
    values = flags.FLAGS
    config = step.StepSettings.config if values.config is None else Config.from_dict(values.config.to_dict())
    variant = {"variant": values.variant, "depths": (), "dims": ()} if values.variant else {}
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **variant),
        data=dataclasses.replace(config.data, **_given("image_size")),
        pretrain=dataclasses.replace(config.pretrain, **_given("batch_size"), accumulation_steps=1),
    )
    try:
        ratios = tuple(map(float, values.mask_ratio))
    except ValueError as error:
        named = ",".join(values.mask_ratio)
        raise UserError(f"--mask_ratio={named}: give one or more numbers, such as 0.4,0.6.") from error
    return step.StepSettings(
        config=config,
        mask_ratio=ratios,
        candidates=tuple(values.candidates),
        ablate=tuple(values.ablate),
        backend=values.backend,
        **_given("precision", "rounds", "steps", "warmup"),
    )


def _check_flags() -> None:
    """Raises UserError for a flag that --what does not use."""
    what = "input" if flags.FLAGS.what == "input" else "step"
    for other, names in FLAGS_OF.items():
        if unused := [name for name in names if other != what and flags.FLAGS[name].present]:
            raise UserError(f"--{unused[0]} does not apply to --what={flags.FLAGS.what}: leave it out.")


def _picture() -> pathlib.Path | None:
    """Returns the path of --plot, or None."""
    picture = writable_file("plot")
    if picture and (flags.FLAGS.what != "step" or len(flags.FLAGS.mask_ratio) < 2 or picture.suffix != ".png"):
        raise UserError("--plot needs a .png file, --what=step, and two or more mask ratios.")
    return picture


def _given(*names: str) -> dict[str, Any]:
    """Returns the flags that have a value, by name."""
    values = {name: value for name in names if (value := getattr(flags.FLAGS, name)) is not None}
    for name in values.keys() & {"image_size", "file_size"}:
        values[name] = parse_size(values[name], f"--{name}")
    return values


def _define_flags() -> None:
    """Defines the flags; the defaults of those with None differ between step and input."""
    flags.DEFINE_enum("what", None, WHAT, "What to measure.")
    flags.DEFINE_string("json", None, "File for everything measured, with hardware, versions and commit.")
    define_config_flags()
    flags.DEFINE_string("variant", None, "Published size of the encoder, atto if there is no preset.")
    flags.DEFINE_string("image_size", None, "Size of the images in pixels, such as 96 or 96,160; 224 without a preset.")
    batch_size = "Images per training step (default: the preset's, or 8) or per batch of --what=input (64)."
    flags.DEFINE_integer("batch_size", None, batch_size)
    flags.DEFINE_list("mask_ratio", [], "Mask ratios; one table for each. Default: the preset's, or 0.6.")
    flags.DEFINE_list("candidates", ["sparse", "dense"], f"What to time: {', '.join(step.CANDIDATES)}.")
    ablations = ", ".join(candidates.ABLATIONS)
    flags.DEFINE_list("ablate", [], f"Optimizations to leave out of the first candidate, one each: {ablations}.")
    flags.DEFINE_string("plot", None, "PNG file for a picture of --what=step over mask ratios.")
    flags.DEFINE_float(
        "memory_limit", None, "GiB that --what=memory may take. Default: 9/10 of the free memory, on a GPU all of it."
    )
    precision = "bfloat16 is mixed precision. Default: the preset's, where auto counts as float32."
    flags.DEFINE_enum("precision", None, list(candidates.POLICIES), precision)
    flags.DEFINE_enum("backend", "tensorflow", candidates.BACKENDS, "Backend of Keras.")
    flags.DEFINE_integer("rounds", None, "Number of turns of each candidate (step 10, input 5).")
    flags.DEFINE_integer("steps", None, "Training steps (3) or batches (8) of a turn.")
    flags.DEFINE_integer("warmup", None, "Training steps before the first turn (3), or batches before each turn (2).")
    flags.DEFINE_list("stages", None, "Candidates of --what=input besides Pillow's; all of them if left out.")
    flags.DEFINE_string("source", None, "Images for --what=input, as data.source; generated if left out.")
    flags.DEFINE_string("pillow_folder", None, "Folder that Pillow reads, if not that of --source.")
    flags.DEFINE_enum("crop", None, CROPS, "Crop of --what=input, as in the configuration; resized if left out.")
    flags.DEFINE_integer("files", None, "Number of files to generate for --what=input (128).")
    flags.DEFINE_string("file_size", None, "Height and width of the generated files, in pixels (375,500).")
    flags.DEFINE_float("file_kilobytes", None, "Size of each generated file in kB (110).")


if __name__ == "__main__":
    _define_flags()
    run_command(main)
