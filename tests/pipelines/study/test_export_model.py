"""A promoted model leaves as a folder that transformers loads, with a card; or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixopt.corpus.manifest import Manifest
from mixopt.corpus.settings import TokenizerSettings
from mixopt.corpus.shards import Corpus
from mixopt.corpus.tokenizer import make_tokenizer
from mixopt.io import files, markers
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from mixopt.pipelines.study.export_model import export_model
from mixopt.proxies.checkpoint import load_state, save_state
from mixopt.study.records import read_promotion
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import finished_study
from tests.pipelines.made_runs import Run

SHAPE = ModelConfig(
    width=16, heads=2, experts=6, experts_per_token=2, expert_width=12, vocab_size=300
)
SMALLEST = 257  # one token a byte, and the end of a text


def give_tokenizer(corpus: Path, vocabulary: int) -> None:
    """Give the made-up corpus a tokenizer that works."""
    settings = TokenizerSettings(vocabulary=vocabulary)
    tokenizer = make_tokenizer(
        settings, corpus, corpus, ["some words of text"] * 5, str(vocabulary)
    )
    dataclasses.replace(Manifest.read(corpus), tokenizer=tokenizer).write(corpus)


def promote(study: Study, **shape: Any) -> None:
    """Random weights in the place of the promoted model's."""
    promotion = study.home / "promotion"
    corpus = Corpus.open(study.corpus_path)
    config = dataclasses.replace(SHAPE, vocab_size=corpus.vocab_size, **shape)
    model = promotion / "model"
    save_state(model / markers.WEIGHTS, Transformer(config).proxy_state())
    files.write_json(model / markers.SHAPE, dataclasses.asdict(config))
    shutil.copyfile(corpus.tokenizer_path, model / markers.TOKENIZER)
    result = read_promotion(study.home)
    assert result is not None
    result = dataclasses.replace(
        result, files=markers.described(model), corpus_hash=corpus.hash, sequence_length=32
    )
    files.write_json(promotion / "result.json", result.to_json())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("finished")
    study = finished_study(folder)
    give_tokenizer(folder / "corpus", SMALLEST)
    promote(study)
    return study


@pytest.fixture
def study(finished: Study, tmp_path: Path) -> Study:
    """A copy to spoil."""
    shutil.copytree(finished.path.parent, tmp_path / "copy")
    return load_study(tmp_path / "copy" / "study.yaml")


@pytest.fixture(scope="module")
def exported(finished: Study) -> Path:
    out = finished.path.parent / "model"
    export_model(finished.path, out)
    return out


def test_transformers_computes_what_the_promoted_model_does(
    finished: Study, exported: Path
) -> None:
    state, _ = load_state(finished.home / "promotion" / "model" / markers.WEIGHTS)
    config = json.loads((finished.home / "promotion" / "model" / markers.SHAPE).read_text())
    ours = Transformer(ModelConfig(**config)).eval()
    ours.load_proxy_state(state)
    ids = torch.arange(64).view(2, 32)
    theirs = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    with torch.no_grad():
        gap = (theirs(ids).logits - ours.logits(ids[None])[0]).abs().max()
    assert gap < 1e-5


def test_the_tokenizer_is_the_corpus_own_and_transformers_generates(
    finished: Study, exported: Path
) -> None:
    corpus = Corpus.open(finished.corpus_path)
    ours = Tokenizer.from_file(str(corpus.tokenizer_path))
    theirs = AutoTokenizer.from_pretrained(exported)
    text = "Some words – and naïve ones.\n"
    assert theirs(text)["input_ids"] == ours.encode(text, add_special_tokens=False).ids
    assert theirs.decode(theirs(text)["input_ids"]) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (0, 0)
    assert theirs.model_max_length == 32
    model = AutoModelForCausalLM.from_pretrained(exported)
    assert (model.generation_config.bos_token_id, model.config.eos_token_id) == (0, 0)
    made = model.generate(**theirs("Some", return_tensors="pt"), max_new_tokens=5, do_sample=False)
    assert made.shape[1] > len(theirs("Some")["input_ids"])


def test_the_card_says_mixture_losses_receipt_limits_and_lineage(
    finished: Study, exported: Path
) -> None:
    text = (exported / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "transformers"
    heads = [line for line in body.splitlines() if line.startswith("## ")]
    assert [head[3:] for head in heads] == [
        "Mixture",
        "Losses",
        "Training",
        "Upcycling",
        "Limits",
        "Lineage",
    ]
    # weight .5 of 600k tokens, of which the corpus has 90k
    assert "| docstrings | 0.500 | 300k | 90k | 3.3 |" in body
    promotion = read_promotion(finished.home)
    assert promotion is not None
    moments = (promotion.seed, promotion.before, promotion.after)
    losses = " | ".join(f"{at['bpb/descriptions']:.4f}" for at in moments)
    assert f"| bpb/descriptions | {losses} |" in body
    assert "The found mixture is selected" in body
    assert "sequences of 32 tokens" in body
    assert Corpus.open(finished.corpus_path).hash in body
    facts = json.loads((exported / "mixopt.json").read_text())
    assert facts["mixture"] == promotion.mixture.as_dict()
    assert facts["corpus_hash"] == promotion.corpus_hash
    assert facts["study_id"]
    receipt = json.loads((exported / "upcycling.json").read_text())
    assert receipt == promotion.receipt.to_json()


def refused(run: Run, study: Study, out: Path, *words: str) -> None:
    """The export of `study` to `out` fails with one sentence that holds `words`."""
    beside = sorted(out.parent.iterdir())
    code, _, error = run("export", study.path, "--model", out)
    assert code == 1
    assert "Traceback" not in error
    assert [word for word in words if word not in error] == []
    assert sorted(out.parent.iterdir()) == beside  # nothing is left


def test_a_study_without_a_promotion_is_told_what_to_run(
    study: Study, tmp_path: Path, run: Run
) -> None:
    (study.home / "promotion" / "result.json").unlink()
    refused(run, study, tmp_path / "out", "no model is promoted yet", "mixopt run")


def test_an_export_of_nothing_is_a_wrong_use(study: Study, run: Run) -> None:
    code, _, error = run("export", study.path)
    assert code == 2
    assert "--mixture" in error
    assert "--model" in error


def test_another_corpus_is_refused(study: Study, tmp_path: Path, run: Run) -> None:
    give_tokenizer(study.corpus_path, SMALLEST + 3)
    refused(run, study, tmp_path / "out", "not the one that the model was trained on")


def test_weights_that_changed_are_refused(study: Study, tmp_path: Path, run: Run) -> None:
    weights = study.home / "promotion" / "model" / markers.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(run, study, tmp_path / "out", "not as it was written", "mixopt promote")


def test_a_model_that_mixtral_cannot_hold_is_refused(
    study: Study, tmp_path: Path, run: Run
) -> None:
    promote(study, shared_experts=1)
    refused(run, study, tmp_path / "out", "no home for 1 shared experts", "granitemoeshared")


def test_a_folder_that_is_there_is_left_alone(study: Study, tmp_path: Path, run: Run) -> None:
    (tmp_path / "out").mkdir()
    refused(run, study, tmp_path / "out", "exists already")
    assert list((tmp_path / "out").iterdir()) == []
