"""A mixture space samples, projects and explains itself, however tight it is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mixopt.core.errors import MixtureError
from mixopt.core.mixture import Mixture
from mixopt.core.space import LinearConstraint, MixtureSpace


def named(m: int) -> tuple[str, ...]:
    return tuple(f"d{i}" for i in range(m))


@st.composite
def spaces(draw: st.DrawFn) -> MixtureSpace:
    """Feasible spaces of 2 to 20 domains, from wide to a single point, some with linear cuts."""
    m = draw(st.integers(2, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inside = rng.dirichlet(np.full(m, draw(st.sampled_from([0.3, 1.0, 10.0]))))
    width = draw(st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    lower = np.maximum(0, inside - width * rng.random(m))
    upper = np.minimum(1, inside + width * rng.random(m))
    rows = rng.normal(size=(draw(st.integers(0, 3)), m))
    linear = [
        LinearConstraint(dict(zip(named(m), row.tolist(), strict=True)), float(row @ inside) + 0.01)
        for row in rows
    ]
    names = named(m)
    return MixtureSpace(
        names,
        Mixture.from_array(names, rng.dirichlet(np.ones(m))),
        lower=dict(zip(names, lower.tolist(), strict=True)),
        upper=dict(zip(names, upper.tolist(), strict=True)),
        linear=linear,
    )


@settings(max_examples=25, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_every_sample_projection_and_vertex_is_feasible(space: MixtureSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = len(space.domains)
    for points in (
        space.sample_dirichlet(16, rng, strength=np.geomspace(0.1, 50, 16), temperature=0.5),
        space.sample_sobol(16, seed % 1000),
        space.project(rng.normal(size=(4, m))),
        space.vertices(),
    ):
        assert len(points) >= 1
        assert space.polytope.excess(points).max() < 1e-8


@settings(max_examples=25, deadline=None)
@given(spaces(), st.integers(0, 2**32 - 1))
def test_the_projection_is_the_nearest_feasible_point(space: MixtureSpace, seed: int) -> None:
    # p is nearest to x exactly when (x - p)·(z - p) <= 0 for every feasible z
    rng = np.random.default_rng(seed)
    x = rng.normal(0.1, 0.5, len(space.domains))
    p = space.project(x)
    others = np.concatenate([space.vertices(), space.sample_sobol(32, 0)])
    assert ((others - p) @ (x - p)).max() < 1e-7


@settings(max_examples=30, deadline=None)
@given(spaces())
def test_feasible_points_are_their_own_projection(space: MixtureSpace) -> None:
    points = space.sample_sobol(8, 0)
    np.testing.assert_allclose(space.project(points), points, atol=1e-9)


def test_the_projection_agrees_with_a_general_solver() -> None:
    names = named(4)
    space = MixtureSpace(
        names,
        Mixture.uniform(names),
        lower={"d0": 0.1},
        upper={"d1": 0.3},
        linear=[LinearConstraint({"d2": 1.0, "d3": 2.0}, 0.6)],
    )
    x = np.array([-0.2, 0.9, 0.3, 0.8])
    box = space.polytope
    slow = minimize(
        lambda r: ((r - x) ** 2).sum(),
        np.full(4, 0.25),
        method="SLSQP",
        bounds=list(zip(box.lower, box.upper, strict=True)),
        constraints=[
            {"type": "eq", "fun": lambda r: r.sum() - 1},
            {"type": "ineq", "fun": lambda r: box.limits - box.matrix @ r},
        ],
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(space.project(x), slow.x, atol=1e-6)


def test_vertices_of_the_whole_simplex_are_the_single_domains() -> None:
    space = MixtureSpace(named(3), Mixture.of({"d0": 5, "d1": 3, "d2": 2}))
    np.testing.assert_allclose(space.vertices(), np.eye(3), atol=1e-12)


def test_dirichlet_draws_centre_on_the_natural_mixture() -> None:
    natural = Mixture.of({"d0": 6, "d1": 3, "d2": 1})
    draws = MixtureSpace(named(3), natural).sample_dirichlet(
        20_000, np.random.default_rng(0), strength=2.0
    )
    np.testing.assert_allclose(draws.mean(axis=0), natural.array, atol=0.01)
    # the variance of a Dirichlet with sum of alpha 2
    np.testing.assert_allclose(
        draws.var(axis=0), natural.array * (1 - natural.array) / 3, atol=0.01
    )


def test_tiny_strengths_give_single_domains_and_no_nan() -> None:
    space = MixtureSpace(named(5), Mixture.of(dict(zip(named(5), [1, 1, 1, 1, 0], strict=True))))
    draws = space.sample_dirichlet(500, np.random.default_rng(0), strength=1e-3)
    assert np.isfinite(draws).all()
    assert (draws.max(axis=1) > 0.99).mean() > 0.9
    assert draws[:, 4].max() < 1e-6


def availability() -> MixtureSpace:
    return MixtureSpace(
        ("code", "docstrings", "web"),
        Mixture.of({"code": 5, "docstrings": 1, "web": 20}),
        lower={"web": 0.1},
        upper={"code": 0.9},
        available_tokens={"code": 5_000_000, "docstrings": 1_200_000, "web": 20_000_000},
        max_epochs=4,
        budget_tokens=9_600_000,
        linear=[LinearConstraint({"code": 1, "docstrings": 1}, 0.85)],
    )


def test_availability_bounds_a_domain_by_its_epochs() -> None:
    assert availability().polytope.upper == pytest.approx([0.9, 0.5, 1.0])


def test_binding_constraints_are_told_as_sentences() -> None:
    mixture = Mixture.of({"code": 0.35, "docstrings": 0.5, "web": 0.15})
    assert availability().binding(mixture) == [
        "docstrings: at its upper bound 0.50 (4 epochs of 1.2M tokens)",
        "code + docstrings ≤ 0.85: reached",
    ]
    low = Mixture.of({"code": 0.6, "docstrings": 0.3, "web": 0.1})
    assert availability().binding(low)[0] == "web: at its lower bound 0.10"
    assert availability().binding(Mixture.of({"code": 0.3, "docstrings": 0, "web": 0.7})) == []


def test_a_space_contains_its_own_and_nothing_else() -> None:
    space = availability()
    assert space.contains(Mixture.of({"code": 0.3, "docstrings": 0.2, "web": 0.5}))
    assert not space.contains(Mixture.of({"code": 0.2, "docstrings": 0.6, "web": 0.2}))
    assert not space.contains(Mixture.of({"code": 0.3, "docstrings": 0.2, "web": 0.4, "x": 0.1}))


def test_a_space_takes_mixtures_by_the_names_of_their_domains() -> None:
    space = availability()
    inside = Mixture.of({"web": 0.5, "docstrings": 0.2, "code": 0.3})
    assert space.contains(inside)
    assert space.contains(Mixture.of({"web": 0.7, "code": 0.3}))
    assert not space.contains(Mixture.of({"docstrings": 0.6, "web": 0.2, "code": 0.2}))
    assert inside != Mixture.of({"code": 0.3, "docstrings": 0.2, "web": 0.5})
    assert inside.same_as(Mixture.of({"code": 0.3, "docstrings": 0.2, "web": 0.5}))
    turned = Mixture(inside.domains, (0.5, 0.2, 0.3))
    other = Mixture.of({d: turned[d] for d in space.domains})
    assert space.binding(turned) == space.binding(other)
    draws = [
        space.sample_dirichlet(4, np.random.default_rng(0), center, 50.0)
        for center in (turned, other)
    ]
    np.testing.assert_array_equal(*draws)


def test_a_linear_constraint_binds_whatever_the_order_of_the_domains() -> None:
    natural = Mixture.of({"a": 1, "b": 2, "c": 7})
    space = MixtureSpace(
        ["c", "b", "a"],  # type: ignore[arg-type]
        natural,
        linear=[LinearConstraint({"a": 1, "b": 1}, 0.3)],
    )
    assert space.natural == Mixture.of({"c": 7, "b": 2, "a": 1})
    assert space.binding(natural) == ["a + b ≤ 0.3: reached"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"web": 3, "code": -1}, "code: weight -1 is not a number of at least 0"),
        ({"web": "3"}, "web: weight '3' is not a number"),
        ({"web": None}, "web: weight None is not a number"),
        ({"web": float("nan")}, "web: weight nan is not a number"),
        (["web"], r"is no mapping of domains to weights\. Write Mixture\.of"),
        ({}, "weights sum to 0"),
    ],
)
def test_weights_that_are_none_are_named_as_they_were_given(weights: object, message: str) -> None:
    with pytest.raises(MixtureError, match=message):
        Mixture.of(weights)  # type: ignore[arg-type]


def test_a_domain_that_a_mixture_lacks_is_an_error_with_the_names() -> None:
    with pytest.raises(MixtureError, match=r"no domain 'x'\. Choose from web, code"):
        Mixture.of({"web": 1, "code": 1})["x"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"lower": {"d0": 0.6, "d1": 0.5}}, "lower bounds sum to 1.1.*d0 0.6, d1 0.5"),
        ({"upper": dict.fromkeys(named(3), 0.2)}, "upper bounds sum to 0.6"),
        ({"lower": {"d0": 0.6}, "upper": {"d0": 0.5}}, "d0: its lower bound 0.6 lies above"),
        ({"upper": {"d9": 0.5}}, "no domain is called 'd9'"),
        ({"upper": {"d0": 20}}, r"upper\.d0: 20 is not a number from 0 to 1\. Write 0\.2 for 20 %"),
        ({"upper": {"d0": -0.2}}, r"upper\.d0: -0\.2 is not a number from 0 to 1"),
        ({"lower": {"d0": "20%"}}, r"lower\.d0: '20%' is not a number from 0 to 1"),
        ({"upper": dict.fromkeys(named(3), 0.2)}, r"Raise some of them\.$"),
        (
            {"natural": Mixture.uniform(named(4))},
            "names a domain that the space does not have: 'd3'",
        ),
        ({"natural": Mixture.uniform(named(2))}, "natural: .* has no weight for the domain 'd2'"),
        ({"natural": {"d0": 1.0}}, "is not a Mixture. Make one with Mixture.of"),
        ({"domains": "web"}, "domains: 'web' is one name"),
        ({"max_epochs": 4.0}, "needs the available tokens"),
        (
            {
                "available_tokens": dict.fromkeys(named(3), 1_000_000),
                "max_epochs": 2,
                "budget_tokens": 10_000_000,
            },
            "upper bounds sum to 0.6.*2 epochs of 1M tokens",
        ),
        (
            {
                "linear": [
                    LinearConstraint({"d0": 1}, 0.9),
                    LinearConstraint({"d1": 1, "d2": 1}, 0.2),
                    LinearConstraint({"d0": 1, "d2": 1}, 0.7),
                ]
            },
            r"satisfies \(d1 \+ d2 ≤ 0.2\) and \(d0 \+ d2 ≤ 0.7\)",
        ),
    ],
)
def test_an_impossible_space_names_what_clashes(limits: dict[str, object], message: str) -> None:
    with pytest.raises(MixtureError, match=message):
        MixtureSpace(**{"domains": named(3), "natural": Mixture.uniform(named(3)), **limits})  # type: ignore[arg-type]


def test_mixtures_import_with_numpy_alone() -> None:
    check = "import sys, mixopt.core.mixture, mixopt.core.trials; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_kl_to_natural_is_that_of_the_textbook() -> None:
    natural = Mixture.of({"a": 2, "b": 1, "c": 1})
    space = MixtureSpace(natural.domains, natural, kl_penalty=0.5)
    weights = np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    assert space.kl(weights) == pytest.approx([0.0, np.log(2), np.log(2)])
    assert space.penalty(weights) == pytest.approx([0.0, np.log(2) / 2, np.log(2) / 2])


def test_a_domain_that_natural_lacks_is_infinitely_far() -> None:
    natural = Mixture.exact({"a": 1.0, "b": 0.0})
    space = MixtureSpace(natural.domains, natural)
    assert space.kl(np.array([[1.0, 0.0], [0.9, 0.1]])).tolist() == [0.0, np.inf]
    assert space.penalty(np.array([[0.9, 0.1]])).tolist() == [0.0]


@pytest.mark.parametrize("penalty", [-0.1, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(penalty: float) -> None:
    with pytest.raises(MixtureError, match="kl_penalty"):
        MixtureSpace(("a", "b"), Mixture.uniform("ab"), kl_penalty=penalty)


def test_what_holds_a_mixture_can_be_lifted_one_by_one() -> None:
    tokens = {"a": 100, "b": 200, "c": 700, "d": 500}
    space = MixtureSpace(
        tuple(tokens),
        Mixture.natural(tokens),
        lower={"b": 0.2},
        upper={"c": 0.4},
        available_tokens=tokens,
        max_epochs=2,
        budget_tokens=1000,
        linear=[LinearConstraint({"c": 1.0, "d": 1.0}, 0.6)],
    )
    mixture = Mixture.exact({"a": 0.2, "b": 0.2, "c": 0.4, "d": 0.2})
    held = dict(space.held_by(mixture))
    assert list(held) == space.binding(mixture)
    assert len(held) == 4
    for constraint, wider in held.items():
        assert constraint not in wider.binding(mixture)
        assert set(wider.binding(mixture)) == set(held) - {constraint}


def test_the_baseline_is_what_kl_is_measured_from_and_draws_lie_around() -> None:
    natural, ours = Mixture.of({"a": 6, "b": 3, "c": 1}), Mixture.of({"c": 8, "b": 1, "a": 1})
    usual = MixtureSpace(("a", "b", "c"), natural)
    space = MixtureSpace(("a", "b", "c"), natural, baseline=ours, kl_penalty=2.0)
    assert (usual.reference, space.reference) == (natural, Mixture.of({"a": 1, "b": 1, "c": 8}))
    assert space.unconstrained.reference == space.reference
    weights = space.reference.array[None]
    assert space.kl(weights)[0] == 0
    ratio = np.log(space.reference.array / natural.array)
    assert usual.kl(weights)[0] == pytest.approx(float(space.reference.array @ ratio))
    expected = 2 * float(natural.array @ -ratio)
    assert space.penalty(natural.array[None])[0] == pytest.approx(expected)
    draws = space.sample_dirichlet(4000, np.random.default_rng(0), strength=20.0)
    assert draws.mean(axis=0) == pytest.approx(space.reference.array, abs=0.01)


def test_a_baseline_that_leaves_a_domain_out_has_a_little_of_it_drawn_and_no_penalty() -> None:
    natural, ours = Mixture.of({"a": 6, "b": 3, "c": 1}), Mixture.of({"a": 1, "b": 1, "c": 0})
    space = MixtureSpace(("a", "b", "c"), natural, baseline=ours)
    draws = space.sample_dirichlet(4000, np.random.default_rng(0), strength=20.0)
    tenth = 0.1 / 3
    expected = np.array([0.5, 0.5, tenth]) / (1 + tenth)
    assert draws.mean(axis=0) == pytest.approx(expected, abs=0.01)
    with pytest.raises(MixtureError, match=r"kl_penalty: the baseline has nothing of c"):
        MixtureSpace(("a", "b", "c"), natural, baseline=ours, kl_penalty=0.1)
    with pytest.raises(MixtureError, match="the baseline mixture has no weight for the domain"):
        MixtureSpace(("a", "b", "c"), natural, baseline=Mixture.of({"a": 1, "b": 1}))
