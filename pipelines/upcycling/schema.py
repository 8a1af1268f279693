"""The JSON schema of a SPEC, for editors: `mixopt/upcycle.schema.json`, made by `make schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mixopt
from mixopt.pipelines.upcycling.spec import Spec

SCHEMA_FILE = Path(mixopt.__file__).parent / "upcycle.schema.json"


def spec_schema() -> dict[str, Any]:
    """The JSON schema of a SPEC."""
    schema = Spec.model_json_schema()
    for key in schema["properties"].values():
        key.pop("title")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "mixopt upcycling SPEC",
    }


def schema_text() -> str:
    """What `mixopt/upcycle.schema.json` should hold."""
    return json.dumps(spec_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write it."""
    SCHEMA_FILE.write_text(schema_text())
    print(f"wrote {SCHEMA_FILE.name}")
