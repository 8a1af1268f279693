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
# Five questions, from the ledger and the study folder: what won, by how much and how surely, what
# it costs elsewhere, what it was compared with, and what to run next. `mixopt report` answers the
# same.
#
# Name your study file before you start: `MIXOPT_STUDY=my/study.yaml jupyter lab`. The study may be
# running: it is only read. `mixopt.open_study` gives every table and figure, for your own notebooks
# too (docs/python.md). The outputs below are of `make demo`; `make notebook` makes them anew.

# %%
import os

import mixopt

study = mixopt.open_study(os.environ.get("MIXOPT_STUDY", "demo/study.yaml"))
study

# %% [markdown]
# ## 1 · What won?
#
# The mixture that the selection chose, beside the baseline and the other candidates.

# %%
print(study.verdict.reason if study.verdict else "Nothing is selected yet.")

# %%
study.plots.mixtures()

# %% [markdown]
# ## 2 · By how much, and how surely?
#
# The finalists were trained again with fresh seeds, the baseline beside them. The search's own best
# value is not shown: it was chosen for being low. Intervals are of 90 %, of the difference from the
# baseline over shared seeds.

# %%
study.candidates

# %%
study.plots.candidates()

# %% [markdown]
# ## 3 · What does it cost elsewhere?
#
# Every metric of the selection's runs: the selected mixture's difference from the baseline, with
# its 90 % interval.

# %%
chosen = study.verdict.promoted if study.verdict else ""
study.differences.filter(candidate=chosen)

# %% [markdown]
# One panel per domain. A slope is a hint, not a cause: weights sum to one, so that more of one
# domain is always less of the others.

# %%
study.plots.weights()

# %% [markdown]
# ## 4 · What was it compared with?
#
# All trials, by what they were for. A failed trial has a reason, and never a score.

# %%
study.trials.group_by("role", "state", maintain_order=True).len("trials")

# %% [markdown]
# If the search's marks lie no lower than the design's, the surrogate has not learned anything that
# random mixtures did not show.

# %%
study.plots.progress()

# %%
study.plots.curves()

# %% [markdown]
# ### May we believe the surrogate?
#
# Every trial is predicted by a surrogate that has not seen its mixture. Points should follow the
# line, and nine in ten intervals should cross it.

# %%
study.plots.surrogate()

# %% [markdown]
# ## 5 · What to run next?
#
# Train on the mixture: `mixopt export STUDY --mixture FORMAT` writes it for your trainer, with
# tokens and epochs.

# %%
print(study.export_mixture("json") if study.verdict else "Go on with `mixopt run`.")

# %% [markdown]
# What became of the promoted model, where there is one:

# %%
study.plots.promotion()

# %%
study.plots.experts()
