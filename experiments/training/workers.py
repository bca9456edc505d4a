"""The part of one process in a run: alone, or as one worker of several."""

import contextlib
import dataclasses
import json
import time
import zlib

import numpy as np
import tensorflow as tf

from experiments.errors import Interrupted, RunError, UserError
from experiments.io import FAULTS, as_path
from experiments.training.agreement import Agreement
from experiments.training.checkpoint_files import CheckpointFiles
from experiments.training.cluster import Cluster, find_cluster
from experiments.training.distribution import SECONDS_TO_CONNECT, local_devices, make_strategy, multiworker_strategy
from experiments.training.interruption import TOO_LATE
from experiments.training.meeting import meet
from experiments.training.watch import Watch
from experiments.training.workdir import SUMMARY

SECONDS_BETWEEN_LOOKS = 1.0
SUMMARY_SECONDS = 40.0  # that a file system of a network may take to show what another host has written
PIECES = (0, 16, 32)  # a number in pieces of 16 bits, which float32 holds


@dataclasses.dataclass(frozen=True)
class Workers:
    """This process among those that work on a run.

    Args:
        strategy: the `tf.distribute.Strategy` over the devices of all.
        cluster: the `Cluster`; None for a process that works alone.
        watch: the `Watch` over the other workers; None for a process that works alone.
    """

    strategy: tf.distribute.Strategy
    cluster: Cluster | None = None
    watch: Watch | None = None

    @property
    def is_chief(self):
        """Whether this process is the one that writes into the workdir."""
        return self.cluster is None or self.cluster.is_chief

    @property
    def count(self):
        """Number of workers."""
        return len(self.cluster.addresses) if self.cluster else 1

    def stopping(self, interruption, training_step):
        """Returns what a run is stopped by, and the training step that goes with it.

        Args:
            interruption: the `Interruption` of this process.
            training_step: of `make_training_step`.
        """
        if not self.cluster:
            return interruption, training_step
        # The others leave at once, while the chief still saves. One that is slow may find the chief gone by then.
        calls = (_nothing, self.watch.end) if self.is_chief else (self.watch.let_chief_leave, _nothing)
        agreement = Agreement(interruption, *calls)
        return agreement, agreement.asking(training_step)

    def check_same(self, **numbers):
        """Makes sure that all workers have come to the same numbers.

        Args:
            **numbers: whole numbers below 2**48, by what they count.

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
                    f"The workers do not see the same: {name.replace('_', ' ')} is {seen}. All of them need the same "
                    "images, and a --workdir that lies on storage they share."
                )

    @contextlib.contextmanager
    def training(self, interruption):
        """Context of the steps. After it, the chief needs nobody, and the others the chief alone.

        Args:
            interruption: the `Interruption` of this process.

        Raises:
            Interrupted: on all workers, if one was asked to stop too late for the steps to take note.
        """
        try:
            yield
            is_asked = self.cluster and self._gathered([int(interruption.requested)]).any()
        except RunError:  # which all have come upon, or the others will notice
            self._part()
            raise
        self._part()
        if is_asked:
            raise Interrupted(TOO_LATE)

    def _part(self):
        if self.cluster and self.is_chief:
            self.watch.end()
        elif self.cluster:
            self.watch.only_chief()

    def wait_for_summary(self, workdir):
        """Waits until the chief has finished the run, which evaluates and writes alone.

        Raises:
            RunError: if the chief is gone, and the summary of the run does not show up either.
        """
        gone_since = None
        while not _exists(workdir / SUMMARY):
            if self.watch.has_lost:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > SUMMARY_SECONDS:
                    self.watch.check()
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _gathered(self, numbers):
        """Returns what each worker gives, `(workers, numbers)`: a sum in which each has a row of its own."""
        local = self.strategy.num_replicas_in_sync // self.count
        own = np.zeros((self.count, len(numbers), len(PIECES)), "float32")
        own[self.cluster.index] = [[number >> shift & 0xFFFF for shift in PIECES] for number in numbers]

        @tf.function
        def total():
            def of_replica():
                return tf.distribute.get_replica_context().all_reduce("SUM", tf.constant(own / local))

            return self.strategy.experimental_local_results(self.strategy.run(of_replica))[0]

        pieces = np.rint(total().numpy()).astype(np.int64)
        return sum(pieces[..., i] << shift for i, shift in enumerate(PIECES))


def on_workers(config, task, workdir, say, work):
    """Does the part of this process in a run.

    With `distribution=multiworker` every worker calls it, with the same arguments. It waits up to `meeting.SECONDS` for
    the others; one that is lost later ends this one within a minute.

    Args:
        config: the `Config`.
        task: `pretrain` or `finetune`.
        workdir: path of the run's folder.
        say: function that takes a line for the user; the chief alone calls it.
        work: function of `Workers` and `say` that returns the summary of the run.

    Returns:
        What `work` returns; None on a worker that is not the chief.

    Raises:
        RunError: if another worker does not come up or is lost.
        UserError: if the workers do not fit together.
    """
    cluster = find_cluster() if config.distribution == "multiworker" else None
    if cluster is None or len(cluster.addresses) == 1:
        own = dataclasses.replace(config, distribution="auto") if cluster else config
        return work(Workers(make_strategy(own)), say)
    settings = json.dumps([task, config.to_dict()], sort_keys=True)
    meet(cluster, {"configuration": zlib.crc32(settings.encode()), "number of devices": len(local_devices(config))})
    say = say if cluster.is_chief else _silence
    others = len(cluster.addresses) - 1
    say(f"connects to {others} more workers; ends after {SECONDS_TO_CONNECT} s if one is gone by now")
    strategy = multiworker_strategy(cluster)
    with Watch(cluster, lambda: CheckpointFiles.of(as_path(workdir)).last_good) as watch:
        summary = work(Workers(strategy, cluster, watch), say)
    return summary if cluster.is_chief else None


def _exists(path):
    """Whether a file is there; on storage that fails for a moment, not yet."""
    try:
        return path.exists()
    except FAULTS:
        return False


def _nothing(): ...


def _silence(line):
    del line
