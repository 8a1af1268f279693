"""A task that a study needs once: waited for, tried again where it is lost, explained if it fails.

The same policy as the driver's: a loss counts only where its node lives on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import ray
from ray import ObjectRef

from mixopt.core.errors import MixoptError, TrainingError, is_out_of_memory
from mixopt.workers.absence import PAUSE_SECONDS, Absence
from mixopt.workers.cluster import Resources, all_answer, check_connection, node_ids, slots

WAIT_SECONDS = 1.0
GO_ON = "What was trained is kept; remove the cause and run the same command again"

T = TypeVar("T")


def call(
    function: Callable[..., T],
    *arguments: object,
    resources: Resources,
    label: str,
    warn: Callable[[str], None],
) -> T:
    """What `function` returns for `arguments` on a worker of the connected cluster.

    Args:
        function: sent to the worker, and idempotent.
        arguments: small and picklable.
        resources: what it asks of the cluster, and how often it may lose its worker.
        label: names it in messages.
        warn: is given a line where the study waits for nodes or tries again.

    Raises:
        MixoptError: as the function raised it.
        TrainingError: it crashed or was out of memory, its worker was lost too often, or no node
            came back.
    """
    task = ray.remote(function).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0
    )
    absence, losses = Absence(), 0
    while True:
        nodes = node_ids()
        result: ObjectRef[T] = task.remote(*arguments)
        try:
            _wait(result, resources, absence, warn)
            return ray.get(result)
        except ray.exceptions.RayTaskError as error:
            raise _explained(error, label) from error
        except ray.exceptions.OutOfMemoryError as error:
            raise _out_of_memory(label, str(error)) from error
        except ray.exceptions.RayError as error:
            if all_answer(nodes):
                losses += 1
            else:
                absence.loses_a_node()
                time.sleep(PAUSE_SECONDS)
            if losses >= resources.attempts:
                message = f"its worker was lost {losses} times: {str(error).rstrip('.')}"
                raise TrainingError(message, where=label, hint=GO_ON) from error
            warn(f"{label}: its worker was lost, trying again")


def _wait(
    result: ObjectRef[T], resources: Resources, absence: Absence, warn: Callable[[str], None]
) -> None:
    while not ray.wait([result], timeout=WAIT_SECONDS)[0]:
        check_connection()
        if slots(resources) >= 1:
            absence.ends()
        elif absence.begins():
            warn(absence.message)


def _explained(error: ray.exceptions.RayTaskError, label: str) -> MixoptError:
    cause = error.cause
    if isinstance(cause, MixoptError):
        return cause
    if is_out_of_memory(cause):
        return _out_of_memory(label, str(cause))
    return TrainingError(f"the worker crashed:\n{error}", where=label, hint=GO_ON)


def _out_of_memory(label: str, message: str) -> TrainingError:
    return TrainingError(
        f"memory did not suffice: {message.rstrip('.')}",
        where=label,
        hint="Free memory on the workers, or make the model or its batch smaller; what was trained "
        "is kept",
    )
