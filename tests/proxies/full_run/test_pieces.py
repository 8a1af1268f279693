"""Models built in pieces: the values of a whole one bit for bit, and no process holds it whole."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixopt.core.errors import CheckpointError
from mixopt.models.config import ModelConfig
from mixopt.models.routers import ROUTERS
from mixopt.models.single import Cut, SingleTransformer
from mixopt.models.transformer import Transformer
from mixopt.proxies.checkpoint import load_state, open_state, save_state, write_state
from mixopt.proxies.full_run.foreign import TransformersModel
from mixopt.proxies.full_run.sharding import outline_of, own_rows, shard, whole_weights
from mixopt.proxies.full_run.world import World
from tests.proxies.full_run.processes import together

CONFIG = ModelConfig(width=16, layers=3, heads=2, experts=4, expert_width=12, vocab_size=40)
DEEP = dataclasses.replace(CONFIG, width=32, layers=16, expert_width=32, vocab_size=64)
CPU = torch.device("cpu")


def _shape(router: str) -> ModelConfig:
    settings = {"ablation": True} if router == "expert-choice" else {}
    return dataclasses.replace(CONFIG, router=router, router_settings=settings)


SHAPES = {
    "dense": dataclasses.replace(CONFIG, experts=1, experts_per_token=1),
    "untied": dataclasses.replace(CONFIG, tie_embeddings=False, shared_experts=1),
    **{router: _shape(router) for router in ROUTERS},
}


class Counted(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive, and of the most that were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, Tensor) and type(tensor) is Tensor and not tensor.is_meta:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.itemsize for p in module.parameters())


def _together_again(build: Callable[[World], dict[str, Tensor]], processes: int = 3) -> Any:
    parts = [build(World(rank, processes)) for rank in range(processes)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("shape", SHAPES)
def test_pieces_that_are_drawn_are_those_of_the_whole_model(shape: str) -> None:
    whole = SingleTransformer(SHAPES[shape], 5)

    def pieces(world: World) -> dict[str, Tensor]:
        model = SingleTransformer(SHAPES[shape], 5, cut=own_rows(world))
        assert all(parameter.is_meta for parameter in model.parameters())
        for name, buffer in whole.buffers_to_keep().items():
            assert torch.equal(model.buffers_to_keep()[name], buffer), name
        return model.pieces

    found = _together_again(pieces)
    expected = dict(whole.named_weights())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_pieces_that_are_read_are_those_of_the_file(tmp_path: Path) -> None:
    proxy = Transformer(SHAPES["loss-free"], (7,))
    save_state(tmp_path / "state.safetensors", proxy.proxy_state())
    whole = SingleTransformer(SHAPES["loss-free"], 7)

    def pieces(world: World) -> dict[str, Tensor]:
        model = SingleTransformer(SHAPES["loss-free"], cut=own_rows(world), draw=False)
        assert not model.pieces
        model.load_proxy_state(open_state(tmp_path / "state.safetensors"))
        return model.pieces

    found = _together_again(pieces)
    assert all(torch.equal(found[name], weight) for name, weight in whole.named_weights())


@pytest.mark.parametrize("way", ["drawn", "read", "left"])
def test_a_process_never_holds_the_whole_model_while_it_is_built(way: str, tmp_path: Path) -> None:
    whole = SingleTransformer(DEEP)
    path = tmp_path / "state.safetensors"
    if way == "read":
        save_state(path, whole.proxy_state())
    with Counted() as all_of_it:
        SingleTransformer(DEEP)
    assert all_of_it.most >= _bytes(whole)
    world = World(3, 8)
    with Counted() as counted:
        model = SingleTransformer(DEEP, cut=own_rows(world), draw=way == "drawn")
        if way == "read":
            model.load_proxy_state(open_state(path))
    own = sum(piece.nbytes for piece in model.pieces.values())
    assert own == (0 if way == "left" else pytest.approx(_bytes(whole) / 8, rel=0.02))
    # a block, the numbers that one of its weights is drawn from, and what its router is made with
    assert counted.most < own + 2 * _bytes(whole.parts[0])
    assert counted.most < _bytes(whole) / 3


def _build(world: World, expected: Path, checkpoint: Path | None) -> None:
    """A model that is built in pieces and sharded is, put together, the whole one."""
    cut = own_rows(world)
    model: Any
    with Counted() as counted:
        if checkpoint is None:
            model = SingleTransformer(DEEP, 5, cut=cut)
        else:
            model = TransformersModel.kind(checkpoint).build(DEEP, 0, torch.float32, CPU, cut)
        shard(model, world)
    whole = torch.load(expected)
    size = sum(tensor.nbytes for tensor in whole.values())
    assert counted.most < 0.8 * size, (counted.most, size)  # here is a half, and a block
    assert not model.pieces
    path = expected.with_name(f"{world.rank}.safetensors")
    with Counted() as counted:
        write_state(path, outline_of(model), whole_weights(model))
    assert counted.most < 0.2 * size, (counted.most, size)
    found = load_state(path)[0]
    assert found.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in found.items())
    if checkpoint is not None:
        assert model.model.lm_head.weight is model.model.model.embed_tokens.weight
        loaded = TransformersModel.kind(checkpoint).build(DEEP, 0, torch.float32, CPU)
        buffers = dict(loaded.model.named_buffers())
        assert "model.rotary_emb.inv_freq" in buffers
        for name, buffer in model.model.named_buffers():
            assert torch.equal(buffer, buffers[name]), name


@pytest.mark.slow
def test_two_processes_hold_half_of_ours_each(tmp_path: Path) -> None:
    torch.save(SingleTransformer(DEEP, 5).proxy_state(), tmp_path / "whole.pt")
    together(2, _build, tmp_path / "whole.pt", None)


def _mixtral(folder: Path) -> dict[str, Tensor]:
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=DEEP.vocab_size,
        hidden_size=DEEP.width,
        intermediate_size=DEEP.expert_width,
        num_hidden_layers=DEEP.layers,
        num_attention_heads=DEEP.heads,
        num_key_value_heads=DEEP.heads,
        num_local_experts=DEEP.experts,
        tie_word_embeddings=True,
    )
    model = transformers.MixtralForCausalLM(config)
    model.save_pretrained(folder)
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.slow
def test_two_processes_hold_half_of_transformers_model_each(tmp_path: Path) -> None:
    torch.save(_mixtral(tmp_path / "mixtral"), tmp_path / "whole.pt")
    together(2, _build, tmp_path / "whole.pt", tmp_path / "mixtral")


@pytest.mark.parametrize("cut", [None, own_rows(World(0, 2))], ids=["whole", "pieces"])
def test_a_checkpoint_that_lacks_a_weight_is_refused(cut: Cut | None, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    _mixtral(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.load_file(path)
    del tensors["model.norm.weight"]
    safetensors.save_file(tensors, path, metadata={"format": "pt"})
    build = TransformersModel.kind(tmp_path).build
    with pytest.raises(CheckpointError, match=r"lacks model\.norm\.weight"):
        build(DEEP, 0, torch.float32, CPU, cut)
