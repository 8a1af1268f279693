"""Packages: installed, and of versions that fit together."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from mixopt import __version__
from mixopt.pipelines.doctor.finding import Finding, Level, Place

CHECK = "versions"
FIX = "Install mixopt again: pip install -c constraints.txt ."


def check_versions(place: Place) -> Iterator[Finding]:
    """Compare what is installed with what mixopt asks for."""
    yield from requirements_met(metadata.requires("mixopt") or [])
    yield Finding(
        CHECK,
        Level.FINE,
        f"mixopt {__version__} on Python {platform.python_version()} ({sys.executable})",
    )


def requirements_met(requirements: list[str]) -> Iterator[Finding]:
    """A finding for each of `requirements` that is not met, or one that says all are.

    Those of extras are met where their package is absent: whoever needs it is told then.
    """
    broken = 0
    for requirement in map(Requirement, requirements):
        extra = requirement.marker is not None and "extra" in str(requirement.marker)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if not extra:
                broken += 1
                yield Finding(CHECK, Level.BROKEN, f"{requirement.name} is not installed", FIX)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            broken += not extra
            level = Level.NOTE if extra else Level.BROKEN
            text = f"{requirement.name} is {version}, mixopt asks for {requirement.specifier}"
            yield Finding(CHECK, level, text, FIX)
    if not broken:
        yield Finding(CHECK, Level.FINE, "all packages that mixopt needs are there and fit")
