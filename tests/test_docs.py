"""What a newcomer reads is true: links, commands, files and names exist, made pages are current."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from mixopt import surrogates
from mixopt.models.upcycling import UPCYCLERS
from mixopt.pipelines.cli import app
from mixopt.pipelines.study import schema
from mixopt.pipelines.upcycling import schema as spec_schema
from mixopt.pipelines.upcycling.spec import SpecFile
from mixopt.search import proposers
from mixopt.search.designs import DESIGNS
from mixopt.study.sections import Pruner
from mixopt.study.settings import load_study

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CODE = ("mixopt", "proxies", "workers", "pipelines", "benchmarks", "notebooks")
COMMANDS = typer.main.get_command(app)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def code(page: Path) -> Iterator[str]:
    """Every line of code on the page, fenced or indented, and every span in backticks."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    yield from re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page)))


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose(page))
    relative = [target for target in targets if "://" not in target]
    assert [t for t in relative if not (page.parent / t).exists()] == []


@each_page
def test_links_within_a_page_lead_to_its_headings(page: Path) -> None:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", prose(page))) <= anchors


@each_page
def test_commands_are_real_with_all_their_options(page: Path) -> None:
    for line in code(page):
        for words in re.findall(r"(?:^|[\s/])mixopt ([a-z-][^|;#,)]*)", line):
            assert_real(shlex.split(words.replace("…", "")), line)


def assert_real(words: list[str], line: str) -> None:
    command: Any = COMMANDS
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}: {line}"
        command = command.commands[words.pop(0)]
    options = (option for it in command.params for option in (*it.opts, *it.secondary_opts))
    known = {*options, "--help"}
    assert [w for w in words if w.startswith("--") and w not in known] == [], line


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {word for line in code(page) for word in re.findall(r"^make ([a-z][\w-]*)", line)}
    assert named <= set(targets)


@each_page
def test_files_named_in_prose_exist(page: Path) -> None:
    spans = re.findall(rf"`((?:{'|'.join(CODE)}|docs|tests)/[\w./-]*)`", prose(page))
    assert [path for path in spans if not (ROOT / path).exists()] == []


