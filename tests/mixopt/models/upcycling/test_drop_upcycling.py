from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from mixopt.core.errors import StudyError
from mixopt.models.upcycling.base import Block, FeedForward, make_upcycler
from mixopt.testing.upcyclers import UpcyclerConformance


class TestOneSet(UpcyclerConformance):
    upcycler = "drop-upcycling"

    def test_the_receipt_says_the_share_kept(self) -> None:
        assert self.upcycled()[1].channels_kept == 0.5


class TestThreeSets(UpcyclerConformance):
    upcycler = "drop-upcycling"
    settings: Mapping[str, object] = {"channels": "three", "share": 0.2}

    def test_the_receipt_says_the_share_kept(self) -> None:
        assert self.upcycled()[1].channels_kept == pytest.approx(0.8**3)


class TestNothingDrawn(UpcyclerConformance):
    upcycler = "drop-upcycling"
    settings: Mapping[str, object] = {"share": 0}

    def test_it_is_sparse_upcycling(self) -> None:
        assert self.upcycled()[1].preserves_function


def block(hidden: int = 400, width: int = 60, experts: int = 2) -> Block:
    random = torch.Generator().manual_seed(0)
    weights = [3 + 2 * torch.randn(hidden, width, generator=random) for _ in range(3)]
    seed = FeedForward(weights[0], weights[1], weights[2].T)
    return Block(0, seed, {}, experts, 1, True, random)


def changed(expert: FeedForward, seed: FeedForward) -> list[torch.Tensor]:
    """Per projection, whether each hidden channel differs from the seed's."""
    return [
        (expert.gate != seed.gate).any(1),
        (expert.up != seed.up).any(1),
        (expert.down != seed.down).any(0),
    ]


def test_one_set_is_shared_by_the_three_projections_and_differs_between_experts() -> None:
    given = block()
    first, second = make_upcycler("drop-upcycling", {"share": 0.3}).experts(given)
    gate, up, down = changed(first, given.seed)
    assert gate.sum() == 120
    assert torch.equal(gate, up)
    assert torch.equal(gate, down)
    assert not torch.equal(gate, changed(second, given.seed)[0])


def test_three_sets_differ_and_are_of_equal_size() -> None:
    given = block()
    expert = next(make_upcycler("drop-upcycling", {"channels": "three"}).experts(given))
    sets = changed(expert, given.seed)
    assert [int(channels.sum()) for channels in sets] == [200] * 3
    assert not torch.equal(sets[0], sets[1])
    kept = 1 - (sets[0] | sets[1] | sets[2]).float().mean()
    assert float(kept) == pytest.approx(0.125, abs=0.05)


def test_new_channels_have_mean_and_deviation_of_those_that_they_replace() -> None:
    given = block()
    seed = given.seed
    given.seed.up[:, :30] += 10  # the mean is of the whole slice, not of each column
    expert = next(make_upcycler("drop-upcycling").experts(given))
    for new, old, drawn in zip(
        (expert.gate, expert.up, expert.down.T),
        (seed.gate, seed.up, seed.down.T),
        changed(expert, seed),
        strict=True,
    ):
        assert float(new[drawn].mean()) == pytest.approx(float(old[drawn].mean()), abs=0.2)
        assert float(new[drawn].std()) == pytest.approx(float(old[drawn].std()), rel=0.05)


@pytest.mark.parametrize("settings", [{"share": 1.5}, {"share": -0.1}, {"channels": "two"}])
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(StudyError, match=f"settings.{next(iter(settings))}"):
        make_upcycler("drop-upcycling", settings)
