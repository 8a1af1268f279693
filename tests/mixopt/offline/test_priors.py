"""The priors file says where mixtures may lie; what is wrong with it is named by its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixopt.core.errors import RunsError
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.offline.priors import read_space

WEIGHTS = np.array([[0.5, 0.5, 0], [0.1, 0.1, 0.8], [0, 0.9, 0.1]])
TABLE = TrialTable(
    ("web", "code", "books"),
    ("loss",),
    WEIGHTS,
    np.ones((3, 1)),
    np.ones(3),
    np.ones(3),
    np.zeros(3, dtype=int),
)


def read(folder: Path, text: str) -> tuple[MixtureSpace, str]:
    (folder / "P.yaml").write_text(text)
    space, notes = read_space(folder / "P.yaml", TABLE)
    return space, " ".join(notes)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(RunsError) as caught:
        read(folder, text)
    return str(caught.value)


def test_without_priors_the_natural_mixture_is_the_mean_of_the_runs() -> None:
    space, notes = read_space(None, TABLE)
    assert space.natural.array == pytest.approx(WEIGHTS.mean(axis=0))
    assert "mean of all runs" in notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "natural: {web: 0.6, code: 0.3, books: 0.1}",
        "natural: {books: 1B, web: 6B, code: 3e9}",
        "relative_sizes: {web: 60, code: 30, books: 10}",
        "priors:\n  relative_sizes: {web: '0.6', code: 0.3, books: 0.1}",
        "token_counts: {web: 6M, code: 3M, books: 1M}",
    ],
)
def test_the_natural_mixture_is_told_as_shares_or_tokens(tmp_path: Path, text: str) -> None:
    space, _ = read(tmp_path, text)
    assert space.natural.array == pytest.approx([0.6, 0.3, 0.1])


def test_bounds_availability_and_linear_constraints_all_hold(tmp_path: Path) -> None:
    space, notes = read(
        tmp_path,
        "natural: {web: 8, code: 2}\nbounds: {web: [0.2, 0.7]}\navailable_tokens: {code: 1B}\n"
        "budget: 10B\nlinear:\n  - {weights: {books: 1, code: 1}, at_most: 0.6}\nkl_penalty: 0.1\n",
    )
    assert space.caps == {"code": pytest.approx(0.4)}  # four epochs unless told otherwise
    assert space.kl_penalty == 0.1
    drawn = space.sample_dirichlet(64, np.random.default_rng(0))
    assert (drawn[:, 0] >= 0.2 - 1e-9).all()
    assert (drawn[:, 0] <= 0.7 + 1e-9).all()
    assert (drawn[:, 1] <= 0.4 + 1e-9).all()
    assert (drawn[:, 1] + drawn[:, 2] <= 0.6 + 1e-9).all()
    assert "books: 0 in the natural mixture" in notes
    assert "4 times" in notes
    assert "violates the constraints" in notes


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("budget: 10T\n", "budget of the priors bounds no domain without available_tokens."),
        (
            "available_tokens: {web: 1B}\n",
            "available_tokens of the priors bounds no domain without budget.",
        ),
    ],
)
def test_a_bound_that_lacks_its_other_half_is_remarked(
    tmp_path: Path, text: str, note: str
) -> None:
    (tmp_path / "P.yaml").write_text(text)
    space, notes = read_space(tmp_path / "P.yaml", TABLE)
    assert note in notes
    assert space.caps == {}


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("natural:\n  web: 1\n  cod: 1\n", "P.yaml:3: natural.cod", "Did you mean code"),
        ("bounds: {wbe: [0, 1]}\n", "P.yaml:1: bounds.wbe", "Did you mean web"),
        ("linear:\n- weights: {x: 1}\n  at_most: 1\n", "P.yaml:2: linear.0.weights.x", "Choose"),
        ("natural: {web: 0}\n", "P.yaml:1: natural", "all sizes are 0"),
        ("natural: {web: -1}\n", "P.yaml:1: natural.web", "must be at least 0"),
        ("max_epochs: 2\n", "P.yaml:1: max_epochs", "available tokens and the budget"),
        ("bonds: {web: [0, 1]}\n", "P.yaml:1: bonds", "Did you mean 'bounds'"),
        ("natural: {web: 1}\nrelative_sizes: {web: 1}\n", "P.yaml:2", "another name of"),
        (
            "bounds: {web: [0.6, 1], code: [0.6, 1]}\n",
            "P.yaml:1: bounds: ",
            "bounds sum to 1.2",
        ),
        ("bounds: {web: [0.6, 0.5]}\n", "P.yaml:1: bounds.web", "lies above its upper bound"),
        ("budget: 1B\nlinear: [{weights: {web: 1}, at_most: -1}]\n", "P.yaml:2: linear", "no mix"),
        ("natural: {web: [\n", "P.yaml", "is not YAML"),
        ("natural: {web: .inf}\n", "P.yaml:1: natural.web", "finite"),
        ("natural: {web: inf}\n", "P.yaml:1: natural.web", "finite"),
        ("linear:\n- {weights: {web: .nan}, at_most: 1}\n", "P.yaml:2: linear.0.wei", "finite"),
        ("linear:\n- {weights: {web: 1}, at_most: .inf}\n", "P.yaml:2: linear.0.at", "finite"),
        ("max_epochs: .inf\n", "P.yaml:1: max_epochs", "write null"),
        ("budget: 1e400\n", "P.yaml:1: budget", "finite"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    result = refused(tmp_path, text)
    assert where in result
    assert what in result


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunsError, match=r"none\.yaml: cannot be read"):
        read_space(tmp_path / "none.yaml", TABLE)
