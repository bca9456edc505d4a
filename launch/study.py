"""Runs a study: many runs that answer a question, with tables and a picture at the end.

python -m launch.study --name=fewer_labels --workdir=runs/study [--config.KEY=VALUE ...]
python -m launch.study --name=ablations --workdir=runs/ablations --plan
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments.config import Config
from experiments.errors import UserError
from experiments.studies import STUDIES, sweep
from experiments.studies.report import fill_document
from launch.command import define_config_flags, require_flags, run_command, use_preset_by_default


def main(_: list[str]) -> None:
    """Runs, plans or reports the study that the flags name."""
    values = flags.FLAGS
    require_flags(workdir="runs/study")
    if values.tables_only:
        study = sweep.open_study(STUDIES, values.workdir)
    elif not values.name:
        raise UserError(f"--name is missing: give one of {', '.join(STUDIES)}.")
    else:
        config = Config.from_dict(values.config.to_dict())
        study = sweep.open_study(STUDIES, values.workdir, values.name, config, values.budget, values.seeds)
    if values.plan:
        sweep.plan(study)
        return
    if values.tables_only:
        sweep.report(study)
    else:
        sweep.run(study, values.only)
    if values.document:
        fill_document(values.document, study)


if __name__ == "__main__":
    use_preset_by_default("fashion_mnist_study")
    define_config_flags("Folder for all runs of the study; complete ones are not repeated.")
    flags.DEFINE_enum("name", None, list(STUDIES), "The study.")
    flags.DEFINE_enum("budget", "full", ["full", "tiny"], "Length of the runs; tiny only checks that they work.")
    flags.DEFINE_integer("seeds", 0, "Number of repetitions; 3 by default, 1 for ablations.", lower_bound=0)
    flags.DEFINE_string("only", "", "Pattern for the names of the runs to do, such as seed_0/labels_600/*.")
    flags.DEFINE_bool("plan", False, "Print the runs and an estimate of their time, but run nothing.")
    flags.DEFINE_bool("tables_only", False, "Make the tables and the picture from existing runs, and run nothing.")
    flags.DEFINE_string("document", "", "Markdown file to put tables and picture into, such as docs/study.md.")
    run_command(main)
