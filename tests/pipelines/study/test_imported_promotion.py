"""Promotions that begin with existing models: in the place of a stage, or of all of them.

One search is behind all of them; every test promotes its verdict in a copy of the study's folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.pipelines.views.wording import UNTRAINED
from mixopt.proxies.checkpoint import load_state
from mixopt.study.records import read_promotion
from mixopt.study.results import Promotion
from mixopt.study.settings import load_study
from tests.mixopt.models.families.made import logits, some_ids
from tests.pipelines.made_runs import Run
from tests.pipelines.study.imported import branched, checkpoint, own
from tests.pipelines.whole_study import MODEL, SMALL, write_study

# a search, and six promotions of it: two minutes; `test_checkpoint_job.py` holds the task alone
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]
TWO = {**MODEL, "experts": 2, "experts_per_token": 2}
SPARSE = {"upcycler": "sparse", "model": TWO}
Promote = Callable[..., Path]


@pytest.fixture(scope="module")
def searched(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """A study that has its verdict; nothing is promoted."""
    file = write_study(
        tmp_path_factory.mktemp("searched") / "study.yaml",
        text_corpus.path,
        search={"trials": 4, "rounds": 0, "repeats": 1},
        select={"seeds": 2},
        promote={"model": TWO},
        mlflow={"enabled": False},
    )
    run_study(file, "search")
    run_study(file, "select")
    return file


@pytest.fixture
def promote(searched: Path, tmp_path: Path, run: Run) -> Promote:
    """Promote in a copy of the study, by a study file with these keys of `promote`."""

    def promoted(mlflow: bool = False, **keys: Any) -> Path:
        shutil.copytree(searched.parent, tmp_path / "copy")
        file = tmp_path / "copy" / searched.name
        settings = yaml.safe_load(file.read_text())
        settings["promote"] = {**SMALL["promote"], **keys}
        settings["mlflow"] = {"enabled": mlflow}
        file.write_text(yaml.safe_dump(settings, sort_keys=False))
        result = run("promote", file)
        assert result.code == 0, result.err
        (file.parent / "out.txt").write_text(result.out)
        return file

    return promoted


def promotion_of(file: Path) -> Promotion:
    found = read_promotion(load_study(file).home)
    assert found is not None
    return found


def times(folder: Path) -> dict[str, int]:
    """When each file of the promotion's folders was written."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def test_a_seed_of_our_own_takes_the_place_of_its_training(
    promote: Promote, text_corpus: Corpus, tmp_path: Path
) -> None:
    seed = own(text_corpus, tmp_path / "own")
    found = promotion_of(promote(**SPARSE, seed_model=str(seed)))
    assert [stage.name for stage in found.stages] == ["upcycled"]
    assert found.imported == {"seed": str(seed)}
    assert found.before == pytest.approx(found.seed, abs=1e-4)  # copies compute what the seed does
    assert found.after["bpb/law"] < found.before["bpb/law"]
    assert found.trained


def test_an_expert_of_our_own_takes_the_place_of_its_training(
    promote: Promote, text_corpus: Corpus, tmp_path: Path
) -> None:
    seed, law = own(text_corpus, tmp_path / "own"), own(text_corpus, tmp_path / "law", seed=4)
    file = promote(
        model={**TWO, "experts": 3}, seed_model=str(seed), expert_models={"law": str(law)}
    )
    found = promotion_of(file)
    names = [stage.name for stage in found.stages]
    assert found.expert_names[0] == "law"
    assert names == [*(f"expert {name}" for name in found.expert_names[1:]), "upcycled"]
    (upcycled,) = file.parent.glob("study/promotion/*/upcycled/model.safetensors")
    name = "blocks.0.feed_forward.gate_up"
    given, made = load_state(law / "model.safetensors")[0], load_state(upcycled)[0]
    assert torch.equal(made[name][0], given[name][0])


