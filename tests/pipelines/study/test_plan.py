"""`mixopt plan` prices a study, and refuses what cannot run."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from mixopt.core.errors import CorpusError, MixoptError, StudyError
from mixopt.core.recipe import Recipe
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.learning_rates import advised_peak_rate
from mixopt.pipelines.study.checks import check_promotion
from mixopt.pipelines.study.plan import promotion_advice, proxies_plan, rate_advice, show_plan
from mixopt.pipelines.study.plan_measuring import COHORT, Shown
from mixopt.pipelines.study.plan_steps import Room, Step, planned_flops, steps
from mixopt.pipelines.study.session import open_session
from mixopt.study.locked import has_begun
from mixopt.study.settings import load_study
from tests.pipelines.whole_study import MODEL, STEP, write_study


def test_a_plan_counts_the_trainings_that_the_study_file_asks_for(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    study = load_study(write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False))
    plan = {step.name: (step.runs, step.tokens) for step in steps(study, text_corpus)}
    assert plan == {
        "initial design": (6, 20 * STEP),
        "rounds": (2, 20 * STEP),
        "selection (at most)": (8, 20 * STEP),
        "dense seed model": (1, 20 * STEP),
        "domain experts": (2, 10 * STEP),
        "upcycled model": (1, 20 * STEP),
    }


def test_an_upcycler_of_the_seed_alone_branches_no_experts_and_says_how_wide_the_seed_is(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    promote = {
        "upcycler": "virtual-groups",
        "upcycler_settings": {"granularity": 4},
        "model": {"experts": 8, "experts_per_token": 4, "expert_width": 32},
    }
    study = load_study(
        write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False, promote=promote)
    )
    check_promotion(study, text_corpus)
    plan = {step.name: step.model for step in steps(study, text_corpus)}
    assert "domain experts" not in plan
    assert plan["dense seed model"].expert_width == 4 * plan["upcycled model"].expert_width


def test_a_command_counts_its_own_trainings_alone(text_corpus: Corpus, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False))
    flops = {step.name: step.flops for step in steps(study, text_corpus)}
    swarm, rounds, selection, *promotion = flops.values()
    counted = {
        command: planned_flops(study, text_corpus, command)
        for command in ("search", "select", "promote", "run")
    }
    assert counted["search"] == swarm + rounds
    assert counted["select"] == selection
    assert counted["promote"] == sum(promotion)
    assert counted["run"] == pytest.approx(sum(flops.values()))


def test_a_plan_counts_the_waves_of_cohorts(text_corpus: Corpus, tmp_path: Path) -> None:
    search = {"trials": 8, "repeats": 2, "rounds": 3, "batch": 4}
    study = load_study(
        write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False, search=search)
    )
    plan = {step.name: step for step in steps(study, text_corpus)}
    swarm, rounds, seed = (plan[n] for n in ("initial design", "rounds", "dense seed model"))
    alone, packed, asked = Room(slots=2), Room(slots=2, most=4), Room(2, most=4, busy=False)
    assert [room.cohorts(10) for room in (packed, asked)] == [[3, 3, 2, 2], [4, 3, 3]]
    each = swarm.tokens / 100  # seconds of a training alone at 100 tokens per second
    assert swarm.wall_seconds(alone, 100) == pytest.approx(5 * each)
    assert swarm.wall_seconds(packed, 100) == pytest.approx((3 + 2) * each)
    assert swarm.wall_seconds(packed, 200) == pytest.approx((3 + 2) * each / 2)
    # each round waits for the one before: 2 + 2 proposals, three times, on two slots
    assert rounds.wall_seconds(packed, 100) == pytest.approx(3 * 2 * each)
    assert rounds.device_seconds(100) == pytest.approx(12 * each)
    assert seed.cohorts(packed) == [1]


def test_only_models_that_the_law_of_rates_speaks_of_are_advised() -> None:
    large = ModelConfig(width=1024, layers=12, heads=16, experts=8, expert_width=2048)
    steps = [Step(name, 1, 100, large, Recipe(), 1) for name in ("initial design", "rounds")]
    (once,) = rate_advice(steps)
    assert once.startswith("Learning rate, initial design: 0.01 is asked for")
    assert f"would take {advised_peak_rate(large):.2g}" in once
    small = Step("dense seed model", 1, 100, ModelConfig(), Recipe(), 1)
    assert "no advice" in rate_advice([*steps, small])[1]


def test_laws_are_asked_about_the_promoted_shape_and_the_dense_model(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    shape = {"width": 768, "layers": 12, "heads": 12, "experts": 8, "expert_width": 2048}
    large = {"model": shape, "seed_tokens": "20B", "tokens": "2B"}
    study = load_study(
        write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False, promote=large)
    )
    experts, start = promotion_advice(study, text_corpus)
    assert "this shape (8 experts, 2 per token)" in experts
    assert "a dense model of 20B tokens" in start
    small = load_study(write_study(tmp_path / "small.yaml", text_corpus.path, with_store=False))
    assert promotion_advice(small, text_corpus) == []
    without = write_study(
        tmp_path / "without.yaml", text_corpus.path, with_store=False, promote=None
    )
    assert promotion_advice(load_study(without), text_corpus) == []


def test_a_plan_says_how_large_its_cohorts_are(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(
        tmp_path / "study.yaml", text_corpus.path, with_store=False, ray={"cohort": 4}
    )
    show_plan(file, slots=2)
    assert "cohorts of up to 4" in capsys.readouterr().out


def test_a_plan_names_the_domains_that_are_too_small(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = text_corpus.tokens["code"]
    file = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        with_store=False,
        space={"budget": 8 * tokens, "max_epochs": 2},
    )
    show_plan(file, slots=2)
    printed = capsys.readouterr().out
    assert "code: at most 25.0%" in printed
    assert "2 trainings at once" in printed
    assert "(2502.05172) has no advice for models of less than 10M" in " ".join(printed.split())
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]  # nothing was begun


def test_a_promotion_that_could_not_be_upcycled_is_refused_before_anything_is_trained(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        f"name: s\ncorpus: {text_corpus.path}\nobjective: {{notes: 1}}\n"
        "promote: {model: {experts: 8}}\n"
    )
    with pytest.raises(StudyError, match=r"promote: experts: 8 experts .* 3 dense models"):
        check_promotion(load_study(file), text_corpus)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"search": {"surrogate": "effectiv-data"}}, "Did you mean 'effective-data'"),
    ({"search": {"surrogate": "absent.place:Model"}}, "does not import"),
    (
        {"space": {"bounds": {"law": [0.5, 0.5], "code": [0.5, 0.5]}}},
        r"study\.yaml: space: the space holds only 1 distinct mixture, 5 were asked",
    ),
    (
        {"space": {"bounds": {"law": [0.7, 1], "code": [0.7, 1]}}},
        r"study\.yaml: space\.bounds: the lower bounds sum to 1\.4",
    ),
    (
        {"space": {"bounds": {"law": [0.9, 0.1]}}},
        r"study\.yaml: space\.bounds\.law: its lower bound 0\.9 lies above",
    ),
    (
        {"space": {"bounds": {d: [0, 0.1] for d in ("law", "code", "prose")}}},
        r"study\.yaml: space\.bounds: the upper bounds sum to 0\.3",
    ),
    ({"space": {"budget": "1T"}}, r"study\.yaml: space\.max_epochs: the upper bounds sum to"),
    (
        {"space": {"linear": [{"weights": {"law": -1}, "at_most": -2}]}},
        r"study\.yaml: space\.linear: no mixture within the bounds satisfies",
    ),
    (
        {"objective": {"notes": 1, "bpb/notes": 1}},
        r"study\.yaml: objective: metric 'bpb/notes' is named twice",
    ),
    (
        {"search": {"proposer": "pareto", "pruner": {}}},
        r"study\.yaml:\d+: search\.pruner: the proposer",
    ),
    ({"promote": {"model": {"experts": 9}}}, r"study\.yaml: promote: experts: 9 experts"),
    (
        {"promote": {"upcycler": "drop-upcycling", "upcycler_settings": {"part": 0.1}}},
        r"study\.yaml: promote: upcycler_settings\.part: this upcycler has no such .* share",
    ),
    (
        {"promote": {"merge": "ties", "merge_settings": {"density": 0}}},
        r"study\.yaml: promote: merge_settings\.density: must be above 0",
    ),
    (
        {"promote": {"router_start_settings": {"std": "wide"}}},
        r"study\.yaml: promote: router_start_settings\.std: must be a number",
    ),
    (
        {"promote": {"upcycler": "virtual-groups", "model": {"experts": 3}}},
        r"study\.yaml: promote: experts: 3 experts are no whole number of copies in 2 shards",
    ),
    (
        {"promote": {"router_start": "ridge", "model": {"experts": 3, "router": "hash"}}},
        r"study\.yaml: promote: router_start: the router 'hash' has no row for each expert",
    ),
    (
        {"promote": {"router_start": "ridge", "upcycler": "sparse"}},
        r"study\.yaml: promote: router_start: all experts come from 'seed'",
    ),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_study_that_is_refused_binds_no_folder_to_its_settings(
    text_corpus: Corpus, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    file = write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False, **settings)
    with pytest.raises(MixoptError, match=message), open_session(file):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_a_study_that_was_refused_for_its_tasks_opens_once_they_are_corrected(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    tasks = tmp_path / "exam.jsonl"
    tasks.write_text("no question\n")
    settings = {"mlflow": {"enabled": False}, "tasks": {"exam": {"path": "exam.jsonl"}}}
    file = write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False, **settings)
    with pytest.raises(CorpusError, match="exam"), open_session(file):
        pass
    tasks.write_text('{"context": "Two and two are", "continuation": " four"}\n')
    with open_session(file) as session:
        assert has_begun(session.study)


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_plan_of_what_cannot_run_is_an_error_and_no_table(
    text_corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    message: str,
) -> None:
    file = write_study(tmp_path / "study.yaml", text_corpus.path, with_store=False, **settings)
    with pytest.raises(MixoptError, match=message):
        show_plan(file, slots=2)
    assert capsys.readouterr().out == ""


CHOOSING = {**MODEL, "router": "expert-choice", "router_settings": {"ablation": True}}


@pytest.mark.parametrize(
    ("promote", "ray", "message"),
    [
        (
            {"model": CHOOSING},
            {},
            "fills its experts from whole batches",
        ),
        ({}, {"gpus_per_trial": 0.25}, "each takes one whole GPU"),
    ],
)
def test_a_full_run_that_processes_cannot_share_is_refused_before_anything_is_trained(
    text_corpus: Corpus,
    tmp_path: Path,
    promote: dict[str, Any],
    ray: dict[str, Any],
    message: str,
) -> None:
    together = {"resources": {"processes": 2}}
    file = write_study(
        *(tmp_path / "study.yaml", text_corpus.path),
        with_store=False,
        promote=together | promote,
        ray=ray,
    )
    with pytest.raises(StudyError, match=message):
        show_plan(file, 1, measure=False)


def test_a_plan_says_what_a_full_run_needs_and_what_is_too_large_to_be_tried(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = {"width": 4096, "heads": 32, "expert_width": 8192, "experts": 4}
    file = write_study(
        *(tmp_path / "study.yaml", text_corpus.path),
        with_store=False,
        promote={"resources": {"processes": 2}, "model": wide},
    )
    show_plan(file, 2)
    printed = capsys.readouterr()
    shown = " ".join(printed.out.split())
    lines = printed.err.splitlines()  # no terminal: a line as each part begins and ends
    assert lines[0] == "measuring this machine's speed (--no-measure skips it)"
    assert lines[1] == f"  first {COHORT} …"
    begun, ended = lines[3:-1:2], lines[4:-1:2]
    assert begun[0].startswith(f"  1 of {len(begun)}: initial design")
    assert len(ended) == len(begun)
    for one, other in zip(begun, ended, strict=True):
        assert re.fullmatch(rf"{re.escape(one.removesuffix(' …'))}: \S+ \S+", other)
    assert not any("upcycled model" in line for line in lines)  # which is too large to be tried
    assert re.fullmatch(r"measured in \S+ \S+", lines[-1])
    assert "Memory, upcycled model: each of 2 processes holds about" in shown
    assert "on disk 2 checkpoints of" in shown
    assert "Too large to be tried on this machine: dense seed model, domain experts" in shown
    assert "share their work in 2 processes" in shown


def test_a_plan_says_what_of_the_full_run_is_unusual(text_corpus: Corpus, tmp_path: Path) -> None:
    phases = [{"what": "router", "share": 0.5}, {"what": "experts", "share": 0.5}]
    changes = {"trains": phases, "model": {**MODEL, "document_mask": True}}
    study = load_study(write_study(tmp_path / "s.yaml", text_corpus.path, promote=changes))
    notes = proxies_plan(study, text_corpus, 1, measure=False).notes
    assert any("end with {what: all}" in note for note in notes)
    assert any("promote.model.document_mask is set in one of" in note for note in notes)
    usual = load_study(write_study(tmp_path / "usual.yaml", text_corpus.path))
    notes = proxies_plan(usual, text_corpus, 1, measure=False).notes
    assert not any("document_mask" in note or "end with" in note for note in notes)


def test_a_terminal_shows_what_is_measured_in_one_line_with_a_clock() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, markup=False)
    shown = Shown(console)
    with shown.all():
        with shown.part("2 of 3: domain experts"):
            pass
        with shown.part("3 of 3: initial design, rounds, selection (at most), 16 as one"):
            pass
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [Text.from_ansi(line).plain.strip() for line in re.split(r"[\r\n]", printed)]
    said = [line for line in lines if "measuring" in line]
    assert said[-1].endswith(
        "s speed, 3 of 3: initial design, ro…: 0:00:00 in all; --no-measure skips it"
    )
    assert all(len(line) <= 100 for line in said)
    assert "measured in" not in printed
