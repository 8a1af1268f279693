"""How much less two mixtures' difference scatters when both are trained with the same seeds.

    python -m benchmarks.common_random_numbers --folder FOLDER          # text of this machine
    python -m benchmarks.common_random_numbers --corpus CORPUS --seeds 24 --tokens 200k --json

Every mixture is trained with every seed, which names the initial weights and the order of each
domain's documents. The *ratio* is the variance of the difference of two mixtures with equal seeds
by that with independent ones: 1 where sharing seeds is worth nothing, 0 where it takes all noise
away. The 90 % intervals are from a bootstrap over seeds. The pairs are listed by their Hellinger
distance, because a search compares near mixtures as well as far ones.

Shapes: M mixtures, S seeds, q metrics.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.embedded import corpus_in, drawn_mixtures
from mixopt.core.counts import parse_tokens
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.proxies.training import train

NEAR = 0.1  # share of the uniform mixture in the one that stands for a neighbour of the natural
RESAMPLES = 2000


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    corpus = _corpus(arguments)
    mixtures = _mixtures(corpus, arguments.mixtures)
    start = time.perf_counter()
    metrics, values_MSq = _train_all(corpus, mixtures, arguments)
    seconds = time.perf_counter() - start

    def say(**row: Any) -> None:
        text = "  ".join(f"{key} {value}" for key, value in row.items())
        print(json.dumps(row) if arguments.json else text, flush=True)

    for q, metric in enumerate(metrics):
        say(metric=metric, **_pooled(values_MSq[:, :, q]))
    roots = {name: np.sqrt(mixture.array) for name, mixture in mixtures.items()}
    far = {
        (a, b): float(np.linalg.norm(roots[a] - roots[b]) / np.sqrt(2))
        for a, b in combinations(mixtures, 2)
    }
    names = list(mixtures)
    target_MS = values_MSq[:, :, metrics.index(arguments.objective)]
    for a, b in sorted(far, key=lambda pair: far[pair]):
        rows = target_MS[[names.index(a), names.index(b)]]
        say(pair=f"{a}, {b}", distance=round(far[a, b], 3), **_pooled(rows))
    say(
        runs=target_MS.size,
        tokens_each=arguments.tokens,
        corpus=corpus.hash[:12],
        minutes=round(seconds / 60, 1),
    )


def ratio(values_MS: np.ndarray) -> tuple[float, float]:
    """Deviation of one run around its mixture's mean, and the ratio of variances (see above).

    Two-way analysis of variance without replication: seeds move all mixtures (cancelled by sharing
    them) and each mixture by itself (left over).
    """
    own_MS = values_MS - values_MS.mean(1, keepdims=True)
    left_MS = own_MS - own_MS.mean(0)
    mixtures, seeds = values_MS.shape
    alone = float((own_MS**2).sum()) / (mixtures * (seeds - 1))
    paired = float((left_MS**2).sum()) / ((mixtures - 1) * (seeds - 1))
    return alone**0.5, paired / alone


def _pooled(values_MS: np.ndarray) -> dict[str, float]:
    """`ratio` with its interval, rounded."""
    std, share = ratio(values_MS)
    rng = np.random.default_rng(0)
    seeds = values_MS.shape[1]
    drawn = []
    for _ in range(RESAMPLES):
        picked = rng.integers(0, seeds, seeds)
        if len(set(picked.tolist())) > 2:
            drawn.append(ratio(values_MS[:, picked])[1])
    low, high = np.quantile(drawn, (0.05, 0.95))
    return {
        "std": round(std, 5),
        "ratio": round(share, 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }


def _corpus(arguments: argparse.Namespace) -> Corpus:
    if arguments.corpus:
        return Corpus.open(arguments.corpus)
    return corpus_in(Path(arguments.folder or tempfile.mkdtemp()))


def _mixtures(corpus: Corpus, count: int) -> dict[str, Mixture]:
    """The natural mixture, one near it, and a design's: uniform and `count` − 3 Dirichlet draws."""
    first, uniform, *drawn = drawn_mixtures(corpus, count - 1)
    near = (1 - NEAR) * corpus.natural.array + NEAR / len(corpus.domains)
    return {
        "natural": first,
        "near": Mixture.of(dict(zip(corpus.domains, near.tolist(), strict=True))),
        "uniform": uniform,
        **{f"drawn {i}": mixture for i, mixture in enumerate(drawn)},
    }


def _train_all(
    corpus: Corpus, mixtures: dict[str, Mixture], arguments: argparse.Namespace
) -> tuple[list[str], np.ndarray]:
    """Names of the metrics, and their values (M, S, q); the mean over training domains comes last.

    The mixtures of a seed train together as one cohort.
    """
    recipe = Recipe(
        precision=arguments.precision,
        evaluations=1,
        evaluation_tokens=parse_tokens(arguments.evaluation_tokens),
        checkpoint_seconds=float("inf"),
    )
    rows = []
    for seed in range(arguments.seeds):
        job = Job(
            ModelConfig(),
            recipe,
            str(corpus.path),
            tuple(mixtures.values()),
            (seed,) * len(mixtures),
            parse_tokens(arguments.tokens),
        )
        with tempfile.TemporaryDirectory() as folder:
            outcomes = train(job, Path(folder), threads=1, device="cpu")
        found = [outcome.result.metrics for outcome in outcomes if outcome.result]
        if len(found) < len(mixtures):
            raise SystemExit(f"a proxy of seed {seed} diverged")
        rows.append(found)
    metrics = [f"bpb/{name}" for name in corpus.validation_domains]
    values_SMq = np.array([[[m[name] for name in metrics] for m in row] for row in rows])
    trained = [metrics.index(f"bpb/{name}") for name in corpus.domains]
    mean_SM1 = values_SMq[:, :, trained].mean(2, keepdims=True)
    values_SMq = np.concatenate([values_SMq, mean_SM1], 2)
    return [*metrics, "mean"], values_SMq.transpose(1, 0, 2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="a finished corpus; without it, text of this machine")
    parser.add_argument("--folder", help="where that text's corpus is kept")
    parser.add_argument("--objective", default="bpb/descriptions", help="metric of the pairs")
    parser.add_argument("--mixtures", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--tokens", default="100k", help="of each run")
    parser.add_argument("--evaluation-tokens", default="16k", help="per validation domain")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
