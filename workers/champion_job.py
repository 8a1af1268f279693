"""The Ray task that compares a promoted model with the standing champion on a study's own text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.core.errors import MixoptError
from mixopt.core.registry import is_own
from mixopt.io import files
from mixopt.io.markers import SHAPE, WEIGHTS
from mixopt.workers.cluster import Resources
from mixopt.workers.once import call

if TYPE_CHECKING:
    import torch

    from mixopt.models.config import ModelConfig
    from mixopt.models.transformer import State, Transformer


@dataclass(frozen=True)
class Challenge:
    """A comparison that is asked for; paths are absolute and seen by every node.

    Attributes:
        new: folder of the promoted model.
        standing: folder of the standing champion.
        corpus: folder of the corpus whose validation text both read.
        recipe: `Recipe` of the promotion, as JSON-able values; its precision is resolved.
        weights: validation domain → weight of its bits per byte.
        weighed: names of the domains and tasks that the objective weighs.
        verified: folder that remembers on which machines the corpus was compared.
    """

    new: str
    standing: str
    corpus: str
    recipe: Mapping[str, Any]
    weights: Mapping[str, float]
    weighed: tuple[str, ...]
    verified: str


def challenge_on_cluster(
    ask: Challenge, resources: Resources, warn: Callable[[str], None]
) -> dict[str, Any]:
    """What `challenge` returns, on a worker.

    Raises:
        MixoptError: it fails, or is lost too often; see `mixopt.workers.once.call`, also for
            `warn`.
    """
    return call(
        *(challenge, ask, resources.threads, resources.device),
        resources=resources,
        label="comparing with the champion",
        warn=warn,
    )


def challenge(ask: Challenge, threads: int, device: str = "cpu") -> dict[str, Any]:
    """The fields of a `Difference`, new model minus champion; or why there is none (`unreadable`).

    Raises:
        MixoptError: the new model or the corpus cannot be read.
    """
    import torch

    from mixopt.core.recipe import Recipe
    from mixopt.corpus.shards import Corpus
    from mixopt.corpus.verified import verify_once
    from mixopt.models.team import at_work
    from mixopt.proxies.paired import difference

    torch.set_num_threads(threads)
    corpus, recipe = Corpus.open(ask.corpus), Recipe(**ask.recipe)
    verify_once(corpus, Path(ask.verified))
    place = torch.device(device)
    new = _load(Path(ask.new), recipe.precision, place)
    try:
        shape = _shape(Path(ask.standing))
        reason = _incomparable(shape, new.config)
        if reason:
            return {"unreadable": reason}
        standing = _load(Path(ask.standing), recipe.precision, place)
    except MixoptError as error:
        return {"unreadable": f"its model cannot be loaded: {error.what}"}
    tokens = {name: recipe.final_tokens(name, ask.weighed) for name in ask.weights}
    with at_work(place):
        found = difference(new, standing, corpus, ask.weights, tokens, recipe.sequence_length)
    return asdict(found)


def _incomparable(standing: ModelConfig, new: ModelConfig) -> str:
    """Why the champion of that shape is not run on the new model's text; empty if it may be."""
    if standing.vocab_size != new.vocab_size:
        return f"its vocabulary has {standing.vocab_size:,} tokens, not {new.vocab_size:,}"
    if is_own(standing.router) and standing.router != new.router:  # a file asks for an import
        return f"its router {standing.router!r} is no part of mixopt, nor the new model's"
    return ""


def _shape(folder: Path) -> ModelConfig:
    """The shape of the model in `folder`, which is of our own format or a mixtral of Hugging Face.

    Raises:
        MixoptError: it cannot be read, or our transformer computes something else.
    """
    from mixopt.models.config import ModelConfig
    from mixopt.models.families.checkpoint import CONFIG, open_checkpoint
    from mixopt.models.families.returned import returned_config

    if (folder / CONFIG).exists():
        return returned_config(open_checkpoint(folder))
    return files.read_json(folder / SHAPE, lambda values: ModelConfig(**values), hint="")


def _state(folder: Path, shape: ModelConfig) -> State:
    """The weights of the model in `folder`.

    Raises:
        MixoptError: they cannot be read.
    """
    from mixopt.models.families.checkpoint import CONFIG, open_checkpoint
    from mixopt.models.families.returned import returned_state
    from mixopt.proxies.checkpoint import load_state

    if (folder / CONFIG).exists():
        return returned_state(open_checkpoint(folder), shape)
    return load_state(folder / WEIGHTS)[0]


def _load(folder: Path, precision: str, device: torch.device) -> Transformer:
    """The model in `folder`.

    Raises:
        MixoptError: there is none, or it is broken.
    """
    from mixopt.models.transformer import Transformer
    from mixopt.proxies.precision import DTYPES

    shape = _shape(folder)
    model = Transformer(shape, compute_dtype=DTYPES[precision])
    model.load_proxy_state(_state(folder, shape))
    return model.to(device)
