"""A training by a script: its curve, its cost, pruned, resumed, ended; each failure a class."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import pytest

from mixopt.core.errors import CheckpointError
from mixopt.core.mixture import Mixture
from mixopt.core.trials import Failure, Fidelity, Limits, Line, Trial, TrialSpec
from mixopt.io import trial_files
from mixopt.trainers.failures import TrainerError
from mixopt.trainers.run import Progress, run_training
from tests.mixopt.trainers.scripts import MIXTURE, make_job, make_script, train

GOOD = 'report(500, loss=2.0)\nreport(1000, loss=1.0)\nfinish(metrics={"loss": 1.5})\n'


def fails(tmp_path: Path, body: str, **options: object) -> TrainerError:
    """The error of an attempt by the script `body`; there is no score."""
    with pytest.raises(TrainerError) as caught:
        train(tmp_path, body, **options)
    return caught.value


def test_a_script_gives_metrics_curve_and_cost(tmp_path: Path) -> None:
    told: list[Progress] = []
    body = "report(500, loss=2.0)\nreport(1000, loss=1.0)\n" + (
        'finish(metrics={"loss": 1.5, "accuracy": 0.5}, mixture=job["mixture"], seed=job["seed"],'
        ' flops=7.0, device_seconds=9.0, environment={"torch": "2"}, loads={"web": [0.5, 0.5]})'
    )
    outcome = train(tmp_path, body, report=told.append)
    assert (outcome.failure, outcome.pruned) == (None, False)
    result = outcome.result
    assert result is not None
    assert result.metrics == {"loss": 1.5, "accuracy": 0.5}
    assert (result.cost.tokens, result.cost.flops, result.cost.device_seconds) == (1000, 7.0, 9.0)
    assert result.environment["verified"] == "mixture, seed"
    assert result.environment["torch"] == "2"
    assert result.loads == {"web": (0.5, 0.5)}
    assert [(p.step, p.tokens, p.comparable) for p in result.curve] == [
        (500, 500, {"loss": 2.0}),
        (1000, 1000, {"loss": 1.0}),
    ]
    assert [(p.tokens, p.phase) for p in told] == [(500, "evaluation"), (1000, "evaluation")]


def test_what_a_result_does_not_say_is_estimated_and_not_verified(tmp_path: Path) -> None:
    result = train(tmp_path, GOOD, make_job(tmp_path / "home", gpus=2)).result
    assert result is not None
    assert result.environment["verified"] == ""
    assert result.cost.flops == 6 * 10 * 1000
    assert result.cost.device_seconds > 2 * result.curve[-1].seconds


def test_the_curve_is_read_as_any_trials(tmp_path: Path) -> None:
    job = make_job(trial_files.trial_folder(tmp_path, 7))
    outcome = train(tmp_path, GOOD, job)
    spec = TrialSpec(Mixture.of(MIXTURE), Fidelity("proxy", 10, 1000), 3)
    curve = trial_files.read_curve(tmp_path, Trial(7, spec, result=outcome.result))
    assert outcome.result is not None
    assert curve == list(outcome.result.curve)


def test_output_is_kept_per_attempt(tmp_path: Path) -> None:
    body = (
        'print("attempt", job["attempt"], job["resume"])\nsys.exit(75 if job["attempt"] < 2 else 0)'
    )
    assert fails(tmp_path, body).failure is Failure.WORKER_LOST
    assert fails(tmp_path, body).failure is Failure.BROKEN_CONTRACT
    outputs = [(tmp_path / "home" / f"output-{n}.log").read_text() for n in (1, 2)]
    assert outputs == ["attempt 1 False\n", "attempt 2 True\n"]


NUMBERS = [
    ('report(500, loss=float("nan"))\ntime.sleep(30)', "loss was not finite at 500 tokens"),
    ('finish(metrics={"loss": float("nan")})', "loss was not finite at the end"),
    ('finish(metrics={"loss": float("-inf")})', "loss was not finite at the end"),
    ('finish(failure="diverged", message="exploded")', "exploded"),
    ('finish(failure="diverged", message="exploded")\nsys.exit(1)', "exploded"),
]


@pytest.mark.parametrize(("body", "message"), NUMBERS)
def test_a_metric_that_is_not_finite_is_a_training_that_diverged(
    tmp_path: Path, body: str, message: str
) -> None:
    outcome = train(tmp_path, body)
    assert (outcome.result, outcome.failure, outcome.message) == (None, Failure.DIVERGED, message)


def test_a_metric_that_is_not_asked_for_may_be_nan(tmp_path: Path) -> None:
    body = (
        'report(500, loss=2.0, other=float("nan"))\nfinish(metrics={"loss": 1, "x": float("nan")})'
    )
    outcome = train(tmp_path, body)
    assert outcome.result is not None
    assert outcome.result.metrics == {"loss": 1.0}
    assert outcome.result.curve[0].metrics == {"loss": 2.0}


BROKEN = {
    "result_cut": ('(folder / "result.json").write_text(\'{"metr\')', "result.json: is cut"),
    "no_object": ('(folder / "result.json").write_text("[1]")', "result.json: is no JSON object"),
    "no_result": ("", "result.json: is not there, and the command ended with exit code 0"),
    "no_metrics": ("finish(seed=3)", "`metrics` must be an object of numbers"),
    "missing": ('finish(metrics={"los": 1})', "`metrics` lacks loss"),
    "text": ('finish(metrics={"loss": "1.5"})', "`metrics.loss` must be a number, is '1.5'"),
    "null": ('finish(metrics={"loss": None})', "`metrics.loss` must be a number, is None"),
    "bool": ('finish(metrics={"loss": True})', "`metrics.loss` must be a number, is True"),
    "mixture": (
        'finish(metrics={"loss": 1}, mixture={"code": 0.5, "web": 0.5})',
        "the job has 0.75: not what was asked",
    ),
    "domain": (
        'finish(metrics={"loss": 1}, mixture={"web": 0.75, "codes": 0.25})',
        ": not what was asked",
    ),
    "tokens": ('finish(metrics={"loss": 1}, tokens=900)', "`tokens` is 900; the job has 1,000"),
    "seed": ('finish(metrics={"loss": 1}, seed=4)', "`seed` is 4; the job has 3"),
    "flops": ('finish(metrics={"loss": 1}, flops="many")', "`flops` must be a number"),
    "loads": ('finish(metrics={"loss": 1}, loads={"web": 1})', "`loads` has another shape"),
    "failure": ('finish(failure="tired")', "`failure` is 'tired'"),
    "backwards": (
        "report(500, loss=2.0)\nreport(400, loss=2.0)\ntime.sleep(30)",
        "progress.jsonl:2: `tokens` went back from 500 to 400",
    ),
    "too_many": (
        'report(5000, loss=2.0)\nfinish(metrics={"loss": 1})',
        "tells 5,000 tokens; the job has 1,000",
    ),
    "no_line": (
        '(folder / "progress.jsonl").write_text("step 1\\n")\ntime.sleep(30)',
        "progress.jsonl:1: is no JSON: 'step 1'",
    ),
    "list_line": (
        '(folder / "progress.jsonl").write_text("[1]\\n")\ntime.sleep(30)',
        "progress.jsonl:1: is no JSON object: '[1]'",
    ),
    "no_tokens": (
        '(folder / "progress.jsonl").write_text("{}\\n")\ntime.sleep(30)',
        "progress.jsonl:1: `tokens` must be a whole number, is None",
    ),
    "anew": (
        "report(500, loss=2.0)\ntime.sleep(0.5)\n"
        '(folder / "progress.jsonl").write_text("{}\\n")\ntime.sleep(30)',
        "progress.jsonl: is shorter than it was",
    ),
    "half_line": (
        'report(500, loss=2.0)\n(folder / "progress.jsonl").open("a").write(\'{"tok\')\n'
        'finish(metrics={"loss": 1})',
        "progress.jsonl:2: is no JSON",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_contract_names_file_key_and_fix(tmp_path: Path, name: str) -> None:
    body, message = BROKEN[name]
    error = fails(tmp_path, body)
    assert error.failure is Failure.BROKEN_CONTRACT
    assert message in str(error)
    assert str(tmp_path / "home") in error.where
    assert error.hint


@pytest.mark.parametrize(
    "extra",
    ["tokens=1009", "tokens=1256, batch_tokens=256", 'mixture={"web": 0.7500001, "code": 0.25}'],
)
def test_rounding_is_no_broken_contract(tmp_path: Path, extra: str) -> None:
    assert train(tmp_path, f'finish(metrics={{"loss": 1}}, {extra})').result is not None


ENDINGS = [
    ("sys.exit(3)", Failure.CRASHED, "exit code 3"),
    ('raise ValueError("no such column")', Failure.CRASHED, "ValueError: no such column"),
    ("sys.exit(75)", Failure.WORKER_LOST, "exit code 75"),
    ('print("row 7")\nsys.exit(65)', Failure.BAD_DATA, "row 7"),
    ("sys.exit(137)", Failure.WORKER_LOST, "exit code 137"),
    ("os.kill(os.getpid(), signal.SIGKILL)", Failure.WORKER_LOST, "SIGKILL"),
    ("os.kill(os.getpid(), signal.SIGTERM)", Failure.WORKER_LOST, "SIGTERM"),
    ("os.kill(os.getpid(), signal.SIGSEGV)", Failure.CRASHED, "SIGSEGV"),
    ('raise RuntimeError("CUDA out of memory. Tried")', Failure.OUT_OF_MEMORY, "CUDA out of"),
    ("raise MemoryError", Failure.OUT_OF_MEMORY, "MemoryError"),
    ('finish(failure="out_of_memory")\nsys.exit(1)', Failure.OUT_OF_MEMORY, "the trainer says so"),
    ('finish(failure="bad_data", message="row 3")', Failure.BAD_DATA, "row 3"),
    ('finish(metrics={"loss": 1})\nsys.exit(1)', Failure.CRASHED, "exit code 1"),
    ('(folder / "result.json").write_text("{")\nsys.exit(1)', Failure.CRASHED, "exit code 1"),
]


@pytest.mark.parametrize(("body", "failure", "message"), ENDINGS)
def test_exit_codes_and_signals_are_classes(
    tmp_path: Path, body: str, failure: Failure, message: str
) -> None:
    error = fails(tmp_path, body)
    assert error.failure is failure
    assert message in str(error)


def test_a_command_that_there_is_not_is_named(tmp_path: Path) -> None:
    trainer = dataclasses.replace(make_script(tmp_path, ""), command="no-such-program {job}")
    with pytest.raises(
        TrainerError, match="cannot be started: no-such-program: No such file"
    ) as caught:
        run_training(trainer, make_job(tmp_path / "home"))
    assert caught.value.failure is Failure.CRASHED


def test_a_folder_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    trainer = dataclasses.replace(make_script(tmp_path, ""), folder=tmp_path / "elsewhere")
    with pytest.raises(TrainerError, match="must be there on every node") as caught:
        run_training(trainer, make_job(tmp_path / "home"))
    assert caught.value.where == str(tmp_path / "elsewhere")


def test_a_training_that_takes_too_long_is_a_lost_worker(tmp_path: Path) -> None:
    body = "while True:\n    report(1, loss=2.0)\n    time.sleep(0.05)"
    error = fails(tmp_path, body, timeout=0.5, heartbeat=20.0)
    assert error.failure is Failure.WORKER_LOST
    assert "it took longer than 0.5 seconds" in str(error)


def test_a_silent_training_is_a_lost_worker(tmp_path: Path) -> None:
    error = fails(tmp_path, "report(1, loss=2.0)\ntime.sleep(60)", timeout=50, heartbeat=0.6)
    assert error.failure is Failure.WORKER_LOST
    assert "no line of progress and no output for 0.6 seconds" in str(error)


def test_output_is_a_sign_of_life(tmp_path: Path) -> None:
    body = 'for _ in range(25):\n    print(".")\n    time.sleep(0.2)\nfinish(metrics={"loss": 1})'
    assert train(tmp_path, body, heartbeat=4.0).result is not None


LIMITS = Limits(
    {"loss": 1.0}, ((500, 1.8),), "hopeless", {500: {"loss": Line(2, 1, 0.5, 0.1, 1, 1, 9)}}
)


def test_a_hopeless_training_is_pruned(tmp_path: Path) -> None:
    body = "report(500, loss=2.0)\nreport(600, loss=2.0)\ntime.sleep(60)"
    began = time.monotonic()
    outcome = train(tmp_path, body, limits=LIMITS)
    assert time.monotonic() - began < 30
    assert outcome.pruned
    assert "objective 2.0000 at step 500 is above 1.8000: hopeless" in outcome.message
    assert outcome.result is not None
    assert outcome.result.cost.tokens == 500
    assert [point.tokens for point in outcome.result.curve] == [500]
    assert outcome.result.expected["loss"][0] == pytest.approx(1.0)


def test_a_training_is_pruned_by_its_curve_alone_even_if_it_has_ended(tmp_path: Path) -> None:
    assert train(tmp_path, GOOD, limits=LIMITS).pruned
    again = train(tmp_path, "raise SystemExit(9)", limits=LIMITS)  # nothing is started
    assert again.pruned
    assert not (tmp_path / "home" / "output-2.log").exists()


def test_a_training_within_its_limits_goes_on(tmp_path: Path) -> None:
    limits = dataclasses.replace(LIMITS, most=((500, 2.0),))
    assert not train(tmp_path, GOOD, limits=limits).pruned


RESUMES = """
done = int((folder / "state").read_text()) if job["resume"] else 0
for step in range(done + 1, 11):
    report(step * 100, loss=3.0 - step / 10)
    (folder / "state").write_text(str(step))
    if step == 4 and not job["resume"]:
        report(499, loss=9.0)
        (folder / "progress.jsonl").open("a").write('{"tokens": 49')
        os.kill(os.getpid(), signal.SIGKILL)
