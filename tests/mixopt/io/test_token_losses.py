"""Losses of tokens are kept as they are, and a file that is not whole is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixopt.core.errors import CheckpointError
from mixopt.io import token_losses


def test_what_is_written_is_read_in_single_precision(tmp_path: Path) -> None:
    nats = {"loss/file": np.linspace(0, 9, 50), "loss/a/b": np.array([0.25], dtype=np.float32)}
    token_losses.write(tmp_path / "new" / token_losses.TOKENS, nats)
    kept = token_losses.read(tmp_path / "new" / token_losses.TOKENS)
    assert list(kept) == list(nats)
    for name, values in kept.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, nats[name], rtol=1e-7)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [token_losses.TOKENS]


@pytest.mark.parametrize("left", [None, 0, 10, 200])
def test_an_absent_or_torn_file_is_named_with_its_mend(tmp_path: Path, left: int | None) -> None:
    path = tmp_path / token_losses.TOKENS
    if left is not None:
        token_losses.write(path, {"loss/a": np.zeros(100)})
        path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"tokens\.npz: .*another name"):
        token_losses.read(path)
