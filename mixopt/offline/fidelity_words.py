"""`--model-params 60M --tokens 1B` as a fidelity: one of the finished runs, or one beyond them."""

from __future__ import annotations

from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.core.trials import Fidelity, TrialTable
from mixopt.offline.sheets import parse_count

FEW = 8  # runs at the target below which a person should know how few they are


def target_fidelity(
    table: TrialTable, params: str | None = None, tokens: str | None = None
) -> tuple[Fidelity, list[str]]:
    """The fidelity to predict at, and what a person should know of it.

    Args:
        table: the finished runs.
        params: of the model, such as `60M`; of the most expensive runs if not given.
        tokens: that it is trained for; those of the longest runs of that size if not given.

    Raises:
        StudyError: a text is no count, or the files do not tell what the runs were trained at.
    """
    measured = table.final.fidelities
    for column, text, sizes in (
        ("model_params", params, table.params),
        ("tokens", tokens, table.tokens),
    ):
        if text is not None and (sizes == 1).all():
            raise StudyError(
                f"the runs do not tell their {column}, so that nothing is known of {text}",
                where="--" + column.replace("_", "-"),
                hint=f"Add the column {column} to the ratios, or leave the option out",
            )
    size = measured[-1].params if params is None else _count(params, "--model-params")
    if tokens is not None:
        length = _count(tokens, "--tokens")
    else:
        alike = [found.tokens for found in measured if found.params == size]
        length = max(alike or [found.tokens for found in measured])
    target = Fidelity("", size, length)
    return target, _notes(table, target)


def said(fidelity: Fidelity) -> str:
    """A fidelity in words; `the runs' own` where the files told none."""
    if unnamed(fidelity):
        return "the runs' own"
    size = f"{count(fidelity.params, digits=4)} parameters" if fidelity.params > 1 else ""
    length = f"{count(fidelity.tokens, digits=4)} tokens" if fidelity.tokens > 1 else ""
    return " and ".join(part for part in (size, length) if part)


def unnamed(fidelity: Fidelity) -> bool:
    """Whether it is that of runs whose files told neither size nor tokens."""
    return (fidelity.params, fidelity.tokens) == (1, 1)


def _notes(table: TrialTable, target: Fidelity) -> list[str]:
    final = table.final
    measured = final.fidelities
    if measured == [target]:
        return []
    there = int(table.at(target).sum())
    kinds = ", ".join(f"{said(f)} ({int(final.at(f).sum())} runs)" for f in measured[:6])
    kinds += f" and {len(measured) - 6} more" if len(measured) > 6 else ""
    notes = [f"Runs were measured at {kinds}; predicted is {said(target)}."]
    if not there:
        notes.append(f"No run was measured at {said(target)}: predictions extrapolate.")
    elif there < FEW:
        notes.append(f"Only {there} of {len(final)} runs were measured at {said(target)}.")
    return notes


def _count(text: str, where: str) -> int:
    value = parse_count(text)
    if value is None or value < 1:
        raise StudyError(
            f"{text!r} is not a count", where=where, hint="Write 60000000, 6e7, 60M or 1.5B"
        )
    return int(value)
