"""Converts weights between Keras, the authors' PyTorch code, timm and Hugging Face Transformers.

python -m launch.convert --source=convnextv2_atto_1k_224_fcmae.pt --output=fcmae.keras
python -m launch.convert --source=runs/own --to=timm --output=encoder.safetensors
python -m launch.convert --source=runs/own --to=huggingface --output=encoder_for_transformers
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments import convert
from experiments.config import parse_size
from launch.command import require_flags, run_command


def main(_: list[str]) -> None:
    """Converts what the flags name."""
    values = flags.FLAGS
    require_flags(source="runs/own", output="encoder.keras")
    size = parse_size(values.image_size, "--image_size") if values.image_size else None
    convert.run(values.source, values.output, values.to, values.part, values.key, size)


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "Workdir of a run, or weights of Keras, safetensors or PyTorch.")
    flags.DEFINE_string("output", None, "File to write; with --to=huggingface a folder, with --to=timm either.")
    flags.DEFINE_enum("to", "keras", list(convert.FORMATS), "Library that will read the output.")
    flags.DEFINE_enum("part", "all", list(convert.PARTS), "What to convert: everything, or only the encoder.")
    flags.DEFINE_string("key", None, "Which of several models in a file: an entry, such as model_ema, or a prefix.")
    flags.DEFINE_string("image_size", "", "Image size in pixels: 224, or 96,160; by default that of the run, or 224.")
    run_command(main)
