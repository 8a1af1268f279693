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


def unrepeated(trials: Iterable[Trial]) -> str:
    """That no mixture was run with several seeds so far, and what becomes of that.

    Args:
        trials: of the study's ledger; repeats that were asked for are among them from the start.
    """
    repeats = [trial for trial in trials if trial.spec.role is Role.REPEAT]
    left = sum(not trial.ended for trial in repeats)
    asked = f"{len(repeats)} repeat{'s' * (len(repeats) != 1)} of the baseline"
    so_far, why = "", "search.repeats: 2 would tell"
    if left:
        of = f"{left} of " if left < len(repeats) else ""
        so_far, why = " yet", f"{of}{asked} {'is' if left == 1 else 'are'} under way"
    elif repeats:
        why = f"{asked} ended, but fewer than two of its runs are complete"
    return (
        f"no mixture was run with several seeds{so_far}, so what a seed does is not known ({why})"
    )
