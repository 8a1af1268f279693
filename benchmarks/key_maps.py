"""Whether vLLM and SGLang know every tensor name that mixopt writes; run by hand.

    python benchmarks/key_maps.py                    # fetches both wheels with pip, about 400 MB
    python benchmarks/key_maps.py --wheels FOLDER    # vllm-*.whl and sglang-*.whl lie there

Neither package is installed or imported. Their model files are parsed: a name is known if every
part of it is a module of the model, after the renames of the loader (`q_proj` into `qkv_proj`) and
with the names of an expert's three matrices that it looks for. Two more columns say whether the
file reads `tie_word_embeddings` and `head_dim`. docs/formats.md has the result.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from mixopt.models.families.base import Family, Shape, family

SHAPE = Shape(8, 1, 2, 2, 4, 12, 16, False, experts=2)
FOLDERS = {"vllm": "vllm/model_executor/models", "sglang": "sglang/srt/models"}
FILES = {  # by family; where a class derives from another file's, that one too
    "mixtral": ("mixtral.py",),
    "qwen3-moe": ("qwen3_moe.py", "qwen2_moe.py"),
    "olmoe": ("olmoe.py",),
    "flex-olmo": ("flex_olmo.py",),
}
USUAL = ("gate_proj", "down_proj", "up_proj")  # what both look for unless told otherwise
NAMES_OF_EXPERTS = ("ckpt_gate_proj_name", "ckpt_down_proj_name", "ckpt_up_proj_name")


@dataclass
class Reader:
    """What a model's file says about names on disk.

    Attributes:
        modules: attributes that hold a module.
        renames: name on disk → module that its tensor becomes a part of.
        experts: names of an expert's matrices.
        keys: what it may read of a config: attributes of `config`, and strings.
    """

    modules: set[str] = field(default_factory=set)
    renames: dict[str, str] = field(default_factory=dict)
    experts: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    def knows(self, name: str) -> bool:
        """Whether the tensor `name` finds a place."""
        parts = name.removesuffix(".weight").split(".")
        if "experts" in parts:
            return parts[-1] in self.experts and set(parts[:-2]) - {"0", "1"} <= self.modules
        return {self.renames.get(part, part) for part in parts} - {"0"} <= self.modules


def read(sources: list[str]) -> Reader:
    """The reader that these files make."""
    found = Reader()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            _see(node, found)
    found.experts = found.experts or set(USUAL)
    return found


def _see(node: ast.AST, found: Reader) -> None:
    if isinstance(node, ast.Attribute):
        if ast.unparse(node.value).endswith("config"):
            found.keys.add(node.attr)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        found.keys.add(node.value)
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        for target in node.targets:
            each = target.elts if isinstance(target, ast.Tuple) else [target]
            found.modules |= {it.attr for it in each if isinstance(it, ast.Attribute)}
    elif isinstance(node, ast.keyword):
        if node.arg in NAMES_OF_EXPERTS and isinstance(node.value, ast.Constant):
            found.experts.add(node.value.value)
        elif node.arg == "ckpt_names":
            found.experts |= set(ast.literal_eval(node.value))
        elif node.arg == "orig_to_new_stacked" and isinstance(node.value, ast.Dict):
            for old, (new, _) in ast.literal_eval(node.value).items():
                found.renames[old.rpartition(".")[2]] = new.rpartition(".")[2]
    elif isinstance(node, ast.Tuple) and len(node.elts) == 3:
        module, old, _ = node.elts
        if all(isinstance(it, ast.Constant) and isinstance(it.value, str) for it in (module, old)):
            found.renames[old.value] = module.value


def compare(wheel: Path, package: str, of: Family) -> str:
    """A row of the table."""
    with zipfile.ZipFile(wheel) as files:
        there = set(files.namelist())
        paths = [f"{FOLDERS[package]}/{name}" for name in FILES[of.name]]
        if paths[0] not in there:
            return f"| {of.name} | no file of its own: transformers' module serves | | |"
        reader = read([files.read(path).decode() for path in paths if path in there])
    names = [of.disk_name(part) for part in of.parts(SHAPE)]
    unknown = [name for name in names if not reader.knows(name)]
    known = "all" if not unknown else f"not {', '.join(unknown)}"
    return (
        f"| {of.name} | {known} of {len(names)} | "
        + " | ".join(
            "read" if key in reader.keys else "not read"
            for key in ("tie_word_embeddings", "head_dim")
        )
        + " |"
    )


def fetch(package: str, folder: Path) -> Path:
    """The package's wheel in `folder`, fetched if it is not there."""
    if not list(folder.glob(f"{package}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run(
            [*command, "--only-binary=:all:", "--dest", str(folder), package], check=True
        )
    return sorted(folder.glob(f"{package}-*.whl"))[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheels", type=Path, help="folder with both; else they are fetched")
    given = parser.parse_args().wheels
    with tempfile.TemporaryDirectory() as temporary:
        for package in FOLDERS:
            wheel = fetch(package, given or Path(temporary))
            print(f"\n{'-'.join(wheel.name.split('-')[:2])}\n")
            print("| family | names | tie_word_embeddings | head_dim |\n|---|---|---|---|")
            for name in FILES:
                print(compare(wheel, package, family(name)))


if __name__ == "__main__":
    main()
