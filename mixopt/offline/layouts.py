"""What each column of finished runs holds, by layout: olmix, RegMix, ADMIRE, a tracker, mixopt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.core.errors import RunsError
from mixopt.core.trials import State
from mixopt.offline.sheets import UNNAMED, Sheet
from mixopt.offline.weight_columns import weight_columns

IDS = (
    *("run", "run_id", "run_name", "index", "name", "id", "trial", "trial_id"),
    *("trial_index", "trial_number", "wandb_run_id", "run_uuid", "arm_name"),
    *(
        "experiment",
        "experiment_id",
        "mixture",
        "mixture_id",
        "mix_id",
        UNNAMED,
        "unnamed:_0",
        "sys/id",
        "number",
    ),
)
"""Columns that name a run; of those that both files have, the first here."""
FACTS = {
    "params": ("model_params", "params", "n_params", "model_size"),
    "model": ("model", "model_name"),
    "tokens": ("tokens", "train_tokens", "n_tokens"),
    "seed": ("seed",),
    "step": ("step", "steps"),
    "cost": ("cost", "train_time", "device_seconds"),
}
"""Facts of a run besides its mixture and metrics → names of columns that may hold them."""
APART = ("params", "model", "seed", "step", "tokens")
"""Facts that distinguish rows with the same run name."""
STEPS = ("_step", "global_step", "training_step", "iteration", "iter", "epoch")
"""Trackers' names of the step in a run's history."""
HYPERPARAMETERS = frozenset(
    {
        *("lr", "learning_rate", "max_lr", "min_lr", "weight_decay", "wd", "seed", "momentum"),
        *("dropout", "beta1", "beta2", "adam_beta1", "adam_beta2", "eps", "epsilon"),
        *("warmup", "warmup_steps", "warmup_ratio", "batch_size", "global_batch_size"),
        *("grad_clip", "max_grad_norm", "temperature"),
    }
)
HOUSEKEEPING = frozenset(
    {
        *("_step", "_runtime", "_timestamp", "_wandb", "runtime", "duration", "created", "updated"),
        *("timestamp", "start_time", "end_time", "global_step", "epoch", "iteration", "iter"),
        *("grad_norm", "train_runtime", "total_flos", "throughput", "tokens_per_second", "mfu"),
        *("train_samples_per_second", "train_steps_per_second", "samples_per_second"),
    }
)
"""Last parts of columns that trackers write beside metrics; they measure no model."""
SYSTEM = frozenset({"sys", "system", "monitoring", "source_code", "_wandb"})
"""First parts of columns that trackers write about the machine and themselves."""
TRACKED = (
    (re.compile(r"params\."), re.compile(r"metrics\.")),
    (re.compile(r"config\."), re.compile(r"summary\.")),
    (re.compile(r"params_"), re.compile(r"value$|values_\d")),
)
"""Prefixes of settings and of results in tables of MLflow, W&B and Optuna."""
SPREAD = re.compile(
    r"[_ .-]?(?:std_?err|std_?dev|stdev|std|sem|se|ci95|ci)(?=$|[,/ ])|__(?:MIN|MAX)$"
)
"""Endings of columns that hold the spread of another column."""
RATIO, METRIC, AVERAGE = "ratio_", "metric_", "metric_avg"
PUBLISHED = frozenset({"model", "train_time"})
"""Columns that ADMIRE's tables have beside `RATIO`, `METRIC` and `AVERAGE` ones. All are asked for:
whoever gives losses such prefixes, as an error here advises, must not have them maximised."""
READ_AS = "Read as "  # the note on the layout begins with it
EXPORTED = "mixture."  # before a domain in the table of trials that a study exports
RECORDS = frozenset(
    {
        *(
            "state",
            "role",
            "round",
            "candidate",
            "objective",
            "flops",
            "attempts",
            "failure",
            "message",
        )
    }
)
"""Further columns of that table (see `mixopt.study.frames`)."""


STATES = ("state", "status", "trial_status", "run_status")
UNFINISHED = frozenset(
    {
        *("running", "scheduled", "pending", "queued", "waiting", "candidate", "staged"),
        *("failed", "fail", "crashed", "killed", "error", "aborted", "abandoned", "diverged"),
        *("preempted", "preempting", "canceled", "cancelled", "pruned", "early_stopped"),
    }
)
"""States of unfinished runs in W&B, MLflow, Optuna, Ax and Ray Tune."""


@dataclass(frozen=True)
class Layout:
    """How a pair of tables is laid out.

    Attributes:
        name: `olmix`, `regmix`, `admire`, `prefixed`, `tracker`, or `mixopt` for a study's table of
            trials.
        domains: columns of the ratios that are weights.
        metrics: columns of the metrics that were measured.
        ids: the column that names the run in the ratios and in the metrics; None where the two are
            one file, whose lines need no names.
        notes: what was detected, and what was left out, a sentence each.
    """

    name: str
    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    ids: tuple[str, str] | None
    notes: tuple[str, ...]

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the domains: of their columns, without `mixture.` in the layout `mixopt`."""
        return tuple(domain_name(column) for column in self.domains)


