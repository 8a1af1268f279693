"""The Pareto front: where it is known it is found, and every point says what weights choose it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mixopt.core.errors import StudyError
from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity
from mixopt.search.front import Front, nondominated, pareto_front
from mixopt.search.guards import Guards
from mixopt.surrogates.base import Prediction, Surrogate

NAMES = ("a", "b", "c")


class Known(Surrogate):
    """Exact values: each metric is least at its own mixture."""

    name = "known"

    def __init__(self, best: dict[str, Sequence[float]], sign: float = 1.0) -> None:
        self.best, self.sign = best, sign

    def fit(self, trials: TrialTable) -> Known:
        raise AssertionError("it knows already")

    def predict(self, weights: np.ndarray, fidelity: Fidelity | None = None) -> Prediction:
        mean = np.stack(
            [self.sign * ((weights - np.array(b)) ** 2).sum(axis=1) for b in self.best.values()],
            axis=1,
        )
        return Prediction(
            tuple(self.best), mean, np.full_like(mean, 1e-9), np.zeros(len(self.best))
        )


BEST = {"x/one": (0.8, 0.1, 0.1), "x/two": (0.1, 0.8, 0.1)}


def front(sign: float = 1.0, weights: Sequence[float] = (1.0, 1.0), **more: object) -> Front:
    objective = Objective(dict(zip(BEST, np.multiply(sign, weights).tolist(), strict=True)))
    space = MixtureSpace(NAMES, Mixture.uniform(NAMES))
    return pareto_front(Known(BEST, sign), objective, space, seed=0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_lies_on_the_line_between_the_two_optima(sign: float) -> None:
    points = front(sign)
    assert len(points) >= 5
    first, last = (np.array(each) for each in BEST.values())
    for point in points:
        share = (point.mixture.array[0] - last[0]) / (first[0] - last[0])
        assert -0.05 <= share <= 1.05
        assert point.mixture.array == pytest.approx(share * first + (1 - share) * last, abs=0.02)
        assert point.mean["x/one"] == pytest.approx(
            sign * ((point.mixture.array - first) ** 2).sum(), abs=1e-6
        )
    values = [sign * point.mean["x/one"] for point in points]
    assert values == sorted(values)
    assert all(np.sign(weight) == sign for p in points for weight in p.weights.values())


def test_the_weights_of_a_point_choose_it() -> None:
    # least sum of w ((x - p)² + …) is at the weighed mean of the optima
    for point in front():
        one, two = point.weights["x/one"], point.weights["x/two"]
        mean = one * np.array(BEST["x/one"]) + two * np.array(BEST["x/two"])
        assert point.mixture.array == pytest.approx(mean, abs=0.02)


def test_guardrails_hold_at_every_point() -> None:
    best = {**BEST, "x/kept": (1 / 3, 1 / 3, 1 / 3)}
    guards = Guards(
        [Guardrail("x/kept", 0.05)], Known(best), Mixture.uniform(NAMES), seeds=3, gain=0.5
    )
    points = front(guards=guards)
    kept = [float(((p.mixture.array - 1 / 3) ** 2).sum()) for p in points]
    assert max(kept) <= 0.05 + 1e-3
    assert max(kept) > 0.03  # they bind
    assert [point.mean["x/kept"] for point in points] == pytest.approx(kept)
    assert points.limits == {"x/kept": pytest.approx(0.05)}
    base = points.baseline
    assert base.mixture == Mixture.uniform(NAMES)
    assert base.mean["x/kept"] == pytest.approx(0.0)
    assert base.mean["x/one"] == pytest.approx(((1 / 3 - np.array(BEST["x/one"])) ** 2).sum())


@pytest.mark.parametrize("guarded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_labels_stay_with_their_mixtures_when_the_weights_change(guarded: bool) -> None:
    best = {**BEST, "x/kept": (1 / 3, 1 / 3, 1 / 3)}
    found = []
    for weights, gain in (((1.0, 1.0), 0.5), ((3.0, 1.0), 0.8), ((1.0, 20.0), 2.0)):
        guards = Guards(
            [Guardrail("x/kept", 0.1)], Known(best), Mixture.uniform(NAMES), seeds=3, gain=gain
        )
        found.append(front(weights=weights, guards=guards if guarded else None))
    known: dict[str, np.ndarray] = {}
    for each in found:
        assert len({point.label for point in each}) == len(each)
        assert [point.own for point in each].count(True) == 1
        for point in each:
            assert known.setdefault(point.label, point.mixture.array) == pytest.approx(
                point.mixture.array, abs=0.01
            )
    labels = [{point.label for point in each if not point.own} for each in found]
    assert len(set.union(*labels)) <= min(map(len, labels)) + 1  # but for the weights' own points


def test_weights_of_a_point_in_the_study_file_leave_all_labels_as_they_are() -> None:
    before = front()
    chosen = before[1]
    after = front(weights=[float(f"{w:.3g}") for w in chosen.weights.values()])
    assert {point.label for point in after} >= {point.label for point in before if not point.own}
    assert next(point.label for point in after if point.own) == chosen.label


def test_one_metric_has_no_front() -> None:
    space = MixtureSpace(NAMES, Mixture.uniform(NAMES))
    with pytest.raises(StudyError, match="only metric"):
        pareto_front(Known(BEST), Objective({"x/one": 1.0}), space, seed=0)


def test_what_is_not_dominated() -> None:
    values = np.array([[1.0, 4.0], [2.0, 2.0], [2.0, 3.0], [4.0, 1.0], [1.0, 4.0]])
    assert nondominated(values).tolist() == [True, True, False, True, True]
