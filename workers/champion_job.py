"""The Ray task that compares a promoted model with the standing champion on a study's own text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixopt.core.errors import MixoptError
from mixopt.core.registry import is_own
from mixopt.workers.cluster import Resources
from mixopt.workers.once import call


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
        document_mask: whether Hugging Face checkpoints are evaluated with documents masked from
            each other; models of our format are as they were trained.
    """

    new: str
    standing: str
    corpus: str
    recipe: Mapping[str, Any]
    weights: Mapping[str, float]
    weighed: tuple[str, ...]
    verified: str
    document_mask: bool = False


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
    from mixopt.proxies.stored_models import load_stored

    torch.set_num_threads(threads)
    corpus, recipe = Corpus.open(ask.corpus), Recipe(**ask.recipe)
    verify_once(corpus, Path(ask.verified))
    place = torch.device(device)
    end = corpus.end_of_text_id if ask.document_mask else None
    new = load_stored(Path(ask.new), recipe.precision, place, end)
    try:
        reason = _incomparable(Path(ask.standing), Path(ask.new), corpus.vocab_size)
        if reason:
            return {"unreadable": reason}
        standing = load_stored(Path(ask.standing), recipe.precision, place, end)
    except MixoptError as error:
        return {"unreadable": f"its model cannot be loaded: {error.what}"}
    tokens = {name: recipe.final_tokens(name, ask.weighed) for name in ask.weights}
    with at_work(place):
        found = difference(new, standing, corpus, ask.weights, tokens, recipe.sequence_length)
    return asdict(found)


def _incomparable(standing: Path, new: Path, tokens: int) -> str:
    """Why the champion in `standing` is not run on the text of the model `new`; empty if it may be.

    Their tokenizers, of so many `tokens`, are equal; a model may have rows to spare.

    Raises:
        MixoptError: it cannot be read.
    """
    from mixopt.proxies.stored_models import is_checkpoint, own_shape, vocabulary

    if (size := vocabulary(standing)) < tokens:
        return f"its vocabulary has {size:,} tokens, not {tokens:,}"
    if is_checkpoint(standing):
        return ""
    router = own_shape(standing).router
    others = is_checkpoint(new) or own_shape(new).router != router
    if is_own(router) and others:  # a file asks for an import
        return f"its router {router!r} is no part of mixopt, nor the new model's"
    return ""
