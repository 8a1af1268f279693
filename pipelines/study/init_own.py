"""`mixopt init --trainer …`: a commented study file for a trainer of the user's own.

mixopt init study.yaml --trainer elsewhere --domain web=1.2T --domain code=300B
mixopt init study.yaml --trainer "python train.py {job}" --metric accuracy/arc=higher
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from mixopt import surrogates
from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.io import files
from mixopt.pipelines.study.init import BASELINE, MLFLOW, SEARCH, choices, refuse_existing
from mixopt.pipelines.views.console import make_console
from mixopt.pipelines.views.wording import command
from mixopt.search import proposers
from mixopt.search.designs import DESIGNS
from mixopt.study.named import OWN_PATTERN
from mixopt.study.sections import parse_tokens
from mixopt.study.settings import study_of

DOMAINS = ("web=1.2T", "code=300B")  # shown where none are given, to be replaced
METRICS = ("accuracy/arc=higher",)
RUN, TRIAL = 0.25, 0.01  # examples: the run reads a quarter of all tokens, a trial 1 % of that

HEAD = (
    """\
# A mixopt study: which mixture of these domains should the big run be trained on?
#   mixopt plan {file}     how many trainings, of how many tokens; looks at the trainer
{loop}
# Left-out keys take the values shown here. Every key: docs/study.md

name: {name}
seed: 0

# What the mixture weighs: training tokens that there are of each. Only the trainer reads them.
domains:
{domains}

{trainer}

# What the mixture is optimized for: names of metrics as the trainer gives them, weighted. Give
# several only where they have one unit.
objective:
{objective}
metrics:                  # which values are better, lower or higher; lower if left out
{directions}
# guardrails: {{{metric}: 0.01}}  # how much worse than the baseline's it may get (docs/trust.md)

"""
    + BASELINE
    + """\

space:
  max_epochs: 4           # how often that run may see a domain (null: no limit)
  bounds: {{}}              # least and largest weight, such as  {{{first}: [0.05, 0.6]}}
  linear: []              # such as  - {{weights: {{{first}: 1, {second}: 1}}, at_most: 0.7}}
  budget: {budget:<15} # tokens of the run that the mixture is for

proxy:                    # what each training is asked for
  tokens: {each:<15} # training tokens
  params: null            # parameters that one token uses, if they are known

"""
    + SEARCH
    + """\

# The full run on the selected mixture, by a trainer of yours too (docs/trainers.md); without it the
# study ends with the mixture:
# promote: {{trainer: {{command: "python full.py {{job}}"}}, tokens: {budget}}}

"""
    + MLFLOW
)

ELSEWHERE_LOOP = """\
#   mixopt ask {file} --out next.csv   hands trainings out
#   mixopt tell {file} next.csv        takes their results; then ask again, until the verdict"""
OWN_LOOP = "#   mixopt run {file}      search and select; the same command goes on after a stop"

ELSEWHERE = """\
trainer:                  # docs/elsewhere.md
  elsewhere: true         # trained by other means: mixopt starts nothing
  version: null           # of what trains: a commit, an image; results of two do not mix"""
OWN = """\
trainer:                  # docs/trainers.md
  {way}
  files: []               # further files that a training depends on, beside this file
  version: null           # of whatever else it depends on: a commit, an image
  settings: {{}}            # handed to it in job.json as they are
  timeout: null           # what an attempt may take at most, such as 6h
  heartbeat: null         # how long an attempt may show no progress and print nothing
  grace: 30               # seconds to end by itself once it is asked to"""

RAY = """
ray:                      # where the trainings run
  address: null           # null: RAY_ADDRESS or a cluster on this machine; local: start one here
  cpus_per_trial: 1
  gpus_per_trial: 0
  attempts: 4             # before a training that lost its worker stops the study
"""


