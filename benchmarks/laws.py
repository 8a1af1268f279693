"""Mean absolute errors on Data Mixing Laws' runs: mixtures, sizes, steps (2403.16952).

    python benchmarks/laws.py                              # every protocol, the default surrogates
    python benchmarks/laws.py --protocols sizes --json
    python benchmarks/laws.py --surrogates gp,nested-laws --seeds 3
    python benchmarks/laws.py --protocols sizes,curves,grow --target-runs 4 --seeds 8

Everything is in nats per token. An error is averaged over the evaluation domains (22) and the test
mixtures of a fit, then over the fits.

folds   5Mix and RedPajama at step 30,000. Each size by itself (70M, 160M, 305M; 26 and
        42 / 21 / 20 mixtures), all its mixtures in 5 folds by `default_rng(0).permutation`; the
        mean over the test mixtures of all folds; then the mean over the three sizes.
ten     The same mixtures; fitted to 10 of them, tested on the others. Sizes are averaged for each
        seed (`default_rng(seed).permutation`), and the median over the seeds is reported.
sizes   All runs of 70M and 160M and two of 305M, at step 30,000 → the other 305M runs, which two by
        `default_rng(seed).permutation`; the mean over the seeds. Beside the surrogates of several
        fidelities: `slope^r`, 160M x slope^r with slope the regression of 160M on 70M over common
        mixtures, r the ratio of log sizes, and the level from the two 305M runs (METHODS A).
        `--target-runs 4` gives four of 305M, and so on.
curves  `sizes` with the whole curves of the known runs; eight (5Mix) and two (RedPajama) go on
        past step 30,000.
grow    `sizes` one size below: all runs of 70M and two of 160M → the other 160M runs.
none    `sizes` without any 305M run; `160M` is the largest size's value as it is.
steps   Curves up to step 20,000 (2/3) and 15,000 (1/2) → step 30,000: `step-law`
        (`mixopt.surrogates.fidelity.curves`) and `last value`; each size by itself, the mean over
        the sizes.

Surrogates that are not registered are left out and named on stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from benchmarks.tables import BATCH_TOKENS, PARAMS, mixing_laws
from mixopt.core.errors import SurrogateError
from mixopt.core.intervals import NORMAL_90
from mixopt.core.objective import Objective
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates import KNOWN, make
from mixopt.surrogates.fidelity.curves import forecast
from mixopt.surrogates.scoring import spearman

FAMILIES = ("5Mix", "RedPajama")
SIZES = ("70M", "160M", "305M")
STEP = 30_000
TARGET = Fidelity("305M", int(PARAMS["305M"]), int(STEP * BATCH_TOKENS))
ONE = ("effective-data", "gp", "linear", "mixing-law")
SEVERAL = ("cokriging", "nested-laws", "multitask-gp", "multi-fidelity-gp")


@dataclass(frozen=True)
class Row:
    """One figure: `error` in nats, `coverage` of 90 % intervals, `seconds` of all its fits.

    Of surrogates over sizes also the mean loss's rank correlation and coverage.
    """

    protocol: str
    family: str
    method: str
    error: float
    coverage: float | None
    mean_coverage: float | None
    mean_rank: float | None
    fits: int
    seconds: float


@dataclass
class _Fit:
    error: float
    coverage: float
    n: int
    mean_coverage: float | None = None
    mean_rank: float | None = None


def main() -> None:
    arguments = _arguments()
    protocols = arguments.protocols.split(",")
    asked = arguments.surrogates.split(",") if arguments.surrogates else [*ONE, *SEVERAL]
    names = [name for name in asked if name in KNOWN or ":" in name]
    for name in asked:
        if name not in names:
            print(f"{name}: not registered, left out", file=sys.stderr)
    rows = []
    for row in _rows(protocols, names, arguments.seeds, arguments.target_runs):
        rows.append(row)
        if not arguments.json:
            cover = "" if row.coverage is None else f", {row.coverage:.1%} inside 90 %"
            if row.mean_coverage is not None:
                cover += f", of the mean {row.mean_coverage:.1%}, ranked {row.mean_rank:.3f}"
            print(
                f"{row.protocol:6} {row.family:10} {row.method:18} {row.error:.4f}{cover} "
                f"({row.fits} fits, {row.seconds:.0f} s)",
                flush=True,
            )
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))


def _rows(protocols: list[str], names: list[str], seeds: int, targets: int) -> Iterator[Row]:
    one = [name for name in names if name not in SEVERAL]
    several = [name for name in names if name in SEVERAL]
    for family in FAMILIES:
        if "folds" in protocols:
            for name in one:
                yield _row("folds", family, name, partial(_folds, family, name), np.mean)
        if "ten" in protocols:
            for name in one:
                yield _row("ten", family, name, partial(_ten, family, name, seeds), np.median)
        for protocol in ("sizes", "curves", "grow", "none"):
            if protocol in protocols:
                draws = 1 if protocol == "none" else seeds
                yield from _sizes(protocol, family, several, draws, targets * (protocol != "none"))
        if "steps" in protocols:
            for cut in (20_000, 15_000):
                yield from _steps(family, cut)


def _row(
    protocol: str,
    family: str,
    method: str,
    fits: Callable[[], list[_Fit]],
    average: Callable[[list[float]], float],
) -> Row:
    start = time.perf_counter()
    found = fits()
    return Row(
        protocol,
        family,
        method,
        float(average([fit.error for fit in found])),
        float(np.mean([fit.coverage for fit in found])),
        _mean([fit.mean_coverage for fit in found]),
        _mean([fit.mean_rank for fit in found]),
        sum(fit.n for fit in found),
        time.perf_counter() - start,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _over_sizes(name: str, known: TrialTable, test: TrialTable, target: Fidelity) -> _Fit:
    """A surrogate's errors, and how it ranks and covers the mean over all losses."""
    predicted = make(name, fidelity=target).fit(known).predict(test.weights, target)
    run = np.hypot(predicted.std, np.nan_to_num(predicted.noise))
    error = np.abs(predicted.mean - test.values)
    loss = Objective(dict.fromkeys(test.metrics, 1.0), prefix="")
    mean, std = loss.compose(predicted.mean, run, predicted.metrics, predicted.correlation)
    truth = loss.of_table(test)
    return _Fit(
        float(error.mean()),
        float((error < NORMAL_90 * run).mean()),
        1,
        float((np.abs(mean - truth) < NORMAL_90 * std).mean()),
        spearman(mean, truth),
    )


