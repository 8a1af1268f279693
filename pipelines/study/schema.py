"""The study file described for editors and for people, from the classes that read it.

    python -m pipelines.schema        # or: make schema

writes `mixopt/study.schema.json` (name it in a study file's first line, and an editor completes and
checks keys) and `docs/study.md`. A test says when they are not current.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

import mixopt
from mixopt.core.counts import parse_tokens
from mixopt.core.formatting import count
from mixopt.study.data import short_domain
from mixopt.study.guards import short_guard
from mixopt.study.locked import FREE, may_change
from mixopt.study.named import OWN_PATTERN
from mixopt.study.own_trainer import short_trainer
from mixopt.study.sections import short_notify, short_task
from mixopt.study.settings import Study

SCHEMA_FILE = Path(mixopt.__file__).parent / "study.schema.json"
PAGE_FILE = Path(mixopt.__file__).parents[1] / "docs" / "study.md"

TOKENS: dict[str, list[dict[str, Any]]] = {
    "anyOf": [
        {"type": "integer", "exclusiveMinimum": 0},
        {
            "type": "string",
            "pattern": r"^\s*[0-9][0-9_]*\.?[0-9]*([eE][0-9]+)?\s*[kKmMbBgGtT]?\s*$",
        },
    ]
}
SHORT: list[tuple[Any, list[dict[str, Any]]]] = [  # what may stand alone in place of a section
    (short_task, [{"type": "string"}]),
    (short_notify, [{"type": "string"}]),
    (short_trainer, [{"type": "string"}]),
    (short_guard, [{"type": "number"}, {"type": "string"}]),
    (short_domain, TOKENS["anyOf"]),
]
SHARED = {  # shapes that several sections hold: where the page describes them
    "ModelConfig": ("A model's shape", "proxy.model, promote.model, select.at.model"),
    "Recipe": ("A recipe", "proxy.recipe, promote.recipe"),
    "Trainer": ("A trainer", "trainer, promote.trainer"),
    "RunResources": ("Resources of the full run", "promote.resources"),
    "TrainedPart": ("A phase of a training", "promote.trains"),
    "Linear": ("A linear constraint", "space.linear"),
    "DomainTokens": ("A domain", "domains"),
    "Guard": ("A guardrail", "guardrails"),
    "TaskFile": ("A task", "tasks"),
    "LargerSize": ("A larger size", "select.at"),
    "Pruner": ("A pruner", "search.pruner"),
    "Notify": ("Notify", "notify"),
}

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Says what pydantic alone cannot: that token counts may be text, what a dataclass field is."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        node = super().function_before_schema(schema)
        function = schema["function"]["function"]
        if function is parse_tokens:
            return copy.deepcopy(TOKENS)
        short = next((also for each, also in SHORT if each is function), [])
        return {"anyOf": [node, *copy.deepcopy(short)]} if short else node

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        node = super().dataclass_schema(schema)
        doc = inspect.getdoc(schema["cls"]) or ""
        node["description"] = doc.split("\n\nAttributes:")[0]
        meanings = attributes(doc)
        for name, values in node["properties"].items():
            values["description"] = sentence(meanings[name])
            if name.endswith("_tokens"):  # `_short_counts` of the study file
                del values["type"]
                values |= copy.deepcopy(TOKENS)
        return node


def attributes(doc: str) -> dict[str, str]:
    """Name → meaning, from the `Attributes:` of a Google-style docstring."""
    _, _, block = doc.partition("Attributes:\n")
    block = block.split("\n\n")[0]
    attributes = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", block, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in attributes}


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop."""
    # "k, how many …" begins with a symbol of the field, not with a word
    head = text if re.match(r"k,|`", text) else text[:1].upper() + text[1:]
    return head if head.endswith(".") else head + "."


