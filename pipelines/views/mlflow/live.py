"""Trials and promotions shown while they train, by a thread: a slow MLflow keeps nobody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mixopt.core.trials import CurvePoint, State, Trial

Show = Callable[[Trial, Sequence[CurvePoint]], object]


class LiveView:
    """A queue with a place per trial and one for a promotion, and the thread that shows them.

    What is posted of a trial before it was shown is shown at once: however slow MLflow is, no more
    waits than there are trials. The thread ends with the process. After `end` nothing is taken, and
    what the thread had taken before is `outdated`, until `begin`.

    Args:
        show: shows a trial as it stands, and points of its curve that are new; raises nothing.
        show_promotion: shows what the trainings of a promotion reported; raises nothing.
    """

    def __init__(self, show: Show, show_promotion: Callable[[Path], object]) -> None:
        self._show, self._show_promotion = show, show_promotion
        self._promotion: Path | None = None
        self._changed = threading.Condition()
        self._posts: dict[int, tuple[Trial, list[CurvePoint]]] = {}
        self._busy = False
        self._ended = False
        self._cleared = 0  # how often
        self._taken = 0  # … when the thread took what it shows now
        self._thread: threading.Thread | None = None

    def post(self, trial: Trial, points: Sequence[CurvePoint] = ()) -> None:
        """Have `trial` shown as it stands now, and `points`, which its curve has since."""
        with self._changed:
            if self._ended:
                return
            _, before = self._posts.get(trial.number, (trial, []))
            # one that has ended is shown with its whole curve
            points = [*before, *points] if trial.state is State.RUNNING else []
            self._posts[trial.number] = (trial, points)
            self._wake()

    def post_promotion(self, folder: Path) -> None:
        """Have shown what the trainings of the promotion in `folder` reported by then."""
        with self._changed:
            if not self._ended:
                self._promotion = folder
                self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def clear(self) -> None:
        """Forget what was posted and not shown; what is on its way is outdated."""
        with self._changed:
            self._posts.clear()
            self._promotion = None
            self._cleared += 1

    def begin(self) -> None:
        """Take posts, again if it had ended."""
        with self._changed:
            self._ended = False

    def end(self) -> None:
        """Forget what was posted, and take no more."""
        with self._changed:
            self._ended = True
        self.clear()

    @property
    def outdated(self) -> bool:
        """In its thread: whether all was forgotten since it took what it is about to show."""
        return threading.current_thread() is self._thread and self._taken != self._cleared

    def wait(self, seconds: float) -> bool:
        """Wait until everything posted is shown; whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._waits or self._busy:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    @property
    def _waits(self) -> bool:
        return bool(self._posts) or self._promotion is not None

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not self._waits:
                    self._changed.wait()
                show = self._next()
                self._busy, self._taken = True, self._cleared
            show()

    def _next(self) -> Callable[[], object]:
        if self._posts:
            return partial(self._show, *self._posts.pop(next(iter(self._posts))))
        assert self._promotion is not None
        folder, self._promotion = self._promotion, None
        return partial(self._show_promotion, folder)
