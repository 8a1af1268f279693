"""The peer of the throughput benchmark: Hugging Face's OLMoE, trained by a plain loop.

It gets its fastest settings: experts, attention and precision are tried first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig

TOO_SLOW = 1.5  # a variant whose second step takes this much longer than the best is dropped
HOPELESS = 10  # or whose first one, which also warms up, does
TRIED_STEPS = 4


@dataclass(frozen=True)
class Variant:
    """How transformers runs it: experts and attention by its own names, and the precision."""

    experts: str
    attention: str
    precision: str

    def __str__(self) -> str:
        return f"{self.experts} experts, {self.attention} attention, {self.precision}"


VARIANTS = [
    Variant(*names)
    for names in itertools.product(
        ("grouped_mm", "eager", "batched_mm"),
        ("eager", "sdpa"),
        ("bf16 autocast", "fp32", "bf16 weights"),
    )
]


def missing() -> str | None:
    """Why there is no peer to measure, or None."""
    try:
        from transformers import OlmoeForCausalLM  # noqa: F401
    except ImportError as error:
        return f"transformers is not installed ({error}); pip install 'mixopt[huggingface]'"
    return None


def train_step(
    variant: Variant,
    config: ModelConfig,
    recipe: Recipe,
    ids_BT: torch.Tensor,
    *,
    compiled: bool = False,
) -> Callable[[], torch.Tensor]:
    """A function that trains one step on `ids_BT`, (B, T + 1), and returns the loss."""
    from transformers import OlmoeConfig, OlmoeForCausalLM

    settings = OlmoeConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=config.expert_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        num_experts=config.experts,
        num_experts_per_tok=config.experts_per_token,
        norm_topk_prob=config.renormalize,
        max_position_embeddings=ids_BT.shape[1],
        tie_word_embeddings=config.tie_embeddings,
        router_aux_loss_coef=config.balance_coefficient,
        output_router_logits=True,
        use_cache=False,
        attn_implementation=variant.attention,
        experts_implementation=variant.experts,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")),
    )
    torch.manual_seed(0)
    device = ids_BT.device
    model = OlmoeForCausalLM(settings).to(device).train()
    if variant.precision == "bf16 weights":
        model = model.bfloat16()
    rates = {"lr": 1e-3, "betas": (recipe.beta1, recipe.beta2), "weight_decay": recipe.weight_decay}
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **rates)
    # on a GPU, with its kernels captured as well, where torch can do that
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    run = torch.compile(model, mode=mode) if compiled else model
    # the model shifts the labels itself: as many predictions as ours, less one per sequence
    inputs_BT = ids_BT[:, :-1].contiguous()
    autocast = variant.precision == "bf16 autocast"

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = run(input_ids=inputs_BT, labels=inputs_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        return loss.detach()

    return step


def fastest(
    variants: Iterable[Variant],
    build: Callable[[Variant], Callable[[], torch.Tensor]],
    tell: Callable[[Variant, float | None, str], None],
) -> Variant:
    """The variant with the fastest step; `tell` hears the seconds of each, or why it cannot run.

    Raises:
        RuntimeError: none of them runs.
    """
    best: tuple[float, Variant] | None = None
    for variant in variants:
        try:
            step = build(variant)
            seconds = _seconds(step)
            limit = TOO_SLOW * best[0] if best else float("inf")
            hopeless = best is not None and seconds > HOPELESS * best[0]
            for _ in range(0 if hopeless else TRIED_STEPS):
                again = _seconds(step)
                seconds = min(seconds, again)
                if again > limit:
                    break
        except (RuntimeError, ValueError, ImportError) as error:
            # kernels that this device or precision does not have; whoever reads on sees which
            tell(variant, None, f"{type(error).__name__}: {error}".splitlines()[0])
            continue
        tell(variant, seconds, "")
        if best is None or seconds < best[0]:
            best = (seconds, variant)
    if best is None:
        raise RuntimeError("no variant of the peer runs here")
    return best[1]


def _seconds(step: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    step().item()  # waits for the device
    return time.perf_counter() - start