finish(metrics={"loss": 2.0}, tokens=1000)
"""


def test_a_killed_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    assert fails(tmp_path, RESUMES).failure is Failure.WORKER_LOST
    job = json.loads((tmp_path / "home" / "job.json").read_text())
    assert (job["resume"], job["attempt"]) == (False, 1)
    outcome = train(tmp_path, RESUMES)
    assert outcome.result is not None
    assert [(p.tokens, p.metrics["loss"]) for p in outcome.result.curve][3:6] == [
        (400, 2.6),
        (499, 9.0),
        (500, 2.5),
    ]
    assert len(outcome.result.curve) == 11
    seconds = [p.seconds for p in outcome.result.curve]
    assert seconds == sorted(seconds)
    job = json.loads((tmp_path / "home" / "job.json").read_text())
    assert (job["resume"], job["attempt"]) == (True, 2)


def test_a_training_that_begins_anew_leaves_no_old_points(tmp_path: Path) -> None:
    body = (
        'first = job["attempt"] == 1\nreport(300 if first else 200, loss=2.0)\nsys.exit(75 * first)'
    )
    fails(tmp_path, body)
    fails(tmp_path, body)
    curve = (tmp_path / "home" / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["tokens"] for line in curve] == [200]


def test_failures_of_memory_are_told_to_the_next_attempt(tmp_path: Path) -> None:
    body = (
        'if job["memory_failures"] < 2:\n    raise MemoryError\n'
        'finish(metrics={"loss": job["attempt"]})'
    )
    for _ in range(2):
        assert fails(tmp_path, body).failure is Failure.OUT_OF_MEMORY
    outcome = train(tmp_path, body)
    assert outcome.result is not None
    assert outcome.result.metrics == {"loss": 3.0}


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    train(tmp_path, GOOD, make_job(tmp_path / "home", identity="one"))
    with pytest.raises(CheckpointError, match="belongs to other work"):
        train(tmp_path, GOOD, make_job(tmp_path / "home", identity="two"))


def test_a_script_that_changed_since_the_study_began_is_refused(tmp_path: Path) -> None:
    digest = make_script(tmp_path / "study", GOOD).digest()
    job = make_job(tmp_path / "home", trainer=digest)
    error = fails(tmp_path, GOOD + "# changed", job=job)
    assert error.failure is Failure.CRASHED
    assert "not those with which the study began" in str(error)
    assert train(tmp_path, GOOD, job).result is not None


def test_a_full_run_must_name_its_checkpoint(tmp_path: Path) -> None:
    job = make_job(tmp_path / "home", role="promote")
    result_file = tmp_path / "home" / "result.json"
    assert "`checkpoint` is missing" in str(fails(tmp_path, GOOD, job=job))
    escaping = 'finish(metrics={"loss": 1}, checkpoint="../study/train.py")'
    result_file.unlink()
    assert "leads out of the folder, to" in str(fails(tmp_path, escaping, job=job))
    result_file.unlink()
    absent = escaping.replace("../study/train.py", "gone")
    assert "there is no gone in the folder" in str(fails(tmp_path, absent, job=job))
    result_file.unlink()
    body = '(folder / "model").mkdir()\nfinish(metrics={"loss": 1}, checkpoint="model")'
    result = train(tmp_path, body, job).result
    assert result is not None
    assert result.environment["checkpoint"] == "model"


def test_metrics_of_one_evaluation_may_come_in_parts(tmp_path: Path) -> None:
    body = 'report(500, loss=2.0)\nreport(500, other=1.0)\nfinish(metrics={"loss": 1})'
    result = train(tmp_path, body).result
    assert result is not None
    assert result.curve[0].metrics == {"loss": 2.0, "other": 1.0}
    assert math.isclose(result.curve[-1].metrics["loss"], 1.0)


def test_a_point_of_the_curve_has_the_training_numbers_that_were_told_last(tmp_path: Path) -> None:
    body = """
