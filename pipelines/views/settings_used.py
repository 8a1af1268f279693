"""The settings that each round and each verdict used, as rows of a table: they may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from mixopt.pipelines.views.wording import weighed
from mixopt.study.rounds import Judged, Round

ROUNDS = ("round", "proposer", "surrogate", "trials of a round", "objective")
VERDICTS = ("look", "rule", "seeds", "confidence", "surrogate", "objective")


def round_rows(rounds: Sequence[Round]) -> list[tuple[str, ...]]:
    """Rows under `ROUNDS`; consecutive rounds with the same settings share one."""
    ordered = sorted(rounds, key=lambda r: r.number)
    rows = []
    for used, alike in groupby(ordered, key=_used):
        numbers = [r.number for r in alike]
        first, last = numbers[0], numbers[-1]
        rows.append((str(first) if first == last else f"{first} to {last}", *used))
    return rows


def verdict_rows(verdicts: Sequence[Judged]) -> list[tuple[str, ...]]:
    """A row under `VERDICTS` for each verdict."""
    return [
        (
            str(v.look),
            v.rule,
            str(v.seeds),
            f"{v.confidence:g}",
            v.surrogate,
            _objective(v.weights),
        )
        for v in sorted(verdicts, key=lambda v: v.look)
    ]


def _used(asked: Round) -> tuple[str, ...]:
    objective = _objective(asked.weights)
    return asked.proposer, asked.surrogate or "–", str(len(asked.specs)), objective


def _objective(weights: Mapping[str, float]) -> str:
    return weighed(weights)
