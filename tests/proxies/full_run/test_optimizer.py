import dataclasses

import pytest
import torch

from mixopt.core.errors import TrainingError
from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.single import SingleTransformer
from mixopt.models.transformer import Transformer
from mixopt.proxies.full_run.optimizer import FullOptimizer
from mixopt.proxies.optimizer import CohortOptimizer

CONFIG = ModelConfig(width=16, layers=2, heads=2, expert_width=12, vocab_size=40)


@pytest.mark.parametrize("clip", [0.05, 10.0])
@pytest.mark.parametrize("router", ["softmax", "stable"])
def test_twenty_steps_are_those_of_a_cohort_of_one(clip: float, router: str) -> None:
    recipe = Recipe(gradient_clip=clip, weight_decay=0.2)
    config = dataclasses.replace(CONFIG, router=router)
    proxy, single = Transformer(config, (3,)), SingleTransformer(config, 3)
    theirs = CohortOptimizer(proxy, recipe, (1e-2,))
    mine = FullOptimizer(dict(single.named_weights()), single.decays, recipe, 1e-2)
    for step in range(20):
        ids = torch.randint(40, (4, 17), generator=torch.Generator().manual_seed(step))
        share = (step + 1) / 20
        for model, optimizer in ((proxy, theirs), (single, mine)):
            model.begin_step(step / 20)
            optimizer.zero_gradients()
        losses = proxy.loss(ids[None, :, :-1], ids[None, :, 1:])
        (losses.nats_K + losses.auxiliary_K).sum().backward()
        nats_K, auxiliary_K, _ = single.loss(ids[:, :-1], ids[:, 1:])
        (nats_K + auxiliary_K).sum().backward()
        assert torch.allclose(nats_K, losses.nats_K, rtol=1e-5)
        assert torch.allclose(mine.step(share), theirs.step(share)[0], rtol=1e-4)
        proxy.end_step()
        single.end_step()
    expected = proxy.proxy_state()
    for name, tensor in single.proxy_state().items():
        assert torch.allclose(tensor, expected[name], atol=2e-5, rtol=1e-4), name
    assert mine.state().keys() == theirs.state().keys() - {"steps"}  # these follow from phases


def test_muon_is_refused_with_what_to_do() -> None:
    single = SingleTransformer(CONFIG)
    recipe = Recipe(optimizer="muon")
    with pytest.raises(TrainingError, match="whole matrices") as refused:
        FullOptimizer(dict(single.named_weights()), single.decays, recipe, 1e-2)
    assert "adamw" in refused.value.hint
