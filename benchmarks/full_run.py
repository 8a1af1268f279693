"""The full run: tokens per second and memory in one and two processes, and a real model's resume.

    python -m benchmarks.full_run speed /tmp/full-run          # ours and transformers' Mixtral
    python -m benchmarks.full_run speed /tmp/full-run --processes 1 8 --device cuda --width 1024
    python -m benchmarks.full_run building /tmp/full-run       # memory until a model is sharded
    python -m benchmarks.full_run cost /tmp/full-run           # recompute and document_mask

`speed` trains one shape by the same loop (`train_full`): our transformer, and transformers' Mixtral
of as many parameters. Every run is a fresh process group (gloo, or NCCL on GPUs), all kinds and
numbers of processes in turn, `--repeats` times. Tokens per second are the median over repeats of
the steps after the first report; memory is the growth of a process since it imported torch.

`building` has two gloo processes build a model and share its parameters out: each piece by piece,
and, to compare, the whole model first. Each way in processes of its own, both in turn; memory is
the growth of the first process at its height, looked at 500 times a second, without pages of
files; a median over repeats.

`cost` trains one shape as it is, with `recompute` and with `document_mask`, each in a process of
its own, all in turn. Time is that of the CPU, which other jobs on the machine do not change much,
from the first report on; ratios are medians over rounds, each of a round's own runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.embedded import corpus_in
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.proxies.full_run.contract import ModelKind
from mixopt.proxies.full_run.foreign import TransformersModel
from mixopt.proxies.full_run.progress import FullProgress
from mixopt.proxies.full_run.sharding import own_rows, shard
from mixopt.proxies.full_run.training import ours, train_full
from mixopt.proxies.full_run.world import World
from mixopt.proxies.job import Job

KINDS = ("ours", "mixtral")


def main() -> None:
    """Run the part that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    speed = parts.add_parser("speed")
    speed.add_argument("folder", type=Path)
    speed.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    speed.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    speed.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    speed.add_argument("--width", type=int, default=256)
    speed.add_argument("--layers", type=int, default=4)
    speed.add_argument("--experts", type=int, default=8)
    speed.add_argument("--steps", type=int, default=12)
    speed.add_argument("--repeats", type=int, default=3)
    building = parts.add_parser("building")
    building.add_argument("folder", type=Path)
    building.add_argument("--processes", type=int, default=2)
    building.add_argument("--width", type=int, default=1024)
    building.add_argument("--layers", type=int, default=8)
    building.add_argument("--experts", type=int, default=8)
    building.add_argument("--repeats", type=int, default=3)
    cost = parts.add_parser("cost")
    cost.add_argument("folder", type=Path)
    cost.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    cost.add_argument("--lengths", type=int, nargs="+", default=[256, 1024])
    cost.add_argument("--width", type=int, default=256)
    cost.add_argument("--layers", type=int, default=4)
    cost.add_argument("--experts", type=int, default=8)
    cost.add_argument("--steps", type=int, default=8)
    cost.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    {"speed": _compare, "building": _building, "cost": _cost}[arguments.part](arguments)


# -- tokens per second, and memory ----------------------------------------------------------------


def _compare(arguments: argparse.Namespace) -> None:
    corpus = corpus_in(arguments.folder / "environment", 1.0, 2048)
    job = _job(corpus, _shape(corpus, arguments), arguments.steps, precision=arguments.precision)
    mixtral = _mixtral(job.model, arguments.folder)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(arguments.repeats):
        for processes in arguments.processes:
            for kind in KINDS:
                run = _run(job, kind, processes, mixtral, arguments.device)
                found.setdefault((kind, processes), []).append(run)
    base = statistics.median(run["speed"] for run in found["ours", arguments.processes[0]])
    print(f"{_params(job.model):,} parameters, {arguments.precision}, {arguments.device}")
    for (kind, processes), runs in found.items():
        speed = statistics.median(run["speed"] for run in runs)
        grown = statistics.median(run["grown"] for run in runs)
        print(
            f"{kind:<8} {processes} processes: {speed:,.0f} tokens/s ({speed / base:.2f} of the "
            f"first line), {grown / 1e6:,.0f} MB in the largest process",
            flush=True,
        )


