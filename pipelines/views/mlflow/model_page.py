"""The description of a registered version: method, mixture, verdict, lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.pipelines.views.mlflow.page import VERSION, page
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.pipelines.views.wording import UNTRAINED, headline, made_by, promotion_markdown

if TYPE_CHECKING:
    from mixopt.core.objective import Objective
    from mixopt.study.results import Promotion, Verdict


def version_markdown(
    study: str,
    study_id: str,
    result: Promotion,
    verdict: Verdict | None,
    objective: Objective,
    run: str,
) -> str:
    """The page; what does not fit is left out from the end: metrics are in the run as well.

    Args:
        study: its name.
        study_id: id of its folder.
        result: the promotion.
        verdict: that promoted the mixture; None where the study has judged again since.
        objective: the study's.
        run: address of the promotion's run.
    """
    parts = [f"**{verbatim(made_by(result))}**, on the *{verbatim(result.mixture_name)}* mixture."]
    if not result.trained:
        parts.append(UNTRAINED)
    if verdict is not None:
        parts.append(verbatim(headline((), objective, verdict)))
    parts += ["### Mixture", _mixture(result)]
    parts += ["### Lineage", _lineage(study, study_id, result, run)]
    parts += ["### Metrics", promotion_markdown(result)]
    return page(parts, VERSION)


def _mixture(result: Promotion) -> str:
    weights = sorted(result.mixture.as_dict().items(), key=lambda item: -item[1])
    rows = [f"| {verbatim(domain)} | {weight:.1%} |" for domain, weight in weights]
    return "\n".join(["| domain | weight |", "|---|---:|", *rows])


def _lineage(study: str, study_id: str, result: Promotion, run: str) -> str:
    rows = [
        ("study", f"{verbatim(study)} (`{study_id}`)"),
        ("promotion", f"`{result.id}`, {result.finished}: [its run]({run})"),
        ("corpus", f"`{result.corpus_hash}`"),
        ("trained by" if result.trained else "upcycled by", f"mixopt {result.mixopt}"),
    ]
    rows += [(f"imported {name}", f"`{model}`") for name, model in result.imported.items()]
    return "\n".join(["| what | which |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])
