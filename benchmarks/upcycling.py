"""Every upcycling method, dense continued training and a mixture from scratch, on one seed model.

    python -m benchmarks.upcycling /tmp/upcycling                   # hours of one core
    python -m benchmarks.upcycling /tmp/upcycling --tokens 20000 --seeds 1 --megabytes 0.6
    python -m benchmarks.upcycling /tmp/upcycling --equal compute --arm "dense, continued" --arm btx

For each of `--seeds`: a dense seed model on the natural mixture, a dense expert of every domain
branched from it, and then one training of `--tokens` tokens on the natural mixture per arm. Beside
equal tokens, arms are trained at equal compute: for as many tokens as cost what `btx` costs with
its domain experts; the mixture from scratch, which has no seed, gets the seed's compute as well.

Figures: bits per byte of each validation domain (mean and standard deviation over seeds) before the
training and after; the difference to the first arm with the same seed; the share of a domain's
tokens that go to the expert branched for it; the specialisation of each layer (mutual information
of expert and domain as a share of the domain's entropy: 0 is none, 1 says the domain); and seconds
of training. `--json` gives each run, with the load of every expert by layer and domain. Runs that
ended are read from the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.embedded import corpus_in
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import TRAINING_PER_FORWARD, Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.models.upcycling.method import Method
from mixopt.models.upcycling.states import DenseModels, upcycle_states
from mixopt.proxies.checkpoint import load_state, save_state
from mixopt.proxies.evaluation import evaluate, validation_windows
from mixopt.proxies.job import Job
from mixopt.proxies.training import train

DENSE = ModelConfig(width=64, layers=2, heads=2, experts=1, experts_per_token=1, expert_width=192)
SAMPLE = 4096  # tokens per domain: router starts, loads by layer, losses before the training
RECIPE = Recipe(
    sequence_length=128,
    batch_sequences=8,
    learning_rate=5e-3,
    evaluations=1,
    evaluation_tokens=8192,
    curve_tokens=1024,
    evaluation_share=None,
    precision="fp32",
    checkpoint_seconds=float("inf"),
)


@dataclass(frozen=True)
class Arm:
    """A way to a trained model. Experts are as many as there are domains, times `finer`.

    Attributes:
        name: of the row.
        method: of the upcycling; None is a dense model, or a mixture from scratch.
        finer: experts per domain; k grows alike.
        width: of an expert, as a share of the dense layer's.
        scratch: whether it begins with random weights.
    """

    name: str
    method: Method | None = None
    finer: int = 1
    width: float = 1.0
    scratch: bool = False

    def model(self, corpus: Corpus) -> ModelConfig:
        """The shape that is trained."""
        dense = dataclasses.replace(DENSE, vocab_size=corpus.vocab_size)
        if self.method is None and not self.scratch:
            return dense
        return dataclasses.replace(
            dense,
            experts=len(corpus.domains) * self.finer,
            experts_per_token=2 * self.finer,
            expert_width=round(dense.expert_width * self.width),
        )

    @property
    def branched(self) -> bool:
        """Whether it takes dense domain experts."""
        return self.method is not None and self.method.upcycler == "branch-train-mix"


def arms(domains: int) -> list[Arm]:
    """All of them, for so many domains."""
    btx, part = "branch-train-mix", 1 / domains
    return [
        Arm("dense, continued"),
        Arm("mixture from scratch", scratch=True),
        Arm("sparse", Method("sparse")),
        Arm("btx", Method(btx)),
        Arm("drop-upcycling, one set", Method("drop-upcycling")),
        Arm("drop-upcycling, three", Method("drop-upcycling", {"channels": "three"})),
        Arm("btx, ridge", Method(btx, router_start="ridge")),
        Arm("btx, domain-embedding", Method(btx, router_start="domain-embedding")),
        Arm("virtual-groups", Method("virtual-groups"), finer=2, width=0.5),
        Arm("btx, ties", Method(btx, merge="ties")),
        Arm("btx, dare", Method(btx, merge="dare")),
        Arm("llama-moe, random", Method("llama-moe"), width=part),
        Arm("llama-moe, k-means", Method("llama-moe", {"split": "k-means"}), width=part),
        Arm(
            "llama-moe, co-activation", Method("llama-moe", {"split": "co-activation"}), width=part
        ),
    ]


@dataclass(frozen=True)
class Run:
    """What one training gave.

    Attributes:
        arm: its name.
        equal: `tokens` or `compute`.
        seed: of the run.
        tokens: that it was trained on, without the seed model and the domain experts.
        before: bits per byte of each domain before it; empty for random weights.
        after: bits per byte after it.
        loads: layer → domain → share of assignments per expert; empty for a dense model.
        matching: share of assignments of a domain's tokens to its expert, mean over domains; None
            where no expert was branched for a domain.
        specialisation: per layer.
        seconds: of training.
    """

    arm: str
    equal: str
    seed: int
    tokens: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    loads: Sequence[Mapping[str, Sequence[float]]]
    matching: float | None
    specialisation: Sequence[float]
    seconds: float


@dataclass(frozen=True)
class Bench:
    """What all arms share."""

    corpus: Corpus
    folder: Path
    tokens: int
    expert_tokens: int
    seed_tokens: int

    def trained(
        self,
        name: str,
        model: ModelConfig,
        mixture: Mixture,
        tokens: int,
        seed: int,
        start: Path | None,
    ) -> Path:
        """The folder of a training that has ended."""
        folder = self.folder / f"{seed}-{name}-{tokens}".replace(" ", "-").replace(",", "")
        if not (folder / "result.json").exists():
            initial = None if start is None else str(start)
            job = Job(
                model, RECIPE, str(self.corpus.path), (mixture,), (seed,), tokens, initial=initial
            )
            (outcome,) = train(job, folder, threads=1, keep_weights=True, device="cpu")
            if outcome.result is None:
                raise SystemExit(f"{name}: {outcome.message}")
            files.write_json(folder / "result.json", outcome.result.to_json())
        return folder

    def dense(self, seed: int) -> tuple[Path, dict[str, Path]]:
        """Weights of the seed model, and of the expert of each domain."""
        shape = dataclasses.replace(DENSE, vocab_size=self.corpus.vocab_size)
        natural = self.corpus.natural
        weights = "model.safetensors"
        start = self.trained("seed", shape, natural, self.seed_tokens, seed, None) / weights
        experts = {}
        for domain in self.corpus.domains:
            alone = Mixture.exact({d: float(d == domain) for d in self.corpus.domains})
            name = f"expert {domain}"
            experts[domain] = (
                self.trained(name, shape, alone, self.expert_tokens, seed, start) / weights
            )
        return start, experts

    def flops(self, model: ModelConfig, tokens: int) -> float:
        """Of a training."""
        return TRAINING_PER_FORWARD * model.flops_per_token(RECIPE.sequence_length) * tokens

    def same_compute(self, arm: Arm) -> int:
        """Tokens of `arm` that cost what `btx` costs, domain experts included."""
        btx = next(a for a in arms(len(self.corpus.domains)) if a.name == "btx")
        shape = dataclasses.replace(DENSE, vocab_size=self.corpus.vocab_size)
        experts = self.flops(shape, self.expert_tokens * len(self.corpus.domains))
        budget = self.flops(btx.model(self.corpus), self.tokens)
        if not arm.branched:
            budget += experts
        if arm.scratch:
            budget += self.flops(shape, self.seed_tokens)
        return round(budget / self.flops(arm.model(self.corpus), 1))

    def run(self, arm: Arm, equal: str, seed: int) -> Run:
        """Upcycle and train."""
        start, experts = self.dense(seed)
        model, natural = arm.model(self.corpus), self.corpus.natural
        tokens = self.tokens if equal == "tokens" else self.same_compute(arm)
        initial: Path | None = None if arm.scratch else start
        if arm.method is not None:
            initial = self._upcycled(arm, arm.method, model, seed, start, experts)
        folder = self.trained(arm.name, model, natural, tokens, seed, initial)
        result = json.loads((folder / "result.json").read_text())
        loads = self._loads(model, folder / "model.safetensors")
        names = self.corpus.domains
        own = [
            layer[domain][names.index(domain)]
            for layer in loads
            for domain in names
            if domain in layer
        ]
        return Run(
            arm=arm.name,
            equal=equal,
            seed=seed,
            tokens=tokens,
            before={} if initial is None else self._scores(model, initial),
            after={d: result["metrics"][f"bpb/{d}"] for d in self.corpus.validation_domains},
            loads=loads,
            matching=statistics.fmean(own) if arm.branched else None,
            specialisation=[specialisation(layer) for layer in loads],
            seconds=result["cost"]["device_seconds"],
        )

    def _upcycled(
        self,
        arm: Arm,
        method: Method,
        model: ModelConfig,
        seed: int,
        start: Path,
        experts: Mapping[str, Path],
    ) -> Path:
        path = self.folder / f"{seed}-{arm.name}.safetensors".replace(" ", "-").replace(",", "")
        if not path.exists():
            states = {name: load_state(each)[0] for name, each in experts.items()}
            shape = dataclasses.replace(DENSE, vocab_size=self.corpus.vocab_size)
            models = DenseModels(load_state(start)[0], states if arm.branched else {}, shape)
            samples = {d: self._windows(self.corpus.train(d), d) for d in self.corpus.domains}
            state, _ = upcycle_states(method, models, model, seed, None, samples)
            save_state(path, state)
        return path

    def _windows(self, stream: np.ndarray, domain: str) -> np.ndarray:
        return validation_windows(stream, SAMPLE, RECIPE.sequence_length, domain)[:, :-1]

    def _scores(self, model: ModelConfig, weights: Path) -> dict[str, float]:
        made = Transformer(model)
        made.load_proxy_state(load_state(weights)[0])
        domains = self.corpus.validation_domains
        (found,) = evaluate(made, self.corpus, domains, SAMPLE, RECIPE.sequence_length)
        return {domain: found.metrics[f"bpb/{domain}"] for domain in domains}

    @torch.no_grad()
    def _loads(self, model: ModelConfig, weights: Path) -> list[dict[str, list[float]]]:
        if model.dense:
            return []
        made = Transformer(model).eval()
        made.load_proxy_state(load_state(weights)[0])
        found: list[dict[str, list[float]]] = [{} for _ in range(model.layers)]
        for domain in self.corpus.validation_domains:
            ids = torch.from_numpy(self._windows(self.corpus.validation(domain), domain))
            for layer, routing in zip(found, made.trunk(ids.unsqueeze(0))[1], strict=True):
                counts_E = routing.counts_KE[0]
                layer[domain] = (counts_E / counts_E.sum()).tolist()
        return found


def specialisation(loads: Mapping[str, Sequence[float]]) -> float:
    """Mutual information of expert and domain, as a share of the domain's entropy."""
    joint_DE = np.array(list(loads.values())) / len(loads)
    apart_DE = joint_DE.sum(1, keepdims=True) * joint_DE.sum(0, keepdims=True)
    there = joint_DE > 0
    information = (joint_DE[there] * np.log(joint_DE[there] / apart_DE[there])).sum()
    return float(information / np.log(len(loads)))


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=400_000, help="of each arm's training")
    parser.add_argument("--seed-tokens", type=int, help="of the dense seed model; as --tokens")
    parser.add_argument("--expert-tokens", type=int, help="of each domain expert; a quarter of it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=3.0, help="of text per domain")
    parser.add_argument("--equal", choices=("tokens", "compute", "both"), default="both")
    parser.add_argument("--arm", action="append", help="this one alone; may be given again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    corpus = corpus_in(options.folder / "corpus", options.megabytes, 1024)
    expert_tokens = options.expert_tokens or options.tokens // 4
    seed_tokens = options.seed_tokens or options.tokens
    folder = options.folder / f"{seed_tokens}-{expert_tokens}-{options.tokens}"
    bench = Bench(corpus, folder, options.tokens, expert_tokens, seed_tokens)
    for equal in ("tokens", "compute") if options.equal == "both" else (options.equal,):
        if not options.json:
            print(heading(equal, corpus.validation_domains), flush=True)
        first: list[Run] = []
        for arm in arms(len(corpus.domains)):
            if options.arm and arm.name not in options.arm:
                continue
            runs = [bench.run(arm, equal, seed) for seed in range(options.seeds)]
            first = first or runs
            if options.json:
                print("\n".join(json.dumps(asdict(run)) for run in runs), flush=True)
            else:
                print(row(runs, first), flush=True)


def heading(equal: str, domains: Sequence[str]) -> str:
    """Of a table."""
    columns = ["mean before", "after", "difference", *domains]
    columns += ["matching", "specialisation", "tokens", "s"]
    return f"\nAt equal {equal}, bits per byte\n\n| arm | {' | '.join(columns)} |\n" + (
        "|---|" + "---:|" * len(columns)
    )


def row(runs: Sequence[Run], first: Sequence[Run]) -> str:
    """Of an arm, beside those of the first: means over seeds ± standard deviations."""
    after = [statistics.fmean(run.after.values()) for run in runs]
    before = [statistics.fmean(run.before.values()) for run in runs if run.before]
    differences = [
        mean - statistics.fmean(run.after.values()) for mean, run in zip(after, first, strict=True)
    ]
    cells = [
        f"{statistics.fmean(before):.3f}" if before else "",
        with_scatter(after),
        with_scatter(differences, "+"),
        *(with_scatter([run.after[domain] for run in runs]) for domain in runs[0].after),
    ]
    matching = [run.matching for run in runs if run.matching is not None]
    cells.append(f"{statistics.fmean(matching):.0%}" if matching else "")
    layers = zip(*(run.specialisation for run in runs), strict=True)
    cells.append(" ".join(f"{statistics.fmean(layer):.2f}" for layer in layers))
    cells += [f"{runs[0].tokens:,}", f"{statistics.fmean(run.seconds for run in runs):.0f}"]
    return f"| {runs[0].arm} | {' | '.join(cells)} |"


def with_scatter(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.3f}{deviation}"


if __name__ == "__main__":
    main()
