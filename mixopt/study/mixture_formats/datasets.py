"""Arguments of `datasets.interleave_datasets` as JSON (datasets 5.2.0).

interleave_datasets([… one per name of "domains", in order], **values["interleave_datasets"])
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mixopt.study.mixture_formats.base import Blend, MixtureFormat


class InterleaveDatasets(MixtureFormat):
    """Probabilities of rows, in the order of `domains`.

    A row is drawn, not a token. Where rows have one length (tokenized and packed), probabilities
    of rows are the weights. Where a row is a document, a domain of long documents has to be drawn
    less often: `probabilities_of_documents` are weights over tokens per document, where a corpus
    knows its documents.
    """

    path_is = "what load_dataset reads the domain from"

    def text(self, blend: Blend) -> str:
        """The object, indented."""
        used = blend.used
        values: dict[str, Any] = {
            "study": blend.study,
            "candidate": blend.candidate,
            "budget_tokens": blend.budget,
            "domains": [d.name for d in used],
            "paths": [d.path_or_placeholder for d in used],
            "tokens": [d.tokens for d in used],
            "epochs": [d.epochs for d in used],
            "interleave_datasets": {
                "probabilities": [d.weight for d in used],
                "seed": blend.seed,
                # else the run would end with the first domain that was read once
                "stopping_strategy": "all_exhausted",
            },
        }
        drawn = [d.weight * d.documents / d.available for d in used if d.documents is not None]
        if len(drawn) == len(used):
            values["probabilities_of_documents"] = _normalised(drawn)
        return json.dumps(values, indent=2) + "\n"


def _normalised(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values]
