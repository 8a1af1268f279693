"""What a study is refused for, before its folder keeps its settings or anything is trained."""

from __future__ import annotations

import difflib

from mixopt.core.errors import StudyError
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.baseline_curve import given_curve
from mixopt.pipelines.study.dense_models import dense_models
from mixopt.search import proposers
from mixopt.study.data import TrainingData
from mixopt.study.enqueued import enqueued_mixtures
from mixopt.study.locked import has_begun
from mixopt.study.settings import Study


def check(study: Study, data: TrainingData) -> None:
    """Refuse a study that could not be run to its end.

    The design is made only before the study begins: it depends on nothing that may change later.

    Raises:
        StudyError: naming the study file and the key.
    """
    study.mixture_objective()
    check_metrics(study)
    space = study.mixture_space(data)
    enqueued_mixtures(study, space)
    check_search(study)
    check_own_promotion(study)
    given_curve(study)
    if study.upcycling is not None and not isinstance(data, Corpus):
        raise StudyError(
            "our upcycling trains on a corpus, and the study has none",
            where=study.place("promote"),
            hint="Leave promote.upcycle out: your trainer begins with weights of its own"
            if study.upcycling.upcycle
            else "Name promote.trainer, or leave it out: `mixopt export --mixture` gives the "
            "mixture to your trainer",
        )
    check_processes(study)
    if study.upcycling is not None and study.upcycling.seed_model is None:
        assert isinstance(data, Corpus)
        check_promotion(study, data)  # else it depends on the models (`imported_checks`)
    if not has_begun(study):
        study.initial_design(space)


def check_metrics(study: Study) -> None:
    """Refuse directions of metrics that nothing weighs or guards: a typo would turn the search.

    Raises:
        StudyError: naming the metric, and the one that may be meant.
    """
    known = [*study.objective, *study.guardrails]
    for name in study.metrics:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise StudyError(
                f"neither the objective nor a guardrail has a metric {name!r}",
                where=study.place(f"metrics.{name}"),
                hint=f"Did you mean {near[0]!r}?" if near else f"Choose from {', '.join(known)}",
            )


def kept_domains(study: Study) -> tuple[str, ...]:
    """Validation domains whose tokens' losses the trials of `study` keep for its proposer.

    Raises:
        StudyError: the proposer needs them, and the objective weighs what is no such domain.
    """
    if not proposers.find(study.search.proposer).needs_token_losses:
        return ()
    metrics = study.mixture_objective().metrics
    for name in metrics:
        if not name.startswith("bpb/"):
            raise StudyError(
                f"the proposer {study.search.proposer!r} cannot weigh {name!r}",
                where=study.place("objective"),
                hint="It needs the tokens of validation domains; choose another proposer",
            )
    return tuple(name.removeprefix("bpb/") for name in metrics)


def check_search(study: Study) -> None:
    """Refuse a proposer that cannot work for this study.

    Raises:
        StudyError: it needs trials that would be pruned, or tokens that no trial can keep.
    """
    kept_domains(study)
    if study.search.pruner is not None and study.elsewhere:
        raise StudyError(
            "nothing stops a training that runs elsewhere",
            where=study.place("search.pruner"),
            hint="Leave it out",
        )
    name = study.search.proposer
    if study.search.pruner is not None and not proposers.find(name).survives_pruning:
        raise StudyError(
            f"the proposer {name!r} needs trials that others beat as well",
            where=study.place("search.pruner"),
            hint="Leave search.pruner out, or choose another proposer",
        )


# where a part says that its settings are wrong → the key of `promote` that holds them
PARTS = {
    "settings": "upcycler_settings",
    "router": "router_start",
    "router_settings": "router_start_settings",
}


def in_a_study(where: str) -> str:
    """The key of `promote` that an upcycling calls `where`.

    >>> in_a_study("settings.share")
    'upcycler_settings.share'
    """
    first, dot, rest = where.partition(".")
    return PARTS.get(first, first) + dot + rest


def check_own_promotion(study: Study) -> None:
    """Refuse a trainer of the full run that is not there.

    Raises:
        StudyError: a file of it is not there, its command cannot be read, or its module is absent.
    """
    if study.promote is not None and study.promote.trainer is not None:
        with study.naming("promote"):
            study.promote.trainer.identity(study.path.parent)


def check_processes(study: Study) -> None:
    """Refuse a full run that several processes cannot share.

    Raises:
        StudyError: they would share a GPU, or its router needs whole batches.
    """
    promote = study.upcycling
    if promote is None or promote.resources.processes == 1:
        return
    if promote.resources.gpus is None and study.ray.gpus_per_trial not in (0, 1):
        raise StudyError(
            f"of several processes each takes one whole GPU, and ray.gpus_per_trial is "
            f"{study.ray.gpus_per_trial:g}",
            where=study.place("promote.resources"),
            hint="Set promote.resources.gpus: 1, or 0 to train on CPUs",
        )
    if promote.seed_model is None:  # else it depends on the model (`imported_checks`)
        check_router(study)


def check_router(study: Study) -> None:
    """Refuse a router of our model whose losses depend on how many processes share a batch.

    Raises:
        StudyError: there are several.
    """
    from mixopt.models.routers.base import router_class  # imports torch

    promote = study.upcycling
    assert promote is not None
    alone = promote.resources.processes == 1
    if not alone and router_class(promote.model.router).reads_whole_batch:
        raise StudyError(
            f"the router {promote.model.router!r} fills its experts from whole batches: its losses "
            "would depend on how many processes share one",
            where=study.place("promote.model.router"),
            hint="Choose another router, or promote.resources.processes: 1",
        )


def check_promotion(study: Study, corpus: Corpus) -> None:
    """Refuse a promotion that could not be upcycled.

    Raises:
        StudyError: so many experts cannot be made of the corpus' domains, or there is no upcycler
            of that name.
    """
    from mixopt.models.upcycling.base import make_upcycler  # imports torch
    from mixopt.models.upcycling.merges import make_merge
    from mixopt.models.upcycling.router_starts import make_router_start
    from mixopt.models.upcycling.states import check_router_start, check_shapes

    if study.upcycling is None:
        return
    model = study.upcycling.model.of_text(corpus.vocab_size, corpus.end_of_text_id)
    try:
        method = study.upcycling.method
        dense = dense_models(study.upcycling, model, corpus.domains)
        check_shapes(dense.shape, model)
        make_merge(method.merge, method.merge_settings)
        upcycler = make_upcycler(method.upcycler, method.settings)
        start = make_router_start(method.router_start, method.router_start_settings)
        start.check(upcycler.sources(corpus.domains[: model.experts], model.experts))
        check_router_start(method, model)
    except StudyError as error:
        raise StudyError(
            error.what,
            where=f"{study.path}: promote: {in_a_study(error.where)}",
            hint=error.hint or "Correct it, or write `promote: null`",
        ) from error
