"""Work shared by threads: the same numbers as one thread's."""

import threading
import time

import pytest
import torch

from mixopt.models.config import ModelConfig
from mixopt.models.team import Team, current, team
from mixopt.models.transformer import Transformer

CONFIG = ModelConfig(width=16, layers=2, heads=2, experts=4, expert_width=12, vocab_size=40)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("cohort", [1, 2, 3, 5])
def test_shards_hold_every_item_once_and_as_many_for_each_thread(cohort: int, threads: int) -> None:
    shards = Team(threads).shards(cohort, 6)
    for k in range(cohort):
        items = [i for proxy, part in shards if proxy == k for i in range(part.start, part.stop)]
        assert items == list(range(6))
    assert len(shards) % threads == 0
    assert len({part.stop - part.start for _, part in shards}) == 1


def test_every_piece_is_done_once_and_helpers_take_part() -> None:
    done: list[int] = []
    by: set[str] = set()

    def work(piece: int) -> None:
        done.append(piece)
        by.add(threading.current_thread().name)
        time.sleep(0.01)  # long enough for the helper to come

    with team(2) as pair:
        pair.run(work, 8)
    assert sorted(done) == list(range(8))
    assert len(by) == 2


def test_what_a_piece_raises_reaches_the_caller() -> None:
    def work(piece: int) -> None:
        raise ValueError(piece)

    with team(2) as pair, pytest.raises(ValueError, match=r"[01]"):
        pair.run(work, 2)


def test_threads_are_given_back_and_the_team_ends_with_its_block() -> None:
    before = torch.get_num_threads()
    with team(2):
        assert torch.get_num_threads() == 1
        assert current().threads == 2
    assert torch.get_num_threads() == before
    assert current().threads == 1


def _gradients(cohort: int, threads: int) -> dict[str, torch.Tensor]:
    model = Transformer(CONFIG, tuple(range(cohort)))
    generator = torch.Generator().manual_seed(0)
    ids_KBT = torch.randint(40, (cohort, 4, 13), generator=generator)
    with team(threads):
        losses = model.loss(ids_KBT[..., :-1], ids_KBT[..., 1:])
        (losses.nats_K + losses.auxiliary_K).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {**gradients, "loss": losses.nats_K.detach()}


@pytest.mark.parametrize("cohort", [1, 2, 3])
def test_a_step_of_several_threads_is_that_of_one_and_repeats_bit_for_bit(cohort: int) -> None:
    alone, together, again = (_gradients(cohort, threads) for threads in (1, 2, 2))
    for name, tensor in alone.items():
        assert torch.allclose(together[name], tensor, atol=1e-6, rtol=1e-4), name
        assert torch.equal(together[name], again[name]), name
