"""A full run whose advantage does not carry over is warned of: a trainer's, and our own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mixopt.corpus.shards import Corpus
from mixopt.io.trial_files import CURVE
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.settings import load_study
from mixopt.study.watched import read_watched
from tests.pipelines.study.test_own_trainer import ENDS, SCRIPT, write_own
from tests.pipelines.whole_study import STEP, change, write_study

pytestmark = pytest.mark.xdist_group("ray")

MUCH_LAW = {"law": 0.7, "code": 0.15, "prose": 0.15}
SEEDED = SCRIPT.replace(  # its seeds change differences too
    'job["seed"] % 7', '(job["seed"] % 7 + job["seed"] * 37 % 11 * mixture["maths"])'
)
FULL_RUN = """\
import json, pathlib, sys
job = json.load(open(sys.argv[1]))
folder, mixture = pathlib.Path(job["folder"]), job["mixture"]
gain = .2 * (mixture["maths"] - 50 / 1550) + .1 * (mixture["code"] - 300 / 1550)
(folder / "checkpoint").mkdir(exist_ok=True)
(folder / "checkpoint" / "model.bin").write_bytes(b"weights")
with (folder / "progress.jsonl").open("a") as progress:
    for part in (.25, .5, .75):
        accuracy = .5 * part + (part * gain if part < .6 else 0)
        line = {"tokens": int(part * job["tokens"]), "metrics": {"accuracy": accuracy}}
        progress.write(json.dumps(line) + "\\n")
result = {"metrics": {"accuracy": .5}, "checkpoint": "checkpoint", "mixture": mixture}
(folder / "result.json").write_text(json.dumps(result))
"""
BASELINE = "tokens,accuracy\n25k,0.125\n50k,0.25\n100k,0.5\n"


@pytest.mark.slow
def test_a_full_run_of_a_trainer_that_loses_its_advantage_is_warned_of_once(
    tmp_path: Path, ray_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full.py").write_text(FULL_RUN)
    (tmp_path / "base.csv").write_text(BASELINE)
    promote = {
        "trainer": {"command": "{python} full.py {job}", "grace": 1},
        "tokens": "100k",
        "baseline_curve": "base.csv",
    }
    file = write_own(tmp_path, SEEDED + ENDS, promote=promote, mlflow={}, select={"seeds": 3})
    run_study(file)
    shown = " ".join(capsys.readouterr().out.split())
    study = load_study(file)
    promotion, verdict = read_promotion(study.home), read_verdict(study.home)
    assert promotion is not None
    assert verdict is not None
    assert verdict.improved
    seen = read_watched(study.home / "promotion" / promotion.id)
    assert [(row.tokens, row.place) for row in seen.compared] == [
        (25_000, None),  # before the first evaluation of the proxies
        (50_000, "inside"),
        (75_000, "worse"),
        (100_000, "worse"),
    ]
    begun = "full run: compared with the baseline's full run, base.csv: 3 evaluations"
    assert f"{begun}, 25k to 100k tokens. The difference is expected from 3 pairs of" in shown
    assert shown.count("the difference to the baseline's full run (base.csv) is") == 1
    assert "+0.0000 after 75k tokens, worse than the expected" in shown.replace("−0.0", "+0.0")
    assert "Look at what your trainer reports. Ctrl-C stops the run" in shown
    assert "promote.recipe" not in shown  # its trainer has its own
    (run,) = RunStore.open(study).runs({"mixopt.kind": "promotion"})
    assert "Warning" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["to_baseline/difference"] == pytest.approx(0, abs=1e-9)
    assert run.data.metrics["to_baseline/expected_low"] > 0.0

    settings = yaml.safe_load(file.read_text())  # without the curve it is the same full run
    del settings["promote"]["baseline_curve"]
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    run_study(file)
    assert read_promotion(study.home) == promotion


@pytest.mark.slow
def test_our_own_full_run_is_compared_with_a_curve_that_is_far_better(
    text_corpus: Corpus, tmp_path: Path, ray_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(
        tmp_path / "study.yaml",
        text_corpus.path,
        objective={"notes": 0.0, "law": 1.0},
        proxy={"tokens": 40 * STEP},
        search={"trials": 3, "repeats": 1, "rounds": 0, "enqueue": [MUCH_LAW]},
        select={"seeds": 3, "confidence": 0.51},
        promote={"baseline_curve": "base.csv"},
    )
    (tmp_path / "base.csv").write_text(f"tokens,bpb/law\n0,1.0\n{20 * STEP},0.5\n")
    run_study(path)
    study = load_study(path)
    verdict, promotion = read_verdict(study.home), read_promotion(study.home)
    assert verdict is not None
    assert promotion is not None
    assert verdict.improved, verdict.reason
    shown = " ".join(capsys.readouterr().out.split())
    assert "! upcycled: the difference to the baseline's full run (base.csv) is +" in shown
    assert "(95 % for one more pair, from 3 pairs of proxies (" in shown
    folder = study.home / "promotion" / promotion.id
    seen = read_watched(folder)
    assert {row.place for row in seen.compared} == {"worse"}
    assert [row.tokens for row in seen.compared] == [point.tokens for point in promotion.curve]
    # another promotion, beside the curve of that one
    change(path, "promote", baseline_curve=str(folder / "moe" / CURVE), expert_tokens=12 * STEP)
    run_study(path)
    later = read_promotion(study.home)
    assert later is not None
    assert later.id != promotion.id
    again = read_watched(study.home / "promotion" / later.id)
    assert again.compared
    assert all(abs(row.difference) < 0.5 for row in again.compared)
