"""Predictions of every surrogate, to be compared between processors' settings.

    python -m mixopt.testing.numerics predictions.npz

BLAS kernels, their threads and torch's vector instructions are chosen when a process starts
(OPENBLAS_CORETYPE, OMP_NUM_THREADS, ATEN_CPU_CAPABILITY), and each rounds sums differently.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mixopt.surrogates import KNOWN, find, make
from mixopt.surrogates.base import Prediction
from mixopt.testing.surrogates import example_table, run_std, two_fidelities


def predictions() -> dict[str, Prediction]:
    """Of every registered surrogate by its name; those of several fidelities also from two."""
    asked = example_table(40, seed=9).weights
    found = {}
    for name in KNOWN:
        found[name] = make(name).fit(example_table()).predict(asked)
        if find(name).multi_fidelity:
            found[f"{name}, two fidelities"] = make(name).fit(two_fidelities(12)).predict(asked)
    return found


def save(path: Path) -> None:
    """Means and deviations of a run of `predictions`, as `NAME/mean` and `NAME/run` of an .npz."""
    found = predictions()
    means = {f"{name}/mean": each.mean for name, each in found.items()}
    runs = {f"{name}/run": run_std(each) for name, each in found.items()}
    np.savez(path, **means, **runs)  # type: ignore[arg-type]


def differences(one: Path, other: Path) -> dict[str, tuple[float, float]]:
    """By surrogate, between two files of `save`.

    Returns:
        the largest difference of means over a run's deviation, and the largest relative difference
        of those deviations.
    """
    with np.load(one) as a, np.load(other) as b:
        names = [key.removesuffix("/mean") for key in a if key.endswith("/mean")]
        return {
            name: (
                float((np.abs(a[f"{name}/mean"] - b[f"{name}/mean"]) / a[f"{name}/run"]).max()),
                float(np.abs(b[f"{name}/run"] / a[f"{name}/run"] - 1).max()),
            )
            for name in names
        }


if __name__ == "__main__":
    save(Path(sys.argv[1]))
