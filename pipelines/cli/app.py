"""The `mixopt` command line. A command imports what it needs when it runs: `--help` is instant."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mixopt import __version__
from mixopt.pipelines.cli import (
    corpus,
    deciding,
    elsewhere,
    finished_runs,
    looking,
    models,
    running,
    start,
)
from mixopt.pipelines.cli.groups import lines
from mixopt.pipelines.stopping import stoppable

EXIT_CODES = (
    "0    done",
    "1    not done: the message says what is wrong and how to put it right",
    "2    the command line is not understood",
    "130  stopped by Ctrl-C; 143 by SIGTERM",
)


class Commands(TyperGroup):
    """The commands, each of which ends with a message when it is stopped."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        with stoppable():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    help="Find the data mixture for a mixture-of-experts language model with many small proxies, "
    "and carry it into the full upcycled run.",
    epilog=lines("Exit codes:", EXIT_CODES),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (start, running, looking, deciding, elsewhere, finished_runs):
    app.add_typer(part.group.app)
app.add_typer(corpus.group.app, name="corpus", rich_help_panel=corpus.group.panel)
app.add_typer(models.group.app)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"mixopt {__version__}")
        raise typer.Exit


def main(*arguments: Any) -> None:
    """The entry point: runs a command; errors of mixopt's own are printed without a traceback."""
    from mixopt.core.errors import MixoptError

    try:
        app(*arguments)
    except MixoptError as error:
        from mixopt.pipelines.views.console import make_error_console, styled

        message = styled(("error", "bold red"), f" {error}")
        make_error_console().print(message, soft_wrap=True)
        sys.exit(1)
