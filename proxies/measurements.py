"""What was measured on a device, remembered in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from mixopt.core.errors import FileError
from mixopt.io.files import write_json
from mixopt.models.team import threads

T = TypeVar("T", str, int)


def remembered(
    name: str,
    device: torch.device,
    what: object,
    measure: Callable[[], T],
    valid: Callable[[object], bool],
) -> T:
    """The answer for `what` on `device`: measured the first time, then from the cache.

    Args:
        name: of the file, `$XDG_CACHE_HOME/mixopt/NAME.json`, else under `~/.cache`.
        device: an answer counts for devices of the same kind, torch's version and threads.
        what: all else that the answer depends on; its `repr` counts.
        measure: finds the answer.
        valid: whether a remembered value can be one.
    """
    key_text = repr((_device_name(device), torch.__version__, threads(), what))
    key = hashlib.sha256(key_text.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixopt"
    known: dict[str, T] = _read(cache / f"{name}.json")
    known = {k: v for k, v in known.items() if valid(v)}
    if key not in known:
        known[key] = measure()
        with contextlib.suppress(FileError):  # no home to remember it in: measured again next time
            write_json(cache / f"{name}.json", known)
    return known[key]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"


def _read(path: Path) -> dict[str, T]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
