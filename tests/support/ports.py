"""Ports for processes that must be told theirs before they start."""

import socket


def free_port() -> int:
    """Free on loopback a moment ago: prefer port 0 wherever the process tells what it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
