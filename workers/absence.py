"""How long no node of the cluster could train, and when the driver stops waiting for one."""

from __future__ import annotations

import time
from collections.abc import Callable

from mixopt.core.errors import TrainingError

PAUSE_SECONDS = 5.0  # after a node is lost, until Ray has noticed it too
PATIENCE_SECONDS = 600.0  # how long a study waits for nodes before it stops


class Absence:
    """Begins when no node is left or a worker is lost with its node; ends when a worker is heard.

    Args:
        patience: seconds that it may last.
        clock: tells the time, in seconds.
    """

    def __init__(
        self, patience: float = PATIENCE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience, self._clock = patience, clock
        self._since: float | None = None
        self._announced = False
        self._paused_until = clock()

    @property
    def message(self) -> str:
        """That the study waits, and for how long at most."""
        return (
            "no node of the cluster can train now: waiting for one, "
            f"{self._patience / 60:g} minutes at most"
        )

    @property
    def pausing(self) -> bool:
        """Whether a node was lost so lately that Ray may still send work to it."""
        return self._clock() < self._paused_until

    def begins(self) -> bool:
        """No node can train; True the first time since a worker was heard.

        Raises:
            TrainingError: none could for too long.
        """
        self._check()
        first, self._announced = not self._announced, True
        return first

    def loses_a_node(self) -> None:
        """A worker was lost with its node.

        Raises:
            TrainingError: no worker was heard for too long.
        """
        self._paused_until = self._clock() + PAUSE_SECONDS
        self._check()

    def ends(self) -> None:
        """A worker was heard."""
        self._since, self._announced = None, False

    def _check(self) -> None:
        now = self._clock()
        if self._since is None:
            self._since = now
        if now - self._since > self._patience:
            raise TrainingError(
                f"no node could train for {self._patience / 60:g} minutes",
                where="ray.address",
                hint="What was trained is kept; start nodes and run the same command again",
            )
