"""Routers: which experts a token reaches, with what gates. One file each; see `base`."""

from __future__ import annotations

from collections.abc import Mapping

# here and not in `base`, which imports torch: reading a study file checks the name
ROUTERS: Mapping[str, str] = {
    "adamoe": "mixopt.models.routers.adamoe:AdaMoERouter",
    "autonomy": "mixopt.models.routers.autonomy:AutonomyRouter",
    "deepseek": "mixopt.models.routers.deepseek:DeepSeekRouter",
    "dselect-k": "mixopt.models.routers.dselect_k:SelectorRouter",
    "expert-choice": "mixopt.models.routers.expert_choice:ExpertChoiceRouter",
    "hash": "mixopt.models.routers.hash:HashRouter",
    "hmoe": "mixopt.models.routers.hmoe:HeterogeneousRouter",
    "hyper": "mixopt.models.routers.hyper:HyperRouter",
    "loss-free": "mixopt.models.routers.loss_free:LossFreeRouter",
    "mh-moe": "mixopt.models.routers.mh_moe:MultiHeadRouter",
    "moe++": "mixopt.models.routers.moe_plus_plus:CheapExpertsRouter",
    "remoe": "mixopt.models.routers.remoe:ReluRouter",
    "rmoe": "mixopt.models.routers.rmoe:RecurrentRouter",
    "softmax": "mixopt.models.routers.softmax:SoftmaxRouter",
    "stable": "mixopt.models.routers.stable:StableRouter",
    "switch": "mixopt.models.routers.switch:SwitchRouter",
    "top-p": "mixopt.models.routers.top_p:TopPRouter",
    "x-moe": "mixopt.models.routers.x_moe:CosineRouter",
}
DEFAULT = "softmax"  # has no settings of its own: a study file that names it is read without torch