def tell(tokens, training, **metrics):
    line = {"tokens": tokens, "training": training, "metrics": metrics}
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\\n")

tell(100, {"loss": 9.0, "rate": 0.1})
tell(200, {"loss": 8.0})
tell(300, {"grad_norm": 1}, loss=7.5)
tell(400, {"loss": float("nan"), "rate": "high"}, loss=7.0)
tell(500, "epoch 2", loss=6.0)
tell(900, {"loss": 5.0})
finish(metrics={"loss": 4})
"""
    result = train(tmp_path, body).result
    assert result is not None
    assert [(point.tokens, dict(point.training)) for point in result.curve] == [
        (300, {"loss": 8.0, "rate": 0.1, "grad_norm": 1.0}),
        (400, {}),
        (500, {}),
        (1000, {"loss": 5.0}),
    ]


def test_what_a_report_raises_ends_the_training(tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "report(500, loss=2.0)\ntime.sleep(60)", report=stop)
    assert train(tmp_path, GOOD).result is not None


ONCE = "report(500, loss=2.5)\n(folder / f\"ran-{job['attempt']}\").touch()\n"


def corrected(tmp_path: Path, name: str, text: str) -> Path:
    """The training's folder, in which file `name` was corrected by hand to `text`."""
    (tmp_path / "home" / name).write_text(text)
    return tmp_path / "home"


