"""What `import mixopt` gives: light, typed, and the same from one version to the next."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mixopt
from mixopt.api.plots import StudyPlots
from mixopt.api.study import OpenStudy
from mixopt.pipelines.offline.from_python import FitPlots, OpenFit

HEAVY = ("mlflow", "numpy", "optuna", "pandas", "plotly", "polars", "pydantic", "ray", "torch")

# A change here breaks notebooks: say so in the changelog.
SIGNATURES = {
    "Mixture": "(domains, weights)",
    "Mixture.of": "(weights)",
    "Mixture.exact": "(weights)",
    "Mixture.natural": "(tokens)",
    "Mixture.uniform": "(domains)",
    "Mixture.from_array": "(domains, weights)",
    "MixtureSpace": "(domains, natural, lower, upper, available_tokens, max_epochs, "
    "budget_tokens, linear, kl_penalty, baseline)",
    "MixoptError": "(what, *, where, hint)",
    "Study": "(directory, **settings)",
    "Study.save": "(self)",
    "Study.run": "(self, step)",
    "Study.plan": "(self, slots)",
    "Study.open": "(self)",
    "fit": "(ratios, metrics, *, priors, objective, surrogate, params, tokens, seed)",
    "open_study": "(path)",
}
OPENED = {
    "curves": "property",
    "higher_is_better": "property",
    "objective": "property",
    "optimum": "(self)",
    "out_of_fold": "(self)",
    "plots": "property",
    "predict": "(self, mixtures)",
    "promotion": "property",
    "reliability": "property",
    "space": "property",
    "surrogate": "(self)",
    "trials": "property",
    "verdict": "property",
}
STUDY_PLOTS = {
    "candidates": "(self)",
    "curves": "(self)",
    "experts": "(self)",
    "mixtures": "(self)",
    "progress": "(self, against)",
    "promotion": "(self)",
    "surrogate": "(self)",
    "weights": "(self)",
}
FIT_PLOTS = {"effects": "(self)", "mixtures": "(self)", "surrogate": "(self)"}


def named(function: object) -> str:
    """The parameters of `function`, without types and defaults."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    bare = [
        p.replace(annotation=inspect.Parameter.empty, default=inspect.Parameter.empty)
        for p in signature.parameters.values()
    ]
    star = [p for p in bare if p.kind is p.KEYWORD_ONLY][:1]
    found = []
    for parameter in bare:
        found += ["*"] if parameter in star else []
        found.append(str(parameter))
    return f"({', '.join(found)})"


def members(kind: type) -> dict[str, str]:
    """Public names of `kind` → parameters, or `property`."""
    return {
        name: named(value) if inspect.isfunction(value) else "property"
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_")
    }


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_importing_mixopt_imports_nothing_heavy_and_a_mixture_needs_numpy_alone(
    tmp_path: Path,
) -> None:
    shown = f"print(sorted({set(HEAVY)} & set(sys.modules)))"
    code = f"import sys, mixopt; {shown}; mixopt.Mixture; {shown}; mixopt.open_study; {shown}"
    first, second, third = run(code, tmp_path).splitlines()
    assert (first, second) == ("[]", "['numpy']")
    assert "ray" not in third
    assert "mlflow" not in third


def test_names_and_parameters_are_these() -> None:
    assert set(mixopt.__all__) == {name for name in SIGNATURES if "." not in name}
    for path, parameters in SIGNATURES.items():
        value: object = mixopt
        for part in path.split("."):
            value = getattr(value, part)
        assert named(value) == parameters, path


def test_a_study_and_a_fit_answer_to_the_same_names() -> None:
    study, fit = members(OpenStudy), members(OpenFit)
    assert OPENED.items() <= study.items()
    assert OPENED.items() <= fit.items()
    assert study["export_mixture"] == "(self, format, paths)"
    own = {"curve_points", "export_mixture", "front", "holdout", "model"}
    own |= {"candidates", "differences", "transfer"}
    assert study.keys() - OPENED.keys() == own | {"settings", "surrogate_name"}
    assert fit.keys() - OPENED.keys() == {"found", "notes"}
    assert members(StudyPlots) == STUDY_PLOTS
    assert members(FitPlots) == FIT_PLOTS


def test_names_are_listed_and_others_refused() -> None:
    assert set(mixopt.__all__) <= set(dir(mixopt))
    with pytest.raises(AttributeError, match="nothing"):
        mixopt.nothing  # noqa: B018


def test_the_stub_that_editors_read_names_the_same_homes() -> None:
    stub = Path(mixopt.__file__).with_suffix(".pyi").read_text()
    result = re.findall(r"^from (\S+) import (\w+) as \w+$", stub, re.MULTILINE)
    assert {name: home for home, name in result} == mixopt._HOMES
    assert set(mixopt._HOMES) == set(mixopt.__all__)


def test_every_public_entry_has_an_example() -> None:
    for name in ("Mixture", "MixtureSpace", "Study", "fit", "open_study"):
        text = inspect.getdoc(getattr(mixopt, name)) or ""
        assert "Example:" in text or ">>> " in text, name
