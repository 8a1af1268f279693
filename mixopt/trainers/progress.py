"""`progress.jsonl` followed: lines into points of the learning curve, kept in `curve.jsonl`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.core.trials import CurvePoint
from mixopt.io import files
from mixopt.io.trial_files import CURVE
from mixopt.trainers.failures import TrainerError, broken
from mixopt.trainers.job import PROGRESS


@dataclass(frozen=True)
class Report:
    """A line of `progress.jsonl`.

    Attributes:
        tokens: trained so far.
        metrics: of an evaluation; empty if there was none.
        diverged: metrics that are not finite.
        note: what whoever runs the study should know.
        training: numbers of the training itself: its loss, its learning rate.
    """

    tokens: int
    metrics: Mapping[str, float]
    diverged: tuple[str, ...] = ()
    note: str = ""
    training: Mapping[str, float] = field(default_factory=dict)


def read_line(line: bytes, where: str, needed: Collection[str] = ()) -> Report:
    """The report on a line.

    Args:
        line: of the file.
        where: file and number of the line, for the error.
        needed: metrics that must be finite; of none, all. Others that are not are left out.

    Raises:
        TrainerError: (broken contract) it is no JSON object with whole `tokens`.
    """
    hint = 'Write a line like {"tokens": 1000, "metrics": {"loss": 2.5}}, from one process alone'
    try:
        values = json.loads(line)
    except ValueError as error:
        raise broken(f"is no JSON: {_short(line)}", where, hint) from error
    if not isinstance(values, dict):
        raise broken(f"is no JSON object: {_short(line)}", where, hint)
    tokens = values.get("tokens")
    if isinstance(tokens, float) and tokens.is_integer():
        tokens = int(tokens)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
        raise broken(f"`tokens` must be a whole number, is {tokens!r}", where, hint)
    metrics = numbers(values.get("metrics", {}), "metrics", where)
    bad = tuple(name for name, value in metrics.items() if not math.isfinite(value))
    return Report(
        tokens,
        {name: value for name, value in metrics.items() if name not in bad},
        tuple(name for name in bad if not needed or name in needed),
        str(values.get("note", "")),
        _finite(values.get("training")),
    )


def _finite(values: Any) -> dict[str, float]:
    """The finite numbers of `values`; nothing else there is looked at, and nothing is an error.

    They are only shown: a trainer that wrote something else under that name goes on.
    """
    found = values.items() if isinstance(values, dict) else ()
    numbers = ((n, v) for n, v in found if isinstance(v, int | float) and not isinstance(v, bool))
    return {str(name): float(value) for name, value in numbers if math.isfinite(value)}


def numbers(values: Any, key: str, where: str) -> dict[str, float]:
    """`values` if they map names to numbers, NaN and infinities among them.

    Raises:
        TrainerError: (broken contract) they do not.
    """
    if not isinstance(values, dict):
        hint = f'Write "{key}": {{"name": 1.5}}'
        raise broken(f"`{key}` must be an object of numbers, is {values!r}", where, hint)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise broken(
                f"`{key}.{name}` must be a number, is {value!r}",
                where,
                "Write a number; NaN says that the training diverged",
            )
    return {name: float(value) for name, value in values.items()}


def _short(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return repr(text if len(text) <= 80 else text[:77] + "…")


@dataclass
class Follower:
    """Reads what a trainer appends to `progress.jsonl`, line by whole line.

    Attributes:
        path: of the file; it need not be there yet.
        needed: metrics that must be finite.
    """

    path: Path
    needed: Collection[str] = ()
    offset: int = 0
    lines: int = 0
    tokens: int = 0

    def new(self, ended: bool = False) -> list[Report]:
        """The reports since the last call.

        Args:
            ended: whether a last line without its end counts.

        Raises:
            TrainerError: (broken contract) a line is none, tokens went backwards, or the file was
                written anew.
        """
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.offset:
                    raise broken(
                        "is shorter than it was", str(self.path), "Append to it: open it with `a`"
                    )
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        if not ended:
            data = data[: data.rfind(b"\n") + 1]
        self.offset += len(data)
        found = []
        for line in data.split(b"\n"):
            if not line.strip():
                self.lines += bool(line)
                continue
            self.lines += 1
            found.append(self._report(line))
        return found

    def _report(self, line: bytes) -> Report:
        where = f"{self.path}:{self.lines}"
        report = read_line(line, where, self.needed)
        if report.tokens < self.tokens:
            raise broken(
                f"`tokens` went back from {self.tokens:,} to {report.tokens:,}",
                where,
                "Count all tokens since the training began, and report from one process alone",
            )
        self.tokens = report.tokens
        return report


@dataclass
class Curve:
    """The learning curve in a training's folder, over all its attempts.

    Attributes:
        path: of `curve.jsonl`.
        points: oldest first.
        own: how many of the last points are of this attempt.
        training: numbers of the training that were told since the last point.
    """

    path: Path
    points: list[CurvePoint] = field(default_factory=list)
    own: int = 0
    began: bool = False
    training: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, needed: Collection[str] = ()) -> Curve:
        """The curve that earlier attempts left in `folder`, with their last `progress.jsonl`."""
        curve = cls(folder / CURVE)
        for line in _lines(curve.path):
            try:
                curve.points.append(CurvePoint(**json.loads(line)))
            except (ValueError, TypeError):
                break  # torn by a crash
        follower = Follower(folder / PROGRESS, needed)
        with contextlib.suppress(TrainerError):  # that attempt failed by it, or was killed before
            for report in follower.new():
                if not curve.points or report.tokens > curve.points[-1].tokens:
                    curve.add(report, curve.seconds)  # written just before this process was killed
        curve.own, curve.began = 0, False
        curve.training.clear()
        return curve

    @property
    def seconds(self) -> float:
        """Of training before the last point."""
        return self.points[-1].seconds if self.points else 0.0

    def add(self, report: Report, seconds: float) -> CurvePoint | None:
        """Take up `report`; the point that it gives, or completes.

        An attempt's first report shows where it begins: later points of earlier attempts go. A
        point has of each number of the training what was told last before it, or with it.
        """
        if not self.began:
            self.began = True
            kept = [point for point in self.points if point.tokens <= report.tokens]
            if len(kept) < len(self.points):
                self.points = kept
                self.write()
        self.training |= report.training
        if not report.metrics:
            return None
        point = CurvePoint(
            report.tokens, report.tokens, report.metrics, seconds, training=dict(self.training)
        )
        self.training.clear()
        if self.points and self.points[-1].tokens == point.tokens:
            if self.own:  # an evaluation told in parts
                before = self.points[-1]
                metrics = {**before.metrics, **point.metrics}
                training = {**before.training, **point.training}
                point = dataclasses.replace(point, metrics=metrics, training=training)
            self.points.pop()
            self.own -= bool(self.own)
        self.points.append(point)
        self.own += 1
        with files.writing(self.path), self.path.open("a") as file:
            file.write(_line(point))
        return point

    def end(self, point: CurvePoint) -> None:
        """Put `point` last; it has what was told of the training since the one before."""
        there = [p.training for p in self.points if p.tokens == point.tokens]
        training = {**(there[-1] if there else {}), **self.training}
        point = dataclasses.replace(point, training=training)
        self.points = [p for p in self.points if p.tokens < point.tokens] + [point]
        self.write()

    def write(self) -> None:
        """Write the file anew."""
        files.write_bytes(self.path, "".join(map(_line, self.points)).encode())


def _line(point: CurvePoint) -> str:
    return json.dumps(dataclasses.asdict(point)) + "\n"


def _lines(path: Path) -> Sequence[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return ()
