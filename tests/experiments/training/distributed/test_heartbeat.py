"""The loss of another worker: noticed by its port, told in one line, and the end even of a process that is stuck."""

import os
import re
import socket
import sys
import threading

import pytest
import tensorflow as tf

from experiments.errors import Interrupted, RunError
from experiments.training.distributed import heartbeat
from experiments.training.distributed.cluster import Cluster
from experiments.training.distributed.heartbeat import Heartbeat
from experiments.training.distributed.workers import DELAY, Agreement


@pytest.fixture
def port(monkeypatch):
    """A server that answers as another worker does; the watch is quick to give it up."""
    for name, value in {"BETWEEN_PROBES": 0.02, "PROBE_TIMEOUT": 0.5, "LOST_AFTER": 0.2, "GRACE": 30.0}.items():
        monkeypatch.setattr(heartbeat, name, value)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def watching(server):
    cluster = Cluster(("127.0.0.1:1", f"127.0.0.1:{server.getsockname()[1]}"), 0)
    return Heartbeat(cluster, lambda: "the last checkpoint is X"), cluster.name(1)


def test_a_worker_that_answers_is_not_lost(port):
    guard, _ = watching(port)
    with guard:
        threading.Event().wait(0.6)
        guard.check()


@pytest.mark.parametrize(
    "failure", [tf.errors.UnavailableError(None, None, "Socket closed"), tf.errors.CancelledError(None, None, "x")]
)
def test_what_tensorflow_raises_becomes_one_line_that_names_the_worker(port, failure):
    guard, name = watching(port)
    message = f"Lost the connection to {name}; the last checkpoint is X. See the log of that worker, and restart"
    with pytest.raises(RunError, match=re.escape(message)), guard:
        port.close()
        raise failure


@pytest.mark.parametrize(
    ("words", "named"),
    [("Collective ops is aborted by: /job:worker/replica:0/task:1 hangs (task:0 says)", True), ("Collective", False)],
)
def test_a_worker_that_answers_but_hangs_is_named_by_tensorflow(port, monkeypatch, words, named):
    monkeypatch.setattr(heartbeat, "PROBE_TIMEOUT", 0.01)
    guard, name = watching(port)
    with pytest.raises(RunError, match=re.escape(name if named else "another worker")), guard:
        raise tf.errors.AbortedError(None, None, words)


def test_hosts_that_answer_are_not_blamed_for_those_that_do_not(port, monkeypatch):
    """Five hosts let each probe wait for an answer that never comes."""
    monkeypatch.setattr(heartbeat, "LOST_AFTER", 0.6)
    cluster = Cluster(tuple(f"host{i}:1" for i in range(7)), 0)
    guard = Heartbeat(cluster, lambda: "the last checkpoint is X")

    def answers(index):
        if index == 6:
            return True
        threading.Event().wait(0.5)
        return False

    monkeypatch.setattr(guard, "_answers", answers)
    with pytest.raises(RunError) as error, guard:
        assert guard._found.wait(20)
        threading.Event().wait(1.0)  # the time it takes to say so
        guard.check()
    assert "worker 5" in str(error.value) and "worker 6" not in str(error.value)


def test_check_raises_when_a_worker_is_lost(port):
    guard, name = watching(port)
    with pytest.raises(RunError, match=re.escape(name)), guard:
        port.close()
        assert guard._found.wait(20)
        guard.check()


@pytest.mark.parametrize("error", [ValueError("a defect"), tf.errors.InvalidArgumentError(None, None, "a defect")])
def test_errors_of_this_worker_stay_what_they_are(port, error):
    guard, _ = watching(port)
    with pytest.raises(type(error), match="a defect"), guard:
        raise error


def test_workers_may_leave_when_the_watch_is_over(port):
    guard, _ = watching(port)
    with guard:
        guard.end()
        port.close()
        threading.Event().wait(0.6)
        guard.check()


def end_of_a_stuck_process(guard, errors):
    """Returns the exit code of a child that waits under a watch; what it says is in a file."""
    child = os.fork()
    if not child:
        with open(errors, "w", encoding="utf-8") as sys.stderr, guard:
            threading.Event().wait(60)
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_process_that_is_stuck_is_ended_with_code_1(port, monkeypatch, tmp_path):
    guard, name = watching(port)
    port.close()
    monkeypatch.setattr(heartbeat, "GRACE", 0.1)
    assert end_of_a_stuck_process(guard, tmp_path / "errors") == 1
    (line,) = (tmp_path / "errors").read_text().splitlines()
    assert line.startswith(f"error: Lost the connection to {name}; the last checkpoint is X.")


def test_when_all_stop_a_chief_that_is_gone_is_no_error(port, monkeypatch, tmp_path):
    """A worker that is slow may still be reading its last step, or be stuck there, when the chief has left."""
    guard, _ = watching(port)
    with pytest.raises(Interrupted, match="Stopped with the other workers"), guard:
        guard.let_chief_leave()
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    guard, _ = watching(port)
    port.close()
    monkeypatch.setattr(heartbeat, "GRACE", 0.1)
    guard.let_chief_leave()
    assert end_of_a_stuck_process(guard, tmp_path / "errors") == 0
    assert (tmp_path / "errors").read_text().startswith("Stopped with the other workers;")


class Request:
    """An `Interruption` by hand."""

    requested = False


@pytest.mark.parametrize("asked", [0, 1])
def test_workers_agree_on_the_step_after_which_they_stop(asked):
    """Two workers, whose steps add up what both ask."""
    requests, agreed, told = [Request(), Request()], [], []
    agreements = [
        Agreement(request, lambda i=i: agreed.append(i), lambda i=i: told.append(i))
        for i, request in enumerate(requests)
    ]

    stopped = []
    for step in range(10):
        requests[asked].requested = step >= 3
        total = sum(agreement.question() for agreement in agreements)
        for agreement in agreements:
            agreement.take_answer(total)
        stopped.append([agreement.requested for agreement in agreements])
    assert stopped == [[False] * 2] * (3 + DELAY) + [[True] * 2] * (7 - DELAY)
    assert agreed == [0, 1] and told == []
    for agreement in agreements:
        agreement.release()
    assert told == [0, 1]


def test_a_host_whose_name_is_no_longer_found_is_not_lost(port, monkeypatch):
    """Its address is known by then."""
    guard, _ = watching(port)
    assert guard._answers(1)

    def fail(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    guard._cluster = Cluster(("host0:1", "host1:1"), 0)
    assert guard._answers(1)
