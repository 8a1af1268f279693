"""A completion marker counts while the files that it vouches for are as they were."""

from pathlib import Path

import pytest

from mixopt.io import markers
from mixopt.io.trial_files import CURVE, TRAINED


@pytest.mark.parametrize("name", [CURVE, markers.WEIGHTS, f"{TRAINED}/model.safetensors"])
def test_a_marker_does_not_count_once_a_file_differs_or_is_gone(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"as it was written")
    markers.write(tmp_path, {"answer": 42})
    found = markers.read(tmp_path)
    assert found is not None
    assert found["answer"] == 42
    path.write_bytes(b"as it was wr1tten")
    assert markers.read(tmp_path) is None
    path.unlink()
    assert markers.read(tmp_path) is None
