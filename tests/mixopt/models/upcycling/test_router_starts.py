"""Routers that start from hidden states, on states drawn here and on models of ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixopt.core.errors import StudyError
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import State, Transformer
from mixopt.models.upcycling.hidden_states import LayerStates, gather
from mixopt.models.upcycling.method import Method
from mixopt.models.upcycling.receipt import Receipt
from mixopt.models.upcycling.router_starts import make_router_start
from mixopt.models.upcycling.states import DenseModels, hidden_states, upcycle_states

WIDTH = 12
NAMES = ("law", "code", "web")


def tokens(count: int = 300) -> dict[str, torch.Tensor]:
    """States of three domains around a common center, with directions of their own."""
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(count, WIDTH, generator=random) + 4.0 + 2.0 * torch.eye(WIDTH)[i]
        for i, name in enumerate(NAMES)
    }


def states(given: dict[str, torch.Tensor]) -> LayerStates:
    return LayerStates(
        {name: x.mean(0) for name, x in given.items()},
        sum((x.T @ x / len(x) for x in given.values()), torch.zeros(WIDTH, WIDTH)),
        torch.cat(list(given.values())),
    )


def start(name: str, sources: tuple[str, ...] = NAMES, **settings: object) -> torch.Tensor:
    part = make_router_start(name, settings)
    return part.start(sources, WIDTH, torch.Generator().manual_seed(0), states(tokens()))


def test_ridge_is_the_regression_of_one_hots_on_states() -> None:
    x_ND = torch.cat(list(tokens().values())).double().numpy()
    y_NE = np.repeat(np.eye(3), 300, axis=0)
    penalty = 0.05 * np.trace(x_ND.T @ x_ND) / WIDTH
    # the penalty as rows of data: what least squares makes of them is ridge regression
    rows = np.sqrt(penalty) * np.eye(WIDTH)
    expected, *_ = np.linalg.lstsq(
        np.vstack([x_ND, rows]), np.vstack([y_NE, np.zeros((WIDTH, 3))]), rcond=None
    )
    found = start("ridge", penalty=0.05, scale=3.0)
    assert np.allclose(found.numpy(), 3 * expected.T, atol=1e-4)


def test_ridge_gives_a_seed_without_a_sample_the_mean_of_the_rows() -> None:
    rows = start("ridge", (*NAMES, "seed"))
    assert torch.allclose(rows[3], rows[:3].mean(0), atol=1e-5)


@pytest.mark.parametrize("name", ["ridge", "domain-embedding"])
def test_tokens_go_to_the_expert_of_their_domain(name: str) -> None:
    rows = start(name)
    for expert, x_ND in enumerate(tokens().values()):
        right = ((x_ND @ rows.T).argmax(1) == expert).float().mean()
        assert right > 0.75  # of three domains that overlap


def test_domain_embeddings_are_centered_means_with_logits_of_the_spread_asked_for() -> None:
    given = tokens()
    rows = start("domain-embedding", spread=2.5)
    means = torch.stack([x.mean(0) for x in given.values()])
    centered = means - means.mean(0)
    assert torch.allclose(rows / rows.norm(), centered / centered.norm(), atol=1e-5)
    logits = torch.cat(list(given.values())) @ rows.T
    assert float(logits.square().mean().sqrt()) == pytest.approx(2.5, rel=1e-4)


def test_domain_embeddings_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "vectors.json"
    vectors = {name: [float(i == j) for j in range(WIDTH)] for i, name in enumerate(NAMES)}
    file.write_text(json.dumps(vectors))
    part = make_router_start("domain-embedding", {"vectors": str(file)})
    assert not part.needs_samples
    rows = part.start((*NAMES, "seed"), WIDTH, torch.Generator(), None)
    assert rows.argmax(1)[:3].tolist() == [0, 1, 2]
    assert torch.allclose(rows[3], rows[:3].mean(0), atol=1e-6)
    assert float(rows.square().sum(1).mean()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("[1, 2]", "is no JSON object"),
        ("{", "is no JSON object"),
        ('{"law": [1], "code": [1]}', "has no vector 'web'"),
        ('{"law": [1], "code": [2], "web": [3]}', "vectors of 1 numbers, and the router reads 12"),
        ('{"law": "a", "code": [2], "web": [3]}', "is no JSON object of lists of numbers"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "vectors.json"
    if content is not None:
        file.write_text(content)
    part = make_router_start("domain-embedding", {"vectors": str(file)})
    with pytest.raises(StudyError, match=message):
        part.start(NAMES, WIDTH, torch.Generator(), None)


@pytest.mark.parametrize("name", ["ridge", "domain-embedding"])
def test_an_expert_without_a_sample_is_refused(name: str) -> None:
    with pytest.raises(StudyError, match="no sample for the expert 'prose'"):
        start(name, ("law", "prose"))


@pytest.mark.parametrize(
    ("name", "settings"), [("ridge", {"penalty": 0}), ("domain-embedding", {"spread": 0})]
)
def test_settings_out_of_range_are_refused_by_name(name: str, settings: dict[str, float]) -> None:
    with pytest.raises(StudyError, match=f"router_settings.{next(iter(settings))}"):
        make_router_start(name, settings)


def test_gathered_states_are_those_of_all_tokens_and_count_samples_equally() -> None:
    random = np.random.default_rng(0)
    samples = {"a": random.integers(0, 9, (7, 5)), "b": random.integers(0, 9, (2, 11))}
    table = torch.randn(2, 9, WIDTH)  # a state per layer and token
    gathered = gather(lambda ids: [layer[ids.flatten()] for layer in table], samples)
    for layer in range(2):
        each = {
            name: table[layer][torch.from_numpy(ids).flatten()] for name, ids in samples.items()
        }
        expected = states(each)
        for name in samples:
            assert torch.allclose(gathered[layer].means[name], expected.means[name], atol=1e-5)
        assert torch.allclose(gathered[layer].moments, expected.moments, atol=1e-4)
        assert torch.equal(gathered[layer].kept, expected.kept)  # few tokens: all of them


def test_kept_states_are_evenly_spread_over_a_long_sample() -> None:
    ids = np.arange(6000).reshape(60, 100)
    (layer,) = gather(lambda ids: [ids.flatten().float().unsqueeze(1)], {"a": ids})
    kept = layer.kept.flatten()
    assert 500 <= len(kept) <= 512
    assert (kept.diff() == kept[1] - kept[0]).all()
    assert kept[-1] > 5500


DENSE = ModelConfig(width=16, heads=2, experts=1, experts_per_token=1, vocab_size=32)
MOE = replace(DENSE, experts=3, experts_per_token=1, renormalize=False)


def models() -> DenseModels:
    seed = Transformer(DENSE, (0,)).proxy_state()
    random = torch.Generator().manual_seed(1)
    experts: dict[str, State] = {
        name: {n: t + 0.01 * torch.randn(t.shape, generator=random) for n, t in seed.items()}
        for name in NAMES
    }
    return DenseModels(seed, experts, DENSE)


def samples(seed: int) -> dict[str, np.ndarray]:
    """Domains with words of their own."""
    random = np.random.default_rng(seed)
    return {name: random.integers(10 * i, 10 * i + 10, (8, 24)) for i, name in enumerate(NAMES)}


def upcycled(start: str, method: str = "branch-train-mix", moe: ModelConfig = MOE) -> Receipt:
    asked = Method(method, router_start=start)
    _, receipt = upcycle_states(asked, models(), moe, 0, samples(0), samples(1))
    return receipt


def matching(receipt: Receipt) -> float:
    """Share of tokens that go to the expert of their domain."""
    return sum(receipt.loads[n][receipt.experts.index(n)] for n in NAMES) / len(NAMES)


@pytest.mark.parametrize("start", ["ridge", "domain-embedding"])
def test_held_out_tokens_go_to_the_expert_of_their_domain(start: str) -> None:
    receipt = upcycled(start)
    assert receipt.router == start
    assert matching(receipt) > 0.65  # 30 words in 16 dimensions
    assert matching(upcycled("random")) < 0.45


def test_states_are_what_the_router_reads() -> None:
    """The mean state is what a router of one-hot rows returns as its mean logits."""
    given, text = models(), samples(1)
    found = hidden_states(given, text)
    moe = Transformer(replace(MOE, experts=16))
    state, _ = upcycle_states(Method("sparse"), DenseModels(given.seed, {}, DENSE), moe.config)
    for layer in range(MOE.layers):
        state[f"blocks.{layer}.feed_forward.router.weight"] = torch.eye(16)
    moe.load_proxy_state(state)
    read: list[torch.Tensor] = []
    for router in moe.routers():
        router.register_forward_pre_hook(lambda _, args: read.append(args[0][0]))
    moe.trunk(torch.from_numpy(text["law"]).unsqueeze(0))
    assert torch.allclose(found[0].means["law"], read[0].mean(0), atol=1e-5)


@pytest.mark.parametrize("router", ["rmoe", "hyper", "x-moe", "adamoe", "hash"])
def test_routers_without_a_row_per_expert_are_refused(router: str) -> None:
    with pytest.raises(StudyError, match="no row for each expert"):
        upcycled("ridge", moe=replace(MOE, router=router))


@pytest.mark.parametrize("method", ["sparse", "drop-upcycling"])
def test_experts_of_the_seed_alone_cannot_be_told_apart_by_samples(method: str) -> None:
    with pytest.raises(StudyError, match="all experts come from 'seed'"):
        upcycled("ridge", method)


def test_a_random_start_with_a_setting_is_drawn_anew() -> None:
    asked = Method("sparse", router_start="random", router_start_settings={"std": 3.0})
    state, _ = upcycle_states(asked, models(), MOE)
    assert 2 < float(state["blocks.0.feed_forward.router.weight"].std()) < 4
