"""The report: one HTML page that needs no network, from the ledger and the study folder alone.

    mixopt report STUDY.yaml

It can be written at any stage of a study, also while a driver works on it.
"""

from __future__ import annotations

from pathlib import Path

from mixopt import __version__
from mixopt.core.formatting import count
from mixopt.io import files
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.evidence import Evidence, read_evidence
from mixopt.pipelines.views.page.parts import Page
from mixopt.pipelines.views.page.render import render as render_page
from mixopt.pipelines.views.report_answer import decision, five_answers, lead
from mixopt.pipelines.views.report_sections import sections_of, versions
from mixopt.pipelines.views.wording import better, weighed
from mixopt.study import records
from mixopt.study.locked import require_begun
from mixopt.study.measured import measured_metrics
from mixopt.study.queries import usual_fidelity
from mixopt.study.settings import Study
from mixopt.study.snapshot import Snapshot, read_snapshot


def write_report(study: Study, out: Path | None = None) -> Path:
    """Write the report of `study` and return its path.

    Args:
        study: is only read; its folder may be on a read-only disk.
        out: the file to write; `report.html` in the study folder if not given. Beside that one
            lies `evidence.json`: what had to be fitted for it.

    Raises:
        StudyError: the study has not begun.
        LedgerError: the ledger cannot be reached.
        FileError: the report cannot be written there.
    """
    require_begun(study)
    path, snapshot = out or study.home / "report.html", read_snapshot(study)
    evidence = read_evidence(snapshot, keep=out is None)
    files.write_bytes(path, render(snapshot, evidence).encode())
    return path


def render(snapshot: Snapshot, evidence: Evidence | None = None) -> str:
    """The page; what has to be fitted is fitted where it is not given."""
    found = read_evidence(snapshot, keep=False) if evidence is None else evidence
    return render_page(page_of(snapshot, found))


def page_of(snapshot: Snapshot, evidence: Evidence) -> Page:
    """What the page says."""
    study, metrics = snapshot.study, measured_metrics(snapshot)
    return Page(
        name=study.name,
        kind="mixopt report",
        about=_about(snapshot),
        lead=lead(snapshot, metrics),
        decision=decision(snapshot),
        answers=five_answers(snapshot, metrics),
        sections=sections_of(snapshot, evidence, metrics),
        commands=_commands(study),
        settings=[(k, str(v)) for k, v in records.read_settings(study.home).items()],
        settings_title="Settings this study is frozen to (study.json)",
        versions=versions(snapshot.trials),
    )


def _about(snapshot: Snapshot) -> str:
    """The objective, the size of its proxies, and how far the study is."""
    objective = snapshot.objective.shown
    parts = [f"Objective: {weighed(objective.weights)}, {better(snapshot.objective)}."]
    fidelity = usual_fidelity(snapshot.trials)
    if fidelity is not None:
        size = f" of {count(fidelity.params)} parameters" if fidelity.params_known else ""
        parts.append(f"Proxies{size}, {count(fidelity.tokens)} tokens each.")
    done = sum(t.complete for t in snapshot.trials)
    parts.append(f"{done} of {len(snapshot.trials)} trials complete. mixopt {__version__}.")
    return " ".join(parts)


def _commands(study: Study) -> list[tuple[str, str]]:
    goes_on = "ask" if study.elsewhere else "run"
    return [
        ("go on from where the study stands", command(goes_on, study.path)),
        (
            "what a mixture of your own is predicted to do",
            command("predict", study.path, "--mixture", "NAME=40%"),
        ),
        ("write this report again", command("report", study.path)),
        ("rebuild MLflow's view from the ledger", command("sync", study.path)),
        *([("open MLflow", command("ui", study.path))] if study.mlflow.enabled else []),
    ]
