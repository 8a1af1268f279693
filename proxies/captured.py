"""A step of a GPU, captured once and replayed: the CPU launches one graph instead of its kernels.

A small model's step is a thousand kernels of a few microseconds each, and the CPU needs longer to
launch them than the GPU to run them.

Shapes: K proxies, B sequences of a batch, T tokens predicted per sequence.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from mixopt.core.errors import TrainingError, is_out_of_memory
from mixopt.core.recipe import Recipe
from mixopt.models import grouped
from mixopt.models.fusion import missing_compiler
from mixopt.models.transformer import Transformer
from mixopt.proxies.optimizer import CohortOptimizer
from mixopt.proxies.step import Step

# Measured on an H200, 4 layers of width 128: 20 to 30 s to compile, and per layer of each step
# 0.6 ms saved of 1.2 for one proxy, 4.4 of 7.1 for 32. The rest is per number of the stream.
COMPILING_SECONDS, SAVED_PER_LAYER, SAVED_PER_NUMBER = 30.0, 5e-4, 4e-10
WARM_UP = 3  # steps that run by themselves first: libraries choose kernels and compilers compile

_log = logging.getLogger(__name__)


def capturable(model: Transformer) -> bool:
    """Whether the model's step can be captured: on a GPU, and nothing in it waits for a value."""
    device = model.device
    if device.type != "cuda":
        return False
    if model.config.dense:
        return True
    products = model.compute_dtype == torch.bfloat16 and grouped.available(device)
    return products and all(router.capturable for router in model.routers())


def worth_compiling(model: Transformer, recipe: Recipe, steps: int) -> bool:
    """Whether `steps` steps take less time with operators fused, compiler included.

    Under `recipe.compile: auto`; else the recipe says so. What cannot be captured is not compiled.

    Raises:
        TrainingError: the recipe says always, and the machine has no compiler.
    """
    if recipe.compile == "never" or not capturable(model):
        return False
    missing = missing_compiler()
    if recipe.compile == "always":
        if missing:
            raise TrainingError(
                f"compiling for a GPU needs {missing}",
                where="compile",
                hint="Install it, or set compile to auto",
            )
        return True
    if missing:
        return False
    numbers = model.cohort * recipe.tokens_per_step * model.config.width
    saved = model.config.layers * (SAVED_PER_LAYER + SAVED_PER_NUMBER * numbers)
    return steps * saved > COMPILING_SECONDS


def make_step(model: Transformer, optimizer: CohortOptimizer, micro_batches: int = 1) -> Step:
    """The step of this model, captured where it can be."""
    kind = CapturedStep if capturable(model) else Step
    return kind(model, optimizer, micro_batches)


class CapturedStep(Step):
    """A step that is replayed from its fourth call on; every batch must have the first's shape."""

    def __init__(
        self, model: Transformer, optimizer: CohortOptimizer, micro_batches: int = 1
    ) -> None:
        super().__init__(model, optimizer, micro_batches)
        self._device = model.device
        self._calls, self._refused = 0, False
        self._share = torch.ones((), device=self._device)
        self._ids_KBT: Tensor | None = None
        self._found_2K: Tensor | None = None  # nats and gradient norms
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(self._device)

    @property
    def replayed(self) -> bool:
        """Whether the steps from here on are replays."""
        return self._graph is not None

    def move(self, ids_KBT: Tensor, rate_share: float | Tensor) -> Tensor:
        """All of a step but what routers do before and after it."""
        if self._ids_KBT is None:
            self._ids_KBT = ids_KBT.clone()
        self._ids_KBT.copy_(ids_KBT, non_blocking=True)
        self._share.fill_(rate_share)
        self._calls += 1
        if self._calls <= WARM_UP or self._refused:
            return self._beside()
        if self._graph is None and not self._capture():
            return super().move(self._ids_KBT, self._share)
        assert self._graph is not None
        assert self._found_2K is not None
        self._graph.replay()
        nats_K, self.norm_K = self._found_2K.clone().unbind()
        return nats_K

    def _beside(self) -> Tensor:
        """A step on the stream that is captured later."""
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            assert self._ids_KBT is not None
            nats_K = super().move(self._ids_KBT, self._share)
        main.wait_stream(self._stream)
        nats_K.record_stream(main)
        self.norm_K.record_stream(main)
        return nats_K

    def _capture(self) -> bool:
        """Record a step, which does not run it; whether that worked.

        Raises:
            torch.OutOfMemoryError: the graph's own memory is not there.
        """
        assert self._ids_KBT is not None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                nats_K = super().move(self._ids_KBT, self._share)
                self._found_2K = torch.stack([nats_K, self.norm_K])
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            router = self.model.config.router
            _log.warning("the step with router %s is not captured: %s", router, error)
            self._refused = True  # it stays a step that runs by itself
            return False
        self._graph = graph
        return True
