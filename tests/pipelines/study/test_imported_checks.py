"""A model that cannot take the place of a training is refused before anything runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixopt.core.errors import StudyError
from mixopt.corpus.build import build_corpus
from mixopt.corpus.shards import Corpus
from mixopt.models.families import loaded
from mixopt.pipelines.study.imported_checks import import_models
from mixopt.pipelines.study.imported_models import ImportedModels
from mixopt.study.settings import load_study
from tests.conftest import write_sources
from tests.mixopt.models.families.made import make
from tests.pipelines.made_runs import Run
from tests.pipelines.study.imported import branched, checkpoint, own
from tests.pipelines.whole_study import MODEL, write_study

TWO = {**MODEL, "experts": 2, "experts_per_token": 2}
SPARSE = {"upcycler": "sparse", "model": TWO}


@pytest.fixture(scope="module")
def models(text_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that may be imported; tests copy what they spoil."""
    folder = tmp_path_factory.mktemp("models")
    own(text_corpus, folder / "own")
    own(text_corpus, folder / "own-law", seed=4)
    checkpoint(text_corpus, folder / "llama")
    branched(folder / "llama", folder / "llama-law")
    branched(folder / "llama", folder / "llama-code")
    return folder


def study(tmp_path: Path, corpus: Corpus, **promote: Any) -> Path:
    return write_study(tmp_path / "study.yaml", corpus.path, with_store=False, promote=promote)


def imported(file: Path, corpus: Corpus) -> ImportedModels | None:
    return import_models(load_study(file), corpus, print)


def line_of(file: Path, key: str) -> int:
    lines = file.read_text().splitlines()
    return 1 + next(n for n, line in enumerate(lines) if line.strip().startswith(f"{key}:"))


def test_models_of_both_kinds_are_taken(tmp_path: Path, text_corpus: Corpus, models: Path) -> None:
    file = study(tmp_path, text_corpus, **SPARSE, seed_model=str(models / "own"))
    found = imported(file, text_corpus)
    assert found is not None
    assert (found.checkpoints, found.experts) == (False, {})
    file = study(
        tmp_path,
        text_corpus,
        model=TWO,
        seed_model=str(models / "llama"),
        expert_models={"law": str(models / "llama-law")},
    )
    found = imported(file, text_corpus)
    assert found is not None
    assert found.checkpoints
    assert found.folders == {"seed": models / "llama", "law": models / "llama-law"}


def test_without_models_there_is_nothing_to_look_at(tmp_path: Path, text_corpus: Corpus) -> None:
    assert imported(study(tmp_path, text_corpus), text_corpus) is None


def test_paths_start_from_the_study_file(tmp_path: Path, text_corpus: Corpus) -> None:
    own(text_corpus, tmp_path / "place" / "own")
    file = write_study(
        tmp_path / "place" / "study.yaml",
        text_corpus.path,
        promote={**SPARSE, "seed_model": "own"},
    )
    found = imported(file, text_corpus)
    assert found is not None
    assert found.seed == tmp_path / "place" / "own"


def test_a_corpus_is_built_with_the_models_tokenizer(
    tmp_path: Path, text_corpus: Corpus, models: Path
) -> None:
    sources = write_sources(tmp_path / "text")
    file = models / "llama" / "tokenizer.json"
    text = sources.read_text().replace("{vocabulary: 320}", f"{{file: {file}}}")
    sources.write_text(text)
    corpus = build_corpus(sources, tmp_path / "corpus")
    assert imported(study(tmp_path, corpus, **SPARSE, seed_model=str(models / "llama")), corpus)


def expert_of_another_shape(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "wide", hidden_size=64)
    return {"model": TWO, "expert_models": {"law": str(folder / "wide")}}


def expert_of_another_kind(corpus: Corpus, folder: Path) -> dict[str, Any]:
    return {"model": TWO, "expert_models": {"law": str(own(corpus, folder / "ours"))}}


def expert_of_another_vocabulary(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "more", vocab_size=corpus.vocab_size + 16)
    return {"model": TWO, "expert_models": {"law": str(folder / "more")}}


def expert_of_another_theta(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "far", rope_theta=5e5)
    return {"model": TWO, "expert_models": {"law": str(folder / "far")}}


