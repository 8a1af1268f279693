"""What `mixopt plan` says of imported models."""

from __future__ import annotations

from collections.abc import Iterator

from mixopt.core.formatting import count
from mixopt.corpus.shards import Corpus
from mixopt.models.upcycling import SEED
from mixopt.pipelines.study.dense_models import dense_models, first
from mixopt.pipelines.study.imported_checks import plan_of
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.study.settings import Study

WITHOUT_EFFECT = (  # keys of `promote` that are for our own models
    "seed_tokens, expert_tokens, and all of model but experts, experts_per_token and what balances "
    "routers"
)


def imported_lines(study: Study, corpus: Corpus, models: ImportedModels) -> Iterator[str]:
    """A line per imported model, and what becomes of them.

    Raises:
        StudyError: they cannot be upcycled.
    """
    assert study.promote is not None
    plan = plan_of(study, corpus, models) if models.checkpoints else None
    if plan is None:
        model = study.promote.model.of_text(corpus.vocab_size, corpus.end_of_text_id)
        order = first(tuple(models.experts), corpus.domains)
        params = dense_models(study.promote, model, order).shape.total_params()
        kind = "of mixopt"
    else:
        kind, params = plan.seed.family.name, plan.dense_params
    for name, model_name in models.names.items():
        role = "seed" if name == SEED else f"expert {name}"
        yield (
            f"Imported {role}: {model_name} ({kind}, {count(params)} parameters without "
            "embeddings); costs nothing."
        )
    if plan is not None:
        total, active = plan.body_params
        made = (
            f"They become {plan.family.name} by {study.promote.upcycler}, {count(active)} of "
            f"{count(total)} parameters active, which is "
        )
        if study.promote.upcycle:
            yield (
                f"{made}evaluated, and trained by promote.trainer (upcycle: true). Without effect "
                f"in promote: {WITHOUT_EFFECT}, and what recipe says of training."
            )
        elif study.promote.train:
            yield (
                f"{made}trained by transformers' own module. Without effect in promote: "
                f"{WITHOUT_EFFECT}."
            )
        else:
            yield (
                f"{made}evaluated, not trained (train: false). Without effect in promote: "
                f"{WITHOUT_EFFECT}, and what recipe says of training. promote.tokens is the length "
                "of the run that the mixture is for."
            )
