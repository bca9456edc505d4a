"""Who the workers are: TF_CONFIG, and Slurm's variables."""

import json
import re

import pytest
import tensorflow as tf

from experiments.config import Config, PretrainConfig
from experiments.errors import UserError
from experiments.training.distributed.cluster import FIRST_PORT, NUM_PORTS, PORTS_OF_JOB, Cluster, find_cluster
from experiments.training.distributed.strategy import check_batch


def tf_config(jobs, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize(
    ("environment", "addresses", "index"),
    [
        (tf_config({"worker": ["a:1", "b:2"]}, index=1), ("a:1", "b:2"), 1),
        (tf_config({"worker": ["b:2", "c:3"], "chief": ["a:1"]}, "chief"), ("a:1", "b:2", "c:3"), 0),
        (tf_config({"worker": ["b:2", "c:3"], "chief": ["a:1"]}, index=1), ("a:1", "b:2", "c:3"), 2),
        (tf_config({"worker": ["[::1]:2"]}), ("[::1]:2",), 0),
        (tf_config({"worker": ["node-0.x:1", "10.0.0.1:2"]}, index="1"), ("node-0.x:1", "10.0.0.1:2"), 1),
    ],
)
def test_tf_config(environment, addresses, index):
    cluster = find_cluster(environment)
    assert cluster == Cluster(addresses, index)
    assert cluster.is_chief == (index == 0)
    resolver = cluster.resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": list(addresses)} and resolver.task_id == index


@pytest.mark.parametrize("count", [0, 2])
def test_all_gpus_of_a_worker_are_used(monkeypatch, count):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * count)
    assert Cluster(("a:1", "b:2"), 0).resolver().num_accelerators() == {"GPU": count}


def test_an_address_is_a_host_and_a_port():
    cluster = Cluster(("node7:123", "[::1]:45"), 0)
    assert [cluster.endpoint(i) for i in (0, 1)] == [("node7", 123), ("::1", 45)]


SLURM = {
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[9-10]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_JOB_ID": str(3 * NUM_PORTS + 5),
}


@pytest.mark.parametrize(
    ("rank", "node", "number", "address"),
    [("0", "node9", "0", "node9:{}"), ("1", "node9", "1", "node9:{}"), ("2", "node10", "0", "node10:{}")],
)
def test_slurm(monkeypatch, rank, node, number, address):
    """TensorFlow orders node10 before node9, so the ranks are not the numbers of the workers."""
    own = {"SLURM_PROCID": rank, "SLURMD_NODENAME": node, "SLURM_LOCALID": number}
    for name, value in {**SLURM, **own}.items():
        monkeypatch.setenv(name, value)
    cluster = find_cluster({**SLURM, **own})
    port = FIRST_PORT + 5 * PORTS_OF_JOB
    assert cluster.addresses == (f"node10:{port}", f"node9:{port}", f"node9:{port + 1}")
    assert cluster.addresses[cluster.index] == address.format(port + int(number))


def test_the_tasks_of_neighbouring_jobs_have_ports_of_their_own(monkeypatch):
    """Two jobs on one node."""
    seen = []
    for job in range(1248, 1252):
        own = {**SLURM, "SLURM_STEP_NODELIST": "node9", "SLURM_STEP_TASKS_PER_NODE": "3", "SLURM_JOB_ID": str(job)}
        for name, value in {**own, "SLURM_PROCID": "0"}.items():
            monkeypatch.setenv(name, value)
        seen += find_cluster({**own, "SLURM_PROCID": "0"}).addresses
    assert len(set(seen)) == 4 * 3


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "needs TF_CONFIG, or Slurm's variables (start the command with srun); neither is set."),
        ({"TF_CONFIG": "{"}, "TF_CONFIG is wrong: Expecting property name"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG is wrong: list indices"),
        ({"TF_CONFIG": "[" * 100_000}, "TF_CONFIG is wrong: maximum recursion depth exceeded"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "TF_CONFIG is wrong: it has no 'task'."),
        (tf_config({"worker": ["a:1"]}, index=1), "TF_CONFIG is wrong: its task, worker 1, is not in its cluster."),
        (tf_config({"worker": ["a:1"], "ps": ["b:1"]}), "its cluster has workers and at most a chief."),
        (tf_config({}), "its cluster has workers and at most a chief."),
        (tf_config({"worker": ["a:1", "b"]}), "TF_CONFIG is wrong: expected HOST:PORT, got 'b'."),
        (tf_config({"worker": ["grpc://a:1"]}), "TF_CONFIG is wrong: expected HOST:PORT, got 'grpc://a:1'."),
        (tf_config({"worker": ["a:1", "b:99999"]}), "TF_CONFIG is wrong: expected HOST:PORT, got 'b:99999'."),
        (tf_config({"worker": ["a:1", "a:1"]}), "TF_CONFIG is wrong: an address appears twice."),
        ({"SLURM_PROCID": "0"}, "Slurm's variables are wrong: SLURM_STEP_NUM_TASKS not found in environment."),
        ({**SLURM, "SLURM_PROCID": "5"}, "Slurm's variables are wrong: task 5 is not one of the 3 workers."),
        ({**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n[1"}, "Slurm's variables are wrong: Invalid hostlist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(monkeypatch, environment, reason):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(reason)) as raised:
        find_cluster(environment)
    assert str(raised.value).startswith("distribution=multiworker") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("batch_size", "accumulation_steps", "replicas", "workers", "message"),
    [
        (100, 1, 8, 1, "pretrain.batch_size=100 is not divisible by 8 devices x 1 accumulation steps; use 96 or 104."),
        (36, 3, 8, 2, "=36 is not divisible by 2 workers x 4 devices x 3 accumulation steps; use 24 or 48."),
        (4, 1, 8, 4, "=4 is not divisible by 4 workers x 2 devices x 1 accumulation steps; use 8."),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_and_the_nearest_named(
    batch_size, accumulation_steps, replicas, workers, message
):
    training = PretrainConfig(batch_size=batch_size, accumulation_steps=accumulation_steps)
    with pytest.raises(UserError, match=re.escape(message)):
        check_batch(training, replicas, workers)


def test_several_workers_have_a_cpu_each():
    with pytest.raises(UserError, match="logical_cpus is for a single process"):
        Config(distribution="multiworker", logical_cpus=2)
