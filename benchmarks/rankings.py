"""How well small proxies rank mixtures as larger models do, mixtures of experts and dense ones.

    python -m benchmarks.rankings /tmp/rankings            # half an hour of two cores
    python -m benchmarks.rankings /tmp/rankings --mixtures 8 --tokens 50k --large-tokens 100k

Every mixture of the embedded corpus is trained by a small mixture of experts, by a dense model with
as many active parameters, and by a larger mixture of experts twice, with different seeds. Within an
arm all share the seed. What one run of the larger model says of the other is the ceiling.

Figures: Spearman correlation over mixtures with the mean of the larger model's two runs (for the
ceiling: of the two), of the objective's bits per byte, of their mean over the domains that are
trained on, and of each domain (the mean of these correlations); 90 % intervals of the mean's by a
bootstrap over mixtures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.embedded import corpus_in, drawn_mixtures
from mixopt.core.counts import parse_tokens
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.proxies.training import train

OBJECTIVE = "descriptions"  # never trained on
SMALL = ModelConfig(width=48, layers=2, heads=2, experts=4, experts_per_token=2, expert_width=64)
LARGE = ModelConfig(width=96, layers=4, heads=4, experts=8, experts_per_token=2, expert_width=96)
COHORT = 8
RESAMPLES = 2000


def main() -> None:
    """Train what is not trained yet, compare, print."""
    options = _arguments()
    corpus = corpus_in(options.folder / "corpus")
    small, large = parse_tokens(options.tokens), parse_tokens(options.large_tokens)
    dense = dataclasses.replace(
        SMALL.as_dense(), expert_width=SMALL.expert_width * SMALL.experts_per_token
    )
    arms = {
        "small": (SMALL, options.rate, small, 0),
        "dense": (dense, options.rate, small, 0),
        "large": (LARGE, options.large_rate, large, 0),
        "large again": (LARGE, options.large_rate, large, 1),
    }
    values = {name: _train(corpus, options, name, *arm) for name, arm in arms.items()}
    target = (values["large"] + values["large again"]) / 2
    for name in ("small", "dense"):
        shape = arms[name][0]
        _say(options.json, name, shape, corpus, values[name], target)
    _say(options.json, "large, once more", LARGE, corpus, values["large"], values["large again"])


def _train(
    corpus: Corpus,
    options: argparse.Namespace,
    name: str,
    model: ModelConfig,
    rate: float,
    tokens: int,
    seed: int,
) -> np.ndarray:
    """(mixtures, validation domains) bits per byte."""
    recipe = Recipe(
        learning_rate=rate, evaluations=1, evaluation_tokens=16_384, evaluation_share=None
    )
    rows = []
    mixtures = drawn_mixtures(corpus, options.mixtures)
    for first in range(0, len(mixtures), COHORT):
        some = tuple(mixtures[first : first + COHORT])
        job = Job(model, recipe, str(corpus.path), some, (seed,) * len(some), tokens)
        folder = options.folder / f"{name}-{tokens}-{first}"
        for outcome in train(job, folder, threads=options.threads, device="cpu"):
            if outcome.result is None:
                raise SystemExit(f"{name}: a proxy diverged")
            found = outcome.result.metrics
            rows.append([found[f"bpb/{domain}"] for domain in corpus.validation_domains])
    return np.array(rows)


def _say(
    as_json: bool,
    name: str,
    model: ModelConfig,
    corpus: Corpus,
    values: np.ndarray,
    target: np.ndarray,
) -> None:
    domains = corpus.validation_domains
    trained = [domains.index(domain) for domain in corpus.domains]
    means = values[:, trained].mean(1), target[:, trained].mean(1)
    low, high = _interval(*means)
    goal = domains.index(OBJECTIVE)
    row = {
        "arm": name,
        "active": model.active_params(),
        "total": model.total_params(),
        "objective": _rank(values[:, goal], target[:, goal]),
        "mean": _rank(*means),
        "low": low,
        "high": high,
        "each": round(float(np.mean([_rank(*p) for p in zip(values.T, target.T, strict=True)])), 3),
        "bpb": round(float(values[:, trained].mean()), 3),
    }
    text = "  ".join(f"{key} {value}" for key, value in row.items())
    print(json.dumps(row) if as_json else text, flush=True)


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    return round(float(spearmanr(a, b).statistic), 3)


def _interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(a), len(a)) for _ in range(RESAMPLES)]
    found = [_rank(a[rows], b[rows]) for rows in drawn if len(set(rows.tolist())) > 2]
    low, high = np.nanquantile(found, (0.05, 0.95))
    return round(float(low), 3), round(float(high), 3)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mixtures", type=int, default=16)
    parser.add_argument("--tokens", default="200k", help="of each small proxy")
    parser.add_argument("--large-tokens", default="400k", help="of each larger model")
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--large-rate", type=float, default=5e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
