"""A study file for a trainer of the user's own, or for trainings elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mixopt.core.formatting import count
from mixopt.core.mixture import Mixture
from mixopt.pipelines.study.init.answers import (
    ELSEWHERE,
    Answers,
    read_baseline,
    read_domains,
    read_metrics,
    read_tokens,
)
from mixopt.pipelines.study.init.sections import (
    MLFLOW,
    baseline_section,
    line,
    quoted,
    ray_section,
    search_section,
    select_rows,
    space_rows,
)
from mixopt.search import proposers
from mixopt.study.named import OWN_PATTERN

DOMAINS = ("web=1.2T", "code=300B")  # shown where none are given, to be replaced
METRICS = ("accuracy/arc=higher",)
RUN, TRIAL = 0.25, 0.01  # examples: the run reads a quarter of all tokens, a trial 1 % of that


def own_study(file: Path, answers: Answers) -> str:
    """The text of a study file at `file`.

    Raises:
        StudyError: an answer cannot be read.
    """
    assert answers.trainer is not None
    elsewhere = answers.trainer == ELSEWHERE
    domains = read_domains(answers.domains or DOMAINS)
    better = read_metrics(answers.metrics or METRICS)
    baseline = read_baseline(answers.baseline or "natural", file.parent)
    run, trial = _tokens(answers.budget, domains)
    parts = [
        _head(file, domains, elsewhere=elsewhere),
        _elsewhere() if elsewhere else _trainer(answers.trainer),
        _objective(better),
        baseline_section(baseline),
        _space(run, domains),
        _proxy(trial),
        search_section(answers.trial_count, without=proposers.NEED_TOKEN_LOSSES),
        select_rows(),
        _promote(answers.trainer, run, chosen=answers.promote is True),
        MLFLOW,
    ]
    if not elsewhere:
        parts.append(ray_section(answers, [ATTEMPTS]))
    return "\n\n".join(parts) + "\n"


def to_be_replaced(answers: Answers) -> list[str]:
    """Keys of the file whose values are examples."""
    return [
        *([] if answers.domains else ["domains"]),
        *([] if answers.metrics else ["objective", "metrics"]),
        "proxy.tokens",
        *([] if answers.budget else ["space.budget"]),
    ]


def _tokens(budget: str | None, domains: Mapping[str, str]) -> tuple[str, str]:
    """Tokens of the run, and of a trial: examples, in two digits, of what was not answered."""
    total = sum(read_tokens(value, "--domain") for value in domains.values())
    run = RUN * total if budget is None else read_tokens(budget, "--budget")
    return budget or rounded(run), rounded(TRIAL * run)


def rounded(tokens: float) -> str:
    """Tokens of an example, in two digits."""
    return count(float(f"{max(1.0, tokens):.2g}"))


def _head(file: Path, domains: Mapping[str, str], *, elsewhere: bool) -> str:
    loop = ELSEWHERE_LOOP if elsewhere else OWN_LOOP
    rows = "\n".join(f"  {quoted(name)}: {value}" for name, value in domains.items())
    return f"""\
# A mixopt study: which mixture of these domains should the big run be trained on?
#   mixopt plan {file}     how many trainings, of how many tokens; looks at the trainer
{loop.format(file=file)}
# Left-out keys take the values shown here. A line such as `# key: value  # what it does` is an
# alternative that takes the place of another line. Every key: docs/study.md

name: {file.stem}
seed: 0

# What the mixture weighs: training tokens that there are of each. Only the trainer reads them.
domains:
{rows}"""


OWN_LOOP = "#   mixopt run {file}      search and select; the same command goes on after a stop"
ELSEWHERE_LOOP = """\
#   mixopt ask {file} --out next.csv   hands trainings out
#   mixopt tell {file} next.csv        takes their results; then ask again, until the verdict"""


def _elsewhere() -> str:
    return "\n".join(
        (
            line("trainer:", "docs/elsewhere.md"),
            line("  elsewhere: true", "trained by other means: mixopt starts nothing"),
            line("  version: null", "of what trains: results of two versions do not mix"),
        )
    )


def _trainer(trainer: str) -> str:
    return "\n".join(
        (
            line("trainer:", "docs/trainers.md"),
            *_way(trainer),
            line("  files: []", "further files that a training depends on, beside this file"),
            line("  version: null", "of whatever else it depends on: a commit, an image"),
            line("  settings: {}", "handed to it in job.json as they are"),
            line("  timeout: null", "what an attempt may take at most"),
            "  # timeout: 6h",
            line("  heartbeat: null", "how long an attempt may show no progress and print nothing"),
            "  # heartbeat: 30m",
            line("  grace: 30", "seconds to end by itself once it is asked to"),
        )
    )


def _is_function(trainer: str) -> bool:
    """Whether it is a Python function, not a command."""
    return re.fullmatch(OWN_PATTERN, trainer) is not None and " " not in trainer


def _way(trainer: str) -> list[str]:
    if _is_function(trainer):
        return [f"  function: {trainer}"]
    words = "  # {job} becomes the path of job.json, {python} this Python"
    return [words, f"  command: {quoted(trainer)}"]


def _promote(trainer: str, run: str, *, chosen: bool) -> str:
    """The full run: none, or by the study's own trainer; each is an alternative to the other."""
    words = "to mixopt ask and tell as well (docs/elsewhere.md)"
    ways = [f"promote: {{trainer: {ELSEWHERE}, tokens: {run}}}"]
    if trainer != ELSEWHERE:
        kind = "function" if _is_function(trainer) else "command"
        ways.insert(0, f"promote: {{trainer: {{{kind}: {quoted(trainer)}}}, tokens: {run}}}")
    none = line("promote: null", "ends with the mixture: `mixopt export --mixture`")
    rows = [ways[0], f"# {none}", *(f"# {way}" for way in ways[1:])]
    if not chosen:
        rows = [none, *(f"# {way}" for way in ways)]
    return "\n".join(
        (
            "# The full run on the selected mixture, by your trainer (role promote, "
            "docs/trainers.md) or handed",
            f"# out {words}:",
            *rows,
        )
    )


def _objective(better: Mapping[str, str]) -> str:
    first = quoted(next(iter(better)))
    return "\n".join(
        (
            "# What the mixture is optimized for: metrics as the trainer names them, weighted.",
            "# Give several only where they have one unit.",
            "objective:",
            *(f"  {quoted(name)}: 1.0" for name in better),
            line("metrics:", "which values are better, lower or higher; lower if left out"),
            *(f"  {quoted(name)}: {value}" for name, value in better.items()),
            "# How much worse than the baseline's a metric may get (docs/trust.md):",
            f"# guardrails: {{{first}: 0.01}}",
        )
    )


def _space(run: str, domains: Mapping[str, str]) -> str:
    natural = Mixture.of({name: read_tokens(value, name) for name, value in domains.items()})
    words = "tokens of the run that the mixture is for"
    return "\n".join(("space:", space_rows(natural), line(f"  budget: {run}", words)))


def _proxy(trial: str) -> str:
    return "\n".join(
        (
            line("proxy:", "what each training is asked for"),
            line(f"  tokens: {trial}", "training tokens"),
            line("  params: null", "parameters that one token uses, if they are known"),
            "  # params: 20M",
        )
    )


ATTEMPTS = line("  attempts: 4", "before a training that lost its worker stops the study")
