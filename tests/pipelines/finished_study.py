"""A study that has run, for what shows studies: a real ledger and folder, made-up measurements.

The measurements follow a smooth law of the mixture with seed noise, so that plots look like plots.
They are shown, never concluded from.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.core.mixture import Mixture
from mixopt.core.trials import Cost, CurvePoint, Failure, Fidelity, Role, TrialResult, TrialSpec
from mixopt.corpus.manifest import DomainRecord, Manifest, Shard, TokenizerRecord, file_sha256
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.io.trial_files import trial_folder
from mixopt.models.upcycling.receipt import Receipt
from mixopt.selection.gate import judge
from mixopt.selection.multiplier import Multiplier
from mixopt.selection.results import Decision, Predicted
from mixopt.selection.runs import Selection
from mixopt.study.identity import Identity, claim
from mixopt.study.ledger import Ledger
from mixopt.study.locked import lock_settings
from mixopt.study.results import Promotion, Stage, Verdict
from mixopt.study.settings import Study, load_study
from mixopt.study.trainings import study_binding
from mixopt.surrogates.scoring import Score
from tests.pipelines.empty_store import put_empty_store

TOKENS = {
    "arithmetic": 150_000,
    "docstrings": 90_000,
    "headers": 220_000,
    "licences": 60_000,
    "python": 300_000,
    "web": 260_000,
}
HELP = {"docstrings": 0.9, "licences": 0.35, "web": 0.15, "python": 0.2, "headers": 0.1}
FIDELITY = Fidelity("proxy", 98_304, 400_000)
SEEDS = (101, 102, 103)  # of the selection
STUDY = """\
name: {name}
corpus: corpus
objective: {{descriptions: 1.0}}
proxy: {{tokens: 400k}}
promote: {{tokens: 600k}}
ray: {{address: local}}
"""


def write_study(folder: Path, name: str = "tiny") -> Study:
    """A study file and its corpus, nothing run yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(STUDY.format(name=name))
    if not (folder / "corpus").exists():
        write_corpus(folder / "corpus")
    study = load_study(folder / "study.yaml")
    put_empty_store(study.home)
    lock_settings(study, Corpus.open(folder / "corpus"))
    return study


def owner_of(study: Study) -> Identity:
    ledger = open_ledger(study)
    ledger.close()
    return ledger.owner


def open_ledger(study: Study) -> Ledger:
    owner = claim(study.home, study_binding(study, study.open_data()))
    return Ledger.open(study.ledger_url, study.name, study.mixture_objective(), owner)


