"""A pruned proxy leaves its cohort: the others go on as if nothing happened, and cost less."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mixopt.core.errors import CheckpointError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import Failure, Limits, Outcome, TrialResult
from mixopt.corpus.shards import Corpus
from mixopt.io import token_losses
from mixopt.io.trial_files import CHECKPOINT, CURVE
from mixopt.models.config import ModelConfig
from mixopt.proxies.checkpoint import load_state
from mixopt.proxies.job import Job
from mixopt.proxies.training import Progress, train

MODEL = ModelConfig(width=16, layers=2, heads=2, expert_width=16)
RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=8,
    learning_rate=1e-2,
    precision="fp32",
    evaluations=4,
    evaluation_tokens=512,
    curve_tokens=256,
)
MIXTURES = tuple(Mixture.of({"d0": w, "d1": 10 - w}) for w in (9, 5, 1))
STEPS = 24
FIRST, SECOND, THIRD = 6, 12, 18  # evaluations before the end


def beyond(*steps: int) -> Limits:
    """Limits that any trial is beyond at the first of `steps`."""
    return Limits({"bpb/d0": 1.0}, tuple((step, 0.0) for step in steps), "it cannot win")


NEVER = Limits({"bpb/d0": 1.0}, ((FIRST, 1e9),), "it cannot win")


def job_of(corpus: Corpus, *limits: Limits | None, **changes: Any) -> Job:
    recipe = dataclasses.replace(RECIPE, **changes.pop("recipe", {}))
    values = {"limits": limits or None, **changes}
    model = values.pop("model", MODEL)
    return Job(model, recipe, str(corpus.path), MIXTURES, (1, 2, 3), STEPS * 128, **values)


def run(job: Job, folder: Path, **how: Any) -> list[Outcome]:
    return train(job, folder, how.pop("on_progress", None), 1, device="cpu", **how)


def result(outcome: Outcome) -> TrialResult:
    assert outcome.result is not None, outcome.message
    return outcome.result


def rows_kept(folder: Path) -> int:
    """Proxies in a checkpoint: in every parameter and moment of it."""
    tensors, _ = load_state(folder / CHECKPOINT)
    sizes = {len(t) for name, t in tensors.items() if name != "random" and t.dim() > 0}
    assert len(sizes) == 1
    return sizes.pop()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("router", ["softmax", "loss-free", "stable", "remoe"])
def test_the_others_go_on_as_if_nothing_happened(
    corpus: Corpus, tmp_path: Path, optimizer: str, router: str
) -> None:
    if optimizer == "muon" and router != "softmax":
        pytest.skip("routers are not moved by Muon")
    same: dict[str, Any] = {
        "recipe": {"optimizer": optimizer},
        "model": dataclasses.replace(MODEL, router=router),
    }
    whole = run(job_of(corpus, **same), tmp_path / "whole")
    ended = run(job_of(corpus, None, beyond(SECOND), NEVER, **same), tmp_path / "pruned")
    assert [outcome.pruned for outcome in ended] == [False, True, False]
    assert rows_kept(tmp_path / "pruned") == 2
    for k in (0, 2):
        points = zip(result(whole[k]).curve, result(ended[k]).curve, strict=True)
        for before, after in points:
            assert after.step == before.step
            assert after.metrics == pytest.approx(dict(before.metrics), abs=1e-3)
        assert result(ended[k]).metrics == result(ended[k]).curve[-1].metrics
        assert result(ended[k]).loads["d0"] == pytest.approx(result(whole[k]).loads["d0"], abs=0.02)


def test_a_pruned_proxy_tells_its_curve_what_it_cost_and_why(
    corpus: Corpus, tmp_path: Path
) -> None:
    fine, stopped, _ = run(job_of(corpus, None, beyond(SECOND, THIRD), None), tmp_path)
    found = result(stopped)
    assert stopped.failure is None
    assert "step 12" in stopped.message
    assert "it cannot win" in stopped.message
    assert [point.step for point in found.curve] == [FIRST, SECOND]
    assert found.metrics == found.curve[-1].metrics
    assert found.cost.tokens == SECOND * 128
    assert found.cost.flops == pytest.approx(result(fine).cost.flops * SECOND / STEPS)
    assert 0 < found.cost.device_seconds < result(fine).cost.device_seconds
    lines = [json.loads(line) for line in (tmp_path / CURVE).read_text().splitlines()]
    assert [line["step"] for line in lines if line["proxy"] == 1] == [FIRST, SECOND]
    assert Outcome.from_json(json.loads(json.dumps(stopped.to_json()))) == stopped


def test_the_time_of_a_cohort_is_what_its_proxies_are_charged(
    corpus: Corpus, tmp_path: Path
) -> None:
    ended = run(job_of(corpus, beyond(FIRST), beyond(THIRD), None), tmp_path)
    charged = [result(outcome).cost.device_seconds for outcome in ended]
    assert charged[0] < charged[1] < charged[2]
    last = result(ended[2]).curve[-1].seconds
    assert last <= sum(charged) < last + 30


class Interruption(Exception):
    """What a test stops a training with."""


@pytest.mark.parametrize("phase", ["training", "evaluation"])
def test_interrupted_and_resumed_it_prunes_the_same_bit_for_bit(
    corpus: Corpus, tmp_path: Path, phase: str
) -> None:
    job = job_of(corpus, beyond(SECOND), None, beyond(FIRST))
    whole = run(job, tmp_path / "whole")
    broken = tmp_path / "broken"
    reached: list[int] = []

    def stop(progress: Progress) -> None:
        reached.append(progress.step)
        if progress.phase == phase and progress.step not in stopped_at:
            stopped_at.add(progress.step)
            raise Interruption

    stopped_at: set[int] = set()
    for _ in (FIRST, SECOND, THIRD, STEPS):
        with contextlib.suppress(Interruption):
            run(job, broken, on_progress=stop)
    # of training a busy machine reports other steps, and fewer: reports are spaced by seconds
    assert stopped_at == {FIRST, SECOND, THIRD, STEPS} or (phase == "training" and stopped_at)
    resumed = run(job, broken, on_progress=lambda progress: reached.append(progress.step))
    for one, other in zip(whole, resumed, strict=True):
        assert (one.pruned, one.message) == (other.pruned, other.message)
        assert result(one).metrics == result(other).metrics
        assert [(p.step, p.metrics) for p in result(one).curve] == [
            (p.step, p.metrics) for p in result(other).curve
        ]
        assert result(one).cost.tokens == result(other).cost.tokens
    assert rows_kept(broken) == rows_kept(tmp_path / "whole") == 1
    tensors, _ = load_state(tmp_path / "whole" / CHECKPOINT)
    again, _ = load_state(broken / CHECKPOINT)
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())


def test_a_cohort_whose_members_are_all_pruned_ends(corpus: Corpus, tmp_path: Path) -> None:
    job = job_of(corpus, beyond(FIRST), beyond(SECOND), beyond(SECOND))
    seen: list[int] = []
    ended = run(job, tmp_path, on_progress=lambda progress: seen.append(progress.step))
    assert all(outcome.pruned for outcome in ended)
    assert max(seen) == SECOND
    again = run(job, tmp_path, on_progress=lambda progress: seen.append(progress.step))
    assert max(seen) == SECOND  # nothing is trained once more
    assert [o.message for o in again] == [o.message for o in ended]


def test_pruned_and_diverged_proxies_leave_the_rest_alone(corpus: Corpus, tmp_path: Path) -> None:
    rates = (1e-2, 1e-2, 1e30)
    job = job_of(corpus, beyond(SECOND), None, beyond(FIRST), learning_rates=rates)
    stopped, fine, wild = run(job, tmp_path / "run", keep_tokens=("d0",))
    assert (wild.failure, wild.pruned) == (Failure.DIVERGED, False)
    assert stopped.pruned
    alone = run(job_of(corpus), tmp_path / "whole")[1]
    assert result(fine).metrics == pytest.approx(dict(result(alone).metrics), abs=1e-3)
    assert [path.name for path in (tmp_path / "run").glob("tokens*")] == ["tokens-1.npz"]
    kept = token_losses.read(tmp_path / "run" / "tokens-1.npz")["loss/d0"]
    assert result(fine).metrics["loss/d0"] == pytest.approx(kept.mean(), rel=1e-6)


def test_limits_belong_to_the_work_and_none_change_nothing(corpus: Corpus, tmp_path: Path) -> None:
    plain, limited = job_of(corpus), job_of(corpus, None, beyond(FIRST), None)
    assert limited.training_hash("") != plain.training_hash("")
    run(limited, tmp_path)
    with pytest.raises(CheckpointError, match="other work"):
        run(plain, tmp_path)
    with pytest.raises(TrainingError, match="limits of 2"):
        job_of(corpus, None, None)


def test_trainings_with_limits_and_without_may_be_one(corpus: Corpus) -> None:
    with_, without = job_of(corpus, None, NEVER, None), job_of(corpus)
    both = Job.join([with_, without])
    assert both.limits == (None, NEVER, None, None, None, None)
    assert Job.join([without, without]).limits is None
