"""What a trial shows of its routing."""

from pathlib import Path

import pytest

from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import Cost, CurvePoint, Fidelity, State, Trial, TrialResult, TrialSpec
from pipelines.tracked_values import trial_metrics


def trial(**routing: object) -> Trial:
    metrics = {"bpb/law": 2.0}
    result = TrialResult(metrics, (CurvePoint(8, 512, metrics),), Cost(512, 3.0, 1e9), **routing)
    spec = TrialSpec(Mixture.of({"law": 1}), Fidelity("proxy", 10, 512), 0)
    return Trial(0, spec, State.COMPLETE, TrialResult.from_json(result.to_json()))


def shown(one: Trial, home: Path) -> dict[str, float]:
    return {name: value for name, value, _, _ in trial_metrics(one, home, Objective({"law": 1}), 0)}


def test_routing_is_shown_per_domain(tmp_path: Path) -> None:
    routing = {
        "loads": {"law": (0.5, 0.25, 0.25, 0.0)},
        "entropies": {"law": 0.6},
        "dropped": {"law": 0.01},
    }
    found = shown(trial(**routing), tmp_path)
    assert found["router/peak_load/law"] == pytest.approx(2.0)
    assert found["router/entropy/law"] == 0.6
    assert found["router/dropped/law"] == 0.01


def test_a_dense_model_shows_none(tmp_path: Path) -> None:
    assert not [name for name in shown(trial(), tmp_path) if name.startswith("router/")]
