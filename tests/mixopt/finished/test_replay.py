"""A replayed search spends what it says, shows what it knows, and ends where all is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixopt.errors import RunsError, SurrogateError
from mixopt.finished.as_trials import pending_trials, trials_of
from mixopt.finished.pool import Pool
from mixopt.finished.replay import Plan, Point, Replay, replay
from mixopt.finished.replay_summary import cost_grid, curve, summary
from mixopt.objective import Objective
from mixopt.proposers import KNOWN
from mixopt.proposers.base import Proposer
from mixopt.proposers.random import Random
from mixopt.proposers.regmix import RegMix
from mixopt.registry import resolve
from mixopt.surrogates import make as make_surrogate
from mixopt.surrogates.base import Prediction, Surrogate, checked
from mixopt.surrogates.gp import GaussianProcess
from mixopt.surrogates.remembered import remembered
from mixopt.testing.surrogates import example_table, example_values
from mixopt.trials import Fidelity, State, Trial, TrialSpec, TrialTable

OBJECTIVE = Objective({"a": 1.0, "b": 2.0, "c": 1.0})
SMALL, LARGE = Fidelity("", 1_000_000, 10_000_000), Fidelity("", 4_000_000, 10_000_000)


class Oracle(Surrogate):
    """Knows the noise-free truth of `example_values` beforehand, and counts its fits."""

    name = "oracle"
    fits = 0

    def fit(self, table: TrialTable) -> Oracle:
        Oracle.fits += 1
        if len(table) < 3:
            raise SurrogateError("too few")
        self.metrics, self.domains = table.metrics, table.domains
        return self

    def predict(self, mixtures: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        mean = example_values(checked(mixtures, self.domains))
        return Prediction(self.metrics, mean, np.full_like(mean, 0.1), np.zeros(3))


class ManySizes(Oracle):
    """The same, and learns from every fidelity."""

    multi_fidelity = True


class TargetOnly(Oracle):
    """The same, but cannot be fitted without three trials at the fidelity it was made for."""

    def fit(self, table: TrialTable) -> TargetOnly:
        assert self.fidelity is not None
        if table.at(self.fidelity).sum() < 3:
            raise SurrogateError("too few at the target")
        super().fit(table)
        return self


class Chance(Proposer):
    """Picks blindly; recommends by its surrogate."""

    name = "chance"

    def propose(self, trials: Sequence[Trial], n: int) -> list[TrialSpec]:
        raise AssertionError("only a pool is searched here")

    def pick(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        rows = self.rng(trials).permutation(len(pool))[:n]
        return [pool[row] for row in rows]


class Greedy(Chance):
    """Takes whatever its surrogate recommends, the cheapest fidelity or not."""

    name = "greedy"

    def pick(self, trials: Sequence[Trial], pool: Sequence[TrialSpec], n: int) -> list[TrialSpec]:
        return [self.recommend(trials, pool)]


def one_size(n: int = 12, noise: float = 0.0, seed: int = 3) -> Pool:
    return Pool.of(example_table(n, noise, seed), OBJECTIVE)


def two_sizes(small: int = 20, large: int = 8) -> TrialTable:
    """The `large` first mixtures of `small` also as larger models, .5 better throughout."""
    table = example_table(small, noise=0.0)
    rows = np.concatenate([np.arange(small), np.arange(large)])
    better = np.arange(small + large) >= small
    both = table.select(rows)
    return dataclasses.replace(
        both,
        values=both.values - 0.5 * better[:, None],
        params=np.where(better, LARGE.params, SMALL.params).astype(float),
        runs=np.arange(small + large),
    )


def oracle(pool: Pool, kind: type[Surrogate] = Oracle) -> partial[Surrogate]:
    return partial(kind, fidelity=pool.target)


# What a pool is


def test_at_one_fidelity_a_run_costs_one() -> None:
    pool = one_size()
    assert pool.costs.tolist() == [1.0] * 12
    assert pool.target == SMALL


def test_the_target_is_the_most_expensive_fidelity_and_its_run_the_unit_of_cost() -> None:
    pool = Pool.of(two_sizes(), OBJECTIVE)
    assert pool.target == LARGE
    assert pool.costs.tolist() == [0.25] * 20 + [1.0] * 8
    assert pool.targets.tolist() == list(range(20, 28))
    assert Pool.of(two_sizes(), OBJECTIVE, target=SMALL).costs.tolist() == [1.0] * 20 + [4.0] * 8


def test_the_best_of_the_pool_is_the_least_objective_at_the_target() -> None:
    table = two_sizes()
    pool = Pool.of(table, OBJECTIVE)
    naive = table.values[20:] @ np.array([0.25, 0.5, 0.25])
    assert pool.best == 20 + int(np.argmin(naive))
    assert pool.regret(pool.best) == 0
    assert pool.regret(21) == pytest.approx(naive[1] - naive.min())
    assert math.isnan(pool.regret(None))


def test_repeats_are_averaged_at_the_cost_of_all_of_them() -> None:
    table = example_table(5)
    twice = table.select(np.array([0, 1, 2, 3, 4, 1]))
    twice.values[5] += 0.3
    twice = dataclasses.replace(twice, runs=np.arange(6))
    pool = Pool.of(twice, OBJECTIVE, costs=np.array([1, 2, 3, 4, 5, 7.0]))
    assert pool.costs.tolist() == [1, 9, 3, 4, 5]
    assert pool.values[1] == pytest.approx(OBJECTIVE.of_table(table)[1] + 0.15)
    assert pool.notes == ("1 runs repeat a mixture: averaged, at the cost of all of them",)


def test_of_a_curve_only_the_last_row_counts() -> None:
    table = example_table(4)
    rows = np.repeat(np.arange(4), 2)
    curves = dataclasses.replace(
        table.select(rows), runs=rows, tokens=np.tile([2e6, 1e7], 4).astype(float)
    )
    curves.values[::2] += 1.0
    pool = Pool.of(curves, OBJECTIVE)
    assert len(pool.specs) == 4
    assert pool.values == pytest.approx(OBJECTIVE.of_table(table))


def test_a_target_run_without_the_objective_is_left_out_and_said_so() -> None:
    table = example_table(6)
    table.values[2, 1] = np.nan
    pool = Pool.of(table, OBJECTIVE)
    assert len(pool.specs) == 5
    assert "1 runs at the target lack a metric" in pool.notes[0]


def test_a_cheap_run_without_the_objective_still_tells_what_it_measured() -> None:
    table = two_sizes()
    table.values[0, 1] = np.nan
    pool = Pool.of(table, OBJECTIVE)
    assert len(pool.specs) == 28
    assert sorted(pool.trial(0, 0).metrics) == ["bpb/a", "bpb/c"]
    assert np.isnan(pool.values[0])


@pytest.mark.parametrize("cost", [-1.0, math.nan])
def test_a_cost_that_is_none_is_refused_by_name(cost: float) -> None:
    costs = np.array([1.0, 1.0, cost, 1.0])
    with pytest.raises(RunsError, match="run r2"):
        Pool.of(example_table(4), OBJECTIVE, costs=costs, names=["r0", "r1", "r2", "r3"])


def test_one_mixture_at_the_target_is_no_pool() -> None:
    with pytest.raises(RunsError, match="1 mixtures were run at 4e"):
        Pool.of(two_sizes(large=1), OBJECTIVE)


# What a search does


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

        def pick(
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


# One fit for picking and recommending


def test_picking_and_recommending_share_a_fit() -> None:
    pool = one_size()
    Oracle.fits = 0
    replay(pool, Greedy, oracle(pool), Plan(budget=10, initial=4), 0)
    assert Oracle.fits == 7  # after 4, 5, … 10 runs


def test_a_remembered_surrogate_is_what_it_was_and_forgets_other_tables() -> None:
    fresh = remembered(partial(make_surrogate, "gp"))
    one, two = example_table(10), example_table(12, seed=1)
    test = np.random.default_rng(0).dirichlet(np.ones(4), 5)
    assert isinstance(fresh(), GaussianProcess)
    for table in (one, one, two, one):
        plain = make_surrogate("gp").fit(table).predict(test)
        kept = fresh().fit(table).predict(test)
        assert (plain.mean == kept.mean).all()
        assert (plain.std == kept.std).all()


def test_a_table_made_of_trials_again_needs_no_second_fit() -> None:
    fresh, table = remembered(Oracle), example_table(6)
    Oracle.fits = 0
    fresh().fit(table)
    fresh().fit(TrialTable.of(trials_of(table), table.metrics))
    assert Oracle.fits == 1
    fresh().fit(table.select(np.arange(5)))
    fresh().fit(table)  # only the last fit is kept
    assert Oracle.fits == 3


# Summaries


def made(seed: int, trained: list[float], until: float | None) -> Replay:
    """A replay at costs 1, 2, …, recommending .5 more than it trained, at every second run."""
    points = tuple(
        Point(float(k + 1), k + 1, regret, regret + 0.5 if k % 2 else math.nan)
        for k, regret in enumerate(trained)
    )
    return Replay("made", seed, points, until, 0, 0, tuple(range(len(trained))), seed, False)


def test_a_summary_is_the_mean_over_seeds_with_its_error() -> None:
    said = summary([made(0, [3, 1], 2.0), made(1, [2, 2], None), made(2, [4, 0], 1.0)])
    assert said.trained == 1
    assert said.trained_error == pytest.approx(np.std([1, 2, 0], ddof=1) / math.sqrt(3))
    assert said.recommended == 1.5
    assert (said.found, said.until_best, said.until_best_median) == (2 / 3, None, 2.0)
    assert (said.cost, said.runs, said.drawn, said.emptied) == (2, 2, 1, 0)
    found = summary([made(0, [3, 1], 2.0), made(1, [2, 2], 1.0)])
    assert (found.found, found.until_best, found.until_best_median) == (1, 1.5, 1.5)
    assert summary([made(0, [1, 1], 2.0), made(1, [1, 1], None)]).until_best_median is None


def test_curves_hold_the_last_known_regret_at_every_cost() -> None:
    replays = [made(0, [3, 1, 1, 0], 4.0), made(1, [2, 2], None)]
    cost = cost_grid(replays)
    assert cost.tolist() == [1, 2, 3, 4]
    trained = curve(replays, "trained", cost)
    assert trained.mean.tolist() == [2.5, 1.5, 1.5, 1]
    assert trained.low.tolist() == [2.25, 1.25, 1.25, 0.5]
    recommended = curve(replays, "recommended", cost)
    assert recommended.seeds.tolist() == [0, 2, 2, 2]
    assert np.isnan(recommended.mean[0])
    assert recommended.median[1:].tolist() == [2.0, 2.0, 1.5]


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    cost = cost_grid([made(0, list(np.linspace(1, 0, 1000)), None)])
    assert len(cost) == 200
    assert (cost[0], cost[-1]) == (1, 1000)


# Finished runs as trials


def test_trials_of_a_table_make_that_table_again() -> None:
    table = two_sizes()
    table.values[3, 1] = np.nan
    trials = trials_of(table, costs=np.arange(28.0))
    again = TrialTable.of(trials, table.metrics)
    for name in ("weights", "params", "tokens", "seeds", "values"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert [trial.number for trial in trials] == list(range(28))
    assert all(trial.complete for trial in trials)
    assert [trial.result.cost.device_seconds for trial in trials if trial.result] == list(range(28))


def test_rows_of_one_run_become_one_trial_with_its_curve() -> None:
    table = example_table(2)
    rows = np.array([1, 0, 1])
    steps = np.array([9e6, 1e7, 3e6])
    table = dataclasses.replace(table.select(rows), runs=rows, tokens=steps)
    late, other = trials_of(table)
    assert late.spec.fidelity.tokens == 9_000_000
    assert late.result is not None
    assert [point.tokens for point in late.result.curve] == [3_000_000, 9_000_000]
    assert late.result.curve[-1].metrics == late.metrics
    assert other.spec.fidelity.tokens == 10_000_000


def test_pending_trials_are_taken_but_not_learned_from() -> None:
    weights = np.array([[0.25, 0.75], [0.5, 0.5]])
    trials = pending_trials(("a", "b"), weights, [SMALL, LARGE], first=7)
    assert [(t.number, t.state, t.spec.fidelity) for t in trials] == [
        (7, State.RUNNING, SMALL),
        (8, State.RUNNING, LARGE),
    ]
    assert not any(trial.complete for trial in trials)
    taken = RegMix(one_size().space, OBJECTIVE, SMALL, partial(make_surrogate, "gp"))
    assert len(taken.untried(trials, [t.spec for t in trials])) == 0
