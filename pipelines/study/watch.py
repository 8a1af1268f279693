"""`mixopt status --watch`: where a study stands, again and again until its driver ends.

On a terminal one view is kept up to date on its alternate screen, so that nothing of it scrolls,
and the last one is printed at the end; elsewhere, and as JSON, what has changed is printed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mixopt.pipelines.study.standing import Standing, read_standing
from mixopt.pipelines.study.status import print_standing, trial_lines
from mixopt.pipelines.views.console import make_console, off_screen
from mixopt.pipelines.views.interrupts import Interrupts
from mixopt.pipelines.views.json_output import json_text


def watch_status(path: Path, every: float, *, as_json: bool = False) -> None:
    """Show the state of the study at `path` again and again, until its driver ends or it is done.

    A study that nobody works on yet is waited for.

    Args:
        path: the study file.
        every: seconds between two looks.
        as_json: print JSON objects, one per line.

    Raises:
        LedgerError: its ledger cannot be reached, or is another folder's.
    """
    console = make_console()
    if as_json:
        _print_changes(json_text(it.to_json(), indent=None) for it in _standings(path, every))
    elif console.is_terminal and not console.is_dumb_terminal:
        _show_in_place(_standings(path, every), console)
    else:
        _print_changes(_drawn(it, console).plain for it in _standings(path, every))


def _standings(path: Path, every: float) -> Iterator[Standing]:
    driven = False
    while True:
        standing = read_standing(path)
        yield standing
        driven = driven or standing.driver is not None
        if standing.driver is None and (driven or (standing.begun and standing.done)):
            return
        time.sleep(every)


def _print_changes(texts: Iterator[str]) -> None:
    before = ""
    for text in texts:
        if text != before:
            print(text, flush=True)
        before = text


def _show_in_place(standings: Iterator[Standing], console: Console) -> None:
    """Redraw the view where it changed, cut to the terminal; leave the last one there, whole."""
    last, before = None, None
    # not redirected: what another thread says of Ctrl-C would draw the view once more
    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with Interrupts() as ctrl_c:
        try:
            with ctrl_c.held():
                live.start()
            for last in standings:
                with ctrl_c.held():
                    view = _fitting(last, console)
                    if (view.markup, console.size) != before:
                        live.update(view, refresh=True)
                    before = view.markup, console.size
        finally:  # stopped by Ctrl-C as well
            with ctrl_c.held():
                live.stop()
                if last is not None:
                    console.print(_drawn(last, console))


def _fitting(standing: Standing, console: Console) -> Text:
    """The view of `standing`, with fewer lines of single trials where the terminal is too low."""
    view = _drawn(standing, console)
    over = len(console.render_lines(view)) - console.height
    if over <= 0:
        return view
    return _drawn(standing, console, most=max(0, len(trial_lines(standing)) - over - 1))


def _drawn(standing: Standing, console: Console, most: int | None = None) -> Text:
    """`standing` as `mixopt status` prints it, with `most` lines of single trials.

    On a console of its own: what is printed on one that shows a `Live` is drawn above its view.
    """
    paper = off_screen(console)
    with paper.capture() as captured:
        print_standing(standing, paper, most)
    return Text.from_ansi(captured.get().rstrip("\n"))
