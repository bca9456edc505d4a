"""Pretrains an encoder on unlabelled images.

python -m launch.pretrain --config=digits --workdir=runs/digits [--config.KEY=VALUE ...]
"""

import launch.environment  # noqa: F401, I001  (first)

from experiments import pretrain
from launch.command import define_run_flags, run_training

if __name__ == "__main__":
    define_run_flags()
    run_training(pretrain.run)
