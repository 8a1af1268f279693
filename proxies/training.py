"""The step loop: a cohort of proxies from its first batch to its results, resumable at any moment.

Shapes: K proxies, B sequences of a batch, T tokens predicted per sequence.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mixopt
from mixopt.core.errors import BrokenCheckpointError, CheckpointError
from mixopt.core.trials import Cost, CurvePoint, Failure, Outcome, TrialResult
from mixopt.corpus.batches import Batches, CohortBatches
from mixopt.corpus.prefetch import prefetched
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.io import token_losses
from mixopt.io.files import write_bytes, write_json
from mixopt.io.trial_files import CHECKPOINT, CURVE
from mixopt.models import team
from mixopt.models.fusion import fusing
from mixopt.models.team import at_work
from mixopt.models.transformer import Transformer
from mixopt.proxies.captured import make_step, worth_compiling
from mixopt.proxies.checkpoint import load_state, save_state
from mixopt.proxies.evaluation import Evaluation, evaluate
from mixopt.proxies.job import Job
from mixopt.proxies.memory import keep_freed_memory
from mixopt.proxies.optimizer import CohortOptimizer
from mixopt.proxies.precision import DTYPES, choose_precision
from mixopt.proxies.schedules import rate_share
from mixopt.proxies.step_log import StepLog, StepMeans

PROGRESS_SECONDS = 1.0  # how often `on_progress` is called, at most


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        steps: of how many.
        tokens: training tokens done, per proxy.
        loss: mean training loss of each proxy since the last report, nats per token; pruned ones
            are left out.
        tokens_per_second: of all proxies together, over the last stretch of training.
        phase: `training` or `evaluation`.
        note: what whoever runs the study should know; nearly always empty.
        resumed: of `tokens`, those that were trained before this attempt.
    """

    step: int
    steps: int
    tokens: int
    loss: tuple[float, ...]
    tokens_per_second: float
    phase: str
    note: str = ""
    resumed: int = 0


def train(
    job: Job,
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
    threads: int | None = None,
    *,
    keep_weights: bool = False,
    keep_tokens: Sequence[str] = (),
    device: str | None = None,
) -> list[Outcome]:
    """Train the job's proxies; one outcome per mixture, in order.

    Called again on the same folder it goes on from the last checkpoint, bit for bit as if it had
    never stopped (on the same device, with as many threads). A checkpoint that is cut or whose bits
    flipped is removed, and training begins anew. The folder then holds
    `checkpoint.safetensors`, `curve.jsonl`, and with `keep_weights` the final `model.safetensors`
    (`model-0.safetensors`, … of a cohort) and `model.json`, and with `keep_tokens` the loss of
    every token in `tokens.npz` (`tokens-0.npz`, … of a cohort). A proxy whose loss is no longer
    finite becomes a `Failure.DIVERGED` outcome and leaves the others untouched. One that is beyond
    its limits (`Job.limits`) at an evaluation is pruned, and the others train on without it.

    Args:
        job: what to train.
        folder: where its state lives; created if absent.
        on_progress: called about once a second and at evaluations; what it raises ends the
            training (resumable).
        threads: CPU threads of this process; None leaves them.
        keep_weights: whether the final weights are saved.
        keep_tokens: validation domains of which the final loss of each token is saved.
        device: `cpu`, `cuda`, …; None takes a GPU if there is one.

    Raises:
        CheckpointError: the folder holds a checkpoint of other work.
        CorpusError: the corpus lacks a domain, or a domain is too short.
        TrainingError: the initial state does not fit the model.
    """
    with ExitStack() as stack:
        if threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        # routers may draw noise; a training owns its random stream and gives the caller's back
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.manual_seed(job.seeds[0])
        run = _Run(job, Path(folder), on_progress, device, keep_tokens)
        keep_freed_memory()
        stack.enter_context(at_work(run.device))
        run.reading = stack.enter_context(ExitStack())
        run.resume()
        stack.enter_context(fusing(worth_compiling(run.model, job.recipe, job.steps - run.step)))
        return run.finish(keep_weights)


