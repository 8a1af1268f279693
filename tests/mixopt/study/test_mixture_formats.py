"""The chosen mixture leaves in the formats of other trainers, with tokens and epochs."""

from __future__ import annotations

import ast
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mixopt.core.errors import StudyError
from mixopt.core.mixture import Mixture
from mixopt.study.mixture_formats import FORMATS
from mixopt.study.mixture_formats.base import (
    Blend,
    DomainShare,
    MixtureFormat,
    mixture_format,
    tokens_by_domain,
)

# What the trainers' own code reads, by version, as read on 2026-11-29. `datasets` and
# mosaicml-streaming read our files themselves below.
DOCUMENTED: dict[str, dict[str, set[str]]] = {
    # ai2-olmo-core 3.0.0, olmo_core/data/source_mixture.py
    "olmo-core": {
        "list": {"sources"},
        "source": {
            "source_name",
            "target_ratio",
            "paths",
            "max_repetition_ratio",
            "max_source_fraction",
        },
    },
    # marin-levanter 0.2.20, levanter/data/text/datasets.py: LmDataConfig, DatasetComponent,
    # UrlDatasetSourceConfig
    "levanter": {
        "data": {
            "tokenizer",
            "vocab_size",
            "cache_dir",
            "cache_options",
            "enforce_eos",
            "auto_build_caches",
            "chat_template",
            "shuffle",
            "permutation_type",
            "block_cross_document_attention",
            "components",
            "train_weights",
            "stop_strategy",
            "target_budget",
            "experiment_budget",
            "mixture_block_size",
            "max_train_batches",
            "num_validation_sequences",
            "shuffle_before_trainval_split",
        },
        "component": {
            "type",
            "source",
            "cache_dir",
            "format",
            "pack",
            "tags",
            "split",
            "flat_cache",
        },
        "source": {"type", "tags", "cache_dir", "format", "train_urls", "validation_urls"},
    },
    # torchtitan 0.3.0, torchtitan/hf_datasets/text_datasets.py
    "torchtitan": {
        "Config": {"sources", "seed", "stopping_strategy"},
        "HFDataSource": {"dataset", "dataset_path", "infinite", "weight"},
    },
}


class Mine(MixtureFormat):
    """A format of a user's own."""

    def text(self, blend: Blend) -> str:
        return f"{len(blend.domains)} domains"


def blend(paths: dict[str, str] | None = None) -> Blend:
    """Four domains, one of them without weight, one read 2.5 times."""
    weights = {"law": 0.3, "code": 0.5, "prose": 0.2, "notes": 0.0}
    available = {"law": 4_000, "code": 2_000, "prose": 8_000, "notes": 500}
    documents = {"law": 4, "code": 20, "prose": 8, "notes": 5}
    return Blend(
        study="tiny",
        candidate="found",
        budget=10_000,
        seed=3,
        corpus="abc",
        dtype="uint16",
        domains=tuple(
            DomainShare(
                name=name,
                weight=weight,
                tokens=round(10_000 * weight),
                available=available[name],
                documents=documents[name],
                shard=f"/corpus/{name}/train.bin",
                path=(paths or {}).get(name),
            )
            for name, weight in weights.items()
        ),
    )


def written(name: str, paths: dict[str, str] | None = None) -> str:
    return mixture_format(name).text(blend(paths))


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda w: sum(w) > 1e-3),
    st.integers(1, 10**15),
)
def test_tokens_are_whole_and_sum_to_the_budget(weights: list[float], budget: int) -> None:
    mixture = Mixture.of({f"d{i}": weight for i, weight in enumerate(weights)})
    tokens = tokens_by_domain(mixture, budget)
    assert sum(tokens.values()) == budget
    for name, count in tokens.items():
        assert abs(count - mixture[name] * budget) <= 1 + 1e-9 * budget
        assert count >= 0


def test_json_and_csv_hold_every_domain_with_tokens_and_epochs() -> None:
    values = json.loads(written("json"))
    assert values["budget_tokens"] == 10_000
    assert values["domains"]["code"] == {
        "weight": 0.5,
        "tokens": 5000,
        "available_tokens": 2000,
        "epochs": 2.5,
    }
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    assert [row["domain"] for row in rows] == ["law", "code", "prose", "notes"]
    assert {k: float(rows[1][k]) for k in rows[1] if k != "domain"} == values["domains"]["code"]


def megatron_blend(text: str) -> tuple[list[str], list[float]]:
    """As Megatron reads `--data-args-path`: words at white space, weight and prefix in turn
    (megatron-core 0.16.1, `get_blend_from_list`)."""
    words = text.split()
    assert len(words) % 2 == 0
    return words[1::2], [float(word) for word in words[::2]]


def test_megatron_reads_weights_and_prefixes() -> None:
    prefixes, weights = megatron_blend(written("megatron", {"law": "/data/law_text_document"}))
    assert prefixes == ["/data/law_text_document", "PATH_OF_code", "PATH_OF_prose"]
    assert weights == [0.3, 0.5, 0.2]


def test_megatron_gets_no_path_that_it_would_cut() -> None:
    with pytest.raises(StudyError, match="no white space"):
        written("megatron", {"law": "/my data/law"})


