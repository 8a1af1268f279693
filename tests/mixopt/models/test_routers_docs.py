"""docs/routers.md names the routers that there are, with the settings that they take."""

import dataclasses
import importlib
import json
import re
from pathlib import Path

import torch
import yaml

import mixopt
from mixopt.models.config import ModelConfig
from mixopt.models.routers import ROUTERS
from mixopt.models.routers.base import router_class
from mixopt.models.transformer import Transformer
from mixopt.testing.routers import VOCABULARY

PAGE = Path(mixopt.__file__).parents[1] / "docs" / "routers.md"


def _rows() -> dict[str, list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in cells}


def test_every_router_has_a_row() -> None:
    assert set(_rows()) == set(ROUTERS)


def test_settings_and_their_defaults_are_those_of_the_classes() -> None:
    for name, row in _rows().items():
        result = dict(re.findall(r"`(\w+)`: ([^,]+)", row[4]))
        there = {}
        for field in dataclasses.fields(router_class(name).settings_class):
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            there[field.name] = default if isinstance(default, str) else json.dumps(default)
        assert result == there, name


def test_the_papers_are_those_that_the_modules_name() -> None:
    for name, row in _rows().items():
        numbers = set(re.findall(r"\d{4}\.\d{5}", row[1]))
        module = importlib.import_module(router_class(name).__module__)
        base = importlib.import_module("mixopt.models.routers.base")
        assert numbers
        assert numbers <= set(re.findall(r"\d{4}\.\d{5}", f"{module.__doc__}{_source(base)}")), name


def test_the_losses_are_those_that_a_step_minimises() -> None:
    for name, row in _rows().items():
        settings = {"ablation": True} if name == "expert-choice" else {}
        config = ModelConfig(
            width=8,
            heads=2,
            expert_width=8,
            vocab_size=VOCABULARY,
            router=name,
            router_settings=settings,
        )
        ids_KBT = torch.zeros(1, 1, 4, dtype=torch.long)
        _, routings = Transformer(config).trunk(ids_KBT)
        result = re.sub(r"\(.*?\)", "", row[3].split(";")[0].replace("of the micro-batch", ""))
        names = {part.strip() for part in result.split(",")} - {"none"}
        assert names == set(routings[0].losses), name


def test_the_example_is_a_model_that_there_is() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    config = ModelConfig(**yaml.safe_load(text)["proxy"]["model"])
    assert config.settings.mass == 0.5


def _source(module: object) -> str:
    return Path(module.__file__).read_text()
