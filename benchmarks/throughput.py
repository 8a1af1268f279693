"""Training tokens per second of one process, alone or against Hugging Face's OLMoE.

    python benchmarks/throughput.py                       # ours, the demo's shape, one thread
    python benchmarks/throughput.py --cohort 4 --precision fp32
    python benchmarks/throughput.py --width 256 --layers 8 --experts 16 --vocab 8192
    python benchmarks/throughput.py --peer --threads 2    # against OLMoE; also its memory
    python benchmarks/throughput.py --json --threads 2    # the same, one JSON object a line

Alone, it prints the median over windows of steps and the share of a peak of matrix products
measured in the same run, so that runs on different machines, or on a busy one, can be compared.

Against the peer, both have the same shape (4 layers and 8 experts of width 128, two a token, 8
sequences of 256 tokens, vocabulary 4,096, unless other sizes are given), the same optimizer and
the same run: windows of both in turn, and the median of their ratios. The last line has
`ratio_cpu` and `ratio_gpu`, null where there is no such device or no peer. On a GPU a cohort of
32, its step compiled and captured, stands against the peer, which trains one model at a time.
Memory is the growth of a fresh process of each, with a vocabulary of 50,304.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import olmoe
import torch

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.models.fusion import fusing
from mixopt.models.team import at_work
from mixopt.models.transformer import Transformer
from mixopt.proxies.captured import make_step
from mixopt.proxies.memory import keep_freed_memory
from mixopt.proxies.optimizer import CohortOptimizer
from mixopt.proxies.precision import DTYPES

Step = Callable[[], torch.Tensor]

DEMO = {"width": 64, "layers": 2, "experts": 4, "vocab": 2048, "length": 128, "batch": 16}
PEER = {"width": 128, "layers": 4, "experts": 8, "vocab": 4096, "length": 256, "batch": 8}
MEMORY_VOCABULARY = 50_304
COHORT = {"cpu": 4, "cuda": 32}
SWARM = 512  # proxies
TOKENS_PER_PARAMETER = 20  # of a proxy's active parameters, embedding included


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    if arguments.memory_of:
        _print_memory(arguments)
    elif arguments.peer or arguments.json:
        _compare(arguments)
    else:
        _alone(arguments)


def _alone(arguments: argparse.Namespace) -> None:
    config, device = _config(arguments), torch.device(arguments.device)
    per_token = 3 * config.flops_per_token(arguments.length)
    print(f"{config.active_params():,} active of {config.total_params():,} parameters")
    for precision in DTYPES if arguments.precision == "both" else (arguments.precision,):
        step = _ours(config, arguments, precision, arguments.cohort)
        with at_work(device):
            speeds = [_speed(step, arguments, arguments.cohort) for _ in range(arguments.windows)]
        peak = _peak_flops(DTYPES[precision], device)
        speed = statistics.median(speeds)
        print(
            f"{precision}: {speed:,.0f} tokens/s (best {max(speeds):,.0f}), "
            f"{speed * per_token / 1e9:.1f} GFLOP/s, {speed * per_token / peak:.0%} of the peak"
        )


def _compare(arguments: argparse.Namespace) -> None:
    say = _printer(arguments.json)
    reason = olmoe.missing()
    ratios: dict[str, float | None] = {"ratio_cpu": None, "ratio_gpu": None}
    for device in arguments.on or (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)):
        arguments.device = device
        found = _compare_on(arguments, reason, say)
        ratios["ratio_cpu" if device == "cpu" else "ratio_gpu"] = found
    memory = None
    if arguments.memory:
        memory = _compare_memory(arguments, reason, say)
    message = {"message": reason} if reason else {}
    say({"measured": "summary", **ratios, "ratio_memory": memory, **message})


def _compare_on(
    arguments: argparse.Namespace, reason: str | None, say: Callable[[dict[str, Any]], None]
) -> float | None:
    """Ours over the peer's tokens/s on one device; on a GPU ours is the whole cohort."""
    device = torch.device(arguments.device)
    precision = _faster(_config(arguments), arguments)
    with fusing(device.type == "cuda" and not arguments.plain):
        return _compare_in(precision, arguments, reason, say)


