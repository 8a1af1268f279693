"""Training tokens per second of one process.

    python benchmarks/throughput.py                       # the demo's shape, one thread
    python benchmarks/throughput.py --cohort 4 --precision fp32
    python benchmarks/throughput.py --width 256 --layers 8 --experts 16 --vocab 8192

Prints the median over windows of steps and the share of a peak measured in the same run, so that
runs on different machines, or on a busy one, can be compared.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.recipe import Recipe
from proxies.optimizer import CohortOptimizer
from proxies.precision import DTYPES


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    config = ModelConfig(
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.heads,
        experts=arguments.experts,
        experts_per_token=min(2, arguments.experts),
        expert_width=arguments.expert_width,
        vocab_size=arguments.vocab,
    )
    per_token = 3 * config.flops_per_token(arguments.length)
    print(f"{config.active_params():,} active of {config.total_params():,} parameters")
    for precision in DTYPES if arguments.precision == "both" else (arguments.precision,):
        speeds = _speeds(config, arguments, DTYPES[precision], device)
        peak = _peak_flops(DTYPES[precision], device)
        speed = statistics.median(speeds)
        print(
            f"{precision}: {speed:,.0f} tokens/s (best {max(speeds):,.0f}), "
            f"{speed * per_token / 1e9:.1f} GFLOP/s, {speed * per_token / peak:.0%} of the peak"
        )


def _speeds(
    config: ModelConfig, arguments: argparse.Namespace, dtype: torch.dtype, device: torch.device
) -> list[float]:
    """Tokens per second of each window of `--steps` steps."""
    cohort = arguments.cohort
    model = Transformer(config, tuple(range(cohort)), dtype).to(device).train()
    optimizer = CohortOptimizer(model, Recipe(), (1e-3,) * cohort)
    shape = (cohort, arguments.batch, arguments.length + 1)
    ids_KBT = torch.randint(config.vocab_size, shape).to(device)

    def step() -> torch.Tensor:
        model.begin_step()
        optimizer.zero_gradients()
        losses = model.loss(ids_KBT[..., :-1], ids_KBT[..., 1:])
        torch.autograd.backward((losses.nats_K + losses.auxiliary_K).sum())
        optimizer.step(1.0)
        model.end_step()
        return losses.nats_K

    for _ in range(5):
        step()
    speeds = []
    for _ in range(arguments.windows):
        start = time.perf_counter()
        for _ in range(arguments.steps):
            last_K = step()
        last_K.sum().item()  # waits for the device
        tokens = arguments.steps * cohort * arguments.batch * arguments.length
        speeds.append(tokens / (time.perf_counter() - start))
    return speeds


def _peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of a square product, the best of a few."""
    size, best = 1024, 0.0
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(10):
        start = time.perf_counter()
        float((a @ b)[0, 0])
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {
        "width": 64,
        "layers": 2,
        "heads": 4,
        "experts": 4,
        "expert-width": 128,
        "vocab": 2048,
        "length": 128,
        "batch": 16,
        "cohort": 1,
        "threads": 1,
        "steps": 10,
        "windows": 5,
    }
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--precision", choices=[*DTYPES, "both"], default="both")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
