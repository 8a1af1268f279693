from pathlib import Path

import numpy as np
import pytest

from benchmarks.trained_pool import COHORT, Size, read, train_all
from mixopt.core.errors import RunsError
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig

SIZES = (
    Size("small", ModelConfig(width=8, layers=1, heads=2, expert_width=8), 1024, 0.02),
    Size("large", ModelConfig(width=16, layers=1, heads=2, expert_width=8), 1024, 0.02),
)
MIXTURES = COHORT + 2  # a second cohort of two


class Killed(Exception):
    """As a signal would end it."""


@pytest.fixture
def folder(tmp_path: Path, text_corpus: Corpus) -> Path:
    home = tmp_path / "pool"
    home.mkdir()
    (home / "corpus").symlink_to(text_corpus.path)
    return home


def test_what_is_trained_is_not_trained_again(folder: Path) -> None:
    def killed_after_five(said: str) -> None:
        if said.startswith("5 of 8"):
            raise Killed

    with pytest.raises(Killed):
        train_all(folder, MIXTURES, 2, killed_after_five, SIZES)
    before = {path: path.read_bytes() for path in (folder / "trainings").iterdir()}
    assert len(before) == 5
    with pytest.raises(RunsError, match="1 seeds of 12"):
        read(folder, MIXTURES, SIZES)

    said: list[str] = []
    assert train_all(folder, MIXTURES, 2, said.append, SIZES) == 3
    assert len(said) == 3
    assert all(path.read_bytes() == content for path, content in before.items())
    assert train_all(folder, MIXTURES, 2, said.append, SIZES) == 0

    trained = read(folder, MIXTURES, SIZES)
    assert trained.values.shape == (2, 2, MIXTURES, len(trained.metrics))
    assert np.isfinite(trained.values).all()
    assert np.ptp(trained.values, axis=1).min() > 0  # seeds differ
    assert [size.model for size in trained.sizes] == ["small", "large"]


def test_other_settings_are_other_trainings(folder: Path) -> None:
    small = SIZES[:1]
    train_all(folder, 2, 2, str, small)
    longer = (Size("small", SIZES[0].model, 2048, 0.02),)
    assert train_all(folder, 2, 2, str, longer) == 2
    assert read(folder, 2, small).values != pytest.approx(read(folder, 2, longer).values)
