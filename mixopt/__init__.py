"""mixopt: find the data mixture on which a mixture-of-experts language model should be trained.

What a notebook or a script needs is here, and loads when it is first used (docs/python.md):

    mixopt.open_study       a study as it stands: its trials, its model, its verdict
    mixopt.fit              the same of finished runs from elsewhere
    mixopt.Study            a study defined and run from Python
    mixopt.Mixture          weights over domains
    mixopt.MixtureSpace     where a mixture may lie
    mixopt.MixoptError      what every error of mixopt is
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["MixoptError", "Mixture", "MixtureSpace", "Study", "fit", "open_study"]

# By name, so that the package imports nothing heavy; `__init__.pyi` tells editors the types.
_HOMES = {
    "Mixture": "mixopt.core.mixture",
    "MixtureSpace": "mixopt.core.space",
    "MixoptError": "mixopt.core.errors",
    "Study": "mixopt.pipelines.study.from_python",
    "fit": "mixopt.pipelines.offline.from_python",
    "open_study": "mixopt.api.study",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
