"""A promotion's trainings are series in MLflow: few points of a long one, the same every time."""

import json
from pathlib import Path

from mixopt.core.trials import CurvePoint
from mixopt.io import training_log
from mixopt.io.trial_files import CURVE
from mixopt.pipelines.views.mlflow.training_series import POINTS, training_series
from mixopt.selection.band import Place
from mixopt.study.watched import Compared, Watched


def report(folder: Path, step: int, steps: int = 10, **values: object) -> None:
    known = {"step": step, "steps": steps, "tokens": 100 * step, "time": 50.0 + step}
    training_log.append(folder, known | values)


def test_names_tokens_and_times(tmp_path: Path) -> None:
    report(tmp_path / "seed", 1, loss=[3.0], learning_rate=0.1, router_churn=None)
    loads = [[0.75, 0.25], [0.5, 0.5]]
    report(tmp_path / "moe", 2, loss=[2.0], gradient_norm=0.5, dead_experts=0, loads=loads)
    point = CurvePoint(2, 200, {"bpb/law": 1.5}, 7.0)
    (tmp_path / "moe" / CURVE).write_text(json.dumps(vars_of(point)) + "\n")
    found = {
        name: (value, step, stamp) for name, value, step, stamp in training_series(tmp_path, 0)
    }
    assert found == {
        "seed/train/loss": (3.0, 100, 51_000),
        "seed/train/learning_rate": (0.1, 100, 51_000),
        "train/loss": (2.0, 200, 52_000),
        "train/grad_norm": (0.5, 200, 52_000),
        "train/dead_experts": (0, 200, 52_000),
        "router/peak_load/layer 0": (1.5, 200, 52_000),
        "router/peak_load/layer 1": (1.0, 200, 52_000),
        "router/load/layer 0/0": (0.75, 200, 52_000),
        "router/load/layer 0/1": (0.25, 200, 52_000),
        "router/load/layer 1/0": (0.5, 200, 52_000),
        "router/load/layer 1/1": (0.5, 200, 52_000),
        "curve/bpb/law": (1.5, 200, 7_000),
    }


def vars_of(point: CurvePoint) -> dict[str, object]:
    return {
        "step": point.step,
        "tokens": point.tokens,
        "metrics": dict(point.metrics),
        "seconds": point.seconds,
    }


def test_of_many_experts_only_the_largest_share_of_each_layer_is_shown(tmp_path: Path) -> None:
    report(tmp_path / "moe", 1, loads=[[1 / 65] * 65])
    assert {name for name, *_ in training_series(tmp_path, 0)} == {"router/peak_load/layer 0"}


def test_a_long_training_is_thinned_alike_whenever_it_is_looked_at(tmp_path: Path) -> None:
    steps, seen = 3 * POINTS, set()
    for step in range(1, steps + 1):
        metrics = {"bpb/law": 1.0} if step == 2 else {}
        report(tmp_path / "moe", step, steps, loss=[1.0], metrics=metrics)
        if step % 1000 == 0:
            seen |= set(training_series(tmp_path, 0))
    whole = set(training_series(tmp_path, 0))
    assert seen == whole
    assert POINTS <= len(whole) <= POINTS + 2
    assert 200 in {step for _, _, step, _ in whole}  # every evaluation is shown


def test_the_difference_to_the_baseline_stands_beside_its_band(tmp_path: Path) -> None:
    rows = (Compared(100, 1.0, -0.1), Compared(200, 2.5, 0.1, -0.3, 0.0, Place.WORSE))
    Watched(rows).write(tmp_path)
    assert list(training_series(tmp_path, 1000)) == [
        ("to_baseline/difference", -0.1, 100, 2000),
        ("to_baseline/difference", 0.1, 200, 3500),
        ("to_baseline/expected_low", -0.3, 200, 3500),
        ("to_baseline/expected_high", 0.0, 200, 3500),
    ]