def finished_study(folder: Path, name: str = "tiny", trials: int = 14) -> Study:
    """A study with a search, one failure, a selection and a promotion."""
    study = write_study(folder, name)
    ledger = open_ledger(study)
    rng = np.random.default_rng(0)
    natural, uniform = Mixture.natural(TOKENS), Mixture.uniform(TOKENS)
    found = Mixture.of(
        {
            "docstrings": 0.5,
            "licences": 0.2,
            "python": 0.15,
            "web": 0.1,
            "headers": 0.05,
            "arithmetic": 0,
        }
    )
    found = Mixture.of({name: found.as_dict()[name] for name in TOKENS})
    swarm = [natural, uniform]
    swarm += [
        Mixture.from_array(TOKENS, rng.dirichlet(2 * natural.array)) for _ in range(trials - 6)
    ]
    for mixture in swarm:
        run(study, ledger, TrialSpec(mixture, FIDELITY, 0))
    diverged = ledger.add(TrialSpec(uniform, FIDELITY, 7)).number
    ledger.start(diverged)
    ledger.fail(diverged, Failure.DIVERGED, "the loss was <nan> at step 31")
    for index in range(3):
        near = Mixture.from_array(TOKENS, rng.dirichlet(40 * found.array + 0.1))
        run(study, ledger, TrialSpec(near, FIDELITY, 0, Role.SEARCH, round=1 + index // 2))
    candidates = {"natural": natural, "found": found, "uniform": uniform}
    for seed in SEEDS:
        for candidate, mixture in candidates.items():
            run(
                study,
                ledger,
                TrialSpec(mixture, FIDELITY, seed, Role.SELECT, round=3, candidate=candidate),
            )
    ledger.close()
    write_verdict(study, candidates)
    write_promotion(study, found)
    return study


def run(study: Study, ledger: Ledger, spec: TrialSpec) -> int:
    """Record `spec` as a worker and the driver would: curve, marker, ledger."""
    trial = ledger.add(spec)
    ledger.start(trial.number)
    outcome = result(spec)
    folder = trial_folder(study.home, trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": p.step, "tokens": p.tokens, "metrics": dict(p.metrics), "seconds": p.seconds}
        for p in outcome.curve
    ]
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files.write_json(folder / "done.json", outcome.to_json())
    ledger.complete(trial.number, outcome)
    return trial.number


def result(spec: TrialSpec) -> TrialResult:
    rng = np.random.default_rng([spec.seed, 5])
    weights = spec.mixture.as_dict()
    help_ = math.sqrt(sum(HELP.get(d, 0.0) * w for d, w in weights.items()))
    ends = {"descriptions": 3.05 - 0.35 * help_} | {
        d: 2.2 - 0.8 * math.sqrt(w) for d, w in weights.items()
    }
    ends = {d: v + rng.normal(0, 0.004) for d, v in ends.items()}
    curve = []
    for step in range(1, 6):
        tokens = FIDELITY.tokens * step // 5
        shape = (tokens / FIDELITY.tokens) ** -0.12
        metrics = {f"bpb/{d}": v * shape for d, v in ends.items()}
        metrics |= {f"loss/{d}": v * shape * 2.1 for d, v in ends.items()}
        training = {
            "loss": 5.2 * shape,
            "learning_rate": 3e-3 * (1 - step / 6),
            "grad_norm": 0.8 * shape,
            "tokens_per_second": FIDELITY.tokens / 15,
        }
        curve.append(CurvePoint(step * 40, tokens, metrics, seconds=3.0 * step, training=training))
    loads = {d: tuple(rng.dirichlet([8, 8, 8, 8]).tolist()) for d in ends}
    cost = Cost(FIDELITY.tokens, 15.0 + rng.normal(0, 0.3), 2.4e11)
    about = {"mixopt": "0.1.0", "torch": "2.13.0", "device": "cpu"}
    return TrialResult(curve[-1].metrics, tuple(curve), cost, loads, about)


def write_verdict(study: Study, candidates: dict[str, Mixture]) -> None:
    ledger = open_ledger(study)
    trials = ledger.trials()
    ledger.close()
    selection = Selection(candidates, FIDELITY, study.mixture_objective(), SEEDS, confidence=0.9)
    found = verdict_of(judge(selection, trials))
    files.write_json(study.home / "verdict.json", found.to_json())
    files.write_json(study.home / "mixture.json", found.mixture.as_dict())


def verdict_of(decision: Decision, **changes: Any) -> Verdict:
    """`decision` with what a search might have predicted of it."""
    candidates = tuple(
        dataclasses.replace(it, predicted=around(it.mean + 0.006)) if it.mean is not None else it
        for it in decision.candidates
    )
    winner = decision.winner
    about: dict[str, Any] = {
        **{field.name: getattr(decision, field.name) for field in dataclasses.fields(decision)},
        "candidates": candidates,
        "found": winner.name,
        "recommended": winner.mixture,
        "interval": (2.7, 2.8),
        "interval_of_run": (2.69, 2.81),
        "interval_of_this_seed": (2.72, 2.78),
        "seed_scatter": None,
        "unconstrained": Mixture.uniform(winner.mixture.domains),
        "unconstrained_mean": 2.7,
        "unguarded": None,
        "unguarded_mean": None,
        "guards": {},
        "binding": ("docstrings: at its upper bound 0.60 (4 epochs of 90k tokens)",),
        "prices": {},
        "kl": 0.4,
        "kl_penalty": 0.0,
        "surrogate": "gp",
        "surrogate_scores": {
            "gp": Score(0.93, 0.88, 0.01, 0.9, 11),
            "lightgbm": Score(0.71, 0.52, 0.02, 0.8, 11),
        },
        "multipliers": {
            it.name: Multiplier(1.42, 1.2, 1.9, lower_bound=True)
            for it in candidates
            if it.difference is not None and it.difference < 0
        },
        "basis": "made up",
    }
    return Verdict(**about | changes)


def around(mean: float) -> Predicted:
    return Predicted(mean, 0.011, mean - 0.018, mean + 0.018)


def write_promotion(study: Study, mixture: Mixture) -> None:
    folder = study.home / "promotion"
    model = folder / "model"
    files.write_bytes(model / "model.safetensors", b"weights")
    files.write_json(model / "config.json", {"model_type": "mixtral"})
    files.write_json(folder / "result.json", promotion_of(mixture).to_json())


def promotion_of(mixture: Mixture, **changes: Any) -> Promotion:
    """What a promotion of `mixture` might have measured."""
    end = dict(result(TrialSpec(mixture, FIDELITY, 3)).metrics)
    kept = {name: value for name, value in end.items() if name.startswith("bpb/")}
    names = tuple(mixture.domains)
    rng = np.random.default_rng(1)
    about: dict[str, Any] = {
        "id": "made-up",
        "finished": "2026-01-01T00:00:00+0000",
        "mixopt": "0.1.0",
        "corpus_hash": "c0" * 32,
        "sequence_length": 64,
        "method": "branch-train-mix",
        "mixture_name": "found",
        "mixture": mixture,
        "imported": {},
        "tokens": 600_000,
        "device_seconds": 107.0,
        "stages": (
            Stage("seed", "seed", 600_000, 22.0, {}),
            *(Stage(f"expert {name}", "expert", 200_000, 7.5, {}) for name in names),
            Stage("upcycled", "moe", 600_000, 40.0, kept),
        ),
        "seed": {k: v * 1.12 for k, v in kept.items()},
        "before": {k: v * 1.25 for k, v in kept.items()},
        "after": kept,
        "predicted": {k: around(v + 0.02) for k, v in kept.items()},
        "predicted_of": FIDELITY,
        "loads": {
            d: tuple(rng.dirichlet([1.0 + 12.0 * (d == other) for other in names]).tolist())
            for d in names
        },
        "entropies": dict.fromkeys(names, 1.38),
        "dropped": dict.fromkeys(names, 0.0),
        "expert_names": names,
        "receipt": Receipt(
            "branch-train-mix", names, 1.0, router_entropy=dict.fromkeys(names, 1.38)
        ),
        "curve": tuple(
            CurvePoint(
                s, 150_000 * s, {k: v * (1.25 - 0.0625 * s) for k, v in kept.items()}, 9.0 * s
            )
            for s in range(1, 5)
        ),
        "files": {},
        "model": "model",
        "model_params": 1_204_224,
        "active_params": 401_408,
    }
    return Promotion(**about | changes)


def write_corpus(folder: Path) -> Corpus:
    """Shards of the right sizes; nobody reads their tokens here."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    np.save(folder / "bytes.npy", np.full(64, 3.0))
    records = {}
    for name, tokens in {**TOKENS, "descriptions": 0}.items():
        sizes = {"train": tokens, "validation": 20_000}
        shards = {s: write_shard(folder / f"{name}.{s}.bin", n) for s, n in sizes.items()}
        records[name] = DomainRecord(
            role="train" if tokens else "target",
            source="tokens",
            files=1,
            **shards,
            duplicates=0,
            skipped=0,
            first_skipped="",
            token_bytes="exact",
            key="",
            claimed="",
            documents_path="",
        )
    tokenizer = TokenizerRecord(
        path="tokenizer.json",
        bytes_path="bytes.npy",
        hash=file_sha256(folder / "tokenizer.json"),
        key="",
        vocab_size=64,
        end_of_text="<end>",
        end_of_text_id=0,
    )
    Manifest(tokenizer, records, validation=0.1, dtype="uint16").write(folder)
    return Corpus.open(folder)


def write_shard(path: Path, tokens: int) -> Shard:
    path.write_bytes(np.ones(tokens, np.uint16).tobytes())
    return Shard(path.name, tokens, 1, 3 * tokens, file_sha256(path))
