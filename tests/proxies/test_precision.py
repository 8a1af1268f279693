import json
from pathlib import Path

import pytest
import torch

from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.proxies import precision
from mixopt.proxies.precision import choose_precision

CPU = torch.device("cpu")
CONFIG = ModelConfig(width=16, heads=2, vocab_size=32)
RECIPE = Recipe(sequence_length=8, batch_sequences=2)


def test_auto_measures_once_and_remembers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = choose_precision(CONFIG, RECIPE, 1, CPU)
    assert chosen in ("fp32", "bf16")
    (remembered,) = json.loads((tmp_path / "cache/mixopt/precision.json").read_text()).values()
    assert remembered == chosen
    monkeypatch.delattr(precision, "_measure")
    assert choose_precision(CONFIG, RECIPE, 1, CPU) == chosen


def test_a_precision_that_was_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(precision, "_measure")
    assert choose_precision(CONFIG, Recipe(precision="bf16"), 1, CPU) == "bf16"


def test_a_cache_that_cannot_be_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose_precision(CONFIG, RECIPE, 1, CPU) in ("fp32", "bf16")
