"""What a study file's `trainer:` becomes, what its identity depends on, and functions called."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import mixopt.trainers
from mixopt.core.errors import FileError, StudyError, TrainingError
from mixopt.core.trials import Failure
from mixopt.trainers import job as jobs
from mixopt.trainers.base import Trainer, make_trainer
from mixopt.trainers.command import Command
from mixopt.trainers.failures import TrainerError
from mixopt.trainers.job import TrainingJob, TrainingResult
from mixopt.trainers.run import run_training
from tests.mixopt.trainers.scripts import make_job, train

FUNCTION = """
import numpy as np

from mixopt.core.errors import CorpusError
from mixopt.trainers.job import TrainingResult

def good(job, report):
    report(500, {"loss": np.float32(2.0)}, note="half")
    return {"loss": np.array(1.0) + job.mixture["code"]}

def exact(job, report):
    return TrainingResult({"loss": 1.0}, mixture=job.mixture, tokens=job.tokens, seed=job.seed)

def diverged(job, report):
    return TrainingResult(failure="diverged", message="exploded")

def hungry(job, report):
    raise MemoryError("no room")

def unreadable(job, report):
    raise CorpusError("row 3 is no JSON", where="web.jsonl:3")

def wrong(job, report):
    return 1.5
"""
OWN = '''
import sys
from dataclasses import dataclass

from mixopt.trainers.base import Trainer


@dataclass(frozen=True, kw_only=True)
class Shell(Trainer):
    """A trainer of one's own."""

    line: str

    def argv(self, job_file):
        return ["sh", "-c", self.line]

    def program(self):
        return {"line": self.line}
