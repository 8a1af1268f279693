"""The study file's `guardrails`: how much worse a promoted mixture may make each metric."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from mixopt.core.guardrails import Guardrail
from mixopt.study.sections import Section


def parse_allowance(value: Any) -> Any:
    """An allowance: a number in the metric's unit, or a share of the baseline's value as `1%`.

    >>> parse_allowance("1%"), parse_allowance(0.5)
    ('1%', 0.5)
    """
    if isinstance(value, str) and not re.fullmatch(r"\s*\d+(\.\d*)?\s*%\s*", value):
        raise ValueError(f"{value!r} is no allowance; write 0.02 (in the metric's unit) or 1%")
    return value


def _not_negative(value: float | str) -> float | str:
    if not isinstance(value, str) and value < 0:
        raise ValueError("an allowance is how much worse it may get, so at least 0")
    return value


class Guard(Section):
    """How much worse than the baseline's a metric may get."""

    worse_by: Annotated[
        float | str, BeforeValidator(parse_allowance), AfterValidator(_not_negative)
    ]
    """In the metric's unit, or as a share of the baseline's value: `1%`."""

    def guardrail(self, metric: str, *, higher: bool) -> Guardrail:
        """The guardrail of `metric`, whose full name it is."""
        if isinstance(self.worse_by, str):
            return Guardrail(metric, float(self.worse_by.strip(" %")) / 100, True, higher)
        return Guardrail(metric, self.worse_by, False, higher)


def short_guard(value: Any) -> Any:
    """An allowance may stand alone in place of the section."""
    return {"worse_by": value} if isinstance(value, int | float | str) else value
