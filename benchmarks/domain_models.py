"""What models of single domains predict of models trained on mixtures: MixMin, merging.

    python -m benchmarks.domain_models /tmp/domains                  # 5 minutes of one core
    python -m benchmarks.domain_models /tmp/domains --tokens 200000 --json

One proxy per domain of the demo's corpus and `--mixtures` proxies on Dirichlet(1) mixtures of them,
alike in all else: twice, from random weights that all share (`scratch`), and from a seed model
trained on the natural mixture before, for a third of the tokens (`seed`). From the domains' proxies
alone the others' losses are predicted by

ensemble  the mean of their probabilities, weighted by the mixture (MixMin, 2502.10510)
average   one model whose parameters are their weighted mean (modular merging, 2410.15661)
linear    the weighted mean of their losses

Figures: `predicted` less `trained` bits per byte (mean over validation domains and mixtures), the
Spearman correlation over mixtures of each domain's loss (mean over domains) and of their mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.embedded import corpus_in
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io import token_losses
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies.checkpoint import load_state
from mixopt.proxies.evaluation import evaluate
from mixopt.proxies.job import Job
from mixopt.proxies.training import train

MODEL = ModelConfig(width=64, layers=2, heads=2, experts=4, experts_per_token=2, expert_width=64)
RECIPE = Recipe(
    sequence_length=64,
    batch_sequences=16,
    evaluations=1,
    evaluation_tokens=8192,
    curve_tokens=1024,
    precision="fp32",
    checkpoint_seconds=float("inf"),
)


@dataclass(frozen=True)
class Row:
    """How one method predicted the losses of the models trained on mixtures."""

    start: str
    method: str
    trained: float
    predicted: float
    each: float
    mean: float


def main() -> None:
    """Train, predict and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=50_000, help="of each proxy, and of the seed")
    parser.add_argument("--mixtures", type=int, default=16)
    parser.add_argument("--megabytes", type=float, default=0.6, help="of text per domain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    corpus = corpus_in(options.folder / "corpus", options.megabytes, 1024)
    k = len(corpus.domains)
    drawn = np.random.default_rng(options.seed).dirichlet(np.ones(k), options.mixtures)
    weights = np.concatenate([np.eye(k), drawn])
    seed_model = options.folder / f"{options.seed}-{options.tokens}"
    base = Job(MODEL, RECIPE, str(corpus.path), (corpus.natural,), (options.seed,), options.tokens)
    train(base, seed_model, threads=1, keep_weights=True, device="cpu")
    rows = []
    for start in ("scratch", "seed"):
        job = dataclasses.replace(
            base,
            mixtures=tuple(Mixture.from_array(corpus.domains, w) for w in weights),
            seeds=(options.seed,) * len(weights),
            tokens=options.tokens if start == "scratch" else options.tokens // 3,
            initial=None if start == "scratch" else str(seed_model / "model.safetensors"),
        )
        rows += _compare(start, job, corpus, weights, options.folder / f"{start}-{options.tokens}")
    for row in rows:
        if options.json:
            print(json.dumps(asdict(row)))
        else:
            print(
                f"{row.start:8} {row.method:9} {row.predicted - row.trained:+.3f} bits per byte   "
                f"Spearman {row.each:.2f} of each loss, {row.mean:.2f} of their mean"
            )


def _compare(start: str, job: Job, corpus: Corpus, weights: np.ndarray, folder: Path) -> list[Row]:
    domains = corpus.validation_domains
    outcomes = train(job, folder, threads=1, keep_weights=True, keep_tokens=domains, device="cpu")
    results = [o.result for o in outcomes if o.result is not None]
    bpb = np.array([[r.metrics[f"bpb/{d}"] for d in domains] for r in results])
    if len(bpb) != len(weights):
        raise SystemExit("a proxy diverged")
    k = weights.shape[1]
    kept = [token_losses.read(folder / f"tokens-{i}.npz") for i in range(k)]
    states = [load_state(folder / f"model-{i}.safetensors")[0] for i in range(k)]
    ensemble = np.empty_like(bpb[k:])
    for j, domain in enumerate(domains):
        nats = np.stack([own[f"loss/{domain}"] for own in kept]).astype(float)
        unit = bpb[0, j] / nats[0].mean()
        ensemble[:, j] = -np.log(weights[k:] @ np.exp(-nats)).mean(axis=1) * unit
    average = np.array([_bpb(_average(states, w), job, corpus) for w in weights[k:]])
    predicted = {"ensemble": ensemble, "average": average, "linear": weights[k:] @ bpb[:k]}
    return [_row(start, method, values, bpb[k:]) for method, values in predicted.items()]


def _average(states: list[dict[str, Tensor]], weights: np.ndarray) -> dict[str, Tensor]:
    pairs = list(zip(weights.tolist(), states, strict=True))
    return {name: sum(w * s[name].double() for w, s in pairs).float() for name in states[0]}


def _bpb(state: dict[str, Tensor], job: Job, corpus: Corpus) -> list[float]:
    model = Transformer(dataclasses.replace(job.model, vocab_size=corpus.vocab_size))
    model.load_proxy_state(state, 0)
    domains, recipe = corpus.validation_domains, job.recipe
    (found,) = evaluate(model, corpus, domains, recipe.evaluation_tokens, recipe.sequence_length)
    return [found.metrics[f"bpb/{domain}"] for domain in domains]


def _row(start: str, method: str, predicted: np.ndarray, trained: np.ndarray) -> Row:
    each = [spearmanr(a, b).statistic for a, b in zip(predicted.T, trained.T, strict=True)]
    mean = spearmanr(predicted.mean(axis=1), trained.mean(axis=1)).statistic
    return Row(
        start,
        method,
        float(trained.mean()),
        float(predicted.mean()),
        float(np.mean(each)),
        float(mean),
    )


if __name__ == "__main__":
    main()
