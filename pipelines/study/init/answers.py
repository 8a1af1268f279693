"""What `mixopt init` asks: the answers, from flags or an interview, and how each is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.counts import parse_tokens
from mixopt.core.errors import StudyError
from mixopt.study.baselines import WORDS, checked_baselines
from mixopt.study.given_mixtures import naming, weight
from mixopt.study.sections import Search

ELSEWHERE = "elsewhere"
AUTO = "auto"  # the cluster that Ray finds, or starts


@dataclass(frozen=True)
class Answers:
    """Everything that a study file is made of; None or empty where nothing was answered.

    Attributes:
        corpus: folder of `mixopt corpus build`, where our proxies train.
        trainer: in its place: `elsewhere`, `package.module:function`, or a command.
        targets: validation domains to be good for, each `NAME` or `NAME=WEIGHT`.
        domains: what a trainer of the user's reads, each `NAME=TOKENS`.
        metrics: what it measures, each `NAME` or `NAME=higher`, weighted alike.
        budget: tokens of the run that the mixture is for, such as `20B`.
        promote: whether that run is a part of the study: trained by mixopt, or by the trainer.
        baseline: what is to be beaten: a word, a file, or `NAME=WEIGHT,…`.
        trials: of the initial design.
        cluster: `auto`, `local`, or Ray's address.
        cpus: cores of one training.
        gpus: GPUs of one training.
    """

    corpus: Path | None = None
    trainer: str | None = None
    targets: Sequence[str] = ()
    domains: Sequence[str] = ()
    metrics: Sequence[str] = ()
    budget: str | None = None
    promote: bool | None = None
    baseline: str | None = None
    trials: int | None = None
    cluster: str | None = None
    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        """Refuse answers to questions of the other kind of study.

        Raises:
            StudyError: naming the flag.
        """
        ours = {"--corpus": self.corpus, "--target": self.targets}
        theirs = {"--domain": self.domains, "--metric": self.metrics}
        if self.trainer is None:
            if given := [name for name, value in theirs.items() if value]:
                raise StudyError("is for --trainer", where=given[0])
        elif given := [name for name, value in ours.items() if value]:
            raise StudyError(
                "is for mixopt's own proxies", where=given[0], hint="Leave it or --trainer out"
            )
        if self.trainer == ELSEWHERE and (self.cluster or self.cpus or self.gpus):
            raise StudyError("is for trainings that mixopt starts", where="--cluster")

    def but(self, **changes: Any) -> Answers:
        """These answers with some more."""
        return dataclasses.replace(self, **changes)

    @property
    def trial_count(self) -> int:
        """Trials of the initial design, the default where nothing was answered."""
        return Search().trials if self.trials is None else self.trials

    @property
    def address(self) -> str | None:
        """Of the cluster, as the study file gives it."""
        return None if self.cluster == AUTO else self.cluster


def pair(text: str, option: str, example: str) -> tuple[str, str]:
    """Name and value of `NAME=VALUE`; of several `=` the second ends the value.

    Raises:
        StudyError: it is no such text.
    """
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value):
        raise StudyError(f"{text!r} is none", where=option, hint=f"Write {example}")
    return name.strip(), value.partition("=")[0].strip()


def read_domains(texts: Sequence[str]) -> dict[str, str]:
    """Domain → tokens, as the study file writes them."""
    pairs = dict(pair(text, "--domain", "web=1.2T") for text in texts)
    for name, value in pairs.items():
        read_tokens(value, f"--domain {name}")
    return pairs


def read_metrics(texts: Sequence[str]) -> dict[str, str]:
    """Metric → `lower` or `higher`."""
    example = "accuracy/arc=higher"
    pairs = dict(pair(f"{text}=lower", "--metric", example) for text in texts)
    for name, value in pairs.items():
        if value not in ("lower", "higher"):
            raise StudyError(
                f"{name}: {value!r} is neither lower nor higher",
                where="--metric",
                hint=f"Write {example}",
            )
    return pairs


def read_targets(texts: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Validation domain → its weight in the objective.

    Raises:
        StudyError: there is no such domain, or a weight is none.
    """
    weights = {}
    for text in texts:
        name, value = pair(f"{text}=1", "--target", "exam, or exam=0.5")
        if name not in known:
            raise StudyError(
                f"there is no validation domain {name!r}",
                where="--target",
                hint=f"Choose from {', '.join(known)}",
            )
        weights[name] = _weight(value, "--target")
    return weights


def read_tokens(text: str, option: str) -> int:
    """A number of tokens.

    Raises:
        StudyError: it is none.
    """
    try:
        tokens = parse_tokens(text)
    except ValueError as error:
        raise StudyError(str(error), where=option) from None
    if not isinstance(tokens, int) or tokens < 1:
        raise StudyError(f"{text!r} is no number of tokens", where=option, hint="Write 20B or 600k")
    return tokens


def read_baseline(text: str, start: Path) -> str | Mapping[str, float]:
    """A baseline as the study file gives it: a word, weights, or a file relative to `start`.

    Raises:
        StudyError: it is none of these, or there is no such file.
    """
    if "=" in text:
        pairs = (pair(part, "--baseline", "web=0.6,code=0.4") for part in text.split(","))
        return {name: _weight(value, "--baseline") for name, value in pairs}
    if text in WORDS:
        return text
    with naming("--baseline"):
        checked_baselines(text)
        if not Path(text).is_file():
            raise StudyError(f"there is no file {text!r}")
    return relative(Path(text), start)


def relative(path: Path, start: Path) -> str:
    """`path` as a study file in the folder `start` names it: relative where it lies below."""
    try:
        return str(path.absolute().relative_to(start.absolute()))
    except ValueError:
        return str(path.absolute())


def _weight(text: str, option: str) -> float:
    value = weight(text)
    if value is None:
        try:
            value = weight(float(text))
        except ValueError:
            value = None
    if value is None:
        raise StudyError(f"{text!r} is no weight", where=option, hint="Write 0.4 or 40%")
    return value