def test_a_stage_of_one_promotion_is_the_seed_of_another(promote: Promote, run: Run) -> None:
    file = promote(**SPARSE)
    (stage,) = file.parent.glob("study/promotion/*/seed")
    before = promotion_of(file)
    settings = yaml.safe_load(file.read_text())
    settings["promote"]["seed_model"] = str(stage)
    file.write_text(yaml.safe_dump(settings))
    result = run("promote", file)
    assert result.code == 0, result.err
    assert "A new promotion begins: promote.seed_model or" in " ".join(result.out.split())
    after = promotion_of(file)
    assert after.id != before.id
    assert after.seed == pytest.approx(before.seed)
    assert after.after == pytest.approx(before.after)


def test_a_checkpoint_is_upcycled_evaluated_and_exported(
    promote: Promote, text_corpus: Corpus, tmp_path: Path, run: Run
) -> None:
    seed = checkpoint(text_corpus, tmp_path / "llama")
    file = promote(mlflow=True, **SPARSE, seed_model=str(seed), train=False)
    study, found = load_study(file), promotion_of(file)
    assert (found.stages, found.after, found.tokens, found.trained) == ((), {}, 0, False)
    assert found.before == pytest.approx(found.seed, abs=1e-4)
    assert {f"bpb/{name}" for name in text_corpus.validation_domains} <= set(found.before)
    assert found.receipt.logit_difference is not None
    assert found.receipt.logit_difference < 1e-4
    assert set(found.loads) == set(text_corpus.validation_domains)
    model = study.home / "promotion" / found.model
    ids = some_ids()
    assert (logits(model, ids) - logits(seed, ids)).abs().max() < 1e-5

    shown = " ".join((file.parent / "out.txt").read_text().split())
    assert "Upcycled by sparse, not trained," in shown
    assert UNTRAINED in shown
    assert "trained" not in [word.strip() for word in shown.split("┃")]
    assert "upcycled, not trained," in run("status", file).out
    page = (study.home / "report.html").read_text()
    assert UNTRAINED in page
    assert f"Imported: seed from {seed}." in page
    _is_registered(file)
    _leaves(file, tmp_path / "out", ids, run)


def _is_registered(file: Path) -> None:
    client = RunStore.open(load_study(file)).client
    version = client.get_model_version_by_alias("study", "challenger")  # none to compare with
    assert version.tags["mixopt.trained"] == "false"
    assert "not trained" in version.description


def _leaves(file: Path, out: Path, ids: torch.Tensor, run: Run) -> None:
    model = load_study(file).home / "promotion" / promotion_of(file).model
    result = run("export", file, "--model", out)
    assert result.code == 0, result.err
    assert "upcycled, not trained" in result.out
    assert torch.equal(logits(out, ids), logits(model, ids))
    assert transformers.AutoTokenizer.from_pretrained(out)("the court")["input_ids"]
    card = (out / "README.md").read_text()
    assert UNTRAINED in card
    assert "- mixtral" in card
    facts = json.loads((out / "mixopt.json").read_text())
    assert facts["trained"] is False
    assert facts["metrics"] == dict(promotion_of(file).before)
    assert json.loads((out / "upcycling.json").read_text())["method"] == "sparse"


def test_a_checkpoint_and_its_experts_become_one_mixture(
    promote: Promote, text_corpus: Corpus, tmp_path: Path, run: Run
) -> None:
    seed = checkpoint(text_corpus, tmp_path / "qwen", "qwen3")
    file = promote(
        model={**TWO, "experts": 3},
        merge="ties",
        router_start="ridge",
        train=False,
        seed_model=str(seed),
        expert_models={
            "prose": str(branched(seed, tmp_path / "prose")),
            "law": str(branched(seed, tmp_path / "law")),
        },
    )
    found = promotion_of(file)
    assert found.expert_names == ("prose", "law")
    assert found.receipt.experts == ("prose", "law", "seed")
    assert (found.receipt.merge, found.receipt.router) == ("ties", "ridge")
    assert all(len(load) == 3 for load in found.loads.values())
    model = load_study(file).home / "promotion" / found.model
    config = json.loads((model / "config.json").read_text())
    assert (config["model_type"], config["num_experts"]) == ("qwen3_moe", 3)

    folder = model.parent
    before = times(folder)
    assert run("promote", file).code == 0
    assert times(folder) == before  # nothing is done twice
    _goes_on_after_a_kill(file, folder, run)


