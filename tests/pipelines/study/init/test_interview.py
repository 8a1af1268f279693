"""`mixopt init` on a terminal asks what no option answers, and takes Enter for the default."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.core.formatting import count
from mixopt.corpus.shards import Corpus
from mixopt.pipelines.study.init.answers import Answers
from mixopt.pipelines.study.init.interview import interview
from mixopt.pipelines.study.init.offer_sources import found_corpora
from mixopt.pipelines.study.init.write import write_study_file
from mixopt.study.settings import load_study
from tests.pipelines.terminal import Terminal


@pytest.fixture
def here(text_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a corpus."""
    monkeypatch.chdir(tmp_path)
    Path("built").symlink_to(text_corpus.path)
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_enter_alone_gives_what_the_options_give_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, *[""] * 10)
    write_study_file(Path("asked.yaml"), interview(Path("asked.yaml"), Answers()))
    assert sys.stdin.readline() == ""  # as many questions as answers
    write_study_file(Path("given.yaml"), Answers(corpus=Path("built")))
    asked = Path("asked.yaml").read_text().replace("asked", "given")
    assert asked == Path("given.yaml").read_text()
    printed = capsys.readouterr().out
    assert "Corpora here: built" in printed
    for domain, tokens in Corpus.open("built").tokens.items():
        assert domain in printed
        assert f"{tokens / 1000:.1f}k" in printed


def test_answers_become_the_study(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ("mixopt", "built", "law=2, notes", "200k", "no", "uniform", "8", "local", "2", "0.5")
    typed(monkeypatch, *answers)
    write_study_file(Path("asked.yaml"), interview(Path("asked.yaml"), Answers()))
    study = load_study("asked.yaml")
    assert study.objective == {"law": 2.0, "notes": 1.0}
    assert (study.promote, study.budget, study.baseline) == (None, 200_000, "uniform")
    assert (study.search.trials, study.ray.address) == (8, "local")
    assert (study.ray.cpus_per_trial, study.ray.gpus_per_trial) == (2, 0.5)


def test_an_answer_that_does_not_hold_is_asked_for_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    most = count(4 * sum(Corpus.open("built").tokens.values()))
    wrong_and_right = {
        ("", "nowhere", "built"): "no finished corpus is here",
        ("lore", "law"): "there is no validation domain 'lore'",
        ("much", "1T", "200k"): f"1T is more than {most}",
        ("perhaps", "n"): "Answer yes or no",
        ("best", "law=0.5,code=0.5"): "neither natural nor uniform",
        ("2", "2.5", "8"): "2 is not 3 or more",
        ("", "none", "0", "1", "-1", "0"): "'none' is no number",
    }
    typed(monkeypatch, *[line for lines in wrong_and_right for line in lines])
    answers = interview(Path("asked.yaml"), Answers())
    assert answers.targets == ["law"]
    assert (answers.trials, answers.cpus, answers.gpus) == (8, 1, 0)
    printed = " ".join(capsys.readouterr().out.split())
    for message in wrong_and_right.values():
        assert message in printed


def test_what_options_answer_is_not_asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch)
    full = Answers(
        corpus=Path("built"),
        targets=("law",),
        budget="200k",
        promote=False,
        baseline="natural",
        trials=8,
        cluster="auto",
        cpus=1,
        gpus=0,
    )
    assert interview(Path("asked.yaml"), full) == full


def test_a_trainer_of_ones_own_is_asked_for_domains_and_metrics(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ("elsewhere", "web=2T, code=500B", "arc=higher, loss", "100B", "y", "", "12")
    typed(monkeypatch, *answers)
    write_study_file(Path("asked.yaml"), interview(Path("asked.yaml"), Answers()))
    study = load_study("asked.yaml")
    assert study.elsewhere
    assert study.open_data().tokens == {"web": 2 * 10**12, "code": 5 * 10**11}
    assert study.metrics == {"arc": "higher", "loss": "lower"}
    assert (study.budget, study.search.trials) == (10**11, 12)
    assert study.promote is not None
    assert (study.promote.elsewhere, study.promote.tokens) == (True, 10**11)


def test_input_that_ends_names_the_way_without_questions(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "mixopt")
    with pytest.raises(StudyError, match="mixopt init -h"):
        interview(Path("asked.yaml"), Answers())


def test_corpora_are_found_in_the_folder_and_in_those_below_it(here: Path) -> None:
    (here / "empty").mkdir()
    assert found_corpora(Path()) == [Path("built")]
    assert found_corpora(Path("built")) == [Path("built")]


def test_a_terminal_is_asked(here: Path) -> None:
    with Terminal(here, "init") as terminal:
        terminal.wait_for("Trainer")
        terminal.type("\n" * 10)
        assert terminal.ended() == 0, terminal.shown
    assert "mixopt plan study.yaml" in terminal.shown
    assert load_study("study.yaml").objective == {"notes": 1.0}


def test_a_terminal_is_not_asked_where_that_is_not_wanted(here: Path) -> None:
    with Terminal(here, "init", "--no-ask", "--corpus", "built") as terminal:
        assert terminal.ended() == 0, terminal.shown
    assert "Target" not in terminal.shown


def test_ctrl_c_ends_the_interview(here: Path) -> None:
    with Terminal(here, "init") as terminal:
        terminal.wait_for("Trainer")
        terminal.type("\x03")
        assert terminal.ended() == 130, terminal.shown
    assert "Traceback" not in terminal.shown
    assert not Path("study.yaml").exists()
