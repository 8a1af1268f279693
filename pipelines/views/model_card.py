"""The model card of an exported model: what it is, what it was trained on, what it cannot do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixopt.core.formatting import count, duration
from mixopt.pipelines.views.verbatim import verbatim
from mixopt.pipelines.views.wording import UNTRAINED, made_by, moments

if TYPE_CHECKING:
    from mixopt.models.upcycling.receipt import Receipt
    from mixopt.study.results import Promotion

HEADER = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- mixopt
- mixture-of-experts
- {family}
---
"""
PLAIN_HEADER = """\
---
tags:
- mixopt
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
        mixopt: version that made it.
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


@dataclass(frozen=True)
class Layout:
    """What the exported model is to other tools.

    Attributes:
        family: `model_type` of its config.
        experts: of each block.
        experts_per_token: of them, those that a token reaches.
        positions: longest sequence that it was made for, in tokens.
    """

    family: str
    experts: int
    experts_per_token: int
    positions: int


def model_card(
    promotion: Promotion,
    chosen: str,
    lineage: Lineage,
    layout: Layout | None,
    available: Mapping[str, int],
) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads.

    Args:
        promotion: what was measured.
        chosen: how its mixture was chosen, a sentence.
        lineage: where the model comes from.
        layout: of the model; None of a checkpoint of the user's own trainer.
        available: domain → training tokens of the corpus.
    """
    sections = [
        _about(promotion, lineage, layout),
        f"## Mixture\n\n{_mixture(promotion, available)}\n\n{verbatim(chosen)}\n",
        f"## {'Losses' if layout else 'Metrics'}\n\n{_losses(promotion)}\n",
        f"## Training\n\n{_stages(promotion)}\n",
    ]
    if promotion.receipt is not None:
        sections.append(f"## Upcycling\n\n{_receipt(promotion.receipt)}\n")
    sections += [
        f"## Limits\n\n{_limits(promotion, layout)}\n",
        f"## Lineage\n\n{_lineage(promotion, lineage)}\n",
    ]
    header = PLAIN_HEADER if layout is None else HEADER.format(family=layout.family)
    return header + "\n" + "\n".join(sections)


def _about(promotion: Promotion, lineage: Lineage, layout: Layout | None) -> str:
    """What the model is, and how it is loaded, where that is known."""
    title = f"# {verbatim(lineage.study)}"
    if layout is None:
        files = (
            "The files are the trainer's checkpoint as it wrote them; it knows how they are loaded."
        )
        if promotion.checkpoint:
            files = f"Its checkpoint is `{promotion.checkpoint}`; no weights are here."
        return (
            f"{title}\n\n{made_by(promotion)}, on the mixture `{promotion.mixture_name}` of the "
            f"mixopt study {verbatim(lineage.study)}. {files}\n"
        )
    assert promotion.model_params is not None
    assert promotion.active_params is not None
    size, active = count(promotion.model_params), count(promotion.active_params)
    about = (
        f"A language model of {layout.experts} experts a layer, {layout.experts_per_token} of them "
        f"for each token: {size} parameters, {active} of them active, embeddings not counted. "
        f"Upcycled from dense models by {verbatim(promotion.method)} "
        f"{_use(promotion)} by the mixopt study {verbatim(lineage.study)}."
    )
    return f"{title}\n\n{about}\n\n{USE}"


def _use(promotion: Promotion) -> str:
    if promotion.trained:
        return f"and trained on the mixture `{promotion.mixture_name}`"
    return f"for training on the mixture `{promotion.mixture_name}`, which has not begun,"


