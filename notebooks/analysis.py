# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What did the study find?
#
# Opens a study that has run and asks it, from the ledger and the study folder: was a better mixture
# found, may we believe it, what does each domain do, and what became of the promoted model?
#
# Name the study file before you start: `MIXOPT_STUDY=demo/study.yaml jupyter lab`. Nothing here
# computes anything of its own: every table and figure is a library function that you can call on
# your own trials.

# %%
import os
from pathlib import Path

import polars as pl

from mixopt.core.mixture import Mixture
from mixopt.core.trials import Role, TrialTable
from mixopt.corpus.shards import Corpus
from mixopt.io import trial_files
from mixopt.plots import study as plots
from mixopt.study import identity, records
from mixopt.study.frames import trials_frame
from mixopt.study.ledger import Ledger
from mixopt.study.settings import load_study
from mixopt.surrogates import make
from mixopt.surrogates.diagnostics import out_of_fold

study = load_study(Path(os.environ.get("MIXOPT_STUDY", "demo/study.yaml")))
objective = study.mixture_objective()
ledger = Ledger.read(study.ledger_url, study.name, objective, identity.read(study.home))
trials = ledger.trials()
verdict = records.read_verdict(study.home)
promotion = records.read_promotion(study.home)
available = Corpus.open(study.corpus_path).tokens

# %% [markdown]
# ## What ran
#
# One row per trial. A failed trial has a reason, and never a score.

# %%
frame = trials_frame(trials, objective)
frame.group_by("role", "state", maintain_order=True).agg(
    pl.len().alias("trials"),
    pl.col("tokens").sum(),
    pl.col("device_seconds").sum().round(1),
    pl.col("objective").min().alias("best objective"),
)

# %%
frame.drop_nulls("objective").sort("objective").select(
    "trial", "role", "seed", "objective", pl.selectors.starts_with("mixture.")
).head(8)

# %% [markdown]
# ## Did the search get anywhere?
#
# Grey is the first swarm, blue what the proposer asked for. If blue lies no lower than grey, the
# surrogate has not learned anything that random mixtures did not show.

# %%
plots.best_so_far(trials, objective)

# %%
told = [t for t in trials if t.result is not None]  # complete, or pruned on the way
curves = {f"trial {t.number}": trial_files.read_curve(study.home, t) for t in told}
done = frame.filter(pl.col("role") != "select").drop_nulls("objective").sort("objective")
best = f"trial {done['trial'][0]}"
plots.learning_curves(curves, objective, highlight={best: "best observed"})

# %% [markdown]
# ## What does each domain do?
#
# One panel per domain. A slope is a hint, not a cause: weights sum to one, so that more of one
# domain is always less of the others.

# %%
plots.objective_by_weight(trials, objective)

# %% [markdown]
# ## May we believe the surrogate?
#
# Every trial is predicted by a surrogate that has not seen its mixture. Points should follow the
# line, and nine in ten intervals should cross it.

# %%
searched = [t for t in trials if t.spec.role is not Role.SELECT]
table = TrialTable.of(searched, objective.metrics)
name = verdict.get("surrogate", "gp")
quality = out_of_fold(table, objective, lambda: make(name, seed=study.seed), seed=study.seed)
score = quality.scores["objective"]
plots.predicted_against_measured(
    quality.objective_observed,
    quality.objective_mean,
    quality.objective_std,
    scores=f"{name}: rank correlation {score.spearman:.2f}, R² {score.r2:.2f}",
)

# %% [markdown]
# ## Was it luck?
#
# The finalists were trained again with fresh seeds, the natural and the uniform mixture beside
# them. The search's own best value is not shown here: it was chosen for being low.

# %%
mixtures = {row["name"]: Mixture.of(row["mixture"]) for row in verdict.get("candidates", [])}
plots.candidates(verdict, objective)

# %%
shown = mixtures or {"natural": Mixture.natural(available)}
plots.mixture_bars(shown, available=available, budget=study.budget)

# %%
print(verdict.get("reason", "Nothing is selected yet."))

# %% [markdown]
# ## What became of the promoted model?

# %%
plots.before_and_after(promotion)

# %%
plots.expert_loads(promotion.get("loads", {}), promotion.get("expert_names"))

# %%
ledger.close()
