"""The notebook runs from its first cell to its last on a study that has run."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbclient
import pytest

from tests.pipelines.finished_study import finished_study

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_the_analysis_tells_its_story_on_a_finished_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = finished_study(tmp_path)
    monkeypatch.setenv("MIXOPT_STUDY", str(study.path))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    notebook = jupytext.read(NOTEBOOKS / "analysis.py")
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    kinds = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    figures = [kind for kind in kinds if kind == "application/vnd.plotly.v1+json"]
    assert len(figures) == 8


def test_it_is_committed_as_it_ran_with_pictures() -> None:
    script = jupytext.read(NOTEBOOKS / "analysis.py")
    notebook = jupytext.read(NOTEBOOKS / "analysis.ipynb")
    assert [c.source for c in notebook.cells] == [c.source for c in script.cells]
    outputs = [
        output
        for cell in notebook.cells
        if cell.source.startswith("study.plots.")
        for output in cell["outputs"]
    ]
    assert len(outputs) == 8
    assert all("image/png" in output["data"] for output in outputs)
    text = (NOTEBOOKS / "analysis.ipynb").read_text()
    assert '"output_type": "error"' not in text
    assert '"name": "stderr"' not in text