def _compare_in(
    precision: str,
    arguments: argparse.Namespace,
    reason: str | None,
    say: Callable[[dict[str, Any]], None],
) -> float | None:
    """As `_compare_on`, our models in that precision."""
    device, config = torch.device(arguments.device), _config(arguments)
    cohort = COHORT[device.type]
    many = _ours(config, arguments, precision, cohort)
    one = _ours(config, arguments, precision, 1)
    runs: dict[str, tuple[Step, int]] = {"one": (one, 1), "cohort": (many, cohort)}
    if reason is None:
        variant = _fastest_peer(config, arguments, say)
        runs["peer"] = (_peer(variant, config, arguments), 1)
        if arguments.compiled and device.type == "cpu":
            runs["compiled peer"] = (_peer(variant, config, arguments, compiled=True), 1)
    speeds = _in_turn(runs, arguments, device)
    if reason is None and arguments.compiled and device.type == "cuda":
        # after ours: torch's own capture frees the work space of products that ours replay
        runs = {"compiled peer": (_peer(variant, config, arguments, compiled=True), 1)}
        speeds |= _in_turn(runs, arguments, device)
    for name, each in speeds.items():
        how = precision if name in ("one", "cohort") else str(variant)
        median = statistics.median(each)
        proxies = cohort if name == "cohort" else 1
        line = {"measured": f"{device.type}: {name}", "how": how, "proxies": proxies}
        say({**line, "tokens_per_second": median, "best": max(each), "name": _device(device)})
    main_run = "one" if device.type == "cpu" else "cohort"
    compared = {
        "cohort over one": _ratio(speeds, "cohort", "one"),
        "one over peer": _ratio(speeds, "one", "peer"),
        "cohort over peer": _ratio(speeds, "cohort", "peer"),
        "one over compiled peer": _ratio(speeds, "one", "compiled peer"),
    }
    say({"measured": f"{device.type}: ratios", **compared})
    tokens = TOKENS_PER_PARAMETER * (config.active_params() + config.width * config.vocab_size)
    hours = SWARM * tokens / statistics.median(speeds["cohort"]) / 3600
    formula = f"{SWARM} proxies * {tokens:,} tokens / tokens_per_second of the cohort / 3600"
    say({"measured": f"{device.type}: swarm", "hours": hours, "formula": formula})
    return compared[f"{main_run} over peer"]


def _compare_memory(
    arguments: argparse.Namespace, reason: str | None, say: Callable[[dict[str, Any]], None]
) -> float | None:
    """Growth of a fresh process of ours over that of the peer's."""
    growths = {}
    for whose in ("ours", "peer") if reason is None else ("ours",):
        command = [
            sys.executable,
            __file__,
            "--memory-of",
            whose,
            "--vocab",
            str(MEMORY_VOCABULARY),
        ]
        for name in ("threads", *(name for name in PEER if name != "vocab")):
            command += [f"--{name}", str(getattr(arguments, name))]
        result = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        growths[whose] = json.loads(result.splitlines()[-1])["mebibytes"]
        say({"measured": f"memory: {whose}", "mebibytes": growths[whose]})
    return growths["ours"] / growths["peer"] if "peer" in growths else None


def _print_memory(arguments: argparse.Namespace) -> None:
    """Mebibytes by which this process grows, at its highest, while it builds and trains a model."""
    config, device = _config(arguments), torch.device("cpu")
    arguments.device = "cpu"
    if arguments.memory_of == "peer":
        import transformers.models.olmoe.modeling_olmoe  # noqa: F401  its code is no growth
    before = _status("VmRSS")
    if arguments.memory_of == "ours":
        step, context = _ours(config, arguments, "bf16", 1), at_work(device)
    else:
        lean = olmoe.Variant("grouped_mm", "eager", "bf16 autocast")
        step, context = _peer(lean, config, arguments), contextlib.nullcontext()
    with context:
        for _ in range(3):
            step()
    # not getrusage: its maximum is that of the process that started this one, where that was larger
    print(json.dumps({"mebibytes": _status("VmHWM") - before}))


def _ours(config: ModelConfig, arguments: argparse.Namespace, precision: str, cohort: int) -> Step:
    device = torch.device(arguments.device)
    model = Transformer(config, tuple(range(cohort)), DTYPES[precision]).to(device).train()
    move = make_step(model, CohortOptimizer(model, Recipe(), (1e-3,) * cohort))
    ids_KBT = _ids(arguments, cohort)
    return lambda: move(ids_KBT).sum()


def _peer(
    variant: olmoe.Variant,
    config: ModelConfig,
    arguments: argparse.Namespace,
    *,
    compiled: bool = False,
) -> Step:
    return olmoe.train_step(variant, config, Recipe(), _ids(arguments, 1)[0], compiled=compiled)


