"""The priors file of `mixopt fit`: the natural mixture, and where the mixture may move.

natural: {web: 0.6, code: 0.4}     # weights or token counts; olmix's relative_sizes is the same
available_tokens: {code: 20B}      # with budget and max_epochs: how much of a domain there is
budget: 100B                       # tokens of the run that the mixture is for
max_epochs: 4                      # how often it may see a domain
bounds: {web: [0.2, 0.7]}
linear: [{weights: {web: 1, code: 1}, at_most: 0.9}]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mixopt.core.counts import parse_count
from mixopt.core.errors import MixoptError, RunsError
from mixopt.core.mixture import Mixture
from mixopt.core.space import LinearConstraint, MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.io.yaml_lines import Document, Place
from mixopt.offline.layouts import listed
from mixopt.offline.names import suggestion
from mixopt.study.sections import Linear, Section, Share, Tokens

SAFE_EPOCHS = 4.0  # repeating data this often costs next to nothing (2305.16264)


def _size(value: Any) -> Any:
    """A share, or a token count that may be written short; a share is not to be rounded."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value if (found := parse_count(value)) is None else found


Size = Annotated[float, BeforeValidator(_size), Field(ge=0)]


class Priors(Section):
    """The contents of a priors file; every key is optional."""

    natural: dict[str, Size] | None = None
    """The natural mixture, as weights or token counts; the mean of all runs where not given."""
    relative_sizes: dict[str, Size] | None = None
    """Another name of `natural`."""
    available_tokens: dict[str, Tokens] | None = None
    """Training tokens that there are of a domain."""
    token_counts: dict[str, Tokens] | None = None
    """Another name of `available_tokens`."""
    bounds: dict[str, tuple[Share, Share]] = Field(default_factory=dict)
    """Least and largest weight of a domain."""
    max_epochs: float | None = Field(default=None, gt=0)
    """How often the run that the mixture is for may see a domain."""
    budget: Tokens | None = None
    """Tokens of the run that the mixture is for."""
    linear: list[Linear] = Field(default_factory=list)
    """Further constraints, such as: web and code together at most .7."""
    kl_penalty: float = Field(default=0.0, ge=0)
    """What a nat of KL(mixture || natural) costs, in the objective's unit (olmix)."""


class Wrapped(Section):
    """A file that holds all of it under `priors`, as olmix's do."""

    priors: Priors


def read_space(path: Path | None, table: TrialTable) -> tuple[MixtureSpace, list[str]]:
    """The space over the domains of `table` that the priors at `path` describe, and its notes.

    The whole simplex around the mean mixture of all runs if `path` is None.

    Raises:
        RunsError: the file is not valid (naming the line), names an unknown domain, or its
            constraints clash.
    """
    domains = table.domains
    mean = Mixture.from_array(domains, table.final.weights.mean(axis=0))
    guess = "The natural mixture is taken as the mean of all runs; a priors file can give it."
    if path is None:
        return MixtureSpace(domains, mean), [guess]
    file = Document(path, RunsError)
    wrapped = isinstance(file.values, dict) and set(file.values) == {"priors"}
    top = ("priors",) if wrapped else ()
    priors = file.validate(Wrapped).priors if wrapped else file.validate(Priors)
    _check_names(file, priors, domains, top)
    sizes = _one(file, priors, "natural", "relative_sizes", top)
    available = _one(file, priors, "available_tokens", "token_counts", top)
    notes = []
    if sizes is None and available is not None and set(available) == set(domains):
        sizes = available
        notes.append("The natural mixture is taken as proportional to the available tokens.")
    if sizes is None:
        natural = mean
        notes.append(guess)
    else:
        absent = [domain for domain in domains if domain not in sizes]
        if absent:
            notes.append(f"The priors give no size of {listed(absent)}: 0 in the natural mixture.")
        if not sum(sizes.values()) > 0:
            raise RunsError(
                "all sizes are 0", where=file.where((*top, "natural")), hint="Give shares or tokens"
            )
        natural = Mixture.of({domain: float(sizes.get(domain, 0.0)) for domain in domains})
    epochs = priors.max_epochs
    if epochs is not None and not (available and priors.budget):
        raise RunsError(
            "needs the available tokens and the budget of the run that the mixture is for",
            where=file.where((*top, "max_epochs")),
            hint="Add available_tokens and budget",
        )
    if epochs is None and available and priors.budget:
        epochs = SAFE_EPOCHS
        notes.append(f"No domain may be seen more than {epochs:g} times (max_epochs).")
    if (priors.budget is None) != (available is None):
        given, missing = (
            ("available_tokens", "budget")
            if priors.budget is None
            else ("budget", "available_tokens")
        )
        notes.append(f"{given} of the priors bounds no domain without {missing}.")
    try:
        space = MixtureSpace(
            domains,
            natural,
            lower={domain: low for domain, (low, _) in priors.bounds.items()},
            upper={domain: high for domain, (_, high) in priors.bounds.items()},
            available_tokens={k: int(v) for k, v in available.items()} if available else None,
            max_epochs=epochs,
            budget_tokens=priors.budget,
            linear=tuple(LinearConstraint(dict(c.weights), c.at_most) for c in priors.linear),
            kl_penalty=priors.kl_penalty,
        )
    except MixoptError as problem:
        key = problem.where.split(".", 1)  # a domain's name may hold dots
        raise RunsError(problem.what, where=file.where((*top, *key)), hint=problem.hint) from None
    if space.polytope.excess(natural.array[None])[0] > 1e-6:
        notes.append("The natural mixture itself violates the constraints.")
    return space, notes


def _check_names(file: Document, priors: Priors, domains: Sequence[str], top: Place) -> None:
    named: list[tuple[Place, list[str]]] = [
        ((key,), list(getattr(priors, key) or {}))
        for key in ("natural", "relative_sizes", "available_tokens", "token_counts", "bounds")
    ]
    for index, constraint in enumerate(priors.linear):
        named.append((("linear", index, "weights"), list(constraint.weights)))
    for place, names in named:
        for name in names:
            if name not in domains:
                raise RunsError(
                    f"no run has a domain {name!r}",
                    where=file.where((*top, *place, name)),
                    hint=suggestion(name, domains, most=20),
                )


def _one(
    file: Document, priors: Priors, name: str, other: str, top: Place
) -> dict[str, float] | None:
    first, second = getattr(priors, name), getattr(priors, other)
    if first is not None and second is not None:
        raise RunsError(
            f"is another name of {name!r}, which is there too",
            where=file.where((*top, other)),
            hint="Keep one of them",
        )
    return dict(first) if first is not None else dict(second) if second is not None else None
