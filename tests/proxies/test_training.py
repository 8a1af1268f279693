import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mixopt.core.errors import CheckpointError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import CurvePoint, Failure, Outcome, TrialResult
from mixopt.corpus.shards import Corpus
from mixopt.io import token_losses
from mixopt.io.trial_files import CHECKPOINT, CURVE
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies.checkpoint import load_state, save_state
from mixopt.proxies.job import Job
from mixopt.proxies.schedules import rate_share
from mixopt.proxies.training import Progress, train
from tests.proxies.conftest import VOCABULARY

MODEL = ModelConfig(width=16, layers=2, heads=2, expert_width=16)
RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=8,
    learning_rate=1e-2,
    precision="fp32",
    evaluations=3,
    evaluation_tokens=512,
    curve_tokens=256,
)
MOSTLY_D0, MOSTLY_D1 = Mixture.of({"d0": 9, "d1": 1}), Mixture.of({"d0": 1, "d1": 9})


def _job(corpus: Corpus, *, seeds: tuple[int, ...] = (1,), **changes: Any) -> Job:
    recipe = dataclasses.replace(RECIPE, **changes.pop("recipe", {}))
    mixtures = changes.pop("mixtures", (MOSTLY_D0,) * len(seeds))
    values = {"tokens": 24 * 128, **changes}
    return Job(MODEL, recipe, str(corpus.path), mixtures, seeds, **values)


def _train(job: Job, folder: Path, **how: Any) -> list[Outcome]:
    return train(job, folder, how.pop("on_progress", None), 1, device="cpu", **how)


def _result(outcome: Outcome) -> TrialResult:
    assert outcome.failure is None, outcome.message
    assert outcome.result is not None
    return outcome.result


class Interruption(Exception):
    """What a test stops a training with."""


def _seen(point: CurvePoint) -> tuple[Any, ...]:
    """What a point has of everything but time."""
    training = {n: v for n, v in point.training.items() if n != "tokens_per_second"}
    return point.step, point.metrics, point.on_curve_text, training


def _stop_at(step: int) -> Any:
    def on_progress(progress: Progress) -> None:
        if progress.step >= step and progress.phase == "training":
            raise Interruption

    return on_progress


def test_a_training_learns_and_tells_what_it_cost(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus, tokens=60 * 128)
    result = _result(_train(job, tmp_path)[0])
    first, *_, last = result.curve
    assert [point.step for point in result.curve] == [20, 40, 60]
    assert last.metrics == result.metrics
    assert set(result.metrics) == {"bpb/d0", "loss/d0", "bpb/d1", "loss/d1"}
    assert last.metrics["bpb/d0"] < first.metrics["bpb/d0"]
    assert result.cost.tokens == 60 * 128
    assert result.cost.device_seconds > 0
    per_token = dataclasses.replace(MODEL, vocab_size=corpus.vocab_size).flops_per_token(16)
    assert result.cost.flops == 3 * per_token * 60 * 128
    assert result.environment["precision"] == "fp32"
    assert sum(result.loads["d0"]) == pytest.approx(1)


def test_a_point_tells_of_the_training_since_the_one_before(corpus: Corpus, tmp_path: Path) -> None:
    rates, speeds = (1e-2, 5e-3), []
    job = _job(corpus, seeds=(1, 2), mixtures=(MOSTLY_D0, MOSTLY_D1), learning_rates=rates)
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluations=24))
    every = [_result(outcome).curve for outcome in _train(job, tmp_path / "every")]
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluations=3))
    found = [_result(outcome).curve for outcome in _train(job, tmp_path / "three")]
    for k, peak in enumerate(rates):
        assert [point.step for point in found[k]] == [8, 16, 24]
        for n, point in enumerate(found[k]):
            steps = every[k][8 * n : 8 * n + 8]  # a point for every step
            for name in ("loss", "grad_norm"):
                one_by_one = sum(step.training[name] for step in steps) / 8
                assert point.training[name] == pytest.approx(one_by_one, rel=1e-12)
            share = rate_share(point.step - 1, 24, job.recipe)
            assert point.training["learning_rate"] == pytest.approx(peak * share)
            speeds.append(point.training["tokens_per_second"])
    assert found[0][0].training["loss"] != found[1][0].training["loss"]
    assert abs(every[0][0].training["loss"] - math.log(VOCABULARY)) < 0.5  # nothing is learned yet
    assert all(0 < 8 * 128 / speed < found[0][-1].seconds for speed in speeds)


