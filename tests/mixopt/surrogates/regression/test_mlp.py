"""Small networks: also over fidelities, and never beyond them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mixopt.core.errors import SurrogateError
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.surrogates.regression.mlp import MLP
from mixopt.testing.surrogates import SurrogateConformance, example_table, example_values


@pytest.mark.slow
class TestMLP(SurrogateConformance):
    surrogate = MLP

    @pytest.mark.slow  # ten seconds each, where others take one
    def test_the_order_of_trials_does_not_matter(self) -> None:
        super().test_the_order_of_trials_does_not_matter()

    @pytest.mark.slow
    def test_the_last_bits_of_the_trials_do_not_decide(self) -> None:
        super().test_the_last_bits_of_the_trials_do_not_decide()


def longer(n: int) -> TrialTable:
    """Trials of three lengths, each three times the last, that brings metrics down by .2."""
    table = example_table(n)
    step = np.arange(n) % 3
    return dataclasses.replace(
        table, values=table.values - 0.2 * step[:, None], tokens=1e7 * 3.0**step
    )


def test_what_one_length_teaches_serves_another() -> None:
    fitted = MLP().fit(longer(90))
    new = np.random.default_rng(1).dirichlet(np.ones(4), 40)
    for step in range(3):
        predicted = fitted.predict(new, Fidelity("", 1_000_000, 10_000_000 * 3**step))
        missed = predicted.mean - (example_values(new) - 0.2 * step)
        assert np.abs(missed).mean() < 0.06  # thirty trials of one length alone: .09
        assert (np.abs(missed) < 1.645 * predicted.std).mean() > 0.8


def test_beyond_the_fidelities_of_the_trials_it_refuses_to_guess() -> None:
    fitted = MLP().fit(longer(30))
    with pytest.raises(SurrogateError, match="lie beyond the trials"):
        fitted.predict(np.eye(4), Fidelity("", 1_000_000, 100_000_000))
    with pytest.raises(SurrogateError, match="lie beyond the trials"):
        fitted.predict(np.eye(4), Fidelity("", 2_000_000, 10_000_000))


def test_between_the_fidelities_of_the_trials_it_stays_between() -> None:
    fitted = MLP().fit(longer(60))
    new = np.random.default_rng(2).dirichlet(np.ones(4), 20)
    short, between, long = (
        fitted.mean(new, Fidelity("", 1_000_000, tokens)).mean()
        for tokens in (10_000_000, 20_000_000, 90_000_000)
    )
    assert long < between < short
