"""Fine-tunes a classifier on labelled images, from a pretrained encoder or from scratch.

python -m launch.finetune --config=digits --config.pretrained=runs/digits
    --workdir=runs/digits_finetuned [--config.KEY=VALUE ...]
"""

import launch.environment  # noqa: F401, I001  (first)

from experiments import finetune
from launch.command import define_run_flags, run_training

if __name__ == "__main__":
    define_run_flags()
    run_training(finetune.run)
