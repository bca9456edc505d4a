"""Compares runs on one HTML page: tables, curves, reconstructions, confusions, configurations, commands, hardware.

python -m launch.report WORKDIR [WORKDIR ...] [--output=report.html] [--title=TITLE]

The page holds its pictures and needs no network. Runs that are in progress, interrupted or have damaged files are shown
as far as possible.
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments.errors import UserError
from experiments.report.page import write_report
from launch.command import run_command


def main(workdirs: list[str]) -> None:
    """Writes the page of the runs in some workdirs."""
    if not workdirs:
        raise UserError("No run is given: name one or more workdirs, such as runs/digits runs/digits_finetuned.")
    for problem in write_report(workdirs, flags.FLAGS.output, flags.FLAGS.title):
        print(problem)
    print(f"written: {flags.FLAGS.output}")


if __name__ == "__main__":
    flags.DEFINE_string("output", "report.html", "HTML file to write.")
    flags.DEFINE_string("title", "", "Title of the page.")
    run_command(main, takes_arguments=True)
