"""Shows the gain of pretraining in minutes, on scikit-learn's digits: pretrains, fine-tunes, prints a table.

python -m launch.demo [--workdir=runs/demo]
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments import demo
from launch.command import run_command


def main(_: list[str]) -> None:
    """Runs the demonstration and prints its table."""
    print("\n".join(demo.run(flags.FLAGS.workdir)))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", "runs/demo", "Folder for the runs; those in it are resumed.")
    run_command(main)
