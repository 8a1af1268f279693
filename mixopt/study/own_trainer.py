"""The study file's `trainer`: a command or a function of the user's in place of the proxies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from mixopt.study.named import OWN_PATTERN
from mixopt.study.sections import Section

if TYPE_CHECKING:
    from mixopt.trainers import base

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Keys of `trainer` that alter no result: they may change in a study that has begun.
HARMLESS = ("timeout", "heartbeat", "grace")


def parse_seconds(value: Any) -> Any:
    """A duration: seconds, or text such as `90s`, `30m`, `6h`, `2d`.

    >>> parse_seconds("6h"), parse_seconds(90)
    (21600.0, 90)
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]+\.?[0-9]*)\s*([smhd])", value.strip().lower())
    if not match:
        raise ValueError(f"{value!r} is not a duration; write 90s, 30m, 6h or 2d")
    return float(match[1]) * UNITS[match[2]]


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0)]


def as_text(value: Any) -> Any:
    """A version may look like a number: YAML reads 2 and 1.5 as such."""
    return str(value) if isinstance(value, int | float) else value


class Trainer(Section):
    """A trainer of your own: a command, a function (docs/trainers.md), or anything elsewhere."""

    command: str | None = None
    """Run in the study file's folder once per training: `{job}` becomes its job.json, `{folder}`
    its folder, `{python}` the Python that mixopt runs by."""
    function: str | None = Field(default=None, pattern=OWN_PATTERN)
    """`package.module:function` of `(job, report)`; may stand alone in place of this section."""
    kind: str | None = Field(default=None, pattern=OWN_PATTERN)
    """`package.module:Class` of a kind of trainer of your own."""
    elsewhere: bool = False
    """Trained by other means: `mixopt ask` hands trials out, `mixopt tell` takes their results.
    `trainer: elsewhere` says the same."""
    files: list[str] = Field(default=[])
    """Files that a training depends on, relative to the study file: changed, it is another one."""
    version: Annotated[str | None, BeforeValidator(as_text)] = None
    """Anything else that makes it another training: a commit, the digest of an image."""
    settings: dict[str, Any] = Field(default={})
    """Handed to it in job.json as they are."""
    timeout: Seconds | None = None
    """What an attempt may take at most; null: no limit."""
    heartbeat: Seconds | None = None
    """How long an attempt may show no progress and print nothing; null: no limit."""
    grace: Seconds = 30.0
    """How long it has to end by itself once it is asked to."""

    @model_validator(mode="after")
    def _one_way(self) -> Trainer:
        ways = (self.command, self.function, self.kind, self.elsewhere or None)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("name a command, or a function, or write `trainer: elsewhere`")
        return self

    def made(self, folder: Path) -> base.Trainer:
        """The trainer of a study file in `folder`.

        Raises:
            StudyError: the command cannot be read, or the function's module is not there.
        """
        from mixopt.trainers.base import make_trainer

        assert not self.elsewhere  # nothing is started
        ways = {"command": self.command, "function": self.function, "kind": self.kind}
        named = {name: value for name, value in ways.items() if value is not None}
        shared = {"files": self.files, "version": self.version or "", "settings": self.settings}
        return make_trainer({**named, **shared}, folder)

    def identity(self, folder: Path) -> dict[str, Any]:
        """All that a training by it depends on besides its job, as JSON-able values.

        Raises:
            StudyError: a file of it is not there.
        """
        if self.elsewhere:
            return {"elsewhere": True, "version": self.version, "settings": self.settings}
        return self.made(folder).identity()


def short_trainer(value: Any) -> Any:
    """A function, or `elsewhere`, may stand alone in place of the section."""
    if value == "elsewhere":
        return {"elsewhere": True}
    if isinstance(value, str) and not re.fullmatch(OWN_PATTERN, value):
        raise ValueError(
            f"{value!r} is no trainer; write {{command: …}}, package.module:function, or elsewhere"
        )
    return {"function": value} if isinstance(value, str) else value