def study_schema() -> Schema:
    """The JSON schema of a study file."""
    schema = Study.model_json_schema(schema_generator=_Generator)
    for node in _nodes(schema):
        node.pop("title", None)
        node.pop("gt", None)  # pydantic's own leftover of a bound behind a validator
        inner = (node, *node.get("anyOf", ()))
        whole = any("$ref" in n or n.get("type") == "object" for n in inner)
        default = node.get("default", {})
        if whole and default is not None and not isinstance(default, str):
            node.pop("default", None)  # a whole section; its keys have theirs
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mixopt study file",
        **schema,
    }


def _nodes(schema: Any) -> Iterator[Schema]:
    """`schema` and every schema inside it; not the properties' names."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key in ("$defs", "properties"):
        for inner in schema.get(key, {}).values():
            yield from _nodes(inner)
    for inner in (
        schema.get("items"),
        schema.get("additionalProperties"),
        *schema.get("anyOf", ()),
    ):
        yield from _nodes(inner)


def schema_text() -> str:
    """What `mixopt/study.schema.json` should hold."""
    return json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"


PAGE_HEAD = """\
<!-- Made by `make schema` from settings.py (mixopt/study), recipe.py (mixopt/core) and config.py
(mixopt/models). -->
# The study file

One YAML file says what is searched, with what, and what is promoted. `mixopt init study.yaml
--corpus corpus` writes a commented one. `name`, `objective` and `corpus` (or, with a `trainer` of
your own, `domains`) must be there; everything else has a default. An unknown key is an error that
names its line.

```yaml
# yaml-language-server: $schema=mixopt/study.schema.json
name: first
corpus: corpus
objective: {exam: 1.0, law: 0.5}
search: {trials: 24, rounds: 3}
```

The first line is for editors: with the path of `study.schema.json` they complete and check keys. It
is installed with mixopt; `python -c "import mixopt; print(mixopt.__path__[0])"` says where.

Token counts may be written `600000`, `6_000`, `600k`, `1.5M`, `20B` or `1e12`.

## What may change

The first run locks all settings that trainings depend on: it keeps them in `study.json` of the
study folder, and a later run with other values is refused and shown the differences. The tables say
of each key whether it may change once a study has begun.

- Proposer, surrogate, batch and number of rounds count for the rounds that were not asked for yet.
  A round that was interrupted goes on as it was asked for. The ledger keeps what each round and
  each verdict used; `mixopt status` and the report show it.
- The objective's weights may change: values are computed anew from the metrics of all trials. Which
  metrics it weighs may change only in a study with `proxy.recipe.evaluation_share: null`, for else
  how much text is evaluated depends on it. MixMin needs the loss of every token, and is refused
  where trials of before it was chosen did not keep that.
- `select` may change. A verdict by other settings, another objective or surrogate, or of more
  trials is another look; `select.looks` is fixed by the first.
- The baseline may change: selection, the KL penalty and the trials that are never pruned follow the
  new one. The initial design and its repeats stay around the one that the study was begun with. A
  verdict against another baseline is another look.
- `search.enqueue` may grow at any time. What the ledger has no trial of runs at the next
  `mixopt run`, before the next round. What ran stays. After a verdict it makes the next one another
  look.
- `select.at` may change: another size is another check of the order, and no other look.
- `search.holdout` may change until the held-out trials are predicted, at the end of the search.
- The corpus may move, as long as its contents stay.
- The tokens of the run that the mixture is for may not change, be they `space.budget` or
  `promote.tokens`: they decide how often a domain repeats.
