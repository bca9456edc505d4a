"""What the soak test and the watch over memory are asked to do."""

import dataclasses

from experiments.config.sections import Section, require, require_at_least, require_one_of

TASKS = ("pretrain", "finetune")


@dataclasses.dataclass(frozen=True)
class SoakSettings(Section):
    """Settings of `experiments.reliability.soak`.

    Args:
        task: `pretrain` or `finetune`.
        kills: how often the run is killed.
        kills_while_saving: how many of these come while a checkpoint is written.
        damages: after how many of the others the newest checkpoint is damaged as well.
        seed: of the moments of the kills and of the damage.
    """

    task: str = "pretrain"
    kills: int = 20
    kills_while_saving: int = 5
    damages: int = 3
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        require_one_of("task", self.task, TASKS)
        require_at_least("", self, 1, "kills")
        require_at_least("", self, 0, "kills_while_saving", "damages", "seed")
        least = max(self.kills_while_saving + self.damages, self.kills_while_saving + 1)
        require(
            self.kills >= least,
            f"kills={self.kills} is too few, {least} the least: the last comes at the end of the run, and damage comes "
            f"after kills that are not among kills_while_saving={self.kills_while_saving}.",
        )


@dataclasses.dataclass(frozen=True)
class MemorySettings(Section):
    """Settings of `experiments.reliability.memory`.

    Args:
        task: `pretrain` or `finetune`.
        from_step: step from which on memory is expected to stay as it is.
        tolerance: by how much it may have grown at the end, as a share of what it was.
    """

    task: str = "pretrain"
    from_step: int = 200
    tolerance: float = 0.03

    def __post_init__(self):
        super().__post_init__()
        require_one_of("task", self.task, TASKS)
        require_at_least("", self, 1, "from_step")
        require(self.tolerance > 0, f"tolerance is above 0, got {self.tolerance:g}.")
