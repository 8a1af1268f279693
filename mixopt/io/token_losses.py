"""A trained proxy's loss on every evaluated token, as a file in its trial's folder.

Kept only where a proposer asks for it (`Proposer.needs_token_losses`): four bytes a token of each
validation domain of the objective, the same tokens in the same order for every trial of a study.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mixopt.core.errors import CheckpointError
from mixopt.io.files import write_bytes

TOKENS = "tokens.npz"  # in a trial's folder; of a cohort tokens-0.npz, …


def write(path: Path, losses: Mapping[str, np.ndarray]) -> None:
    """Write `losses`, metric such as `loss/law` → (t,) nats of each token, whole or not at all."""
    buffer = io.BytesIO()
    single = {name: np.asarray(nats, dtype=np.float32) for name, nats in losses.items()}
    np.savez(buffer, **single)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def kept(folder: Path) -> frozenset[str]:
    """Metrics, such as `loss/law`, whose tokens' losses a trial's `folder` keeps.

    Raises:
        CheckpointError: the file is broken.
    """
    path = folder / TOKENS
    if not path.exists():
        return frozenset()
    with _opened(path) as file:
        return frozenset(file.files)


def read(path: Path) -> dict[str, np.ndarray]:
    """What `write` wrote: metric → (t,) float32 nats of each token.

    Raises:
        CheckpointError: the file is absent or broken.
    """
    with _opened(path) as file:
        return {name: file[name] for name in file.files}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"the losses of a trial's tokens cannot be read: {error}",
            where=str(path),
            hint="A finished trial is not trained again: put the file back, or give the study "
            "another name",
        ) from error
