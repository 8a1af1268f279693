"""Questions on a terminal, and how common answers are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rich.console import Console

from mixopt.core.errors import MixoptError, StudyError
from mixopt.pipelines.views.console import styled

T = TypeVar("T")


class Asker:
    """Puts questions on a console, and reads a line for each.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """Print a line that is no question."""
        self.console.print(text)

    def ask(self, question: str, default: str, read: Callable[[str], T]) -> T:
        """What `read` makes of the answer; asked again where it raises.

        Args:
            question: without a mark at its end.
            default: of an empty answer; empty if an answer there must be.
            read: makes a value of the text.

        Raises:
            StudyError: the input has ended.
        """
        while True:
            text = self._line(question, default)
            if not text:
                continue
            try:
                return read(text)
            except (MixoptError, ValueError) as error:
                self.console.print(styled((str(error), "red")))

    def _line(self, question: str, default: str) -> str:
        shown = f" [{default}]" if default else ""
        try:
            return self.console.input(styled((question, "bold"), f"{shown}: ")).strip() or default
        except EOFError:
            raise StudyError(
                "the input ended before all was answered",
                where="mixopt init",
                hint="Answer by flags: mixopt init -h",
            ) from None


def parts_of(text: str) -> list[str]:
    """What commas separate."""
    return [part.strip() for part in text.split(",") if part.strip()]


def yes_or_no(text: str) -> bool:
    """Whether the answer is yes.

    Raises:
        ValueError: it is neither yes nor no.
    """
    words = {"yes": True, "y": True, "no": False, "n": False}
    if text.lower() not in words:
        raise ValueError("Answer yes or no")
    return words[text.lower()]
