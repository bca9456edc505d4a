"""Workers wait for each other; one that is missing, or that runs something else, ends all with a message."""

import concurrent.futures
import re
import socket
import threading
import time

import pytest

from experiments.errors import RunError, UserError
from experiments.training.distributed.cluster import Cluster
from experiments.training.distributed.rendezvous import meet
from tests.experiments.ports import free_ports

GREETING = {"configuration": 7, "number of devices": 2}


@pytest.fixture
def addresses():
    """Of three workers, at free ports of this machine."""
    return tuple(f"127.0.0.1:{port}" for port in free_ports(3))


def run(addresses, present, greetings=None, seconds=20.0):
    """Lets workers meet, each in a thread; returns what came of each: None or its error."""

    def meeting(index):
        time.sleep(0.1 * index)
        try:
            meet(Cluster(addresses, index), (greetings or {}).get(index, GREETING), seconds)
        except (RunError, UserError) as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(present)) as executor:
        return dict(zip(present, executor.map(meeting, present)))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_workers_that_are_all_there_go_on_and_leave_the_port_free(addresses, order):
    assert list(run(addresses, order).values()) == [None] * 3
    socket.create_server(("127.0.0.1", Cluster(addresses, 0).endpoint(0)[1])).close()


def test_a_worker_that_does_not_come_up_is_named_to_all_others(addresses):
    results = run(addresses, (0, 2), seconds=1.0)
    for error in results.values():
        assert isinstance(error, RunError)
    assert str(results[0]) == f"These workers did not connect within 1 s: worker 1 ({addresses[1]})."
    assert str(results[2]) in (
        str(results[0]),
        f"{Cluster(addresses, 0).name(0)}, or one that it waits for, did not connect within 1 s.",
    )


def test_without_the_chief_nobody_waits_for_ever(addresses):
    (error,) = run(addresses, (1,), seconds=0.5).values()
    message = f"worker 0 ({addresses[0]}), or one that it waits for, did not connect within 0.5 s."
    assert isinstance(error, RunError) and str(error) == message


@pytest.mark.parametrize("name", GREETING)
def test_a_worker_that_runs_something_else_ends_all(addresses, name):
    results = run(addresses, (0, 1, 2), {2: {**GREETING, name: 9}})
    pattern = re.escape(
        f"worker 2 ({addresses[2]}) has a different {name} than worker 0 ({addresses[0]}): start all workers"
    )
    assert isinstance(results[0], UserError)
    for error in results.values():
        assert re.match(pattern, str(error))


def test_strangers_and_workers_that_leave_again_do_not_count(addresses):
    host, port = Cluster(addresses, 0).endpoint(0)

    def disturb():
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"", b'{"configuration": 7, "number of devices": 2, "worker": 1}\n'):
            for _ in range(100):
                try:
                    with socket.create_connection((host, port)) as connection:
                        connection.sendall(words)
                    break
                except OSError:
                    time.sleep(0.02)

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        disturbing = executor.submit(disturb)
        results = run(addresses, (0, 2), seconds=2.0)
        disturbing.result()
    assert f"worker 1 ({addresses[1]})" in str(results[0]) and "worker 2" not in str(results[0])


def test_a_port_that_is_taken_is_said(addresses):
    with socket.create_server(("", Cluster(addresses, 0).endpoint(0)[1])):
        (error,) = run(addresses, (0,)).values()
    assert isinstance(error, UserError)
    assert str(error) == f"worker 0 ({addresses[0]}) cannot listen on its port: Address already in use."


def test_a_worker_whose_port_is_taken_says_so_before_it_waits(addresses):
    with socket.create_server(("", Cluster(addresses, 2).endpoint(2)[1])):
        (error,) = run(addresses, (2,)).values()
    assert isinstance(error, UserError)
    assert str(error) == f"worker 2 ({addresses[2]}) cannot listen on its port: Address already in use."


@pytest.mark.parametrize("words", [b"\xff\xfe\n", b"x" * 4096])
def test_something_else_at_the_address_of_the_chief_is_no_chief(addresses, words):
    """It speaks no text, or without an end."""
    over = threading.Event()

    def speak(server):
        server.settimeout(0.1)
        while not over.is_set():
            try:
                connection, _ = server.accept()
                with connection:
                    while not over.is_set():
                        connection.sendall(words)
            except OSError:
                pass

    endpoint = Cluster(addresses, 0).endpoint(0)
    with socket.create_server(endpoint) as server, concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(speak, server)
        (error,) = run(addresses, (1,), seconds=0.5).values()
        over.set()
    assert isinstance(error, RunError) and "did not connect within 0.5 s." in str(error)
