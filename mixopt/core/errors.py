"""One exception family: what was wrong, where (file, line, key), and what to do about it."""

from __future__ import annotations

from mixopt.core.urls import masked


class MixoptError(Exception):
    """An error written for the person who reads it at night. Passwords of URLs are masked.

    Args:
        what: what was wrong, one sentence without a final full stop.
        where: the file, `file:line` or key it was found at; empty if there is no such place.
        hint: what to do about it, one sentence without a final full stop; a question has its mark.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        what, where, hint = masked(what), masked(where), masked(hint)
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        if not self.hint:
            return f"{head}."
        return f"{head}. {self.hint}{'' if self.hint.endswith('?') else '.'}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling; errors cross process borders.
        return (_rebuild, (type(self), self.what, self.where, self.hint))


def _rebuild(kind: type[MixoptError], what: str, where: str, hint: str) -> MixoptError:
    return kind(what, where=where, hint=hint)


class MixtureError(MixoptError, ValueError):
    """A mixture, or the space it should lie in, is not valid."""


class CorpusError(MixoptError):
    """A source, a shard or a manifest cannot be used."""


class StudyError(MixoptError, ValueError):
    """The study file is not valid, or differs from the locked settings of its folder.

    A ValueError as well, so that pydantic collects it with the place where it was raised.
    """


class RunsError(MixoptError):
    """A table of finished runs, or what was fitted to it, cannot be used."""


class LedgerError(MixoptError):
    """The record of trials is held by another driver, or does not fit the study."""


class SurrogateError(MixoptError):
    """A surrogate cannot be fitted to the trials it was given, or predict what it was asked."""


class TrainingError(MixoptError):
    """A training cannot start or go on (a proxy that diverges is a result, not this error)."""


class CheckpointError(MixoptError):
    """A checkpoint is absent, broken, or belongs to another run."""


class BrokenCheckpointError(CheckpointError):
    """A checkpoint is not as it was written: it is cut, or bits of it flipped."""


class FileError(MixoptError):
    """A file cannot be written (a full or read-only disk), or one of our own cannot be read."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, whoever says so: torch has a RuntimeError for it on CPUs."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)
