"""Promotions whose upcycled model a trainer of the user's trains: our stages, then theirs.

One search is behind all of them; every test promotes its verdict in a copy of the study's folder.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixopt.corpus.shards import Corpus
from mixopt.io import files, markers
from mixopt.models.config import ModelConfig
from mixopt.pipelines.study.initial_model import is_exportable
from mixopt.pipelines.study.plan import show_plan
from mixopt.pipelines.study.plan_trials import FULL_RUN
from mixopt.pipelines.study.promotion_room import full_run_resources, trainer_resources
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.study.stages_for_trainer import (
    STAGES,
    _ended,
    _keep_written,
    _linked,
)
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.results import Promotion
from mixopt.study.settings import load_study
from mixopt.trainers.job import TrainingJob
from tests.pipelines.made_runs import Run
from tests.pipelines.study.imported import branched, checkpoint
from tests.pipelines.study.test_elsewhere import asked, told
from tests.pipelines.whole_study import (
    MODEL,
    SMALL,
    STEP,
    mixopt,
    start,
    succeeded,
    wait_for,
    write_study,
)

pytestmark = pytest.mark.xdist_group("ray")
TWO = {**MODEL, "experts_per_token": 2}  # which Mixtral can hold
TOKENS = 20 * STEP
HEAD = """\
import json, os, sys, time
from pathlib import Path
import torch
from mixopt.corpus.shards import Corpus
from mixopt.proxies.evaluation import evaluate

job = json.loads(Path(sys.argv[1]).read_text())
folder, start, corpus = Path(job["folder"]), Path(job["initial_model"]), Corpus.open(job["corpus"])
torch.manual_seed(job["seed"])

def evaluated(model):
    (found,) = evaluate(model, corpus, corpus.validation_domains, 512, 32)
    return dict(found.metrics)

def report(tokens, metrics):
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"tokens": tokens, "metrics": metrics}) + "\\n")

def batch(name, step):
    text = torch.from_numpy(corpus.train(name)[step * 128 : step * 128 + 132].astype("int64"))
    return text.view(4, 33)

def finish(metrics):
    result = {"metrics": metrics, "mixture": job["mixture"], "tokens": job["tokens"],
              "seed": job["seed"], "checkpoint": "trained"}
    (folder / "result.part").write_text(json.dumps(result))
    os.replace(folder / "result.part", folder / "result.json")

name = max(job["mixture"], key=job["mixture"].get)
"""
# a Hugging Face checkpoint, by transformers alone
OF_TRANSFORMERS = (
    HEAD
    + """\
from transformers import AutoModelForCausalLM
from mixopt.proxies.foreign import ForeignModel

