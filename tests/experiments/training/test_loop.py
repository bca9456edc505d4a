"""When the loop writes checkpoints."""

import pytest

from experiments.training import loop
from experiments.training.loop import Course, train


class Clock:
    """A clock that a step moves on."""

    def __init__(self):
        self.seconds = 100.0

    def monotonic(self):
        return self.seconds

    perf_counter = monotonic


class Saved(list):
    """Stands for the checkpoints: notes the steps at which one is saved, and how long that takes."""

    window = ""
    last_good = "there is no checkpoint yet"

    def __init__(self, clock, seconds):
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def save(self, step, window):
        self.append(step)
        self._clock.seconds += self._seconds


class Sound:
    """Stands for the watch over losses and weights, which finds nothing."""

    def check_losses(self, losses, step, last_good): ...

    def check_weights(self, loss, step, last_good): ...


class NotInterrupted:
    requested = False

    def release(self): ...


@pytest.mark.parametrize(
    ("every", "minutes", "steps"),
    [
        (4, 0.0, [4, 8, 12, 14]),
        (0, 2.0, [4, 8, 12, 14]),  # 120 s after the last, of steps of 31 s
        (0, 0.5, [*range(1, 15)]),
        (5, 2.0, [4, 5, 9, 10, 14]),  # either way; the minutes count from the last
        (100, 100.0, [14]),
    ],
)
def test_checkpoints_come_by_steps_and_by_minutes(monkeypatch, every, minutes, steps):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def step(batch):
        clock.seconds += 31.0
        return {"loss": 1.0 + batch, "unreadable": 0.0}

    saved = Saved(clock, seconds=200.0)
    train(step, range(14), Course(0, 14, 7, 2, 3, every, minutes), [], saved, NotInterrupted(), Sound())
    assert saved == steps
