"""The check of the mixtures' order at a larger size, in words: the same on every page."""

from __future__ import annotations

from collections.abc import Mapping

from mixopt.core.formatting import count, signed
from mixopt.selection.transfer import AtSize, Transfer

LARGER = ("mixture", "against the baseline, proxies", "mean there", "against it there", "90 %")


def size(transfer: Transfer) -> str:
    """The larger size in short."""
    fidelity = transfer.fidelity
    params = f"{count(fidelity.params)} parameters and " if fidelity.params_known else ""
    return f"{params}{count(fidelity.tokens)} tokens"


def transfer_lines(transfer: Transfer | None, overruled: Mapping[str, str], sign: int) -> list[str]:
    """Sentences on the check; none before there is one.

    Args:
        transfer: of the study.
        overruled: basis → why a person goes on in spite of it.
        sign: -1 where the objective is a metric that is better higher (`Objective.sign`).
    """
    if transfer is None:
        return []
    transfer = transfer.turned(sign)
    agreement = ""
    if transfer.correlation is not None:
        ran = sum(it.mean is not None for it in transfer.rows)
        ranks = f"{transfer.correlation:.2f}".replace("-", "−")
        agreement = f"rank correlation with the proxies' order {ranks} (n = {ran}); "
    lines = [
        f"At {size(transfer)} (select.at), {transfer.seeds} fresh "
        f"seed{'s' * (transfer.seeds > 1)} each: {agreement}{_difference(transfer)}"
        f"{transfer.reason}."
    ]
    why = overruled.get(transfer.basis)
    if not transfer.kept:
        lines.append("The study stops here." if why is None else f"Overruled: {why}")
    return lines


def _difference(transfer: Transfer) -> str:
    row = next((it for it in transfer.rows if it.name == transfer.promoted), None)
    if row is None or row.difference is None:
        return ""
    text = f"{row.name} differs from {transfer.baseline} by {signed(row.difference)}"
    if row.low is not None and row.high is not None:
        text += f", 90 % between {signed(row.low)} and {signed(row.high)}"
    return f"{text}, by {row.before:+.4f} as proxies; ".replace("-", "−")


def transfer_rows(transfer: Transfer | None, sign: int) -> list[tuple[str, ...]]:
    """Rows under `LARGER`, with `sign` times the objective."""
    return [] if transfer is None else [_row(it, transfer) for it in transfer.turned(sign).rows]


def _row(it: AtSize, transfer: Transfer) -> tuple[str, ...]:
    first = it.name == transfer.baseline
    interval = (
        "–" if it.low is None or it.high is None else f"{signed(it.low)} to {signed(it.high)}"
    )
    cells = (
        "–" if first else signed(it.before),
        "–" if it.mean is None else f"{it.mean:.4f}",
        "–" if first or it.difference is None else signed(it.difference),
        interval,
    )
    return (it.name, *(cell.replace("-", "−") for cell in cells))
