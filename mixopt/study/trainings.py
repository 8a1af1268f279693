"""What the trainings of a study's trials are: shape, fidelity, limits of tokens, identity."""

from __future__ import annotations

import dataclasses

from mixopt.core.trials import Fidelity
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.study.data import TrainingData
from mixopt.study.hashes import digest
from mixopt.study.settings import Study
from mixopt.study.tasks import task_keys


def proxy_model(study: Study, corpus: Corpus) -> ModelConfig:
    """The proxies' shape with the vocabulary of the corpus."""
    return study.proxy.model.of_text(corpus.vocab_size, corpus.end_of_text_id)


def proxy_fidelity(study: Study, data: TrainingData) -> Fidelity:
    """Size and tokens of the proxies; of a trainer that tells no size, 1 parameter."""
    if study.trainer is not None:
        return Fidelity("proxy", study.proxy.params or 1, study.proxy.tokens)
    assert isinstance(data, Corpus)  # our proxies read one
    return Fidelity("proxy", proxy_model(study, data).active_params(), study.proxy.tokens)


def larger_model(study: Study, corpus: Corpus) -> ModelConfig:
    """The shape at `select.at`, with the vocabulary of the corpus."""
    at = study.select.at
    shape = study.proxy.model if at is None or at.model is None else at.model
    return shape.of_text(corpus.vocab_size, corpus.end_of_text_id)


def larger_fidelity(study: Study, data: TrainingData) -> Fidelity | None:
    """Size and tokens of `select.at`; None where the study has none.

    Its name is unlike that of another shape with as many parameters.
    """
    at = study.select.at
    if at is None:
        return None
    tokens = at.tokens or study.proxy.tokens
    if study.trainer is not None:
        return Fidelity("larger", at.params or study.proxy.params or 1, tokens)
    assert isinstance(data, Corpus)  # our proxies read one
    model = larger_model(study, data)
    name = f"larger {digest(model.to_json())[:8]}"
    return Fidelity(name, model.active_params(), tokens)


def token_limits(
    study: Study, data: TrainingData, tokens: int | None = None
) -> dict[str, int] | None:
    """Tokens of each domain that a proxy may see, so that it repeats as the promoted run would.

    None where the whole domain may be seen: the proxies are as long as the promoted run.

    Args:
        study: whose proxies.
        data: of the study.
        tokens: of the training; those of a proxy if not given.
    """
    share = (tokens or study.proxy.tokens) / study.budget
    if not study.proxy.simulate_repetition or share >= 1:
        return None
    least = study.proxy.recipe.sequence_length if study.trainer is None else 1
    return {name: max(least, int(n * share)) for name, n in data.tokens.items()}


def training_hash(study: Study, data: TrainingData) -> str:
    """Identity of all that a result depends on but mixture, fidelity and seed.

    Raises:
        StudyError: a file that the trainer depends on cannot be read.
    """
    limits = token_limits(study, data)
    if study.trainer is not None:
        with study.naming():
            identity = study.trainer.identity(study.path.parent)
        return digest({"trainer": identity, "limits": limits})
    assert isinstance(data, Corpus)  # our proxies read one
    settings = {
        "model": proxy_model(study, data).to_json(),
        "recipe": dataclasses.asdict(study.proxy.recipe.canonical()),
        "limits": limits,
    }
    if study.tasks:
        settings["tasks"] = task_keys(study, data)
    return digest(settings)


def study_binding(study: Study, data: TrainingData) -> str:
    """What the study folder and its ledger are bound to: the data and `training_hash`."""
    return digest([data.hash, training_hash(study, data)])
