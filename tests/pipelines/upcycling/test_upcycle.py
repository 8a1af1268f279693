"""`mixopt upcycle`: a SPEC and dense checkpoints in, a folder that transformers loads out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.mixopt.models.dense_checkpoints import WEIGHTS, split, write_dense
from tests.pipelines.made_runs import Run

SPARSE = "method: sparse\nseed: seed\nexperts: 4\n"
MIX = "method: branch-train-mix\nseed: seed\nsources: {code: code, law: law}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A seed, and two dense experts of its shape."""
    for number, name in enumerate(("seed", "code", "law")):
        write_dense(tmp_path / name, number)
    return tmp_path


def spec(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def logits(folder: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(24).view(1, 24)
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


def test_a_sparse_copy_of_a_folder_in_two_files_computes_what_the_seed_does(
    folder: Path, run: Run
) -> None:
    split(folder / "seed")
    result = run("upcycle", spec(folder, SPARSE), folder / "moe")
    assert (result.code, result.err) == (0, "")
    assert (logits(folder / "moe") - logits(folder / "seed")).abs().max() < 1e-5
    kept = {p.name for p in (folder / "moe").iterdir()}
    assert kept == {WEIGHTS, "config.json", "tokenizer.json", "upcycling.json"}


def test_experts_are_the_sources_and_the_rest_is_their_mean(folder: Path, run: Run) -> None:
    assert run("upcycle", spec(folder, MIX + "experts: 3\n"), folder / "moe").code == 0
    moe = load_file(folder / "moe" / WEIGHTS)
    dense = [load_file(folder / name / WEIGHTS) for name in ("code", "law", "seed")]
    for number, each in enumerate(dense):
        expert = moe[f"model.layers.1.block_sparse_moe.experts.{number}.w2.weight"]
        assert torch.equal(expert, each["model.layers.1.mlp.down_proj.weight"])
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"):
        mean = torch.stack([each[name] for each in dense]).mean(0)
        assert torch.allclose(moe[name], mean, atol=1e-6)
    assert logits(folder / "moe").isfinite().all()


def test_the_receipt_is_printed_and_kept(folder: Path, run: Run) -> None:
    printed = json.loads(run("upcycle", spec(folder, MIX), folder / "moe", "--json").out)
    assert printed == json.loads((folder / "moe" / "upcycling.json").read_text())
    assert (printed["method"], printed["experts"]) == ("branch-train-mix", ["code", "law"])
    assert (printed["merge"], printed["preserves_function"]) == ("average", False)


def test_a_dry_run_writes_nothing_and_plans_what_is_written(folder: Path, run: Run) -> None:
    file = spec(folder, SPARSE)
    plan = json.loads(run("upcycle", file, folder / "moe", "--dry-run", "--json").out)
    shown = run("upcycle", file, folder / "moe", "--dry-run").out
    assert not (folder / "moe").exists()
    receipt = json.loads(run("upcycle", file, folder / "moe", "--json").out)
    moe = load_file(folder / "moe" / WEIGHTS)
    assert plan["receipt"] == receipt
    assert plan["params"] == sum(tensor.numel() for tensor in moe.values())
    assert plan["bytes"] == sum(tensor.nbytes for tensor in moe.values())
    idle = sum(t.numel() for name, t in moe.items() if ".experts." in name) // 2
    assert plan["active_params"] == plan["params"] - idle
    assert (plan["files"], plan["target"], plan["dtype"]) == (1, "mixtral", "float32")
    assert plan["disk_left"] > plan["bytes"]
    assert "nothing is written" in shown


def test_the_console_shows_plan_and_receipt_in_100_columns(folder: Path, run: Run) -> None:
    file = spec(folder, SPARSE)
    for options in (["--dry-run"], []):
        lines = run("upcycle", file, "moe" if options else folder / "moe", *options).out.split("\n")
        text = "\n".join(lines)
        assert max(map(len, lines)) <= 100 + len(str(folder))
        for row in ("mixtral (MixtralForCausalLM)", "seed × 4", "function kept      yes"):
            assert row in text


def test_equal_seeds_give_equal_files_and_other_seeds_other_routers(folder: Path, run: Run) -> None:
    for out, seed in (("one", 1), ("same", 1), ("other", 2)):
        assert (
            run("upcycle", spec(folder, f"{SPARSE}random_seed: {seed}\n"), folder / out).code == 0
        )
    one, same, other = ((folder / out / WEIGHTS).read_bytes() for out in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_settings_and_dtype_of_the_spec_are_used(folder: Path, run: Run) -> None:
    text = SPARSE + "dtype: bfloat16\nrouter_settings: {std: 3.0}\nexperts_per_token: 1\n"
    assert run("upcycle", spec(folder, text), folder / "moe").code == 0
    moe = load_file(folder / "moe" / WEIGHTS)
    assert {tensor.dtype for tensor in moe.values()} == {torch.bfloat16}
    assert 2 < moe["model.layers.0.block_sparse_moe.gate.weight"].float().std() < 4
    config = json.loads((folder / "moe" / "config.json").read_text())
    assert (config["num_experts_per_tok"], config["dtype"]) == (1, "bfloat16")


def test_samples_of_text_and_of_token_ids_start_the_routers_and_are_in_the_receipt(
    folder: Path, run: Run
) -> None:
    (folder / "code.txt").write_text("thequickbrownfox" * 20)
    np.save(folder / "law.npy", np.arange(12).reshape(2, 6))
    text = MIX + "router: ridge\nsamples: {code: code.txt, law: law.npy}\n"
    result = run("upcycle", spec(folder, text), folder / "moe", "--json")
    assert result.code == 0, result.err
    receipt = json.loads(result.out)
    assert receipt["router"] == "ridge"
    assert receipt["loads"].keys() == {"code", "law"}
    assert receipt["logit_difference"] > 0
    assert json.loads((folder / "moe" / "upcycling.json").read_text()) == receipt


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("{law: law.txt}", r"spec.yaml:4: samples.*law.txt cannot be read"),
        ("{law: seed/config.npy}", r"spec.yaml:4: samples.*config.npy cannot be read"),
    ],
)
def test_a_sample_that_cannot_be_read_is_refused_by_its_line(
    folder: Path, run: Run, samples: str, message: str
) -> None:
    (folder / "seed" / "config.npy").write_bytes(b"\x80\x04")  # a pickle's beginning
    result = run("upcycle", spec(folder, SPARSE + f"samples: {samples}\n"), folder / "moe")
    assert result.code == 1
    assert re.search(message, result.err.replace("\n", " "))
    assert not (folder / "moe").exists()
