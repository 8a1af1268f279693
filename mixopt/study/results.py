"""The records that a study leaves: its verdict and its promotion.

`verdict.json` and `promotion/result.json` hold them as JSON; console, report, figures, MLflow and
notebooks read these types and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixopt.core.formatting import numbered
from mixopt.core.mixture import Mixture
from mixopt.core.trials import CurvePoint, Fidelity
from mixopt.corpus.manifest import digest
from mixopt.io.json_values import finite
from mixopt.io.trial_files import curve_points
from mixopt.models.upcycling.receipt import Receipt
from mixopt.selection.multiplier import Multiplier
from mixopt.selection.results import Candidate, Decision, Predicted, interval_turned, number
from mixopt.surrogates.noise import SeedScatter
from mixopt.surrogates.scoring import Score

OWN = "own"  # kind of the training by a trainer of the user's
VERSION = 1  # of the two files; a file of another version is not read

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Verdict(Decision):
    """How a selection ended, and what the search had predicted: `verdict.json`.

    Attributes:
        found: name of the best candidate that the search proposed; None if none was measured.
        recommended: the surrogate's optimum in the space.
        interval: 90 % interval of the objective at `recommended`, for the mean over all seeds.
        interval_of_run: the same for one run with a fresh seed.
        interval_of_this_seed: the same for the search's own seed.
        seed_scatter: of a run over seeds; None where no mixture was run with several.
        unconstrained: the surrogate's optimum without constraints.
        unconstrained_mean: predicted objective there.
        unguarded: the surrogate's optimum without guardrails; None if there are none.
        unguarded_mean: predicted objective there: the difference to the mean at `recommended` is
            the guardrails' price.
        guards: by guarded metric, how much worse than the baseline's it is expected to be at
            `recommended`, and how much is allowed.
        binding: the constraints that hold `recommended`, a sentence each.
        prices: by sentence of `binding`, how much lower the optimum is without that constraint.
        kl: KL(recommended || baseline) in nats; None if infinite.
        kl_penalty: what a nat of it was made to cost.
        surrogate: registry name of the one that was used.
        surrogate_scores: held-out scores of the surrogates that were compared, by name.
        multipliers: by candidate that is measured better than the baseline, how many times the
            tokens the baseline would need for the same.
        basis: digest of the trials and settings that all this follows from.
    """

    found: str | None
    recommended: Mixture
    interval: Interval
    interval_of_run: Interval
    interval_of_this_seed: Interval
    seed_scatter: SeedScatter | None
    unconstrained: Mixture
    unconstrained_mean: float
    unguarded: Mixture | None
    unguarded_mean: float | None
    guards: Mapping[str, tuple[float, float]]
    binding: tuple[str, ...]
    prices: Mapping[str, float]
    kl: float | None
    kl_penalty: float
    surrogate: str
    surrogate_scores: Mapping[str, Score]
    multipliers: Mapping[str, Multiplier]
    basis: str

    def turned(self, sign: int) -> Verdict:
        """The verdict with `sign` (1 or -1) times its objective: as people read it."""
        if sign == 1:
            return self
        unguarded = self.unguarded_mean
        return dataclasses.replace(
            self,
            candidates=tuple(candidate.turned(sign) for candidate in self.candidates),
            interval=interval_turned(*self.interval, sign),
            interval_of_run=interval_turned(*self.interval_of_run, sign),
            interval_of_this_seed=interval_turned(*self.interval_of_this_seed, sign),
            unconstrained_mean=sign * self.unconstrained_mean,
            unguarded_mean=None if unguarded is None else sign * unguarded,
        )

    def to_json(self) -> dict[str, Any]:
        """The content of `verdict.json`; `from_json` gives the verdict back exactly.

        `mixture`, the promoted one, is written for people: it is that of the candidate `promoted`.
        """
        scatter = self.seed_scatter
        return {
            "version": VERSION,
            "promoted": self.promoted,
            "improved": self.improved,
            "reason": self.reason,
            "mixture": self.mixture.as_dict(),
            "baseline": self.baseline,
            "found": self.found,
            "confidence": self.confidence,
            "level": self.level,
            "look": self.look,
            "looks": self.looks,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "recommended": self.recommended.as_dict(),
            "interval": list(self.interval),
            "interval_of_run": list(self.interval_of_run),
            "interval_of_this_seed": list(self.interval_of_this_seed),
            "seed_scatter": None if scatter is None else dataclasses.asdict(scatter),
            "unconstrained": self.unconstrained.as_dict(),
            "unconstrained_mean": self.unconstrained_mean,
            "unguarded": None if self.unguarded is None else self.unguarded.as_dict(),
            "unguarded_mean": self.unguarded_mean,
            "guards": {name: list(pair) for name, pair in self.guards.items()},
            "binding": list(self.binding),
            "prices": dict(self.prices),
            "kl": self.kl,
            "kl_penalty": self.kl_penalty,
            "surrogate": self.surrogate,
            "surrogate_scores": {
                name: finite(dataclasses.asdict(score))
                for name, score in self.surrogate_scores.items()
            },
            "multipliers": {name: it.to_json() for name, it in self.multipliers.items()},
            "basis": self.basis,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: `values` are of another version or
                shape.
        """
        _check_version(values)
        scatter, unguarded = values["seed_scatter"], values["unguarded"]
        verdict = cls(
            baseline=str(values["baseline"]),
            promoted=str(values["promoted"]),
            improved=bool(values["improved"]),
            reason=str(values["reason"]),
            confidence=float(values["confidence"]),
            level=float(values["level"]),
            look=int(values["look"]),
            looks=int(values["looks"]),
            candidates=tuple(Candidate.from_json(it) for it in values["candidates"]),
            found=None if values["found"] is None else str(values["found"]),
            recommended=Mixture.exact(values["recommended"]),
            interval=_interval(values["interval"]),
            interval_of_run=_interval(values["interval_of_run"]),
            interval_of_this_seed=_interval(values["interval_of_this_seed"]),
            seed_scatter=None if scatter is None else SeedScatter(**scatter),
            unconstrained=Mixture.exact(values["unconstrained"]),
            unconstrained_mean=float(values["unconstrained_mean"]),
            unguarded=None if unguarded is None else Mixture.exact(unguarded),
            unguarded_mean=number(values["unguarded_mean"]),
            guards={name: (float(a), float(b)) for name, (a, b) in values["guards"].items()},
            binding=tuple(str(line) for line in values["binding"]),
            prices=_numbers(values["prices"]),
            kl=number(values["kl"]),
            kl_penalty=float(values["kl_penalty"]),
            surrogate=str(values["surrogate"]),
            surrogate_scores={
                name: _score_from_json(score) for name, score in values["surrogate_scores"].items()
            },
            multipliers={
                name: Multiplier.from_json(it) for name, it in values["multipliers"].items()
            },
            basis=str(values["basis"]),
        )
        if verdict.candidate(verdict.promoted) is None:
            raise ValueError(f"the promoted {verdict.promoted!r} is no candidate")
        return verdict


