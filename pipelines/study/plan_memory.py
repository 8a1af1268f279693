"""What `mixopt plan` says of a promotion's trainings: memory, disk, and what is unusual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mixopt.core.formatting import bytes_text
from mixopt.io.trial_files import KEPT
from mixopt.models.memory import full_run_memory
from mixopt.pipelines.study.plan_steps import Step
from mixopt.study.promote import Promote
from mixopt.study.settings import Study


def memory_lines(trainings: Sequence[Step]) -> Iterator[str]:
    """A line for each training of a promotion: memory of a process, checkpoints and weights."""
    for step in trainings:
        if step.command == "promote":
            yield f"Memory, {step.name}: {_in_memory(step)}; on disk {_on_disk(step)}."


def frozen_to_the_end(promote: Promote | None) -> Iterator[str]:
    """A line where what all tokens share never trains with the experts."""
    phases = () if promote is None else promote.phases
    if phases and all(phase.what != "all" for phase in phases):
        yield (
            "promote.trains leaves attention, norms and embeddings as they are to the end, which "
            "is reported to harm later fine-tuning; end with {what: all}."
        )


def masked_apart(study: Study) -> Iterator[str]:
    """A line where proxies and promoted models do not see documents alike."""
    if study.trainer is not None or study.upcycling is None:
        return
    keys = {
        "proxy.model": study.proxy.model.document_mask,
        "promote.model": study.upcycling.model.document_mask,
    }
    if len(set(keys.values())) > 1:
        masked = next(key for key, value in keys.items() if value)
        yield (
            f"{masked}.document_mask is set in one of {' and '.join(keys)} alone: the proxies "
            "measure mixtures for other sequences than the full run's."
        )


def _in_memory(step: Step) -> str:
    held = full_run_memory(step.model, step.recipe, step.processes, recompute=step.recompute)
    each = f"each of {step.processes} processes" if step.processes > 1 else "its process"
    return (
        f"{each} holds about {bytes_text(held.training)} (parameters, gradients and optimizer "
        f"{bytes_text(held.states)}, activations {bytes_text(held.activations)})"
    )


def _on_disk(step: Step) -> str:
    held = full_run_memory(step.model, step.recipe)
    each = bytes_text(held.checkpoint)
    return f"{KEPT} checkpoints of {each}, in the end {bytes_text(held.weights)} of weights"
