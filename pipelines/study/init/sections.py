"""The sections that every study file of `mixopt init` has, whoever trains; and how YAML is put."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from mixopt import surrogates
from mixopt.core.mixture import Mixture
from mixopt.pipelines.study.init.alternatives import alternatives, function_alternatives
from mixopt.pipelines.study.init.answers import Answers
from mixopt.search import proposers
from mixopt.search.designs import DESIGNS
from mixopt.study.sections import Ray, Search, Select

COLUMN = 26  # where comments begin


def line(text: str, comment: str) -> str:
    """A line of the file with its comment."""
    return f"{text:<{COLUMN - 2}}  # {comment}"


def quoted(text: str) -> str:
    """`text` as YAML reads it back: in quotes where it has to be."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", text) and yaml.safe_load(text) == text
    return text if plain else "'" + text.replace("'", "''") + "'"


def flow(values: Mapping[str, Any]) -> str:
    """A mapping on one line."""
    return "{" + ", ".join(f"{quoted(key)}: {value}" for key, value in values.items()) + "}"


def baseline_section(baseline: str | Mapping[str, float]) -> str:
    """What is to be beaten, and the words that could stand there."""
    value = flow(baseline) if isinstance(baseline, Mapping) else quoted(baseline)
    other = "uniform" if value == "natural" else "natural"
    return f"""\
# What is to be beaten: natural (proportional to tokens), uniform, a CSV or JSON file, weights by
# domain, or several of these by name, the one to beat first.
baseline: {value}
# baseline: {other}"""


def space_rows(natural: Mixture) -> str:
    """Bounds and constraints, with examples that hold for this corpus: natural satisfies them."""
    first, second = natural.domains[0], natural.domains[-1]
    weights = natural.as_dict()
    low, high = math.floor(50 * weights[first]) / 100, _up(2 * weights[first])
    together = flow({first: 1, second: 1})
    example = {"weights": together, "at_most": _up(weights[first] + weights[second])}
    return "\n".join(
        (
            line("  max_epochs: 4", "how often the run may see a domain (null: no limit)"),
            line("  bounds: {}", "least and largest weight of a domain"),
            f"  # bounds: {{{quoted(first)}: [{low:g}, {high:g}]}}",
            line("  linear: []", "weighted sums of weights that may not be exceeded"),
            f"  # linear: [{flow(example)}]",
        )
    )


def search_section(trials: int, without: Collection[str] = ()) -> str:
    """How mixtures are searched.

    Args:
        trials: of the initial design.
        without: proposers that cannot work for this study.
    """
    search = Search()
    return f"""\
search:
  # Mixtures of the initial design:
{function_alternatives("design", search.design, DESIGNS, 2)}
{line(f"  trials: {trials}", "trials of it")}
{line(f"  repeats: {search.repeats}", "further seeds of the baseline, to measure the noise")}
  # What chooses the mixtures of each round:
{alternatives("proposer", search.proposer, proposers.KNOWN, 2, without=without)}
  # What predicts metrics from mixtures:
{alternatives("surrogate", search.surrogate, surrogates.KNOWN, 2)}
{line(f"  rounds: {search.rounds}", "rounds of proposals; may be raised later")}
{line(f"  batch: {search.batch}", "trials in each")}
{line("  enqueue: []", "mixtures to try in any case: weights by domain, CSV or JSON files")}
{line("  holdout: 0", "trials kept aside, predicted before they run")}
  # holdout: 8"""


def select_rows() -> str:
    """Candidates against the baseline, with fresh seeds."""
    select = Select()
    return f"""\
{line("select:", "candidates against the baseline, with fresh seeds")}
{line(f"  rule: {select.rule}", "every candidate with every seed")}
{line("  # rule: successive-rejects", "most seeds for the last candidates (1605.09004)")}
  seeds: {select.seeds}
{
        line(
            f"  confidence: {select.confidence}",
            "selects at an adjusted p-value of at most (1 - confidence) / looks",
        )
    }
{
        line(
            f"  looks: {select.looks}",
            "verdicts that may select, 1 to 5; fixed at the first",
        )
    }"""


MLFLOW = f"""\
mlflow:
{line("  uri: null", "null: MLFLOW_TRACKING_URI, else SQLite in the study folder")}
  experiment: mixopt"""


def ray_section(answers: Answers, rows: Sequence[str]) -> str:
    """Where trainings run, with further `rows`."""
    default, given = Ray(), answers.address
    address = "null" if given is None else quoted(given)
    cpus = default.cpus_per_trial if answers.cpus is None else answers.cpus
    gpus = default.gpus_per_trial if answers.gpus is None else answers.gpus
    found = line(
        f"  address: {address}", "null: RAY_ADDRESS or a cluster on this machine; local: start one"
    )
    return "\n".join(
        (
            line("ray:", "where trainings run"),
            found,
            *([] if given else ["  # address: local"]),
            line(f"  cpus_per_trial: {cpus:g}", "cores of one training"),
            line(f"  gpus_per_trial: {gpus:g}", "a fraction lets several share one"),
            *rows,
        )
    )


def _up(share: float) -> float:
    return min(1.0, math.ceil(100 * share) / 100)
