"""Whatever is wrong is one message with its place and its fix, and leaves nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.mixopt.models.dense_checkpoints import (
    INDEX,
    WEIGHTS,
    edit,
    split,
    write_dense,
    write_tokenizer,
)
from tests.pipelines.made_runs import Run
from tests.pipelines.whole_study import environment

MIX = "method: branch-train-mix\nseed: seed\nsources: {code: code, law: law}\n"
NAME = "model.layers.1.mlp.up_proj.weight"
HERE = {"seed", "code", "law", "spec.yaml"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A seed, and two dense experts of its shape; the folder that commands run in."""
    for number, name in enumerate(("seed", "code", "law")):
        write_dense(tmp_path / name, number)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(run: Run, folder: Path, text: str = MIX, out: str = "moe") -> str:
    """What `mixopt upcycle` says about it; nothing but the inputs is there after it."""
    (folder / "spec.yaml").write_text(text)
    before = sorted(str(path) for path in folder.rglob("*"))
    result = run("upcycle", "spec.yaml", out)
    assert result.code == 1
    assert result.out == ""
    assert len(result.err.splitlines()) == 1, result.err
    assert sorted(str(path) for path in folder.rglob("*")) == before
    return result.err.removeprefix("error ")


def rewrite_config(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


SPECS = {
    "unknown key": (f"{MIX}expert: 2\n", "spec.yaml:4: expert: there is no such key. Did you mean"),
    "unknown method": ("method: spars\nseed: seed\n", "spec.yaml:1: method: no upcycler is called"),
    "unknown target": (f"{MIX}target: mixtrl\n", "spec.yaml:4: target: no family is called"),
    "a dense target": (f"{MIX}target: llama\n", "spec.yaml:4: target: llama has no experts"),
    "another trunk": (f"{MIX}target: qwen3-moe\n", "spec.yaml:4: target: qwen3-moe needs what"),
    "unknown dtype": (f"{MIX}dtype: bf16\n", "spec.yaml:4: dtype: must be 'float32'"),
    "unknown merge": (f"{MIX}merge: averag\n", "spec.yaml:4: merge: no merge is called"),
    "unknown setting": (
        f"{MIX}router_settings:\n  sd: 1\n",
        "spec.yaml:5: router_settings.sd: this router start has no such setting",
    ),
    "wrong setting": (
        f"{MIX}router_settings: {{std: wide}}\n",
        "spec.yaml:4: router_settings.std: must be a number, is 'wide'",
    ),
    "no seed": ("method: sparse\n", "spec.yaml:1: seed: is missing. Add it"),
    "too few sources": (
        f"{MIX}experts: 4\n",
        "spec.yaml:4: experts: 4 experts cannot be made of 2",
    ),
    "no sources": (
        "method: branch-train-mix\nseed: seed\nexperts: 2\n",
        "spec.yaml:3: experts: 2 experts cannot be made of 0 dense models",
    ),
    "unused sources": (
        MIX.replace("branch-train-mix", "sparse"),
        "spec.yaml:3: sources: the method does not use code, law",
    ),
    "a source called seed": (
        "method: branch-train-mix\nseed: seed\nsources: {seed: code, law: law}\n",
        "spec.yaml:3: sources.seed: a source cannot be called 'seed'",
    ),
    "too many per token": (
        f"{MIX}experts_per_token: 3\n",
        "spec.yaml:4: experts_per_token: must be 1 to 2",
    ),
    "one expert": (f"{MIX}experts: 1\n", "spec.yaml:4: experts: must be at least"),
    "no YAML": ("method: [sparse\n", "spec.yaml:2: is not YAML"),
    "no such folder": (
        MIX.replace("law: law", "law: lw"),
        "lw/config.json: cannot be read: No such file or directory",
    ),
}


@pytest.mark.parametrize("what", SPECS)
def test_a_bad_spec_is_refused_with_its_line(what: str, folder: Path, run: Run) -> None:
    text, expected = SPECS[what]
    assert expected in refused(run, folder, text)


def two_files(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    split(folder)
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({NAME: torch.ones(2)}, folder / "pytorch_model.bin")


NOT_FINITE = torch.ones(24, 16).index_fill(0, torch.tensor([5]), float("nan"))
CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (lambda f: edit(f, **{NAME: None}), f"{NAME} is missing. Fetch all files"),
    "extra tensor": (
        lambda f: edit(f, **{"model.lora_A": torch.ones(2)}),
        "model.lora_A is no tensor of llama. Give a checkpoint without adapters",
    ),
    "wrong shape": (
        lambda f: edit(f, **{NAME: torch.ones(16, 24)}),
        f"{NAME} has shape [16, 24], and by its config [24, 16]",
    ),
    "cut weights": (lambda f: cut(f / WEIGHTS, 0.7), "model.safetensors: cannot be read"),
    "weights cut in the header": (lambda f: cut(f / WEIGHTS, 0.01), "cannot be read"),
    "empty weights": (lambda f: cut(f / WEIGHTS, 0), "model.safetensors: cannot be read"),
    "NaN": (
        lambda f: edit(f, **{NAME: NOT_FINITE}),
        f"{NAME} holds values that are not finite. Give a checkpoint from before",
    ),
    "infinity": (
        lambda f: edit(f, **{"model.norm.weight": torch.full((16,), float("inf"))}),
        "model.norm.weight holds values that are not finite",
    ),
    "pickled": (pickled, "pytorch_model.bin: weights are pickled, and a pickle can run any code"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "there is neither model.safetensors nor"),
    "cut index": (lambda f: (split(f), cut(f / INDEX, 0.5)), f"{INDEX}: is cut or no JSON"),
    "index without a tensor's file": (
        lambda f: (split(f), (f / "model-00002-of-00002.safetensors").unlink()),
        "model-00002-of-00002.safetensors: cannot be read: No such file",
    ),
    "index that leads outside": (
        lambda f: two_files(f, lambda names: names.update({NAME: "../law/model.safetensors"})),
        f"{INDEX}: names a file outside its folder, '../law/model.safetensors'",
    ),
    "unknown architecture": (
        lambda f: rewrite_config(f, model_type="gpt2"),
        "config.json: model_type is 'gpt2', which mixopt has no description of",
    ),
    "missing config key": (
        lambda f: rewrite_config(f, hidden_size=None),
        "config.json: hidden_size is missing",
    ),
    "cut config": (lambda f: cut(f / "config.json", 0.5), "config.json: is cut or no JSON"),
    "cut tokenizer": (lambda f: cut(f / "tokenizer.json", 0.5), "tokenizer.json: is cut or no"),
}


@pytest.mark.parametrize("where", ["seed", "law"])
@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_bad_checkpoint_is_refused_with_its_file(
    what: str, where: str, folder: Path, run: Run
) -> None:
    change, expected = CHECKPOINTS[what]
    change(folder / where)
    message = refused(run, folder)
    assert expected in message
    assert message.startswith(where)


def test_another_vocabulary_is_refused(folder: Path, run: Run) -> None:
    write_dense(folder / "wide", vocab_size=33)
    message = refused(run, folder, MIX.replace("law: law", "law: wide"))
    assert "spec.yaml:3: sources.law: its vocab_size is 33, and the seed's 32" in message


def test_another_tokenizer_is_refused_and_another_layout_of_its_file_is_not(
    folder: Path, run: Run
) -> None:
    letters = {chr(97 + number): number for number in range(26)}
    write_tokenizer(folder / "law", letters | {"a": 1, "b": 0})
    message = refused(run, folder)
    assert "spec.yaml:3: sources.law: its tokenizer is not the seed's: token 'b' is id 0" in message
    write_tokenizer(folder / "law", dict(reversed(letters.items())), indent=2)
    assert run("upcycle", "spec.yaml", "moe").code == 0


def test_an_output_that_exists_is_refused(folder: Path, run: Run) -> None:
    assert refused(run, folder, out="law").startswith("law: exists already. Name a folder")


@pytest.mark.parametrize("inside", ["seed", "code"])
def test_an_output_inside_a_checkpoint_is_refused(inside: str, folder: Path, run: Run) -> None:
    assert f"{inside}/moe: lies inside {inside}" in refused(run, folder, out=f"{inside}/moe")


def test_too_little_disk_is_refused_before_anything_is_written(folder: Path, run: Run) -> None:
    """40,000 experts of 100 MB each: more than 4 TB."""
    write_dense(folder / "wide", num_hidden_layers=1, intermediate_size=1 << 19)
    text = "method: sparse\nseed: wide\nexperts: 40000\n"
    message = refused(run, folder, text)
    assert f"the model takes 4107.07 GB, and the disk of {folder} has" in message
    assert "GB left. Free space on that disk, or write elsewhere." in message
    shown = run("upcycle", "spec.yaml", "moe", "--dry-run").out
    assert "GB: too little" in shown


def test_a_disk_that_fills_while_it_is_written_is_one_message(folder: Path) -> None:
    """A limit on the size of files stands for the full disk: the system refuses to write on."""
    (folder / "spec.yaml").write_text(MIX)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [sys.executable, "-m", "mixopt", "upcycle", "spec.yaml", "moe"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=small_files,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error .moe.part/model.safetensors: cannot be written: File too")
    assert {path.name for path in folder.iterdir()} == HERE


def test_two_commands_on_one_output_do_not_mix(folder: Path, run: Run) -> None:
    from mixopt.io.new_folder import new_folder

    with new_folder(folder / "moe"):
        assert f"moe is held by process {os.getpid()}" in refused(run, folder)
