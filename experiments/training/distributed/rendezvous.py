"""Workers meet before TensorFlow connects them, because TensorFlow would wait for an hour without a message.

The chief listens on its own address until every other worker has connected and sent its configuration; then all start,
and TensorFlow takes over the port. After a timeout, the error names the missing workers.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from experiments.errors import RunError, UserError
from experiments.training.distributed.cluster import Cluster

SECONDS = 60  # for which a worker waits for the others
BETWEEN_TRIES = 0.2
ANSWER_SECONDS = 5.0
LONGEST_LINE = 2**20  # bytes
GO, STOP = "go", "stop"


def meet(cluster: Cluster, greeting: Mapping[str, Any], seconds: float = SECONDS) -> None:
    """Waits until all workers of a cluster are connected, and checks that they run the same command.

    Args:
        cluster: a `Cluster` of two workers or more.
        greeting: dictionary of texts and numbers that must be the same on all workers.
        seconds: for which it waits.

    Raises:
        RunError: if a worker does not connect in time.
        UserError: if a worker runs something else, or the port of this one is in use.
    """
    deadline = time.monotonic() + seconds
    greeting = {**greeting, "list of workers": list(cluster.addresses)}
    if cluster.is_chief:
        _receive(cluster, greeting, seconds, deadline)
    else:
        _announce(cluster, greeting, seconds, deadline)


def _receive(cluster: Cluster, greeting: Mapping[str, Any], seconds: float, deadline: float) -> None:
    """The chief's part."""
    others = range(1, len(cluster.addresses))
    present: dict[int, socket.socket] = {}
    with _listen(cluster) as server:
        try:
            while len(present) < len(others):
                _accept(server, present, greeting, cluster, deadline)
                present = {index: connection for index, connection in present.items() if not _has_left(connection)}
        except TimeoutError:
            missing = ", ".join(cluster.name(index) for index in others if index not in present)
            message = f"These workers did not connect within {seconds:g} s: {missing}."
            _send(present, STOP, message)
            raise RunError(message) from None
        except UserError as error:
            _send(present, STOP, str(error))
            raise
        _send(present, GO)


def _listen(cluster: Cluster) -> socket.socket:
    """Opens this worker's port, which TensorFlow takes over later."""
    _, port = cluster.endpoint(cluster.index)
    dual = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(("", port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual)
    except OSError as error:
        assert error.errno is not None
        raise UserError(
            f"{cluster.name(cluster.index)} cannot listen on its port: {os.strerror(error.errno)}."
        ) from error


def _accept(
    server: socket.socket,
    present: dict[int, socket.socket],
    greeting: Mapping[str, Any],
    cluster: Cluster,
    deadline: float,
) -> None:
    """Adds the next worker that connects to those present."""
    server.settimeout(max(deadline - time.monotonic(), 1e-3))
    connection, _ = server.accept()
    try:
        found = json.loads(_read_line(connection, time.monotonic() + ANSWER_SECONDS))
        index = int(found.pop("worker"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):  # not a worker
        connection.close()
        return
    present[index] = connection
    different = [name for name in greeting if found.get(name) != greeting[name]]
    if different:
        name = cluster.name(index) if index in range(len(cluster.addresses)) else f"worker {index}"
        raise UserError(
            f"{name} has a different {' and '.join(different)} than {cluster.name(0)}: start all workers "
            "with the same command, on hosts with the same devices."
        )


def _has_left(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(ANSWER_SECONDS)


def _send(present: Mapping[int, socket.socket], *words: str) -> None:
    """Sends the same words to all present, and waits until they have closed the connection, which frees the port."""
    for connection in present.values():
        try:
            connection.sendall(" ".join(words).encode() + b"\n")
            connection.recv(1)
        except OSError:  # the heartbeat will notice
            pass
        finally:
            connection.close()


def _announce(cluster: Cluster, greeting: Mapping[str, Any], seconds: float, deadline: float) -> None:
    """The part of all other workers."""
    _listen(cluster).close()
    why = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(cluster.endpoint(0), timeout=min(left, ANSWER_SECONDS)) as connection:
                connection.sendall(json.dumps({**greeting, "worker": cluster.index}).encode() + b"\n")
                word, _, message = _read_line(connection, deadline).partition(" ")
        except socket.gaierror as error:
            word, message, why = "", "", f" ({error.strerror})"
        except (OSError, ValueError):  # nothing listens there yet, or something else does
            word = message = ""
        if word == GO:
            return
        if word == STOP:
            raise RunError(message)
        time.sleep(BETWEEN_TRIES)
    raise RunError(f"{cluster.name(0)}, or one that it waits for, did not connect within {seconds:g} s{why}.")


def _read_line(connection: socket.socket, deadline: float) -> str:
    """Reads a line; empty if the connection closes before its end, or it is too long."""
    text = b""
    while not text.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        piece = connection.recv(4096)
        if not piece or len(text) > LONGEST_LINE:
            return ""
        text += piece
    return text.decode().rstrip("\n")
