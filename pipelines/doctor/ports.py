"""Ports on this machine that MLflow's pages and a Ray of one's own ask for."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping

from mixopt.pipelines.doctor.finding import Finding, Level, Place

CHECK = "ports"
USUAL = {
    5000: "MLflow's pages: name another with `mlflow ui --port`",
    6379: "`ray start --head`: name another with --port",
    8265: "Ray's dashboard: name another with --dashboard-port",
}


def check_ports(place: Place) -> Iterator[Finding]:
    """Try to listen on the usual ports."""
    yield from ports_free(USUAL)


def ports_free(ports: Mapping[int, str]) -> Iterator[Finding]:
    """A note for each of `ports` that is taken; its value says for what it is wanted."""
    taken = [port for port in ports if is_taken(port)]
    for port in taken:
        wanted, _, instead = ports[port].partition(": ")
        text = f"port {port} is taken already, by this or another program; it is that of {wanted}"
        yield Finding(CHECK, Level.NOTE, text, instead.capitalize())
    if not taken:
        listed = ", ".join(map(str, ports))
        yield Finding(CHECK, Level.FINE, f"ports {listed} are free on this machine")


def is_taken(port: int) -> bool:
    """Whether another socket listens on `port` of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed ones are free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
