"""No prediction hangs on how a processor rounds sums: `make test-numerics`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixopt.testing.numerics import differences
from mixopt.testing.surrogates import ROUNDING

# Sandybridge and torch's default have no fused multiply-add: the rest of the world's rounding.
SETTINGS = [
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"OPENBLAS_CORETYPE": "Zen", "OMP_NUM_THREADS": "2"},
    {"OPENBLAS_CORETYPE": "SkylakeX"},
    {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2"},
    {"OPENBLAS_CORETYPE": "Sandybridge", "ATEN_CPU_CAPABILITY": "default"},
]
CPU_FLAGS = Path("/proc/cpuinfo")

pytestmark = [pytest.mark.numerics, pytest.mark.slow]


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str]], Path]:
    """Predictions of every surrogate by a process with settings of its own."""
    folder = tmp_path_factory.mktemp("numerics")

    def of(settings: dict[str, str]) -> Path:
        path = folder / ("-".join(settings.values()) + ".npz")
        if not path.exists():
            known = {k for each in SETTINGS for k in each}
            inherited = {k: v for k, v in os.environ.items() if k not in known}
            environment = inherited | {"OMP_NUM_THREADS": "1"} | settings
            command = [sys.executable, "-m", "mixopt.testing.numerics", str(path)]
            subprocess.run(command, env=environment, check=True)
        return path

    return of


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings.values()))
def test_every_surrogate_predicts_alike_on_another_processor(
    settings: dict[str, str], predicted: Callable[[dict[str, str]], Path]
) -> None:
    if settings["OPENBLAS_CORETYPE"] == "SkylakeX" and "avx512f" not in CPU_FLAGS.read_text():
        pytest.skip("this processor has no AVX-512, which SkylakeX kernels need")
    found = differences(predicted({}), predicted(settings))
    print()
    for name, (mean, std) in found.items():
        print(f"{name:36} means {mean:.1e} of a run's deviation, deviations {std:.1e}")
    assert {name: apart for name, apart in found.items() if max(apart) > ROUNDING} == {}
