"""Trials shown while they train, from a thread of its own: a slow MLflow keeps nobody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from mixopt.core.trials import CurvePoint, State, Trial

Show = Callable[[Trial, Sequence[CurvePoint]], object]


class LiveView:
    """A queue with one place per trial, and the thread that shows what is in it.

    What is posted of a trial before it was shown is shown at once: however slow MLflow is, no more
    waits than there are trials. The thread ends with the process.

    Args:
        show: shows a trial as it stands, and points of its curve that are new; raises nothing.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._changed = threading.Condition()
        self._posts: dict[int, tuple[Trial, list[CurvePoint]]] = {}
        self._busy = False
        self._thread: threading.Thread | None = None

    def post(self, trial: Trial, points: Sequence[CurvePoint] = ()) -> None:
        """Have `trial` shown as it stands now, and `points`, which its curve has since."""
        with self._changed:
            _, before = self._posts.get(trial.number, (trial, []))
            # one that has ended is shown with its whole curve
            points = [*before, *points] if trial.state is State.RUNNING else []
            self._posts[trial.number] = (trial, points)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget what was posted and not shown."""
        with self._changed:
            self._posts.clear()

    def wait(self, seconds: float) -> bool:
        """Wait until everything posted is shown; whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._posts or self._busy:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not self._posts:
                    self._changed.wait()
                trial, points = self._posts.pop(next(iter(self._posts)))
                self._busy = True
            self._show(trial, points)
