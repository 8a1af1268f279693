"""A promotion that has begun and not ended: its stages, and how far a resume finds each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixopt.core.formatting import count
from mixopt.io import locks, training_log
from mixopt.io.full_checkpoints import resumed_tokens
from mixopt.io.trial_files import MARKER, curve_in
from mixopt.pipelines.study.own_promotion import FULL_RUN_FOLDER
from mixopt.study.records import read_result
from mixopt.study.watched import read_watched
from mixopt.trainers.job import JOB, RESULT


@dataclass(frozen=True)
class FullRun:
    """A promotion that has begun and not ended.

    Attributes:
        id: name of its folder.
        stages: name of each stage that has begun → tokens that it has: while it trains, those
            trained; else those of the checkpoint that it goes on from; of a trainer of the user's,
            those at its last evaluation. None once it has ended.
        training: names of the stages that train at the moment.
        handed_out: when it was, in seconds since 1970, if it is trained elsewhere; else None.
        warnings: the last one of each kind that its evaluations gave.
    """

    id: str
    stages: Mapping[str, int | None]
    training: tuple[str, ...] = ()
    handed_out: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """How far each stage is."""
        return [self._line(name, tokens) for name, tokens in self.stages.items()]

    def _line(self, name: str, tokens: int | None) -> str:
        if tokens is None:
            return f"{name} ended"
        if name == FULL_RUN_FOLDER:
            return f"{name} {count(tokens)} tokens evaluated"
        if name in self.training:
            return f"{name} {count(tokens)} tokens trained"
        return f"{name} goes on from {count(tokens)} tokens" if tokens else f"{name} has just begun"


def open_full_run(home: Path) -> FullRun | None:
    """The promotion in the study folder `home` that was worked on last, if it has not ended."""
    folders = [path for path in (home / "promotion").glob("*") if path.is_dir()]
    begun = [path for path in folders if read_result(path) is None and any(path.iterdir())]
    if not begun:
        return None
    newest = max(begun, key=worked_on)
    ended = home / "promotion" / RESULT  # of the last one that ended, or counted once more
    if ended.exists() and ended.stat().st_mtime > worked_on(newest):
        return None  # given up
    asked = newest / FULL_RUN_FOLDER / JOB
    if asked.exists() and not (asked.parent / "lock").exists():
        return FullRun(newest.name, {}, handed_out=asked.stat().st_mtime)
    parts = stage_folders(newest)
    training = tuple(part.name for part in parts if locks.held_by(part / "lock"))
    stages = {part.name: _tokens(part, training=part.name in training) for part in parts}
    return FullRun(newest.name, stages, training, warnings=read_watched(newest).warnings)


def worked_on(promotion: Path) -> float:
    """When a promotion was worked on, seconds since 1970: an attempt writes into a lock."""
    names = ("*/lock", f"*/{JOB}", RESULT)
    traces = [found for name in names for found in promotion.glob(name)]
    return max(path.stat().st_mtime for path in traces or [promotion])


def stage_folders(promotion: Path) -> list[Path]:
    """Folders of the stages that have begun, in that order."""
    parts = [path.parent for path in promotion.glob("*/lock")]
    return sorted(parts, key=lambda part: (part / "lock").stat().st_ctime)


def _tokens(stage: Path, *, training: bool) -> int | None:
    if (stage / MARKER).exists():
        return None
    if stage.name == FULL_RUN_FOLDER:
        curve = curve_in(stage)
        return curve[-1].tokens if curve else 0
    reports = training_log.read(stage) if training else []
    return int(reports[-1]["tokens"]) if reports else resumed_tokens(stage)
