"""What each router costs in training, against softmax top-k of the same shape.

    python benchmarks/routers.py                           # 4 layers of width 128, 8 experts
    python benchmarks/routers.py --routers softmax remoe --rounds 15
    python benchmarks/routers.py --routers remoe top-p --warmup 150 --json routers.json

Every round trains all routers for a few steps, one after the other; a router's cost is the median
over rounds of its time against softmax's in the same round. On a CPU the time is that of the
process's own threads, so that a busy machine disturbs little; on a GPU it is the clock's. Routers
that let the number of experts vary start with more of them (ReMoE with half of all): `--warmup`
steps bring them to where they stay, and the column `experts` says how many a token reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.routers import ROUTERS
from mixopt.models.transformer import Transformer
from mixopt.proxies.captured import make_step
from mixopt.proxies.optimizer import CohortOptimizer
from mixopt.proxies.precision import DTYPES

# a training that reads ahead must be asked for
SETTINGS: dict[str, dict[str, Any]] = {"expert-choice": {"ablation": True}}


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    names = list(dict.fromkeys(["softmax", *(arguments.routers or sorted(ROUTERS))]))
    configs = {name: _config(name) for name in names}
    trainings = {name: _Training(configs[name], arguments, device) for name in names}
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for training in trainings.values():
        training.run(arguments.steps + arguments.warmup)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, training in trainings.items():
            start = clock()
            training.run(arguments.steps)
            seconds[name].append(clock() - start)
    rows = {
        name: {**_row(seconds[name], seconds["softmax"], arguments), **training.facts()}
        for name, training in trainings.items()
    }
    _print(rows, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def _config(name: str) -> ModelConfig:
    return ModelConfig(
        width=128,
        layers=4,
        heads=4,
        experts=8,
        expert_width=256,
        vocab_size=4096,
        router=name,
        router_settings=SETTINGS.get(name, {}),
    )


class _Training:
    def __init__(
        self, config: ModelConfig, arguments: argparse.Namespace, device: torch.device
    ) -> None:
        self.config, self.progress = config, arguments.progress
        self.model = Transformer(config, (0,), DTYPES[arguments.precision]).to(device).train()
        self.step = make_step(self.model, CohortOptimizer(self.model, Recipe(), (1e-3,)))
        random = torch.Generator().manual_seed(0)
        shape = (1, arguments.batch, arguments.length + 1)
        self.ids_KBT = torch.randint(config.vocab_size, shape, generator=random).to(device)

    def run(self, steps: int) -> None:
        """Train for so many steps, and wait for the device."""
        for _ in range(steps):
            losses_K = self.step(self.ids_KBT, progress=self.progress)
        losses_K.sum().item()

    def facts(self) -> dict[str, float]:
        """Its weights, and how many experts a token (or sub-token) reached in the last step."""
        experts, routers = self.config.experts, self.model.routers()
        reached = sum(float(r.step_counts_KE[:, :experts].sum()) for r in routers)
        return {
            "experts": reached / sum(float(r.step_tokens_K.sum()) for r in routers),
            "total_params": self.config.total_params(),
            "active_params": self.config.active_params(),
        }


def _row(
    seconds: list[float], softmax: list[float], arguments: argparse.Namespace
) -> dict[str, float]:
    ratios = [mine / theirs for mine, theirs in zip(seconds, softmax, strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    tokens = arguments.steps * arguments.batch * arguments.length
    return {
        "cost": middle,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "tokens_per_second": tokens / statistics.median(seconds),
    }


def _print(rows: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    print(
        f"{arguments.precision}, {arguments.device}, {arguments.threads} threads, "
        f"torch {torch.__version__}, {arguments.rounds} rounds of {arguments.steps} steps of "
        f"{arguments.batch} × {arguments.length} tokens"
    )
    columns = ("router", "cost", "quartiles", "tokens/s", "experts", "weights", "active")
    print("{:<14} {:>5} {:>13} {:>9} {:>8} {:>10} {:>10}".format(*columns))
    for name, row in sorted(rows.items(), key=lambda item: item[1]["cost"]):
        quartiles = f"{row['lower_quartile']:.2f} to {row['upper_quartile']:.2f}"
        print(
            f"{name:<14} {row['cost']:>5.2f} {quartiles:>13} {row['tokens_per_second']:>9,.0f} "
            f"{row['experts']:>8.2f} {row['total_params']:>10,} {row['active_params']:>10,}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"length": 256, "batch": 8, "threads": 1, "steps": 2, "rounds": 9, "warmup": 0}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument(
        "--progress",
        type=float,
        default=0.5,
        help="share of training done: 0 is StableMoE's stage 1",
    )
    parser.add_argument("--routers", nargs="+", choices=sorted(ROUTERS), help="default all")
    parser.add_argument("--precision", choices=[*DTYPES], default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the table there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
