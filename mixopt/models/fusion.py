"""Chains of operators that a GPU runs as one kernel where compiling them pays.

    @fused
    def scaled(x, y): ...

    with fusing():
        scaled(x, y)  # compiled at the first call; outside it runs operator by operator

A GPU reads and writes its memory once per operator, and once in all where a kernel does the whole
chain: a step of 32 proxies takes 11 ms so instead of 29 (docs/benchmarks.md). Compiling takes
seconds per chain and shape: a training decides whether it is long enough
(`mixopt.proxies.captured`), and evaluation, whose shapes change, does without.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

# of the process, not of a context: gradients are computed in threads that torch owns
_depth = 0


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """The function; within `fusing()` compiled, for each shape that it meets.

    It must do the same whether compiled or not, within rounding.
    """
    return _switched(function, any_shape=False)


def fused_for_any_shape(function: Callable[P, R]) -> Callable[P, R]:
    """As `fused`, compiled once for all shapes: for chains without reductions, of many shapes."""
    return _switched(function, any_shape=True)


def _switched(function: Callable[P, R], any_shape: bool) -> Callable[P, R]:
    compiled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _depth:
            return function(*args, **kwargs)
        if not compiled:
            compiled.append(torch.compile(function, dynamic=any_shape))
        return compiled[0](*args, **kwargs)

    return call


@contextmanager
def fusing(active: bool = True) -> Iterator[None]:
    """Within it `fused` functions are compiled, if `active`; at its end the code is dropped.

    What was compiled once is found again in torch's cache on disk.
    """
    global _depth
    if not active:
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            torch.compiler.reset()


def missing_compiler() -> str | None:
    """What torch's compiler needs for a GPU and does not find, or None."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    if not any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))):
        return "a C compiler"
    return None