@dataclass(frozen=True)
class Stage:
    """One training of a promotion.

    Attributes:
        name: `seed`, `expert DOMAIN`, `upcycled` or, of a trainer of the user's, `full run`.
        kind: `seed`, `expert`, `moe` or `own`.
        tokens: training tokens.
        device_seconds: of all attempts.
        metrics: at its end.
    """

    name: str
    kind: str
    tokens: int
    device_seconds: float
    metrics: Mapping[str, float]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Stage:
        """The stage that `dataclasses.asdict` described."""
        return cls(
            str(values["name"]),
            str(values["kind"]),
            int(values["tokens"]),
            float(values["device_seconds"]),
            _numbers(values["metrics"]),
        )


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What a promotion measured: `promotion/result.json`.

    Attributes:
        id: digest of its settings, the name of its folder.
        finished: when, in ISO 8601.
        mixopt: version of the code that trained the model.
        corpus_hash: of the corpus that it was trained on.
        sequence_length: tokens of a training sequence; None of a trainer of the user's.
        method: the upcycler; where nothing is upcycled here, `own trainer` or `elsewhere`.
        mixture_name: the candidate that was promoted.
        mixture: what the upcycled model was trained on, or is to be.
        imported: `seed` and domains → existing models in the place of trainings, as the study file
            named them.
        tokens: training tokens of all stages.
        device_seconds: device time of all stages.
        stages: in order.
        seed: metrics of the dense seed model; empty without one.
        before: metrics of the upcycled model before its training; empty without one.
        after: metrics at the end; empty where it was not trained.
        predicted: by metric, what is predicted of one run of a proxy on the mixture with a fresh
            seed: not a prediction of the promoted run.
        predicted_of: that proxy's size and tokens.
        loads: domain → share of assignments per expert (sums to 1).
        entropies: domain → nats of entropy of a token's gates.
        dropped: domain → share of tokens that reach no expert.
        expert_names: domain that each expert was branched for.
        receipt: the upcycler's account of what it did; None where nothing is upcycled here.
        curve: evaluations of the last stage.
        files: by name, size and checksum of the model's files.
        model: folder of the exported model, relative to the study's `promotion` folder.
        model_params: parameters of the promoted model; None where they are not known.
        active_params: of them, those that one token uses; None where they are not known.
        checkpoint: of a full run that was trained elsewhere, where its checkpoint is; else empty.
    """

    id: str
    finished: str
    mixopt: str
    corpus_hash: str
    sequence_length: int | None
    method: str
    mixture_name: str
    mixture: Mixture
    imported: Mapping[str, str]
    tokens: int
    device_seconds: float
    stages: tuple[Stage, ...]
    seed: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]
    predicted: Mapping[str, Predicted]
    predicted_of: Fidelity
    loads: Mapping[str, tuple[float, ...]]
    entropies: Mapping[str, float]
    dropped: Mapping[str, float]
    expert_names: tuple[str, ...]
    receipt: Receipt | None
    curve: tuple[CurvePoint, ...] = field(repr=False)
    files: Mapping[str, Any] = field(repr=False)
    model: str
    model_params: int | None
    active_params: int | None
    checkpoint: str = ""

    @property
    def trained(self) -> bool:
        """Whether the upcycled model was trained; `promote.train` leaves checkpoints untrained."""
        return bool(self.after)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the promoted model as it is."""
        return self.after or self.before

    @property
    def expert_labels(self) -> list[str]:
        """What each expert that `loads` has a share of is called; those from the seed last."""
        more = max(map(len, self.loads.values()), default=0) - len(self.expert_names)
        return numbered([*self.expert_names, *["seed"] * more])

    @property
    def has_weights(self) -> bool:
        """Whether `files` has the model's weights."""
        if not self.upcycled:  # in whatever format its trainer has
            return bool(self.files)
        return any(name.endswith(".safetensors") for name in self.files)

    @property
    def by_trainer(self) -> bool:
        """Whether a trainer of the user's trained it, from our upcycled model or from none."""
        return any(stage.kind == OWN for stage in self.stages)

    @property
    def upcycled(self) -> bool:
        """Whether it is by our upcycling alone; else a trainer of the user's made the weights."""
        return self.receipt is not None and not self.by_trainer

    @property
    def key(self) -> str:
        """Identity of the record: what MLflow's version of the model is found by."""
        values = self.to_json()
        if not self.checkpoint:  # a key that came later: others keep their identity
            del values["checkpoint"]
        return digest(values)[:16]

    def to_json(self) -> dict[str, Any]:
        """The content of `promotion/result.json`; `from_json` gives the record back exactly."""
        return {
            "version": VERSION,
            "id": self.id,
            "finished": self.finished,
            "mixopt": self.mixopt,
            "corpus_hash": self.corpus_hash,
            "sequence_length": self.sequence_length,
            "method": self.method,
            "mixture_name": self.mixture_name,
            "mixture": self.mixture.as_dict(),
            "imported": dict(self.imported),
            "tokens": self.tokens,
            "device_seconds": self.device_seconds,
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "seed": dict(self.seed),
            "before": dict(self.before),
            "after": dict(self.after),
            "predicted": {name: value.to_json() for name, value in self.predicted.items()},
            "predicted_of": dataclasses.asdict(self.predicted_of),
            "loads": {domain: list(load) for domain, load in self.loads.items()},
            "entropies": dict(self.entropies),
            "dropped": dict(self.dropped),
            "expert_names": list(self.expert_names),
            "receipt": None if self.receipt is None else self.receipt.to_json(),
            "curve": [dataclasses.asdict(point) for point in self.curve],
            "files": dict(self.files),
            "model": self.model,
            "model_params": self.model_params,
            "active_params": self.active_params,
            "checkpoint": self.checkpoint,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Promotion:
        """The promotion that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: `values` are of another version or
                shape.
        """
        _check_version(values)
        receipt = values["receipt"]
        return cls(
            id=str(values["id"]),
            finished=str(values["finished"]),
            mixopt=str(values["mixopt"]),
            corpus_hash=str(values["corpus_hash"]),
            sequence_length=_count(values["sequence_length"]),
            method=str(values["method"]),
            mixture_name=str(values["mixture_name"]),
            mixture=Mixture.exact(values["mixture"]),
            imported={name: str(model) for name, model in values["imported"].items()},
            tokens=int(values["tokens"]),
            device_seconds=float(values["device_seconds"]),
            stages=tuple(Stage.from_json(stage) for stage in values["stages"]),
            seed=_numbers(values["seed"]),
            before=_numbers(values["before"]),
            after=_numbers(values["after"]),
            predicted={
                name: Predicted.from_json(value) for name, value in values["predicted"].items()
            },
            predicted_of=Fidelity(**values["predicted_of"]),
            loads={domain: tuple(map(float, load)) for domain, load in values["loads"].items()},
            entropies=_numbers(values["entropies"]),
            dropped=_numbers(values["dropped"]),
            expert_names=tuple(str(name) for name in values["expert_names"]),
            receipt=None if receipt is None else Receipt.from_json(receipt),
            curve=tuple(curve_points(values["curve"])),
            files=dict(values["files"]),
            model=str(values["model"]),
            model_params=_count(values["model_params"]),
            active_params=_count(values["active_params"]),
            checkpoint=str(values.get("checkpoint", "")),
        )


def _check_version(values: Mapping[str, Any]) -> None:
    if values["version"] != VERSION:
        raise ValueError(f"version {values['version']} is not {VERSION}")


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _interval(values: Any) -> Interval:
    low, high = values
    return float(low), float(high)


def _score_from_json(values: Mapping[str, Any]) -> Score:
    """A score that is not defined is NaN, in JSON null."""
    of = {key: math.nan if value is None else float(value) for key, value in values.items()}
    return Score(of["spearman"], of["r2"], of["mae"], of["coverage"], int(of["n"]))