def _shape(corpus: Corpus, arguments: argparse.Namespace) -> ModelConfig:
    return ModelConfig(
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.width // 32,
        experts=arguments.experts,
        experts_per_token=2,
        expert_width=arguments.width,
        vocab_size=corpus.vocab_size,
    )


def _params(model: ModelConfig) -> int:
    return model.total_params() + model.vocab_size * model.width


def _job(
    corpus: Corpus,
    model: ModelConfig,
    steps: int,
    length: int = 256,
    precision: Any = "fp32",
) -> Job:
    recipe = Recipe(
        sequence_length=length,
        batch_sequences=2048 // length,
        precision=precision,
        evaluations=1,
        evaluation_tokens=256,
        curve_tokens=256,
        checkpoint_seconds=float("inf"),
    )
    tokens = steps * recipe.tokens_per_step
    return Job(model, recipe, str(corpus.path), (corpus.natural,), (0,), tokens)


def _mixtral(model: ModelConfig, folder: Path) -> Path:
    """A Mixtral of transformers of that shape, random; keys have as many heads as queries."""
    import transformers

    out = folder / f"mixtral-{model.width}-{model.layers}-{model.experts}"
    if not out.exists():
        config = transformers.MixtralConfig(
            vocab_size=model.vocab_size,
            hidden_size=model.width,
            intermediate_size=model.expert_width,
            num_hidden_layers=model.layers,
            num_attention_heads=model.heads,
            num_key_value_heads=model.heads,
            num_local_experts=model.experts,
            num_experts_per_tok=model.experts_per_token,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
        transformers.MixtralForCausalLM(config).save_pretrained(out)
    return out


def _run(
    job: Job, kind: str, processes: int, mixtral: Path, device: str, recompute: bool = False
) -> dict[str, Any]:
    """Speed, CPU time and memory of a fresh process group."""
    return _measured(processes, device, _train, job, kind, mixtral, recompute)


def _measured(
    processes: int, device: str, function: Callable[..., dict[str, float]], *args: Any
) -> dict[str, Any]:
    """What `function` found in a fresh process group: the first process', the largest growth."""
    with tempfile.TemporaryDirectory() as folder:
        given = (processes, device, folder, function, args)
        # a fork has torch already; it cannot have what this process has of a GPU
        method = "spawn" if device == "cuda" else "fork"
        mp.start_processes(_process, given, nprocs=processes, start_method=method)
        parts = [json.loads(p.read_text()) for p in sorted(Path(folder).glob("measured-*.json"))]
    return {**parts[0], "grown": max(part["grown"] for part in parts)}


def _process(
    rank: int,
    processes: int,
    device: str,
    folder: str,
    function: Callable[..., dict[str, float]],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        backend = "nccl" if device == "cuda" else "gloo"
        store = f"file://{folder}/store"
        dist.init_process_group(backend, init_method=store, rank=rank, world_size=processes)
    where = f"cuda:{rank}" if device == "cuda" else "cpu"
    world = World(rank, processes, torch.device(where))
    before = _memory(world.device)
    found = function(world, Path(folder), *args)
    measured = {**found, "grown": _memory(world.device) - before}
    (Path(folder) / f"measured-{rank}.json").write_text(json.dumps(measured))
    if processes > 1:
        dist.destroy_process_group()


def _train(
    world: World, folder: Path, job: Job, kind: str, mixtral: Path, recompute: bool
) -> dict[str, float]:
    seen: list[tuple[float, float, int]] = []

    def report(progress: FullProgress) -> None:
        if progress.phase == "training" and progress.step:
            seen.append((time.perf_counter(), time.process_time(), progress.step))

    made = _kind(kind, mixtral, recompute)
    train_full(job, folder / "run", world, report, kind=made)
    (first, first_cpu, step), (last, last_cpu, steps) = seen[0], seen[-1]
    return {
        "speed": (steps - step) * job.recipe.tokens_per_step / (last - first),
        "cpu": (last_cpu - first_cpu) / (steps - step),
    }


def _kind(kind: str, mixtral: Path, recompute: bool = False) -> ModelKind:
    return ours(recompute) if kind == "ours" else TransformersModel.kind(mixtral, recompute)


def _memory(device: torch.device) -> int:
    """Bytes that the process held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # not getrusage, whose maximum a child may take over from the process that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


# -- memory until a model is sharded --------------------------------------------------------------


def _building(arguments: argparse.Namespace) -> None:
    corpus = corpus_in(arguments.folder / "environment", 1.0, 2048)
    model = _shape(corpus, arguments)
    mixtral = _mixtral(model, arguments.folder)
    found: dict[tuple[str, bool], list[float]] = {}
    for _ in range(arguments.repeats):
        for kind in KINDS:
            for whole in (True, False):
                run = _measured(arguments.processes, "cpu", _build, model, kind, mixtral, whole)
                found.setdefault((kind, whole), []).append(run["built"])
    held = 4 * _params(model) / 1e6
    print(f"{_params(model):,} parameters, {held:,.0f} MB, {arguments.processes} processes")
    for kind in KINDS:
        whole, pieces = (statistics.median(found[kind, way]) / 1e6 for way in (True, False))
        print(
            f"{kind:<8} whole first {whole:,.0f} MB, in pieces {pieces:,.0f} MB "
            f"({pieces / whole:.2f})",
            flush=True,
        )


def _build(
    world: World, folder: Path, model: ModelConfig, kind: str, mixtral: Path, whole: bool
) -> dict[str, float]:
    if kind != "ours":
        import transformers.models.mixtral.modeling_mixtral  # noqa: F401 - no part of what is built
    cut = None if whole else own_rows(world)
    before, seen, done = _anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(_anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    shard(_kind(kind, mixtral).build(model, 0, torch.float32, world.device, cut), world)
    done.set()
    thread.join()
    return {"built": max(seen) - before}


def _anonymous() -> int:
    """Bytes of memory that the process has now; pages of files, which give way, left out."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


# -- what recompute and document_mask cost --------------------------------------------------------


def _cost(arguments: argparse.Namespace) -> None:
    corpus = corpus_in(arguments.folder / "environment", 1.0, 2048)
    model = _shape(corpus, arguments)
    mixtral = _mixtral(model, arguments.folder)
    masked = replace(model, document_mask=True)
    ways = {"plain": (model, False), "recompute": (model, True), "document_mask": (masked, False)}
    for length in arguments.lengths:
        for kind in arguments.kinds:
            rounds = []
            for _ in range(arguments.repeats):
                rounds.append(
                    {
                        way: _run(
                            _job(corpus, shape, arguments.steps, length),
                            *(kind, 1, mixtral, "cpu", recompute),
                        )
                        for way, (shape, recompute) in ways.items()
                    }
                )
            _print_costs(f"{kind}, {2048 // length} sequences of {length}", rounds)


def _print_costs(title: str, rounds: list[dict[str, dict[str, float]]]) -> None:
    for way in rounds[0]:
        cpu = statistics.median(found[way]["cpu"] for found in rounds)
        ratios = [found[way]["cpu"] / found["plain"]["cpu"] for found in rounds]
        grown = statistics.median(found[way]["grown"] for found in rounds) / 1e6
        print(
            f"{title}, {way}: {cpu:.3f} s of CPU a step ({statistics.median(ratios):.2f}, "
            f"{min(ratios):.2f} to {max(ratios):.2f}), {grown:,.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
