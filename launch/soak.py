"""Shows that a run survives being killed, and that its memory does not grow.

python -m launch.soak --config=experiments/presets/digits.py --workdir=runs/soak [--task=pretrain|finetune]
    [--kills=20] [--kills_while_saving=5] [--damages=3] [--seed=0] [--config.KEY=VALUE ...] [--json=FILE]
python -m launch.soak --what=memory --config=... --workdir=... [--task=...] [--from_step=200] [--tolerance=0.03]

--what=kills runs the real command twice, once without disturbance and once with SIGKILL at random moments: after a
step, while the process starts, while a checkpoint is written, and at the end. After some of them the newest checkpoint
is damaged too: bytes flipped, cut short, or a file of it removed. Then it is started again, with the same command, and
so on until it is complete. At the end both runs are compared: the weights, moments and averages of the newest
checkpoint and the weights of all saved models bit for bit, the metrics line by line, and which files there are and how
large. The table says of each kill which step the process went on from, which step it had come to, and what it was at.
For many kills in little time take a small model, `--config.log_every=1` and a small `--config.checkpoint_every`; with
--forks the command is run by forks of this process, which has imported all it needs.

--what=memory runs the real command once and reads, step by step, how much memory is resident. At the end it must not
be more than at --from_step, but for --tolerance, a share of it.

Exit code 1 if the runs differ or memory grows.
"""

import launch.environment  # noqa: F401, I001  (first)

import dataclasses
import json
import os

from absl import flags

from experiments.errors import RunError
from experiments.reliability import memory, report, soak
from experiments.reliability.process import DETERMINISTIC
from experiments.reliability.settings import TASKS, MemorySettings, SoakSettings
from launch.command import define_config_flags, run_command, run_configuration, writable_file
from launch.forks import Fork


def soak_kills(config):
    """Kills a run as the flags say; returns all that was found."""
    results = soak.run(config, _settings(SoakSettings), flags.FLAGS.workdir, _start())
    print("\n".join(report.verdict(results)))
    return results


def watch_memory(config):
    """Watches the memory of a run; returns all that was found."""
    results = memory.run(config, _settings(MemorySettings), flags.FLAGS.workdir, _start())
    print(f"grown by {results['growth']:.2%}")
    return results


TESTS = {"kills": soak_kills, "memory": watch_memory}


def main(arguments):
    """Makes the test that the flags name."""
    del arguments
    file = writable_file("json")
    results = TESTS[flags.FLAGS.what](run_configuration())
    if file:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(f"written: {file}")
    if results["findings"]:
        raise RunError(f"{len(results['findings'])} findings, the first: {results['findings'][0]}")


def _settings(kind):
    return kind(**{field.name: getattr(flags.FLAGS, field.name) for field in dataclasses.fields(kind)})


def _start():
    """Returns what starts a command: None for a new interpreter."""
    if not flags.FLAGS.forks:
        return None
    os.environ.update(DETERMINISTIC)
    return Fork


def _define_flags():
    kills, growth = SoakSettings(), MemorySettings()
    define_config_flags("New folder for the runs.")
    flags.DEFINE_enum("what", "kills", list(TESTS), "What to test.")
    flags.DEFINE_enum("task", kills.task, list(TASKS), "Command that is run.")
    flags.DEFINE_bool("forks", False, "Whether the command is run by forks of this process, which start sooner.")
    flags.DEFINE_integer("kills", kills.kills, "How often the run is killed.")
    flags.DEFINE_integer(
        "kills_while_saving", kills.kills_while_saving, "How many of these while a checkpoint is written."
    )
    flags.DEFINE_integer("damages", kills.damages, "After how many of the others the newest checkpoint is damaged.")
    flags.DEFINE_integer("seed", kills.seed, "Of the moments of the kills and of the damage.")
    flags.DEFINE_integer("from_step", growth.from_step, "Step from which on memory may not grow.")
    flags.DEFINE_float("tolerance", growth.tolerance, "By how much it may, as a share.")
    flags.DEFINE_string("json", None, "File for all that was found, with hardware, versions and commit.")


if __name__ == "__main__":
    _define_flags()
    run_command(main)
