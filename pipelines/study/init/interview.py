"""The questions of `mixopt init`: those that no flag answers, each with a default."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mixopt.core.formatting import count
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.corpus import corpus_table
from mixopt.pipelines.study.init.answers import (
    AUTO,
    ELSEWHERE,
    Answers,
    read_baseline,
    read_domains,
    read_metrics,
    read_targets,
    read_tokens,
)
from mixopt.pipelines.study.init.asker import Asker, parts_of, yes_or_no
from mixopt.pipelines.study.init.corpus_study import default_budget
from mixopt.pipelines.study.init.offer_sources import found_corpora
from mixopt.pipelines.study.init.own_study import DOMAINS, METRICS, RUN, rounded
from mixopt.pipelines.views.console import make_console
from mixopt.study.sections import Search, Space

OURS = "mixopt"  # the answer that our proxies train
FEWEST_TRIALS = 3  # of `search.trials`


def interview(file: Path, answers: Answers) -> Answers:
    """`answers` with those to the questions that they leave open, asked on the terminal.

    An answer that does not hold is asked for again.

    Raises:
        StudyError: the input ends before the last question.
        CorpusError: there is no corpus.
    """
    asker = Asker(make_console())
    if answers.corpus is None and answers.trainer is None:
        answers = _what_trains(asker, answers)
    if answers.trainer is None:
        answers = _about_corpus(asker, answers)
    else:
        answers = _about_trainer(asker, answers)
    answers = _about_search(asker, file, answers)
    return answers if answers.trainer == ELSEWHERE else _about_cluster(asker, answers)


def _what_trains(asker: Asker, answers: Answers) -> Answers:
    found = [str(path) for path in found_corpora(Path())]
    if not answers.targets:  # else it is known that our proxies do
        asker.say(
            "What trains? mixopt: small models of its own, on a corpus. A command, such as python "
            "train.py {job}, or package.module:function: your trainer. elsewhere: nothing that "
            "mixopt starts."
        )
        trainer = asker.ask("Trainer", OURS, str)
        if trainer != OURS:
            return answers.but(trainer=trainer)
    asker.say(f"Corpora here: {', '.join(found) or 'none; mixopt corpus build makes one'}")
    return answers.but(corpus=asker.ask("Corpus", found[0] if found else "corpus", _corpus))


def _corpus(text: str) -> Path:
    path = Path(text).expanduser()
    Corpus.open(path)
    return path


def _about_corpus(asker: Asker, answers: Answers) -> Answers:
    corpus = Corpus.open(answers.corpus or Path("corpus"))
    asker.console.print(corpus_table(corpus))
    if not answers.targets:
        known = corpus.validation_domains
        asker.say("What shall the mixture be good for? Names of domains, or exam=1, law=0.5.")

        def checked(text: str) -> list[str]:
            parts = parts_of(text)
            read_targets(parts, known)
            return parts

        targets = asker.ask("Target", ", ".join(corpus.targets or known), checked)
        answers = answers.but(targets=targets)
    if answers.budget is None:
        total = sum(corpus.tokens.values())
        answers = answers.but(budget=_budget(asker, total, default_budget(total)))
    if answers.promote is None:
        asker.say("Shall mixopt train that run too, as an upcycled mixture of experts?")
        answers = answers.but(promote=asker.ask("Train it, yes or no", "yes", yes_or_no))
    return answers


def _about_trainer(asker: Asker, answers: Answers) -> Answers:
    if not answers.domains:
        asker.say("Which domains are there, and how many training tokens of each?")
        domains = asker.ask("Domains", ", ".join(DOMAINS), _checked(read_domains))
        answers = answers.but(domains=domains)
    if not answers.metrics:
        asker.say("What does the trainer measure, and which values are better, higher or lower?")
        metrics = asker.ask("Metrics", ", ".join(METRICS), _checked(read_metrics))
        answers = answers.but(metrics=metrics)
    if answers.budget is None:
        total = sum(read_tokens(value, "") for value in read_domains(answers.domains).values())
        answers = answers.but(budget=_budget(asker, total, rounded(RUN * total)))
    if answers.promote is None:
        elsewhere = answers.trainer == ELSEWHERE
        how = "be handed out and told" if elsewhere else "be trained by your trainer (role promote)"
        asker.say(f"Shall that run {how} too, after the verdict?")
        answers = answers.but(promote=asker.ask("The full run too, yes or no", "no", yes_or_no))
    return answers


def _budget(asker: Asker, total: int, default: str) -> str:
    epochs = Space().max_epochs or 1
    asker.say(
        f"How many tokens will the run read that the mixture is for? There are {count(total)}, and "
        f"a domain is seen {epochs:g} times at most: {count(epochs * total)} or less."
    )

    def checked(text: str) -> str:
        if read_tokens(text, "Budget") > epochs * total:
            raise ValueError(f"{text} is more than {count(epochs * total)}")
        return text

    return asker.ask("Budget", default, checked)


def _about_search(asker: Asker, file: Path, answers: Answers) -> Answers:
    if answers.baseline is None:
        asker.say(
            "What is to be beaten? natural (proportional to tokens), uniform, a CSV or JSON file, "
            "or weights web=0.6,code=0.4."
        )

        def checked(text: str) -> str:
            read_baseline(text, file.parent)
            return text

        answers = answers.but(baseline=asker.ask("Baseline", "natural", checked))
    if answers.trials is None:
        asker.say("How many mixtures shall be trained before the first is proposed?")
        answers = answers.but(trials=asker.ask("Trials", str(Search().trials), _trials))
    return answers


def _about_cluster(asker: Asker, answers: Answers) -> Answers:
    if answers.cluster is None:
        asker.say(
            "Where do trainings run? auto: the Ray cluster of RAY_ADDRESS or of this machine, else "
            "one is started. local: one is started here. Or an address, such as ray://head:10001."
        )
        answers = answers.but(cluster=asker.ask("Cluster", AUTO, str))
    if answers.cpus is None:
        asker.say(f"CPU cores and GPUs of each training; this machine has {_devices()}.")
        answers = answers.but(cpus=asker.ask("CPU cores", "1", lambda text: _number(text, 0.01)))
    if answers.gpus is None:
        answers = answers.but(gpus=asker.ask("GPUs", "0", lambda text: _number(text, 0)))
    return answers


def _devices() -> str:
    """Cores, and whether there seems to be a GPU, without importing torch."""
    gpus = "a GPU driver" if shutil.which("nvidia-smi") else "no GPU driver"
    return f"{os.cpu_count()} cores and {gpus}"


def _trials(text: str) -> int:
    number = _number(text, FEWEST_TRIALS)
    if number != int(number):
        raise ValueError(f"{text} is no whole number")
    return int(number)


def _number(text: str, least: float) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not least <= number < math.inf:
        raise ValueError(f"{text} is not {least:g} or more")
    return number


def _checked(read: Callable[[list[str]], object]) -> Callable[[str], list[str]]:
    """The parts of an answer, once `read` takes them."""

    def parts(text: str) -> list[str]:
        found = parts_of(text)
        read(found)
        return found

    return parts
