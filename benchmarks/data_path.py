"""Tokens per second of the data path alone, against those of the training that it feeds.

    python -m benchmarks.data_path                       # 6 and 100 domains, cohorts of 1, 4, 32
    python -m benchmarks.data_path --train 1,4 --threads 2 --json

A corpus of made-up tokens is written to a temporary folder: what is timed is the order, the counts
and the copies of the batches, from pages that are in memory. A first row of a proxy's worth of
steps counts everything, opening the corpus and planning included. `--train` also runs the step loop
of a training (4 layers of width 128, 8 experts, 256 x 8 tokens a step) on the same corpus, for the
cohorts named, and gives how many times faster the data path is.

Shapes: K proxies, m domains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.batches import Batches, CohortBatches
from mixopt.corpus.manifest import DomainRecord, Manifest, Shard, TokenizerRecord, file_sha256
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.proxies.job import Job
from mixopt.proxies.training import Progress, train

VOCABULARY = 4096
LENGTH, SEQUENCES = 256, 8
MODEL = ModelConfig(width=128, layers=4, heads=4, experts=8, expert_width=256)


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)

    def say(**row: Any) -> None:
        text = "  ".join(f"{key} {value}" for key, value in row.items())
        print(json.dumps(row) if arguments.json else text, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus", max(arguments.domains), arguments.tokens)
        rates = {k: _training_rate(corpus, k, arguments) for k in arguments.train}
        for cohort, rate in rates.items():
            say(what="training", K=cohort, threads=arguments.threads, tokens_per_second=round(rate))
        for cohort in arguments.cohorts:
            for domains in arguments.domains:
                speeds = [
                    _data_rate(corpus, cohort, domains, arguments.steps)
                    for _ in range(arguments.repeats)
                ]
                speed = statistics.median(speeds)
                row = {"what": "data", "K": cohort, "m": domains, "tokens_per_second": round(speed)}
                if rates:  # of a cohort that was not trained, the fastest training counts
                    rate = rates.get(cohort, max(rates.values()))
                    row["times_training"] = round(speed / rate)
                say(**row)


def write_corpus(folder: Path, domains: int, tokens: int) -> Corpus:
    """`domains` domains of `tokens` random training tokens each."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    np.save(folder / "bytes.npy", np.full(VOCABULARY, 3.0))
    rng = np.random.default_rng(0)
    records = {}
    for number in range(domains):
        shards = []
        for split, count in (("train", tokens), ("validation", 4 * LENGTH)):
            path = folder / f"d{number}.{split}.bin"
            path.write_bytes(rng.integers(1, VOCABULARY, count).astype(np.uint16).tobytes())
            shards.append(Shard(path.name, count, 1, 3 * count, file_sha256(path)))
        records[f"d{number}"] = DomainRecord(
            "train", "tokens", 1, *shards, 0, 0, "exact", "", "", ""
        )
    tokenizer = TokenizerRecord(
        path="tokenizer.json",
        bytes_path="bytes.npy",
        hash=file_sha256(folder / "tokenizer.json"),
        key="",
        vocab_size=VOCABULARY,
        end_of_text="<end>",
        end_of_text_id=0,
    )
    Manifest(tokenizer, records, validation=0.01, dtype="uint16").write(folder)
    return Corpus.open(folder)


def _mixtures(corpus: Corpus, cohort: int, domains: int) -> list[Mixture]:
    weights = np.random.default_rng(0).dirichlet(np.ones(domains), cohort)
    names = corpus.domains[:domains]
    return [Mixture.of(dict(zip(names, row, strict=True))) for row in weights.tolist()]


def _data_rate(corpus: Corpus, cohort: int, domains: int, steps: int) -> float:
    """Tokens per second from a closed corpus to the last batch of all proxies."""
    mixtures = _mixtures(corpus, cohort, domains)
    start = time.perf_counter()
    opened = Corpus.open(corpus.path)
    batches = CohortBatches(
        [Batches(opened, mixture, 0, SEQUENCES, LENGTH) for mixture in mixtures]
    )
    for step in range(steps):
        batches.at(step)
    return cohort * SEQUENCES * LENGTH * steps / (time.perf_counter() - start)


def _training_rate(corpus: Corpus, cohort: int, arguments: argparse.Namespace) -> float:
    """Tokens per second of the step loop, the median of its reports after the first."""
    recipe = Recipe(
        sequence_length=LENGTH,
        batch_sequences=SEQUENCES,
        precision=arguments.precision,
        evaluations=1,
        evaluation_tokens=LENGTH,
        checkpoint_seconds=float("inf"),
        compile="always",  # where there is a GPU
    )
    steps = max(8, arguments.train_steps // cohort)
    mixtures = tuple(_mixtures(corpus, cohort, len(corpus.domains)))
    job = Job(
        MODEL, recipe, str(corpus.path), mixtures, (0,) * cohort, steps * recipe.tokens_per_step
    )
    speeds: list[float] = []

    def note(progress: Progress) -> None:
        if progress.phase == "training":
            speeds.append(progress.tokens_per_second)

    with tempfile.TemporaryDirectory() as folder:
        train(job, Path(folder), note, arguments.threads, device=arguments.device)
    return statistics.median(speeds[1:] or speeds)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=_numbers, default=[1, 4, 32], help="K, by commas")
    parser.add_argument("--domains", type=_numbers, default=[6, 100], help="m, by commas")
    parser.add_argument("--tokens", type=int, default=200_000, help="of each domain")
    parser.add_argument("--steps", type=int, default=300, help="600k tokens of a proxy")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--train", type=_numbers, default=[], help="cohorts to train, by commas")
    parser.add_argument("--train-steps", type=int, default=60, help="shared by a cohort")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the training; cpu or cuda")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
