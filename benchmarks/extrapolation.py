"""Every size and token count left out of every published table: errors, coverage of 90 % intervals.

    python -m benchmarks.extrapolation                            # nested-laws and cokriging
    python -m benchmarks.extrapolation --surrogates nested-laws --only chains
    python -m benchmarks.extrapolation --calibrate                # how far losses leave their laws

Fitted to all that is below the target, and to none or two runs of the target. To be quick, at most
24 mixtures and 6 metrics of a table, evenly spaced. A line: the split, how many sizes below, how
many runs of the target, mean absolute error in nats, that error over the fall from the last size,
how many of the losses lie in their 90 % interval of a run, and half that interval over the fall.
The last lines pool the splits.

sizes    a size from the smaller ones at the same tokens, or at tokens that grow with the size.
chains   a point of learning curves from three before it, each taken for a size of its own.
curves   the end of a learning curve from the curve to about half of it (`nested-laws` alone).

`--calibrate`, of the splits without a run of the target: only these tell how far losses leave their
laws. For each table the least `drift` of `DRIFTS` with which every split of the other tables has
`LEAST` of the losses inside, and what share of the table's own is then inside.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.tables import PARAMS, mixing_laws, regmix, stacked
from mixopt.core.errors import SurrogateError
from mixopt.core.intervals import NORMAL_90
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates import make

DRIFTS = (0.0, 0.05, 0.1, 0.12, 0.15, 0.2)
LEAST = 0.85
Chain = tuple[tuple[str, int], ...]

MIXTURES, METRICS = 24, 6  # of a table
# Sizes and billions of tokens: three that are known and the one that is left out.
CHAINS = (
    ("2Mix", (("160M", 10), ("160M", 13), ("160M", 20), ("160M", 30))),
    ("3Mix", (("160M", 5), ("160M", 10), ("160M", 25), ("160M", 60))),
    ("5Mix", (("70M", 10), ("70M", 20), ("70M", 30), ("70M", 100))),
    ("5Mix", (("160M", 10), ("160M", 14), ("160M", 20), ("160M", 30))),
    ("5Mix", (("305M", 4), ("305M", 9), ("305M", 16), ("305M", 30))),
    ("5Mix", (("70M", 10), ("70M", 20), ("160M", 20), ("305M", 30))),
    ("RedPajama", (("70M", 10), ("70M", 14), ("70M", 20), ("70M", 30))),
    ("RedPajama", (("305M", 10), ("305M", 14), ("305M", 20), ("305M", 30))),
    ("RedPajama", (("70M", 10), ("70M", 20), ("160M", 20), ("305M", 30))),
)
CURVES = (
    ("2Mix", "160M", 30),
    ("3Mix", "160M", 60),
    ("5Mix", "70M", 30),
    ("5Mix", "305M", 30),
    ("RedPajama", "160M", 30),
    ("RedPajama", "305M", 30),
)
GROWING = (("70M", 10), ("160M", 16), ("305M", 30))


@dataclass(frozen=True)
class Split:
    """A table of which `target` is left out, but for `runs` runs."""

    kind: str
    name: str
    table: TrialTable
    target: Fidelity
    runs: int

    @property
    def table_name(self) -> str:
        """Of which published table it is."""
        return self.name.split()[0]

    @property
    def below(self) -> int:
        """How many fidelities are known besides the target."""
        return len(self.table.fidelities) - 1

    def parts(self) -> tuple[TrialTable, TrialTable]:
        """What is known, and the runs that are left out, at the target."""
        at = np.flatnonzero(self.table.at(self.target))
        rest = np.sort(np.random.default_rng(0).permutation(at)[self.runs :])
        unseen = np.isin(self.table.runs, self.table.runs[rest])
        if self.kind == "curves":
            early = self.table.tokens < 0.55 * self.target.tokens
            return self.table.select(early), self.table.select(at)
        return self.table.select(~unseen), self.table.select(rest)


@dataclass(frozen=True)
class Found:
    """Absolute errors of a split (those that are known), and half widths of their intervals."""

    split: Split
    error: np.ndarray
    half: np.ndarray
    fall: float

    @property
    def inside(self) -> float:
        """Share of the losses in their interval."""
        return float((self.error < self.half).mean())

    @property
    def width(self) -> float:
        """Mean half interval, over the fall."""
        return float(self.half.mean()) / self.fall

    def line(self, name: str, seconds: float) -> str:
        """One line of the output."""
        return (
            f"{self.split.kind:7} {self.split.name:28} {self.split.below} below, "
            f"{self.split.runs} runs  {name:12} {self.error.mean():.4f} "
            f"({self.error.mean() / self.fall:.2f} of the fall), {self.inside:.2f} inside "
            f"± {self.width:.2f} ({seconds:.0f} s)"
        )


def splits() -> Iterator[Split]:
    """All of them."""
    for family in ("5Mix", "RedPajama"):
        table = _thinned(mixing_laws(family, None, 30_000))
        for runs in (0, 2):
            yield _sized("sizes", f"{family} 305M", table, runs)
            grown = _thinned(_at(mixing_laws(family), GROWING))
            yield _sized("sizes", f"{family} 305M, more tokens", grown, runs)
        yield _sized("sizes", f"{family} 160M", table.select(table.params < 3e8), 2)
    for family, step in (("2Mix", 30_000), ("3Mix", 60_000)):
        yield _sized("sizes", f"{family} 160M", mixing_laws(family, None, step), 2)
    small, large = (_thinned(regmix("test", size)) for size in ("1m", "60m"))
    yield _sized("sizes", "RegMix 60M", stacked(small, large), 2)
    for family, chain in CHAINS:
        table = _as_sizes(_thinned(mixing_laws(family)), chain)
        name = f"{family} {chain[0][0]} to {chain[-1][0]} {chain[-1][1]}B"
        for runs in (0, 2):
            yield _sized("chains", name, table, runs)
    for family, size, end in CURVES:
        table = _thinned(mixing_laws(family, size))
        yield Split(
            "curves",
            f"{family} {size} {end}B",
            table,
            Fidelity(size, int(PARAMS[size]), end * 10**9),
            0,
        )


def measure(split: Split, name: str, **settings: Any) -> Found:
    """`name` fitted to what is known of a split, asked about the rest."""
    known, test = split.parts()
    surrogate = make(name, fidelity=split.target, **settings).fit(known)
    predicted = surrogate.predict(test.weights, split.target)
    error = np.abs(predicted.mean - test.values)
    half = NORMAL_90 * np.hypot(predicted.std, np.nan_to_num(predicted.noise))
    near = known.final.select(known.final.params <= split.target.params)
    last = near.select(near.at(near.fidelities[-1 if not split.runs else -2]))
    fall = float(np.abs(np.nanmean(last.values, axis=0) - np.nanmean(test.values, axis=0)).mean())
    there = np.isfinite(error)
    return Found(split, error[there], half[there], fall)


def compare(name: str, kinds: list[str]) -> None:
    """A line per split, then one per kind."""
    pooled: dict[tuple[str, int], list[Found]] = {}
    for split in splits():
        if split.kind not in kinds or (split.kind == "curves" and name != "nested-laws"):
            continue
        start = time.perf_counter()
        try:
            found = measure(split, name)
        except SurrogateError as error:
            print(f"{split.kind:7} {split.name:28} {name:12} {error}")
            continue
        print(found.line(name, time.perf_counter() - start), flush=True)
        pooled.setdefault((split.kind, split.runs), []).append(found)
    for (kind, runs), own in pooled.items():
        print(f"{name:12} {kind}, {runs} runs: {_pooled(own)}")


def calibrate() -> None:
    """`drift` of `nested-laws` from all tables but one, and what it holds of that one."""
    found: dict[float, list[Found]] = {}
    for drift in DRIFTS:
        found[drift] = [
            measure(split, "nested-laws", drift=drift) for split in splits() if not split.runs
        ]
        print(f"drift {drift:g}: {_pooled(found[drift])}", flush=True)
    for left in (*dict.fromkeys(own.split.table_name for own in found[DRIFTS[0]]), "none"):
        drift = next((d for d in DRIFTS if _held(found[d], left) >= LEAST), DRIFTS[-1])
        own = [each for each in found[drift] if left in (each.split.table_name, "none")]
        print(f"{left} left out: drift {drift:g}; its own: {_pooled(own)}")


def _held(found: list[Found], left: str) -> float:
    """Share inside of the worst split that is not of table `left`."""
    return min(own.inside for own in found if own.split.table_name != left)


def _pooled(found: list[Found]) -> str:
    inside = [own.inside for own in found]
    width = np.mean([own.width for own in found])
    return f"{np.mean(inside):.3f} inside, least {min(inside):.2f}, ± {width:.3f} of the fall"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--surrogates", default="nested-laws,cokriging")
    parser.add_argument("--only", default="sizes,chains,curves", help="kinds, comma between them")
    parser.add_argument("--calibrate", action="store_true", help="see the module")
    arguments = parser.parse_args()
    if arguments.calibrate:
        calibrate()
        return
    for name in arguments.surrogates.split(","):
        compare(name, arguments.only.split(","))


def _sized(kind: str, name: str, table: TrialTable, runs: int) -> Split:
    return Split(kind, name, table, table.fidelities[-1], runs)


def _thinned(table: TrialTable) -> TrialTable:
    """At most MIXTURES mixtures and METRICS metrics."""
    kinds, mixture = np.unique(table.weights, axis=0, return_inverse=True)
    kept = np.unique(np.linspace(0, len(kinds) - 1, MIXTURES).round())
    columns = np.unique(np.linspace(0, len(table.metrics) - 1, METRICS).round().astype(int))
    rows = table.select(np.isin(mixture.ravel(), kept))
    return rows.with_metrics(tuple(table.metrics[j] for j in columns))


def _at(table: TrialTable, chain: Chain) -> TrialTable:
    keep = [(table.params == PARAMS[s]) & (table.tokens == t * 1e9) for s, t in chain]
    return table.select(np.any(keep, axis=0))


def _as_sizes(table: TrialTable, chain: Chain) -> TrialTable:
    """Each point of `chain` as a size of its own, by parameters x tokens."""
    rows = _at(table, chain)
    cost = rows.params * rows.tokens
    return replace(
        rows, params=cost / 1e10, tokens=np.full(len(rows), 1e10), runs=np.arange(len(rows))
    )


if __name__ == "__main__":
    main()
