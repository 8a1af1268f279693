"""Connecting to Ray: a cluster that is there, or one started on this machine for as long as we run.

Since 2.59 a Ray that a program starts itself, as we do for `local`, asks for a token and makes its
own. To reach a cluster with token authentication, give this machine the cluster's token
(`RAY_AUTH_MODE=token`, `RAY_AUTH_TOKEN`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import ray

from mixopt.core.errors import StudyError, TrainingError

NODE_ANSWERS_SECONDS = 3.0
CLUSTER_ANSWERS_SECONDS = 5.0  # Ray itself waits 60 s for a head that is gone, 570 s for an address
CLIENT_PORT = 10001  # of addresses that begin with ray://
# RFC 9113: a client begins with this and an empty SETTINGS frame; a server answers with its own
HTTP2_SETTINGS = b"\x04"
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0" * 5
# Only small dictionaries pass through the object store; Ray's default would take 30 % of memory.
LOCAL_OBJECT_STORE_BYTES = 128 * 1024**2


@dataclass(frozen=True)
class Resources:
    """What one trial asks of the cluster.

    Attributes:
        cpus: CPU cores; also the threads that a trial may use.
        gpus: GPUs, fractions allowed.
        attempts: attempts before a trial that lost its worker stops the study; one that is too
            large fails.
    """

    cpus: float = 1
    gpus: float = 0
    attempts: int = 4

    @property
    def device(self) -> str:
        """Where a training runs: on a GPU only if it asked Ray for one."""
        return "cuda" if self.gpus else "cpu"

    @property
    def each(self) -> str:
        """Its CPUs and GPUs in words."""
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"

    @property
    def threads(self) -> int:
        """Threads of one training."""
        return max(1, int(self.cpus))


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[str]:
    """Be connected to Ray while the block runs; yields a sentence about where.

    Args:
        address: `local` starts Ray on this machine; None lets Ray look for its cluster
            (`RAY_ADDRESS`, then one started on this machine) or start one; else where it is.

    Raises:
        StudyError: the cluster cannot be reached or started, or refuses our token.
    """
    if ray.is_initialized():
        yield "the Ray cluster already connected"
        return
    starts_here = address == "local"
    if not starts_here:
        check_address(address)
    try:
        with _keeping_handlers():
            ray.init(
                address=address,
                include_dashboard=False if starts_here else None,
                object_store_memory=LOCAL_OBJECT_STORE_BYTES if starts_here else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:  # Ray raises plain ones too: "timed out during startup"
        raise _not_connected(address, error) from error
    try:
        node = ray.get_runtime_context().gcs_address
        yield f"Ray {'started here' if starts_here else f'at {node}'}"
    finally:
        ray.shutdown()


def _not_connected(address: str | None, error: Exception) -> StudyError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if address == "local":
        return StudyError(
            f"Ray did not start on this machine: {reason}",
            where="ray.address",
            hint="Run the same command again, when the machine is less busy if Ray timed out; Ray "
            "needs a writable RAY_TMPDIR with a short path, and logs to ray/session_latest/logs "
            "there (in /tmp where it is not set)",
        )
    return StudyError(
        f"cannot connect to Ray at {address or 'its default address'}: {reason}",
        where="ray.address",
        hint="Start one (`ray start --head`), set `address: local`, or give this machine the "
        "cluster's token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)",
    )


@contextlib.contextmanager
def _keeping_handlers() -> Iterator[None]:
    """Keep who handles SIGTERM while the block connects: Ray puts a handler of its own there.

    That one raises SystemExit. Where it did, the signal goes to the handler that was there before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def check_address(address: str | None) -> None:
    """Refuse a cluster that is not there, in seconds: Ray would wait for minutes.

    Args:
        address: as of `connect`, not `local`.

    Raises:
        StudyError: nothing like Ray answers at `address`, or where Ray looks for its cluster.
    """
    found, where, instead = address, "ray.address", "leave it out"
    if address in (None, "auto"):
        found, where, instead = os.environ.get("RAY_ADDRESS"), "RAY_ADDRESS", "unset RAY_ADDRESS"
    if found in (None, "", "auto"):
        temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        noted = Path(temporary, "ray", "ray_current_cluster")
        with contextlib.suppress(OSError):  # no cluster was started on this machine
            found, where, instead = noted.read_text().strip(), str(noted), "delete this file"
    target = endpoint(found or "")
    if target and not any(_speaks_grpc(host, target[1]) for host in _names_of(target[0])):
        raise StudyError(
            f"no Ray answers at {found}",
            where=where,
            hint="Start that cluster (`ray start --head`), give the address that `ray start` "
            f"printed, or {instead} and set `address: local` in the study file",
        )


