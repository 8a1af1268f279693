"""Upcycling: dense models in, one mixture-of-experts model and its receipt out; see `base`."""

from __future__ import annotations

from collections.abc import Mapping

# here and not in `base`, which imports torch: reading a study file checks the name
UPCYCLERS: Mapping[str, str] = {
    "branch-train-mix": "mixopt.models.upcycling.branch_train_mix:BranchTrainMix",
    "sparse": "mixopt.models.upcycling.sparse:SparseUpcycling",
}
MERGES: Mapping[str, str] = {
    "average": "mixopt.models.upcycling.merges:Average",
}
ROUTER_STARTS: Mapping[str, str] = {
    "random": "mixopt.models.upcycling.router_starts:RandomRouter",
}
