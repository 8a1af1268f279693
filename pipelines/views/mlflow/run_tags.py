"""Names of the tags that runs and model versions carry.

MLflow's pages show no tag whose name begins with `mlflow.`: what only mixopt reads is kept there.
"""

from __future__ import annotations

# shown, and to filter by
STUDY = "mixopt.study"
KIND = "mixopt.kind"  # study, trial or promotion
TRIAL = "mixopt.trial"  # its number
STATE = "mixopt.state"
FAILURE = "mixopt.failure"
PROMOTION = "mixopt.promotion"  # id of the promotion, the name of its folder

# read by mixopt alone
ID = "mlflow.mixopt.id"  # of the study's folder: two studies of one name may share a server
PLACE = "mlflow.mixopt.place"  # machine and folder: only what was made there is removed from there
SPEC = "mlflow.mixopt.spec"  # hash of the trial's spec
LOGGED = "mlflow.mixopt.logged"  # what a child shows: its trial's state, attempts and weights
WEIGHED = "mlflow.mixopt.weighed"  # weights of the objective that `best/…` is of
KEY = "mlflow.mixopt.key"  # of a promotion's record
DECISION = "mlflow.mixopt.decision"  # key of the decision that a version's alias follows from

# MLflow's own
NOTE = "mlflow.note.content"  # a run's description, in Markdown
PARENT = "mlflow.parentRunId"
