"""One loop over the driver's events, for a search's trials and a promotion's stages alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mixopt.core.trials import Outcome
from mixopt.pipelines.views.console import Display
from mixopt.workers.cluster import Resources
from mixopt.workers.proxy_task import Work

if TYPE_CHECKING:
    from mixopt.workers import driver


class Training(ABC):
    """A work for the driver, how it is shown, and what its events change.

    Args:
        work: what a worker is given.
        label: its name in messages.
        tokens: training tokens of each of its proxies.
        proxies: how many proxies train as one.
        bars: name of each bar that shows it → FLOPs of that bar.
    """

    def __init__(
        self, work: Work, label: str, tokens: int, proxies: int, bars: Mapping[str, float]
    ) -> None:
        self.work, self.label, self.tokens = work, label, tokens
        self.proxies, self.bars = proxies, bars

    def started(self) -> None:  # noqa: B027 (most have nothing to do)
        """A worker began an attempt."""

    def progressed(self) -> None:  # noqa: B027
        """A worker trained on, and may have evaluated."""

    @abstractmethod
    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """The work has ended, with an outcome per proxy."""

    @abstractmethod
    def failed(self, event: driver.Failed) -> None:
        """An attempt failed; the driver tries again unless `event.final`. May raise."""


def train(trainings: Sequence[Training], resources: Resources, display: Display) -> None:
    """Train all on the connected cluster, and tell each what becomes of it.

    Raises:
        CorpusError: a worker met bad data.
        TrainingError: a worker crashed.
    """
    from mixopt.workers import driver  # imports Ray

    by_key = {training.work.key: training for training in trainings}
    for event in driver.run([training.work for training in trainings], resources):
        if isinstance(event, driver.Waiting):
            display.warn(event.message)
            continue
        training = by_key[event.key]
        match event:
            case driver.Started():
                training.started()
                for bar in training.bars:
                    display.started(bar)
            case driver.Progressed():
                training.progressed()
                _show(training, event, display)
            case driver.Finished():
                training.finished(event.outcomes)
                for bar, flops in training.bars.items():
                    display.finished(bar, flops)
            case driver.Failed():
                training.failed(event)


def _show(training: Training, event: driver.Progressed, display: Display) -> None:
    if event.note:
        display.say(f"{training.label}: {event.note}", style="dim")  # a note is no fault
        if not event.tokens:
            return
    share, speed = event.tokens / training.tokens, event.tokens_per_second / training.proxies
    before = event.resumed / training.tokens
    for bar, flops in training.bars.items():
        display.progress(bar, flops * share, speed, share, flops * before)
