"""What registered parts are, a line each, read from their source: no part is imported for it."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path


def summaries(registered: Mapping[str, str]) -> dict[str, str]:
    """Registry name → first paragraph of its class' docstring, on one line.

    Args:
        registered: registry name → `package.module:Name`, as `registry.resolve` takes it.

    Raises:
        LookupError: a module or class is not there.

    >>> summaries({"bimix": "mixopt.surrogates.regression.bimix:BiMix"})["bimix"].split()[0]
    'L_i(r,'
    """
    return {name: _summary(target) for name, target in registered.items()}


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring, on one line; empty without one."""
    return " ".join((docstring or "").strip().split("\n\n")[0].split())


def _summary(target: str) -> str:
    module, _, name = target.partition(":")
    return first_paragraph(ast.get_docstring(_class(module, name)))


def _class(module: str, name: str) -> ast.ClassDef:
    for node in _parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"{module} defines no class {name}")


@cache
def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)  # imports the packages above it, which are light
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {module}")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
