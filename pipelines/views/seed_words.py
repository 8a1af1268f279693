"""What a seed does to a run, in words: how much it is, or why that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from mixopt.core.trials import Role, Trial
from mixopt.surrogates.noise import SeedScatter


def scattered(scatter: SeedScatter) -> str:
    """How far one run lies from the mean over seeds, and what that is known from."""
    return (
        f"seed standard deviation of a run {scatter.std:.4f}, from {scatter.runs} repeated runs "
        f"({scatter.freedom:.3g} effective degree{'s' * (scatter.freedom != 1)} of freedom)"
    )


def unrepeated(trials: Iterable[Trial], asked: int = 0) -> str:
    """That no mixture was run with several seeds so far, and what becomes of that.

    Args:
        trials: of the study's ledger.
        asked: for so many repeats of the baseline its file asks. Where trials are pruned, the
            ledger has them only after a first part of the design.
    """
    repeats = [trial for trial in trials if trial.spec.role is Role.REPEAT]
    of = max(asked, len(repeats))
    left = of - sum(trial.ended for trial in repeats)
    all_of_them = f"{of} repeat{'s' * (of != 1)} of the baseline"
    so_far, why = "", "search.repeats: 2 would tell"
    if left:
        some = f"{left} of " if left < of else ""
        now = "under way" if repeats else "to come"
        so_far, why = " yet", f"{some}{all_of_them} {'is' if left == 1 else 'are'} {now}"
    elif repeats:
        why = f"{all_of_them} ended, but fewer than two of its runs are complete"
    return (
        f"no mixture was run with several seeds{so_far}, so what a seed does is not known ({why})"
    )
