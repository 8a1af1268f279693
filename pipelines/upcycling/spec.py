"""The SPEC of `mixopt upcycle`: one YAML that says which dense models become which mixture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mixopt.core.errors import StudyError
from mixopt.io import yaml_lines
from mixopt.models.families import FAMILIES
from mixopt.models.upcycling import MERGES, ROUTER_STARTS, UPCYCLERS
from mixopt.study.named import Registered
from mixopt.study.sections import Section

if TYPE_CHECKING:
    import numpy as np

    from mixopt.models.upcycling.folders import Request

EXPERTS = 8  # where no source says how many


class Spec(Section):
    """A whole SPEC file."""

    method: Annotated[str, Registered("upcycler", UPCYCLERS)]
    """How experts are made of dense feed-forward layers."""
    target: Annotated[str, Registered("family", tuple(FAMILIES), own=False)] | None = None
    """Family of the output; null: that which holds all of the seed's."""
    seed: str
    """The dense seed: a folder relative to this file, an fsspec URL, or a name on the hub."""
    sources: dict[str, str] = Field(default={})
    """Expert name → dense model branched from the seed, given as the seed is; in expert order."""
    experts: int | None = Field(default=None, ge=2)
    """Experts of each block; null: as many as sources, 8 without any."""
    experts_per_token: int = Field(default=2, ge=1)
    """Experts that a token passes."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the tensors written; null: the seed's."""
    random_seed: int = Field(default=0, ge=0)
    """Draws what is new: routers, and what a method draws."""
    settings: dict[str, Any] = Field(default={})
    """Settings of the method."""
    merge: Annotated[str, Registered("merge", MERGES)] = "average"
    """How what is no expert is merged over the sources, where the method merges."""
    merge_settings: dict[str, Any] = Field(default={})
    """Settings of the merge."""
    router: Annotated[str, Registered("router start", ROUTER_STARTS)] = "random"
    """What the routers start from."""
    router_settings: dict[str, Any] = Field(default={})
    """Settings of it."""
    samples: dict[str, str] = Field(default={})
    """Domain → file of sample text, or of token ids (`.npy`, a row per sequence), for the receipt
    and for what looks at text: needs transformers."""

    @property
    def expert_count(self) -> int:
        """E."""
        return self.experts or len(self.sources) or EXPERTS


class SpecFile:
    """A SPEC that was read, with its lines for the checks that come later.

    Attributes:
        spec: its values.

    Raises:
        StudyError: it cannot be read, or is not valid; naming line, key and fix.
    """

    def __init__(self, path: Path) -> None:
        self._document = yaml_lines.Document(path)
        self.spec = self._document.validate(Spec)
        self.folder = path.parent
        self._check_numbers()

    def request(self, seed: Path, sources: Mapping[str, Path]) -> Request:
        """What is asked for, of models that are on this disk."""
        from mixopt.models.upcycling.folders import Request

        spec = self.spec
        return Request(
            method=spec.method,
            seed=seed,
            sources=sources,
            experts=spec.expert_count,
            experts_per_token=spec.experts_per_token,
            target=spec.target or "",
            dtype=spec.dtype or "",
            random_seed=spec.random_seed,
            settings=spec.settings,
            merge=spec.merge,
            merge_settings=spec.merge_settings,
            router=spec.router,
            router_settings=spec.router_settings,
            samples={name: self._sample(name, path) for name, path in spec.samples.items()},
        )

    def _sample(self, name: str, path: str) -> str | np.ndarray:
        file = self.folder / path
        try:
            if file.suffix == ".npy":
                import numpy as np

                ids: np.ndarray = np.load(file, allow_pickle=False)
                return ids
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise StudyError(
                f"{file} cannot be read: {error}",
                where=f"samples.{name}",
                hint="Name a file of UTF-8 text, or token ids as numpy saves them",
            ) from error

    def located(self, error: StudyError) -> StudyError:
        """`error` with file and line, if it is about a key of this SPEC; else `error` as it is."""
        place = self._place(error.where)
        if not place:
            return error
        return StudyError(error.what, where=self._document.where(place), hint=error.hint)

    def _place(self, where: str) -> yaml_lines.Place:
        if "/" in where:  # a file
            return ()
        if where in self.spec.sources:
            return ("sources", where)
        key, _, inside = where.partition(".")
        if key not in Spec.model_fields:
            return ()
        return (key, inside) if inside else (key,)

    def _check_numbers(self) -> None:
        spec = self.spec
        if spec.experts_per_token > spec.expert_count:
            raise StudyError(
                f"must be 1 to {spec.expert_count}, the number of experts, is "
                f"{spec.experts_per_token}",
                where=self._document.where(("experts_per_token",)),
                hint="Ask for fewer experts per token, or for more experts",
            )
