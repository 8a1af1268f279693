"""A short file about an error of mixopt's own, which a user can read and send."""

from __future__ import annotations

import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from mixopt import __version__
from mixopt.core.urls import masked

WHERE = "the issue tracker of the repository that you got mixopt from"
PACKAGES = ("ray", "torch", "optuna", "mlflow", "polars", "numpy", "lightgbm", "botorch", "typer")


def write_error_report(error: Exception, words: Sequence[str]) -> str:
    """Write the file, and say where it is and what to do with it; passwords of URLs are masked.

    Args:
        error: what was raised.
        words: the command line after `mixopt`.
    """
    text = error_report(error, words)
    name = f"mixopt-error-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(text)
        except OSError:  # read-only or full
            continue
        return f"Please send {folder / name} to {WHERE}"
    return f"Please send this to {WHERE}:\n{text}"


def error_report(error: Exception, words: Sequence[str]) -> str:
    """Command, versions and traceback."""
    trace = "".join(traceback.format_exception(error))
    return masked(
        f"mixopt {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"command: {shlex.join(['mixopt', *words])}\n"
        f"packages: {', '.join(f'{name} {version}' for name, version in _versions())}\n"
        f"executable: {sys.executable}\n\n{trace}"
    )


def _versions() -> list[tuple[str, str]]:
    installed = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    return [(name, installed.get(name, "absent")) for name in PACKAGES]
