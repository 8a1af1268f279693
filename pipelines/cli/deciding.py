"""Commands by which a person decides about trials and promotions."""

from __future__ import annotations

from typing import Annotated

import typer

from mixopt.pipelines.cli.groups import Group, Overrides, StudyFile

group = Group("Study: decide")
TrialNumbers = Annotated[
    list[int], typer.Argument(help="Numbers of the trials.", metavar="TRIAL...")
]


@group.command("mixopt retry study.yaml 12 13")
def retry(
    study: StudyFile,
    trials: TrialNumbers,
    overrides: Overrides = None,
) -> None:
    """Run trials again that lost their worker too often."""
    from mixopt.pipelines.study.decide import retry_trials

    retry_trials(study, trials)


@group.command("mixopt fail study.yaml 12 13")
def fail(
    study: StudyFile,
    trials: TrialNumbers,
    overrides: Overrides = None,
) -> None:
    """Give trials up: they end without a result, and the study goes on."""
    from mixopt.pipelines.study.decide import fail_trials

    fail_trials(study, trials)


@group.command('mixopt approve study.yaml --why "answers checked by hand"')
def approve(
    study: StudyFile,
    why: Annotated[str, typer.Option(help="Your reason, which is recorded.")],
    overrides: Overrides = None,
) -> None:
    """Make the promoted model the champion in the registry (promote.approve: manual)."""
    from mixopt.pipelines.study.champion import approve_promotion

    approve_promotion(study, why)


@group.command('mixopt overrule study.yaml --why "the larger size was too noisy"')
def overrule(
    study: StudyFile,
    why: Annotated[str, typer.Option(help="Your reason, which is recorded.")],
    overrides: Overrides = None,
) -> None:
    """Go on though the mixtures' order does not hold at a larger size (select.at)."""
    from mixopt.pipelines.study.transfer import overrule

    overrule(study, why)