def another_tokenizer(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "other")
    path = folder / "other" / "tokenizer.json"
    values = json.loads(path.read_text())
    first, second = sorted(values["model"]["vocab"])[:2]
    vocabulary = values["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(values))
    return {**SPARSE, "seed_model": str(folder / "other")}


def no_tokenizer(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "bare")
    (folder / "bare" / "tokenizer.json").unlink()
    return {**SPARSE, "seed_model": str(folder / "bare")}


def few_rows(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "few", vocab_size=corpus.vocab_size - 1)
    return {**SPARSE, "seed_model": str(folder / "few")}


def few_positions(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "short", max_position_embeddings=16)
    return {**SPARSE, "seed_model": str(folder / "short")}


def unknown_family(corpus: Corpus, folder: Path) -> dict[str, Any]:
    make("llama", folder / "odd")
    config = json.loads((folder / "odd" / "config.json").read_text())
    (folder / "odd" / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    shutil.copyfile(corpus.tokenizer_path, folder / "odd" / "tokenizer.json")
    return {**SPARSE, "seed_model": str(folder / "odd")}


def mixture_as_seed(corpus: Corpus, folder: Path) -> dict[str, Any]:
    checkpoint(corpus, folder / "moe", "qwen3_moe")
    return {**SPARSE, "seed_model": str(folder / "moe")}


def own_mixture_as_seed(corpus: Corpus, folder: Path) -> dict[str, Any]:
    own(corpus, folder / "own-moe", experts=4, experts_per_token=2)
    return {**SPARSE, "seed_model": str(folder / "own-moe")}


def own_of_another_shape(corpus: Corpus, folder: Path) -> dict[str, Any]:
    own(corpus, folder / "own-wide", width=32, layers=2)
    return {**SPARSE, "seed_model": str(folder / "own-wide")}


def own_with_others_weights(corpus: Corpus, folder: Path) -> dict[str, Any]:
    own(corpus, folder / "mixed")
    wide = own(corpus, folder / "wide", width=32)
    shutil.copyfile(wide / "model.safetensors", folder / "mixed" / "model.safetensors")
    return {**SPARSE, "seed_model": str(folder / "mixed")}


def own_cut(corpus: Corpus, folder: Path) -> dict[str, Any]:
    weights = own(corpus, folder / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    return {**SPARSE, "seed_model": str(folder / "cut")}


def cut(corpus: Corpus, folder: Path) -> dict[str, Any]:
    weights = checkpoint(corpus, folder / "torn") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    return {**SPARSE, "seed_model": str(folder / "torn")}


def pickled(corpus: Corpus, folder: Path) -> dict[str, Any]:
    model = checkpoint(corpus, folder / "pickled")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return {**SPARSE, "seed_model": str(model)}


SEEDS: dict[Callable[[Corpus, Path], dict[str, Any]], str] = {
    another_tokenizer: "its tokenizer is not that of the corpus: token .* Build the corpus with "
    "`tokenizer: {file:",
    no_tokenizer: r"there is no tokenizer\.json in",
    few_rows: "its vocabulary has 319 tokens, and the corpus uses 320",
    unknown_family: r"config\.json: model_type is 'gpt2', which mixopt has no description of",
    mixture_as_seed: r"the seed is a mixture of experts \(qwen3-moe\)",
    own_mixture_as_seed: "it is a mixture of 4 experts, not a dense model",
    own_of_another_shape: "it has width 32, layers 2, and promote.model needs a dense model with "
    "width 16, layers 1",
    own_with_others_weights: r"model\.safetensors: blocks.0.attention.out is of shape \[32, 32\], "
    r"and by model.json of shape \[16, 16\]",
    own_cut: r"cut/model\.safetensors: cannot be read",
    cut: r"torn/model\.safetensors: cannot be read",
    pickled: r"pytorch_model\.bin: weights are pickled",
}


@pytest.mark.parametrize("spoil", SEEDS, ids=lambda it: it.__name__)
def test_a_seed_that_cannot_be_used_is_refused(
    spoil: Callable[[Corpus, Path], dict[str, Any]], tmp_path: Path, text_corpus: Corpus
) -> None:
    file = study(tmp_path, text_corpus, **spoil(text_corpus, tmp_path))
    with pytest.raises(StudyError, match=SEEDS[spoil]) as refused:
        imported(file, text_corpus)
    where = f"{file}:{line_of(file, 'seed_model')}: promote.seed_model"
    assert refused.value.where == where
    assert refused.value.hint


EXPERTS: dict[Callable[[Corpus, Path], dict[str, Any]], str] = {
    expert_of_another_shape: "its width is 64, and the seed's 32",
    expert_of_another_kind: "it is of our own format, and promote.seed_model is a Hugging Face",
    expert_of_another_vocabulary: "its vocab_size is 336, and the seed's 328",
    expert_of_another_theta: r"its rope_theta is 500000\.0, and the seed's 10000\.0",
}


@pytest.mark.parametrize("spoil", EXPERTS, ids=lambda it: it.__name__)
def test_an_expert_that_was_not_branched_from_the_seed_is_refused(
    spoil: Callable[[Corpus, Path], dict[str, Any]],
    tmp_path: Path,
    text_corpus: Corpus,
    models: Path,
) -> None:
    promote = spoil(text_corpus, tmp_path)
    file = study(tmp_path, text_corpus, **promote, seed_model=str(models / "llama"))
    with pytest.raises(StudyError, match=EXPERTS[spoil]) as refused:
        imported(file, text_corpus)
    assert refused.value.where == f"{file}:{line_of(file, 'law')}: promote.expert_models.law"


def test_sequences_beyond_the_models_positions_are_refused(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    file = study(tmp_path, text_corpus, **few_positions(text_corpus, tmp_path))
    with pytest.raises(StudyError, match=r"is 32, and promote\.seed_model has 16 positions") as it:
        imported(file, text_corpus)
    assert it.value.where.endswith("promote.recipe.sequence_length")


ASKED: list[tuple[dict[str, Any], str]] = [
    ({"seed_model": "absent"}, r"seed_model: there is no folder .*absent"),
    ({"seed_model": "absent.gguf"}, r"seed_model: there is no folder .*absent\.gguf"),
    ({"seed_model": "file:///nowhere/llama"}, r"seed_model: file:///nowhere/llama: cannot be"),
    (
        {"seed_model": "{models}/llama", "expert_models": {"laws": "{models}/llama-law"}},
        r"expert_models\.laws: the corpus has no training domain 'laws'\. Choose from law, code",
    ),
    (
        {"seed_model": "{models}/llama", "expert_models": {"notes": "{models}/llama-law"}},
        "the corpus has no training domain 'notes'",
    ),
    (
        {**SPARSE, "seed_model": "{models}/llama", "expert_models": {"law": "{models}/llama-law"}},
        r"expert_models: the method does not use law\. Leave promote\.expert_models out",
    ),
    (
        {"model": TWO, "seed_model": "{models}/llama"},
        r"model\.experts: 2 experts cannot be made of 0 dense models\. Name dense experts in",
    ),
    (
        {
            "model": {**TWO, "experts": 4},
            "seed_model": "{models}/llama",
            "expert_models": {"law": "{models}/llama-law", "code": "{models}/llama-code"},
        },
        r"model\.experts: 4 experts cannot be made of 2 dense models",
    ),
    (
        {**SPARSE, "seed_model": "{models}/own", "expert_models": {"law": "{models}/own-law"}},
        r"expert_models\.law: sparse makes 2 experts of the seed alone\. Leave it out",
    ),
    (
        {**SPARSE, "seed_model": "{models}/llama", "router_start": "ridge"},
        r"router_start: all experts come from 'seed'",
    ),
    (
        {**SPARSE, "seed_model": "{models}/llama", "upcycler_settings": {"share": 1}},
        r"upcycler_settings\.share: this upcycler has no such setting",
    ),
    (
        {
            "upcycler": "llama-moe",
            "model": {**TWO, "experts": 5},
            "seed_model": "{models}/llama",
        },
        r"model\.experts: the dense layers' hidden width 48 does not split into 5",
    ),
]


@pytest.mark.parametrize(("promote", "message"), ASKED)
def test_what_does_not_go_together_is_refused(
    promote: dict[str, Any], message: str, tmp_path: Path, text_corpus: Corpus, models: Path
) -> None:
    filled = json.loads(json.dumps(promote).replace("{models}", str(models)))
    file = study(tmp_path, text_corpus, **filled)
    with pytest.raises(StudyError, match=message) as refused:
        imported(file, text_corpus)
    assert refused.value.where.startswith(f"{file}:")
    assert ": promote." in refused.value.where


def test_experts_without_a_seed_are_refused_when_the_file_is_read(
    tmp_path: Path, text_corpus: Corpus
) -> None:
    file = study(tmp_path, text_corpus, expert_models={"law": "llama-law"})
    with pytest.raises(StudyError, match="branched from a seed model, and none is named") as it:
        load_study(file)
    assert it.value.where == f"{file}:{line_of(file, 'expert_models')}: promote.expert_models"


def test_checkpoints_need_transformers(
    tmp_path: Path, text_corpus: Corpus, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = study(tmp_path, text_corpus, **SPARSE, seed_model=str(models / "llama"))
    monkeypatch.setattr(loaded.importlib.util, "find_spec", {}.get)
    with pytest.raises(StudyError, match="evaluated by transformers, which is not installed"):
        imported(file, text_corpus)


@pytest.mark.parametrize("command", ["plan", "run", "search"])
def test_nothing_is_begun_with_a_model_that_is_not_there(
    command: str, tmp_path: Path, text_corpus: Corpus, run: Run
) -> None:
    file = study(tmp_path, text_corpus, **SPARSE, seed_model="absent")
    result = run(command, file)
    assert result.code == 1
    assert f"{file}:{line_of(file, 'seed_model')}: promote.seed_model: there is no" in result.err
    assert len(result.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_promotion_is_named_by_is_the_models_content(
    tmp_path: Path, text_corpus: Corpus, models: Path
) -> None:
    place = tmp_path / "model"
    shutil.copytree(models / "own", place)
    file = study(tmp_path, text_corpus, **SPARSE, seed_model=str(place))
    found, home = imported(file, text_corpus), tmp_path / "home"
    assert found is not None
    first = found.identity(home)
    assert found.identity(home) == first
    own(text_corpus, place, seed=9)
    assert found.identity(home) != first
    moved = study(tmp_path, text_corpus, **SPARSE, seed_model=str(models / "own"))
    there = imported(moved, text_corpus)
    assert there is not None
    assert there.identity(home) == first


def test_the_plan_shows_imported_models_and_leaves_their_cost_out(
    tmp_path: Path, text_corpus: Corpus, models: Path, run: Run
) -> None:
    file = study(
        tmp_path,
        text_corpus,
        model={**TWO, "experts": 4},
        seed_model=str(models / "own"),
        expert_models={"law": str(models / "own-law")},
    )
    lines = run("plan", file).out
    assert "dense seed model" not in lines
    row = next(line for line in lines.splitlines() if "domain experts" in line)
    assert row.split("│")[2].strip() == "2"
    lines = " ".join(lines.split())
    assert f"Imported seed: {models / 'own'} (of mixopt, 1.84k parameters without" in lines
    assert f"Imported expert law: {models / 'own-law'} (of mixopt" in lines
    assert "Without effect" not in lines


def test_the_plan_of_checkpoints_says_what_is_without_effect(
    tmp_path: Path, text_corpus: Corpus, models: Path, run: Run
) -> None:
    keys = {**SPARSE, "seed_model": str(models / "llama")}
    trained, untrained = (
        " ".join(run("plan", study(tmp_path / name, text_corpus, **keys, train=train)).out.split())
        for name, train in (("trained", True), ("untrained", False))
    )
    assert "upcycled model" in trained
    assert "trained by transformers' own module" in trained
    assert "upcycled model" not in untrained
    assert "which is evaluated, not trained (train: false)" in untrained
    for lines in (trained, untrained):
        assert f"Imported seed: {models / 'llama'} (llama, " in lines
        assert "They become mixtral by sparse" in lines
        assert "Without effect in promote: seed_tokens, expert_tokens, " in lines
