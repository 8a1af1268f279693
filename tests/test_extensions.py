"""A part of one's own is one file outside mixopt, named `package.module:Name` in the study file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mixopt import surrogates
from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.models.upcycling.method import Method
from mixopt.models.upcycling.states import DenseModels, upcycle_states
from mixopt.study.named_parts import import_named_parts
from mixopt.study.settings import Study, load_study
from mixopt.testing.surrogates import example_table

ROUTER = '''
"""The k experts after a number of one's own, with a learned gate each."""

from dataclasses import dataclass

import torch
from torch import nn

from mixopt.models.routers.base import Router, Routing, draw_normal
from mixopt.models.routers.settings import RouterSettings, require


@dataclass(frozen=True)
class FromSettings(RouterSettings):
    first: int = 0

    def check(self, config):
        last = config.experts - config.experts_per_token
        require(0 <= self.first <= last, "first", f"0 to {last}", self.first)

    def router_weights(self, config):
        return config.width * config.experts_per_token


class FromRouter(Router):
    settings_class = FromSettings

    def __init__(self, config, cohort, layer):
        super().__init__(config, cohort, layer)
        self.weight = nn.Parameter(torch.empty(cohort, config.width, config.experts_per_token))

    def initialize(self, generators):
        draw_normal(self.weight, generators)

    def route(self, x_KND, context):
        gates_KNS = torch.bmm(x_KND.float(), self.weight).sigmoid()
        indices_S = self.settings.first + torch.arange(self.config.experts_per_token)
        indices_KNS = indices_S.expand(gates_KNS.shape)
        return Routing(indices_KNS, gates_KNS, self.count(indices_KNS, context.mask_KN))
'''
UPCYCLER = '''
"""Sparse upcycling whose copies each have noise of their own."""

from dataclasses import dataclass, replace

import torch

from mixopt.models.upcycling.base import Upcycler


@dataclass(frozen=True)
class Noisy(Upcycler):
    std: float = 0.01

    def experts(self, block):
        for _ in range(block.experts):
            noise = self.std * torch.randn(block.seed.down.shape, generator=block.random)
            yield replace(block.seed, down=block.seed.down + noise)
'''
SURROGATE = '''
"""The mean of the trials, whatever the mixture."""

import numpy as np

from mixopt.surrogates.base import Prediction, Surrogate


class Constant(Surrogate):
    name = "constant"

    def fit(self, table):
        self.metrics = table.metrics
        self.center, self.spread = table.values.mean(0), table.values.std(0)
        return self

    def predict(self, mixtures, fidelity=None):
        shape = (len(mixtures), len(self.metrics))
        mean, std = (np.broadcast_to(part, shape) for part in (self.center, self.spread))
        return Prediction(self.metrics, mean, std, self.spread)
'''
STUDY = """\
name: own
corpus: corpus
objective: {law: 1}
proxy:
  model: {router: "own_router:FromRouter", router_settings: {first: 1}, experts: 4}
search: {surrogate: "own_surrogate:Constant"}
promote: {upcycler: "own_upcycler:Noisy"}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study file that names three parts, of one file each, in a folder outside mixopt."""
    for name, text in (("router", ROUTER), ("upcycler", UPCYCLER), ("surrogate", SURROGATE)):
        (tmp_path / f"own_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    study = load_study(tmp_path / "study.yaml")
    import_named_parts(study)
    return study


def test_a_router_of_ones_own_trains_with_its_own_settings(study: Study) -> None:
    model = Transformer(ModelConfig(**{**vars(study.proxy.model), "vocab_size": 16}))
    ids_KBT = torch.arange(12).view(1, 1, 12)
    _, routings = model.trunk(ids_KBT)
    assert routings[0].counts_KE.tolist() == [[0, 12, 12, 0]]
    model.logits(ids_KBT).square().mean().backward()
    router = model.blocks[0].feed_forward.router
    assert router.weight.grad.abs().sum() > 0
    weights = sum(p.numel() for p in model.parameters()) - model.embedding.numel()
    assert study.proxy.model.total_params() == weights


def test_a_wrong_setting_of_ones_own_router_is_refused_with_its_line(study: Study) -> None:
    path = study.path
    path.write_text(STUDY.replace("first: 1", "first: 3"))
    with pytest.raises(StudyError, match=r"study.yaml:5: .*first: must be 0 to 2, is 3"):
        load_study(path)


def test_an_upcycler_of_ones_own_makes_a_model(study: Study) -> None:
    assert study.promote is not None
    moe = ModelConfig(width=16, heads=2, experts=3, vocab_size=32)
    seed = Transformer(moe.as_dense(), (0,)).proxy_state()
    models = DenseModels(seed, {}, moe.as_dense())
    state, receipt = upcycle_states(Method(study.promote.upcycler), models, moe)
    first, second, _ = state["blocks.0.feed_forward.down"]
    assert not torch.equal(first, second)
    assert receipt.method == "own_upcycler:Noisy"
    assert receipt.experts == ("seed",) * 3


def test_a_surrogate_of_ones_own_is_fitted_and_predicts(study: Study) -> None:
    table = example_table()
    prediction = surrogates.make(study.search.surrogate).fit(table).predict(table.weights[:2])
    assert np.array_equal(prediction.mean, np.tile(table.values.mean(0), (2, 1)))
