"""What imported models are refused for, before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.core.errors import MixoptError, StudyError
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.io.markers import SHAPE, WEIGHTS
from mixopt.models.config import ModelConfig
from mixopt.models.upcycling import SEED
from mixopt.pipelines.study.checks import check_promotion, check_router, in_a_study
from mixopt.pipelines.study.dense_models import dense_models, first
from mixopt.pipelines.study.imported_models import (
    ImportedModels,
    find_models,
    line_of,
    naming,
    place,
)
from mixopt.study.data import TrainingData
from mixopt.study.settings import Study

if TYPE_CHECKING:
    from mixopt.models.upcycling.folders import Plan, Request

COMPARED = (  # what a dense model must have in common with the model that it is upcycled into
    *("width", "layers", "heads", "expert_width", "shared_experts"),
    *("rope_theta", "tie_embeddings", "vocab_size"),
)


def import_models(
    study: Study, corpus: TrainingData, on_file: Callable[[str], None]
) -> ImportedModels | None:
    """The models that `study` names in the place of trainings, found and checked; None without.

    Args:
        study: that names them.
        corpus: its corpus.
        on_file: is given a line before a file is fetched.

    Raises:
        StudyError: one cannot be used; with file, line and key.
        CorpusError: the corpus cannot be read.
    """
    if study.promote is None or study.promote.seed_model is None:
        return None
    assert isinstance(corpus, Corpus)  # a promotion has one (`checks.check`)
    for domain in study.promote.expert_models:
        if domain not in corpus.domains:
            raise StudyError(
                f"the corpus has no training domain {domain!r}",
                where=place(study, domain),
                hint=f"Choose from {', '.join(corpus.domains)}",
            )
    models = find_models(study, on_file)
    assert models is not None
    for name, folder in models.folders.items():
        _check_tokenizer(study, corpus, name, folder)
    if models.checkpoints:
        plan_of(study, corpus, models)
    else:
        check_promotion(study, corpus)
        check_router(study)
        _check_own(study, corpus, models)
    return models


def plan_of(study: Study, corpus: Corpus, models: ImportedModels) -> Plan:
    """The upcycling of imported checkpoints, checked by their headers.

    Raises:
        StudyError: it cannot be carried out, or transformers is not installed.
        CorpusError: the corpus cannot be read.
    """
    from mixopt.models.families.loaded import INSTALL, is_installed
    from mixopt.models.upcycling import folders
    from mixopt.proxies.samples import held_out_samples, training_samples

    assert study.promote is not None
    if not is_installed():
        raise StudyError(
            "imported checkpoints are evaluated by transformers, which is not installed",
            where=place(study, SEED),
            hint=INSTALL,
        )
    length = study.promote.recipe.sequence_length
    request = dataclasses.replace(
        request_of(study, models),
        samples=held_out_samples(corpus, length),
        start_samples=training_samples(corpus, length),
    )
    try:
        plan = folders.plan(request)
    except MixoptError as error:
        raise _in_the_study(study, models, error) from error
    rows, positions = plan.seed.shape.vocab_size, plan.seed.config.get("max_position_embeddings")
    if rows < corpus.vocab_size:
        raise StudyError(
            f"its vocabulary has {rows:,} tokens, and the corpus uses {corpus.vocab_size:,}",
            where=place(study, SEED),
            hint="Build the corpus with this model's tokenizer (`tokenizer: {file: …}`)",
        )
    if positions is not None and length > int(positions):
        raise StudyError(
            f"is {length:,}, and promote.seed_model has {int(positions):,} positions",
            where=line_of(study, "promote", "recipe", "sequence_length"),
            hint=f"Set it to {int(positions):,} or less",
        )
    return plan


def request_of(study: Study, models: ImportedModels) -> Request:
    """The upcycling of imported checkpoints that `study` asks for, without samples."""
    from mixopt.models.upcycling.folders import Request

    assert study.promote is not None
    model, method = study.promote.model, study.promote.method
    return Request(
        method=method.upcycler,
        seed=models.seed,
        sources=models.experts,
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        random_seed=study.seed,
        settings=method.settings,
        merge=method.merge,
        merge_settings=method.merge_settings,
        router=method.router_start,
        router_settings=method.router_start_settings,
    )


def _in_the_study(study: Study, models: ImportedModels, error: MixoptError) -> StudyError:
    """`error` of an upcycling, with the study file's line and key."""
    first, _, rest = error.where.partition(".")
    hint = error.hint
    if error.where in models.experts or (first == "sources" and rest in models.experts):
        where = place(study, error.where if error.where in models.experts else rest)
    elif first in ("experts", "experts_per_token"):
        where = line_of(study, "promote", "model", first)
        if first == "experts" and not models.experts and "dense models" in error.what:
            hint = "Name dense experts in promote.expert_models, or choose another upcycler"
    elif first == "sources":
        where = line_of(study, "promote", "expert_models")
        hint = "Leave promote.expert_models out, or choose an upcycler that takes dense experts"
    elif first in ("settings", "merge", "merge_settings", "router", "router_settings"):
        where = line_of(study, "promote", *in_a_study(error.where).split("."))
    else:  # the seed, a file of a model, the upcycler's own
        about = f"{error.where}: " if error.where not in ("", SEED, "target") else ""
        owner = next((n for n, f in models.folders.items() if str(f) in error.where), SEED)
        return StudyError(f"{about}{error.what}", where=place(study, owner), hint=hint)
    return StudyError(error.what, where=where, hint=hint)