'''


def schema(name: str) -> Draft202012Validator:
    path = Path(mixopt.trainers.__file__).with_name(f"{name}.schema.json")
    values = json.loads(path.read_text())
    Draft202012Validator.check_schema(values)
    return Draft202012Validator(values)


def test_jobs_survive_json_and_files(tmp_path: Path) -> None:
    job = make_job(tmp_path, settings={"rate": 1e-3}, corpus="/corpus", role="promote")
    assert TrainingJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    assert TrainingJob.read(job.write()) == job
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(FileError, match="holds what mixopt does not write there"):
        TrainingJob.read(tmp_path / "job.json")


def test_the_schema_of_jobs_has_the_keys_of_the_dataclass(tmp_path: Path) -> None:
    validator = schema("job")
    job = make_job(tmp_path)
    validator.validate(json.loads(json.dumps(job.to_json())))
    fields = {field.name for field in dataclasses.fields(TrainingJob)}
    assert set(validator.schema["properties"]) == set(validator.schema["required"]) == fields
    assert validator.schema["properties"]["version"] == {
        "const": jobs.VERSION,
        "description": "of these keys",
    }
    assert not validator.is_valid(job.to_json() | {"role": "repeat"})


def test_the_schema_of_results_has_the_keys_of_the_dataclass() -> None:
    validator = schema("result")
    fields = {field.name for field in dataclasses.fields(TrainingResult)}
    assert set(validator.schema["properties"]) == fields
    whole = TrainingResult(
        {"loss": 1.5},
        {"web": 1.0},
        *(10, 3, 5, "model", 1e9, 3.5, {"torch": "2"}),
        *({"web": (0.5, 0.5)}, {"web": 0.1}, {"web": 0.0}),
    )
    validator.validate(json.loads(json.dumps(whole.to_json())))
    validator.validate({"failure": "diverged"})
    assert not validator.is_valid({"tokens": 10})
    assert not validator.is_valid({"metrics": {"loss": "low"}})


def test_the_schema_of_progress_takes_what_reports_write(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.report(500, {"loss": 1.0}, note="half", rate=0.1)
    job.report(600)
    validator = schema("progress")
    for line in (tmp_path / "progress.jsonl").read_text().splitlines():
        validator.validate(json.loads(line))
    assert not validator.is_valid({"metrics": {}})


def test_a_job_of_no_known_role_or_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="role: must be proxy or promote"):
        make_job(tmp_path, role="repeat")
    with pytest.raises(TrainingError, match="folder: must be an absolute path"):
        make_job(Path("trials/0007"))


def test_a_command_is_filled_in_and_parted_without_a_shell(tmp_path: Path) -> None:
    line = "torchrun 'my train.py' {job} --out={folder}/model --set '{\"a\": 1}' $HOME"
    trainer = make_trainer({"command": line}, tmp_path)
    assert trainer.argv(Path("/x/job.json")) == [
        *("torchrun", "my train.py", "/x/job.json", "--out=/x/model", "--set", '{"a": 1}', "$HOME"),
    ]


def test_a_command_without_the_job_finds_it_in_its_environment(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import json, os\nfrom pathlib import Path\n"
        'job = json.loads(Path(os.environ["MIXOPT_JOB"]).read_text())\n'
        'Path(job["folder"], "result.json").write_text(\'{"metrics": {"loss": 1}}\')\n'
        'assert Path("train.py").exists()\n'
    )
    trainer = make_trainer({"command": f"{sys.executable} train.py"}, tmp_path)
    assert run_training(trainer, make_job(tmp_path / "home")).result is not None


def test_a_changed_file_version_setting_or_command_is_another_trainer(tmp_path: Path) -> None:
    (tmp_path / "configs" / "__pycache__").mkdir(parents=True)
    for name in ("train.py", "other.py", "configs/small.toml"):
        (tmp_path / name).write_text("1")
    values: dict[str, Any] = {"command": "python train.py {job}", "files": ["configs"]}
    first = make_trainer(values, tmp_path)
    assert set(first.identity()["files"]) == {"train.py", "configs/small.toml"}
    digests = {first.digest()}
    for more in ({"version": 2}, {"settings": {"rate": 1}}, {"files": ["configs", "other.py"]}):
        digests.add(make_trainer(values | more, tmp_path).digest())
    digests.add(make_trainer(values | {"command": "python3 train.py {job}"}, tmp_path).digest())
    for name in ("train.py", "configs/small.toml"):
        (tmp_path / name).write_text("2")
        digests.add(first.digest())
    assert len(digests) == 7
    before = first.digest()
    (tmp_path / "configs" / "__pycache__" / "x.pyc").write_text("compiled")
    (tmp_path / "other.py").write_text("2")
    assert first.digest() == before


def test_files_of_one_name_outside_the_folder_all_count(tmp_path: Path) -> None:
    for folder in ("study", "one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.py").write_text(folder)
    values = {"command": "a", "files": ["../one/model.py", "../two"]}
    trainer = make_trainer(values, tmp_path / "study")
    assert set(trainer.identity()["files"]) == {"../one/model.py", "../two/model.py"}


def test_an_identity_stays_when_the_folder_moves(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text("1")
        values = {"command": "python train.py {job}", "files": "train.py", "version": 1.5}
        digests.append(make_trainer(values, tmp_path / name).digest())
    assert digests[0] == digests[1]


WRONG: list[tuple[Any, str]] = [
    ({}, "trainer: must name one of command, function, names none"),
    ({"command": "a", "function": "b:c"}, "names command and function"),
    ({"command": ""}, "trainer.command: is empty"),
    ({"command": "a 'b"}, "trainer.command: cannot be read: No closing quotation"),
    ({"command": ["a"]}, "trainer.command: must be text"),
    ({"command": "a", "file": "b"}, "trainer: the keys do not fit: .*'file'"),
    ({"command": "a", "files": 3}, "trainer.files: must be a list of paths, is 3"),
    ({"command": "a", "settings": 3}, "trainer.settings: must be a mapping"),
    ("train", "trainer.function: 'train' is no package.module:name"),
    ("no_such_module:train", "there is no module 'no_such_module'"),
    ("no_such.module:train", "no_such.module does not import"),
    ({"kind": "json:JSONDecoder"}, "is not a Trainer"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_trainer_is_refused_with_its_key(tmp_path: Path, number: int) -> None:
    values, message = WRONG[number]
    with pytest.raises(StudyError, match=message):
        make_trainer(values, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    trainer = make_trainer({"command": "a", "files": ["train.py"]}, tmp_path)
    with pytest.raises(StudyError, match=r"trainer.files: .*train.py: there is no such file"):
        trainer.identity()


@pytest.fixture
def function(tmp_path: Path) -> Path:
    """The folder of a study with functions of its own."""
    (tmp_path / "own_functions.py").write_text(FUNCTION)
    return tmp_path


def test_a_function_trains_in_a_process_of_its_own(function: Path) -> None:
    trainer = make_trainer("own_functions:good", function)
    notes = []
    job = make_job(function / "home")
    result = run_training(trainer, job, report=lambda p: notes.append(p.note)).result
    assert result is not None
    assert result.metrics == {"loss": 1.25}
    assert result.curve[0].metrics == {"loss": 2.0}
    assert notes == ["half"]
    assert "own_functions" not in sys.modules
    result = run_training(make_trainer("own_functions:exact", function), job).result
    assert result is not None
    assert result.environment["verified"] == "mixture, tokens, seed"


FAILING = {
    "hungry": (Failure.OUT_OF_MEMORY, "no room"),
    "unreadable": (Failure.BAD_DATA, "web.jsonl:3: row 3 is no JSON"),
    "absent": (Failure.CRASHED, "has no attribute 'absent'"),
    "wrong": (Failure.BROKEN_CONTRACT, "`metrics` must be an object of numbers, is 1.5"),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_a_function_raises_is_a_class(function: Path, name: str) -> None:
    failure, message = FAILING[name]
    trainer = make_trainer(f"own_functions:{name}", function)
    with pytest.raises(TrainerError) as caught:
        run_training(trainer, make_job(function / "home"))
    assert caught.value.failure is failure
    assert message in str(caught.value)


def test_a_function_may_say_that_it_diverged(function: Path) -> None:
    trainer = make_trainer("own_functions:diverged", function)
    outcome = run_training(trainer, make_job(function / "home"))
    assert (outcome.failure, outcome.message) == (Failure.DIVERGED, "exploded")


def test_a_functions_identity_follows_its_module(function: Path) -> None:
    trainer = make_trainer({"function": "own_functions:good", "version": 1}, function)
    before = trainer.digest()
    assert set(trainer.identity()["files"]) == {"own_functions.py"}
    (function / "own_functions.py").write_text(FUNCTION + "# changed")
    assert trainer.digest() != before


def test_a_third_kind_of_trainer_is_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_trainer.py").write_text(OWN)
    line = 'echo \'{"metrics": {"loss": 1}}\' > "$(dirname $MIXOPT_JOB)/result.json"'
    trainer = make_trainer({"kind": "own_trainer:Shell", "line": line}, tmp_path)
    assert isinstance(trainer, Trainer)
    assert run_training(trainer, make_job(tmp_path / "home")).result is not None
    monkeypatch.delitem(sys.modules, "own_trainer")


def test_trainers_and_their_errors_cross_processes(tmp_path: Path) -> None:
    trainer = Command(folder=tmp_path, command="a {job}", settings={"b": 1})
    assert pickle.loads(pickle.dumps(trainer)) == trainer
    with pytest.raises(TrainerError) as caught:
        train(tmp_path, "sys.exit(3)")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.failure, str(copy)) == (Failure.CRASHED, str(caught.value))