model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
judged = ForeignModel(model)
report(0, evaluated(judged))
while Path(sys.argv[0]).with_name("hang").exists():
    time.sleep(0.1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step in range(job["tokens"] // 128):
    ids = batch(name, step)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(folder / "trained")
finish(evaluated(judged))
"""
)
# our own format, by this library
OF_MIXOPT = (
    HEAD
    + """\
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.proxies.checkpoint import load_state, save_state

model = Transformer(ModelConfig(**json.loads((start / "model.json").read_text())))
model.load_proxy_state(load_state(start / "model.safetensors")[0])
report(0, evaluated(model))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step in range(job["tokens"] // 128):
    ids = batch(name, step)[None]
    model.loss(ids[..., :-1], ids[..., 1:]).nats_K.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
save_state(folder / "trained" / "weights.safetensors", model.proxy_state())
finish(evaluated(model))
"""
)


@pytest.fixture(scope="module")
def searched(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """A study that has its verdict; nothing is promoted."""
    file = write_study(
        tmp_path_factory.mktemp("searched") / "study.yaml",
        text_corpus.path,
        search={"trials": 4, "rounds": 0, "repeats": 1},
        select={"seeds": 2},
        mlflow={"enabled": False},
    )
    run_study(file, "search")
    run_study(file, "select")
    return file


def prepared(
    searched: Path, folder: Path, script: str, *, mlflow: bool = False, **keys: Any
) -> Path:
    """A copy of the study whose upcycled model is trained by `script`."""
    shutil.copytree(searched.parent, folder)
    (folder / "full.py").write_text(script)
    trainer = {"command": "{python} full.py {job}", "grace": 1}
    promote = {**SMALL["promote"], "trainer": trainer, "upcycle": True, "tokens": TOKENS, **keys}
    return rewritten(folder / searched.name, promote, mlflow)


def rewritten(file: Path, promote: Mapping[str, Any], mlflow: bool = False) -> Path:
    settings = yaml.safe_load(file.read_text())
    settings |= {"promote": dict(promote), "mlflow": {"enabled": mlflow}}
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return file


def promotion_of(file: Path) -> Promotion:
    found = read_promotion(load_study(file).home)
    assert found is not None
    return found


def attempts(folder: Path) -> dict[str, int]:
    """Lines of each stage's account of attempts: a begun and a completed one each."""
    found = sorted(folder.glob("*/attempts.jsonl"))
    return {path.parent.name: len(path.read_text().splitlines()) for path in found}


def job_of(file: Path) -> TrainingJob:
    promotion = promotion_of(file)
    home = load_study(file).home / "promotion" / promotion.id
    return TrainingJob.read(home / "full-run" / "job.json")


def first_evaluation(file: Path) -> dict[str, float]:
    """What the trainer measured before its first step."""
    line = (Path(job_of(file).folder) / "progress.jsonl").read_text().splitlines()[0]
    found = json.loads(line)
    assert found["tokens"] == 0
    return dict(found["metrics"])


def check_beside_prediction(file: Path) -> None:
    """What the trainer measured stands beside what is predicted of a proxy on its mixture."""
    promotion, verdict = promotion_of(file), read_verdict(load_study(file).home)
    assert verdict is not None
    assert promotion.mixture.same_as(verdict.mixture)
    told_of = json.loads((Path(job_of(file).folder) / "result.json").read_text())
    assert dict(promotion.after) == told_of["metrics"]
    candidate = verdict.winner.predicted
    assert candidate is not None
    assert promotion.predicted["bpb/notes"].mean == pytest.approx(candidate.mean)


@pytest.mark.slow
def test_a_trainer_begins_from_our_model_and_a_kill_repeats_no_stage(
    searched: Path, tmp_path: Path, run: Run
) -> None:
    file = prepared(searched, tmp_path / "copy", OF_TRANSFORMERS, mlflow=True, model=TWO)
    hang = file.parent / "hang"
    hang.touch()
    running = start("mixopt", "promote", file, cwd=file.parent)
    home = load_study(file).home
    try:
        wait_for(lambda: any(home.glob("promotion/*/full-run/progress.jsonl")), running)
        shown = " ".join(run("status", file).out.split())
        assert "seed ended" in shown
        assert "full-run 0 tokens evaluated" in shown
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    (folder,) = (path.parent for path in home.glob("promotion/*/asked.json"))
    before = attempts(folder)
    hang.unlink()
    succeeded(mixopt("promote", file, cwd=file.parent))
    after = attempts(folder)
    assert after.pop("full-run") > before.pop("full-run")
    assert after == before
    assert set(after) == {"seed", *(f"expert-{name}" for name in promotion_of(file).expert_names)}
    assert set(after.values()) == {2}

    promotion, job = promotion_of(file), job_of(file)
    assert job.resume
    assert job.attempt == 2
    assert (job.role, job.tokens, job.initial_model) == ("promote", TOKENS, str(folder / "initial"))
    assert job.fidelity.params == promotion.active_params
    assert first_evaluation(file) == pytest.approx(dict(promotion.before), rel=1e-4)
    check_beside_prediction(file)
    assert [stage.kind for stage in promotion.stages] == ["seed", "expert", "expert", "own"]
    assert promotion.tokens == sum(stage.tokens for stage in promotion.stages) == 60 * STEP
    assert promotion.device_seconds == sum(stage.device_seconds for stage in promotion.stages)
    assert promotion.seed
    assert promotion.receipt is not None
    words = "Upcycled by branch-train-mix, trained by your own trainer, 7.68k tokens"
    assert words in " ".join((home / "report.html").read_text().split())
    assert "branch-train-mix and your own trainer" in " ".join(run("status", file).out.split())
    (shown_run,) = RunStore.open(load_study(file)).runs({"mixopt.promotion": promotion.id})
    assert "seed/train/loss" in shown_run.data.metrics
    assert shown_run.data.metrics["cost/seed/tokens"] == 20 * STEP
    assert shown_run.data.metrics["cost/full run/tokens"] == TOKENS
    assert shown_run.data.metrics["after/bpb/notes"] == pytest.approx(promotion.after["bpb/notes"])

    assert run("export", file, "--model", tmp_path / "out").code == 0
    trained = (folder / "full-run" / "trained" / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == trained
    receipt = json.loads((tmp_path / "out" / "upcycling.json").read_text())
    assert receipt == promotion.receipt.to_json()
    assert words in (tmp_path / "out" / "README.md").read_text()

    # another script is another full run, from the stages that there are
    script = file.parent / "full.py"
    script.write_text("# another version\n" + script.read_text())
    result = run("promote", file)
    assert result.code == 0, result.err
    out = " ".join(result.out.split())
    assert "A new promotion begins: promote.trainer (its files, command, version" in out
    again = promotion_of(file)
    assert again.id != promotion.id
    assert again.stages[:-1] == promotion.stages[:-1]
    assert attempts(folder.parent / again.id) == after | {"full-run": 2}
    assert again.before == promotion.before


@pytest.mark.slow
def test_a_model_that_mixtral_cannot_hold_is_handed_over_in_our_own_format(
    searched: Path, tmp_path: Path
) -> None:
    file = prepared(searched, tmp_path / "copy", OF_MIXOPT)
    run_study(file, "promote")
    promotion, job = promotion_of(file), job_of(file)
    assert job.initial_model is not None
    start_of = Path(job.initial_model)
    assert start_of.name == "upcycled"
    assert {"model.json", "model.safetensors", "tokenizer.json"} <= set(names(start_of))
    assert first_evaluation(file) == pytest.approx(dict(promotion.before), rel=1e-6)
    check_beside_prediction(file)
    heaviest = max(promotion.mixture.domains, key=lambda name: promotion.mixture[name])
    assert promotion.after[f"bpb/{heaviest}"] < promotion.before[f"bpb/{heaviest}"]
    assert list(promotion.files) == ["weights.safetensors"]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.slow
def test_imported_checkpoints_are_upcycled_and_handed_over(
    searched: Path, text_corpus: Corpus, tmp_path: Path
) -> None:
    seed = checkpoint(text_corpus, tmp_path / "copy-models" / "seed")
    law = branched(seed, seed.parent / "law")
    keys = {"seed_model": str(seed), "expert_models": {"law": str(law)}, "model": TWO}
    file = prepared(searched, tmp_path / "copy", OF_TRANSFORMERS, **keys)
    run_study(file, "promote")
    promotion, job = promotion_of(file), job_of(file)
    assert job.initial_model is not None
    assert Path(job.initial_model).name == "model"
    assert first_evaluation(file) == pytest.approx(dict(promotion.before), rel=1e-4)
    check_beside_prediction(file)
    assert [stage.kind for stage in promotion.stages] == ["own"]
    assert promotion.imported == {"seed": str(seed), "law": str(law)}
    assert promotion.active_params == job.fidelity.params


@pytest.mark.slow
def test_the_upcycled_model_may_be_trained_elsewhere(
    searched: Path, tmp_path: Path, run: Run
) -> None:
    file = prepared(searched, tmp_path / "copy", "", model=TWO, trainer="elsewhere")
    (row,) = asked(file).to_dicts()
    home = load_study(file).home
    (folder,) = (path.parent for path in home.glob("promotion/*/asked.json"))
    assert row["initial_model"] == str(folder / "initial")
    assert (row["tokens"], row["role"]) == (TOKENS, "promote")
    before = attempts(folder)
    told(file, [{**row, "bpb/notes": 3.5, "checkpoint": "s3://models/step-10"}])
    assert asked(file).is_empty()
    assert attempts(folder) == before
    promotion = promotion_of(file)
    assert promotion.after == {"bpb/notes": 3.5}
    assert promotion.checkpoint == "s3://models/step-10"
    assert [stage.kind for stage in promotion.stages] == ["seed", "expert", "expert", "own"]
    page = " ".join((home / "report.html").read_text().split())
    assert "Upcycled by branch-train-mix, trained elsewhere, 7.68k tokens" in page


def test_plan_says_what_is_ours_and_what_is_the_trainers(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promote = {**SMALL["promote"], "model": TWO, "tokens": "100k", "upcycle": True}
    file = write_study(tmp_path / "study.yaml", text_corpus.path)
    (tmp_path / "full.py").touch()
    rewritten(file, {**promote, "trainer": {"command": "{python} full.py {job}"}})
    show_plan(file, 1, measure=False, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    steps = [step["step"] for step in plan["steps"]]
    assert steps[-2:] == ["dense seed model", "domain experts"]
    said = " ".join(plan["notes"])
    assert "their upcycling are ours; your trainer trains the upcycled model on the mixture" in said
    assert "100k tokens, not in the table: your trainer's times are not known" in said
    assert "✓ full.py is there" in said
    rewritten(file, {**promote, "trainer": "elsewhere"})
    show_plan(file, 1, measure=False, as_json=True)
    said = " ".join(json.loads(capsys.readouterr().out)["notes"])
    assert "from the folder `initial_model` of its job. The full run is trained elsewhere" in said


def test_plan_of_a_search_by_another_trainer_has_our_stages_too(
    text_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path / "study.yaml", text_corpus.path)
    (tmp_path / "full.py").touch()
    trainer = {"command": "{python} full.py {job}"}
    settings = yaml.safe_load(file.read_text())
    settings |= {"trainer": trainer, "objective": {"acc": 1}, "proxy": {"tokens": 1000}}
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    ours = ["dense seed model", "domain experts"]
    for keys, last in ({"trainer": trainer, "upcycle": True}, FULL_RUN), ({}, "upcycled model"):
        rewritten(file, {**SMALL["promote"], **keys})
        show_plan(file, 1, measure=False, as_json=True)
        plan = json.loads(capsys.readouterr().out)
        assert [step["step"] for step in plan["steps"]][-3:] == [*ours, last]
        told_format = "`initial_model` will be in our own format" in " ".join(plan["notes"])
        assert told_format == bool(keys)


def test_what_a_trainer_changed_of_the_model_that_it_was_given_is_written_again(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    filled: list[Path] = []
    initial = tmp_path / "initial"

    def fill(folder: Path) -> None:
        filled.append(folder)
        files.write_bytes(folder / "model.safetensors", b"as upcycled")

    for _ in range(2):
        _keep_written(initial, fill, said.append)
    _linked(initial, tmp_path / "taken")
    _keep_written(tmp_path / "taken", fill, said.append)
    assert (len(filled), said) == (1, [])
    (initial / "model.safetensors").write_bytes(b"as trained!")
    _keep_written(initial, fill, said.append)
    assert (initial / "model.safetensors").read_bytes() == b"as upcycled"
    (line,) = said
    assert "initial was changed and is written again" in line


def test_ended_stages_are_taken_over_whole_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    before = tmp_path / "before"
    for stage in ("seed", "expert-law", "upcycled", "full-run"):
        files.write_bytes(before / stage / "model.safetensors", stage.encode())
        (before / stage / "lock").touch()
        if stage != "expert-law":
            markers.write(before / stage, {"outcomes": []})
    files.write_bytes(before / "initial" / "config.json", b"{}")
    (before / ".initial.part").mkdir()
    files.write_json(before / STAGES, {})
    ended = list(_ended(before))
    assert [path.name for path in ended] == ["initial", "seed", "upcycled"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".seed.part").mkdir()  # of a driver that was killed
    _linked(before / "seed", tmp_path / "new" / "seed")
    assert names(tmp_path / "new") == ["seed"]
    assert markers.read(tmp_path / "new" / "seed") == markers.read(before / "seed")
    one, other = (path / "seed" / "model.safetensors" for path in (before, tmp_path / "new"))
    assert one.samefile(other)
    shutil.rmtree(before)
    assert other.read_bytes() == b"seed"


def test_the_trainer_gets_what_all_our_processes_have(text_corpus: Corpus, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study.yaml", text_corpus.path)
    resources = {"processes": 4, "cpus": 8, "gpus": 1}
    promote = {**SMALL["promote"], "upcycle": True, "resources": resources}
    study = load_study(rewritten(file, {**promote, "trainer": "my.trainer:train"}))
    each, together = full_run_resources(study), trainer_resources(study)
    assert (each.cpus, each.gpus) == (8, 1)
    assert (together.cpus, together.gpus) == (32, 4)


def test_mixtral_holds_our_model_where_gates_sum_to_one() -> None:
    assert is_exportable(ModelConfig(**TWO))
    assert not is_exportable(ModelConfig(**MODEL))
