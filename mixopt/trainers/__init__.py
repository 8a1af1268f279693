"""Trainers: any program or function that trains on a mixture; see `base` and docs/trainers.md."""

from __future__ import annotations

from collections.abc import Mapping

TRAINERS: Mapping[str, str] = {
    "command": "mixopt.trainers.command:Command",
    "function": "mixopt.trainers.function:Function",
}