def domain_name(column: str) -> str:
    """`mixture.web` of a study's table of trials → `web`; other names as they are."""
    return column.removeprefix(EXPORTED)


def exported(sheet: Sheet) -> bool:
    """Whether `sheet` is the table of trials that a study of mixopt exports."""
    return "trial" in sheet.columns and bool(_prefixed(sheet, EXPORTED))


def complete(sheet: Sheet, notes: list[str]) -> Sheet:
    """`sheet` without unfinished runs; `notes` names how many were left out.

    Raises:
        RunsError: no run is complete.
    """
    column = next((name for name in sheet.columns if _word(name) in STATES), None)
    if column is None:
        return sheet
    states = [_word(state) for state in sheet.cells[column]]
    if exported(sheet):
        rows = [row for row, state in enumerate(states) if state == State.COMPLETE]
    else:
        rows = [row for row, state in enumerate(states) if state not in UNFINISHED]
    if not rows:
        raise RunsError(
            "no run is complete",
            where=f"{sheet.path}: {column}",
            hint="Wait for the runs to finish, or remove the column to use their metrics anyway",
        )
    left_out = sorted({sheet.cells[column][row] for row in set(range(len(sheet))) - set(rows)})
    if left_out:
        notes.append(
            f"{sheet.path.name}: {row_count(len(sheet) - len(rows))} left out: runs that are not "
            f"complete ({column}: {listed(left_out)})."
        )
    return sheet.select(rows)


def with_steps(sheet: Sheet, notes: list[str]) -> Sheet:
    """`sheet` with its step column renamed `step` where rows are a tracker's history of runs."""
    name = next(iter(_identifiers(sheet)), None)
    if name is None or fact(sheet, "step") is not None:
        return sheet
    keys = [name, *(column for kind in FACTS if (column := fact(sheet, kind)) is not None)]
    if len(sheet) < 3 * len(_distinct(sheet, keys)):  # two rows of a run are a repeat, no history
        return sheet
    for column in sheet.columns:
        if _last_part(column) in STEPS and len(_distinct(sheet, [*keys, column])) == len(sheet):
            notes.append(f"{sheet.path.name}: {column!r} counts the steps of each run's curve.")
            return sheet.renamed(column, "step")
    return sheet


def _distinct(sheet: Sheet, columns: Sequence[str]) -> set[tuple[str, ...]]:
    return set(zip(*(sheet.cells[column] for column in columns), strict=True))


def fact(sheet: Sheet, kind: str) -> str | None:
    """The column of `sheet` that holds `kind` (a key of FACTS); None if there is none."""
    known = {_word(name): name for name in sheet.columns}
    return next((known[name] for name in FACTS[kind] if name in known), None)


def identifier(sheet: Sheet) -> str | None:
    """The column of `sheet` that names its rows; None if there is none."""
    return next(iter(_identifiers(sheet)), None)