def write_own_study_file(
    file: Path,
    trainer: str,
    domains: Sequence[str] = (),
    metrics: Sequence[str] = (),
    *,
    force: bool = False,
) -> None:
    """Write a commented study file to `file` for a trainer of the user's own.

    Args:
        file: to be written.
        trainer: `elsewhere`, `package.module:function`, or a command.
        domains: each `NAME=TOKENS`; an example of two if not given.
        metrics: each `NAME` or `NAME=higher`, weighted alike; an example if not given.
        force: replace a file that is there.

    Raises:
        StudyError: `file` is there and `force` is not given, or a domain or metric cannot be read.
    """
    refuse_existing(file, force=force)
    tokens = dict(_pair(text, "--domain", "web=1.2T") for text in domains or DOMAINS)
    better = dict(
        _pair(f"{text}=lower", "--metric", "accuracy/arc=higher") for text in metrics or METRICS
    )
    given = {"domains": tokens, "objective": dict.fromkeys(better, 1.0), "metrics": better}
    # what cannot be read is refused before a share of it is taken and anything is written
    study_of({"name": file.stem, "trainer": "elsewhere", **given}, file, str(file))
    text = _text(file, trainer, tokens, better)
    study_of(yaml.safe_load(text), file, str(file))
    files.write_bytes(file, text.encode())
    examples = [
        *([] if domains else ["domains"]),
        *([] if metrics else ["objective", "metrics"]),
        "proxy.tokens",
        "space.budget",
    ]
    elsewhere = trainer == "elsewhere"
    first = command("ask", file, "--out", "next.csv") if elsewhere else command("run", file)
    following = "\n  ".join([command("plan", file), first])
    make_console().print(
        f"Wrote {file}. Put your own into it: {', '.join(examples)}. Next:\n  {following}",
        soft_wrap=True,
    )


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    """Name and value of `NAME=VALUE`; of several `=` the second ends the value."""
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value):
        raise StudyError(f"{text!r} is none", where=option, hint=f"Write {example}")
    return name.strip(), value.partition("=")[0].strip()


def _text(file: Path, trainer: str, tokens: dict[str, str], better: dict[str, str]) -> str:
    names, metric = [_quoted(name) for name in tokens], _quoted(next(iter(better)))
    elsewhere = trainer == "elsewhere"
    text = HEAD.format(
        file=file,
        loop=(ELSEWHERE_LOOP if elsewhere else OWN_LOOP).format(file=file),
        name=file.stem,
        domains="\n".join(f"  {_quoted(name)}: {value}" for name, value in tokens.items()),
        trainer=ELSEWHERE if elsewhere else OWN.format(way=_way(trainer)),
        objective="\n".join(f"  {_quoted(name)}: 1.0" for name in better),
        directions="\n".join(f"  {_quoted(name)}: {value}" for name, value in better.items()),
        metric=metric,
        first=names[0],
        second=names[-1],
        budget=_share(tokens, RUN),
        each=_share(tokens, RUN * TRIAL),
        designs=", ".join(sorted(DESIGNS)),
        proposers=choices("proposers", proposers.KNOWN),
        surrogates=choices("surrogates", surrogates.KNOWN),
    )
    return text if elsewhere else text + RAY


def _share(tokens: dict[str, str], share: float) -> str:
    """A share of all tokens, in two digits."""
    counts = [parse_tokens(value) for value in tokens.values()]
    total = sum(value for value in counts if isinstance(value, int))
    return count(float(f"{max(1.0, share * total):.2g}"))


def _way(trainer: str) -> str:
    if re.fullmatch(OWN_PATTERN, trainer) and " " not in trainer:
        return f"function: {trainer}"
    words = "{job} becomes the path of job.json, {python} this Python"
    return f"command: {_quoted(trainer)}  # {words}"


def _quoted(text: str) -> str:
    """`text` as YAML reads it back: in quotes where it has to be."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", text) and yaml.safe_load(text) == text
    return text if plain else "'" + text.replace("'", "''") + "'"