@pytest.mark.parametrize(
    "ends",
    [
        'finish(metrics={"los": 2.0})',
        'finish(metrics={"loss": float("nan")})',
        'finish(metrics={"loss": 2.0}, tokens=10)',
        '(folder / "result.json").write_text(\'{"metr\')',
        "",
    ],
)
def test_a_result_that_is_corrected_is_read_again_and_nothing_is_trained(
    tmp_path: Path, ends: str
) -> None:
    if "nan" in ends:
        assert train(tmp_path, ONCE + ends).failure is Failure.DIVERGED
    else:
        error = fails(tmp_path, ONCE + ends)
        assert "the same command reads them again and trains nothing" in error.hint
    home = corrected(tmp_path, "result.json", '{"metrics": {"loss": 2.0}, "seed": 3}')
    spent = json.loads((home / "attempts.json").read_text())["seconds"]
    result = train(tmp_path, ONCE + ends).result
    assert result is not None
    assert result.metrics == {"loss": 2.0}
    assert [(p.tokens, p.metrics["loss"]) for p in result.curve] == [(500, 2.5), (1000, 2.0)]
    assert result.environment["verified"] == "seed"
    assert result.cost.device_seconds == pytest.approx(spent, abs=0.5)
    assert [path.name for path in home.glob("ran-*")] == ["ran-1"]