def test_a_checkpoint_of_before_training_numbers_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus)
    with pytest.raises(Interruption):
        _train(job, tmp_path, on_progress=_stop_at(16))
    tensors, meta = load_state(tmp_path / CHECKPOINT)
    del meta["means"]
    for point in meta["curves"][0]:
        del point["training"]
    save_state(tmp_path / CHECKPOINT, tensors, meta)
    resumed = _result(_train(job, tmp_path)[0])
    assert resumed.metrics == _result(_train(job, tmp_path / "whole")[0]).metrics
    assert [bool(point.training) for point in resumed.curve] == [False, True, True]


def test_the_points_of_a_curve_are_evaluated_on_the_same_text(
    corpus: Corpus, tmp_path: Path
) -> None:
    result = _result(_train(_job(corpus), tmp_path)[0])
    short = _result(_train(_job(corpus, recipe={"evaluation_tokens": 256}), tmp_path / "s")[0])
    assert [p.comparable for p in result.curve] == [p.comparable for p in short.curve]
    assert result.curve[-1].comparable == short.metrics
    assert result.curve[-1].comparable != result.metrics  # which are of twice the text
    alone = _result(_train(_job(corpus, recipe={"evaluations": 1}), tmp_path / "alone")[0])
    assert alone.curve[-1].on_curve_text == {}  # nothing to compare with


def test_more_of_a_domain_makes_the_model_better_at_it(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus, seeds=(1, 1), mixtures=(MOSTLY_D0, MOSTLY_D1), tokens=100 * 128)
    more, less = map(_result, _train(job, tmp_path))
    assert more.metrics["bpb/d0"] < less.metrics["bpb/d0"] - 0.1
    assert less.metrics["bpb/d1"] < more.metrics["bpb/d1"] - 0.1


@pytest.mark.parametrize("checkpoint_seconds", [60.0, 0.0])  # at evaluations, at every step
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(
    corpus: Corpus, tmp_path: Path, checkpoint_seconds: float
) -> None:
    job = _job(corpus, seeds=(1, 2), recipe={"checkpoint_seconds": checkpoint_seconds})
    whole = _train(job, tmp_path / "whole", keep_weights=True)
    broken = tmp_path / "broken"
    for step in (9, 17, 24):  # before the first, between, and at the last evaluation
        with pytest.raises(Interruption):
            _train(job, broken, on_progress=_stop_at(step), keep_weights=True)
    resumed = _train(job, broken, keep_weights=True)
    for k, (one, other) in enumerate(zip(whole, resumed, strict=True)):
        assert _result(one).metrics == _result(other).metrics
        assert list(map(_seen, _result(one).curve)) == list(map(_seen, _result(other).curve))
        first, _ = load_state(tmp_path / "whole" / f"model-{k}.safetensors")
        second, _ = load_state(broken / f"model-{k}.safetensors")
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    lines = [json.loads(line) for line in (broken / CURVE).read_text().splitlines()]
    assert sorted((line["step"], line["proxy"]) for line in lines) == [
        (step, proxy) for step in (8, 16, 24) for proxy in (0, 1)
    ]


