"""The Ray task that upcycles: dense models in, one MoE out, with its receipt and first scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.io import files, locks, markers
from mixopt.models.upcycling.method import Method
from mixopt.workers.cluster import Resources
from mixopt.workers.once import call
from mixopt.workers.proxy_task import LOCK_PATIENCE_SECONDS

if TYPE_CHECKING:
    import torch

    from mixopt.core.recipe import Recipe
    from mixopt.corpus.shards import Corpus
    from mixopt.models.config import ModelConfig
    from mixopt.models.transformer import State


@dataclass(frozen=True)
class Upcycling:
    """A conversion that is asked for; paths are absolute and seen by every node.

    Attributes:
        method: how.
        seed_model: weights of the dense seed model.
        expert_models: domain → weights of the dense expert branched from it, in expert order.
        dense: `ModelConfig` of the dense models, as JSON-able values.
        model: `ModelConfig` of the MoE.
        recipe: `Recipe` that it will be trained with.
        corpus: folder of the corpus.
        folder: where the MoE's weights go.
        seed: draws the routers.
        verified: folder that remembers on which machines the corpus was compared.
        tasks: name → file of its prepared questions.
        weighed: names of the domains and tasks that the objective weighs.
        score_seed: whether the seed model is evaluated too; one that was trained here has been.
    """

    method: Method
    seed_model: str
    expert_models: Mapping[str, str]
    dense: Mapping[str, Any]
    model: Mapping[str, Any]
    recipe: Mapping[str, Any]
    corpus: str
    folder: str
    seed: int
    verified: str
    tasks: Mapping[str, str] = field(default_factory=dict)
    weighed: tuple[str, ...] = ()
    score_seed: bool = False


def upcycle_on_cluster(
    ask: Upcycling, resources: Resources, warn: Callable[[str], None]
) -> dict[str, Any]:
    """Upcycle on a worker; a dictionary of `metrics` before training, and the `receipt`.

    And `seed`, the metrics of the seed model, where they are asked for.

    Raises:
        MixoptError: it fails, or is lost too often; see `mixopt.workers.once.call`, also for
            `warn`.
    """
    return call(
        *(upcycle, ask, resources.threads, resources.device),
        resources=resources,
        label="upcycling",
        warn=warn,
    )


def upcycle(ask: Upcycling, threads: int, device: str = "cpu") -> dict[str, Any]:
    """Upcycle here, or give back what the folder's completion marker says. Idempotent.

    The conversion is on the CPU; the model is evaluated as the trained one will be: on `device`, in
    the recipe's precision, on the same text.
    """
    import torch

    from mixopt.core.recipe import Recipe
    from mixopt.corpus.shards import Corpus
    from mixopt.corpus.verified import verify_once
    from mixopt.models.config import ModelConfig
    from mixopt.models.upcycling.states import DenseModels, upcycle_states
    from mixopt.proxies.checkpoint import load_state, save_state
    from mixopt.proxies.samples import held_out_samples, training_samples

    folder = Path(ask.folder)
    with locks.hold(folder / "lock", "upcycling", patience=LOCK_PATIENCE_SECONDS):
        before = upcycled(ask)
        if before is not None:
            return before
        torch.set_num_threads(threads)
        corpus, recipe = Corpus.open(ask.corpus), Recipe(**ask.recipe)
        verify_once(corpus, Path(ask.verified))
        dense, shape = ModelConfig(**ask.dense), ModelConfig(**ask.model)
        length = recipe.sequence_length
        models = DenseModels(
            load_state(Path(ask.seed_model))[0],
            {name: load_state(Path(path))[0] for name, path in ask.expert_models.items()},
            dense,
        )
        text = held_out_samples(corpus, length), training_samples(corpus, length)
        state, receipt = upcycle_states(ask.method, models, shape, ask.seed, *text)
        place = torch.device(device)
        record: dict[str, Any] = {
            "metrics": _scores(ask, state, shape, recipe, corpus, place),
            "receipt": receipt.to_json(),
        }
        if ask.score_seed:
            record["seed"] = _scores(ask, models.seed, dense, recipe, corpus, place)
        save_state(folder / "model.safetensors", state)
        files.write_json(folder / "model.json", shape.to_json())
        markers.write(folder, record)
        return record


def upcycled(ask: Upcycling) -> dict[str, Any] | None:
    """What `upcycle` returned, if it has ended: it is not to be done again; else None."""
    before = markers.read(Path(ask.folder))
    if before is not None and isinstance(before.get("metrics"), dict) and "receipt" in before:
        return before
    return None


def _scores(
    ask: Upcycling,
    state: State,
    shape: ModelConfig,
    recipe: Recipe,
    corpus: Corpus,
    device: torch.device,
) -> dict[str, float]:
    """The model's metrics, as a training by `recipe` on `device` evaluates its end."""
    from mixopt.corpus.questions import Questions
    from mixopt.models.team import at_work
    from mixopt.models.transformer import Transformer
    from mixopt.proxies.evaluation import evaluate
    from mixopt.proxies.precision import DTYPES, choose_precision

    precision = choose_precision(shape, recipe, 1, device)
    model = Transformer(shape, compute_dtype=DTYPES[precision])
    model.load_proxy_state(state)
    domains = corpus.validation_domains
    with at_work(device):
        (found,) = evaluate(
            model.to(device),
            corpus,
            domains,
            {name: recipe.final_tokens(name, ask.weighed) for name in (*domains, *ask.tasks)},
            recipe.sequence_length,
            tasks={name: Questions.read(Path(path)) for name, path in ask.tasks.items()},
        )
    return dict(found.metrics)
