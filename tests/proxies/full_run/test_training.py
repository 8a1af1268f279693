"""The loop against the promotion of today; killed, and resumed by other numbers of processes."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from mixopt.core.errors import CheckpointError, TrainingError
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.core.trials import Failure, Outcome
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies.checkpoint import load_state, save_state
from mixopt.proxies.full_run.progress import FullProgress
from mixopt.proxies.full_run.training import train_full
from mixopt.proxies.full_run.world import World
from mixopt.proxies.job import Job
from mixopt.proxies.training import train
from tests.proxies.full_run.processes import together

STEPS, KILLED = 40, 20
RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=8,
    micro_batches=2,
    precision="fp32",
    evaluations=STEPS,  # so that every step is reported
    evaluation_tokens=64,
    curve_tokens=32,
)
MODEL = ModelConfig(width=16, layers=2, heads=2, expert_width=16, router="loss-free")


def _job(corpus: Corpus, steps: int = STEPS, **recipe: object) -> Job:
    mixture = Mixture.of({"d0": 9, "d1": 1})
    settings = dataclasses.replace(RECIPE, **recipe)  # type: ignore[arg-type]
    return Job(MODEL, settings, str(corpus.path), (mixture,), (1,), steps * 128)


class Kill(Exception):
    """What a test stops a training with."""


class Watch:
    """Keeps what is reported, and kills at the evaluation of one step."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.seen: list[FullProgress] = []
        self.kill_at = kill_at

    def __call__(self, progress: FullProgress) -> None:
        self.seen.append(progress)
        if progress.phase == "evaluation" and progress.step == self.kill_at:
            raise Kill

    @property
    def losses(self) -> dict[int, float]:
        return {p.step: p.loss[0] for p in self.seen if p.loss}


def _finished(outcome: Outcome) -> dict[str, float]:
    assert outcome.result is not None, outcome.message
    return dict(outcome.result.metrics)


def _whole(job: Job, folder: Path, world: World) -> dict[int, float]:
    watch = Watch()
    _finished(train_full(job, folder, world, watch, keep_weights=True))
    return watch.losses


def _killed(world: World, job: Job, folder: Path) -> None:
    with pytest.raises(Kill):
        train_full(job, folder, world, Watch(KILLED + 1))


def _resumed(world: World, job: Job, folder: Path, expected: dict[int, float]) -> None:
    watch = Watch()
    metrics = _finished(train_full(job, folder, world, watch, keep_weights=True))
    after = {step: loss for step, loss in expected.items() if step > KILLED}
    assert watch.losses.keys() == after.keys()
    for step, loss in after.items():
        assert watch.losses[step] == pytest.approx(loss, rel=1e-4), step
    assert all(p.metrics == metrics for p in watch.seen if p.metrics and p.step == STEPS)