def _tested(name: str, known: TrialTable, test: TrialTable, **settings: object) -> np.ndarray:
    """(2, n, q) absolute errors on `test`, and whether they lie in the 90 % interval of a run."""
    predicted = make(name, **settings).fit(known).predict(test.weights)
    error = np.abs(predicted.mean - test.values)
    return np.stack(
        [error, error < NORMAL_90 * np.hypot(predicted.std, np.nan_to_num(predicted.noise))]
    )


def _folds(family: str, name: str) -> list[_Fit]:
    """One per size."""
    found = []
    for size in SIZES:
        table = mixing_laws(family, size, STEP)
        fold = np.random.default_rng(0).permutation(len(table)) % 5
        held = [_tested(name, table.select(fold != k), table.select(fold == k)) for k in range(5)]
        whole = np.concatenate(held, axis=1)
        found.append(_Fit(float(whole[0].mean()), float(whole[1].mean()), 5))
    return found


def _ten(family: str, name: str, seeds: int) -> list[_Fit]:
    """One per seed, the sizes averaged."""
    tables = [mixing_laws(family, size, STEP) for size in SIZES]
    found = []
    for seed in range(seeds):
        held = []
        for table in tables:
            order = np.random.default_rng(seed).permutation(len(table))
            test = _tested(name, table.select(order[:10]), table.select(order[10:]))
            held.append(test.mean(axis=(1, 2)))
        error, coverage = np.mean(held, axis=0)
        found.append(_Fit(float(error), float(coverage), len(tables)))
    return found


