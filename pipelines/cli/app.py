"""The `mixopt` command line. A command imports what it needs when it runs: `--help` is instant."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

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

# New objects before the collector looks for cycles. At Python's 700 it looks through what imports
# made again and again: a sixth of a report's time.
COLLECTED_AFTER = 10_000
FAILED, OURS = 1, 70  # exit codes; 70 is EX_SOFTWARE of sysexits.h
EXIT_CODES = (
    "0    done",
    "1    not done: the message says what is wrong and how to put it right",
    "2    the command line is not understood",
    "70   an error of mixopt's own: the message names the file to send us",
    "130  stopped by Ctrl-C; 143 by SIGTERM",
)


class Commands(TyperGroup):
    """The commands, each of which ends with a message when it is stopped."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        with stoppable(ctx.obj or ()):
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


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs a command, and ends without a traceback whatever goes wrong.

    Args:
        arguments: in place of those of the process.
    """
    from mixopt.core.errors import MixoptError

    gc.set_threshold(COLLECTED_AFTER, *gc.get_threshold()[1:])
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words, obj=words)
    except MixoptError as error:
        _say(str(error))
        sys.exit(FAILED)
    except OSError as error:
        if error.filename is None:
            _report(error, words)
        _say(f"{error.filename}: {error.strerror}.")
        sys.exit(FAILED)
    except Exception as error:  # nothing is hidden: the whole traceback is in the file
        _report(error, words)


def _report(error: Exception, words: Sequence[str]) -> NoReturn:
    from mixopt.pipelines.cli.error_report import write_error_report

    _say(f"in mixopt itself: {type(error).__name__}. {write_error_report(error, words)}.")
    sys.exit(OURS)


def _say(message: str) -> None:
    from mixopt.pipelines.views.console import make_error_console, styled

    line = styled(("error", "bold red"), f" {message}")
    make_error_console().print(line, soft_wrap=True)