def _names_of(host: str) -> list[str]:
    """Hosts to ask; Ray takes this machine's address for `localhost`."""
    if host in ("localhost", "127.0.0.1"):
        return [host, ray.util.get_node_ip_address()]
    return [host]


def _speaks_grpc(host: str, port: int) -> bool:
    """Whether an HTTP/2 server is there, or anything at all if it is to be asked by TLS.

    Ray's dashboard is none: its port is easily taken for the cluster's.
    """
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return accepts(host, port)
    try:
        with socket.create_connection((host, port), timeout=NODE_ANSWERS_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            return connection.recv(9)[3:4] == HTTP2_SETTINGS
    except OSError:
        return False


def endpoint(address: str) -> tuple[str, int] | None:
    """Host and port of a cluster's address; None where it names none."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port or (CLIENT_PORT if parts.scheme == "ray" else None)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def check_connection() -> None:
    """Refuse to continue where Ray's head, or Ray on this machine, is gone.

    Ray's own calls would wait for a minute, and then end this process.

    Raises:
        TrainingError: either has not answered for `CLUSTER_ANSWERS_SECONDS`.
    """
    context = ray.get_runtime_context()
    _insist("Ray's head", endpoint(context.gcs_address))
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            here = (node["NodeManagerAddress"], node["NodeManagerPort"])
            _insist("Ray on the driver's machine", here)


def head_answers() -> bool:
    """Whether Ray's head accepts a connection."""
    target = endpoint(ray.get_runtime_context().gcs_address)
    return target is None or accepts(*target)


def _insist(what: str, target: tuple[str, int] | None) -> None:
    if target and not _answers_soon(*target):
        raise TrainingError(
            f"{what} is gone: nothing answers at {target[0]}:{target[1]}",
            where="ray.address",
            hint="What was trained is kept; run the same command again, once your cluster is up if "
            "Ray was not started by mixopt",
        )


def _answers_soon(host: str, port: int) -> bool:
    deadline = time.monotonic() + CLUSTER_ANSWERS_SECONDS
    while not accepts(host, port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def node_ids() -> frozenset[str]:
    """Ids of the nodes that Ray takes for alive."""
    nodes = ray.nodes()
    return frozenset(node["NodeID"] for node in nodes if node["Alive"])


def all_answer(ids: frozenset[str]) -> bool:
    """Whether all nodes `ids` are alive and accept a connection; Ray notices a death later."""
    nodes = {node["NodeID"]: node for node in ray.nodes()}
    found = [nodes[i] for i in ids if i in nodes and nodes[i]["Alive"]]
    return len(found) == len(ids) and all(
        accepts(node["NodeManagerAddress"], node["NodeManagerPort"]) for node in found
    )


def accepts(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there, asked for a few seconds at most."""
    try:
        socket.create_connection((host, port), timeout=NODE_ANSWERS_SECONDS).close()
    except OSError:
        return False
    return True


def too_small(resources: Resources) -> bool:
    """Whether nodes are there that offer CPUs, and none of them can hold a single trial.

    A head node without CPUs is none of them: its workers may have been lost, or are to come.
    """
    nodes = ray.nodes()
    offered = any(node["Alive"] and node["Resources"].get("CPU", 0) for node in nodes)
    return offered and slots(resources) < 1


def slots(resources: Resources) -> int:
    """How many trials fit on the cluster at once, as it is now."""
    total = 0
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        total += fitting(node["Resources"], resources)
    return total


def fitting(has: Mapping[str, float], resources: Resources) -> int:
    """How many trials fit on a node that has so many `CPU` and `GPU`."""
    fit = [has.get("CPU", 0) / resources.cpus]
    if resources.gpus:
        fit.append(has.get("GPU", 0) / resources.gpus)
    return int(min(fit) + 1e-9)


def lacking(resources: Resources, processes: int) -> str:
    """What the cluster, as it is now, has too little of for a training in so many processes.

    Empty where it has enough, and where it has no node with CPUs: they are to come.
    """
    there = slots(resources)
    if too_small(resources):
        return f"no node of the cluster has {resources.each}"
    if 0 < there < processes:
        return (
            f"the cluster has room for {there} processes of {resources.each}, "
            f"and {processes} are asked for"
        )
    return ""
