"""`mixopt init`: asks what the flags leave open, checks the study, writes its file.

mixopt init                                    # asks, on a terminal
mixopt init study.yaml --corpus corpus --target exam --budget 20B --no-promote
mixopt init study.yaml --trainer elsewhere --domain web=1.2T --domain code=300B
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from mixopt.core.errors import StudyError
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.pipelines.study.init.answers import ELSEWHERE, Answers
from mixopt.pipelines.study.init.corpus_study import corpus_study
from mixopt.pipelines.study.init.interview import interview
from mixopt.pipelines.study.init.offer_sources import offer_sources
from mixopt.pipelines.study.init.own_study import own_study, to_be_replaced
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import make_console
from mixopt.study.settings import study_of

CORPUS = Path("corpus")  # where nothing names another


def init_study(file: Path, answers: Answers, *, ask: bool = True, force: bool = False) -> None:
    """Write a commented study file to `file`.

    Args:
        file: to be written.
        answers: what the flags answer.
        ask: whether the rest is asked for, where stdin is a terminal.
        force: replace a file that is there.

    Raises:
        StudyError: `file` is there and `force` is not given, or an answer does not hold.
        CorpusError: there is no corpus.
    """
    refuse_existing(file, force=force)
    if ask and sys.stdin is not None and sys.stdin.isatty():
        if offer_sources(answers):
            return
        answers = interview(file, answers)
    write_study_file(file, answers, force=force)
    console = make_console()
    first = "ask" if answers.trainer == ELSEWHERE else "run"
    out = ("--out", "next.csv") if first == "ask" else ()
    following = f"Next:\n  {command('plan', file)}\n  {command(first, file, *out)}"
    own = ""
    if answers.trainer is not None:
        own = f" Put your own into it: {', '.join(to_be_replaced(answers))}."
    console.print(f"Wrote {file}.{own} {following}", soft_wrap=True)


def write_study_file(file: Path, answers: Answers, *, force: bool = False) -> None:
    """Write the study file that `answers` describe; see `init_study`."""
    refuse_existing(file, force=force)
    text = study_text(file, answers)
    check_text(text, file)
    files.write_bytes(file, text.encode())


def study_text(file: Path, answers: Answers) -> str:
    """What `write_study_file` writes, unchecked."""
    if answers.trainer is not None:
        return own_study(file, answers)
    return corpus_study(file, answers, Corpus.open(answers.corpus or CORPUS))


def check_text(text: str, file: Path) -> None:
    """Refuse a study file that `mixopt plan` would refuse for an answer, before it is written.

    Raises:
        StudyError: naming key and fix.
    """
    study = study_of(yaml.safe_load(text), file, str(file))
    data = study.open_data()
    study.initial_design(study.mixture_space(data))


def refuse_existing(file: Path, *, force: bool) -> None:
    """Refuse to replace a file unless that is asked for.

    Raises:
        StudyError: `file` is there and `force` is not given.
    """
    if file.exists() and not force:
        raise StudyError(
            "the file is there already", where=str(file), hint="Add --force to replace it"
        )
