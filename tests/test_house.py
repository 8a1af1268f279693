"""The house: one import name, no circles, and a wheel that holds one package."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.built import ROOT, build

LINKED = ("proxies", "workers", "pipelines")  # at the top level; imported as mixopt.…

IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
import mixopt
for found in pkgutil.walk_packages(mixopt.__path__, "mixopt."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
names = {}
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] in ("mixopt", "proxies", "workers", "pipelines"):
        names.setdefault(pathlib.Path(module.__file__).resolve(), []).append(name)
print([found for found in names.values() if len(found) > 1])
print(sorted({"proxies", "workers", "pipelines"} & set(sys.modules)))
"""


def sources() -> dict[str, Path]:
    """Module of mixopt → its file."""
    folders = [ROOT / "mixopt", *(ROOT / name for name in LINKED)]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    parts = [file.relative_to(ROOT).with_suffix("").parts for file in files]
    names = [".".join(p if p[0] == "mixopt" else ("mixopt", *p)) for p in parts]
    return {name.removesuffix(".__init__"): f for name, f in zip(names, files, strict=True)}


def imported(file: Path, modules: set[str]) -> set[str]:
    """The `modules` that `file` imports anywhere: lazily and for types too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= within or {node.module} & modules
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
    return found


def test_no_module_imports_itself_by_a_detour() -> None:
    files = sources()
    arrows = {name: imported(file, set(files)) for name, file in files.items()}
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError, which names a circle


def test_nothing_is_imported_under_two_names(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr


def test_sdist_and_wheel_hold_one_package(tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("mixopt-*")
    wheel = zipfile.ZipFile(build(unpacked, "wheel", tmp_path / "wheel"))
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in files} == {"mixopt"}
    modules = {name.replace(".", "/") for name in sources()}
    assert {name for name in modules if not {f"{name}.py", f"{name}/__init__.py"} & files} == set()
    data = {
        "py.typed",
        "__init__.pyi",
        "study.schema.json",
        "upcycle.schema.json",
        "trainers/job.schema.json",
        "trainers/progress.schema.json",
        "trainers/result.schema.json",
        "pipelines/study/demo_study.yaml",
    }
    assert {f"mixopt/{name}" for name in data} <= files
