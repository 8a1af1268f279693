"""A mixture of experts of transformers, trained as ours are: with our losses, sharded, resumable.

Shapes: B sequences, T positions, N = B·T tokens, K = 1 model, E experts, S experts of a token.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixopt.core.errors import TrainingError
from mixopt.core.phases import Part
from mixopt.io.trial_files import TRAINED
from mixopt.models.config import ModelConfig
from mixopt.models.families.loaded import load_in_pieces, load_model, routers_of
from mixopt.models.losses import cross_entropy
from mixopt.models.routers.base import Router, Routing, RoutingContext
from mixopt.models.routers.top_k import TopKRouter
from mixopt.models.single import Cut, move_buffers
from mixopt.models.transformer import check_state
from mixopt.proxies.foreign import attended, nats_of, routing_of
from mixopt.proxies.full_run.contract import ModelKind


class TransformersModel(nn.Module):
    """A causal language model of transformers whose routers take the k largest of a softmax.

    Its weights stay fp32, and products run under autocast. transformers' own auxiliary loss pools
    the layers, whose imbalances may cancel; ours is of each layer, over the whole batch.

    Args:
        model: of transformers, its weights fp32.
        config: says how the load is balanced, and whether documents are masked from each other.
        compute_dtype: of the products.
        recompute: whether its layers are computed again for gradients.
        pieces: of its weights, where its parameters are on the meta device.
        cut: what made them.

    Raises:
        TrainingError: its head has a bias.
    """

    cohort = 1
    gather_dtype = None

    def __init__(
        self,
        model: nn.Module,
        config: ModelConfig,
        compute_dtype: torch.dtype = torch.float32,
        recompute: bool = False,
        pieces: dict[str, Tensor] | None = None,
        cut: Cut | None = None,
    ) -> None:
        super().__init__()
        self.pieces, self._cut = pieces or {}, cut
        self.model, self.compute_dtype = model, compute_dtype
        self._end_of_text = config.end_of_text
        found: Any = model
        if found.get_output_embeddings().bias is not None:
            raise TrainingError("models whose head has a bias are not trained here")
        if recompute:
            name = "activation_checkpointing_enable"  # or as earlier versions of transformers 5 do
            enable = getattr(found, name, None) or found.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        self._embeddings = {id(found.get_input_embeddings().weight), id(self._head.weight)}
        self._own = {name: (p.shape, self._decays(p)) for name, p in model.named_parameters()}
        self._routed: list[tuple[Tensor, Tensor, Tensor]] = []
        theirs = routers_of(model)
        self._routers = tuple(
            _LogitsRouter(_layer(config, router), 1, layer) for layer, router in enumerate(theirs)
        )
        own = {id(weight) for router in theirs for weight in router.parameters()}
        self._router_weights = {n for n, p in model.named_parameters() if id(p) in own}
        for router in theirs:
            router.register_forward_hook(self._keep)

    @classmethod
    def kind(cls, folder: Path, recompute: bool = False) -> ModelKind:
        """What `train_full` needs to train the checkpoint in `folder`.

        It is saved as it was read, in fp32, into a folder `trained` with all else that lies beside
        its weights, such as the tokenizer.

        What the folder holds is no part of a job: name it in `Job.identity`, or another checkpoint
        of the same shape goes on where this one stopped.

        Raises:
            CheckpointError: when it is built: transformers is not installed, or cannot load it.
        """

        def build(
            config: ModelConfig,
            seed: int,
            dtype: torch.dtype,
            device: torch.device,
            cut: Cut | None = None,
            draw: bool = True,
        ) -> Any:
            hint = "Give a folder that transformers' AutoModelForCausalLM loads"
            if cut is None:
                model = load_model(folder, torch.float32, hint).to(device)
                made = cls(model, config, dtype, recompute)
            else:
                model, pieces = load_in_pieces(folder, torch.float32, hint, cut)
                move_buffers(model, device)
                made = cls(model, config, dtype, recompute, pieces, cut)
            for router in made.routers():
                router.to(device)
            return made

        def save(model: Any, out: Path, weights: Iterator[tuple[str, Tensor]]) -> None:
            trained = out / TRAINED
            found = {name: weight.cpu() for name, weight in weights}  # transformers wants them all
            state = {name: found[name] for name, _ in model.named_weights()}
            shutil.rmtree(trained, ignore_errors=True)
            model.model.save_pretrained(trained, state_dict=state)
            for path in folder.iterdir():
                carried = path.is_file() and ".safetensors" not in path.name
                if carried and not (trained / path.name).exists():
                    shutil.copy2(path, trained)

        return ModelKind(build, save, recompute)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> TransformersModel:
        """Choose between training and evaluation."""
        for router in self._routers:
            router.train(mode)
        return super().train(mode)

    def sharded_alone(self) -> Sequence[nn.Module]:
        """The decoder's layers."""
        names = set(getattr(self.model, "_no_split_modules", None) or ())
        return [module for module in self.model.modules() if type(module).__name__ in names]

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor, list[Routing]]:
        """Nats per token (1,), the routers' losses (1,), and the routing of every MoE layer."""
        self._routed.clear()
        found: Any = self.model
        with self._autocast():
            x_BTD = found.model(
                input_ids=ids_BT, **attended(ids_BT, None, self._end_of_text), use_cache=False
            ).last_hidden_state
        x_KND = x_BTD.flatten(0, 1).to(self.compute_dtype).unsqueeze(0)
        head_KVD = self._head.weight.to(self.compute_dtype).unsqueeze(0)
        nats_K = cross_entropy(x_KND, head_KVD, targets_BT.reshape(1, -1))
        pairs = zip(self._routers, list(self._routed), strict=True)
        routings = [
            router(logits_NE.float().unsqueeze(0), RoutingContext())
            for router, (logits_NE, _, _) in pairs
        ]
        losses = [loss_K for routing in routings for loss_K in routing.losses.values()]
        auxiliary_K = torch.stack(losses).sum(0) if losses else torch.zeros_like(nats_K)
        return nats_K, auxiliary_K, routings

    @torch.no_grad()
    def nats(
        self, ids_KBT: Tensor, targets_KBT: Tensor, mask_KBT: Tensor | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """See `LanguageModel`; `mask_KBT` is True where a position is real."""
        self._routed.clear()
        with self._autocast():
            nats_KN = nats_of(self.model, ids_KBT, targets_KBT, mask_KBT, self._end_of_text)
        layers = zip(self._routed, self._routers, strict=True)
        return nats_KN, [routing_of(g, i, r.config.experts) for (_, g, i), r in layers]

    def begin_step(self, progress: float = 0.0) -> None:
        """Forget the assignments of the last optimizer step."""
        for router in self._routers:
            router.begin_step(progress)

    def end_step(self) -> None:
        """Nothing."""

    def routers(self) -> list[Router]:
        """One for each MoE layer, which counts and balances; the weights are the model's."""
        return list(self._routers)

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by transformers' names."""
        return self.model.named_parameters()

    def shape_of(self, name: str) -> torch.Size:
        """The shape of a weight."""
        return self._own[name][0]

    def decays(self, name: str) -> bool:
        """Whether weight decay touches this weight: norms and embeddings are left alone."""
        return self._own[name][1]

    def part_of(self, name: str) -> Part:
        """Whose this weight is: a router's, the routed experts', or shared by all tokens."""
        if ".experts." in name:
            return "experts"
        return "router" if name in self._router_weights else "shared"

    def buffers_to_keep(self) -> dict[str, Tensor]:
        """None."""
        return {}

    @torch.no_grad()
    def load_proxy_state(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite the model with a state by transformers' names; before it is sharded.

        Raises:
            TrainingError: names or shapes differ.
        """
        check_state({name: shape for name, (shape, _) in self._own.items()}, state)
        for name, weight in self.named_weights():
            if self._cut is None:
                weight.copy_(state[name])
            else:
                self.pieces[name] = self._cut(state[name].to(weight.dtype))

    @property
    def _head(self) -> Any:
        found: Any = self.model
        return found.get_output_embeddings()

    def _decays(self, weight: Tensor) -> bool:
        return weight.dim() > 1 and id(weight) not in self._embeddings

    def _autocast(self) -> AbstractContextManager[Any]:
        low = self.compute_dtype != torch.float32
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    def _keep(self, router: Any, args: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        self._routed.append(output)


class _LogitsRouter(TopKRouter):
    """Our losses and counts of logits that another module made."""

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        """As the softmax router's; `x_KND` are its logits."""
        return self.choose(x_KND, context)

    def initialize(self, generators: Sequence[torch.Generator]) -> None:
        """It has no parameters."""


def _layer(config: ModelConfig, router: Any) -> ModelConfig:
    """The shape that our router of this layer has."""
    return dataclasses.replace(
        config,
        experts=int(router.num_experts),
        experts_per_token=int(router.top_k),
        router="softmax",
        router_settings={},
    )
