"""Churn is the share of experts' tokens that are new since the last evaluation."""

import torch
from torch import Tensor

from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing
from mixopt.models.single import SingleTransformer
from mixopt.proxies.full_run.churn import Churn

CONFIG = ModelConfig(width=16, layers=2, heads=2, experts=4, expert_width=8, vocab_size=32)
IDS = torch.randint(32, (3, 9), generator=torch.Generator().manual_seed(0))


class Scripted:
    """A model whose routing is given: each token's experts, of one layer, time after time."""

    cohort = 1
    device = torch.device("cpu")
    training = True

    def __init__(self, *choices: list[list[int]]) -> None:
        self._choices = list(choices)

    def train(self, mode: bool = True) -> None:
        self.training = mode

    def eval(self) -> None:
        self.train(False)

    def nats(
        self, ids: Tensor, targets: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        assert not self.training
        indices = torch.tensor(self._choices.pop(0))[None]
        return torch.zeros(1), [Routing(indices, torch.ones(indices.shape), torch.zeros(1, 3))]


def test_it_is_the_share_of_choices_that_are_new() -> None:
    model, churn = Scripted([[0, 1], [1, 2]], [[1, 0], [1, -1]], [[2, -1], [0, -1]]), Churn(IDS)
    assert churn.measure(model) is None
    assert churn.measure(model) == 0  # order and an empty slot change nothing
    assert churn.measure(model) == 1
    assert model.training


def test_a_model_that_stands_still_has_none_and_a_router_turned_round_has_much() -> None:
    model, churn = SingleTransformer(CONFIG).train(), Churn(IDS)
    assert churn.measure(model) is None
    assert churn.measure(model) == 0
    with torch.no_grad():
        for name, weight in model.named_weights():
            if "router" in name:
                weight.neg_()
    assert churn.measure(model) > 0.5


def test_a_dense_model_has_none() -> None:
    model, churn = SingleTransformer(CONFIG.as_dense()), Churn(IDS)
    assert [churn.measure(model), churn.measure(model)] == [None, None]
