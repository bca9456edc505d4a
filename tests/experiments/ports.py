"""Ports of this machine that nothing listens at."""

import socket


def free_ports(count):
    """Returns so many numbers."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports
