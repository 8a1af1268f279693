"""A whole study, from its file to the registered model, and what the same command does again."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixopt.core.errors import FileError
from mixopt.core.trials import Role, State
from mixopt.corpus.shards import Corpus
from mixopt.io import markers
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.mlflow.tracking import tracking_uri
from mixopt.proxies.checkpoint import load_state
from mixopt.study.records import read_verdict
from mixopt.study.settings import Study, load_study
from tests.pipelines.made_runs import Run
from tests.pipelines.whole_study import (
    MODEL,
    RECIPE,
    attempts,
    change,
    finish,
    ledger_trials,
    shown_trials,
    slow,
    start,
    succeeded,
    write_study,
)

pytestmark = pytest.mark.xdist_group("ray")

NOT_OURS = ("core", "io", "pipelines", "proxies", "study", "workers")  # beside the study file
TRIALS = 5 + 1 + 2  # design, repeat, one round; selection's come on top


@dataclass(frozen=True)
class Ran:
    """A study that ran once, and how that went."""

    file: Path
    study: Study
    done: subprocess.CompletedProcess[str]

    @property
    def home(self) -> Path:
        return self.study.home


@pytest.fixture(scope="module")
def ran(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The study `tiny`, run with the documented module; no test changes it."""
    file = write_study(
        tmp_path_factory.mktemp("study") / "tiny.yaml",
        text_corpus.path,
        promote={"model": {**MODEL, "experts_per_token": 2}},  # gates sum to 1: mixtral holds it
    )
    for name in NOT_OURS:
        (file.parent / name).mkdir()
        (file.parent / name / "__init__.py").write_text("raise SystemError('not for mixopt')")
    done = succeeded(finish(start("mixopt", "run", file.name, cwd=file.parent)))
    return Ran(file, load_study(file), done)


@pytest.fixture
def copy(ran: Ran, tmp_path: Path) -> Path:
    """The study file of a copy to work on; without MLflow's database, whose paths are absolute."""
    shutil.copytree(
        ran.file.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("mlflow.db", "mlart*")
    )
    return tmp_path / "copy" / ran.file.name


def test_a_study_leaves_its_verdict_mixture_promotion_and_report(ran: Ran) -> None:
    verdict = json.loads((ran.home / "verdict.json").read_text())
    assert {"natural", "uniform"} <= {candidate["name"] for candidate in verdict["candidates"]}
    assert verdict["candidates"][0]["name"] == verdict["baseline"] == "natural"
    mixture = json.loads((ran.home / "mixture.json").read_text())
    assert mixture == verdict["mixture"]
    assert sum(mixture.values()) == pytest.approx(1)
    promotion = json.loads((ran.home / "promotion" / "result.json").read_text())
    assert promotion["mixture"] == mixture
    assert [stage["kind"] for stage in promotion["stages"]] == ["seed", "expert", "expert", "moe"]
    assert set(promotion["after"]) == set(promotion["before"])
    page = (ran.home / "report.html").read_text()
    assert verdict["promoted"] in page
    assert page.rstrip().endswith("</html>")


def test_every_trial_of_the_ledger_was_completed_once(ran: Ran) -> None:
    trials = ledger_trials(ran.study)
    assert [t.number for t in trials] == list(range(len(trials)))
    assert {t.state for t in trials} == {State.COMPLETE}
    assert sum(t.spec.role is not Role.SELECT for t in trials) == TRIALS
    result = attempts(ran.home)
    assert sorted(result) == [t.number for t in trials]
    assert all([list(line) for line in lines] == ONCE for lines in result.values())


def test_a_users_own_packages_are_not_taken_for_ours(ran: Ran) -> None:
    assert [(ran.file.parent / name / "__init__.py").exists() for name in NOT_OURS] == [True] * 6
    assert "not for mixopt" not in ran.done.stdout + ran.done.stderr


ONCE = [["attempt", "started"], ["attempt", "completed"]]


def test_mlflow_shows_the_trials_of_the_ledger_and_no_others(ran: Ran) -> None:
    shown = shown_trials(ran.study)
    trials = ledger_trials(ran.study)
    assert sorted(shown) == [t.number for t in trials]
    for trial in trials:
        status, metrics = shown[trial.number]
        assert status == "FINISHED"
        assert metrics["bpb/notes"] == trial.metrics["bpb/notes"]


def test_the_registered_model_can_be_downloaded(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = tracking_uri(ran.study)
    verdict = read_verdict(ran.home)
    assert verdict is not None
    alias = "champion" if verdict.improved else "challenger"  # the baseline takes no place
    version = MlflowClient(uri, uri).get_model_version_by_alias("tiny", alias)
    assert version.tags["mixopt.study"] == "tiny"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/tiny@{alias}"))
    names = {path.name for path in folder.rglob("*")}
    assert "MLmodel" in names
    assert any(name.endswith(".safetensors") for name in names), names


def test_what_it_prints_fits_100_columns_and_ends_with_what_to_do_next(ran: Ran) -> None:
    lines = ran.done.stdout.splitlines()
    rows = [line for line in lines if str(ran.home) not in line]  # paths stay whole, to be copied
    assert max(map(len, rows)) <= 100, max(rows, key=len)
    assert ran.done.stderr == ""
    assert "open MLflow          mixopt ui tiny.yaml" in lines
    for command in ("mixopt status tiny.yaml", "mixopt export tiny.yaml --mixture json"):
        assert command in ran.done.stdout


def test_status_sync_and_report_show_a_finished_study(
    ran: Ran, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    before = shown_trials(ran.study)
    code, status, _ = run("status", ran.file)
    assert code == 0
    assert "no active driver" in status
    assert "mixture is selected" in status
    rows = [line for line in status.splitlines() if str(ran.home) not in line]
    assert max(map(len, rows)) <= 100
    assert Path(run("report", ran.file).out.strip()) == ran.home / "report.html"
    assert f"{len(before)} trials" in run("sync", ran.file).out
    assert shown_trials(ran.study) == before


def test_the_same_command_again_trains_nothing_and_shows_nothing_twice(ran: Ran) -> None:
    def state() -> tuple[object, ...]:
        store = RunStore.open(ran.study)
        runs = sorted(run.info.run_id for run in store.runs({"mixopt.study": "tiny"}))
        weights = {p: p.stat().st_mtime_ns for p in ran.home.rglob("*.safetensors")}
        return attempts(ran.home), ledger_trials(ran.study), runs, weights

    before = state()
    verdict = (ran.home / "verdict.json").read_text()
    again = succeeded(finish(start("mixopt", "run", ran.file.name, cwd=ran.file.parent)))
    assert state() == before
    assert (ran.home / "verdict.json").read_text() == verdict
    assert "to train" not in again.stdout
    assert "Ray" not in again.stdout  # nothing to do is no reason to start a cluster
    assert again.stderr == ""


@pytest.mark.parametrize("before", [slow(""), slow("{}"), '{"web": '])
def test_the_mixture_to_promote_is_written_again_where_it_differs(
    before: str, ran: Ran, copy: Path, run: Run
) -> None:
    mixture = load_study(copy).home / "mixture.json"
    mixture.write_text(before)
    assert run("select", copy).code == 0
    assert mixture.read_text() == (ran.home / "mixture.json").read_text()


@pytest.mark.parametrize("command", ["select", "promote", "report", "sync"])
def test_a_step_of_a_study_that_has_not_begun_is_refused_and_leaves_no_folder(
    command: str, ran: Ran, tmp_path: Path, run: Run
) -> None:
    file = write_study(tmp_path / "tiny.yaml", ran.study.corpus_path, with_store=False)
    result = run(command, file)
    assert result.code == 1
    first = "search" if command in ("select", "promote") else "run"
    assert "has not begun" in result.err
    assert f"Run `mixopt {first} {file}` first" in result.err
    assert not load_study(file).home.exists()


def test_a_step_before_its_turn_trains_nothing_and_names_the_command(copy: Path, run: Run) -> None:
    study = load_study(copy)
    trials = ledger_trials(study)
    (study.home / "verdict.json").unlink()
    result = run("promote", copy)
    assert (result.code, f"Run `mixopt select {copy}` first" in result.err) == (1, True)
    change(copy, "search", rounds=2)
    for command in ("select", "promote"):
        result = run(command, copy)
        assert (result.code, f"Run `mixopt search {copy}` first" in result.err) == (1, True)
    assert ledger_trials(study) == trials


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_a_study_that_lost_its_ledger_takes_up_its_trials_from_their_folders(
    ran: Ran, copy: Path, run: Run
) -> None:
    study = load_study(copy)
    (study.home / "ledger.db").unlink()
    for command in ("status", "report", "sync", "select", "promote"):
        result = run(command, copy)
        assert (result.code, "ledger.db: the ledger is missing" in result.err) == (1, True)
        assert not (study.home / "ledger.db").exists()
    assert run("search", copy).code == 0
    (study.home / "verdict.json").unlink()  # else the selection is known to be over
    assert run("select", copy).code == 0
    assert attempts(study.home) == attempts(ran.home)  # none was trained again
    assert [t.result for t in ledger_trials(study)] == [t.result for t in ledger_trials(ran.study)]
    verdict = (study.home / "verdict.json").read_text()
    assert json.loads(verdict) == json.loads((ran.home / "verdict.json").read_text())


def test_a_folder_that_lost_its_identity_takes_it_back_from_its_ledger(
    copy: Path, run: Run
) -> None:
    study = load_study(copy)
    (study.home / "verdict.json").unlink()
    identity = study.home / "identity.json"
    before = json.loads(identity.read_text())
    identity.unlink()
    assert run("status", copy).code == 0
    assert run("report", copy).code == 0
    assert run("select", copy).code == 0
    assert json.loads(identity.read_text()) == before | {"path": str(study.home.resolve())}


@pytest.mark.parametrize("name", ["study.json", "identity.json"])
@pytest.mark.parametrize("text", ['{"budget": ', "[]"])
def test_a_file_of_the_folder_that_is_cut_or_of_another_shape_is_named(
    name: str, text: str, copy: Path, run: Run
) -> None:
    (load_study(copy).home / name).write_text(text)
    result = run("run", copy)
    assert (result.code, f"{name}: " in result.err, "Restore it" in result.err) == (1, True, True)
    assert "Traceback" not in result.err


@pytest.mark.parametrize("command", [slow("search"), "select", slow("report")])
def test_a_study_goes_on_without_its_settings_and_trains_nothing_again(
    command: str, ran: Ran, copy: Path, run: Run
) -> None:
    study = load_study(copy)
    trials = ledger_trials(study)
    (study.home / "study.json").unlink()
    assert run(command, copy).code == 0
    assert ledger_trials(study) == trials
    if command != "report":
        again = json.loads((study.home / "study.json").read_text())
        assert again == json.loads((ran.home / "study.json").read_text())


def test_settings_that_the_trials_were_not_trained_with_are_not_kept(copy: Path, run: Run) -> None:
    study = load_study(copy)
    (study.home / "study.json").unlink()
    change(copy, "proxy", recipe={**RECIPE, "learning_rate": 0.5})
    result = run("select", copy)
    assert (result.code, "identity.json: the trials" in result.err) == (1, True)
    assert not (study.home / "study.json").exists()


def test_a_measured_setting_that_is_cut_is_named(tmp_path: Path, text_corpus: Corpus) -> None:
    recipe = {**RECIPE, "precision": "auto"}
    proxy = {"tokens": 2560, "model": MODEL, "recipe": recipe}
    file = write_study(tmp_path / "tiny.yaml", text_corpus.path, proxy=proxy)
    with open_session(file) as session:
        for name, ask in (
            ("precision.json", lambda: session.recipe("proxy")),
            ("cohort.json", session.largest_cohort),
        ):
            for text in ('{"proxies": ', "[]", '{"proxies": "x"}'):
                (session.home / name).write_text(text)
                with pytest.raises(FileError, match=f"{name}: .*Delete it to have it measured"):
                    ask()


@pytest.mark.parametrize("text", ['{"promoted": ', slow("{}"), slow("[]")])
def test_a_verdict_that_is_cut_or_of_another_shape_is_found_again(
    text: str, ran: Ran, copy: Path, run: Run
) -> None:
    verdict = load_study(copy).home / "verdict.json"
    verdict.write_text(text)
    assert run("status", copy).code == 0
    assert run("select", copy).code == 0
    assert json.loads(verdict.read_text()) == json.loads((ran.home / "verdict.json").read_text())


@pytest.mark.usefixtures("ray_here")
def test_a_promotion_whose_stage_lost_its_weights_trains_that_stage_again(
    ran: Ran, copy: Path, run: Run
) -> None:
    promotion = load_study(copy).home / "promotion"
    before = json.loads((promotion / "result.json").read_text())
    for result in [promotion / "result.json", *promotion.glob("*/result.json")]:
        result.write_text('{"method": ')  # cut: as if there were none
    (weights,) = promotion.glob("*/seed/model.safetensors")
    kept, meta = load_state(weights)  # safetensors writes its header's entries in any order
    weights.unlink()
    assert run("promote", copy).code == 0
    again, meta_again = load_state(weights)
    assert meta_again == meta
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    (attempted,) = {path.parent.parent for path in promotion.glob("*/seed/attempts.jsonl")}
    lines = {p.parent.name: len(p.read_text().splitlines()) for p in attempted.glob("*/attempts*")}
    assert lines.pop("seed") == 2 * len(ONCE)
    assert set(lines.values()) == {len(ONCE)}  # no other stage trained again
    after = json.loads((promotion / "result.json").read_text())
    assert after["after"] == before["after"]


def test_a_promoted_model_of_which_bits_flipped_is_exported_again(copy: Path, run: Run) -> None:
    promotion = load_study(copy).home / "promotion"
    model = promotion / json.loads((promotion / "result.json").read_text())["model"]
    whole = {path: path.read_bytes() for path in model.iterdir()}
    assert {path.name for path in whole} == {markers.WEIGHTS, markers.SHAPE, markers.TOKENIZER}
    for path, data in whole.items():
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert run("promote", copy).code == 0
    assert {path: path.read_bytes() for path in model.iterdir()} == whole


@pytest.mark.slow
def test_a_verdict_judged_again_from_the_same_basis_is_the_same_look(
    ran: Ran, copy: Path, run: Run
) -> None:
    before = (ran.home / "verdict.json").read_text()
    (load_study(copy).home / "verdict.json").unlink()
    assert run("select", copy).code == 0
    verdict = json.loads((load_study(copy).home / "verdict.json").read_text())
    assert verdict["look"] == json.loads(before)["look"] == verdict["looks"] == 1


def test_the_looks_planned_at_the_first_verdict_are_not_changed_afterwards(
    copy: Path, run: Run
) -> None:
    change(copy, "select", looks=2)
    result = run("select", copy)
    assert result.code == 1
    assert "1 was fixed at the study's first look, and 2 is asked for now" in result.err


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_more_seeds_after_the_last_look_are_measured_but_promote_nothing(
    copy: Path, run: Run
) -> None:
    change(copy, "select", seeds=3)
    assert run("select", copy).code == 0
    verdict = json.loads((load_study(copy).home / "verdict.json").read_text())
    assert (verdict["promoted"], verdict["look"], verdict["looks"], verdict["level"]) == (
        "natural",
        2,
        1,
        0,
    )
    assert "came before this one" in verdict["reason"]
    with open_session(copy) as session:
        judged = session.ledger.judged()
    assert {look: (used.rule, used.seeds) for look, used in judged.items()} == {
        1: ("repeat", 2),
        2: ("repeat", 3),
    }


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_more_rounds_go_on_from_where_the_study_ended(ran: Ran, copy: Path, run: Run) -> None:
    change(copy, "search", rounds=2)
    assert run("search", copy).code == 0
    before, after = ledger_trials(ran.study), ledger_trials(copy)
    assert after[: len(before)] == before
    new = after[len(before) :]
    assert [(t.spec.role, t.spec.round, t.state) for t in new] == 2 * [
        (Role.SEARCH, 2, State.COMPLETE)
    ]
    earlier = {n: lines for n, lines in attempts(copy.parent / "tiny").items() if n < len(before)}
    assert earlier == attempts(ran.home)


def test_a_setting_that_alters_results_is_refused_with_the_difference(copy: Path, run: Run) -> None:
    change(copy, "proxy", tokens="3k")
    result = run("run", copy)
    assert result.code == 1
    assert "proxy.tokens: was 2560, is 3000" in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("ray_here")
@pytest.mark.slow
def test_a_changed_promotion_begins_beside_the_old_one(ran: Ran, copy: Path, run: Run) -> None:
    home = copy.parent / "tiny"
    old = {path.name for path in (ran.home / "promotion").iterdir() if path.is_dir()}
    change(copy, "promote", expert_tokens=1536)
    assert run("promote", copy).code == 0
    assert attempts(home) == attempts(ran.home)  # no trial was run for it
    now = {path.name for path in (home / "promotion").iterdir() if path.is_dir()}
    assert old < now
    assert len(now) == len(old) + 1
    result = json.loads((home / "promotion" / "result.json").read_text())
    experts = [stage["tokens"] for stage in result["stages"] if stage["kind"] == "expert"]
    assert experts == [1536, 1536]


def test_the_demo_ends_with_a_folder_that_transformers_loads(
    ran: Ran, copy: Path, text_corpus: Corpus, run: Run
) -> None:
    folder = copy.parent
    copy.rename(folder / "study.yaml")
    (folder / "corpus").symlink_to(text_corpus.path)
    code, shown, _ = run("demo", folder)  # the study is done: the demo has its corpus and file
    assert code == 0
    assert "README.md" in shown
    theirs = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer("the court of the", return_tensors="pt")["input_ids"]
    (weights,) = ran.home.glob("promotion/*/model/model.safetensors")
    ours = Transformer(ModelConfig(**json.loads(weights.with_name(markers.SHAPE).read_text())))
    ours.load_proxy_state(load_state(weights)[0])
    with torch.no_grad():
        gap = (theirs(ids).logits - ours.eval().logits(ids[None])[0]).abs().max()
    assert gap < 1e-5
    assert run("demo", folder).code == 0  # again: the export is left as it is
