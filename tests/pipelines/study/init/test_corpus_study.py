"""`mixopt init` writes a study file of a corpus that means what it shows, comments included."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mixopt import surrogates
from mixopt.core.errors import CorpusError, MixoptError, StudyError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus
from mixopt.models.routers import ROUTERS
from mixopt.models.upcycling import MERGES, ROUTER_STARTS, UPCYCLERS
from mixopt.pipelines.study.checks import check, check_promotion
from mixopt.pipelines.study.init.answers import Answers
from mixopt.pipelines.study.init.corpus_study import ABLATIONS
from mixopt.pipelines.study.init.write import write_study_file
from mixopt.search import proposers
from mixopt.search.designs import DESIGNS
from mixopt.study.settings import Study, load_study
from tests.conftest import write_sources
from tests.pipelines.made_runs import Run
from tests.pipelines.study.init.commented import alternatives, at, leaves, write

OWN = {"name", "corpus", "objective"}  # what no default can know


@pytest.fixture
def begun(text_corpus: Corpus, tmp_path: Path) -> Path:
    """A study file as `mixopt init` leaves it."""
    write_study_file(tmp_path / "mine.yaml", Answers(corpus=text_corpus.path))
    return tmp_path / "mine.yaml"


def test_init_writes_a_valid_study_of_the_corpus(begun: Path, text_corpus: Corpus) -> None:
    study = load_study(begun)
    assert study.name == "mine"
    assert study.objective == dict.fromkeys(text_corpus.targets, 1.0)
    assert study.open_data().hash == text_corpus.hash
    text = begun.read_text().replace(str(text_corpus.path), "corpus")
    lines = text.replace(str(begun), "mine.yaml").splitlines()
    assert max(map(len, lines)) <= 100


def test_every_value_that_init_shows_is_the_default(begun: Path) -> None:
    shown = yaml.safe_load(begun.read_text())
    bare = Study(**{key: shown[key] for key in OWN}).model_dump(mode="json")
    read = load_study(begun).model_dump(mode="json")
    # an epoch: the default would be more than 4 of this corpus
    assert at(shown, "promote.tokens") == "131k"
    for values in (read, bare):
        del values["promote"]["tokens"]
    keys = [key for key, _ in leaves(shown) if key.split(".")[0] not in OWN]
    keys.remove("promote.tokens")
    assert len(keys) > 30
    assert {key: at(read, key) for key in keys} == {key: at(bare, key) for key in keys}
    assert read == bare  # and what it leaves out is not altered by what it shows


def test_every_alternative_in_its_comments_holds(begun: Path, tmp_path: Path) -> None:
    original, seen = load_study(begun), []
    for number, (instead, text) in enumerate(alternatives(begun.read_text())):
        file = write(tmp_path / f"mine{number}.yaml", text)
        study = load_study(file)
        check(study, study.open_data())
        assert study.model_dump() != original.model_dump(), instead
        seen.append(instead.split("  # ")[0].rstrip())
    assert {f"proposer: {name}" for name in set(proposers.KNOWN) - {"bayes"}} <= set(seen)
    assert {f"router: {name}" for name in set(ROUTERS) - {"softmax", *ABLATIONS}} <= set(seen)
    assert {"baseline: uniform", "at: {tokens: 3M}", "holdout: 8"} <= set(seen)
    assert "promote: {trainer: elsewhere, tokens: 131k}" in seen
    assert len(seen) > 60


def test_init_lists_every_registered_part(begun: Path) -> None:
    text = begun.read_text()
    for key, known in (
        ("surrogate", surrogates.KNOWN),
        ("proposer", proposers.KNOWN),
        ("design", DESIGNS),
        ("router", ROUTERS),
        ("upcycler", UPCYCLERS),
        ("merge", MERGES),
        ("router_start", ROUTER_STARTS),
    ):
        listed = re.findall(rf"^ +(?:# )?{key}: (\S+) +# \S", text, re.MULTILINE)
        assert sorted(listed) == sorted(set(known) - {*ABLATIONS})


def test_the_answers_are_what_the_file_says(text_corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "production.csv").write_text("law,code,prose\n0.5,0.3,0.2\n")
    answers = Answers(
        corpus=text_corpus.path,
        targets=("law=2", "notes"),
        budget="300k",
        promote=False,
        baseline=str(tmp_path / "production.csv"),
        trials=8,
        cluster="ray://head:10001",
        cpus=4,
        gpus=0.5,
    )
    write_study_file(tmp_path / "mine.yaml", answers)
    study = load_study(tmp_path / "mine.yaml")
    assert study.objective == {"law": 2.0, "notes": 1.0}
    assert (study.space.budget, study.promote) == (300_000, None)
    assert study.baseline == "production.csv"
    assert study.search.trials == 8
    assert (study.ray.address, study.ray.cpus_per_trial) == ("ray://head:10001", 4)
    assert study.ray.gpus_per_trial == 0.5
    check(study, study.open_data())
    for instead, text in alternatives((tmp_path / "mine.yaml").read_text()):
        other = load_study(write(tmp_path / "other.yaml", text))
        check(other, other.open_data())
        assert other.model_dump(exclude={"name"}) != study.model_dump(exclude={"name"}), instead


def test_a_budget_is_that_of_the_promotion_where_mixopt_trains_it(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    write_study_file(tmp_path / "mine.yaml", Answers(corpus=text_corpus.path, budget="300k"))
    study = load_study(tmp_path / "mine.yaml")
    assert study.promote is not None
    assert (study.promote.tokens, study.space.budget, study.budget) == (300_000, None, 300_000)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"targets": ("lore",)}, "--target: .*'lore'.*Choose from law"),
        ({"targets": ("law=much",)}, "--target: 'much' is no weight"),
        ({"budget": "some"}, "some"),
        ({"budget": "1T"}, "max_epochs"),
        ({"baseline": "law=0.5,lore=0.5"}, "lore"),
        ({"baseline": "nowhere.csv"}, "nowhere.csv"),
        ({"cpus": 0.0}, "cpus_per_trial"),
        ({"trials": 2}, "trials"),
    ],
)
def test_an_answer_that_does_not_hold_writes_nothing(
    text_corpus: Corpus, tmp_path: Path, answers: dict[str, object], message: str
) -> None:
    given = Answers(corpus=text_corpus.path).but(**answers)
    with pytest.raises(MixoptError, match=message):
        write_study_file(tmp_path / "mine.yaml", given)
    assert list(tmp_path.iterdir()) == []


def test_init_replaces_no_file_unless_told_to(begun: Path, text_corpus: Corpus) -> None:
    begun.write_text("mine")
    with pytest.raises(StudyError, match=r"mine\.yaml.*--force"):
        write_study_file(begun, Answers(corpus=text_corpus.path))
    assert begun.read_text() == "mine"
    write_study_file(begun, Answers(corpus=text_corpus.path), force=True)
    assert load_study(begun).name == "mine"


def test_init_wants_a_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="mixopt corpus build"):
        write_study_file(tmp_path / "mine.yaml", Answers(corpus=tmp_path / "nowhere"))
    assert not (tmp_path / "mine.yaml").exists()


def test_init_names_a_corpus_beside_it_by_its_relative_path(
    text_corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "corpus").symlink_to(text_corpus.path)
    write_study_file(tmp_path / "mine.yaml", Answers(corpus=tmp_path / "corpus"))
    assert "\ncorpus: corpus " in (tmp_path / "mine.yaml").read_text()


def test_init_asks_for_no_more_experts_than_the_corpus_has_domains_for(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "text")
    kept = [row for row in sources.read_text().splitlines() if "prose" not in row]
    sources.write_text("\n".join(kept) + "\n")
    corpus = build_corpus(sources, tmp_path / "corpus")
    write_study_file(tmp_path / "study.yaml", Answers(corpus=tmp_path / "corpus"))
    study = load_study(tmp_path / "study.yaml")
    assert study.promote is not None
    assert study.promote.model.experts == 3  # two domains and the seed
    check_promotion(study, corpus)
    for instead, text in alternatives((tmp_path / "study.yaml").read_text()):
        other = load_study(write(tmp_path / "other.yaml", text))
        check(other, other.open_data())
        assert "virtual-groups" not in instead  # cuts an even number of experts


def test_without_a_terminal_nothing_is_asked(
    run: Run, text_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("init", "--corpus", text_corpus.path)
    assert result.code == 0, result.err
    assert "mixopt plan study.yaml" in result.out
    assert run("plan", "study.yaml", "--no-measure").code == 0
