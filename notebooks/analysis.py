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
# Name the study file before you start: `MIXOPT_STUDY=demo/study.yaml jupyter lab`. The study may be
# running: it is only read. Nothing here computes anything of its own: `mixopt.open_study` gives
# every table and figure, for your own notebooks too (docs/python.md).

# %%
import os

import polars as pl

import mixopt

study = mixopt.open_study(os.environ.get("MIXOPT_STUDY", "demo/study.yaml"))
study

# %% [markdown]
# ## What ran
#
# One row per trial. A failed trial has a reason, and never a score.

# %%
objective = pl.col("objective")
study.trials.group_by("role", "state", maintain_order=True).agg(
    pl.len().alias("trials"),
    pl.col("tokens").sum(),
    pl.col("device_seconds").sum().round(1),
    (objective.max() if study.higher_is_better else objective.min()).alias("best objective"),
)

# %%
done = study.trials.drop_nulls("objective")
done.sort("objective", descending=study.higher_is_better).select(
    "trial", "role", "seed", "objective", pl.selectors.starts_with("mixture.")
).head(8)

# %% [markdown]
# ## Did the search get anywhere?
#
# Grey is the initial design, blue what the proposer asked for. If blue lies no lower than grey, the
# surrogate has not learned anything that random mixtures did not show.

# %%
study.plots.progress()

# %%
study.plots.curves()

# %% [markdown]
# ## What does each domain do?
#
# One panel per domain. A slope is a hint, not a cause: weights sum to one, so that more of one
# domain is always less of the others.

# %%
study.plots.weights()

# %% [markdown]
# ## May we believe the surrogate?
#
# Every trial is predicted by a surrogate that has not seen its mixture. Points should follow the
# line, and nine in ten intervals should cross it.

# %%
study.plots.surrogate()

# %% [markdown]
# ## Was it luck?
#
# The finalists were trained again with fresh seeds, the baseline and the uniform mixture beside
# them. The search's own best value is not shown here: it was chosen for being low.

# %%
study.plots.candidates()

# %%
study.plots.mixtures()

# %%
print(study.verdict.reason if study.verdict else "Nothing is selected yet.")

# %% [markdown]
# ## What became of the promoted model?

# %%
study.plots.promotion()

# %%
study.plots.experts()