def _goes_on_after_a_kill(file: Path, folder: Path, run: Run) -> None:
    """Without the last marker the folder and the seed's evaluation are kept; damaged it is not."""
    before = times(folder)
    for path in (folder / "upcycled" / "done.json", folder / "result.json"):
        path.unlink()
    assert run("promote", file).code == 0
    after = times(folder)
    again = {name for name in before if after[name] != before[name]}
    assert again == {"upcycled/done.json", "result.json"}
    (folder / "model" / "config.json").write_text("{}")
    assert run("promote", file).code == 0
    assert json.loads((folder / "model" / "config.json").read_text())["num_experts"] == 3
    assert times(folder)["seed/done.json"] == before["seed/done.json"]


def test_an_upcycled_checkpoint_is_trained_in_two_processes_and_exported(
    promote: Promote, text_corpus: Corpus, tmp_path: Path, run: Run
) -> None:
    seed = checkpoint(text_corpus, tmp_path / "llama")
    together = {"processes": 2, "cpus": 0.5}
    file = promote(mlflow=True, **SPARSE, seed_model=str(seed), resources=together)
    found = promotion_of(file)
    assert [(stage.name, stage.kind) for stage in found.stages] == [("upcycled", "moe")]
    assert found.tokens == SMALL["promote"]["tokens"]
    assert found.before == pytest.approx(found.seed, abs=1e-4)
    assert found.after["bpb/law"] < found.before["bpb/law"]
    assert found.predicted
    model = load_study(file).home / "promotion" / found.model
    assert json.loads((model / "config.json").read_text())["model_type"] == "mixtral"
    client = RunStore.open(load_study(file)).client
    version = client.get_model_version_by_alias("study", "challenger")  # of the baseline
    assert version.tags["mixopt.trained"] == "true"

    again = run("promote", file)
    (load_study(file).home / "promotion" / found.id / "result.json").unlink()
    recorded = run("promote", file)
    assert promotion_of(file).after == found.after
    for result in (again, recorded):  # nothing is left to do: no Ray is asked
        assert result.code == 0, result.err
        assert "Ray cluster" not in result.out
        assert "upcycling" not in result.out
    assert "Ray cluster" in (file.parent / "out.txt").read_text()

    ids, out = some_ids(), tmp_path / "out"
    assert run("export", file, "--model", out).code == 0
    assert torch.equal(logits(out, ids), logits(model, ids))
    assert transformers.AutoTokenizer.from_pretrained(out)("the court")["input_ids"]
    assert "licence of the imported models" in (out / "README.md").read_text()


METHODS: list[dict[str, Any]] = [
    {"merge": "ties", "router_start": "ridge", "model": {**TWO, "experts": 3}},
    {"upcycler": "virtual-groups", "model": {**TWO, "experts": 4}},
]


@pytest.mark.parametrize("keys", METHODS, ids=["ties, ridge", "virtual groups"])
def test_promotions_by_other_methods_are_trained(keys: dict[str, Any], promote: Promote) -> None:
    found = promotion_of(promote(**keys))
    assert found.method == keys.get("upcycler", "branch-train-mix")
    assert found.receipt.router == keys.get("router_start", "random")
    assert found.receipt.merge == keys.get("merge", "")
    assert found.after["bpb/notes"] < found.before["bpb/notes"]
    assert found.imported == {}
    assert sum(found.loads["law"]) == pytest.approx(1)