def test_olmo_core_finds_its_documented_keys_and_enough_tokens() -> None:
    values = yaml.safe_load(written("olmo-core", {"law": "s3://bucket/law/*.npy"}))
    assert values.keys() == DOCUMENTED["olmo-core"]["list"]
    sources = values["sources"]
    assert sum(source["target_ratio"] for source in sources) == pytest.approx(1)
    for source in sources:
        assert source.keys() <= DOCUMENTED["olmo-core"]["source"]
        domain = next(d for d in blend().domains if d.name == source["source_name"])
        # the condition under which OLMo-core refuses a source
        assert int(domain.available * source["max_repetition_ratio"]) >= int(
            10_000 * source["target_ratio"]
        )
        assert source["max_repetition_ratio"] >= 1
    assert sources[0]["paths"] == ["s3://bucket/law/*.npy"]
    assert sources[1]["paths"] == ["/corpus/code/train.bin"]


def test_levanter_finds_its_documented_keys() -> None:
    data = yaml.safe_load(written("levanter"))["data"]
    known = DOCUMENTED["levanter"]
    assert data.keys() <= known["data"]
    assert data["train_weights"] == {"law": 0.3, "code": 0.5, "prose": 0.2}
    assert data["components"].keys() == data["train_weights"].keys()
    for component in data["components"].values():
        assert component.keys() <= known["component"]
        assert component["source"].keys() <= known["source"]


def test_torchtitan_finds_its_documented_arguments() -> None:
    text = written("torchtitan")
    (call,) = [n.value for n in ast.parse(text).body if isinstance(n, ast.Assign)]
    assert isinstance(call, ast.Call)
    arguments = {word.arg: word.value for word in call.keywords}
    assert arguments.keys() <= DOCUMENTED["torchtitan"]["Config"]
    sources: Any = arguments["sources"]
    weights = {}
    for source in sources.elts:
        words = {word.arg: ast.literal_eval(word.value) for word in source.keywords}
        assert words.keys() <= DOCUMENTED["torchtitan"]["HFDataSource"]
        weights[words["dataset"]] = words["weight"]
    assert weights == {"law": 0.3, "code": 0.5, "prose": 0.2}


def test_datasets_draws_rows_by_the_probabilities() -> None:
    datasets = pytest.importorskip("datasets")
    values = json.loads(written("datasets"))
    rows = [datasets.Dataset.from_dict({"domain": [name] * 2000}) for name in values["domains"]]
    mixed = datasets.interleave_datasets(rows, **values["interleave_datasets"])
    drawn = np.array(mixed["domain"])
    for name, weight in zip(values["domains"], [0.3, 0.5, 0.2], strict=True):
        assert (drawn == name).mean() == pytest.approx(weight, abs=0.02)


def test_datasets_draws_documents_so_that_tokens_have_the_weights() -> None:
    values = json.loads(written("datasets"))
    lengths = {d.name: d.available / d.documents for d in blend().domains}
    tokens = np.array(values["probabilities_of_documents"]) * [
        lengths[name] for name in values["domains"]
    ]
    np.testing.assert_allclose(tokens / tokens.sum(), [0.3, 0.5, 0.2])
    assert sum(values["probabilities_of_documents"]) == pytest.approx(1)


def test_mosaicml_streams_read_the_file(tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming")
    paths = {name: str(tmp_path / name) for name in ("law", "code", "prose")}
    for name, folder in paths.items():
        with streaming.MDSWriter(out=folder, columns={"domain": "str"}) as writer:
            for _ in range(50):
                writer.write({"domain": name})
    values = yaml.safe_load(written("mosaicml", paths))
    streams = [streaming.Stream(**stream) for stream in values["streams"].values()]
    dataset = streaming.StreamingDataset(streams=streams, epoch_size=1000, batch_size=1)
    drawn = np.array([sample["domain"] for sample in dataset])
    counts = {name: int((drawn == name).sum()) for name in paths}
    assert counts == {"law": 300, "code": 500, "prose": 200}


def test_mosaicml_reads_urls_as_remote() -> None:
    streams = yaml.safe_load(written("mosaicml", {"law": "s3://bucket/law"}))["streams"]
    assert streams["law"] == {"remote": "s3://bucket/law", "proportion": 0.3}
    assert streams["code"] == {"local": "PATH_OF_code", "proportion": 0.5}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_placeholder_is_announced_and_gone_once_the_path_is_given(name: str) -> None:
    form = mixture_format(name)
    for given_paths in ({}, {"law": "/l"}, {"law": "/l", "code": "/c", "prose": "/p"}):
        text, unknown = form.text(blend(given_paths)), form.unknown_paths(blend(given_paths))
        placed = [d.name for d in blend().domains if f"PATH_OF_{d.name}" in text]
        assert placed == unknown


def test_a_format_of_ones_own_is_found_by_its_module() -> None:
    assert mixture_format(f"{__name__}:Mine").text(blend()) == "4 domains"


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(StudyError, match="Did you mean 'megatron'"):
        mixture_format("megatronn")
