"""The space a mixture may move in: domains, bounds, token availability, linear constraints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real

import numpy as np

from mixopt.core.errors import MixtureError
from mixopt.core.formatting import count
from mixopt.core.hit_and_run import hit_and_run
from mixopt.core.mixture import Mixture
from mixopt.core.polytope import FEASIBLE, Polytope, project_box

ON_BOUND = 1e-4  # a weight this close to a bound counts as held by it
SHOWN = 5  # bounds that an error names
# of an even share: what a domain that a given baseline leaves out has in the centre of the draws.
# Without it a production mixture would keep every new domain out of the design for good.
LEFT_OUT = 0.1


@dataclass(frozen=True)
class LinearConstraint:
    """sum(coefficients[domain] * weight[domain]) <= at_most."""

    coefficients: Mapping[str, float]
    at_most: float

    def __str__(self) -> str:
        terms = " + ".join(
            name if value == 1 else f"{value:g}·{name}" for name, value in self.coefficients.items()
        )
        return f"{terms} ≤ {self.at_most:g}".replace("+ -", "- ")


@dataclass(frozen=True)
class MixtureSpace:
    """Every mixture that may be trained on.

    A domain's weight lies between `lower` (default 0) and `upper` (default 1); where token
    availability is given, also below max_epochs x available / budget, so that the promoted run
    repeats no domain more often than allowed. Mixtures that methods take may have their domains in
    any order: domains go by name, and one that a mixture lacks has weight 0.

    >>> natural = Mixture.of({"web": 3, "code": 1})
    >>> space = MixtureSpace(("web", "code"), natural, upper={"code": 0.2})
    >>> space.contains(natural), space.contains(Mixture.of({"code": 1, "web": 9}))
    (False, True)

    Attributes:
        domains: m names.
        natural: the mixture proportional to token counts, kept in the order of `domains`; it need
            not lie in the space.
        lower: least weight by domain, 0 to 1.
        upper: greatest weight by domain, 0 to 1.
        available_tokens: training tokens by domain.
        max_epochs: how often the promoted run may repeat a domain.
        budget_tokens: training tokens of the promoted run.
        linear: further constraints.
        kl_penalty: what a proposer adds to the objective per nat of KL(mixture || reference), in
            the objective's unit: a leash to what is known (olmix), where a bound is a wall.
        baseline: what others are compared with, if that is not the natural mixture; kept in the
            order of `domains`, and need not lie in the space either.

    Raises:
        MixtureError: no mixture satisfies the constraints (naming what clashes), or one of them
            names an unknown domain or is no number from 0 to 1; or `kl_penalty` would be infinite,
            for `baseline` leaves a domain out.
    """

    domains: tuple[str, ...]
    natural: Mixture
    lower: Mapping[str, float] = field(default_factory=dict)
    upper: Mapping[str, float] = field(default_factory=dict)
    available_tokens: Mapping[str, int] | None = None
    max_epochs: float | None = None
    budget_tokens: int | None = None
    linear: Sequence[LinearConstraint] = ()
    kl_penalty: float = 0.0
    baseline: Mixture | None = None

    def __post_init__(self) -> None:
        if isinstance(self.domains, str):
            raise MixtureError(
                f"{self.domains!r} is one name", where="domains", hint="Give a tuple of names"
            )
        object.__setattr__(self, "domains", tuple(self.domains))  # a list is as good
        object.__setattr__(self, "natural", self._reordered(self.natural, "natural"))
        if self.baseline is not None:
            object.__setattr__(self, "baseline", self._reordered(self.baseline, "baseline"))
        named = {
            "lower": self.lower,
            "upper": self.upper,
            "available_tokens": self.available_tokens or {},
            **{f"linear[{i}]": c.coefficients for i, c in enumerate(self.linear)},
        }
        for where, names in named.items():
            for name in names:
                if name not in self.domains:
                    raise MixtureError(
                        f"no domain is called {name!r}",
                        where=where,
                        hint=f"Choose from {', '.join(self.domains)}",
                    )
        for side, bounds in (("lower", self.lower), ("upper", self.upper)):
            for name, bound in bounds.items():
                _check_bound(bound, f"{side}.{name}")
        if not (np.isfinite(self.kl_penalty) and self.kl_penalty >= 0):
            raise MixtureError(
                f"{self.kl_penalty} is not a number of at least 0", where="kl_penalty"
            )
        if self.max_epochs is not None and not (self.available_tokens and self.budget_tokens):
            raise MixtureError(
                "max_epochs needs the available tokens and the promoted run's budget",
                where="max_epochs",
            )
        self._check_finite_penalty()
        self._check_feasible()

    @property
    def reference(self) -> Mixture:
        """The baseline, or else natural: what designs lie around and KL is measured from."""
        return self.natural if self.baseline is None else self.baseline

    @cached_property
    def caps(self) -> Mapping[str, float]:
        """Greatest weight that token availability allows, by domain (may exceed 1)."""
        if self.max_epochs is None or self.available_tokens is None or self.budget_tokens is None:
            return {}
        scale = self.max_epochs / self.budget_tokens
        return {name: scale * tokens for name, tokens in self.available_tokens.items()}

    @cached_property
    def polytope(self) -> Polytope:
        """The same space on bare arrays."""
        matrix = [[c.coefficients.get(d, 0.0) for d in self.domains] for c in self.linear]
        return Polytope(
            lower=np.array([max(0.0, self.lower.get(d, 0.0)) for d in self.domains]),
            upper=np.array(
                [min(1.0, self.upper.get(d, 1.0), self.caps.get(d, 1.0)) for d in self.domains]
            ),
            matrix=np.array(matrix, dtype=float).reshape(len(matrix), len(self.domains)),
            limits=np.array([c.at_most for c in self.linear], dtype=float),
        )

    @property
    def unconstrained(self) -> MixtureSpace:
        """The whole simplex over the same domains."""
        return MixtureSpace(self.domains, self.natural, baseline=self.baseline)

    def kl(self, weights: np.ndarray) -> np.ndarray:
        """(n,) KL(mixture || reference) of `weights` (n, m), in nats.

        Infinite where a mixture uses a domain that the reference has nothing of.
        """
        used = weights > 0
        with np.errstate(divide="ignore"):
            ratio = np.log(np.where(used, weights, 1.0)) - np.where(
                used, np.log(self.reference.array), 0.0
            )
        return np.asarray((weights * ratio).sum(axis=1))

    def penalty(self, weights: np.ndarray) -> np.ndarray:
        """(n,) kl_penalty x KL: what `weights` (n, m) cost beyond their objective."""
        if self.kl_penalty == 0:
            return np.zeros(len(weights))
        return self.kl_penalty * self.kl(weights)

    def own_penalty(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the same, for proposers that ask for `log_feasible` as well."""
        return self.penalty(weights)

    def log_feasible(self, weights: np.ndarray) -> np.ndarray:
        """(n,) log of the probability that what must not get worse does not; 0: nothing must."""
        return np.zeros(len(weights))

    def contains(self, mixture: Mixture, tolerance: float = 1e-6) -> bool:
        """Whether `mixture` breaks no constraint by more than `tolerance`.

        One that uses a domain of which the space knows nothing is not in it.
        """
        weights = _weights(mixture)
        if any(weight > tolerance for name, weight in weights.items() if name not in self.domains):
            return False
        row = np.array([[weights.get(name, 0.0) for name in self.domains]])
        return bool(self.polytope.excess(row)[0] <= tolerance)

    def mixture(self, weights: np.ndarray) -> Mixture:
        """The mixture of this space nearest to `weights` (m,)."""
        return Mixture.from_array(self.domains, self.project(weights))

    def project(self, weights: np.ndarray) -> np.ndarray:
        """The nearest feasible weights (..., m), exactly (see `Polytope.project`)."""
        rows = np.asarray(weights, dtype=float).reshape(-1, len(self.domains))
        return self.polytope.project(rows).reshape(np.shape(weights))

    def sample_dirichlet(
        self,
        n: int,
        rng: np.random.Generator,
        center: Mixture | None = None,
        strength: float | np.ndarray = 1.0,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Feasible weights (n, m): Dirichlet draws around `center`, moved into the space.

        alpha = strength * center**temperature / sum(center**temperature), as RegMix draws its
        swarm (2407.01492). A draw outside the bounds is moved onto them, never thrown away, so that
        tight bounds cost no time. One that then breaks a linear constraint is replaced by a draw
        from the same density inside (`mixopt.core.hit_and_run`).

        Args:
            n: how many.
            rng: where the randomness comes from.
            center: mean of the draws; `reference` by default, with a little of each domain that a
                given baseline leaves out.
            strength: sum of alpha, one number or (n,); small ones give sparse mixtures.
            temperature: below 1 it lifts the rare domains of `center`.
        """
        base = self._row(center or self._drawn_around) ** temperature
        alpha = np.multiply.outer(np.broadcast_to(strength, (n,)), base / base.sum())
        alpha = np.maximum(alpha, 1e-9)
        # log G(a) = log G(a + 1) + log(U) / a: plain gamma draws all underflow to 0 for small a
        draws = np.log(rng.gamma(alpha + 1)) + np.log(1 - rng.random(alpha.shape)) / alpha
        draws = np.exp(draws - draws.max(axis=1, keepdims=True))
        draws = draws / draws.sum(axis=1, keepdims=True)
        return self._moved_inside(draws, alpha, lambda: int(rng.integers(2**32)))

    def sample_sobol(self, n: int, seed: int) -> np.ndarray:
        """Feasible weights (n, m) spread evenly: a scrambled Sobol sequence on the simplex.

        Points fill the simplex above the lower bounds. Those beyond an upper bound are moved onto
        it; those that then break a linear constraint are replaced by uniform draws inside.
        """
        from scipy.stats import qmc

        m = len(self.domains)
        power = max(0, int(n - 1).bit_length())
        cube = qmc.Sobol(m, scramble=True, rng=seed).random_base2(power)[:n]
        spacings = -np.log(np.clip(cube, 1e-12, 1 - 1e-12))
        simplex = spacings / spacings.sum(axis=1, keepdims=True)
        lower = self.polytope.lower
        draws = lower + max(0.0, 1 - lower.sum()) * simplex
        return self._moved_inside(draws, np.ones_like(draws), lambda: seed)

    def _moved_inside(
        self, draws: np.ndarray, alpha: np.ndarray, key: Callable[[], int]
    ) -> np.ndarray:
        """`draws` (n, m) moved onto the bounds; drawn anew where a linear constraint is broken.

        Moving those too would heap them on the border, or on one point where a sum is fixed.
        """
        near = project_box(draws, self.polytope.lower, self.polytope.upper)
        broken = self.polytope.excess(near) > FEASIBLE
        if self.linear and broken.any():
            near[broken] = hit_and_run(self.polytope, near[broken], alpha[broken], key())
        return near

    def vertices(self) -> np.ndarray:
        """Feasible weights (<= m, m): for each domain the vertex with the most of it.

        Where several have the most, the one that fills the rest with the most abundant domains.
        Not all vertices: a box on the simplex has exponentially many.
        """
        tie_break = 1e-3 * self.natural.array
        vertices = [
            self.polytope.minimum(-np.eye(len(self.domains))[j] - tie_break)
            for j in range(len(self.domains))
        ]
        rows = np.array([vertex for vertex in vertices if vertex is not None])
        _, first = np.unique(rows.round(9), axis=0, return_index=True)
        return rows[np.sort(first)]

    def binding(self, mixture: Mixture, tolerance: float = ON_BOUND) -> list[str]:
        """The constraints that hold `mixture`, a sentence each; a weight of 0 is not one."""
        return [why for why, _ in self.held_by(mixture, tolerance)]

    def held_by(
        self, mixture: Mixture, tolerance: float = ON_BOUND
    ) -> list[tuple[str, MixtureSpace]]:
        """The constraints that hold `mixture`: a sentence, and the space without that one.

        Raises:
            MixtureError: `mixture` uses a domain that the space does not have.
        """
        held = []
        box, weights = self.polytope, self._row(mixture)
        for j, name in enumerate(self.domains):
            weight = weights[j]
            if box.lower[j] > 0 and weight <= box.lower[j] + tolerance:
                why = f"{name}: at its lower bound {box.lower[j]:.2f}"
                held.append((why, replace(self, lower=_without(self.lower, name))))
            elif box.upper[j] < 1 and weight >= box.upper[j] - tolerance:
                why = f"{name}: at its upper bound {box.upper[j]:.2f}{self._why_upper(name)}"
                held.append((why, self._without_upper(name)))
        for i, (constraint, row) in enumerate(zip(self.linear, box.matrix, strict=True)):
            if row @ weights >= constraint.at_most - tolerance:
                rest = [*self.linear[:i], *self.linear[i + 1 :]]
                held.append((f"{constraint}: reached", replace(self, linear=rest)))
        return held

    def _row(self, mixture: Mixture) -> np.ndarray:
        """(m,) weights of `mixture` in the order of the domains; 0 for one that it lacks."""
        weights = _weights(mixture)
        unknown = [name for name in weights if weights[name] > 0 and name not in self.domains]
        if unknown:
            raise MixtureError(
                f"there is no domain {unknown[0]!r}", hint=f"Choose from {', '.join(self.domains)}"
            )
        return np.array([weights.get(name, 0.0) for name in self.domains])

    @cached_property
    def _drawn_around(self) -> Mixture:
        """`reference`, with a share of `LEFT_OUT` for what a given baseline leaves out."""
        if self.baseline is None or min(self.baseline.weights) > 0:
            return self.reference
        weights = self.baseline.array
        least = LEFT_OUT / len(weights)
        return Mixture.from_array(self.domains, np.where(weights > 0, weights, least))

    def _check_finite_penalty(self) -> None:
        if self.baseline is None or self.kl_penalty == 0:
            return
        absent = [d for d, w in self.baseline.as_dict().items() if w == 0]
        if absent:
            raise MixtureError(
                f"the baseline has nothing of {', '.join(absent)}, so the penalty of every "
                "mixture with some of it is infinite",
                where="kl_penalty",
                hint="Set it to 0, or give the baseline a little of each domain",
            )

    def _reordered(self, mixture: Mixture, kind: str) -> Mixture:
        """`mixture` over `domains`, in their order; `kind` is what an error calls it."""
        weights = _weights(mixture)
        for names, others, what in (
            (self.domains, mixture.domains, "has no weight for the domain"),
            (mixture.domains, self.domains, "names a domain that the space does not have:"),
        ):
            other = [name for name in names if name not in others]
            if other:
                raise MixtureError(
                    f"the {kind} mixture {what} {other[0]!r}",
                    where=kind,
                    hint="Give it the domains of the space, with weight 0 where there is no text",
                )
        if mixture.domains == self.domains:
            return mixture
        return Mixture(self.domains, tuple(weights[name] for name in self.domains))

    def _without_upper(self, name: str) -> MixtureSpace:
        """The space without what bounds `name` from above: its upper bound, or scarce data."""
        if self.available_tokens is None or self.caps.get(name, 1.0) > self.upper.get(name, 1.0):
            return replace(self, upper=_without(self.upper, name))
        enough = math.ceil((self.budget_tokens or 0) / (self.max_epochs or 1.0))
        plenty = {**self.available_tokens, name: enough}
        return replace(self, available_tokens=plenty)

    def _why_upper(self, name: str) -> str:
        cap = self.caps.get(name, np.inf)
        if cap > self.upper.get(name, 1.0) or self.available_tokens is None:
            return ""
        return f" ({self.max_epochs:g} epochs of {count(self.available_tokens[name])} tokens)"

    def _check_feasible(self) -> None:
        box = self.polytope
        for j, name in enumerate(self.domains):
            if box.lower[j] > box.upper[j]:
                raise MixtureError(
                    f"its lower bound {box.lower[j]:.4g} lies above its upper bound "
                    f"{box.upper[j]:.4g}{self._why_upper(name)}",
                    where=f"bounds.{name}",
                    hint="Lower the one or raise the other",
                )
        if box.lower.sum() > 1 + 1e-9:
            bounds = ", ".join(
                f"{d} {b:.3g}" for d, b in zip(self.domains, box.lower, strict=True) if b > 0
            )
            raise MixtureError(
                f"the lower bounds sum to {box.lower.sum():.4g}, more than 1: {bounds}",
                where="bounds",
                hint="Lower some of them",
            )
        if box.upper.sum() < 1 - 1e-9:
            uppers = [
                f"{d} {b:.3g}{self._why_upper(d)}"
                for d, b in zip(self.domains, box.upper, strict=True)
            ]
            more = f", and {len(uppers) - SHOWN} more" if len(uppers) > SHOWN else ""
            bounds = ", ".join(uppers[:SHOWN]) + more
            raise MixtureError(
                f"the upper bounds sum to {box.upper.sum():.4g}, less than 1: {bounds}",
                where="bounds" if self._bounds_too_low() else "max_epochs",
                hint="Raise some of them"
                + bool(self.caps) * ", allow more epochs, or shrink the budget of the run",
            )
        if self.linear and box.minimum(np.zeros(len(self.domains))) is None:
            raise self._clash()

    def _bounds_too_low(self) -> bool:
        """Whether the upper bounds sum to less than 1 however often a domain may be seen."""
        return sum(min(1.0, self.upper.get(name, 1.0)) for name in self.domains) < 1 - 1e-9

    def _clash(self) -> MixtureError:
        """Which linear constraints cannot hold: a minimal clashing set, found by leaving out."""
        kept = list(range(len(self.linear)))
        for i in list(kept):
            rest = [k for k in kept if k != i]
            box = self.polytope
            smaller = Polytope(box.lower, box.upper, box.matrix[rest], box.limits[rest])
            if smaller.minimum(np.zeros(len(self.domains))) is None:
                kept = rest
        clash = " and ".join(f"({self.linear[k]})" for k in kept)
        return MixtureError(
            f"no mixture within the bounds satisfies {clash}",
            where="linear",
            hint="Loosen one of these constraints or the bounds of their domains",
        )


def _weights(mixture: Mixture) -> dict[str, float]:
    if not isinstance(mixture, Mixture):
        raise MixtureError(
            f"{mixture!r} is not a Mixture", hint="Make one with Mixture.of({domain: weight, …})"
        )
    return mixture.as_dict()


def _check_bound(bound: float, where: str) -> None:
    if not (isinstance(bound, Real) and 0 <= bound <= 1 + FEASIBLE):
        raise MixtureError(
            f"{bound!r} is not a number from 0 to 1", where=where, hint="Write 0.2 for 20 %"
        )


def _without(bounds: Mapping[str, float], name: str) -> dict[str, float]:
    return {key: value for key, value in bounds.items() if key != name}
