"""Peak anonymous memory of upcycling a checkpoint of 1B parameters, against the bound we promise.

    python benchmarks/upcycling_memory.py                # 1.24B parameters: 12 GB of disk
    python benchmarks/upcycling_memory.py --width 512    # a small one

Makes a seed and two experts of random weights (the shape of Llama 3.2 1B, bf16, files of 1 GB) in a
temporary folder, and upcycles them by `sparse` and by `branch-train-mix` with two experts and each
merge, in a process of its own each time. Memory is RssAnon of /proc/self/status, read every 2 ms,
above what it was after the imports. The bound is 1.3 x (largest input file + one layer of the
output).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mixopt.models.families.base import Shape, family
from mixopt.models.families.checkpoint import write_checkpoint
from mixopt.models.families.config import write_config
from mixopt.models.upcycling.folders import Request, plan, write

BOUND, SECONDS_BETWEEN = 1.3, 0.002
METHODS = (
    ("sparse", "average"),
    ("branch-train-mix", "average"),
    ("branch-train-mix", "ties"),
    ("branch-train-mix", "dare"),
)
SOURCES = ("code", "law")


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for number, model in enumerate(("seed", *SOURCES)):
            make_dense(folder / model, number, arguments)
        for method, merge in METHODS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                row = pool.submit(measured, method, merge, folder).result()
            print(json.dumps(row) if arguments.json else _line(row), flush=True)


def make_dense(folder: Path, seed: int, arguments: argparse.Namespace) -> None:
    """A Llama of random weights in files of `--shard` bytes."""
    width, llama = arguments.width, family("llama")
    shape = Shape(
        width=width,
        layers=arguments.layers,
        heads=width // 64,
        kv_heads=width // 256,
        head_width=64,
        hidden=4 * width,
        vocab_size=arguments.vocab,
        tie_embeddings=True,
    )
    random = torch.Generator().manual_seed(seed)
    tensors = (
        (part, torch.empty(llama.size(part, shape), dtype=torch.bfloat16).normal_(generator=random))
        for part in llama.parts(shape)
    )
    folder.mkdir()
    config = write_config(llama, shape, {"rms_norm_eps": 1e-5, "rope_theta": 5e5}, "bfloat16")
    for _ in write_checkpoint(
        folder, llama, shape, config, tensors, torch.bfloat16, arguments.shard
    ):
        pass


def measured(method: str, merge: str, folder: Path) -> dict[str, Any]:
    """One upcycling: its peak above the start, the bound, and the time."""
    names = SOURCES if method != "sparse" else ()
    sources = {name: folder / name for name in names}
    before = anonymous()
    with Peak() as peak:
        start = time.perf_counter()
        planned = plan(Request(method, folder / "seed", sources, experts=2, merge=merge))
        write(planned, folder / "moe")
        seconds = time.perf_counter() - start
    shutil.rmtree(folder / "moe")
    layer = sum(size for part, size in planned.sizes.items() if part.startswith("layers.0."))
    bound = BOUND * (planned.seed.largest_file + layer)
    return {
        "method": method,
        "merge": planned.receipt.merge,
        "dense_params": sum(p.numel() for p in map(planned.seed.__getitem__, planned.seed.parts)),
        "params": planned.params,
        "peak_mb": round((peak.bytes - before) / 1e6),
        "bound_mb": round(bound / 1e6),
        "peak_over_bound": round((peak.bytes - before) / bound, 3),
        "largest_file_mb": round(planned.seed.largest_file / 1e6),
        "layer_mb": round(layer / 1e6),
        "seconds": round(seconds, 1),
    }


class Peak:
    """The most anonymous memory of this process while the block runs."""

    def __enter__(self) -> Peak:
        self.bytes, self._ended = anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            self.bytes = max(self.bytes, anonymous())


def anonymous() -> int:
    """RssAnon of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell RssAnon")


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']} {row['merge']}: {row['dense_params'] / 1e9:.2f}B dense → "
        f"{row['params'] / 1e9:.2f}B, peak {row['peak_mb']} MB of "
        f"{row['bound_mb']} MB allowed ({row['peak_over_bound']:.2f}), {row['seconds']} s"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--shard", type=int, default=10**9, help="bytes of an input file")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
