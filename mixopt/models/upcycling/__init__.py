"""Upcycling: dense models in, one mixture-of-experts model and its receipt out; see `base`."""

from __future__ import annotations

from collections.abc import Mapping

# here and not in `base`, which imports torch: reading a study file checks the name
UPCYCLERS: Mapping[str, str] = {
    "branch-train-mix": "mixopt.models.upcycling.branch_train_mix:BranchTrainMix",
    "drop-upcycling": "mixopt.models.upcycling.drop_upcycling:DropUpcycling",
    "llama-moe": "mixopt.models.upcycling.llama_moe:LlamaMoE",
    "sparse": "mixopt.models.upcycling.sparse:SparseUpcycling",
    "virtual-groups": "mixopt.models.upcycling.virtual_groups:VirtualGroups",
}
MERGES: Mapping[str, str] = {
    "average": "mixopt.models.upcycling.merges:Average",
    "dare": "mixopt.models.upcycling.dare:Dare",
    "ties": "mixopt.models.upcycling.ties:Ties",
}
ROUTER_STARTS: Mapping[str, str] = {
    "domain-embedding": "mixopt.models.upcycling.domain_embedding:DomainEmbedding",
    "random": "mixopt.models.upcycling.router_starts:RandomRouter",
    "ridge": "mixopt.models.upcycling.ridge:Ridge",
}

SEED = "seed"  # the name of the seed model among the sources of experts
