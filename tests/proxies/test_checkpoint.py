"""A state comes back as it was written, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixopt.core.errors import BrokenCheckpointError, CheckpointError
from mixopt.proxies.checkpoint import TYPES, load_state, open_state, save_state, write_state


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    state = {
        "a": torch.arange(6.0).view(2, 3).T,
        "b": torch.tensor(3),
        "c": torch.ones(2).bfloat16(),
    }
    save_state(tmp_path / "state.safetensors", state, {"step": 3})
    tensors, meta = load_state(tmp_path / "state.safetensors")
    assert meta == {"step": 3}
    assert all(torch.equal(tensors[name], value) for name, value in state.items())
    assert tensors.keys() == state.keys()


def test_a_flip_of_any_bit_is_found_or_harmless(tmp_path: Path) -> None:
    path, state = tmp_path / "state.safetensors", {"a": torch.arange(9.0), "b": torch.tensor(3)}
    save_state(path, state, {"step": 3})
    data = path.read_bytes()
    refused = 0
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            tensors, meta = load_state(path)
        except BrokenCheckpointError:
            refused += 1
            continue
        assert meta == {"step": 3}
        assert all(torch.equal(tensors[name], value) for name, value in state.items())
    assert refused > 0.9 * len(data)


def test_a_flipped_bit_is_found_and_the_file_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.arange(64.0)})
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"state\.safetensors: was changed .* Delete it"):
        load_state(path)


def test_a_state_written_and_read_tensor_by_tensor_is_the_same_file(tmp_path: Path) -> None:
    state = {
        "b": torch.arange(6.0).view(2, 3),
        "a": torch.tensor([True, False, True]),
        "c": torch.arange(3, dtype=torch.int64),
        "d": torch.randn(5).bfloat16(),
    }
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_state(one, state)
    outline = {name: tensor.to("meta") for name, tensor in state.items()}
    write_state(other, outline, sorted(state.items()))
    loaded, meta = load_state(other)
    assert meta == {}
    assert list(loaded) == list(load_state(one)[0])
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    opened = open_state(one)
    assert opened.keys() == state.keys()
    assert all(torch.equal(opened[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", TYPES)
def test_a_tensor_of_any_type_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.arange(6).view(2, 3).to(dtype)
    path = tmp_path / "state.safetensors"
    write_state(path, {"a": tensor.to("meta")}, [("a", tensor)])
    (found,) = load_state(path)[0].values()
    assert found.dtype == dtype
    assert found.view(torch.uint8).equal(tensor.view(torch.uint8))


def test_a_state_that_is_not_the_one_announced_leaves_no_file(tmp_path: Path) -> None:
    outline = {"a": torch.empty(3, device="meta")}
    with pytest.raises(AssertionError):
        write_state(tmp_path / "state", outline, [("a", torch.ones(4))])
    assert not list(tmp_path.iterdir())


def test_what_was_changed_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.arange(64.0)})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BrokenCheckpointError, match="was changed"):
        open_state(path)
