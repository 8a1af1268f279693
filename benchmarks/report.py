"""How long `mixopt report` takes on a study of many trials, and how large its page is.

The first report of a state of a study fits what it shows; later ones read `evidence.json`.

Run:
    .venv/bin/python -m benchmarks.report --trials 500
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mixopt.pipelines.views.evidence import FILE
from mixopt.pipelines.views.report import write_report
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import finished_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the study is kept; else it goes")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        study = _study(arguments.folder or Path(place), arguments.trials)
        (study.home / FILE).unlink(missing_ok=True)
        first = _command(study)
        later = min(_command(study) for _ in range(5))
        path = study.home / "report.html"
        for name, (wall, cpu) in (("first", first), ("later", later)):
            print(f"{arguments.trials} trials, {name}: {wall:.1f} s, {cpu:.1f} s of them computing")
        print(f"without Python's start and imports: {_seconds(study):.1f} s")
        print(f"{path.stat().st_size / 1e6:.2f} MB")
        if arguments.profile:
            _profile(study)


def _study(folder: Path, trials: int) -> Study:
    """The study in `folder`, made through the ledger unless it is there."""
    file = folder / "study.yaml"
    return load_study(file) if file.exists() else finished_study(folder, "many", trials=trials)


def _command(study: Study) -> tuple[float, float]:
    """Seconds of `mixopt report` by the clock and by its CPU, Python and its imports included."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "mixopt", "report", str(study.path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, spent


def _seconds(study: Study) -> float:
    """Seconds of a report in a process that has imported all."""
    write_report(study)
    start = time.perf_counter()
    write_report(study)
    return time.perf_counter() - start


def _profile(study: Study) -> None:
    profile = cProfile.Profile()
    profile.runcall(write_report, study)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