def _sizes(protocol: str, family: str, names: list[str], draws: int, targets: int) -> Iterator[Row]:
    table = mixing_laws(family, None, None if protocol == "curves" else STEP)
    target = TARGET
    if protocol == "grow":
        target = Fidelity("160M", int(PARAMS["160M"]), TARGET.tokens)
        table = table.select(table.params <= target.params)
    large = np.flatnonzero(table.at(target))
    parts = []
    for seed in range(draws):
        rest = np.random.default_rng(seed).permutation(large)[targets:]
        unseen = np.isin(table.runs, table.runs[rest])
        parts.append((table.select(~unseen), table.select(np.sort(rest))))

    for name in names:
        try:
            yield _row(
                protocol,
                family,
                name,
                lambda name=name: [_over_sizes(name, *part, target) for part in parts],
                np.mean,
            )
        except SurrogateError as error:
            print(f"{protocol} {family} {name}: {error}", file=sys.stderr)
    if protocol not in ("sizes", "none"):
        return
    slope = 0.0 if protocol == "none" else 1.0
    method = "160M" if protocol == "none" else "slope^r"

    def by_slope() -> list[_Fit]:
        return [_Fit(float(_by_slope(*part, slope)[0].mean()), np.nan, 1) for part in parts]

    row = _row(protocol, family, method, by_slope, np.mean)
    yield Row(**{**asdict(row), "coverage": None})


def _by_slope(known: TrialTable, test: TrialTable, power: float) -> np.ndarray:
    """160M x slope^(r·power), and the level of the 305M runs in `known` if there are any."""
    by_size = [
        {tuple(w): v for w, v in zip(known.weights[rows], known.values[rows], strict=True)}
        for rows in (known.params == PARAMS[size] for size in SIZES)
    ]
    small, middle, large = by_size
    common = [w for w in middle if w in small]
    x, y = (np.array([level[w] for w in common]) for level in (small, middle))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    r = np.log(PARAMS["305M"] / PARAMS["160M"]) / np.log(PARAMS["160M"] / PARAMS["70M"])
    slope = ((x * y).sum(axis=0) / (x * x).sum(axis=0)) ** (r * power)
    level = np.mean([v - middle[w] * slope for w, v in large.items()], axis=0) if large else 0.0
    error = np.abs([middle[tuple(w)] * slope + level for w in test.weights] - test.values)
    return np.stack([error, np.zeros_like(error)])


def _steps(family: str, cut: int) -> Iterator[Row]:
    end = STEP * BATCH_TOKENS

    def fits(law: bool) -> list[_Fit]:
        found = []
        for size in SIZES:
            table = mixing_laws(family, size)
            begun = table.select(table.tokens <= cut * BATCH_TOKENS)
            ends = table.select(table.tokens == end)
            ends = ends.select(np.argsort(ends.runs))
            result = forecast(begun, end)
            last = begun.final
            mean = result.mean if law else last.values[np.argsort(last.runs)]
            error = np.abs(mean - ends.values)
            inside = np.where(np.isfinite(error), error < NORMAL_90 * result.std, np.nan)
            found.append(_Fit(float(np.nanmean(error)), float(np.nanmean(inside)), 1))
        return found

    share = f"steps {cut / STEP:.2f}"
    yield _row(share, family, "step-law", lambda: fits(True), np.mean)
    row = _row(share, family, "last value", lambda: fits(False), np.mean)
    yield Row(**{**asdict(row), "coverage": None})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocols", default="steps,sizes,none,folds,ten")
    parser.add_argument("--surrogates", default="", help="registry names, comma between them")
    parser.add_argument("--seeds", type=int, default=5, help="of `ten` and `sizes`; default 5")
    parser.add_argument(
        "--target-runs", type=int, default=2, help="known runs of the target's size"
    )
    parser.add_argument("--json", action="store_true", help="one JSON list instead of lines")
    return parser.parse_args()


if __name__ == "__main__":
    main()
