"""One process of a run: alone, or one worker of several."""

import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from experiments.config import Config
from experiments.errors import Interrupted, RunError, UserError
from experiments.io import FAULTS, as_path
from experiments.training.checkpoint import CheckpointFiles
from experiments.training.distributed.cluster import Cluster, find_cluster
from experiments.training.distributed.heartbeat import Heartbeat
from experiments.training.distributed.rendezvous import meet
from experiments.training.distributed.strategy import (
    SECONDS_TO_CONNECT,
    choose_precision,
    local_devices,
    make_strategy,
    multiworker_strategy,
)
from experiments.training.guards import TOO_LATE, Interruption
from experiments.training.workdir import SUMMARY
from experiments.types import Log, Path

SECONDS_BETWEEN_LOOKS = 1.0
SUMMARY_SECONDS = 40.0  # until a network file system shows a file that another host has written


@dataclasses.dataclass(frozen=True)
class Workers:
    """This process among those that work on a run.

    Args:
        strategy: the `tf.distribute.Strategy` over the devices of all.
        cluster: the `Cluster`; None for a process that works alone.
        heartbeat: the `Heartbeat` over the other workers; None for a process that works alone.
    """

    strategy: tf.distribute.Strategy
    cluster: Cluster | None = None
    heartbeat: Heartbeat | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes into the workdir."""
        return self.cluster is None or self.cluster.is_chief

    @property
    def count(self) -> int:
        return len(self.cluster.addresses) if self.cluster else 1

    @property
    def index(self) -> int:
        """Number of this worker, from 0, the chief."""
        return self.cluster.index if self.cluster else 0

    def stop_request(self, interruption: Interruption) -> "Interruption | Agreement":
        """Returns the object that stops the steps: the signals of this process, or the agreement of all workers.

        Args:
            interruption: the `Interruption` of this process.
        """
        if not self.heartbeat:
            return interruption
        # The other workers exit at once while the chief still saves; if one is slow, the chief may exit first.
        calls = (_nothing, self.heartbeat.end) if self.is_chief else (self.heartbeat.let_chief_leave, _nothing)
        return Agreement(interruption, *calls)

    def check_same(self, **numbers: int) -> None:
        """Checks that all workers have the same numbers.

        Args:
            **numbers: whole numbers below 2**53, each under the name of what it counts.

        Raises:
            UserError: on all workers, if a number differs.
        """
        if not self.cluster:
            return
        found = self._gathered(list(numbers.values()))
        for name, of_workers in zip(numbers, found.T):
            if len(set(of_workers)) > 1:
                seen = ", ".join(f"{number} for worker {i}" for i, number in enumerate(of_workers))
                raise UserError(
                    f"The workers disagree: {name.replace('_', ' ')} is {seen}. All of them need the same "
                    "images and a --workdir on shared storage."
                )

    @contextlib.contextmanager
    def training(self, interruption: Interruption) -> Iterator[None]:
        """Context for the steps.

        Args:
            interruption: the `Interruption` of this process.

        Raises:
            Interrupted: on all workers, if one was asked to stop after the last step.
        """
        try:
            yield
            is_asked = self.cluster and self._gathered([int(interruption.requested)]).any()
        except RunError:  # raised on all workers, or noticed by the heartbeat of the others
            self.part()
            raise
        if is_asked:
            self.part()
            raise Interrupted(TOO_LATE)

    def part(self) -> None:
        """Called when all have evaluated: from here on the chief depends on no worker, and the others only on it."""
        if self.heartbeat and self.is_chief:
            self.heartbeat.end()
        elif self.heartbeat:
            self.heartbeat.only_chief()

    def wait_for_summary(self, workdir: Path) -> None:
        """Waits until the chief, which writes alone, has finished the run.

        Raises:
            RunError: if the chief is lost and the run has no summary.
        """
        assert self.heartbeat is not None
        gone_since = None
        while not _exists(workdir / SUMMARY):
            if self.heartbeat.has_lost:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > SUMMARY_SECONDS:
                    self.heartbeat.check()
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _gathered(self, numbers: Sequence[int]) -> np.ndarray:
        """Gathers the numbers of all workers, `(workers, numbers)`, as a sum in which each fills its own row."""
        own = np.zeros((self.count, len(numbers)), "float64")
        own[self.index] = numbers
        return np.rint(self.summed(own)).astype(np.int64)

    def share_weights(self, model: keras.Model) -> None:
        """Gives the model of each worker the weights of the chief's."""
        if self.count == 1:
            return
        variables = [variable for variable in model.weights if variable.dtype == "float32"]
        values = np.concatenate([np.ravel(variable.numpy()) for variable in variables])
        values = self.summed(values if self.is_chief else np.zeros_like(values))
        ends = np.cumsum([math.prod(variable.shape) for variable in variables])
        for variable, value in zip(variables, np.split(values, ends[:-1])):
            variable.assign(value.reshape(variable.shape))

    def summed(self, array: np.ndarray) -> np.ndarray:
        """Returns the sum over all workers, each of which calls this with a NumPy array of the same shape."""
        return self._total(array.shape, array.dtype)(tf.constant(array)).numpy()

    @functools.cached_property
    def _total(self) -> Callable[..., Callable[..., tf.Tensor]]:
        local = self.strategy.num_replicas_in_sync // self.count

        def of_replica(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group % local == 0  # of its worker
            return context.all_reduce("SUM", tf.where(is_first, value, tf.zeros_like(value)))

        @functools.cache  # a function of its own for each shape: TensorFlow warns of one that is traced often
        def total_of(shape: tuple[int, ...], dtype: np.dtype) -> Callable[[tf.Tensor], tf.Tensor]:
            @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, dtype)])
            def total(value: tf.Tensor) -> tf.Tensor:
                return self.strategy.experimental_local_results(self.strategy.run(of_replica, args=(value,)))[0]

            return total

        return total_of