def detect(ratios: Sheet, metrics: Sheet) -> Layout:
    """The layout of the two tables; `metrics` may be the same object as `ratios`.

    Raises:
        RunsError: there are no domains, no metrics, or no column to join the tables on.
    """
    one = ratios is metrics
    notes: list[str] = []
    domains = _prefixed(ratios, EXPORTED) if exported(ratios) else _prefixed(ratios, RATIO)
    if domains:
        name = "mixopt" if exported(ratios) else _prefixed_layout(ratios)
    elif one and (tracked := _tracked(ratios)):
        settings = [column for column in ratios.columns if tracked[0].match(column)]
        domains, name = _weights(ratios, settings, notes), "tracker"
    elif one:
        domains, name = _prefixed(ratios, "train_"), "regmix"
        if domains and not set(ratios.columns) - {*domains, *reserved(ratios)}:
            domains = []
    else:
        domains = _weights(ratios, _numeric(ratios, "domain", notes), notes)
        train = all(column.startswith("train_") for column in domains)
        name = "regmix" if domains and train else "olmix"
    measured = [] if exported(metrics) else _prefixed(metrics, METRIC)
    if measured:
        averages = [column for column in measured if column.startswith(AVERAGE)]
        measured = [column for column in measured if column not in averages]
        if averages:
            notes.append(f"Averages of other metrics are left out: {listed(averages)}.")
    else:
        free = _numeric(metrics, "metric", notes)
        measured = _measures(metrics, [c for c in free if not one or c not in domains], notes)
    if one and not domains:
        raise RunsError(
            "one table for ratios and metrics, and no prefixes that distinguish them",
            where=f"{ratios.path}:1",
            hint="Give two tables, weights and metrics, each with the column `run`, or call the "
            "columns ratio_<domain> and metric_<name>",
        )
    for found, sheet, what in ((domains, ratios, "domain"), (measured, metrics, "metric")):
        if not found:
            raise RunsError(
                f"no column holds the {'weights of a domain' if what == 'domain' else what}"
                + _example_of_text(sheet),
                where=f"{sheet.path}:1",
                hint=f"Add a column of numbers per {what}, besides the column of run names",
            )
    ids = None if one else _shared(ratios, metrics, notes)
    return Layout(name, tuple(domains), tuple(measured), ids, (_layout_note(name, ids), *notes))


def reserved(sheet: Sheet) -> list[str]:
    """The columns of `sheet` whose names mark them as neither weights nor metrics."""
    known = {*IDS, *(name for names in FACTS.values() for name in names)}
    if exported(sheet):
        known |= RECORDS
    return [column for column in sheet.columns if _word(column) in known]


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def row_count(count: int) -> str:
    """`count` rows, in words."""
    return f"{count} row{'' if count == 1 else 's'}"


def _prefixed(sheet: Sheet, prefix: str) -> list[str]:
    return [column for column in sheet.columns if column.startswith(prefix)]


def _prefixed_layout(sheet: Sheet) -> str:
    """`admire` for a table as ADMIRE publishes it, whose metrics are scores; else `prefixed`."""
    return "admire" if set(sheet.columns) >= PUBLISHED and _prefixed(sheet, AVERAGE) else "prefixed"


def _numeric(sheet: Sheet, what: str, notes: list[str]) -> list[str]:
    """The columns that may be domains or metrics; `notes` names the columns of text left out."""
    free = [column for column in sheet.columns if column not in reserved(sheet)]
    texts = [column for column in free if sheet.is_text(column)]
    if texts:
        notes.append(f"{sheet.path.name}: {listed(texts)}: left out: text, not a {what}.")
    return [column for column in free if column not in texts]


def _weights(sheet: Sheet, columns: list[str], notes: list[str]) -> list[str]:
    """Those of `columns` that are weights; `notes` names the others."""
    columns = [column for column in columns if not sheet.is_text(column)]
    named = {column for column in columns if _last_part(column) in HYPERPARAMETERS}
    kept = weight_columns(sheet, columns, named)
    others = [column for column in columns if column not in kept]
    if others:
        notes.append(
            f"{sheet.path.name}: {listed(others)}: left out as no domain: rows sum to 1 more "
            f"exactly without {'it' if len(others) == 1 else 'them'}."
        )
    return kept


def _measures(sheet: Sheet, columns: list[str], notes: list[str]) -> list[str]:
    """Those of `columns` that measure a model; `notes` names the others."""
    if exported(sheet):
        return [column for column in columns if not column.startswith(EXPORTED)]
    kept = [column for column in columns if not _is_housekeeping(column)]
    result = (_tracked(sheet) or TRACKED[0])[1]
    kept = [column for column in kept if result.match(column)] or kept
    others = [column for column in columns if column not in kept]
    spreads = [column for column in kept if _is_spread(column, kept)]
    if spreads:
        notes.append(f"{sheet.path.name}: {listed(spreads)}: spreads of metrics, left out.")
    kept = [column for column in kept if column not in spreads]
    if others:
        notes.append(
            f"{sheet.path.name}: {listed(others)}: a tracker's housekeeping or hyperparameters, "
            "left out."
        )
    return kept


def _word(name: str) -> str:
    """`Run ID` → `run_id`."""
    return name.strip().lower().replace(" ", "_")


def _last_part(column: str) -> str:
    """`train/global_step`, `optimizer.lr`, `loss (last)` → `global_step`, `lr`, `loss`."""
    return _word(re.split(r"[/.]", _plain(column))[-1])