def test_a_result_that_is_still_wrong_is_refused_again_until_it_is_removed(tmp_path: Path) -> None:
    body = ONCE + 'finish(metrics={"los": 2.0} if job["attempt"] == 1 else {"loss": 1.0})'
    fails(tmp_path, body)
    assert "to train again, remove result.json" in fails(tmp_path, body).hint
    corrected(tmp_path, "result.json", '{"metrics": {"loss": "2.0"}}')
    assert "must be a number" in str(fails(tmp_path, body))
    (tmp_path / "home" / "result.json").unlink()
    result = train(tmp_path, body).result
    assert result is not None
    assert result.metrics == {"loss": 1.0}
    assert json.loads((tmp_path / "home" / "job.json").read_text())["resume"]


def test_progress_that_is_corrected_is_read_again(tmp_path: Path) -> None:
    body = (
        ONCE + '(folder / "progress.jsonl").open("a").write(\'{"tok\')\nfinish(metrics={"loss": 1})'
    )
    assert "progress.jsonl:2: is no JSON" in str(fails(tmp_path, body))
    assert "progress.jsonl:2: is no JSON" in str(fails(tmp_path, body))
    lines = [{"tokens": 500, "metrics": {"loss": 2.5}}, {"tokens": 700, "metrics": {"loss": 2.2}}]
    home = corrected(tmp_path, "progress.jsonl", "".join(json.dumps(it) + "\n" for it in lines))
    result = train(tmp_path, body).result
    assert result is not None
    assert [point.tokens for point in result.curve] == [500, 700, 1000]
    assert [path.name for path in home.glob("ran-*")] == ["ran-1"]


def test_a_result_of_a_command_that_crashed_is_never_read_again(tmp_path: Path) -> None:
    body = ONCE + 'finish(metrics={"loss": 1.0})\nsys.exit(job["attempt"] == 1)'
    assert fails(tmp_path, body).failure is Failure.CRASHED
    assert train(tmp_path, body).result is not None
    assert len(list((tmp_path / "home").glob("ran-*"))) == 2
