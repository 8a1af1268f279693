"""Connecting to Ray: a cluster that is there, or one started on this machine for as long as we run.

Since 2.59 a Ray that a program starts itself, as we do for `local`, asks for a token and makes its
own. To reach a cluster with token authentication, give this machine the cluster's token
(`RAY_AUTH_MODE=token`, `RAY_AUTH_TOKEN`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import ray

from mixopt.errors import StudyError

NODE_ANSWERS_SECONDS = 3.0
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
        StudyError: the cluster cannot be reached, or refuses our token.
    """
    if ray.is_initialized():
        yield "the Ray cluster already connected"
        return
    starts_here = address == "local"
    try:
        ray.init(
            address=address,
            include_dashboard=False if starts_here else None,
            object_store_memory=LOCAL_OBJECT_STORE_BYTES if starts_here else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, ray.exceptions.RayError, RuntimeError, ValueError) as error:
        raise StudyError(
            f"cannot connect to Ray at {address or 'its default address'}: {error}",
            where="ray.address",
            mend="Start one (`ray start --head`), set `address: local`, or give this machine the "
            "cluster's token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)",
        ) from error
    try:
        node = ray.get_runtime_context().gcs_address
        yield f"Ray {'started here' if starts_here else f'at {node}'}"
    finally:
        ray.shutdown()


def node_ids() -> frozenset[str]:
    """Ids of the nodes that Ray takes for alive."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return frozenset(node["NodeID"] for node in nodes if node["Alive"])


def all_answer(ids: frozenset[str]) -> bool:
    """Whether all nodes `ids` are alive and accept a connection; Ray notices a death later."""
    nodes = {node["NodeID"]: node for node in ray.nodes()}  # type: ignore[no-untyped-call]
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
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    offered = any(node["Alive"] and node["Resources"].get("CPU", 0) for node in nodes)
    return offered and slots(resources) < 1


def slots(resources: Resources) -> int:
    """How many trials fit on the cluster at once, as it is now."""
    total = 0
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if not node["Alive"]:
            continue
        has = node["Resources"]
        fit = [has.get("CPU", 0) / resources.cpus]
        if resources.gpus:
            fit.append(has.get("GPU", 0) / resources.gpus)
        total += int(min(fit) + 1e-9)
    return total
