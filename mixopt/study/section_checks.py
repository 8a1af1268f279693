"""How the sections of a study file have to fit one another.

Each check is of one key, given the keys above it. A key that is not valid itself is absent there.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ValidationInfo

from mixopt.core.formatting import count
from mixopt.study.data import DomainTokens
from mixopt.study.own_trainer import Trainer
from mixopt.study.sections import Proxy, Search, Select, TaskFile


def corpus_or_domains(
    domains: dict[str, DomainTokens] | None, info: ValidationInfo
) -> dict[str, DomainTokens] | None:
    """A study names a corpus or declares its domains.

    Raises:
        ValueError: it does both, or neither.
    """
    if "corpus" in info.data and (domains is None) == (info.data["corpus"] is None):
        raise ValueError("name a corpus or the domains' tokens" + (", not both" if domains else ""))
    return domains


def reads_the_domains(trainer: Trainer | None, info: ValidationInfo) -> Trainer | None:
    """Declared domains are read by a trainer of the user's.

    Raises:
        ValueError: there is none.
    """
    if trainer is None and info.data.get("domains") is not None:
        raise ValueError("domains without a corpus need a trainer of your own that reads them")
    return trainer


def some_weight(weights: dict[str, float]) -> dict[str, float]:
    """An objective weighs something.

    Raises:
        ValueError: all its weights are 0.
    """
    if not any(weights.values()):
        raise ValueError("every weight is 0, so nothing would be optimized")
    return weights


def weights_count_what_is_better(
    metrics: dict[str, Literal["lower", "higher"]], info: ValidationInfo
) -> dict[str, Literal["lower", "higher"]]:
    """A metric that is better higher is weighed as it is.

    Raises:
        ValueError: its weight in the objective is negative.
    """
    for name, weight in info.data.get("objective", {}).items():
        if metrics.get(name) == "higher" and weight < 0:
            raise ValueError(f"{name!r} is better higher, so its weight is not to be negative")
    return metrics


def tasks_of_our_proxies(tasks: dict[str, TaskFile], info: ValidationInfo) -> dict[str, TaskFile]:
    """Only our proxies answer questions.

    Raises:
        ValueError: there are tasks beside a trainer of the user's.
    """
    if tasks and info.data.get("trainer") is not None:
        raise ValueError("only our proxies answer them; let your trainer give the metrics")
    return tasks


def names_of_tasks(tasks: dict[str, TaskFile]) -> dict[str, TaskFile]:
    """Names of tasks are names of files and metrics.

    Raises:
        ValueError: one holds other characters.
    """
    for name in tasks:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"a task's name is of letters, digits and ._-, not {name!r}")
    return tasks


def shape_of_our_proxies(proxy: Proxy, info: ValidationInfo) -> Proxy:
    """Model and recipe are those of our proxies; a trainer of the user's has its own.

    Raises:
        ValueError: they are given for the other.
    """
    if info.data.get("trainer") is not None:
        for key in ("model", "recipe"):
            if key in proxy.model_fields_set:
                raise ValueError(f"{key}: your trainer has its own; give it trainer.settings")
    elif proxy.params is not None:
        raise ValueError("params: our proxies have those of proxy.model")
    return proxy


def at_another_size(select: Select, info: ValidationInfo) -> Select:
    """The size of `select.at` is another than that of the proxies, with as many tokens or more.

    Raises:
        ValueError: it is not, or its shape is given for the other kind of trainer.
    """
    at, proxy = select.at, info.data.get("proxy")
    if at is None or proxy is None:
        return select
    own = info.data.get("trainer") is not None
    if own and at.model is not None:
        raise ValueError("at.model: your trainer has its own; write at.params or at.tokens")
    if not own and at.params is not None:
        raise ValueError("at.params: our proxies have those of at.model")
    same = (proxy.params, proxy.tokens) if own else (proxy.model, proxy.tokens)
    size = at.params if own else at.model
    if (size or same[0], at.tokens or same[1]) == same:
        raise ValueError("at: the size is that of the proxies; write more tokens or a model")
    if at.tokens is not None and at.tokens < proxy.tokens:
        raise ValueError(f"at.tokens: are fewer than the proxies' {count(proxy.tokens)}")
    return select


def evaluated_on_the_way(search: Search, info: ValidationInfo) -> Search:
    """A pruner sees an evaluation after its warm-up and before the end of a training.

    Raises:
        ValueError: our proxies have none there.
    """
    proxy = info.data.get("proxy")
    if info.data.get("trainer") is not None:
        return search  # it reports its evaluations as it likes
    if search.pruner is not None and proxy is not None:
        evaluations = proxy.recipe.evaluations
        last = (evaluations - 1) / evaluations
        if last < max(search.pruner.warmup, 1e-9):
            raise ValueError(
                f"pruner: no trial would ever be pruned, for of {evaluations} evaluations none "
                f"comes after a warm-up of {search.pruner.warmup:g} and before the end; raise "
                "proxy.recipe.evaluations"
            )
    return search
