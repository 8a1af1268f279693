"""`mixopt upcycle`: dense checkpoints in, a mixture of experts that everybody's tools load out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mixopt.core.errors import StudyError
from mixopt.models.families.fetch import located
from mixopt.models.upcycling.folders import Plan, check_out, plan, write
from mixopt.pipelines.upcycling.shown import as_values, show_plan, show_result
from mixopt.pipelines.upcycling.spec import SpecFile
from mixopt.pipelines.views.console import make_console, make_error_console
from mixopt.pipelines.views.json_output import print_json

CACHE = "upcycling-cache"  # beside OUT


def upcycle(
    spec: Path,
    out: Path,
    *,
    cache: Path | None = None,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Upcycle what `spec` names into the new folder `out`, and show the receipt.

    Args:
        spec: the SPEC file.
        out: is made; it appears whole or not at all.
        cache: folder for models that are fetched from URLs; `CACHE` beside `out` if not given.
        dry_run: show the plan, write nothing.
        as_json: print the receipt, or the plan, as one JSON object.

    Raises:
        MixoptError: what is asked for cannot be done; `out` is not made.
    """
    file = SpecFile(spec)
    try:
        planned = _planned(file, cache or out.parent / CACHE)
        check_out(planned, out)
        if dry_run:
            left = shutil.disk_usage(_nearest(out)).free
            if as_json:
                print_json(as_values(planned, left))
            else:
                show_plan(make_console(), planned, out, left)
            return
        with _progress(planned) as on_file:
            receipt = write(planned, out, on_file)
    except StudyError as error:  # others are about files
        raise file.located(error) from error
    if as_json:
        print_json(receipt.to_json())
    else:
        show_result(make_console(), planned, receipt, out)


def _planned(file: SpecFile, cache: Path) -> Plan:
    console = make_error_console()

    def folder(name: str) -> Path:
        return located(name, file.folder, cache, lambda each: console.print(f"fetching {each}"))

    sources = {name: folder(source) for name, source in file.spec.sources.items()}
    return plan(file.request(folder(file.spec.seed), sources))


def _nearest(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    return next(folder for folder in path.absolute().parents if os.path.isdir(folder))


@contextmanager
def _progress(planned: Plan) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a step per file; nothing elsewhere."""
    from rich import progress as bars

    console = make_error_console()
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task("files", total=planned.files)
        yield lambda name: shown.advance(task)