def _mixture(promotion: Promotion, available: Mapping[str, int]) -> str:
    if not promotion.trained:
        rows = [
            [verbatim(d), f"{w:.3f}", count(available.get(d, 0))] for d, w in _largest(promotion)
        ]
        return _table(["domain", "weight", "in the corpus"], rows)
    total = promotion.stages[-1].tokens
    rows = []
    for domain, weight in _largest(promotion):
        tokens, there = weight * total, available.get(domain, 0)
        epochs = f"{tokens / there:.2g}" if there else "–"
        rows.append([verbatim(domain), f"{weight:.3f}", count(tokens), count(there), epochs])
    note = f"{count(total)} tokens in all."
    if promotion.receipt is not None:
        note = f"Tokens of the last stage, {count(total)} in all; the stages before it are below."
    held = "in the corpus" if promotion.receipt is not None else "there are"
    return _table(["domain", "weight", "tokens", held, "epochs"], rows) + "\n\n" + note


def _largest(promotion: Promotion) -> list[tuple[str, float]]:
    """Domains and weights, the largest first."""
    return sorted(promotion.mixture.as_dict().items(), key=lambda pair: -pair[1])


def _losses(promotion: Promotion) -> str:
    shown = moments(promotion)
    rows = [
        [verbatim(name), *(_cell(values.get(name)) for _, values in shown)]
        for name in promotion.metrics
        if not promotion.upcycled or name.startswith(("bpb/", "task/", "accuracy/"))
    ]
    notes = []
    if promotion.upcycled:
        notes.append("`bpb/`: bits per byte on held-out text of a domain, lower is better.")
    else:
        ours = "" if promotion.receipt is None else "; what came before, as mixopt measured it"
        notes.append(f"As the trainer measured them{ours}.")
    if promotion.trained:
        notes.append("One training, one seed.")
    table = _table(["metric", *(label for label, _ in shown)], rows)
    return f"{table}\n\n{' '.join(notes)}"


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _stages(promotion: Promotion) -> str:
    named = ", ".join(f"{verbatim(n)} from {verbatim(m)}" for n, m in promotion.imported.items())
    imported = f"Imported: {named}." if named else ""
    if not promotion.trained:
        return f"{UNTRAINED}\n\n{imported}"
    rows = [
        [verbatim(stage.name), stage.kind, count(stage.tokens), duration(stage.device_seconds)]
        for stage in promotion.stages
    ]
    table = _table(["stage", "kind", "tokens", "device time"], rows)
    return f"{table}\n\n{imported}" if imported else table


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


def _limits(promotion: Promotion, layout: Layout | None) -> str:
    if layout is None:
        return (
            "- What the trainer measured is above. mixopt evaluated nothing itself.\n"
            "- The licences of the data are theirs; this card does not know them."
        )
    lines = [
        "Losses are on text held out of the same corpus. Nothing else was measured: no safety, "
        "no bias, no text from elsewhere.",
        "The licences of the texts are those of the corpus; this card does not know them.",
    ]
    if promotion.trained:
        lines = [
            f"Trained on sequences of {layout.positions} tokens: positions beyond were never seen.",
            "A base model: it continues text, and follows no instructions.",
            *lines,
        ]
    else:
        lines = ["Its experts and routers have not been trained together.", *lines]
    if promotion.imported:
        lines.append(
            "The licence of the imported models holds for this one; this card does not know it."
        )
    else:
        lines.append(
            "llama.cpp's converter knows tokenizers by a list; one that mixopt trained is not on "
            "it."
        )
    return "\n".join(f"- {line}" for line in lines)


def _lineage(promotion: Promotion, lineage: Lineage) -> str:
    rows = [
        ["study", f"{verbatim(lineage.study)} (`{lineage.study_id}`)"],
        ["promotion", f"`{promotion.id}`, {promotion.finished}"],
        ["corpus", f"`{lineage.corpus_hash}`"],
        [_role(promotion), f"mixopt {lineage.mixopt}"],
        ["exported by", f"mixopt {lineage.exported_by}"],
    ]
    return _table(["what", "which"], rows) + "\n\nThe same for tools: `mixopt.json`."


def _role(promotion: Promotion) -> str:
    """What mixopt did for the model."""
    if promotion.by_trainer and promotion.receipt is not None:
        return "upcycled by"
    if promotion.checkpoint:
        return "mixture chosen by"
    if not promotion.upcycled:
        return "trainer started by"
    return "trained by" if promotion.trained else "upcycled by"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