@pytest.mark.parametrize("document_mask", [False, True])
def test_one_process_is_the_promotion_of_today(
    corpus: Corpus, tmp_path: Path, document_mask: bool
) -> None:
    model = dataclasses.replace(MODEL, document_mask=document_mask)
    job = dataclasses.replace(_job(corpus, evaluations=4), model=model)
    (proxy,) = train(job, tmp_path / "proxy", None, 1, device="cpu", keep_weights=True)
    full = train_full(job, tmp_path / "full", World(), keep_weights=True)
    assert full.result is not None
    assert proxy.result is not None
    assert _finished(full) == pytest.approx(dict(proxy.result.metrics), rel=1e-5)
    assert full.result.loads["d0"] == pytest.approx(proxy.result.loads["d0"], abs=1e-3)
    curve = [(point.step, point.tokens) for point in full.result.curve]
    assert curve == [(point.step, point.tokens) for point in proxy.result.curve]
    lines = (tmp_path / "full" / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [step for step, _ in curve]
    mine, theirs = (
        load_state(tmp_path / name / "model.safetensors")[0] for name in ("full", "proxy")
    )
    assert list(mine) == list(theirs)
    for name, tensor in mine.items():
        assert torch.allclose(tensor, theirs[name], atol=1e-4), name
    shapes = [(tmp_path / name / "model.json").read_bytes() for name in ("full", "proxy")]
    assert shapes[0] == shapes[1]
    ends = corpus.end_of_text_id if document_mask else None
    assert json.loads(shapes[0]).get("end_of_text") == ends


@pytest.fixture(scope="module")
def killed(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a run that one process ended, and of one that two were killed in; to be copied."""
    folder = tmp_path_factory.mktemp("killed")
    losses = _whole(_job(corpus), folder / "whole", World())
    (folder / "losses.json").write_text(json.dumps(losses))
    together(2, _killed, _job(corpus), folder / "two")
    return folder, folder / "two"


def _expected(folder: Path) -> dict[int, float]:
    losses = json.loads((folder / "losses.json").read_text())
    return {int(step): loss for step, loss in losses.items()}


def test_killed_in_two_processes_and_resumed_in_one_and_in_three(
    corpus: Corpus, killed: tuple[Path, Path], tmp_path: Path
) -> None:
    job, expected = _job(corpus), _expected(killed[0])
    assert sorted(expected) == list(range(1, STEPS + 1))
    for folder in ("two", "three"):
        shutil.copytree(killed[1], tmp_path / folder)
    _resumed(World(), job, tmp_path / "two", expected)
    together(3, _resumed, job, tmp_path / "three", expected)
    whole, _ = load_state(killed[0] / "whole" / "model.safetensors")
    for folder in ("two", "three"):
        state, _ = load_state(tmp_path / folder / "model.safetensors")
        assert state.keys() == whole.keys()
        for name, tensor in whole.items():
            assert torch.allclose(state[name], tensor, atol=1e-4), (folder, name)


def test_a_checkpoint_of_two_processes_that_is_cut_is_skipped_with_a_note(
    corpus: Corpus, killed: tuple[Path, Path], tmp_path: Path
) -> None:
    job, expected = _job(corpus), _expected(killed[0])
    shutil.copytree(killed[1], tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / f"step-{KILLED:09d}"
    piece = sorted(newest.glob("*.distcp"))[-1]
    piece.write_bytes(piece.read_bytes()[:-100])
    watch = Watch()
    train_full(job, tmp_path / "run", World(), watch)
    (noted,) = [p for p in watch.seen if p.note]
    assert f"step-{KILLED:09d}: is cut or broken" in noted.note
    assert min(watch.losses) == KILLED  # from the checkpoint before it
    assert watch.losses[STEPS] == pytest.approx(expected[STEPS], rel=1e-4)
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step-{step:09d}" for step in (STEPS - 1, STEPS)]


def test_what_a_killed_process_left_half_written_is_not_read(
    corpus: Corpus, tmp_path: Path
) -> None:
    job = _job(corpus)
    _killed(World(), job, tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / f"step-{KILLED:09d}").rename(folder / f".step-{KILLED:09d}.part")
    watch = Watch()
    train_full(job, tmp_path, World(), watch)
    assert min(watch.losses) == KILLED
    assert not list(folder.glob(".*"))


def test_checkpoints_are_written_between_evaluations_too(corpus: Corpus, tmp_path: Path) -> None:
    train_full(_job(corpus, 6, evaluations=1, checkpoint_seconds=0.0), tmp_path, World())
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-000000004", "step-000000006"]  # asked for in one step, read in the next


def test_a_checkpoint_of_other_work_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus, 2)
    train_full(job, tmp_path, World())
    other = dataclasses.replace(job, seeds=(7,))
    with pytest.raises(CheckpointError, match="belongs to other work"):
        train_full(other, tmp_path, World())


def test_a_run_that_ended_only_evaluates(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus, 2)
    first = _finished(train_full(job, tmp_path, World()))
    watch = Watch()
    assert _finished(train_full(job, tmp_path, World(), watch)) == pytest.approx(first)
    assert not watch.losses


def test_it_begins_from_the_state_of_an_upcycled_model(corpus: Corpus, tmp_path: Path) -> None:
    config = dataclasses.replace(MODEL, vocab_size=corpus.vocab_size)
    initial = tmp_path / "initial.safetensors"
    save_state(initial, Transformer(config, (9,)).proxy_state())
    job = dataclasses.replace(_job(corpus, 3, evaluations=1), initial=str(initial))
    (proxy,) = train(job, tmp_path / "proxy", None, 1, device="cpu")
    assert proxy.result is not None
    full = _finished(train_full(job, tmp_path / "full", World()))
    assert full == pytest.approx(dict(proxy.result.metrics), rel=1e-5)


def test_reports_hold_what_a_run_is_watched_by(corpus: Corpus, tmp_path: Path) -> None:
    watch = Watch()
    train_full(_job(corpus, 4), tmp_path, World(), watch)
    first = watch.seen[0]
    assert (first.phase, first.step, first.tokens) == ("training", 1, 128)
    assert first.learning_rate == pytest.approx(1e-2)
    assert first.gradient_norm > 0
    assert first.tokens_per_second > 0
    assert 0 < first.router_entropy <= 0.7  # two experts a token: ln 2 at most
    assert [sum(layer) for layer in first.loads] == pytest.approx([1.0, 1.0])
    assert first.dead_experts == sum(share == 0 for layer in first.loads for share in layer)
    metrics = [p.metrics for p in watch.seen if p.phase == "evaluation"]
    assert len(metrics) == 4
    assert metrics[0].keys() == {"bpb/d0", "bpb/d1", "loss/d0", "loss/d1"}


def test_a_run_that_diverges_says_so_and_keeps_no_checkpoint_of_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    job = _job(corpus, 12, learning_rate=1e30, gradient_clip=1e30)
    outcome = train_full(job, tmp_path, World())
    assert outcome.failure is Failure.DIVERGED
    step = int(outcome.message.removeprefix("loss or gradient was not finite at step "))
    kept = [int(p.name.removeprefix("step-")) for p in (tmp_path / "checkpoints").iterdir()]
    assert kept == list(range(1, step))


def test_several_mixtures_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    job = _job(corpus)
    two = dataclasses.replace(job, mixtures=job.mixtures * 2, seeds=(1, 2))
    with pytest.raises(TrainingError, match="a full run trains one model, the job has 2"):
        train_full(two, tmp_path, World())
