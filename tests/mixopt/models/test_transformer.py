import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from mixopt.core.errors import StudyError, TrainingError
from mixopt.models import attention
from mixopt.models.attention import rotary_tables
from mixopt.models.config import ModelConfig
from mixopt.models.losses import cross_entropy, token_nats
from mixopt.models.transformer import Transformer

CONFIG = ModelConfig(width=16, layers=2, heads=2, experts=4, expert_width=12, vocab_size=40)
DENSE = dataclasses.replace(CONFIG, experts=1, experts_per_token=1)


def _ids(cohort: int = 1, seed: int = 0, length: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(40, (cohort, 3, length), generator=generator)


def _livelier(model: Transformer) -> Transformer:
    """Weights large enough that a wrong computation shows in the logits."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape[1:], generator=generator)
            parameter.add_(0.2 * noise)
    return model


@pytest.mark.parametrize(
    "config", [CONFIG, DENSE, dataclasses.replace(CONFIG, document_mask=True, end_of_text=3)]
)
def test_a_cohort_is_its_proxies_run_apart(config: ModelConfig) -> None:
    ids_KBT = _ids(3)
    together = _livelier(Transformer(config, (5, 6, 5)))
    losses = together.loss(ids_KBT[..., :-1], ids_KBT[..., 1:])
    (losses.nats_K + losses.auxiliary_K).sum().backward()
    for k, seed in enumerate((5, 6, 5)):
        alone = _livelier(Transformer(config, (seed,)))
        own = ids_KBT[k : k + 1]
        loss = alone.loss(own[..., :-1], own[..., 1:])
        (loss.nats_K + loss.auxiliary_K).sum().backward()
        assert torch.allclose(losses.nats_K[k], loss.nats_K[0], atol=1e-5)
        assert torch.allclose(losses.auxiliary_K[k], loss.auxiliary_K[0], atol=1e-5)
        for (name, mine), theirs in zip(
            alone.named_parameters(), together.parameters(), strict=True
        ):
            assert mine.grad is not None, name
            assert theirs.grad is not None, name
            assert torch.allclose(mine.grad[0], theirs.grad[k], atol=1e-5, rtol=1e-3), name


def test_equal_seeds_start_equal_and_others_do_not() -> None:
    first, second = Transformer(CONFIG, (1, 2)), Transformer(CONFIG, (2,))
    for name, tensor in second.proxy_state(0).items():
        assert torch.equal(tensor, first.proxy_state(1)[name]), name
    assert not torch.equal(first.embedding[0], first.embedding[1])


def test_no_position_sees_a_later_one() -> None:
    model = _livelier(Transformer(CONFIG))
    ids_KBT = _ids()
    changed_KBT = ids_KBT.clone()
    changed_KBT[..., 7:] = (changed_KBT[..., 7:] + 1) % 40
    before, after = model.logits(ids_KBT), model.logits(changed_KBT)
    assert torch.allclose(before[:, :, :7], after[:, :, :7], atol=1e-5)
    assert not torch.allclose(before[:, :, 7:], after[:, :, 7:], atol=1e-2)


def test_positions_matter_only_relatively_to_each_other() -> None:
    cos_TV, sin_TV = rotary_tables(9, 4, 10_000.0, torch.device("cpu"), torch.float64)
    q_W, k_W = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotated = [attention._rotate(v.expand(9, 4), cos_TV, sin_TV) for v in (q_W, k_W)]
    products_TT = rotated[0] @ rotated[1].T
    assert torch.allclose(products_TT[5, 2], products_TT[8, 5])
    assert not torch.allclose(products_TT[5, 2], products_TT[5, 3])


def test_plain_attention_is_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _livelier(Transformer(CONFIG))
    plain = model.logits(_ids())
    monkeypatch.setattr(attention, "LONGEST_PLAIN", 0)
    assert torch.allclose(model.logits(_ids()), plain, atol=1e-4)


@pytest.mark.parametrize("longest_plain", [0, 512])
def test_masked_documents_are_what_each_is_alone(
    longest_plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LONGEST_PLAIN", longest_plain)
    monkeypatch.setattr(attention, "BLOCK", 4)
    config = dataclasses.replace(CONFIG, document_mask=True).of_text(0, end_of_text=0)
    model = _livelier(Transformer(config))
    ids_KBT = _ids().clamp(min=1)
    ids_KBT[0, :2, 5] = 0  # the third sequence is one document
    ids_KBT[0, 1, 6:8] = 0
    together_BTV = model.logits(ids_KBT)[0]
    for row, begins in enumerate([(0, 5, 12), (0, 5, 6, 7, 12), (0, 12)]):
        for begin, end in pairwise(begins):
            alone_TV = model.logits(ids_KBT[:, row : row + 1, begin:end])[0, 0]
            assert torch.allclose(together_BTV[row, begin:end], alone_TV, atol=1e-4)


def test_a_mask_for_the_kernel_is_made_and_kept_once_for_all_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "LONGEST_PLAIN", 0)
    config = dataclasses.replace(CONFIG, layers=5, document_mask=True).of_text(0, end_of_text=0)
    ids_KBT = _ids(length=24)
    squares: set[int] = set()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[-2:] == (23, 23):
            squares.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Transformer(config).loss(ids_KBT[..., :-1], ids_KBT[..., 1:])
    assert len(squares) == 1


@pytest.mark.parametrize("masked", [False, True])
def test_chunked_cross_entropy_is_the_plain_one(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixopt.models.losses.CHUNK_LOGITS", 64 * 50)
    monkeypatch.setattr("mixopt.models.losses.CHUNK_ROWS", 64)
    generator = torch.Generator().manual_seed(3)
    x_KND = torch.randn(2, 150, 8, generator=generator, requires_grad=True)
    head_KVD = torch.randn(2, 50, 8, generator=generator, requires_grad=True)
    targets_KN = torch.randint(50, (2, 150), generator=generator)
    mask_KN = torch.rand(2, 150, generator=generator) < 0.7 if masked else None
    weights_K = torch.tensor([1.0, 2.5])

    plain_KN = F.cross_entropy((x_KND @ head_KVD.mT).mT, targets_KN, reduction="none")
    kept_KN = torch.ones_like(plain_KN) if mask_KN is None else mask_KN.float()
    plain_K = (plain_KN * kept_KN).sum(1) / kept_KN.sum(1)
    expected = torch.autograd.grad((plain_K * weights_K).sum(), (x_KND, head_KVD))
    loss_K = cross_entropy(x_KND, head_KVD, targets_KN, mask_KN)
    found = torch.autograd.grad((loss_K * weights_K).sum(), (x_KND, head_KVD))
    assert torch.allclose(loss_K, plain_K, atol=1e-5)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert torch.allclose(token_nats(x_KND, head_KVD, targets_KN), plain_KN, atol=1e-4)


def test_right_padding_changes_no_loss() -> None:
    model = _livelier(Transformer(CONFIG))
    ids_KBT = _ids()
    short = model.loss(ids_KBT[..., :6], ids_KBT[..., 1:7])
    mask_KBT = torch.arange(11).expand(1, 3, 11) < 6
    model.begin_step()
    padded = model.loss(ids_KBT[..., :-1], ids_KBT[..., 1:], mask_KBT)
    assert torch.allclose(short.nats_K, padded.nats_K, atol=1e-5)
    assert torch.allclose(short.auxiliary_K, padded.auxiliary_K, atol=1e-5)


def test_gradients_agree_with_finite_differences() -> None:
    # all experts chosen: with fewer, a step may change the choice, where the loss jumps
    model = _livelier(Transformer(dataclasses.replace(CONFIG, experts_per_token=4)))
    ids_KBT = _ids()

    def total() -> torch.Tensor:
        model.begin_step()
        losses = model.loss(ids_KBT[..., :-1], ids_KBT[..., 1:])
        return (losses.nats_K + losses.auxiliary_K).sum()

    total().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        direction = parameter.grad / parameter.grad.norm()
        with torch.no_grad():
            step = 2e-3
            parameter += step * direction
            high = total()
            parameter -= 2 * step * direction
            low = total()
            parameter += step * direction
        slope = float(high - low) / (2 * step)
        assert slope == pytest.approx(float(parameter.grad.norm()), rel=0.02, abs=2e-3), name


def test_parameters_are_counted_as_they_are() -> None:
    for config in (CONFIG, DENSE, dataclasses.replace(CONFIG, shared_experts=2)):
        state = Transformer(config).proxy_state()
        there = sum(t.numel() for n, t in state.items() if n != "embedding")
        assert config.total_params() == there
    assert CONFIG.total_params() - CONFIG.active_params() == 2 * 2 * 3 * 16 * 12
    assert DENSE.total_params() == DENSE.active_params()
    assert CONFIG.flops_per_token(64) > 2 * (CONFIG.active_params() + 40 * 16)


def test_bf16_products_stay_close_to_fp32() -> None:
    ids_KBT = _ids()
    full = Transformer(CONFIG, (1,)).logits(ids_KBT)
    low = Transformer(CONFIG, (1,), torch.bfloat16).logits(ids_KBT)
    assert (full - low).abs().max() < 0.03


def test_a_state_of_another_shape_is_refused_by_name() -> None:
    model = Transformer(CONFIG)
    state = Transformer(dataclasses.replace(CONFIG, expert_width=8)).proxy_state()
    with pytest.raises(TrainingError, match="feed_forward"):
        model.load_proxy_state(state)


def test_a_model_without_vocabulary_is_refused() -> None:
    with pytest.raises(TrainingError, match="vocabulary"):
        Transformer(ModelConfig())
    with pytest.raises(StudyError, match="heads"):
        ModelConfig(width=30, heads=4)
