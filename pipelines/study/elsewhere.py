"""`mixopt ask`: trainings that are done elsewhere, handed out as a table.

    mixopt ask STUDY -n 8 --out next.csv     trials to be trained: seed, tokens, mixture

`mixopt tell` (`tell.py`) takes their results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.core.trials import State, Trial
from mixopt.io import csv_files, files
from mixopt.pipelines.study import promote as promotion
from mixopt.pipelines.study.champion import decide_champion
from mixopt.pipelines.study.full_run_elsewhere import FullRunWaits, asked_row, hand_out
from mixopt.pipelines.study.run import require_guardrails, verdict_or_refuse
from mixopt.pipelines.study.search import search
from mixopt.pipelines.study.select import select
from mixopt.pipelines.study.session import Session, open_session
from mixopt.pipelines.study.transfer import OrderLost, check_transfer, require_transfer
from mixopt.pipelines.study.trials import TrialsWait
from mixopt.pipelines.views.closing import promotion_table
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import Display, make_error_console
from mixopt.pipelines.views.json_output import print_json
from mixopt.pipelines.views.report import write_report
from mixopt.pipelines.views.trade_offs import trade_line
from mixopt.pipelines.views.wording import headline, selected_weights
from mixopt.study.records import read_promotion
from mixopt.study.settings import load_study
from mixopt.study.stopped import keeping_stop


def ask_trials(
    path: Path,
    most: int,
    out: Path | None = None,
    *,
    again: bool = False,
    as_json: bool = False,
) -> None:
    """Hand out up to `most` trials of the study at `path`, as a table on the console or in `out`.

    Rounds follow from the results of those before them, so that no trial of the next one is there
    until all of this one are told. After the search it hands out selection's runs; once these are
    told, it writes the verdict.

    Args:
        path: the study file, with `trainer: elsewhere`.
        most: how many trials at most.
        out: a `.csv` or `.json` file, which must not exist.
        again: hand out those first that were handed out before and not told.
        as_json: print one JSON object instead of the table, its rows under `trials`.

    Raises:
        StudyError: the study has another trainer, or `out` is there.
    """
    if out is not None and out.exists():
        raise StudyError(
            "the file is there already, perhaps with results", where=str(out), hint="Name another"
        )
    # The table may go to a pipe: what is said besides goes beside it.
    display = Display(make_error_console())
    with open_session(path, display, trains=upcycles_first(path)) as session:
        require_elsewhere(session)
        session.tracker.study_started()
        waits = _next_step(session)
        if waits is None:
            write_report(session.study)
            if as_json:
                print_json({"study": session.study.name, "step": "verdict", "trials": []})
            return
        if isinstance(waits, FullRunWaits):
            _ask_full_run(session, waits, out, again=again, as_json=as_json)
            return
        before = [trial for trial in waits.trials if trial.state is State.RUNNING]
        fresh = [trial for trial in waits.trials if trial.state is State.WAITING]
        asked = [*(before if again else []), *fresh][:most]
        if as_json:
            rows = asked_frame(asked).to_dicts()
            print_json({"study": session.study.name, "step": waits.label, "trials": rows})
        if asked:
            if out is not None or not as_json:
                _write(asked_frame(asked), out)
            for trial in asked:
                session.tracker.live(session.ledger.start(trial.number))
            session.display.say(_next_to_do(session, waits.label, asked, out))
        if pending := [trial.number for trial in before if trial not in asked]:
            session.display.say(
                f"{waits.label}: {_numbered(pending)} handed out before and not told yet "
                "(`--again` hands them out again)"
            )


def asked_frame(trials: Sequence[Trial]) -> pl.DataFrame:
    """A row per trial: number, role, candidate, seed, tokens, and a column per domain."""
    return pl.DataFrame(
        [
            {
                "trial": trial.number,
                "role": str(trial.spec.role),
                "candidate": trial.spec.candidate,
                "seed": trial.spec.seed,
                "tokens": trial.spec.fidelity.tokens,
                **{f"mixture.{name}": w for name, w in trial.spec.mixture.as_dict().items()},
            }
            for trial in trials
        ]
    )


def _next_to_do(session: Session, label: str, asked: Sequence[Trial], out: Path | None) -> str:
    tell = command("tell", session.study.path, "results.csv" if out is None else out)
    metrics = (*session.objective.metrics, *(g.metric for g in session.study.guarded()))
    return (
        f"{label}: {_numbered([trial.number for trial in asked])}. Add a column per metric "
        f"({', '.join(dict.fromkeys(metrics))}), then {tell}"
    )


def upcycles_first(path: Path) -> bool:
    """Whether a full run elsewhere begins from a model that is upcycled here.

    Raises:
        StudyError: the study file is not valid.
    """
    promote = load_study(path).promote
    return promote is not None and promote.elsewhere and promote.upcycle


def require_elsewhere(session: Session) -> None:
    """Refuse a study of which nothing is trained elsewhere.

    Raises:
        StudyError: naming the keys.
    """
    promote = session.study.promote
    if not session.study.elsewhere and not (promote is not None and promote.elsewhere):
        raise StudyError(
            "the study has a trainer, which `mixopt run` starts",
            where=f"{session.study.path}: trainer",
            hint="Write `trainer: elsewhere` to train by other means; `promote.trainer: elsewhere` "
            "for the full run alone",
        )


def _next_step(session: Session) -> TrialsWait | None:
    """What the study waits for; None once there is a verdict and a full run, which are shown."""
    promote = session.study.promote
    try:
        with keeping_stop(session.home, unless=TrialsWait):
            if session.study.elsewhere:
                search(session)
                verdict = select(session)
                check_transfer(session, verdict)
            else:  # only its full run is trained elsewhere
                verdict = verdict_or_refuse(session)
                require_transfer(session, verdict)
            files.keep_json(session.home / "mixture.json", verdict.mixture.as_dict())
            if promote is not None and promote.elsewhere and verdict.level != 0:
                require_guardrails(session.study, verdict)
                promotion.promote(session, verdict)
    except TrialsWait as waits:
        return waits
    except OrderLost:
        session.show()
        write_report(session.study)
        raise
    words = (headline((), session.objective, verdict), trade_line(verdict))
    for line in (*filter(None, words), selected_weights(verdict)):
        session.display.say(line)
    if promote is not None and promote.elsewhere:
        if verdict.level == 0:
            session.display.warn("no look is left (select.looks), so no full run is handed out")
        elif (told := read_promotion(session.home)) is not None:
            session.display.console.print(promotion_table(told))
            session.show()
            decide_champion(session)
            return None
    export = command("export", session.study.path, "--mixture", "json")
    session.display.say(f"Train on it: {export}, and the report is {session.home / 'report.html'}")
    return None


def _write(frame: pl.DataFrame, out: Path | None) -> None:
    if out is None:
        print(csv_files.csv_bytes(frame).decode(), end="")
    elif out.suffix == ".json":
        files.write_bytes(out, (json.dumps(frame.to_dicts(), indent=2) + "\n").encode())
    elif out.suffix == ".csv":
        files.write_bytes(out, csv_files.csv_bytes(frame))
    else:
        raise StudyError(
            f"{out.suffix or 'no'} suffix", where=str(out), hint="Name a .csv or .json file"
        )


def _ask_full_run(
    session: Session, waits: FullRunWaits, out: Path | None, *, again: bool, as_json: bool
) -> None:
    """Hand out the full run, unless it was before."""
    fresh = again or not waits.handed_out
    row = asked_row(waits)
    if as_json:
        rows = [row] if fresh else []
        print_json({"study": session.study.name, "step": waits.label, "trials": rows})
    if not fresh:
        session.display.say(
            f"{waits.what}: it was handed out before (`--again` hands it out again)"
        )
        return
    if out is not None or not as_json:
        _write(pl.DataFrame([row]), out)
    hand_out(waits)
    tell = command("tell", session.study.path, "results.csv" if out is None else out)
    initial = waits.asked.initial_model
    begin = "" if initial is None else f", from the upcycled model in {initial}"
    session.display.say(
        f"{waits.label} of the {waits.job.method} mixture, {count(waits.asked.tokens)} tokens"
        f"{begin}. Add a column per metric ({', '.join(waits.asked.metrics)}), write into "
        f"`checkpoint` where it is, then {tell}"
    )


def _numbered(numbers: Sequence[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