@each_page
def test_python_names_exist(page: Path) -> None:
    for name in re.findall(r"`(mixopt(?:\.\w+)+\.[A-Z]\w+)`", prose(page)):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_file_tree_lists_every_module_and_nothing_stale() -> None:
    block = (ROOT / "CONTRIBUTING.md").read_text().split("<!-- tree:start -->")[1]
    block = block.split("<!-- tree:end -->")[0]
    listed, folders = set(), []
    for line in block.strip("\n`").splitlines():
        depth, name = re.match(r"^((?:[│ ] {3}|[├└]── )*)(\S+)  ?", line + "  ").groups()
        folders = [*folders[: len(depth) // 4], name]
        listed.add("".join(folders))
    stale = sorted(path for path in listed if not (ROOT / path).exists())
    assert stale == []
    there = {
        str(path.relative_to(ROOT))
        for folder in CODE
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".ipynb", ".html", ".yaml", ".json")
        if path.name != "__init__.py" and not {"__pycache__", ".ipynb_checkpoints"} & {*path.parts}
    }
    assert there - listed == set()


def test_the_page_and_schema_of_the_study_file_are_current() -> None:
    hint = "run `make schema` and commit what it writes"
    assert schema.PAGE_FILE.read_text() == schema.study_page(), hint
    assert schema.SCHEMA_FILE.read_text() == schema.schema_text(), hint


def test_every_key_of_the_study_file_has_a_meaning() -> None:
    found = schema.study_schema()
    for section in (found, *found["$defs"].values()):
        for key, values in section["properties"].items():
            assert "description" in values or "$ref" in values or "anyOf" in values, key
    assert "| |" not in schema.study_page()


def test_the_page_and_schema_of_the_upcycling_spec_are_current() -> None:
    assert spec_schema.SCHEMA_FILE.read_text() == spec_schema.schema_text(), "run `make schema`"
    page = (ROOT / "docs" / "upcycle.md").read_text()
    keys = spec_schema.spec_schema()["properties"]
    assert [key for key in keys if f"| `{key}` |" not in page] == []
    assert [key for key, values in keys.items() if "description" not in values] == []


def refusals(study: dict[str, Any]) -> list[str]:
    """What an editor with the schema says about a study file."""
    from jsonschema import Draft202012Validator

    values = json.loads(schema.SCHEMA_FILE.read_text())
    return [error.message for error in Draft202012Validator(values).iter_errors(study)]


def test_the_schema_takes_what_mixopt_takes_and_refuses_typos() -> None:
    file = ROOT / "pipelines" / "study" / "demo_study.yaml"
    study = yaml.safe_load(file.read_text())
    load_study(file)
    assert refusals(study) == []
    assert refusals(study | {"promote": None}) == []
    assert refusals(study | {"space": {"budget": "1.5M", "max_epochs": None}}) == []
    assert len(refusals(study | {"objectve": {}})) == 1
    assert len(refusals(study | {"search": {"trials": 2}})) == 1
    assert len(refusals(study | {"proxy": {"tokens": "many"}})) == 1
    assert len(refusals(study | {"proxy": {"recipe": {"rate": 0.1}}})) == 1


@each_page
def test_study_files_shown_are_valid(page: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if "objective:" in block:
            file = tmp_path / "study.yaml"
            file.write_text(block)
            load_study(file)
        elif "method:" in block:
            file = tmp_path / "spec.yaml"
            file.write_text(block)
            SpecFile(file)


def cluster_files() -> Iterator[dict[str, Any]]:
    """`ray_cluster.yaml`, and what it is with the provider in its comments."""
    text = (ROOT / "ray_cluster.yaml").read_text()
    yield (cluster := yaml.safe_load(text))
    block = re.search(r"^# provider:\n(?:#.*\n)+", text, re.MULTILINE)
    assert block is not None
    other = yaml.safe_load(re.sub(r"^# ?", "", block[0], flags=re.MULTILINE))
    yield {key: value for key, value in cluster.items() if key != "provider"} | other


@pytest.mark.parametrize("number", [0, 1], ids=["local", "aws"])
def test_ray_takes_the_cluster_file(number: int) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = prepare_config(copy.deepcopy(list(cluster_files())[number]))
    validate_config(cluster)
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in starts)


def test_the_surrogate_shown_to_contributors_passes_all_but_learning(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name, block in re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "tests"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    failed = re.findall(r"^FAILED \S+::(\w+)", ran.stdout, re.MULTILINE)
    assert failed == ["test_unseen_mixtures_are_ranked_better_than_by_chance"], ran.stdout


@pytest.mark.slow  # the suite fits Gaussian processes
def test_the_proposer_shown_on_its_page_passes_and_is_found_where_the_page_puts_it(
    tmp_path: Path,
) -> None:
    text = (ROOT / "docs" / "proposers.md").read_text()
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["nearby.py", "test_nearby.py"]
    for name, block in blocks:
        (tmp_path / name).write_text(block)
    code = (
        "import sys, pytest\n"
        "from mixopt.core.registry import resolve\n"
        "from mixopt.search.proposers.base import Proposer\n"
        "from mixopt.study.named_parts import import_named_parts\n"
        "from mixopt.study.settings import study_of\n"
        "from pathlib import Path\n"
        "sys.path.remove('')\n"
        "study = dict(name='s', domains=dict(a='1B', b='1B'), trainer='elsewhere',\n"
        "             objective=dict(loss=1), search=dict(proposer='nearby:Nearby'))\n"
        "import_named_parts(study_of(study, Path('study.yaml'), 'study'))\n"
        "sys.exit(pytest.main(['-q', '--import-mode=importlib', 'test_nearby.py']))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_page_of_the_study_file_prints_descriptions_whole_and_lists_registered_names() -> None:
    page = schema.study_page()
    for section in schema.study_schema()["$defs"].values():
        for values in section["properties"].values():
            if "description" in values:
                whole = " ".join(values["description"].split()).replace("|", "\\|")
                assert f"| {whole} |" in page
    for known in (surrogates.KNOWN, proposers.KNOWN, DESIGNS, UPCYCLERS):
        assert ", ".join(f"`{name}`" for name in sorted(known)) in page


def test_the_page_names_the_surrogates_that_learn_from_pruned_trials() -> None:
    text = inspect.getdoc(Pruner) or ""
    listed = text.partition("The surrogates ")[2].partition(" learn from")[0]
    able = {n for n in surrogates.KNOWN if n != "auto" and surrogates.find(n).supports_row_noise}
    assert set(re.findall(r"`([\w-]+)`", listed)) == able
