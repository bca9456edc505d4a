"""The workers of a run on several hosts: their addresses, and which of them this process is."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence

import tensorflow as tf

from experiments.errors import UserError

# A host name or IP address, in brackets if it has colons, and a port.
ADDRESS = r"(\[[\w.:%]+\]|[\w.-]+):(?P<port>\d{1,5})"
# Ports of Slurm's workers: each job has its own, below the range of ephemeral ports.
FIRST_PORT, NUM_PORTS, PORTS_OF_JOB = 12000, 20000, 16


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run.

    Args:
        addresses: `HOST:PORT` of each worker; the first is the chief, the only one that writes to the workdir.
        index: number of this process among them.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def name(self, index: int) -> str:
        """Returns the name of a worker in messages."""
        return f"worker {index} ({self.addresses[index]})"

    def endpoint(self, index: int) -> tuple[str, int]:
        """Returns `(host, port)` of a worker."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """Returns the resolver for TensorFlow's strategies, with the number of GPUs that this process sees."""
        workers = tf.train.ClusterSpec({"worker": list(self.addresses)})
        accelerators = {"GPU": len(tf.config.list_physical_devices("GPU"))}
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            workers, task_type="worker", task_id=self.index, num_accelerators=accelerators, rpc_layer="grpc"
        )


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Returns the `Cluster` that TF_CONFIG describes or, without it, the variables of a step of Slurm.

    Args:
        environment: mapping of environment variables; Slurm's are always those of the process.

    Raises:
        UserError: if neither is set, or the one that is set is wrong.
    """
    if environment.get("TF_CONFIG"):
        return _from_tf_config(environment["TF_CONFIG"])
    if "SLURM_PROCID" in environment:
        return _from_slurm(environment)
    raise UserError(
        "distribution=multiworker needs TF_CONFIG, or Slurm's variables (start the command with srun); neither is set."
    )


def _from_tf_config(text: str) -> Cluster:
    """Parses TF_CONFIG; a job called `chief` is the first worker."""
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        kinds = [kind for kind in ("chief", "worker") if kind in jobs]
        if set(jobs) - set(kinds) or not kinds:
            raise ValueError("its cluster has workers and at most a chief")
        workers = [(kind, i, address) for kind in kinds for i, address in enumerate(jobs[kind])]
        addresses = tuple(address for *_, address in workers)
        wrong = [address for address in addresses if not _is_address(address)]
        if wrong or len(set(addresses)) < len(addresses):
            raise ValueError(f"expected HOST:PORT, got {wrong[0]!r}" if wrong else "an address appears twice")
        index = int(task["index"])  # often a string
        own = [i for i, (kind, number, _) in enumerate(workers) if (kind, number) == (task["type"], index)]
        if not own:
            raise ValueError(f"its task, {task['type']} {task['index']}, is not in its cluster")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"distribution=multiworker: TF_CONFIG is wrong: {reason}. It looks like "
            '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}.'
        ) from error
    return Cluster(addresses, own[0])


def _is_address(address: object) -> bool:
    parts = re.fullmatch(ADDRESS, address, re.ASCII) if isinstance(address, str) else None
    return parts is not None and 0 < int(parts["port"]) < 2**16


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    try:
        tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "0"))
        job = int(environment.get("SLURM_JOB_ID", "0"))
        # The resolver is used only for the workers' addresses: Slurm decides which GPUs a task sees.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=FIRST_PORT + job * PORTS_OF_JOB % NUM_PORTS,
            gpus_per_node=tasks,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        addresses = tuple(resolver.cluster_spec().job_tasks("worker"))
        return Cluster(addresses, _own_index(addresses, resolver, environment))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"distribution=multiworker: Slurm's variables are wrong: {error}") from error


def _own_index(
    addresses: Sequence[str],
    resolver: tf.distribute.cluster_resolver.SlurmClusterResolver,
    environment: Mapping[str, str],
) -> int:
    """Returns this process's index by node and number: the resolver sorts node10 before node9, the rank does not."""
    on_node = [a for a in addresses if a.rpartition(":")[0] == environment.get("SLURMD_NODENAME")]
    number = int(environment.get("SLURM_LOCALID", "-1"))
    own = addresses.index(on_node[number]) if 0 <= number < len(on_node) else resolver.task_id
    if own is None:
        raise ValueError(f"task {environment['SLURM_PROCID']} is not one of the {len(addresses)} workers.")
    return own
