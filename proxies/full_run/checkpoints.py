"""Checkpoints of a full run: a folder each, whole or absent, that any number of processes reads.

    checkpoints/
    ├── step-000000200/        files of torch.distributed.checkpoint, one per process, and
    │                          done.json, written last: what else is known, and their checksums
    └── .step-000000300.part/  being written

What is resumed lies in the run's own folder, and is compared with the checksums in `done.json`
before torch, which reads its index by pickle, sees any of it.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from mixopt.core.errors import CheckpointError
from mixopt.io import files, markers
from mixopt.io.full_checkpoints import checkpoint_path, steps_kept
from mixopt.io.trial_files import CHECKPOINTS, KEPT
from mixopt.proxies.full_run.world import World


class Checkpoints:
    """Those of one run.

    Every process calls every method, and sees the same disk.

    Args:
        folder: of the run.
        world: the processes.
        identity: of the work, which a checkpoint must have.

    Attributes:
        notes: what was skipped by `newest`, and why.
    """

    def __init__(self, folder: Path, world: World, identity: str) -> None:
        self._run, self._folder = folder, folder / CHECKPOINTS
        self._world, self._identity = world, identity
        self.notes: list[str] = []
        self._broken: set[int] = set()

    def save(self, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write a checkpoint; then remove all but the last ones.

        Args:
            step: optimizer steps done.
            tensors: by name; sharded ones lie in pieces on all processes, others are the first's.
            about: JSON-able; what `newest` gives back.
        """
        path = self._path(step)
        part = path.with_name(f".{path.name}.part")
        with files.writing(part):
            if self._world.first:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
            self._world.all_agree(True)
            with _alone_or_not():
                save(dict(tensors), checkpoint_id=part, no_dist=self._world.size == 1)
            self._world.all_agree(True)
            if self._world.first:
                kept = markers.all_described(part)
                markers.write(part, {"identity": self._identity, "step": step, **about}, kept)
                shutil.rmtree(path, ignore_errors=True)  # a broken one of this step
                part.rename(path)
                files.sync_folder(path.parent)
                self._broken.discard(step)
                good = [other for other in self._steps() if other not in self._broken]
                for old in (*good[KEPT:], *self._broken):
                    shutil.rmtree(self._path(old), ignore_errors=True)
            self._world.all_agree(True)

    def newest(self) -> dict[str, Any] | None:
        """What the newest whole checkpoint says about itself; None where there is none.

        Raises:
            CheckpointError: it belongs to other work.
        """
        if self._world.first:
            for part in self._folder.glob(".step-*.part"):  # of attempts that were killed
                shutil.rmtree(part, ignore_errors=True)
        steps = self._steps()
        while (step := self._world.of_first(steps[0] if steps else -1)) >= 0:
            steps = [other for other in steps if other < step]
            path = self._path(step)
            about = markers.read_alone(path)
            if not self._world.all_agree(about is not None and self._whole(path, about)):
                self._broken.add(step)
                self.notes.append(f"{path}: is cut or broken; the one before it is taken, if any")
                continue
            assert about is not None
            if about["identity"] != self._identity:
                raise CheckpointError(
                    "belongs to other work (its model, recipe, data, mixture or seed differ)",
                    where=str(path),
                    hint="Delete it, and this training begins anew; or give it a folder of its own",
                )
            return about
        return None

    def load(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Read the checkpoint of `step` into `tensors`, however many processes wrote it.

        Raises:
            CheckpointError: it lacks one of them, or has it in another shape.
        """
        path = self._path(step)
        try:
            with _alone_or_not():
                load(dict(tensors), checkpoint_id=path, no_dist=self._world.size == 1)
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"cannot be read into this model: {error}",
                where=str(path),
                hint="Delete it, and the checkpoint before it is taken",
            ) from error

    def _path(self, step: int) -> Path:
        return checkpoint_path(self._run, step)

    def _steps(self) -> list[int]:
        return steps_kept(self._run)

    def _whole(self, path: Path, about: Mapping[str, Any]) -> bool:
        """Whether this process' share of the files is as it was written."""
        kept = about.get("files", {})
        names = sorted(kept)[self._world.share(len(kept))]
        return markers.whole(path, {name: kept[name] for name in names})


@contextmanager
def _alone_or_not() -> Iterator[None]:
    """Torch warns a single process that it is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