def test_losses_of_tokens_are_kept_only_where_asked_for_and_alter_nothing(
    corpus: Corpus, tmp_path: Path
) -> None:
    job = _job(corpus, seeds=(1, 2))
    without = _train(job, tmp_path / "without")
    asked = _train(job, tmp_path / "asked", keep_tokens=("d1",))
    assert not list((tmp_path / "without").glob("tokens*"))
    for k, (one, other) in enumerate(zip(without, asked, strict=True)):
        assert _result(one).metrics == _result(other).metrics
        kept = token_losses.read(tmp_path / "asked" / f"tokens-{k}.npz")
        assert list(kept) == ["loss/d1"]
        assert _result(other).metrics["loss/d1"] == pytest.approx(kept["loss/d1"].mean(), rel=1e-6)


@pytest.mark.parametrize("phase", ["training", "evaluation"])
def test_losses_of_tokens_are_the_same_after_an_interruption_at_the_end(
    corpus: Corpus, tmp_path: Path, phase: str
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == progress.steps and progress.phase == phase:
            raise Interruption

    job = _job(corpus)
    _train(job, tmp_path / "whole", keep_tokens=("d0", "d1"))
    with pytest.raises(Interruption):
        _train(job, tmp_path / "broken", on_progress=stop, keep_tokens=("d0", "d1"))
    assert not (tmp_path / "broken" / token_losses.TOKENS).exists()
    _train(job, tmp_path / "broken", keep_tokens=("d0", "d1"))
    _train(job, tmp_path / "broken", keep_tokens=("d0", "d1"))  # its marker was lost: once more
    whole, broken = (
        token_losses.read(tmp_path / name / token_losses.TOKENS) for name in ("whole", "broken")
    )
    assert list(whole) == list(broken) == ["loss/d0", "loss/d1"]
    assert all((whole[name] == broken[name]).all() for name in whole)


def test_a_diverged_proxy_keeps_no_losses_of_tokens(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus, seeds=(1, 1), learning_rates=(1e-2, 1e30))
    fine, wild = _train(job, tmp_path, keep_tokens=("d0",))
    assert (fine.failure, wild.failure) == (None, Failure.DIVERGED)
    assert [path.name for path in tmp_path.glob("tokens*")] == ["tokens-0.npz"]


def test_resuming_trains_nothing_twice(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus)
    with pytest.raises(Interruption):
        _train(job, tmp_path, on_progress=_stop_at(9))
    steps: list[int] = []
    _train(job, tmp_path, on_progress=lambda progress: steps.append(progress.step))
    assert min(steps) > 8
    after: list[int] = []
    _train(job, tmp_path, on_progress=lambda progress: after.append(progress.step))
    assert after == []


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": (2,)},
        {"mixtures": (MOSTLY_D1,)},
        {"tokens": 25 * 128},
        {"identity": "other"},
        {"recipe": {"learning_rate": 2e-2}},
        {"token_limits": {"d0": 1000}},
    ],
)
def test_a_checkpoint_of_other_work_is_refused(
    corpus: Corpus, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(Interruption):
        _train(_job(corpus), tmp_path, on_progress=_stop_at(9))
    with pytest.raises(CheckpointError, match="other work"):
        _train(_job(corpus, **change), tmp_path)


def test_a_smaller_micro_batch_may_resume_the_same_work(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus)
    with pytest.raises(Interruption):
        _train(job, tmp_path / "resumed", on_progress=_stop_at(9))
    half = _job(corpus, recipe={"micro_batches": 2})
    resumed = _result(_train(half, tmp_path / "resumed")[0])
    whole = _result(_train(job, tmp_path / "whole")[0])
    assert resumed.metrics["bpb/d0"] == pytest.approx(whole.metrics["bpb/d0"], abs=0.02)


def test_a_half_written_checkpoint_is_ignored(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / f".{CHECKPOINT}.123.part").write_bytes(b"half")
    assert _result(_train(_job(corpus), tmp_path)[0]).curve


@pytest.mark.parametrize("how", ["cut", "a flipped bit", "no checkpoint"])
def test_after_a_broken_checkpoint_training_begins_anew_and_says_so(
    corpus: Corpus, tmp_path: Path, how: str
) -> None:
    job = _job(corpus)
    with pytest.raises(Interruption):
        _train(job, tmp_path / "broken", on_progress=_stop_at(9))
    path = tmp_path / "broken" / CHECKPOINT
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes({"cut": data[:-100], "a flipped bit": data}.get(how, b"not a checkpoint"))
    notes: list[str] = []
    again = _train(job, tmp_path / "broken", on_progress=lambda p: notes.append(p.note))
    assert notes[0].startswith(f"{path}: ")
    assert notes[0].endswith("training begins anew")
    assert not any(notes[1:])
    assert _result(again[0]).metrics == _result(_train(job, tmp_path / "whole")[0]).metrics


@pytest.mark.parametrize("place", [0, 1])
def test_a_proxy_that_diverges_touches_no_other(corpus: Corpus, tmp_path: Path, place: int) -> None:
    rates = [1e-2, 1e-2]
    calm = _job(corpus, seeds=(1, 1), learning_rates=tuple(rates))
    rates[place] = 1e30
    wild = _job(corpus, seeds=(1, 1), learning_rates=tuple(rates))
    expected = _result(_train(calm, tmp_path / "calm")[1 - place])
    outcomes = _train(wild, tmp_path / "wild")
    diverged, survivor = outcomes[place], outcomes[1 - place]
    assert _result(survivor).metrics == expected.metrics
    assert diverged.result is None
    assert diverged.failure is Failure.DIVERGED
    assert "step" in diverged.message


def test_a_training_whose_proxies_all_diverged_ends_early(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus, learning_rates=(1e30,), tokens=10_000 * 128)
    (outcome,) = _train(job, tmp_path)
    assert outcome.failure is Failure.DIVERGED


def test_a_cohort_learns_what_its_proxies_learn_alone(corpus: Corpus, tmp_path: Path) -> None:
    mixtures, seeds, rates = (MOSTLY_D0, MOSTLY_D1), (3, 4), (1e-2, 3e-3)
    job = _job(corpus, seeds=seeds, mixtures=mixtures, learning_rates=rates)
    together = _train(job, tmp_path / "together")
    for k in range(2):
        alone = _job(
            corpus,
            seeds=seeds[k : k + 1],
            mixtures=mixtures[k : k + 1],
            learning_rates=rates[k : k + 1],
        )
        one = _result(_train(alone, tmp_path / str(k))[0])
        for name, value in one.metrics.items():
            assert _result(together[k]).metrics[name] == pytest.approx(value, abs=2e-3), name


def test_a_training_starts_from_the_state_it_is_given(corpus: Corpus, tmp_path: Path) -> None:
    config = dataclasses.replace(MODEL, vocab_size=corpus.vocab_size)
    state = Transformer(config, (9,)).proxy_state()
    save_state(tmp_path / "start.safetensors", state)
    job = _job(
        corpus,
        tokens=128,
        initial=str(tmp_path / "start.safetensors"),
        recipe={"learning_rate": 1e-30, "weight_decay": 0.0},
    )
    _train(job, tmp_path / "run", keep_weights=True)
    kept, _ = load_state(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.items())
    assert json.loads((tmp_path / "run" / "model.json").read_text())["vocab_size"] == 64


def test_a_state_of_another_shape_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    config = dataclasses.replace(MODEL, width=32, vocab_size=corpus.vocab_size)
    save_state(tmp_path / "start.safetensors", Transformer(config).proxy_state())
    job = _job(corpus, initial=str(tmp_path / "start.safetensors"))
    with pytest.raises(TrainingError, match="does not fit"):
        _train(job, tmp_path / "run")


def test_training_leaves_the_callers_random_stream_alone(corpus: Corpus, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _train(_job(corpus, tokens=256), tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_a_job_has_as_many_seeds_as_mixtures(corpus: Corpus) -> None:
    job = _job(corpus, seeds=(1, 2))
    with pytest.raises(TrainingError, match="seeds"):
        dataclasses.replace(job, seeds=(1,))
