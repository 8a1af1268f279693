"""`mixopt init`: a commented study file, filled in from the corpus."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

from mixopt import surrogates
from mixopt.core.errors import StudyError
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.models.config import ModelConfig
from mixopt.models.upcycling import UPCYCLERS
from mixopt.pipelines.views.console import make_console
from mixopt.pipelines.views.wording import command
from mixopt.search import proposers
from mixopt.search.designs import DESIGNS

# What both templates say alike; `init_own` has the other one.
BASELINE = """\
# What is to be beaten: natural (proportional to tokens), uniform, a CSV or JSON file, or weights
# {{{first}: 0.6, {second}: 0.4}}. Or several by name, the one to beat first:
# {{production: mixture.csv, natural: natural}}
baseline: natural
"""
SEARCH = """\
search:
  design: dirichlet       # initial design: {designs}
  trials: 16              # trials in it
  repeats: 2              # further seeds of the baseline, to measure the noise
{proposers}
  proposer: bayes
{surrogates}
  surrogate: auto         # auto: the best in cross-validation
  rounds: 2               # rounds of proposals; may be raised later
  batch: 4                # trials in each
  enqueue: []             # mixtures to try in any case, such as  - {{{first}: 0.6, {second}: 0.4}}
  holdout: 0              # trials kept aside, predicted before they run; such as 8

select:                   # candidates against the baseline, with fresh seeds
  rule: repeat            # every candidate with every seed, or successive-rejects
  seeds: 3
  confidence: 0.9         # selects at an adjusted p-value of at most (1 - confidence) / looks
  looks: 1                # verdicts that may select a candidate, 1 to 5; fixed at the first
"""
MLFLOW = """\
mlflow:
  uri: null               # null: MLFLOW_TRACKING_URI, else SQLite in the study folder
  experiment: mixopt
"""
TEMPLATE = (
    """\
# A mixopt study: which mixture of these domains should the big run be trained on?
#   mixopt plan {file}     what it will cost
#   mixopt run {file}      search, select, promote; the same command goes on after a stop
# Left-out keys take the values shown here. Every key: docs/study.md

name: {name}
corpus: {corpus}          # made by `mixopt corpus build`; relative to this file
seed: 0

# What the mixture is optimized for: bits per byte of validation domains, weighted. Lower is better.
objective:
{objective}
# guardrails: {{{first}: 1%}}  # how much worse than the baseline's it may get (docs/trust.md)
# tasks: {{exam: exam.jsonl}}  # questions to score too: metric task/exam (docs/tasks.md)

"""
    + BASELINE
    + """\

space:
  max_epochs: 4           # how often the promoted run may see a domain (null: no limit)
  bounds: {{}}              # least and largest weight, such as  {{{first}: [0.05, 0.6]}}
  linear: []              # such as  - {{weights: {{{first}: 1, {second}: 1}}, at_most: 0.7}}
  # budget: 20B           # tokens of the run that the mixture is for, if mixopt does not train it

proxy:                    # the small models that are trained to learn about mixtures
  tokens: 600k            # training tokens of each
  model: {{width: {width}, layers: {layers}, heads: {heads}, experts: {experts}, \
experts_per_token: {k}, expert_width: {expert_width}}}
  recipe: {{learning_rate: {rate}, batch_sequences: {batch}, sequence_length: {length}}}

"""
    + SEARCH
    + """\
  at: null                # the best once more at a larger size before a promotion: {{tokens: 3M}}

promote:                  # the upcycled mixture of experts; `promote: null` ends after select
  upcycler: branch-train-mix  # {upcyclers}
  # seed_model: models/llama  # your own dense model in its place (docs/upcycling.md)
  seed_tokens: 600k       # dense seed model, on the natural mixture
  expert_tokens: 200k     # each dense domain expert branched from it
  tokens: 600k            # the upcycled model, on the selected mixture
  model: {{width: {width}, layers: {layers}, heads: {heads}, experts: {promoted_experts}, \
experts_per_token: {promoted_k}, expert_width: {expert_width}}}

"""
    + MLFLOW
    + """\

ray:
  address: null           # null: RAY_ADDRESS or a cluster on this machine; local: start one here
  cpus_per_trial: 1
  gpus_per_trial: 0
  cohort: auto            # how many trials train as one: a number at most, or auto, which measures
"""
)


def write_study_file(file: Path, corpus_path: Path, *, force: bool = False) -> None:
    """Write a commented study file to `file` for the corpus at `corpus_path`.

    Raises:
        StudyError: `file` is there and `force` is not given.
        CorpusError: there is no corpus at `corpus_path`.
    """
    refuse_existing(file, force=force)
    corpus = Corpus.open(corpus_path)
    targets = corpus.targets or corpus.validation_domains
    model, recipe = ModelConfig(), Recipe()
    relative = _relative(corpus_path, file.parent)
    text = TEMPLATE.format(
        file=file,
        name=file.stem,
        corpus=relative,
        objective="\n".join(f"  {name}: 1.0" for name in targets),
        designs=", ".join(sorted(DESIGNS)),
        proposers=choices("proposers", proposers.KNOWN),
        surrogates=choices("surrogates", surrogates.KNOWN),
        upcyclers=", ".join(sorted(UPCYCLERS)),
        first=corpus.domains[0],
        second=corpus.domains[-1],
        width=model.width,
        layers=model.layers,
        heads=model.heads,
        experts=model.experts,
        k=model.experts_per_token,
        # one dense model per domain, and the seed model itself, become experts
        promoted_experts=(experts := min(model.experts, len(corpus.domains) + 1)),
        promoted_k=min(model.experts_per_token, experts),
        expert_width=model.expert_width,
        rate=recipe.learning_rate,
        batch=recipe.batch_sequences,
        length=recipe.sequence_length,
    )
    files.write_bytes(file, text.encode())
    make_console().print(
        f"Wrote {file}. Next:\n  {command('plan', file)}\n  {command('run', file)}", soft_wrap=True
    )


def refuse_existing(file: Path, *, force: bool) -> None:
    """Refuse to replace a file unless that is asked for.

    Raises:
        StudyError: `file` is there and `force` is not given.
    """
    if file.exists() and not force:
        raise StudyError(
            "the file is there already", where=str(file), hint="Add --force to replace it"
        )


def choices(kind: str, names: Iterable[str]) -> str:
    """Comment lines that list all registered names."""
    text = f"{kind}: {', '.join(sorted(names))}, or your own package.module:Name"
    return textwrap.fill(
        text, 100, initial_indent="  # ", subsequent_indent="  #   ", break_on_hyphens=False
    )


def _relative(path: Path, start: Path) -> str:
    try:
        return str(path.absolute().relative_to(start.absolute()))
    except ValueError:
        return str(path.absolute())