- Another promotion begins beside the one that was.
"""
# What the tables say of keys of which neither yes nor no is true.
CHANGES = {
    "objective": "weights",
    "corpus": "its place",
    "space.budget": "see above",
    "promote.tokens": "see above",
    "select.looks": "until a verdict",
}


def study_page() -> str:
    """What `docs/study.md` should hold."""
    schema = study_schema()
    parts = [PAGE_HEAD, "## Top level\n", _table(schema, schema, [""])]
    for name, values in schema["properties"].items():
        section = _section(schema, values)
        if section is not None:
            parts += [f"## {name}\n", section["description"] + "\n"]
            parts.append(_table(schema, section, [name]))
    for kind, (title, where) in SHARED.items():
        section = schema["$defs"][kind]
        parts += [
            f"## {title}\n",
            section["description"].replace("\n", " ").replace("  ", "\n\n") + "\n",
            "Held by " + ", ".join(f"`{w}`" for w in where.split(", ")) + ".\n",
            _table(schema, section, where.split(", ")),
        ]
    return "\n".join(parts)


def _section(schema: Schema, values: Schema) -> Schema | None:
    """The section that a top-level key holds; None if it holds a plain value."""
    refs = [v["$ref"] for v in (values, *values.get("anyOf", ())) if "$ref" in v]
    return schema["$defs"][refs[0].rpartition("/")[2]] if refs else None


def _table(schema: Schema, section: Schema, where: Sequence[str]) -> str:
    """The keys of `section`, which stands at `where`, in Markdown, a row each."""
    rows = ["| key | default | takes | may change | meaning |", "|---|---|---|---|---|"]
    for name, values in section["properties"].items():
        required = name in section.get("required", ())
        default = "*required*" if required else _default(values)
        own = values.get("description")
        # a section's description is printed whole where its keys are: here its first sentence
        meaning = own or (_section(schema, values) or {})["description"].split("\n")[0]
        meaning = " ".join(meaning.split()).replace("|", "\\|")
        keys = [f"{place}.{name}".removeprefix(".") for place in where]
        changes = _changes(keys)
        rows.append(f"| `{name}` | {default} | {_takes(values)} | {changes} | {meaning} |")
    return "\n".join(rows) + "\n"


def _changes(keys: Sequence[str]) -> str:
    """Whether the setting at `keys` may change in a study that has begun, in a word or two."""
    free = [key for key in keys if may_change(key)]
    if len(keys) > 1 and free and len(free) < len(keys):
        return "in " + ", ".join(f"`{key.partition('.')[0]}`" for key in free)
    if keys[0] in CHANGES:
        return CHANGES[keys[0]]
    if free:
        return "yes"
    return "see there" if any(key.startswith(f"{keys[0]}.") for key in FREE) else "no"


def _default(values: Schema) -> str:
    if "default" not in values:
        return "`{}`" if values.get("type") == "object" else "see there"
    value = values["default"]
    if _takes(values) == "tokens":
        return f"`{count(value)}`" if parse_tokens(count(value)) == value else f"`{value:_}`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _takes(values: Schema) -> str:
    """What a value may be, in a few words."""
    if values.get("anyOf") == TOKENS["anyOf"]:
        return "tokens"
    if "anyOf" in values:
        return ", ".join(dict.fromkeys(_takes(v) for v in values["anyOf"]))
    if values.get("pattern") == OWN_PATTERN:
        return "`package.module:Name`"
    if "const" in values:
        return f"`{values['const']}`"
    if "enum" in values:
        return ", ".join(f"`{v}`" for v in values["enum"])
    if "$ref" in values.get("items", {}):
        return f"list of {_takes(values['items'])}"
    if "$ref" in values:
        kind = values["$ref"].rpartition("/")[2]
        title = SHARED.get(kind, (kind.lower(), ""))[0]
        return f"[{title.lower()}](#{title.lower().replace(' ', '-').replace(chr(39), '')})"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true, false",
        "null": "null",
        "object": "name: value, …",
        "array": "list",
    }
    limits = {
        "minimum": "≥ {}",
        "exclusiveMinimum": "> {}",
        "maximum": "≤ {}",
        "exclusiveMaximum": "< {}",
    }
    bounds = [bound.format(f"{values[key]:g}") for key, bound in limits.items() if key in values]
    return " ".join([words[values["type"]], ", ".join(bounds)]).strip()


def main() -> None:
    """Write both files."""
    SCHEMA_FILE.write_text(schema_text())
    PAGE_FILE.write_text(study_page())
    print(f"wrote {SCHEMA_FILE.name} and {PAGE_FILE.name}")
