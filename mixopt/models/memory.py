"""The memory of a full run's process, by arithmetic: what it holds before a step has been tried.

Shapes: D width, F hidden width of an expert, k experts of a token, L layers, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig

FP32, BF16 = 4, 2  # bytes
STATE = 4 * FP32  # of a parameter: itself, its gradient and AdamW's two moments
CHECKPOINT = 3 * FP32  # of a parameter: itself and the moments
# Bytes that one token of one layer keeps for its gradients, measured over widths 64 to 256, 1 to 4
# experts of a token and hidden widths to 512: (per D, per k D, per k F, per D when recomputed).
KEPT = {"fp32": (50.0, 6.0, 15.3, 9.0), "bf16": (25.0, 7.0, 13.6, 7.0)}


@dataclass(frozen=True)
class Memory:
    """Bytes in one process of a full run.

    Attributes:
        states: its share of parameters, gradients and the optimizer's moments.
        gathered: parameters of other processes that are whole for a while, and their gradients.
        activations: kept for gradients, of its share of a micro-batch.
        built: its share of the parameters while they are drawn or read, and one block whole, with
            what that is made from; of one process, the whole model.
        checkpoint: of one checkpoint, on disk, of all processes.
        weights: of the final weights, on disk.
    """

    states: float
    gathered: float
    activations: float
    built: float
    checkpoint: float
    weights: float

    @property
    def training(self) -> float:
        """At the height of a step."""
        return self.states + self.gathered + self.activations

    @property
    def needed(self) -> float:
        """The least that the process must have: what holds whatever the activations are."""
        return max(self.states, self.built)


def full_run_memory(
    model: ModelConfig, recipe: Recipe, processes: int = 1, *, recompute: bool = False
) -> Memory:
    """What each of `processes` holds of a training; `precision: auto` counts as fp32.

    States are exact. Activations are within a third of what torch keeps for the shapes that they
    were measured on; what libraries take besides is not counted.

    Args:
        model: its shape, with a vocabulary.
        recipe: its sequences, batch, micro-batches and precision.
        processes: that share parameters and batch.
        recompute: whether activations are computed again.

    Example:
        memory = full_run_memory(config, Recipe(sequence_length=2048), processes=8)
        print(memory.training / 1e9, "GB in each process")
    """
    head = model.vocab_size * model.width
    params = model.total_params() + head * (1 if model.tie_embeddings else 2)
    precision = "bf16" if recipe.precision == "bf16" else "fp32"
    width, reached = model.width, model.experts_per_token + model.shared_experts
    per_width, per_expert, per_hidden, again = KEPT[precision]
    layer = width * (per_width + per_expert * reached) + per_hidden * reached * model.expert_width
    share = -(-recipe.batch_sequences // (recipe.micro_batches * processes))
    tokens = share * recipe.sequence_length
    kept = model.layers * width * again + layer if recompute else model.layers * layer
    block = model.total_params() / model.layers
    item = BF16 if precision == "bf16" else FP32
    whole = block * (2 * item + FP32) + 2 * head * FP32  # two blocks, one's gradient; the root's
    built = params / processes + (2 * max(block, head) if processes > 1 else 0)
    return Memory(
        states=STATE * params / processes,
        gathered=whole if processes > 1 else 0.0,
        activations=tokens * kept + head * FP32,
        built=FP32 * built,
        checkpoint=CHECKPOINT * params,
        weights=FP32 * params,
    )
