"""Connecting to Ray: a cluster that is there, or one started on this machine for as long as we run.

Since 2.59 a Ray that a program starts itself, as we do for `local`, asks for a token and makes its
own. To reach a cluster with token authentication, give this machine the cluster's token
(`RAY_AUTH_MODE=token`, `RAY_AUTH_TOKEN`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import ray

from mixopt.errors import StudyError

# Only small dictionaries pass through the object store; Ray's default would take 30 % of memory.
LOCAL_OBJECT_STORE_BYTES = 128 * 1024**2


@dataclass(frozen=True)
class Resources:
    """What one trial asks of the cluster.

    Attributes:
        cpus: CPU cores; also the threads that a trial may use.
        gpus: GPUs, fractions allowed.
        attempts: attempts before a lost or too large trial counts as failed.
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
