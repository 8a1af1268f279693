"""A router that can hold trainings still: whoever is killed then is surely in the middle of one."""

from __future__ import annotations

import os
import time
from pathlib import Path

from torch import Tensor

from mixopt.models.routers.base import Routing, RoutingContext
from mixopt.models.routers.softmax import SoftmaxRouter

HOLD = "MIXOPT_TESTS_HOLD"  # environment variable: path of a file


class HeldRouter(SoftmaxRouter):
    """Routes as `softmax`; a training step waits for as long as the file that HOLD names is there.

    The worker knows nothing of it: to Ray, to the driver and to a signal it is one that trains.
    """

    def route(self, x_KND: Tensor, context: RoutingContext) -> Routing:
        file = os.environ.get(HOLD)
        while self.training and file and Path(file).exists():
            time.sleep(0.01)
        return super().route(x_KND, context)
