import numpy as np
import optuna
import pytest

from benchmarks.ask_tell import LookUp, Optuna, drive
from benchmarks.proposers import BUDGETS, INITIAL, Task, best, row, searches
from benchmarks.trained_pool import Trained
from mixopt.core.errors import RunsError
from mixopt.core.trials import Fidelity
from mixopt.trainers.job import TrainingJob

MIXTURES, SEEDS = 80, 3


def made(noise: float = 0.02) -> Trained:
    """Two sizes that agree on the order of mixtures, but for the noise of their seeds."""
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(3), MIXTURES)
    truth = 3 + (weights[:, 0] - 0.6) ** 2 + (weights[:, 1] - 0.3) ** 2
    values = truth[None, None, :, None] + noise * rng.normal(size=(2, SEEDS, MIXTURES, 1))
    values[0] += 1  # the small size is worse throughout
    sizes = (Fidelity("small", 1_000, 10_000), Fidelity("large", 2_000, 20_000))
    return Trained(("web", "code", "math"), ("bpb/descriptions",), sizes, weights, values)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.of(made(), 0)


def test_a_search_sees_one_seed_and_is_judged_by_the_others(task: Task) -> None:
    trained = made()
    large = task.pool.targets
    assert task.pool.values[large] == pytest.approx(trained.values[1, 0, :, 0])
    assert task.truth[large] == pytest.approx(trained.values[1, 1:, :, 0].mean(0))
    judged = task.regret(best(task.pool, large.tolist()))
    assert judged >= 0
    assert min(task.regret(c) for c in large.tolist()) == 0


def test_regret_counts_what_was_paid_for_and_only_the_target(task: Task) -> None:
    large = task.pool.targets.tolist()
    small = [k for k in range(len(task.pool.specs)) if k not in large]
    order = [*small[:4], *large[:3]]  # four small ones cost as much as one large one
    assert np.isnan(task.trained(order, 1.5))
    assert task.trained(order, 2) == task.regret(large[0])
    assert task.trained(order, 4) == task.regret(best(task.pool, large[:3]))
    assert [task.found([*order, task.pool.best], budget) for budget in (4, 5)] == [False, True]


def test_a_tool_trains_mixtures_of_the_pool_once_each_and_hears_where_they_lie(task: Task) -> None:
    class Corner:
        def __init__(self) -> None:
            self.told: list[tuple[tuple[float, ...], float]] = []

        def tell(self, weights: np.ndarray, value: float) -> None:
            self.told.append((tuple(weights.tolist()), value))

        def ask(self, n: int) -> list[np.ndarray]:
            return [np.array([1.0, 0.0, 0.0])] * n

    tool = Corner()
    begun = task.pool.targets[:2].tolist()
    order = drive(tool, task.pool, begun, runs=7, batch=4)
    assert order[:2] == begun
    assert len(set(order)) == 7
    trained = [(task.pool.specs[c].mixture.weights, task.pool.values[c]) for c in order]
    assert tool.told == trained
    left = [c for c in task.pool.targets.tolist() if c not in begun]
    nearest = max(left, key=lambda c: task.pool.specs[c].mixture.weights[0])
    assert order[2] == nearest


def test_the_look_up_refuses_what_was_never_trained(task: Task) -> None:
    job = TrainingJob(
        "pool", "0", {"web": 1.0, "code": 0.0, "math": 0.0}, 1, 0, task.pool.target, "/nowhere"
    )
    with pytest.raises(KeyError):
        LookUp(task.pool)(job, job.report)


def test_a_sampler_of_optunas_beats_chance_on_a_smooth_pool() -> None:
    quiet = Task.of(made(noise=0.0), 0)
    targets = quiet.pool.targets
    regrets = []
    for seed in range(10):
        tool = Optuna(quiet.pool.domains, optuna.samplers.TPESampler(seed=seed))
        begun = np.random.default_rng(seed).permutation(targets)[:INITIAL].tolist()
        regrets.append(quiet.trained(drive(tool, quiet.pool, begun, runs=24, batch=4), BUDGETS[-1]))
    drawn = [np.random.default_rng(seed).permutation(targets)[:24].tolist() for seed in range(200)]
    assert np.mean(regrets) < np.mean([quiet.trained(order, BUDGETS[-1]) for order in drawn])


def test_all_searches_share_a_seeds_initial_design(task: Task) -> None:
    known = {search.name: search for search in searches()}
    first = [
        known[name].run(task.pool, 3).order[:INITIAL]
        for name in ("random", "Optuna TPE", "bayes, effective-data")
    ]
    assert all(list(order) == list(first[0]) for order in first)


def test_regmix_spends_half_on_the_small_size_and_is_the_same_again(task: Task) -> None:
    small_first = next(search for search in searches() if search.name == "RegMix, small first")
    found, again = (row(small_first, [task], 1) for _ in range(2))
    assert np.isnan(found.trained[16][0])
    assert found.trained[32][0] >= 0
    assert (found.trained[32], found.recommended) == (again.trained[32], again.recommended)


def test_values_are_needed_of_two_seeds() -> None:
    one = made()
    with pytest.raises(RunsError):
        Task.of(
            Trained(one.domains, one.metrics, one.sizes, one.weights[:1], one.values[:, :, :1]), 0
        )
