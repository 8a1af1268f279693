"""What the full run asks of Ray, and whether there is room for it: said before it is spent on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from mixopt.study.settings import Study
from mixopt.workers.cluster import Resources, fitting, lacking


def full_run_resources(study: Study) -> Resources:
    """What each process of a promotion asks of the cluster."""
    assert study.promote is not None
    asked, ray = study.promote.resources, study.ray
    return Resources(
        ray.cpus_per_trial if asked.cpus is None else asked.cpus,
        ray.gpus_per_trial if asked.gpus is None else asked.gpus,
        ray.attempts,
    )


def trainer_resources(study: Study) -> Resources:
    """What the full run's own trainer asks of one machine: as much as our processes together."""
    assert study.promote is not None
    each, processes = full_run_resources(study), study.promote.resources.processes
    return dataclasses.replace(each, cpus=processes * each.cpus, gpus=processes * each.gpus)


def room_note(study: Study) -> str:
    """A line where the connected cluster, as it is now, has no room for the study's full run."""
    what = next(filter(None, (lacking(*asked) for asked in _asked(study))), "")
    return what and (
        f"for the full run {what} (promote.resources). It will be refused unless nodes are added, "
        "or it asks for less"
    )


def planned_room_note(study: Study) -> str:
    """The same for `mixopt plan`, where Ray is to be started on this machine."""
    if study.ray.address != "local":
        return ""
    for each, asked in _asked(study):
        cpus, gpus = os.cpu_count() or 1, _gpus() if each.gpus else 0
        there = fitting({"CPU": cpus, "GPU": gpus}, each)
        if there < asked:
            return (
                f"This machine (ray.address: local) has room for {there} of the full run's {asked} "
                f"processes of {each.each}: it has {cpus} CPUs"
                f"{f' and {gpus} GPUs' * bool(each.gpus)}. "
                "The full run will be refused here: lower promote.resources, or use a cluster."
            )
    return ""


def _asked(study: Study) -> Iterator[tuple[Resources, int]]:
    """What the promotion's trainings ask for: of each process, and how many processes."""
    promote = study.promote
    if promote is None:
        return
    if promote.upcycles:
        yield full_run_resources(study), promote.resources.processes
    if promote.trainer is not None and not promote.elsewhere:
        yield trainer_resources(study), 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
