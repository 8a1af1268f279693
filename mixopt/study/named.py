"""Fields of the study file that hold a registered name: checked, described, without imports."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from mixopt.core.registry import check_name

OWN_PATTERN = "^[^:]+:[^:]+$"  # package.module:Name


@dataclass(frozen=True)
class Registered:
    """Annotates a text field that names a part: `Annotated[str, Registered("surrogate", KNOWN)]`.

    Attributes:
        kind: what is named, for errors.
        names: registry names.
        own: whether `package.module:Name` may stand there as well.
    """

    kind: str
    names: Collection[str]
    own: bool = True

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Text that is a registry name or `package.module:Name`."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The registry's names, or the pattern of one of your own."""
        names: JsonSchemaValue = {"type": "string", "enum": sorted(self.names)}
        own = {"type": "string", "pattern": OWN_PATTERN}
        return {"anyOf": [names, own]} if self.own else names

    def _checked(self, name: str) -> str:
        check_name(self.kind, name, self.names, own=self.own)
        return name