def _check_tokenizer(study: Study, corpus: Corpus, name: str, folder: Path) -> None:
    """Refuse a model whose tokenizer is not the one that made the corpus.

    Raises:
        StudyError: naming the first token that differs.
    """
    from mixopt.models.families.tokenizers import difference

    with naming(study, name):
        different = difference(folder, corpus.tokenizer_path.parent)
    if different:
        raise StudyError(
            f"its tokenizer is not that of the corpus: {different} there",
            where=place(study, name),
            hint=f"Build the corpus with `tokenizer: {{file: {folder / 'tokenizer.json'}}}`",
        )


def _check_own(study: Study, corpus: Corpus, models: ImportedModels) -> None:
    """Refuse models of our own format that are not of the shape that the promotion needs."""
    assert study.promote is not None
    model = study.promote.model.of_text(corpus.vocab_size, corpus.end_of_text_id)
    needed = dense_models(study.promote, model, first(tuple(models.experts), corpus.domains))
    unused = [domain for domain in models.experts if domain not in needed.domains]
    if unused:
        takes = f"{len(needed.domains)} dense experts" if needed.domains else "the seed alone"
        raise StudyError(
            f"{study.promote.upcycler} makes {model.experts} experts of {takes}",
            where=place(study, unused[0]),
            hint="Leave it out, or choose another upcycler or number of experts",
        )
    for name, folder in models.folders.items():
        with naming(study, name):
            shape = files.read_json(
                folder / SHAPE,
                lambda values: ModelConfig(**values),
                hint="Give a dense stage of a promotion",
            )
        _check_shape(study, name, shape, needed.shape)
        with naming(study, name):
            _check_weights(folder / WEIGHTS, needed.shape)


def _check_shape(study: Study, name: str, shape: ModelConfig, needed: ModelConfig) -> None:
    if not shape.dense:
        raise StudyError(
            f"it is a mixture of {shape.experts} experts, not a dense model",
            where=place(study, name),
            hint="Give a dense model, such as the stage `seed` of a promotion",
        )
    wrong = [key for key in COMPARED if getattr(shape, key) != getattr(needed, key)]
    if wrong:
        has, needs = (
            ", ".join(f"{key} {getattr(each, key)}" for key in wrong) for each in (shape, needed)
        )
        raise StudyError(
            f"it has {has}, and promote.model needs a dense model with {needs}",
            where=place(study, name),
            hint="Change promote.model, or give a model of that shape",
        )


def _check_weights(path: Path, shape: ModelConfig) -> None:
    """Refuse weights that are cut, or not those of a model of `shape`; only the header is read.

    Raises:
        CheckpointError: naming the file and the tensor.
    """
    import torch

    from mixopt.core.errors import CheckpointError
    from mixopt.models.families.checkpoint import tensor_shapes
    from mixopt.models.transformer import Transformer

    with torch.device("meta"):  # shapes alone
        expected = {n: tuple(t.shape[1:]) for n, t in Transformer(shape).state_dict().items()}
    held = tensor_shapes(path)
    for name in sorted(expected.keys() | held.keys()):
        has, needs = held.get(name), expected.get(name)
        if has != needs:
            raise CheckpointError(
                f"{name} is {_sized(has)}, and by {SHAPE} {_sized(needs)}",
                where=str(path),
                hint=f"Give the {SHAPE} that belongs to these weights",
            )


def _sized(size: tuple[int, ...] | None) -> str:
    return "absent" if size is None else f"of shape {list(size)}"
