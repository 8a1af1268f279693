"""Every registered part says in a line what it is, and nothing is imported to read it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping

import pytest

from mixopt import surrogates
from mixopt.core.summaries import summaries
from mixopt.models.routers import ROUTERS
from mixopt.models.upcycling import MERGES, ROUTER_STARTS, UPCYCLERS
from mixopt.search import proposers

REGISTRIES = {
    "surrogates": surrogates.KNOWN,
    "proposers": proposers.KNOWN,
    "routers": ROUTERS,
    "upcyclers": UPCYCLERS,
    "merges": MERGES,
    "router starts": ROUTER_STARTS,
}


@pytest.mark.parametrize("registered", REGISTRIES.values(), ids=list(REGISTRIES))
def test_a_summary_is_the_first_line_of_the_docstring(registered: Mapping[str, str]) -> None:
    for name, summary in summaries(registered).items():
        module, _, part = registered[name].partition(":")
        docstring = getattr(importlib.import_module(module), part).__doc__
        assert summary == docstring.splitlines()[0]
        assert summary.endswith(".")
        assert not summary.startswith("The same")  # as what? it stands in an alphabetic list


def test_summaries_import_no_part() -> None:
    code = (
        "import sys\n"
        "from mixopt.core.summaries import summaries\n"
        "from mixopt import surrogates\n"
        "from mixopt.models.routers import ROUTERS\n"
        "from mixopt.search import proposers\n"
        "for known in (surrogates.KNOWN, proposers.KNOWN, ROUTERS): assert all(summaries(known))\n"
        "print(sorted({'torch', 'optuna', 'botorch', 'lightgbm', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("target", ["mixopt.nowhere:Part", "mixopt.core.summaries:Part"])
def test_a_registry_that_names_what_is_not_there_is_a_mistake(target: str) -> None:
    with pytest.raises(LookupError):
        summaries({"part": target})
