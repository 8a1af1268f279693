"""How long MLflow takes to show a study of many trials.

Run:
    .venv/bin/python -m benchmarks.mlflow_sync --trials 500
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mixopt.pipelines.views.mlflow.tracking import Tracker
from mixopt.study.settings import Study
from tests.pipelines.finished_study import finished_study, open_ledger, owner_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the study is kept; else it goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        study = finished_study(arguments.folder or Path(place), "many", trials=arguments.trials)
        first, again = synced(study), synced(study)
        print(f"{arguments.trials} trials: {first:.1f} s; again, with nothing new: {again:.1f} s")


def synced(study: Study) -> float:
    """Seconds of a sync, the database made and the trials read included."""
    start = time.perf_counter()
    ledger = open_ledger(study)
    trials = ledger.trials()
    ledger.close()
    if not Tracker.open(study, owner_of(study), on_warning=print).sync(trials):
        raise SystemExit(1)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
