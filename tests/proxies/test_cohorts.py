import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.proxies import cohorts
from mixopt.proxies.cohorts import choose_cohort, tokens_per_second

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CONFIG = ModelConfig(width=16, heads=2, vocab_size=32)
RECIPE = Recipe(sequence_length=8, batch_sequences=2, precision="fp32")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts, "SECONDS", 0.05)
    monkeypatch.setattr(cohorts, "MOST", 8)


def test_the_fastest_cohort_is_measured_once_and_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = choose_cohort(CONFIG, RECIPE, CPU)
    assert chosen in (1, 2, 4, 8)
    (remembered,) = json.loads((tmp_path / "cache/mixopt/cohorts.json").read_text()).values()
    assert remembered == chosen
    monkeypatch.delattr(cohorts, "_measure")
    assert choose_cohort(CONFIG, RECIPE, CPU) == chosen


def test_a_cohort_grows_as_long_as_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts, "NEEDED_GAIN", 0.0)  # any speed is gain enough
    assert choose_cohort(CONFIG, RECIPE, CPU) == 8


def test_a_cohort_does_not_grow_without_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts, "NEEDED_GAIN", 1e9)
    assert choose_cohort(CONFIG, RECIPE, CPU) == 1


def test_the_batch_in_parts_is_measured_in_parts() -> None:
    parts = Recipe(sequence_length=8, batch_sequences=4, micro_batches=4, precision="fp32")
    assert tokens_per_second(CONFIG, parts, 2, CPU) > 0


PROGRAM = """
import resource, torch
from mixopt.models.config import ModelConfig
from mixopt.core.recipe import Recipe
from mixopt.proxies import cohorts

cohorts.NEEDED_GAIN, cohorts.SECONDS = 0.0, 0.0
config = ModelConfig(width=16, heads=2, layers=1, vocab_size=65536)
recipe = Recipe(sequence_length=8, batch_sequences=2, precision="fp32")
cohorts.tokens_per_second(config, recipe, 1, torch.device("cpu"))  # what torch itself takes
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
limit = pages * resource.getpagesize() + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(cohorts.choose_cohort(config, recipe, torch.device("cpu")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory as Linux does")
def test_a_cohort_does_not_grow_beyond_the_memory(tmp_path: Path) -> None:
    # 4 MiB of embeddings a proxy, four times with gradient and moments, and logits
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in (2, 4, 8, 16)
