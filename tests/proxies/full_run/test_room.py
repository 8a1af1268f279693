"""A model that cannot fit is refused before it is built; a step that may not fit is noted."""

from pathlib import Path

import pytest
import torch

from mixopt.core.errors import TrainingError
from mixopt.core.recipe import Recipe
from mixopt.models.config import ModelConfig
from mixopt.proxies.full_run import room
from mixopt.proxies.full_run.room import available, check_room
from mixopt.proxies.full_run.world import World

RECIPE = Recipe(sequence_length=2048, batch_sequences=4096, precision="fp32")
SMALL = ModelConfig(vocab_size=512)
LARGE = ModelConfig(width=8192, layers=64, heads=64, expert_width=32768, vocab_size=100_000)
WIDE = ModelConfig(width=256, layers=12, heads=16, expert_width=512, vocab_size=512)


def test_what_fits_says_nothing() -> None:
    assert check_room(SMALL, Recipe(), World(), recompute=False) == ""


def test_a_model_beyond_the_machine_is_refused_with_both_sizes() -> None:
    with pytest.raises(TrainingError, match=r"takes .* GB of each .* GB are free") as error:
        check_room(LARGE, RECIPE, World(), recompute=False)
    assert error.value.where == "promote.resources"


def test_a_step_that_may_not_fit_is_noted_with_what_helps() -> None:
    note = check_room(WIDE, RECIPE, World(), recompute=False)
    assert "a step may need" in note
    assert "promote.resources.recompute" in note


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = available(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available(torch.device("cpu")) == pytest.approx(whole / 4, rel=0.2)


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    assert room._container(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    (tmp_path / "memory.stat").write_text("anon 40\ninactive_file 60\n")
    assert room._container(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    assert room._container(tmp_path) == 960
