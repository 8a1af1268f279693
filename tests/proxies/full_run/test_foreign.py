"""Models of transformers through the full run's step and loop, against ours and in processes."""

import dataclasses
from pathlib import Path

import pytest
import torch

from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import TRAINED
from mixopt.models.config import ModelConfig
from mixopt.models.single import SingleTransformer
from mixopt.models.transformer import Transformer
from mixopt.proxies.foreign import ForeignModel
from mixopt.proxies.full_run.foreign import TransformersModel
from mixopt.proxies.full_run.progress import FullProgress
from mixopt.proxies.full_run.training import train_full
from mixopt.proxies.full_run.world import World
from mixopt.proxies.job import Job
from tests.mixopt.models.families.test_export import export, trained
from tests.proxies.full_run.processes import together

transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(width=32, heads=4, experts=4, expert_width=16, vocab_size=64)
RECIPE = Recipe(
    sequence_length=16,
    batch_sequences=8,
    micro_batches=2,
    precision="fp32",
    learning_rate=1e-3,
    evaluations=6,
    evaluation_tokens=64,
    curve_tokens=64,
)


@pytest.fixture(scope="module")
def ours() -> Transformer:
    return trained(CONFIG)


@pytest.fixture(scope="module")
def mixtral(ours: Transformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our model as transformers' Mixtral."""
    return export(ours, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-MoE whose embedding is its head."""
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=6,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("qwen3")
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


def _job(corpus: Corpus, steps: int = 6) -> Job:
    mixture = Mixture.of({"d0": 9, "d1": 1})
    return Job(CONFIG, RECIPE, str(corpus.path), (mixture,), (1,), steps * 128)


def _model(
    folder: Path, recompute: bool = False, config: ModelConfig = CONFIG
) -> TransformersModel:
    kind = TransformersModel.kind(folder, recompute)
    model = kind.build(config, 0, torch.float32, torch.device("cpu"))
    assert isinstance(model, TransformersModel)
    return model.train()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("document_mask", [False, True])
def test_losses_and_router_gradients_are_those_of_the_same_model_of_ours(
    ours: Transformer, mixtral: Path, recompute: bool, document_mask: bool
) -> None:
    config = dataclasses.replace(CONFIG, document_mask=document_mask).of_text(64, end_of_text=3)
    single = SingleTransformer(config, recompute=recompute)
    single.load_proxy_state(ours.proxy_state())
    foreign = _model(mixtral, recompute, config)
    for model in (single, foreign):
        model.begin_step()
    for seed in (0, 1):  # two micro-batches: the balance is that of both
        ids = torch.randint(64, (3, 13), generator=torch.Generator().manual_seed(seed))
        ids[:2, 5 + seed] = 3
        expected = single.loss(ids[:, :-1], ids[:, 1:])
        found = foreign.loss(ids[:, :-1], ids[:, 1:])
        for mine, theirs in zip(found[:2], expected[:2], strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-5)
        for nats_K, auxiliary_K, _ in (expected, found):
            (nats_K + auxiliary_K).sum().backward()
    theirs_by_name = dict(foreign.named_weights())
    for name, weight in single.named_weights():
        if name.endswith("router.weight"):
            layer = int(name.split(".")[1])
            (other,) = [
                p for n, p in theirs_by_name.items() if f"layers.{layer}." in n and "gate.w" in n
            ]
            assert weight.grad is not None
            assert other.grad is not None
            assert torch.allclose(weight.grad.mT, other.grad, atol=1e-6, rtol=1e-3), name


class Watch:
    """Keeps the losses of reported steps."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def __call__(self, progress: FullProgress) -> None:
        if progress.loss:
            self.losses[progress.step] = progress.loss[0]
        if progress.phase == "training" and progress.step:
            assert [sum(layer) for layer in progress.loads] == pytest.approx([1.0, 1.0])


def _trained(
    world: World, job: Job, model: Path, folder: Path, expected: dict[int, float] | None = None
) -> dict[int, float]:
    watch, kind = Watch(), TransformersModel.kind(model, recompute=world.size > 1)
    outcome = train_full(job, folder, world, watch, keep_weights=True, kind=kind)
    assert outcome.result is not None, outcome.message
    if expected is not None:
        assert watch.losses == pytest.approx(expected, rel=1e-4)
    return watch.losses


@pytest.mark.parametrize("name", ["mixtral", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_two_processes_train_it_as_one_does_and_it_is_a_checkpoint_again(
    name: str, corpus: Corpus, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: Path = request.getfixturevalue(name)
    losses = _trained(World(), _job(corpus), model, tmp_path / "one")
    assert losses[6] < losses[1]
    together(2, _trained, _job(corpus), model, tmp_path / "two", losses)
    ids_KBT = torch.randint(64, (1, 2, 13), generator=torch.Generator().manual_seed(0))
    nats = []
    for folder in (model, tmp_path / "one" / TRAINED, tmp_path / "two" / TRAINED):
        loaded = ForeignModel.load(folder, torch.float32)
        nats.append(loaded.nats(ids_KBT[..., :-1], ids_KBT[..., 1:])[0])
    assert torch.allclose(nats[1], nats[2], atol=1e-3)
    assert not torch.allclose(nats[0], nats[1], atol=1e-2)


def test_norms_and_embeddings_do_not_decay(qwen3: Path) -> None:
    model = _model(qwen3)
    decaying = {name for name, _ in model.named_weights() if model.decays(name)}
    assert not any("norm" in name or "embed" in name for name in decaying)
    assert any("experts" in name for name in decaying)
    assert any("gate.weight" in name for name in decaying)