def _plain(column: str) -> str:
    """`column` without what trackers put around a name."""
    name = re.sub(r" \((last|min|max|mean)\)$", "", column)
    return re.sub(r"^(params\.|metrics\.|config\.|summary\.|params_)", "", name)


def _is_spread(column: str, others: Sequence[str]) -> bool:
    """Whether `column` is the standard error, deviation or extreme of another, by their names."""
    measured = SPREAD.sub("", column)
    return measured != column and bool({measured, f"{measured}_mean"} & set(others))


def _tracked(sheet: Sheet) -> tuple[re.Pattern[str], re.Pattern[str]] | None:
    """The pair of `TRACKED` that columns of `sheet` begin with; None if there is none."""
    for pair in TRACKED:
        if all(any(part.match(column) for column in sheet.columns) for part in pair):
            return pair
    return None


def _is_housekeeping(column: str) -> bool:
    """Whether a tracker writes `column` beside metrics: a clock, a machine's load, a setting."""
    first = _word(re.split(r"[/.]", _plain(column))[0])
    return first in SYSTEM or _last_part(column) in HOUSEKEEPING | HYPERPARAMETERS


def _example_of_text(sheet: Sheet) -> str:
    """A cell of a column of texts, such as numbers with a unit; nothing if there is none."""
    name = identifier(sheet)
    texts = [column for column in sheet.columns if column != name and sheet.is_text(column)]
    if not texts:
        return ""
    row = int(np.flatnonzero(~sheet.missing(texts[0]))[0])
    cell = sheet.cells[texts[0]][row]
    return f": {cell!r} in column {texts[0]!r} of line {sheet.lines[row]} is no number"


def _identifiers(sheet: Sheet) -> list[str]:
    known = {_word(name): name for name in sheet.columns}
    found = [known[name] for name in IDS if name in known]
    first = sheet.columns[0]
    if not found and first not in reserved(sheet) and _names_rows(sheet, first):
        found = [first]
    return found


def _names_rows(sheet: Sheet, column: str) -> bool:
    """Whether a column of any name tells rows apart: texts, each of them once."""
    texts = sheet.cells[column]
    return sheet.is_text(column) and len(set(texts)) == len(texts)


def _shared(ratios: Sheet, metrics: Sheet, notes: list[str]) -> tuple[str, str]:
    here, there = _identifiers(ratios), _identifiers(metrics)
    for sheet, found in ((ratios, here), (metrics, there)):
        if not found:
            raise RunsError(
                "no column names the run of each row",
                where=f"{sheet.path}:1",
                hint="Export the table of runs: this is the table of a W&B panel, a column per run"
                if any(column.endswith(("__MIN", "__MAX")) for column in sheet.columns)
                else "Add a column `run` with the same names in both files",
            )
    both = [column for column in here if column in there]
    pair = (both[0], both[0]) if both else (here[0], there[0])
    if pair != ("run", "run"):
        what = repr(pair[0]) if both else f"{pair[0]!r} of the ratios and {pair[1]!r}"
        notes.append(f"Runs are identified by the column {what}.")
    return pair


def _layout_note(name: str, ids: tuple[str, str] | None) -> str:
    kinds = {
        "olmix": "a column per domain, a column per metric",
        "regmix": "train_<domain> columns of weights",
        "admire": "ratio_<domain> columns, and scores in metric_<name> columns",
        "prefixed": "ratio_<domain> columns, and what was measured in the others",
        "tracker": "a column per setting, a column per result",
        "mixopt": "mixture.<domain> columns beside a column per metric",
    }
    how = "one row per run in one file" if ids is None else f"joined on {ids[0]!r}"
    whose = {
        "olmix": "olmix's",
        "regmix": "RegMix's",
        "admire": "ADMIRE's",
        "prefixed": "the prefixed",
        "mixopt": "mixopt's",
        "tracker": "a tracker's",
    }[name]
    return f"{READ_AS}{whose} layout: {kinds[name]}, {how}."


def params_of(model: str) -> float | None:
    """The size that a model's name tells, in parameters: Qwen2.5-0.5B → 5e8; None if none."""
    found = re.findall(r"(?<![0-9.])([0-9]+(?:\.[0-9]+)?)\s*([kmbt])(?![a-z0-9])", model.lower())
    if not found:
        return None
    number, suffix = found[-1]
    return float(number) * {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[suffix]
