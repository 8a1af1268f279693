"""The model card of an exported model: what it is, what it was trained on, what it cannot do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixopt.core.formatting import count
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.pipelines.views.wording import duration

if TYPE_CHECKING:
    from mixopt.models.config import ModelConfig
    from mixopt.models.upcycling.receipt import Receipt
    from mixopt.study.results import Promotion

HEADER = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- mixopt
- mixture-of-experts
- mixtral
---
"""
USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this folder")
model = AutoModelForCausalLM.from_pretrained("this folder")
ids = tokenizer("A text to go on with", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))
```
"""


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from.

    Attributes:
        study: name of the study.
        study_id: id of its folder.
        corpus_hash: of all that a training could see.
        mixopt: version that trained it.
        exported_by: version that exported it.
    """

    study: str
    study_id: str
    corpus_hash: str
    mixopt: str
    exported_by: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        return dataclasses.asdict(self)


def model_card(
    promotion: Promotion,
    chosen: str,
    lineage: Lineage,
    config: ModelConfig,
    available: Mapping[str, int],
) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads.

    Args:
        promotion: what was measured.
        chosen: how its mixture was chosen, a sentence.
        lineage: where the model comes from.
        config: shape of the model.
        available: domain → training tokens of the corpus.
    """
    size, active = count(promotion.model_params), count(promotion.active_params)
    about = (
        f"A language model of {config.experts} experts a layer, {config.experts_per_token} of them "
        f"for each token: {size} parameters, {active} of them active, embeddings not counted. "
        f"Upcycled from dense models by {verbatim(promotion.method)} and trained on the mixture "
        f"`{promotion.mixture_name}` by the mixopt study {verbatim(lineage.study)}."
    )
    sections = [
        f"# {verbatim(lineage.study)}\n\n{about}\n\n{USE}",
        f"## Mixture\n\n{_mixture(promotion, available)}\n\n{verbatim(chosen)}\n",
        f"## Losses\n\n{_losses(promotion)}\n",
        f"## Training\n\n{_stages(promotion)}\n",
        f"## Upcycling\n\n{_receipt(promotion.receipt)}\n",
        f"## Limits\n\n{_limits(promotion)}\n",
        f"## Lineage\n\n{_lineage(promotion, lineage)}\n",
    ]
    return HEADER + "\n" + "\n".join(sections)


def _mixture(promotion: Promotion, available: Mapping[str, int]) -> str:
    total = promotion.stages[-1].tokens
    rows = []
    for domain, weight in sorted(promotion.mixture.as_dict().items(), key=lambda pair: -pair[1]):
        tokens, there = weight * total, available.get(domain, 0)
        epochs = f"{tokens / there:.2g}" if there else "–"
        rows.append([verbatim(domain), f"{weight:.3f}", count(tokens), count(there), epochs])
    note = f"Tokens of the last stage, {count(total)} in all; the stages before it are below."
    return _table(["domain", "weight", "tokens", "in the corpus", "epochs"], rows) + "\n\n" + note


def _losses(promotion: Promotion) -> str:
    rows = [
        [verbatim(name), *(_cell(at.get(name)) for at in _moments(promotion))]
        for name in promotion.after
        if name.startswith(("bpb/", "task/", "accuracy/"))
    ]
    return (
        _table(["metric", "dense seed", "upcycled, untrained", "trained"], rows)
        + "\n\n`bpb/`: bits per byte on held-out text of a domain, lower is better. One training, "
        "one seed."
    )


def _moments(promotion: Promotion) -> Sequence[Mapping[str, float]]:
    return promotion.seed, promotion.before, promotion.after


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _stages(promotion: Promotion) -> str:
    rows = [
        [verbatim(stage.name), stage.kind, count(stage.tokens), duration(stage.device_seconds)]
        for stage in promotion.stages
    ]
    return _table(["stage", "kind", "tokens", "device time"], rows)


def _receipt(receipt: Receipt) -> str:
    kept = "yes" if receipt.preserves_function else "no"
    lines = [
        f"Method: {verbatim(receipt.method)}; experts from "
        f"{', '.join(map(verbatim, receipt.experts))}.",
        f"Hidden channels that a source model holds unchanged: {receipt.channels_kept:.0%}.",
        f"The method leaves the seed's logits as they are: {kept}.",
    ]
    if receipt.merge:
        lines.append(f"What is no expert: merged by {verbatim(receipt.merge)}.")
    if receipt.logit_difference is not None:
        lines.append(f"Largest change of a logit by it: {receipt.logit_difference:.3g}.")
    if receipt.dead_experts:
        lines.append(f"Experts that no sample reached: {', '.join(receipt.dead_experts)}.")
    lines += [f"{verbatim(note)}." for note in receipt.notes]
    lines.append("All fields: `upcycling.json`.")
    return "\n".join(f"- {line}" for line in lines)


def _limits(promotion: Promotion) -> str:
    length = promotion.sequence_length
    lines = [
        f"Trained on sequences of {length} tokens: positions beyond were never seen.",
        "A base model: it continues text, and follows no instructions.",
        "Losses are on text held out of the same corpus. Nothing else was measured: no safety, "
        "no bias, no text from elsewhere.",
        "The licences of the texts are those of the corpus; this card does not know them.",
        "llama.cpp's converter knows tokenizers by a list; one that mixopt trained is not on it.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _lineage(promotion: Promotion, lineage: Lineage) -> str:
    rows = [
        ["study", f"{verbatim(lineage.study)} (`{lineage.study_id}`)"],
        ["promotion", f"`{promotion.id}`, {promotion.finished}"],
        ["corpus", f"`{lineage.corpus_hash}`"],
        ["trained by", f"mixopt {lineage.mixopt}"],
        ["exported by", f"mixopt {lineage.exported_by}"],
    ]
    return _table(["what", "which"], rows) + "\n\nThe same for tools: `mixopt.json`."


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
