"""Which alias a promoted model has in the registry, decided once: `promotion/champion.json`.

`champion` moves only if the standing champion is worse on the study's own validation text by more
than the noise; every other promotion is a `challenger`. Where `promote.approve` is `manual`, a
person decides.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.core.formatting import signed
from mixopt.core.intervals import NORMAL_90
from mixopt.io import files
from mixopt.io.trial_files import read_object
from mixopt.study.hashes import digest

CHAMPION, CHALLENGER = "champion", "challenger"
FILE = "champion.json"  # in a study's `promotion` folder


@dataclass(frozen=True)
class Standing:
    """The model that is `champion` before a decision.

    Attributes:
        version: of the registered model.
        promotion: key of its promotion; empty of a version that mixopt did not make.
        study: name of its study.
        tokenizer: hash of its tokenizer's file; empty if that is not known.
    """

    version: str
    promotion: str
    study: str
    tokenizer: str


@dataclass(frozen=True, kw_only=True)
class ChampionDecision:
    """What becomes of a promoted model.

    Attributes:
        promotion: key of the promotion.
        alias: `champion` or `challenger`.
        reason: in a sentence.
        by: `mixopt`, or `person`.
        why: what the person gave as a reason.
        against: version of the standing champion; empty if there was none.
        against_promotion: key of its promotion.
        difference: objective of the new model minus the champion's; None if not measured.
        standard_error: of `difference`.
        decided: when, in ISO 8601.
    """

    promotion: str
    alias: str
    reason: str
    by: str = "mixopt"
    why: str = ""
    against: str = ""
    against_promotion: str = ""
    difference: float | None = None
    standard_error: float | None = None
    decided: str = ""

    @property
    def key(self) -> str:
        """Identity of the decision."""
        return digest(dataclasses.asdict(self))

    def holds_against(self, standing: Standing | None) -> bool:
        """Whether it was made about the champion that stands now, or none does."""
        return (
            self.alias == CHALLENGER
            or standing is None
            or standing.promotion in (self.promotion, self.against_promotion)
        )


def read_decision(home: Path, promotion: str) -> ChampionDecision | None:
    """The decision on the promotion with key `promotion`; None before there is one."""
    try:
        found = ChampionDecision(**read_object(home / "promotion" / FILE))
    except TypeError:  # absent, or of another version
        return None
    return found if found.promotion == promotion else None


def keep_decision(home: Path, decision: ChampionDecision) -> None:
    """Write the decision into the study's folder.

    Raises:
        FileError: it cannot be written.
    """
    files.write_json(home / "promotion" / FILE, dataclasses.asdict(decision))


def decided_without_comparison(
    promotion: str,
    improved: bool,
    standing: Standing | None,
    tokenizer: str | None,
    *,
    trained: bool = True,
) -> ChampionDecision | None:
    """The decision where models need not or cannot be compared; None if they have to be.

    Args:
        promotion: key of the new promotion.
        improved: whether the gate passed; else the baseline was promoted.
        standing: the champion before it.
        tokenizer: hash of the new model's tokenizer file; None where it does not tell.
        trained: whether the new model was; else it needs a champion that it is better than.
    """
    if standing is not None and standing.promotion == promotion:
        return _decision(promotion, CHAMPION, "it is the champion already", standing)
    if not improved:
        reason = "the gate did not pass, and the baseline was promoted"
        return _decision(promotion, CHALLENGER, reason, standing)
    if standing is None and not trained:
        reason = "it is upcycled, not trained, and there is no champion to compare it with"
        return _decision(promotion, CHALLENGER, reason, None)
    if standing is None:
        return _decision(promotion, CHAMPION, "there was no champion before it", None)
    if tokenizer is not None and standing.tokenizer != tokenizer:
        return not_comparable(promotion, standing, "it has another tokenizer")
    return None


def not_comparable(promotion: str, standing: Standing, problem: str) -> ChampionDecision:
    """The decision where the champion cannot be evaluated, for `problem`."""
    reason = f"the champion {_named(standing)} cannot be evaluated on this text: {problem}"
    return _decision(promotion, CHALLENGER, reason, standing)


def not_evaluable(promotion: str, standing: Standing) -> ChampionDecision:
    """The decision about a model of a trainer of the user's, which mixopt cannot evaluate."""
    reason = (
        f"a trainer of your own made it, so it cannot be compared with the champion "
        f"{_named(standing)} here"
    )
    return _decision(promotion, CHALLENGER, reason, standing)


def decided_by_difference(
    promotion: str, standing: Standing, measured: Mapping[str, Any]
) -> ChampionDecision:
    """The decision by a measured `mixopt.proxies.paired.Difference`, given as a dictionary."""
    mean, error = float(measured["mean"]), float(measured["standard_error"])
    # one-sided 95 %: of models that are equally good, one in twenty would take the place
    noise = NORMAL_90 * error
    better = math.isfinite(noise) and mean < -noise
    reason = (
        f"on this study's validation text it has {measured['first']:.4f} bits per byte and the "
        f"champion {_named(standing)} {measured['second']:.4f}: a difference of {signed(mean)}, "
        + ("beyond" if better else "not below")
        + f" the noise of {noise:.4f} ({NORMAL_90:.3f} standard errors over "
        f"{measured['windows']} windows of text)"
    )
    decision = _decision(promotion, CHAMPION if better else CHALLENGER, reason, standing)
    finite = error if math.isfinite(error) else None
    return dataclasses.replace(decision, difference=mean, standard_error=finite)


def waiting(decision: ChampionDecision) -> ChampionDecision:
    """`decision` as advice to the person who decides: a challenger until then."""
    advice = f"mixopt would make it {decision.alias}: {decision.reason}"
    return dataclasses.replace(
        decision, alias=CHALLENGER, reason=f"it waits for `mixopt approve` ({advice})"
    )


def approved(
    promotion: str, why: str, before: ChampionDecision | None, standing: Standing | None
) -> ChampionDecision:
    """A person's decision that the promotion becomes champion.

    Args:
        promotion: its key.
        why: the person's reason.
        before: the decision so far, whose measured difference is kept.
        standing: the champion now; None if there is none or the registry is not at hand.
    """
    decision = _decision(promotion, CHAMPION, f"approved: {why}", standing)
    if standing is None and before is not None:
        decision = dataclasses.replace(
            decision, against=before.against, against_promotion=before.against_promotion
        )
    return dataclasses.replace(
        decision,
        by="person",
        why=why,
        difference=None if before is None else before.difference,
        standard_error=None if before is None else before.standard_error,
    )


def _decision(
    promotion: str, alias: str, reason: str, standing: Standing | None
) -> ChampionDecision:
    return ChampionDecision(
        promotion=promotion,
        alias=alias,
        reason=reason,
        against="" if standing is None else standing.version,
        against_promotion="" if standing is None else standing.promotion,
        decided=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


def _named(standing: Standing) -> str:
    of = f" of {standing.study}" if standing.study else ""
    return f"(version {standing.version}{of})"
