"""The Ray task that upcycles checkpoints: a Hugging Face folder out, evaluated by transformers."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.io import files, locks, markers
from mixopt.workers.cluster import Resources
from mixopt.workers.once import call
from mixopt.workers.proxy_task import LOCK_PATIENCE_SECONDS

if TYPE_CHECKING:
    import torch

    from mixopt.core.recipe import Recipe
    from mixopt.corpus.shards import Corpus
    from mixopt.models.upcycling.folders import Request
    from mixopt.models.upcycling.receipt import Receipt
    from mixopt.proxies.evaluation import Evaluation

SEED, MODEL, UPCYCLED = "seed", "model", "upcycled"  # folders of a promotion


@dataclass(frozen=True)
class CheckpointUpcycling:
    """A conversion that is asked for; paths are absolute and seen by every node.

    Attributes:
        request: what is upcycled, without samples: those are the corpus' own.
        recipe: `Recipe` whose sequences, precision and amounts of text the evaluation takes.
        corpus: folder of the corpus.
        folder: of the promotion: `model` becomes the Hugging Face folder; `seed` and `upcycled`
            hold the completion markers.
        verified: folder that remembers on which machines the corpus was compared.
        tasks: name → file of its prepared questions.
        weighed: names of the domains and tasks that the objective weighs.
        document_mask: whether it is evaluated with documents masked from each other.
    """

    request: Request
    recipe: Mapping[str, Any]
    corpus: str
    folder: str
    verified: str
    tasks: Mapping[str, str] = field(default_factory=dict)
    weighed: tuple[str, ...] = ()
    document_mask: bool = False


def upcycle_checkpoint_on_cluster(
    ask: CheckpointUpcycling, resources: Resources, warn: Callable[[str], None]
) -> dict[str, Any]:
    """What `upcycle_checkpoint` returns, on a worker.

    Raises:
        MixoptError: it fails, or is lost too often; see `mixopt.workers.once.call`, also for
            `warn`.
    """
    return call(
        *(upcycle_checkpoint, ask, resources.threads, resources.device),
        resources=resources,
        label="upcycling",
        warn=warn,
    )


def upcycle_checkpoint(
    ask: CheckpointUpcycling, threads: int, device: str = "cpu"
) -> dict[str, Any]:
    """Upcycle here and evaluate, or what is left of it. Idempotent.

    Returns:
        `metrics`, `loads`, `entropies` and `dropped` of the mixture, `seed`: metrics of the dense
        seed, the `receipt`, and `model`: size and checksum of the files of the folder `model`.

    Raises:
        MixoptError: a checkpoint or the corpus cannot be used, or the disk is too small.
    """
    import torch

    from mixopt.core.recipe import Recipe
    from mixopt.corpus.shards import Corpus
    from mixopt.corpus.verified import verify_once

    folder, place = Path(ask.folder), torch.device(device)
    with locks.hold(folder / UPCYCLED / "lock", "upcycling", patience=LOCK_PATIENCE_SECONDS):
        before = upcycled_checkpoint(folder)
        if before is not None:
            return before
        if markers.read(folder / UPCYCLED) is not None:
            shutil.rmtree(folder / MODEL, ignore_errors=True)  # what the marker vouched for is gone
        torch.set_num_threads(threads)
        corpus, recipe = Corpus.open(ask.corpus), Recipe(**ask.recipe)
        verify_once(corpus, Path(ask.verified))
        seed = markers.read(folder / SEED)
        if seed is None:
            found = _evaluated(ask.request.seed, ask, recipe, corpus, place)
            seed = {"metrics": dict(found.metrics)}
            markers.write(folder / SEED, seed)
        receipt = _written(ask, recipe, corpus, folder / MODEL)
        found = _evaluated(folder / MODEL, ask, recipe, corpus, place)
        record = {
            "seed": seed["metrics"],
            "metrics": dict(found.metrics),
            "loads": {domain: list(load) for domain, load in found.loads.items()},
            "entropies": dict(found.entropies),
            "dropped": dict(found.dropped),
            "receipt": receipt.to_json(),
            "model": markers.all_described(folder / MODEL),
        }
        markers.write(folder / UPCYCLED, record)
        return record


def upcycled_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What `upcycle_checkpoint` returned in that folder, if it has ended and its model is whole."""
    before = markers.read(folder / UPCYCLED)
    there = before is not None and markers.whole(folder / MODEL, before.get("model"))
    return before if there else None


def _written(ask: CheckpointUpcycling, recipe: Recipe, corpus: Corpus, out: Path) -> Receipt:
    """The receipt of the folder `out`, which is written unless it is there: it appears whole."""
    from mixopt.models.upcycling import folders
    from mixopt.models.upcycling.receipt import Receipt
    from mixopt.proxies.samples import held_out_samples, training_samples

    if out.exists():
        return files.read_json(
            out / folders.RECEIPT, Receipt.from_json, hint="Delete the folder to upcycle again"
        )
    request = dataclasses.replace(
        ask.request,
        samples=held_out_samples(corpus, recipe.sequence_length),
        start_samples=training_samples(corpus, recipe.sequence_length),
    )
    return folders.write(folders.plan(request), out)


def _evaluated(
    model: Path, ask: CheckpointUpcycling, recipe: Recipe, corpus: Corpus, device: torch.device
) -> Evaluation:
    """What transformers computes of the model in that folder, on the corpus' validation text."""
    from mixopt.corpus.questions import Questions
    from mixopt.proxies.evaluation import evaluate
    from mixopt.proxies.foreign import ForeignModel
    from mixopt.proxies.precision import DTYPES

    domains = corpus.validation_domains
    end = corpus.end_of_text_id if ask.document_mask else None
    (found,) = evaluate(
        ForeignModel.load(model, DTYPES[recipe.precision], device, end),
        corpus,
        domains,
        {name: recipe.final_tokens(name, ask.weighed) for name in (*domains, *ask.tasks)},
        recipe.sequence_length,
        tasks={name: Questions.read(Path(path)) for name, path in ask.tasks.items()},
    )
    return found