def _fastest_peer(
    config: ModelConfig, arguments: argparse.Namespace, say: Callable[[dict[str, Any]], None]
) -> olmoe.Variant:
    tokens = arguments.batch * arguments.length

    def tell(variant: olmoe.Variant, seconds: float | None, why: str) -> None:
        found = {"cannot_run": why} if seconds is None else {"tokens_per_second": tokens / seconds}
        say({"measured": "peer, tried", "how": str(variant), **found})

    variants = olmoe.VARIANTS
    if arguments.peer_variant:
        variants = [v for v in variants if str(v) in arguments.peer_variant]
    return olmoe.fastest(variants, lambda v: _peer(v, config, arguments), tell)


def _faster(config: ModelConfig, arguments: argparse.Namespace) -> str:
    """Our own faster precision, as a training would choose it."""
    if arguments.precision != "both":
        return str(arguments.precision)
    device = torch.device(arguments.device)
    steps = {name: _ours(config, arguments, name, 1) for name in DTYPES}
    speeds: dict[str, float] = {}
    with at_work(device):
        for name in DTYPES:
            speeds[name] = max(_speed(steps[name], arguments, 1) for _ in range(3))
    return max(speeds, key=lambda name: speeds[name])


def _in_turn(
    runs: dict[str, tuple[Step, int]], arguments: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Tokens per second of every run in every window; the runs of a window follow each other."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for window in range(arguments.windows + 1):
        for name, (step, cohort) in runs.items():
            ours = name in ("one", "cohort")
            with at_work(device) if ours else contextlib.nullcontext():
                speed = _speed(step, arguments, cohort)
            if window:  # the first one warms up
                speeds[name].append(speed)
    return speeds


def _speed(step: Step, arguments: argparse.Namespace, cohort: int) -> float:
    """Tokens per second of a window of `--steps` steps, after one that warms up."""
    step().item()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        last = step()
    last.item()  # waits for the device
    tokens = arguments.steps * cohort * arguments.batch * arguments.length
    return tokens / (time.perf_counter() - start)


def _ratio(speeds: dict[str, list[float]], ours: str, theirs: str) -> float | None:
    """Median of the ratios of windows that followed each other."""
    if theirs not in speeds:
        return None
    return statistics.median(a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True))


def _ids(arguments: argparse.Namespace, cohort: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (cohort, arguments.batch, arguments.length + 1)
    return torch.randint(arguments.vocab, shape, generator=generator).to(arguments.device)


def _config(arguments: argparse.Namespace) -> ModelConfig:
    return ModelConfig(
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.heads,
        experts=arguments.experts,
        experts_per_token=min(2, arguments.experts),
        expert_width=arguments.expert_width,
        vocab_size=arguments.vocab,
    )


def _peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of a square product, the best of a few."""
    size, best = 1024, 0.0
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(10):
        start = time.perf_counter()
        float((a @ b)[0, 0])
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _status(key: str) -> float:
    """Mebibytes of this process in memory: now (`VmRSS`), or at its highest (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith(f"{key}:"))
    return int(kilobytes) / 1024


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _printer(as_json: bool) -> Callable[[dict[str, Any]], None]:
    def say(line: dict[str, Any]) -> None:
        if as_json:
            print(json.dumps(line), flush=True)
            return
        rest = {name: value for name, value in line.items() if name != "measured"}
        words = [
            f"{name} {value:,.3g}"
            if isinstance(value, float) and value < 1000
            else f"{name} {value:,.0f}"
            if isinstance(value, float)
            else f"{name} {value}"
            for name, value in rest.items()
        ]
        print(f"{line['measured']}: {'; '.join(words)}", flush=True)

    return say


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    others = {"heads": 4, "expert-width": 128, "cohort": 1, "threads": 1, "steps": 10, "windows": 5}
    for name, default in others.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    for name, default in DEMO.items():
        result = f"default {default}, {PEER[name]} against the peer"
        parser.add_argument(f"--{name}", type=int, help=result)
    parser.add_argument("--precision", choices=[*DTYPES, "both"], default="both")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peer", action="store_true", help="compare with Hugging Face's OLMoE")
    parser.add_argument("--json", action="store_true", help="compare, one JSON object a line")
    parser.add_argument("--compiled", action="store_true", help="also torch.compile the peer")
    parser.add_argument(
        "--peer-variant",
        action="append",
        choices=[str(v) for v in olmoe.VARIANTS],
        help="try this one alone; may be given several times",
    )
    parser.add_argument(
        "--on", action="append", choices=["cpu", "cuda"], help="compare there; all there are"
    )
    parser.add_argument(
        "--plain", action="store_true", help="on a GPU, our step captured but not compiled"
    )
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--memory-of", choices=["ours", "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = PEER if arguments.peer or arguments.json or arguments.memory_of else DEMO
    for name, default in sizes.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    return arguments


if __name__ == "__main__":
    main()
