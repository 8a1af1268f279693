"""`--model-params 60M --tokens 1B` as a fidelity: one of the finished runs, or one beyond them."""

from __future__ import annotations

from mixopt.core.counts import parse_count
from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity

FEW = 8  # runs at the target below which a person should know how few they are


def target_fidelity(
    table: TrialTable, params: str | None = None, tokens: str | None = None
) -> tuple[Fidelity, list[str]]:
    """The fidelity to predict at, and notes for the user.

    Args:
        table: the finished runs.
        params: parameters of the model, such as `60M`; if None, those of the most expensive runs.
        tokens: training tokens; if None, those of the longest runs of that size.

    Raises:
        StudyError: a text is not a count, or the files do not give that column.
    """
    measured = table.final.fidelities
    for column, text, sizes in (
        ("model_params", params, table.params),
        ("tokens", tokens, table.tokens),
    ):
        if text is not None and (sizes == 1).all():
            raise StudyError(
                f"the runs have no {column}, so {text} cannot be predicted",
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


def fidelity_text(fidelity: Fidelity) -> str:
    """A fidelity as text; `the runs' own` where the files name none.

    >>> fidelity_text(Fidelity("", 60_000_000, 1_500_000_000))
    '60M parameters and 1.5B tokens'
    """
    if unnamed(fidelity):
        return "the runs' own"
    size = f"{count(fidelity.params, digits=4)} parameters" if fidelity.params > 1 else ""
    length = f"{count(fidelity.tokens, digits=4)} tokens" if fidelity.tokens > 1 else ""
    return " and ".join(part for part in (size, length) if part)


def unnamed(fidelity: Fidelity) -> bool:
    """Whether the files give neither size nor tokens, so that both stand at 1."""
    return (fidelity.params, fidelity.tokens) == (1, 1)


def _notes(table: TrialTable, target: Fidelity) -> list[str]:
    final = table.final
    measured = final.fidelities
    if measured == [target]:
        return []
    there = int(table.at(target).sum())
    kinds = ", ".join(f"{fidelity_text(f)} ({int(final.at(f).sum())} runs)" for f in measured[:6])
    kinds += f" and {len(measured) - 6} more" if len(measured) > 6 else ""
    notes = [f"Predicting at {fidelity_text(target)}. Runs were measured at {kinds}."]
    if not there:
        notes.append(f"No run was measured at {fidelity_text(target)}: predictions extrapolate.")
    elif there < FEW:
        notes.append(f"Only {there} of {len(final)} runs were measured at {fidelity_text(target)}.")
    return notes


def _count(text: str, where: str) -> int:
    value = parse_count(text)
    if value is None or value < 1:
        raise StudyError(
            f"{text!r} is not a count", where=where, hint="Write 60000000, 6e7, 60M or 1.5B"
        )
    return int(value)
