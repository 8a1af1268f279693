"""A replayed search spends what it says, shows what it knows, and ends where all is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixopt.core.errors import RunsError, SurrogateError
from mixopt.core.registry import resolve
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity, Trial, TrialSpec
from mixopt.offline.pool import Pool
from mixopt.offline.replay import Plan, replay
from mixopt.search.proposers import KNOWN
from mixopt.search.proposers.base import Proposer
from mixopt.search.proposers.random import Random
from mixopt.surrogates import make as make_surrogate
from mixopt.surrogates.base import Surrogate
from mixopt.testing.surrogates import example_table
from tests.mixopt.offline.pools import (
    LARGE,
    OBJECTIVE,
    SMALL,
    Chance,
    Greedy,
    ManySizes,
    Oracle,
    TargetOnly,
    one_size,
    oracle,
    two_sizes,
)


@pytest.mark.parametrize("name", ["bayes", "random", "regmix"])
def test_with_the_budget_of_the_whole_pool_every_proposer_ends_at_no_regret(name: str) -> None:
    pool = one_size(9, noise=0.01)
    kind = resolve("proposer", name, KNOWN, Proposer)  # type: ignore[type-abstract]
    gp = partial(make_surrogate, "gp", fidelity=pool.target)
    done = replay(pool, kind, gp, Plan(budget=100, initial=4, batch=2), seed=0)
    assert done.points[-1].trained == 0
    assert done.trained == pool.best
    assert sorted(done.order) == list(range(9))
    assert done.points[-1].cost == 9
    assert done.emptied
    assert done.until_best is not None


def test_blind_search_expects_to_look_at_half_the_pool() -> None:
    pool = one_size(15)
    plan = Plan(budget=15, every=100)
    costs = [replay(pool, Random, oracle(pool), plan, seed).until_best for seed in range(300)]
    assert None not in costs
    mean, error = np.mean(costs), np.std(costs) / math.sqrt(300)
    assert abs(mean - (15 + 1) / 2) < 3.5 * error


def test_a_search_may_end_with_the_best_of_all() -> None:
    pool = one_size(15)
    plans = [Plan(budget=15, initial=4, until_best=early) for early in (False, True)]
    earlier = 0
    for seed in range(5):
        through, ended = (replay(pool, Random, oracle(pool), plan, seed) for plan in plans)
        found = max(4, through.order.index(pool.best) + 1)  # the first swarm is seen as a whole
        assert ended.order == through.order[:found]
        assert ended.until_best == through.until_best
        earlier += found < 15
    assert earlier > 0


def test_equal_seeds_are_equal_searches_and_other_seeds_are_not() -> None:
    pool = one_size()
    again = [replay(pool, Chance, oracle(pool), Plan(budget=8), seed) for seed in (4, 4, 5)]
    assert again[0] == again[1]
    assert again[0].order != again[2].order


def test_proposers_begin_with_the_same_runs() -> None:
    pool = one_size()
    plan = Plan(budget=8, initial=5)
    orders = [replay(pool, kind, oracle(pool), plan, 0).order for kind in (Chance, Greedy)]
    assert orders[0][:5] == orders[1][:5]


@settings(max_examples=40, deadline=None)
@given(
    costs=st.lists(st.floats(0.1, 5.0), min_size=10, max_size=10),
    budget=st.floats(0.5, 30.0),
    batch=st.integers(1, 4),
    initial=st.integers(0, 6),
    seed=st.integers(0, 5),
)
def test_no_search_overdraws_its_budget_looks_twice_or_stops_early(
    costs: list[float], budget: float, batch: int, initial: int, seed: int
) -> None:
    pool = Pool.of(example_table(10), OBJECTIVE, costs=np.array(costs))
    plan = Plan(budget, initial=initial, batch=batch, every=3)
    if min(costs) > budget:
        with pytest.raises(RunsError, match="buys no run"):
            replay(pool, Chance, oracle(pool), plan, seed)
        return
    done = replay(pool, Chance, oracle(pool), plan, seed)
    spent = pool.costs[list(done.order)]
    assert len(set(done.order)) == len(done.order)
    assert done.points[-1].cost == pytest.approx(spent.sum())
    assert spent.sum() <= budget * (1 + 1e-6)
    left = np.delete(pool.costs, list(done.order))
    assert done.emptied or (left > budget - spent.sum()).all()
    trained = [point.trained for point in done.points]
    assert trained == sorted(trained, reverse=True)
    assert [point.runs for point in done.points] == list(range(1, len(spent) + 1))
    assert math.isfinite(done.points[-1].recommended)


def test_the_best_trained_and_the_recommended_are_told_apart() -> None:
    pool = one_size(30)
    done = replay(pool, Chance, oracle(pool), Plan(budget=6, initial=4), seed=1)
    # what knows the truth recommends the best from the start, trained or not
    assert done.recommended == pool.best
    assert done.points[-1].recommended == 0
    assert done.points[-1].trained > 0
    assert done.until_best is None
    assert done.trained == min(done.order, key=lambda k: pool.values[k])


def test_a_search_by_the_truth_needs_one_run_after_its_first_swarm() -> None:
    pool = one_size(30)
    done = replay(pool, Greedy, oracle(pool), Plan(budget=20, initial=4), seed=1)
    assert done.until_best == 5


def test_recommendations_are_asked_for_every_so_many_batches_and_at_the_end() -> None:
    pool = one_size(12)
    plan = Plan(budget=11, initial=4, batch=2, every=2)
    done = replay(pool, Chance, oracle(pool), plan, 0)
    asked = [point.runs for point in done.points if math.isfinite(point.recommended)]
    assert asked == [4, 8, 11]


def test_free_runs_are_the_cheapest_cost_nothing_and_count_as_first_swarm() -> None:
    pool = Pool.of(two_sizes(), OBJECTIVE)
    plan = Plan(budget=3, initial=6, free=6)
    done = replay(pool, Chance, oracle(pool, ManySizes), plan, 0)
    assert all(k < 20 for k in done.order[:6])
    assert done.points[0].cost == 0
    assert done.points[0].runs == 6
    assert math.isnan(done.points[0].trained)
    assert done.points[0].recommended == 0
    assert done.points[1].cost > 0


def test_more_free_runs_than_there_are_is_an_error() -> None:
    pool = Pool.of(two_sizes(), OBJECTIVE)
    with pytest.raises(RunsError, match="only 20"):
        replay(pool, Chance, oracle(pool), Plan(budget=3, free=21), 0)


def test_runs_of_infinite_cost_are_given_but_never_bought() -> None:
    table = two_sizes()
    costs = np.where(table.params == LARGE.params, 1.0, np.inf)
    pool = Pool.of(table, OBJECTIVE, costs=costs)
    done = replay(pool, Chance, oracle(pool, ManySizes), Plan(budget=5, free=3), 0)
    assert [k < 20 for k in done.order] == [True] * 3 + [False] * 5
    assert done.points[-1].cost == 5


def test_a_first_swarm_is_cheap_for_who_can_learn_from_it_and_at_the_target_for_others() -> None:
    pool = Pool.of(two_sizes(), OBJECTIVE)

    def first(kind: type[Proposer], surrogate: type[Surrogate]) -> Fidelity:
        done = replay(pool, kind, oracle(pool, surrogate), Plan(budget=6), 0)
        return pool.specs[done.order[0]].fidelity

    assert first(Chance, ManySizes) == SMALL
    assert first(Chance, Oracle) == LARGE
    assert first(Random, ManySizes) == LARGE


def test_target_runs_are_drawn_until_the_surrogate_can_be_fitted() -> None:
    pool = Pool.of(two_sizes(), OBJECTIVE)
    plan = Plan(budget=6, free=5, initial=0)
    done = replay(pool, Greedy, oracle(pool, TargetOnly), plan, 0)
    assert done.drawn == 3
    assert [k < 20 for k in done.order[:8]] == [True] * 5 + [False] * 3
    assert math.isnan(done.points[0].recommended)
    # until then the best trained one is all there is to recommend
    assert done.points[1].recommended == done.points[1].trained


def test_a_surrogate_that_fails_on_enough_runs_is_an_error() -> None:
    class Broken(Oracle):
        def fit(self, table: TrialTable) -> Broken:
            raise SurrogateError("no")

    pool = one_size()
    with pytest.raises(SurrogateError):
        replay(pool, Greedy, oracle(pool, Broken), Plan(budget=8, initial=4), 0)


def test_a_proposer_that_picks_what_was_not_offered_is_an_error() -> None:
    class Cheat(Chance):
        name = "cheat"

        def select(
            self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int
        ) -> list[TrialSpec]:
            return [trials[0].spec]

    pool = one_size()
    with pytest.raises(RunsError, match="cheat"):
        replay(pool, Cheat, oracle(pool), Plan(budget=8, initial=4), 0)


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"batch": 0}, {"every": 0}, {"free": -1}])
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(RunsError, match=next(iter(wrong))):
        Plan(**{"budget": 4, **wrong})


def test_picking_and_recommending_share_a_fit() -> None:
    pool = one_size()
    Oracle.fits = 0
    replay(pool, Greedy, oracle(pool), Plan(budget=10, initial=4), 0)
    assert Oracle.fits == 7  # after 4, 5, … 10 runs
