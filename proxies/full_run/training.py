"""The step loop of a full run: one model in as many processes as there are, resumable in others.

    rows of this process ──► micro-batches ──► gradients summed over processes ──► AdamW on shards

The batch is the same however many processes share it, its losses are weighted by tokens, and
routers count over all: each step is that of one process within rounding. Every process runs this
loop with the same job and folder, and decides the same: what decides is summed over processes.

Shapes: B sequences of this process, T tokens predicted per sequence.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from mixopt.core.errors import TrainingError
from mixopt.core.phases import Part, Phase, phase_at, trained_steps
from mixopt.core.trials import Cost, CurvePoint, Failure, Outcome, TrialResult
from mixopt.corpus.batches import Batches
from mixopt.corpus.prefetch import prefetched
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.io.files import write_bytes, write_json
from mixopt.io.markers import SHAPE, WEIGHTS
from mixopt.io.trial_files import CURVE
from mixopt.models.single import SingleTransformer
from mixopt.models.team import at_work
from mixopt.proxies.checkpoint import open_state, write_state
from mixopt.proxies.evaluation import Evaluation, evaluate, validation_windows
from mixopt.proxies.full_run.checkpoints import Checkpoints
from mixopt.proxies.full_run.churn import Churn
from mixopt.proxies.full_run.contract import ModelKind
from mixopt.proxies.full_run.evaluation import SplitModel
from mixopt.proxies.full_run.optimizer import FullOptimizer
from mixopt.proxies.full_run.progress import FullProgress, Tally
from mixopt.proxies.full_run.room import check_room
from mixopt.proxies.full_run.sharding import outline_of, own_rows, shard, whole_weights
from mixopt.proxies.full_run.step import FullStep
from mixopt.proxies.full_run.world import World, split_rows
from mixopt.proxies.job import Job
from mixopt.proxies.memory import keep_freed_memory
from mixopt.proxies.precision import DTYPES, choose_precision
from mixopt.proxies.schedules import rate_share
from mixopt.proxies.step_log import StepMeans
from mixopt.proxies.training import PROGRESS_SECONDS, environment

OnProgress = Callable[[FullProgress], None]

REPORTS = 10_000  # in the first REPORTS seconds one a second, then ever fewer: logs stay small
SAVING = 0.05  # share of the time that checkpoints between evaluations may take
CHURN_TOKENS = 4096  # whose routing is compared from one evaluation to the next


def train_full(
    job: Job,
    folder: Path,
    world: World,
    on_progress: OnProgress | None = None,
    *,
    keep_weights: bool = False,
    kind: ModelKind | None = None,
    phases: Sequence[Phase] = (),
) -> Outcome:
    """Train the job's one model in all processes of `world`; its outcome, in each of them.

    Called again on the same folder it goes on from the newest whole checkpoint, in as many
    processes as there are now: within rounding as if it had never stopped. A checkpoint that is cut
    is skipped with a note. The folder holds `checkpoints/`, `curve.jsonl`, and with `keep_weights`
    the final `model.safetensors` and `model.json`, all on a disk that every process sees.

    Args:
        job: what to train: one mixture, one seed.
        folder: where its state lives; created if absent.
        world: the processes; its device is where this one computes.
        on_progress: called in every process, about once a second (after hours less often) and at
            evaluations; what it raises ends this process' training (resumable), and leaves the
            others waiting for it.
        keep_weights: whether the final weights are saved.
        kind: of model; None: `ours()`.
        phases: which parameters move when; all of them without any. They are no part of the job:
            name them in its identity.

    Raises:
        CheckpointError: the folder holds a checkpoint of other work.
        CorpusError: the corpus lacks a domain, or a domain is too short.
        TrainingError: the job has several mixtures, a micro-batch fewer sequences than there are
            processes, the initial state does not fit the model, or the model not into memory.
    """
    if job.cohort != 1:
        raise TrainingError(f"a full run trains one model, the job has {job.cohort}", where="job")
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        keep_freed_memory()
        stack.enter_context(at_work(world.device))
        run = _FullRun(job, Path(folder), world, on_progress, kind or ours(), tuple(phases))
        run.build()
        return run.finish(stack, keep_weights)


def ours(recompute: bool = False) -> ModelKind:
    """Our transformer.

    Args:
        recompute: whether its activations are computed again for gradients, for less memory.
    """

    def save(model: SingleTransformer, folder: Path, weights: Iterator[tuple[str, Tensor]]) -> None:
        write_json(folder / SHAPE, model.config.to_json())
        write_state(folder / WEIGHTS, outline_of(model), weights)

    return ModelKind(partial(SingleTransformer, recompute=recompute), save, recompute)


class _FullRun:
    """The state of one run in one of its processes."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        world: World,
        on_progress: OnProgress | None,
        kind: ModelKind,
        phases: tuple[Phase, ...],
    ) -> None:
        self.kind, self.phases = kind, phases
        self.job, self.recipe, self.folder, self.world = job, job.recipe, folder, world
        self.on_progress = on_progress
        self.corpus = Corpus.open(job.corpus)
        self.tasks = {name: Questions.read(Path(path)) for name, path in job.tasks.items()}
        self.config = job.model.of_text(self.corpus.vocab_size, self.corpus.end_of_text_id)
        self.rows = split_rows(self.recipe.batch_sequences, self.recipe.micro_batches, world)
        self.batches = Batches(
            self.corpus,
            job.mixtures[0],
            job.seeds[0],
            self.recipe.batch_sequences,
            self.recipe.sequence_length,
            job.token_limits,
        )
        identity = job.training_hash(self.corpus.hash)
        self.checkpoints = Checkpoints(folder, world, identity)
        self.step = 0
        self.curve: list[CurvePoint] = []
        self.last: Evaluation | None = None
        self.diverged = ""
        self.tally, self.means = Tally(), StepMeans()
        self.unread: Tensor | None = None  # what the last step returned, still on the device
        self.due = False  # the first process asks for a checkpoint
        self.pause = self.recipe.checkpoint_seconds  # from one checkpoint to the next
        self.resumed = 0  # tokens up to the checkpoint
        self.seconds_before = 0.0
        self.started = self.written = self.reported = time.perf_counter()
        self.reported_step = 0
        self.speed = 0.0

    @property
    def seconds(self) -> float:
        """Spent on this run, earlier attempts included."""
        return self.seconds_before + time.perf_counter() - self.started

    @property
    def rate(self) -> float:
        """Peak learning rate."""
        return (self.job.learning_rates or (self.recipe.learning_rate,))[0]

    def build(self) -> None:
        """The model and optimizer as they begin, or as the newest whole checkpoint has them."""
        about = self.checkpoints.newest()
        room = check_room(self.config, self.recipe, self.world, recompute=self.kind.recompute)
        self.precision = (about or {}).get("precision") or self._precision()
        dtype = DTYPES[self.precision]
        initial = self.job.initial if about is None else None
        self.model = self.kind.build(
            *(self.config, self.job.seeds[0], dtype, self.world.device),
            cut=own_rows(self.world),
            draw=self.world.size == 1 or (about is None and initial is None),
        )
        if initial is not None:
            self.model.load_proxy_state(open_state(Path(initial)))
        shard(self.model, self.world)
        total = None if self.world.size == 1 else self.world.sum
        self.weights = dict(self.model.named_weights())  # their pieces, whatever is gathered later
        self.optimizer = FullOptimizer(
            self.weights, self.model.decays, self.recipe, self.rate, total
        )
        if about is not None:
            self._resume(about)
        sizes = [len(rows) for rows in self.rows]
        micro_batch = self.recipe.batch_sequences // self.recipe.micro_batches
        self.churn = Churn(self._sample()) if self.model.routers() else None
        self.move = FullStep(self.model, self.optimizer, sizes, micro_batch, self.world)
        if self.world.first:
            lines = "".join(map(_curve_line, self.curve))
            write_bytes(self.folder / CURVE, lines.encode())
        for note in filter(None, [*self.checkpoints.notes, room]):
            self._tell("training", note=note)

    def finish(self, stack: ExitStack, keep_weights: bool) -> Outcome:
        """Train to the end; the outcome."""
        rows = np.concatenate([np.arange(part.start, part.stop) for part in self.rows])
        steps = range(self.step, self.job.steps)
        ahead = stack.enter_context(prefetched(lambda step: self.batches.at(step, rows), steps))
        self.model.train()
        self.reported, self.reported_step = time.perf_counter(), self.step
        while self.step < self.job.steps and not self.diverged:
            self._train_step(torch.from_numpy(next(ahead)))
            ends = self.step in self.job.evaluation_steps or self.step == self.job.steps
            if ends:
                self._read()
                self._tell("training")
                self._evaluate()
            if (ends or self.due) and not self.diverged:
                self._checkpoint()
            elif time.perf_counter() - self.reported >= self._pause():
                self._tell("training")
        if self.diverged:
            return Outcome(None, Failure.DIVERGED, self.diverged)
        if keep_weights:
            self._keep_weights()
        if self.last is None:  # it ended before, its marker was lost
            self.last = self._scores(final=True)
        return self._outcome(self.last)

    def _train_step(self, ids_BT: Tensor) -> None:
        torch.manual_seed(self._stream())
        share = rate_share(self.step, self.job.steps, self.recipe)
        waited = time.perf_counter() - self.written >= self.pause
        found = self.move(
            ids_BT.to(self.world.device),
            progress=self.step / self.job.steps,
            rate_share=share,
            note=float(self.world.first and waited),
            frozen=self._frozen(),
        )
        self.tally.add_counts(self.move.counts())
        self._read()  # of the step before, which a GPU has ended: nothing waits
        self.unread = found
        self.step += 1

    def _read(self) -> None:
        """Look at what a step returned: the same in every process."""
        if self.unread is None:
            return
        loss, entropy, norm, notes = self.unread.tolist()
        self.unread = None
        self.tally.add(loss, entropy, norm)
        self.means.add(np.array([[loss], [norm]]))
        self.due = notes > 0
        if not math.isfinite(loss):
            self.diverged = f"loss or gradient was not finite at step {self.step}"

    def _pause(self) -> float:
        """Seconds between two reports."""
        return max(PROGRESS_SECONDS, self.seconds / REPORTS)

    def _sample(self) -> Tensor:
        """Text of all validation domains, the same in every process and attempt."""
        domains, length = self.corpus.validation_domains, self.recipe.sequence_length
        each = min(CHURN_TOKENS // len(domains), self.recipe.curve_tokens)
        found = [validation_windows(self.corpus.validation(d), each, length, d) for d in domains]
        windows = np.concatenate(found)
        most = max(1, CHURN_TOKENS // length)
        return torch.from_numpy(windows[:: -(-len(windows) // most)])

    def _stream(self) -> int:
        """Names the random numbers of this process' step: no state of them needs to be kept."""
        key = [self.job.seeds[0], self.step, self.world.rank]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _scores(self, final: bool) -> Evaluation:
        domains = self.corpus.validation_domains
        tokens = self.job.evaluated_tokens((*domains, *self.tasks), final=final)
        model = SplitModel(self.model, self.world)
        length = self.recipe.sequence_length
        (found,) = evaluate(model, self.corpus, domains, tokens, length, (), self.tasks)
        return found

    def _evaluate(self) -> None:
        if self.diverged:
            return
        ends = self.step == self.job.steps
        self.last = self._scores(final=ends)
        again = ends and len(self.job.evaluation_steps) > 1
        on_curve_text = self._scores(final=False).metrics if again else {}
        if not all(map(math.isfinite, self.last.metrics.values())):
            self.diverged = f"evaluation was not finite at step {self.step}"
            return
        tokens = self.step * self.recipe.tokens_per_step
        means, self.means = self.means, StepMeans()
        (training,) = means.of_point(self.recipe.tokens_per_step, [self._last_rate()])
        point = CurvePoint(
            self.step, tokens, self.last.metrics, self.seconds, on_curve_text, training
        )
        self.curve.append(point)
        if self.world.first:
            with (self.folder / CURVE).open("a") as file:
                file.write(_curve_line(point))
        churn = self.churn and self.churn.measure(SplitModel(self.model, self.world))
        self._tell("evaluation", metrics=self.last.metrics, router_churn=churn)

    def _tell(self, phase: str, note: str = "", **of_evaluation: Any) -> None:
        now, steps = time.perf_counter(), self.step - self.reported_step
        if steps:
            self.speed = steps * self.recipe.tokens_per_step / max(now - self.reported, 1e-9)
            self.means.seconds += now - self.reported
        self.reported, self.reported_step = now, self.step
        seen = self.tally.report()
        if self.on_progress is None:
            return
        self.on_progress(
            FullProgress(
                step=self.step,
                steps=self.job.steps,
                tokens=self.step * self.recipe.tokens_per_step,
                tokens_per_second=self.speed,
                phase=phase,
                note=note,
                resumed=self.resumed,
                learning_rate=self._last_rate(),
                **of_evaluation,
                **seen,
            )
        )

    def _last_rate(self) -> float:
        """Learning rate of the last step."""
        return self.rate * rate_share(max(0, self.step - 1), self.job.steps, self.recipe)

    def _checkpoint(self) -> None:
        self._read()  # the last step too: it may have diverged, or ask for this checkpoint again
        self.due, began = False, time.perf_counter()
        if math.isinf(self.recipe.checkpoint_seconds) or self.diverged:
            return
        about = {
            "tokens": self.step * self.recipe.tokens_per_step,
            "precision": self.precision,
            "seconds": self.seconds,
            "curve": [dataclasses.asdict(point) for point in self.curve],
            "means": self.means.to_json(),
        }
        self.checkpoints.save(self.step, self._tensors(), about)
        self.written = time.perf_counter()
        if self.recipe.checkpoint_seconds > 0:  # 0 asks for every step
            self.pause = max(self.recipe.checkpoint_seconds, (self.written - began) / SAVING)

    def _tensors(self) -> dict[str, Tensor]:
        """Of model, routers and optimizer; weights and moments lie where they are sharded to."""
        weights = {f"model.{n}": w.detach() for n, w in self.weights.items()}
        buffers = {f"model.{n}": b for n, b in self.model.buffers_to_keep().items()}
        moments = {f"optimizer.{n}": t for n, t in self.optimizer.state().items()}
        return weights | buffers | moments

    def _resume(self, about: dict[str, Any]) -> None:
        self.step, self.seconds_before = int(about["step"]), float(about["seconds"])
        self.resumed = self.step * self.recipe.tokens_per_step
        self.curve = [CurvePoint(**point) for point in about["curve"]]
        if "means" in about:  # older checkpoints have none
            self.means = StepMeans.from_json(about["means"])
        tensors = self._tensors()
        self.checkpoints.load(self.step, tensors)
        moved = {
            part: trained_steps(self.phases, part, self.step, self.job.steps)
            for part in get_args(Part)
        }
        self.optimizer.set_steps({name: moved[self.model.part_of(name)] for name in self.weights})

    def _frozen(self) -> set[str]:
        """Names of the weights that this step leaves as they are."""
        phase = phase_at(self.phases, self.step, self.job.steps)
        if phase.what == "all":
            return set()
        return {name for name in self.weights if not phase.trains(self.model.part_of(name))}

    def _precision(self) -> str:
        """The same in every process; on a GPU bf16 where the recipe leaves it open."""
        if self.recipe.precision != "auto":
            return self.recipe.precision
        if self.world.device.type != "cpu":
            return "bf16"
        if self.world.size > 1:  # measuring takes a whole model in one process
            return "fp32"
        return choose_precision(self.config, self.recipe, 1, self.world.device)

    def _keep_weights(self) -> None:
        weights = whole_weights(self.model)
        if self.world.first:
            self.kind.save(self.model, self.folder, weights)
        for _ in weights:  # every process has to put its rows to them
            pass
        self.world.all_agree(True)  # nobody leaves before they are there

    def _outcome(self, last: Evaluation) -> Outcome:
        tokens = self.curve[-1].tokens
        flops = 3 * self.config.flops_per_token(self.recipe.sequence_length) * tokens
        return Outcome(
            TrialResult(
                metrics=dict(self.curve[-1].metrics),
                curve=tuple(self.curve),
                cost=Cost(tokens, self.seconds * self.world.size, flops),
                environment={
                    **environment(self.corpus, self.world.device, self.precision),
                    "processes": str(self.world.size),
                },
                loads=last.loads,
                entropies=last.entropies,
                dropped=last.dropped,
            )
        )


def _curve_line(point: CurvePoint) -> str:
    return json.dumps({"proxy": 0, **dataclasses.asdict(point)}) + "\n"
