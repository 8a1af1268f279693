"""What every command has: a group in `mixopt --help`, and examples in its own help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

F = TypeVar("F", bound=Callable[..., Any])

StudyFile = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.yaml")]
FitOrStudy = Annotated[
    Path,
    typer.Argument(help="Folder of `mixopt fit`, or a study file.", metavar="DIR|STUDY.yaml"),
]


def _override(context: typer.Context, overrides: list[str] | None) -> list[str] | None:
    from mixopt.study.overrides import overriding

    context.with_resource(overriding(overrides or ()))
    return overrides


def importable(names: str | None) -> str | None:
    """For options that name a part: one of the user's own may be in the working directory."""
    if names is not None:
        from mixopt.study.own_parts import import_from_folder

        import_from_folder(Path(), {"proposer": names})
    return names


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=_override,
        help="In place of the study file's: search.rounds=3. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Group:
    """The commands of one file, which `mixopt --help` lists together.

    Args:
        panel: the heading that it lists them under.
        help: of the commands together, where a word stands before them (`mixopt corpus build`).
        examples: of that word.
    """

    def __init__(self, panel: str, help: str | None = None, examples: Sequence[str] = ()) -> None:
        self.panel = panel
        self.app = typer.Typer(
            help=help,
            epilog=lines("Examples:", examples) if examples else None,
            no_args_is_help=True,
        )

    def command(self, *examples: str, name: str | None = None) -> Callable[[F], F]:
        """Make the function a command, named as the function if no `name` is given.

        Args:
            examples: command lines that its help ends with, at least one.
            name: of the command.
        """
        epilog = lines("Examples:" if len(examples) > 1 else "Example:", examples)
        return self.app.command(name, rich_help_panel=self.panel, epilog=epilog)


def lines(title: str, rows: Sequence[str]) -> str:
    """The end of a help page: `title`, then a line for each of `rows`, printed as they are."""
    escaped = (row.replace("[", "\\[") for row in rows)
    return "\n".join(("", title, *(f"  {row}" for row in escaped)))  # "": keeps the indentation