@contextlib.contextmanager
def connected_workers(config: Config, task: str, workdir: str | os.PathLike[str], log: Log) -> Iterator[Workers]:
    """Context in which this process and the other workers of a run are connected.

    With `distribution=multiworker` every worker enters it, with the same arguments, and waits up to
    `rendezvous.SECONDS` for the others. If a worker is lost later, this one exits within a minute.

    Args:
        config: the `Config`.
        task: name of the task, such as `pretrain`.
        workdir: path of the run's folder.
        log: function that takes a line for the user.

    Yields:
        The `Workers`.

    Raises:
        RunError: if another worker does not connect or is lost.
        UserError: if the workers differ in configuration or devices.
    """
    cluster = find_cluster() if config.distribution == "multiworker" else None
    if cluster is None or len(cluster.addresses) == 1:
        own = dataclasses.replace(config, distribution="auto") if cluster else config
        yield Workers(make_strategy(own))
        return
    settings = json.dumps([task, config.to_dict()], sort_keys=True)
    greeting = {"configuration": zlib.crc32(settings.encode()), "number of devices": len(local_devices(config))}
    meet(cluster, greeting | {"precision": choose_precision(config.precision)})
    if cluster.is_chief:
        others = len(cluster.addresses) - 1
        log(f"connecting to {others} more workers; exiting after {SECONDS_TO_CONNECT} s if one has died")
    strategy = multiworker_strategy(cluster)
    with Heartbeat(cluster, lambda: CheckpointFiles(as_path(workdir)).last_good) as heartbeat:
        yield Workers(strategy, cluster, heartbeat)


def _exists(path: Path) -> bool:
    """Whether a file exists; False while the storage fails."""
    try:
        return path.exists()
    except FAULTS:
        return False


def _nothing() -> None: ...


# Number of steps after which an answer is read: it has been computed by then, so no read waits for the device.
DELAY = 4


class Agreement:
    """The `Interruption` of several workers, which stop after the same step.

    At each step, every worker contributes whether it was asked to stop, summed over all workers. All read the sum the
    same number of steps later, so they agree on a step without waiting for the device.

    Args:
        interruption: the `Interruption` of this worker.
        when_agreed: function without arguments, called when the workers have agreed to stop.
        when_released: function without arguments, called when the last step that all take part in is done.

    Attributes:
        requested: whether the workers stop after the current step.
    """

    def __init__(
        self, interruption: Interruption, when_agreed: Callable[[], None], when_released: Callable[[], None]
    ) -> None:
        self._interruption = interruption
        self._when_agreed = when_agreed
        self._when_released = when_released
        self._answers: collections.deque[tf.Tensor] = collections.deque()
        self.requested = False

    def release(self) -> None:
        """Called when the last step was read, after which this worker needs no other."""
        self._when_released()

    def question(self) -> tf.Tensor:
        """Returns the input of the next step: whether this worker was asked to stop, 0 or 1."""
        return tf.constant(float(self._interruption.requested))

    def take_answer(self, answer: tf.Tensor) -> None:
        """Takes the sum over all workers, a scalar tensor that is read `DELAY` steps later."""
        self._answers.append(answer)
        if len(self._answers) > DELAY and float(self._answers.popleft()) > 0.0 and not self.requested:
            self.requested = True
            self._when_agreed()
