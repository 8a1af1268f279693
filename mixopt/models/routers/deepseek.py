"""DeepSeekMoE routing (2401.06066): gates are the softmax affinities of the chosen experts.

The fine experts and the shared ones are the model's shape: `ModelConfig.split_experts` and
`shared_experts`.
"""

from __future__ import annotations

from mixopt.models.routers.settings import PlainGates
from mixopt.models.routers.softmax import SoftmaxRouter


class DeepSeekRouter(SoftmaxRouter):
    """The k largest of softmax(x W), never divided by their sum."""

    settings_class = PlainGates