class _Run:
    """The state of one training between its first step and its results."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        on_progress: Callable[[Progress], None] | None,
        device: str | None,
        keep_tokens: Sequence[str],
    ) -> None:
        self.job, self.recipe, self.folder, self.on_progress = job, job.recipe, folder, on_progress
        self.keep_tokens = keep_tokens
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.corpus = Corpus.open(job.corpus)
        self.tasks = {name: Questions.read(Path(path)) for name, path in job.tasks.items()}
        self.identity = job.training_hash(self.corpus.hash)
        self.config = job.model.of_text(self.corpus.vocab_size, self.corpus.end_of_text_id)
        self.all_batches = [
            Batches(
                self.corpus,
                mixture,
                seed,
                self.recipe.batch_sequences,
                self.recipe.sequence_length,
                job.token_limits,
            )
            for mixture, seed in zip(job.mixtures, job.seeds, strict=True)
        ]
        self.rows = list(range(job.cohort))  # the proxy of each row of the model: those not pruned
        self.reading = ExitStack()  # closed where the proxies that are read for change
        self.ahead: Iterator[np.ndarray] = iter(())  # batches of the steps to come
        self.step = 0
        self.curves: list[list[CurvePoint]] = [[] for _ in job.mixtures]
        self.last: list[Evaluation] = []  # of each row
        self.diverged: dict[int, str] = {}
        self.pruned: dict[int, str] = {}
        self.device_seconds = [0.0] * job.cohort  # of each proxy, until its cohort last changed
        self.seconds_shared = 0.0  # `seconds` when it did
        self.resumed = 0  # tokens up to the checkpoint
        self.seconds_before = 0.0  # spent by earlier attempts up to it
        self.started = time.perf_counter()
        self.written = self.started
        self.reported = self.started  # when progress was
        self.speed = 0.0
        self.log, self.means = StepLog(), StepMeans(job.cohort)

    @property
    def seconds(self) -> float:
        """Spent on this training, earlier attempts included."""
        return self.seconds_before + time.perf_counter() - self.started

    def resume(self) -> None:
        """Build the cohort, from the folder's checkpoint if there is one."""
        path = self.folder / CHECKPOINT
        tensors, meta = self._kept(path)
        if meta and meta.get("identity") != self.identity:
            raise CheckpointError(
                "belongs to other work (its model, recipe, data, mixture or seed differ)",
                where=str(path),
                hint="Delete it, and this training begins anew; or give it a folder of its own",
            )
        self.precision = meta.get("precision") or choose_precision(
            self.config, self.recipe, self.job.cohort, self.device
        )
        if meta:
            self._recall(meta)
        self._build()
        if meta:
            self._load(tensors)
            torch.set_rng_state(tensors["random"])
        elif self.job.initial is not None:
            state, _ = load_state(Path(self.job.initial))
            for k in range(self.job.cohort):
                self.model.load_proxy_state(state, k)
        lines = [_curve_line(k, point) for k, curve in enumerate(self.curves) for point in curve]
        write_bytes(self.folder / CURVE, "".join(lines).encode())

    def _kept(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The checkpoint at `path`; nothing where there is none or a broken one, which goes."""
        if not path.exists():
            return {}, {}
        try:
            return load_state(path)
        except BrokenCheckpointError as error:
            path.unlink()
            if self.on_progress is not None:
                note = f"{error.where}: {error.what}; it was removed, and training begins anew"
                self.on_progress(Progress(0, self.job.steps, 0, (), 0.0, "training", note))
            return {}, {}

    def _build(self) -> None:
        """The cohort's model and optimizer as they begin, and its batches from here on."""
        seeds = [self.job.seeds[k] for k in self.rows]
        self.model = Transformer(self.config, seeds, DTYPES[self.precision])
        self.model.to(self.device).train()
        rates = self.job.learning_rates or (self.recipe.learning_rate,) * self.job.cohort
        self.optimizer = CohortOptimizer(self.model, self.recipe, [rates[k] for k in self.rows])
        self.move = make_step(self.model, self.optimizer, self.recipe.micro_batches)
        self.reading.close()
        batches = CohortBatches([self.all_batches[k] for k in self.rows])
        steps = range(self.step, self.job.steps)
        self.ahead = self.reading.enter_context(prefetched(batches.at, steps))

    def finish(self, keep_weights: bool) -> list[Outcome]:
        """Train to the end; the outcomes."""
        self.reported = time.perf_counter()
        self.log.start_clock()
        while self.step < self.job.steps and self._training():
            self._train_step()
            now = time.perf_counter()
            if self.step in self.job.evaluation_steps or self.step == self.job.steps:
                self._report("training")
                self._evaluate()
                self._prune()
                self._checkpoint()
            elif now - self.written >= self.recipe.checkpoint_seconds:
                self._checkpoint()
            elif now - self.reported >= PROGRESS_SECONDS:
                self._report("training")
        if keep_weights:
            self._keep_weights()
        if self.step == self.job.steps and not self.last:  # it ended before, its marker was lost
            self.last = self._scores(final=True)
        if self.keep_tokens:
            self._keep_tokens()
        self._share_seconds()
        return [self._outcome(k) for k in range(self.job.cohort)]

    def _training(self) -> list[int]:
        """The proxies that are still to be trained."""
        return [k for k in self.rows if k not in self.diverged and k not in self.pruned]

    def _train_step(self) -> None:
        ids_KBT = torch.from_numpy(next(self.ahead))
        if self.device.type == "cuda":  # from other memory, a copy waits for the step before
            ids_KBT = ids_KBT.pin_memory()
        ids_KBT = ids_KBT.to(self.device, non_blocking=True)
        nats_K = self.move(
            ids_KBT,
            progress=self.step / self.job.steps,
            rate_share=rate_share(self.step, self.job.steps, self.recipe),
        )
        self.log.add(nats_K, self.move.norm_K)
        self.step += 1

    def _read_log(self) -> tuple[float, ...]:
        """Mean loss of each row since the last time; notes the proxies that diverged."""
        losses_SK = self.log.read(self.means)
        if losses_SK is None:
            return ()
        trained = losses_SK.size * self.recipe.tokens_per_step
        self.speed = trained / max(self.log.stretch, 1e-9)
        first = self.step - len(losses_SK) + 1
        finite_SK = np.isfinite(losses_SK)
        for row in np.flatnonzero(~finite_SK.all(0)).tolist():
            step = first + int(np.argmin(finite_SK[:, row]))
            message = f"loss or gradient was not finite at step {step}"
            self.diverged.setdefault(self.rows[row], message)
        return tuple(losses_SK.mean(0).tolist())

    def _report(self, phase: str) -> None:
        loss = self._read_log()
        self.reported = time.perf_counter()
        if self.on_progress is not None:
            tokens = self.step * self.recipe.tokens_per_step
            told = (self.step, self.job.steps, tokens, loss, self.speed, phase)
            self.on_progress(Progress(*told, resumed=self.resumed))

    def _scores(self, final: bool) -> list[Evaluation]:
        domains = self.corpus.validation_domains
        tokens = self.job.evaluated_tokens((*domains, *self.tasks), final=final)
        length = self.recipe.sequence_length
        each = self.keep_tokens if final else ()
        return evaluate(self.model, self.corpus, domains, tokens, length, each, self.tasks)

    def _on_curve_text(self) -> list[dict[str, float]]:
        """At the end each row's metrics on the text of the evaluations before; {} where none are.

        Of 20 trials of the recipe that `init` writes, 14 ended with a jump where one line joined
        evaluations on two texts.
        """
        if self.step < self.job.steps or len(self.job.evaluation_steps) == 1:
            return [{} for _ in self.rows]
        return [evaluation.metrics for evaluation in self._scores(final=False)]

    def _evaluate(self) -> None:
        self.last = self._scores(final=self.step == self.job.steps)
        on_curve_text = self._on_curve_text()
        training = self._training_numbers()
        with (self.folder / CURVE).open("a") as file:
            for row, (k, evaluation) in enumerate(zip(self.rows, self.last, strict=True)):
                tokens = self.step * self.recipe.tokens_per_step
                point = CurvePoint(
                    self.step,
                    tokens,
                    evaluation.metrics,
                    self.seconds,
                    on_curve_text[row],
                    training[row],
                )
                if not all(map(math.isfinite, evaluation.metrics.values())):
                    self.diverged.setdefault(k, f"evaluation was not finite at step {self.step}")
                    continue
                self.curves[k].append(point)
                file.write(_curve_line(k, point))
        self._report("evaluation")

    def _training_numbers(self) -> list[dict[str, float]]:
        """What the steps since the last evaluation came to, of each row."""
        share = rate_share(self.step - 1, self.job.steps, self.recipe)
        rates_K = [peak * share for peak in self.optimizer.peak_rates]
        means, self.means = self.means, StepMeans(len(self.rows))
        return means.of_point(self.recipe.tokens_per_step, rates_K)

    def _prune(self) -> None:
        """Stop the proxies that are beyond their limits; the others train on as a smaller cohort.

        Parameters, moments and batches of those that stay are what they were; their losses go on
        equal within rounding, as those of any cohort of another size do.
        """
        if self.step == self.job.steps or self.job.limits is None:
            return
        for k in self._training():
            limits = self.job.limits[k]
            why = None if limits is None else limits.hopeless(self.curves[k][-1])
            if why is not None:
                self.pruned[k] = why
        rows = [row for row, k in enumerate(self.rows) if k not in self.pruned]
        if len(rows) == len(self.rows):
            return
        self._share_seconds()
        if not rows:  # nobody is left to be trained
            return
        tensors = {name: t if t.dim() == 0 else t[rows] for name, t in self._tensors().items()}
        self.rows = [self.rows[row] for row in rows]
        del self.move, self.model, self.optimizer  # a GPU may have no room for both cohorts
        self._build()
        self._load(tensors)
        self.last = [self.last[row] for row in rows]
        self.means = StepMeans(len(rows))

    def _share_seconds(self) -> None:
        """Charge the time since the cohort last changed to the proxies that trained in it."""
        spent, self.seconds_shared = self.seconds - self.seconds_shared, self.seconds
        for k in self.rows:
            self.device_seconds[k] += spent / len(self.rows)

    def _outcome(self, k: int) -> Outcome:
        if k in self.diverged:
            return Outcome(None, Failure.DIVERGED, self.diverged[k])
        tokens = self.curves[k][-1].tokens
        per_token = self.config.flops_per_token(self.recipe.sequence_length)
        result = TrialResult(
            metrics=dict(self.curves[k][-1].metrics),
            curve=tuple(self.curves[k]),
            cost=Cost(tokens, self.device_seconds[k], 3 * per_token * tokens),
            environment=environment(self.corpus, self.device, self.precision),
        )
        if k in self.pruned:
            limits = self.job.limits[k] if self.job.limits is not None else None
            expected = {} if limits is None else limits.expected(self.curves[k][-1])
            result = dataclasses.replace(result, expected=expected)
            return Outcome(result, message=self.pruned[k], pruned=True)
        last = self.last[self.rows.index(k)]
        return Outcome(
            dataclasses.replace(
                result, loads=last.loads, entropies=last.entropies, dropped=last.dropped
            )
        )

    def _checkpoint(self) -> None:
        self._read_log()
        self.written = time.perf_counter()
        if not math.isinf(self.recipe.checkpoint_seconds):
            self._save_checkpoint()
        self.log.start_clock()

    def _save_checkpoint(self) -> None:
        tensors = self._tensors() | {"random": torch.get_rng_state()}
        meta = {
            "identity": self.identity,
            "step": self.step,
            "precision": self.precision,
            "seconds": self.seconds,
            "diverged": self.diverged,
            "pruned": self.pruned,
            "rows": self.rows,
            "device_seconds": self.device_seconds,
            "seconds_shared": self.seconds_shared,
            "curves": [[dataclasses.asdict(p) for p in curve] for curve in self.curves],
            "means": self.means.to_json(),
        }
        save_state(self.folder / CHECKPOINT, tensors, meta)

    def _tensors(self) -> dict[str, Tensor]:
        """Of model and optimizer; all but scalars have the rows in front."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        return tensors | {f"optimizer.{name}": t for name, t in self.optimizer.state().items()}

    def _load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `_tensors` gave of the same rows."""
        self.model.load_state_dict(_under("model.", tensors))
        self.optimizer.load_state(_under("optimizer.", tensors))

    def _recall(self, meta: dict[str, Any]) -> None:
        """What a checkpoint tells besides its tensors; older ones know less."""
        self.step, self.seconds_before = int(meta["step"]), float(meta["seconds"])
        self.resumed = self.step * self.recipe.tokens_per_step
        self.diverged = {int(k): message for k, message in meta["diverged"].items()}
        self.pruned = {int(k): message for k, message in meta.get("pruned", {}).items()}
        self.rows = meta.get("rows", self.rows)
        self.device_seconds = meta.get("device_seconds", self.device_seconds)
        self.seconds_shared = float(meta.get("seconds_shared", 0.0))
        self.curves = [[CurvePoint(**p) for p in curve] for curve in meta["curves"]]
        self.means = StepMeans(len(self.rows))
        if "means" in meta:
            self.means = StepMeans.from_json(meta["means"])

    def _keep_weights(self) -> None:
        write_json(self.folder / "model.json", self.config.to_json())
        for row, k in enumerate(self.rows):
            name = "model" if self.job.cohort == 1 else f"model-{k}"
            save_state(self.folder / f"{name}.safetensors", self.model.proxy_state(row))

    def _keep_tokens(self) -> None:
        for row, k in enumerate(self.rows):
            if k in self.diverged or k in self.pruned:
                continue
            path = self.folder / token_losses.TOKENS
            if self.job.cohort > 1:
                path = path.with_stem(f"{path.stem}-{k}")
            token_losses.write(path, self.last[row].token_losses)


def environment(corpus: Corpus, device: torch.device, precision: str) -> dict[str, str]:
    """What a result depends on besides its job: versions, device, corpus."""
    return {
        "mixopt": mixopt.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": str(device),
        "threads": str(team.threads()),
        "precision": precision,
        "corpus": corpus.hash,
        "tokenizer": corpus.tokenizer_hash,
    }


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _curve_line(proxy: int, point: CurvePoint) -> str:
    return json.dumps({"proxy": proxy, **dataclasses.asdict(point)}) + "\n"
