"""A study file for mixopt's own proxies, filled in from the corpus that they train on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mixopt.core.formatting import count
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.routers import ROUTERS
from mixopt.models.upcycling import MERGES, ROUTER_STARTS, UPCYCLERS
from mixopt.pipelines.study.init.alternatives import alternatives
from mixopt.pipelines.study.init.answers import (
    ELSEWHERE,
    Answers,
    read_baseline,
    read_targets,
    relative,
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
from mixopt.study.promote import Promote
from mixopt.study.sections import Proxy, Space

ABLATIONS = ("expert-choice",)  # refused without `router_settings: {ablation: true}`


def corpus_study(file: Path, answers: Answers, corpus: Corpus) -> str:
    """The text of a study file at `file`.

    Raises:
        StudyError: an answer cannot be read.
    """
    validation = corpus.validation_domains
    targets = read_targets(answers.targets or corpus.targets or validation, validation)
    promoted = answers.promote is not False
    total = sum(corpus.tokens.values())
    budget = answers.budget or default_budget(total)
    return (
        "\n\n".join(
            (
                _head(file, relative(corpus.path, file.parent)),
                _objective(targets, corpus),
                baseline_section(read_baseline(answers.baseline or "natural", file.parent)),
                _space(None if promoted else budget, corpus),
                _proxy(),
                search_section(answers.trial_count),
                f"{select_rows()}\n{_larger_size()}",
                _promote(budget, corpus) if promoted else f"{NO_PROMOTION}\n{_handed_out(budget)}",
                MLFLOW,
                ray_section(answers, [COHORT]),
            )
        )
        + "\n"
    )


def default_budget(tokens: int) -> str:
    """Tokens of the full run where nobody said: the default, or an epoch of a corpus too small.

    Args:
        tokens: training tokens of the corpus.
    """
    default = Promote().tokens
    return count(default if _fits(default, tokens) else tokens)


def _fits(run: int, tokens: int) -> bool:
    """Whether a run may be so long without seeing a corpus of `tokens` too often."""
    epochs = Space().max_epochs
    return epochs is None or run <= epochs * tokens


def _head(file: Path, corpus: str) -> str:
    return f"""\
# A mixopt study: which mixture of these domains should the big run be trained on?
#   mixopt plan {file}     what it will cost
#   mixopt run {file}      search, select, promote; the same command goes on after a stop
# Left-out keys take the values shown here. A line such as `# key: value  # what it does` is an
# alternative that takes the place of another line. Every key: docs/study.md

name: {file.stem}
{line(f"corpus: {quoted(corpus)}", "made by `mixopt corpus build`; relative to this file")}
seed: 0"""


def _objective(targets: Mapping[str, float], corpus: Corpus) -> str:
    others = [name for name in corpus.validation_domains if name not in targets]
    guarded = (others or list(targets))[0]
    rows = [f"  {quoted(name)}: {weight}" for name, weight in targets.items()]
    rows += [f"  # {quoted(name)}: 0.5" for name in others]
    return "\n".join(
        (
            "# What the mixture is optimized for: bits per byte of validation domains, weighted.",
            "# Lower is better.",
            "objective:",
            *rows,
            "# How much worse than the baseline's a metric may get (docs/trust.md):",
            f"# guardrails: {{{quoted(guarded)}: 1%}}",
            "# Questions can be scored too, and weighed here: docs/tasks.md",
        )
    )


def _space(budget: str | None, corpus: Corpus) -> str:
    words = "tokens of the run that the mixture is for, if mixopt does not train it"
    row = f"budget: {budget or count(sum(corpus.tokens.values()))}"
    return "\n".join(
        ("space:", space_rows(corpus.natural), line(f"  {row if budget else f'# {row}'}", words))
    )


def _proxy() -> str:
    recipe = Recipe()
    return f"""\
{line("proxy:", "the small models that are trained to learn about mixtures")}
{line(f"  tokens: {count(Proxy().tokens)}", "training tokens of each")}
  model:
{_shape(ModelConfig())}
    # How a token finds its experts:
{alternatives("router", ModelConfig().router, ROUTERS, 4, without=ABLATIONS)}
  recipe:
    learning_rate: {recipe.learning_rate}
{line(f"    batch_sequences: {recipe.batch_sequences}", "sequences per step")}
{line(f"    sequence_length: {recipe.sequence_length}", "tokens of each")}"""


def _shape(model: ModelConfig) -> str:
    keys = ("width", "layers", "heads", "experts", "experts_per_token", "expert_width")
    return "\n".join(f"    {key}: {getattr(model, key)}" for key in keys)


def _larger_size() -> str:
    words = "the best once more at a larger size, before a promotion"
    return f"{line('  at: null', words)}\n  # at: {{tokens: {count(5 * Proxy().tokens)}}}"


def _promote(budget: str, corpus: Corpus) -> str:
    promote, model = Promote(), ModelConfig()
    # one dense model per domain, and the seed model itself, become experts
    experts = min(model.experts, len(corpus.domains) + 1)
    shape = {
        "experts": experts,
        "experts_per_token": min(model.experts_per_token, experts),
        "expert_width": model.expert_width,
    }
    # without a promotion the mixture is for a run as long as a proxy's
    fits = _fits(Proxy().tokens, sum(corpus.tokens.values()))
    halves = () if experts % 2 == 0 else ("virtual-groups",)  # cuts experts into pairs
    return f"""\
{NULL if fits else ""}{_handed_out(budget)}
{line("promote:", "the full run: an upcycled mixture of experts")}
  # How dense models become one mixture of experts:
{alternatives("upcycler", promote.upcycler, UPCYCLERS, 2, without=halves)}
  # How what is no expert is merged over the dense models:
{alternatives("merge", promote.merge, MERGES, 2)}
  # What the routers are before training:
{alternatives("router_start", promote.router_start, ROUTER_STARTS, 2)}
  # A dense model of your own can take the place of the seed model: docs/upcycling.md
{line(f"  seed_tokens: {count(promote.seed_tokens)}", "dense seed model, on natural")}
{line(f"  expert_tokens: {count(promote.expert_tokens)}", "each dense expert branched from it")}
{line(f"  tokens: {budget}", "the upcycled model, on the selection")}
  model:
    width: {model.width}
    layers: {model.layers}
    heads: {model.heads}
{chr(10).join(f"    {key}: {value}" for key, value in shape.items())}"""


def _handed_out(budget: str) -> str:
    """The full run as those write it who train it by other means."""
    words = "mixopt ask hands it out (docs/elsewhere.md)"
    return f"# promote: {{trainer: {ELSEWHERE}, tokens: {budget}}}  # {words}"


NULL = "# Without a full run the study ends with the mixture:\n# promote: null\n"
NO_PROMOTION = line("promote: null", "ends with the mixture: `mixopt export --mixture`")
COHORT = line("  cohort: auto", "trials that train as one: at most so many, or auto: measured")
