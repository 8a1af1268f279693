"""Folders measured and started from samples, against what a reader would compute by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from mixopt.core.errors import CheckpointError, StudyError
from mixopt.models.upcycling import measuring
from mixopt.models.upcycling.folders import RECEIPT, Request, plan, write
from mixopt.models.upcycling.receipt import Receipt
from tests.mixopt.models.families.made import logits, make

SAMPLES = {
    "low": np.random.default_rng(0).integers(0, 30, (6, 20)),
    "high": np.random.default_rng(1).integers(30, 64, (3, 24)),
}


def tokenizer(folder: Path) -> None:
    """Words w0 to w63 with their numbers as ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    made.pre_tokenizer = Whitespace()
    made.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "olmo2"])
def test_the_receipt_of_a_folder_is_what_transformers_computes(kind: str, tmp_path: Path) -> None:
    seed, moe = make(kind, tmp_path / "seed"), tmp_path / "moe"
    request = Request("drop-upcycling", seed, experts=4, samples=SAMPLES)
    receipt = write(plan(request), moe)
    assert Receipt.from_json(json.loads((moe / RECEIPT).read_text())) == receipt

    model = transformers.AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32)
    gaps, reached = [], torch.zeros(2, 4)
    for name, ids in SAMPLES.items():
        with torch.no_grad():
            out = model(torch.from_numpy(ids), output_router_logits=True)
        gaps.append(float((out.logits - logits(seed, torch.from_numpy(ids))).abs().max()))
        chosen = torch.stack(out.router_logits).softmax(-1).topk(2, -1)
        counts = torch.stack([torch.bincount(each.flatten(), minlength=4) for each in chosen[1]])
        reached += counts
        share = counts.sum(0) / counts.sum()
        assert receipt.loads[name] == pytest.approx(share.tolist(), abs=1e-6)
        gates = chosen[0] / chosen[0].sum(-1, keepdim=True)
        entropy = -(gates * gates.log()).sum(-1).mean()
        assert receipt.router_entropy[name] == pytest.approx(float(entropy), abs=1e-4)
    assert receipt.logit_difference == pytest.approx(max(gaps), rel=1e-3)
    dead = (reached == 0).nonzero().tolist()
    assert receipt.dead_experts == tuple(f"{layer}.{expert}" for layer, expert in dead)


def test_a_method_that_keeps_the_function_is_measured_to(tmp_path: Path) -> None:
    seed = make("qwen3", tmp_path / "seed")
    request = Request("sparse", seed, experts=4, samples=SAMPLES)
    receipt = write(plan(request), tmp_path / "moe")
    assert receipt.preserves_function
    assert receipt.logit_difference is not None
    assert receipt.logit_difference < 1e-5


@pytest.mark.parametrize("kind", ["llama", "olmo2"])
def test_hidden_states_of_a_folder_are_the_inputs_of_its_routers(kind: str, tmp_path: Path) -> None:
    seed, moe = make(kind, tmp_path / "seed"), tmp_path / "moe"
    write(plan(Request("sparse", seed, experts=4)), moe)  # its trunk computes what the seed does
    model = transformers.AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32)
    read: list[torch.Tensor] = []
    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            module.register_forward_pre_hook(lambda _, args: read.append(args[0].flatten(0, -2)))
    states = measuring.hidden_states(seed, SAMPLES)
    for name, ids in SAMPLES.items():
        read.clear()
        model(torch.from_numpy(ids))
        for layer, x_ND in enumerate(read):
            assert torch.allclose(states[layer].means[name], x_ND.mean(0), atol=1e-5)


@pytest.mark.parametrize("router", ["ridge", "domain-embedding"])
def test_routers_of_folders_start_from_samples(router: str, tmp_path: Path) -> None:
    seed = make("llama", tmp_path / "seed")
    sources = {name: seed for name in SAMPLES}
    request = Request(
        "branch-train-mix",
        seed,
        sources,
        experts=2,
        experts_per_token=1,
        router=router,
        samples=SAMPLES,
    )
    receipt = write(plan(request), tmp_path / "moe")
    assert receipt.router == router
    assert receipt.loads["low"][0] > 0.7
    assert receipt.loads["high"][1] > 0.7


def test_co_activation_of_a_folder(tmp_path: Path) -> None:
    seed = make("llama", tmp_path / "seed")
    settings = {"split": "co-activation"}
    request = Request("llama-moe", seed, experts=4, settings=settings, samples=SAMPLES)
    receipt = write(plan(request), tmp_path / "moe")
    assert receipt.logit_difference is not None
    assert receipt.logit_difference > 0


def test_samples_of_text_are_read_with_the_seeds_tokenizer(tmp_path: Path) -> None:
    seed = make("llama", tmp_path / "seed")
    tokenizer(seed)
    words = " ".join(f"w{i % 64}" for i in range(600))
    found = measuring.token_ids(seed, {"a": words, "b": "w3 w1", "c": SAMPLES["low"]})
    assert found["a"].shape == (2, 256)
    assert found["a"][1, :3].tolist() == [0, 1, 2]
    assert found["b"].tolist() == [[3, 1]]
    assert found["c"] is SAMPLES["low"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"samples": {"a": "some text"}}, r"samples: .*has no tokenizer.json"),
        ({"samples": {"a": np.zeros((0, 4))}}, r"samples\.a: holds no tokens"),
        ({"samples": {"a": np.arange(4)}}, r"samples\.a: holds no tokens in rows"),
        ({"router": "ridge"}, r"router: all experts come from 'seed'"),
        ({"method": "llama-moe", "settings": {"split": "co-activation"}}, r"samples: the method"),
    ],
)
def test_samples_that_cannot_be_used_are_refused_before_anything_is_written(
    request_: dict[str, object], message: str, tmp_path: Path
) -> None:
    seed = make("llama", tmp_path / "seed")
    asked = {"method": "sparse", "seed": seed, "experts": 4} | request_
    with pytest.raises(StudyError, match=message):
        plan(Request(**asked))  # type: ignore[arg-type]


def test_a_source_without_a_sample_is_refused_by_name(tmp_path: Path) -> None:
    seed = make("llama", tmp_path / "seed")
    request = Request(
        "branch-train-mix",
        seed,
        {"low": seed, "law": seed},
        experts=2,
        router="ridge",
        samples=SAMPLES,
    )
    with pytest.raises(StudyError, match="samples: there is no sample for the expert 'law'"):
        plan(request)


def test_a_token_that_the_vocabulary_lacks_leaves_nothing(tmp_path: Path) -> None:
    seed = make("llama", tmp_path / "seed")
    request = Request("sparse", seed, experts=4, samples={"a": np.array([[64]])})
    with pytest.raises(StudyError, match=r"samples\.a: holds token 64, .* has 64"):
        write(plan(request), tmp_path / "moe")
    assert {path.name for path in tmp_path.iterdir()} == {"seed"}


def test_without_transformers_samples_are_refused_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = make("llama", tmp_path / "seed")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(StudyError, match="samples need transformers, which is not installed"):
        plan(Request("sparse", seed, experts=4, samples=SAMPLES))
    plan(Request("sparse", seed, experts=4))


def test_what_transformers_cannot_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        measuring.hidden_states(tmp_path, SAMPLES)


def test_a_folder_without_routers_cannot_be_measured_as_a_mixture(tmp_path: Path) -> None:
    seed = make("llama", tmp_path / "seed")
    samples = {"web": np.arange(24).reshape(2, 12)}
    with pytest.raises(CheckpointError, match="no router is found"):
        measuring.measure_folder(Receipt("sparse", ("seed",), 1.0), seed, seed, samples)
