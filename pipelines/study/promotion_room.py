"""What the full run asks of Ray, and whether there is room for it: said before it is spent on."""

from __future__ import annotations

import os

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


def room_note(study: Study) -> str:
    """A line where the connected cluster, as it is now, has no room for the study's full run."""
    if study.promote is None or study.promote.elsewhere:
        return ""
    what = lacking(full_run_resources(study), study.promote.resources.processes)
    return what and (
        f"for the full run {what} (promote.resources). It will be refused unless nodes are added, "
        "or it asks for less"
    )


def planned_room_note(study: Study) -> str:
    """The same for `mixopt plan`, where Ray is to be started on this machine."""
    if study.promote is None or study.promote.elsewhere or study.ray.address != "local":
        return ""
    asked, each = study.promote.resources.processes, full_run_resources(study)
    cpus, gpus = os.cpu_count() or 1, _gpus() if each.gpus else 0
    there = fitting({"CPU": cpus, "GPU": gpus}, each)
    if there >= asked:
        return ""
    return (
        f"This machine (ray.address: local) has room for {there} of the full run's {asked} "
        f"processes of {each.each}: it has {cpus} CPUs{f' and {gpus} GPUs' * bool(each.gpus)}. "
        "The full run will be refused here: lower promote.resources, or use a cluster."
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
