"""The model of a study: the surrogate that its file asks for, chosen and fitted to its trials once.

Selection, promotion, report and notebooks ask the same `StudyModel` for the same trials.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mixopt import surrogates
from mixopt.core.guardrails import Guardrail
from mixopt.core.mixture import Mixture
from mixopt.core.objective import Objective
from mixopt.core.space import MixtureSpace
from mixopt.core.trial_table import TrialTable
from mixopt.core.trials import Fidelity, Trial
from mixopt.search.front import Front, pareto_front
from mixopt.search.guards import Guards
from mixopt.search.optimum import Recommendation, recommend
from mixopt.study.queries import search_trials
from mixopt.study.settings import Study
from mixopt.surrogates import noise, scoring
from mixopt.surrogates.base import Surrogate, learn
from mixopt.surrogates.noise import Forecast
from mixopt.surrogates.scoring import Choice, OutOfFold

KEPT = 2  # models: of the study at hand, and of its trials one round earlier


@dataclass(frozen=True)
class ModelSettings:
    """What a study file says of its model.

    Attributes:
        surrogate: registry name, `auto`, or `package.module:Name`.
        seed: of the surrogates and of the splits by which `auto` chooses.
        fidelity: what is predicted.
        objective: what predictions are composed to.
        pruned: whether the study stops trials early.
        guardrails: what its optimum is likely to keep to.
        seeds: that selection compares.
    """

    surrogate: str
    seed: int
    fidelity: Fidelity
    objective: Objective
    pruned: bool = False
    guardrails: tuple[Guardrail, ...] = ()
    seeds: int = 3

    @classmethod
    def of(cls, study: Study, fidelity: Fidelity) -> ModelSettings:
        """Those of `study` as its file stands now."""
        search = study.search
        objective, pruned = study.mixture_objective(), search.pruner is not None
        guards, seeds = study.guarded(), study.select.seeds
        return cls(search.surrogate, study.seed, fidelity, objective, pruned, guards, seeds)


class StudyModel:
    """What a study's trials say of every mixture.

    Every fit is made when it is first asked for, and kept. Use `study_model`, so that all who ask
    about the same trials share one.

    Args:
        settings: what the study asks for.
        trials: of the study; selection's are passed over.
    """

    def __init__(self, settings: ModelSettings, trials: Sequence[Trial]) -> None:
        self.settings = settings
        self.trials = search_trials(trials)
        self._fitted: dict[tuple[str, tuple[str, ...]], Surrogate] = {}
        self._held_out: dict[str, OutOfFold] = {}

    @cached_property
    def key(self) -> Hashable:
        """All that the fits depend on: equal keys have equal models.

        Of the trials those that a fit may learn from, with what they measured or would have. Of the
        surrogate the class too: the same name may stand for another after a module is loaded again.
        """
        asked = self.settings
        learned = [
            (t.number, t.spec, tuple(t.metrics.items()), tuple(t.expected.items()))
            for t in self.trials
            if t.complete or t.expected
        ]
        return (
            surrogates.find(asked.surrogate),
            asked.surrogate,
            asked.seed,
            asked.fidelity,
            tuple(asked.objective.weights.items()),
            asked.pruned,
            (asked.guardrails, asked.seeds if asked.guardrails else 0),
            tuple(learned),
        )

    @cached_property
    def choice(self) -> Choice:
        """The surrogate that the study asks for, with its held-out scores.

        `auto` takes the one that predicts held-out trials best; with a pruner, of those that learn
        from pruned trials: where 71 to 92 % of published runs were pruned, a Gaussian process
        without these recommended mixtures .003 to .014 nats worse than the best, with them at most
        .0002.

        Raises:
            SurrogateError: fewer than 3 trials are complete.
        """
        asked = self.settings
        names: tuple[str, ...] | None = None if asked.surrogate == "auto" else (asked.surrogate,)
        if asked.surrogate == "auto" and asked.pruned:
            names = tuple(n for n in scoring.CANDIDATES if surrogates.make(n).supports_row_noise)
        return scoring.choose(
            TrialTable.of(self.trials, asked.objective.metrics),
            asked.objective,
            seed=asked.seed,
            names=names,
            fidelity=asked.fidelity,
        )

    @property
    def name(self) -> str:
        """Registry name of the surrogate that the study asks for; only `auto` costs fits."""
        asked = self.settings.surrogate
        return self.choice.name if asked == "auto" else asked

    def known_noise(self, name: str, metrics: Sequence[str] = ()) -> dict[str, float]:
        """By metric, the deviation of a run as repeats show it; empty for surrogates that fit it.

        Args:
            name: of the surrogate.
            metrics: those of the objective if none is named.
        """
        kind = surrogates.find(name)
        if not kind.uses_known_noise:
            return {}
        names = tuple(metrics) or self.settings.objective.metrics
        return noise.known(kind, TrialTable.of(self.trials, names))

    def fresh(self, name: str, metrics: Sequence[str] = ()) -> Surrogate:
        """The surrogate `name` with the study's settings, not fitted."""
        return surrogates.make(
            name,
            seed=self.settings.seed,
            fidelity=self.settings.fidelity,
            noise=self.known_noise(name, metrics),
        )

    def fitted(self, name: str = "", metrics: Sequence[str] = ()) -> Surrogate:
        """The surrogate of the search's trials, with measured noise, pruned rows included.

        It is shared: copy it before you fit it to anything else.

        Args:
            name: registry name; the one that the study asks for if empty.
            metrics: those of the objective if none is named: what a verdict follows from. Of a
                pruned trial nothing is known of others, which are learned from complete ones.

        Raises:
            SurrogateError: fewer than 3 trials are complete.
        """
        name = name or self.name
        weighed = self.settings.objective.metrics
        names = tuple(metrics) or weighed
        if (name, names) not in self._fitted:
            table = TrialTable.of(self.trials, names, predicted=set(names) <= set(weighed))
            self._fitted[name, names] = learn(self.fresh(name, names), table)
        return self._fitted[name, names]

    def held_out(self, name: str) -> OutOfFold:
        """Predictions of the complete trials by the surrogate `name`, each without its mixture.

        Raises:
            SurrogateError: fewer than 4 mixtures.
        """
        if name not in self._held_out:
            asked = self.settings
            there = [t for t in self.trials if t.spec.fidelity == asked.fidelity]
            table = TrialTable.of(there, asked.objective.metrics)
            self._held_out[name] = scoring.out_of_fold(
                table,
                asked.objective,
                lambda: surrogates.make(name, seed=asked.seed),
                seed=asked.seed,
            )
        return self._held_out[name]

    def optimum(self, space: MixtureSpace, name: str = "") -> Recommendation:
        """The mixture of `space` that the surrogate (`name`, or the study's) recommends.

        Raises:
            SurrogateError: fewer than 3 trials are complete.
        """
        asked, guards = self.settings, self.guards(space, name)
        return recommend(self.fitted(name), asked.objective, space, asked.seed, guards=guards)

    def front(self, space: MixtureSpace, name: str = "") -> Front:
        """What can be had of the objective's metrics at once; see `mixopt.search.front`.

        Raises:
            StudyError: the objective has one metric.
            SurrogateError: fewer than 3 trials are complete.
        """
        asked, guards = self.settings, self.guards(space, name)
        return pareto_front(self.fitted(name), asked.objective, space, asked.seed, guards)

    def guards(self, space: MixtureSpace, name: str = "") -> Guards | None:
        """The study's guardrails as the surrogate `name` sees them; None if there are none.

        Raises:
            SurrogateError: fewer than 3 complete trials measured the guarded metrics.
        """
        guardrails = self.settings.guardrails
        if not guardrails:
            return None
        fitted = self.fitted(name, tuple(g.metric for g in guardrails))
        measured = [self.settings.objective.of_trial(trial) for trial in self.trials]
        values = [value for value in measured if value is not None]
        gain = max(values) - min(values)
        return Guards(guardrails, fitted, space.reference, self.settings.seeds, gain)

    def forecast(
        self,
        trials: Sequence[Trial],
        mixture: Mixture,
        prediction: tuple[float, float],
        objective: Objective | None = None,
    ) -> Forecast:
        """What runs of `mixture` with fresh seeds will give.

        Args:
            trials: whose repeats show the scatter over seeds: selection's too where it has run.
            mixture: where.
            prediction: mean and standard deviation by a surrogate of the search's trials, which
                share a seed but for repeats.
            objective: what was predicted; the study's own if not given.
        """
        objective, fidelity = objective or self.settings.objective, self.settings.fidelity
        searched = noise.runs_by_mixture(self.trials, objective, fidelity)
        own = searched.get(mixture.key, {})
        scatter = noise.seed_scatter_of(trials, objective, fidelity)
        return Forecast(*prediction, seeds=max(1, len(own)), scatter=scatter)


class SurrogateFactory:
    """Makes fresh surrogates of the kind that the study asks for.

    `auto` compares its candidates with the first of them: designs and MixMin ask for none.

    Args:
        model: of the trials that the surrogates are to learn from.
    """

    def __init__(self, model: StudyModel) -> None:
        self._model = model
        self.name: str | None = None
        """Registry name of those made; None before the first."""

    def __call__(self) -> Surrogate:
        """A fresh, unfitted surrogate."""
        self.name = self._model.name
        return self._model.fresh(self.name)


_models: dict[Hashable, StudyModel] = {}  # the last KEPT by their keys, the oldest first


def study_model(study: Study, fidelity: Fidelity, trials: Sequence[Trial]) -> StudyModel:
    """The model of `study` as its file and `trials` stand; one for all who ask in this process.

    Args:
        study: names surrogate, seed, objective and pruner.
        fidelity: what is predicted.
        trials: of the ledger. Those that have not ended, and selection's, change nothing.

    Raises:
        StudyError: there is no surrogate of that name.
    """
    model = StudyModel(ModelSettings.of(study, fidelity), trials)
    model = _models.pop(model.key, model)
    _models[model.key] = model
    while len(_models) > KEPT:
        del _models[next(iter(_models))]
    return model
