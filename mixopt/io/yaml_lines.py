"""YAML files read into pydantic models, with errors that name the line and the fix."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from mixopt.core.errors import MixoptError, StudyError
from mixopt.io.plain_words import plain_words

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's types of errors
M = TypeVar("M", bound=pydantic.BaseModel)
Place = tuple[str | int, ...]  # keys and list indices from the top, as in pydantic's `loc`


class _Loader(yaml.SafeLoader):
    """Safe loading, with the two traps of YAML 1.1 closed: `no` is text, `3e-4` is a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load(path: str | Path, model: type[M], error: type[MixoptError] = StudyError) -> M:
    """The YAML file at `path` as a validated `model`.

    Args:
        path: the file.
        model: what it should hold; the top of the file is its fields.
        error: the class of the errors raised.

    Raises:
        MixoptError: of class `error`: the file cannot be read, is not YAML, names a key twice, or
            does not fit the model; `where` is `file.yaml:line: key` of the first thing wrong.
    """
    return Document(path, error).validate(model)


def place_in(path: Path, key: str, overrides: Sequence[str] = ()) -> str:
    """`file.yaml:line: key` of a dotted key; without a line where there is no such file.

    For what is found wrong after the file was read with `overrides`.
    """
    if not path.exists():
        return f"{path}: {key}"
    document = overridden(path, overrides)
    place: Place = ()
    for part in key.split("."):
        numbered = (*place, int(part)) if part.isdigit() else ()
        place = numbered if numbered in document._lines and numbered else (*place, part)
    return document.where(place)


def overridden(path: Path, overrides: Sequence[str]) -> Document:
    """The file at `path` with `overrides`; raises as `Document` and `Document.override`."""
    document = Document(path)
    for text in overrides:
        document.override(text)
    return document


class Document:
    """A YAML file with the line of every key: for checks that come after `validate`.

    Attributes:
        values: its contents as plain Python.
    """

    def __init__(self, path: str | Path, error: type[MixoptError] = StudyError) -> None:
        self.path, self._error = str(path), error
        self._lines: dict[Place, int] = {(): 1}
        self._overrides: dict[Place, str] = {}
        try:
            loader = _Loader(Path(path).read_bytes())
            node = loader.get_single_node()
            if node is not None:
                self._walk(node, ())
            self.values: Any = {} if node is None else loader.construct_document(node)
        except MixoptError:  # StudyError is a ValueError too
            raise
        except OSError as problem:
            raise error(f"cannot be read: {problem.strerror}", where=self.path) from None
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            where = f"{self.path}:{mark.line + 1}" if mark else self.path
            raise error(
                f"is not YAML: {problem.problem or problem.context}",
                where=where,
                hint="Look at the indentation, colons and quotes on this line and the one above",
            ) from None
        except (yaml.YAMLError, ValueError) as problem:  # ValueError: a date that is none
            raise error(f"is not YAML: {problem}", where=self.path) from None

    def override(self, text: str) -> None:
        """Set a key as `--set` asks for: `text` is `key=value`, the value as YAML writes it.

        Keys of sections are joined by dots; sections that are not there are made. Errors about what
        was set name the override in place of a line.

        Raises:
            MixoptError: (as of the constructor) it is no `key=value`, its value is not YAML, or a
                part of the key is no section.
        """
        name, equals, written = text.partition("=")
        place, where = tuple(name.split(".")), f"--set {text}"
        if not equals or not all(place):
            raise self._error("is no KEY=VALUE", where=where, hint="Write --set search.rounds=3")
        try:
            loader = _Loader(written)
            node = loader.get_single_node()
            value = None if node is None else loader.construct_document(node)
        except (yaml.YAMLError, ValueError):
            raise self._error(
                f"{written!r} is not YAML", where=where, hint="Put quotes around texts"
            ) from None
        section = self.values
        if not isinstance(section, dict):
            return  # no study file: `validate` says so
        for depth, part in enumerate(place[:-1], 1):
            if section.get(part) is None:
                section[part] = {}
                self._lines[place[:depth]] = 0
            if isinstance(section[part], dict):  # a copy: an alias of it elsewhere stays as it is
                section[part] = dict(section[part])
            section = section[part]
            if not isinstance(section, dict):
                raise self._error(
                    f"{'.'.join(place[:depth])} is no section in {self.path}, it is {section!r}",
                    where=where,
                    hint=f"Write --set '{'.'.join(place[:depth])}={{{place[depth]}: …}}'",
                )
        section[place[-1]] = value
        for known in [known for known in self._lines if known[: len(place)] == place]:
            del self._lines[known]
        self._lines[place] = 0
        self._overrides[place] = text
        if node is not None:
            self._walk(node, place)

    def where(self, place: Place = ()) -> str:
        """`file.yaml:line: key` of the deepest part of `place` that the file has."""
        known = tuple(self._known(place))
        key = ".".join(map(str, place))
        for depth in range(len(known), 0, -1):
            if known[:depth] in self._overrides:
                return f"--set {self._overrides[known[:depth]]}: {key}"
        head = f"{self.path}:{self._lines[known]}"
        return f"{head}: {key}" if key else head

    def validate(self, model: type[M]) -> M:
        """The values as a `model`; raises as `load` does."""
        try:
            return model.model_validate(self.values)
        except pydantic.ValidationError as problem:
            found = problem.errors(include_url=False)
            first = min(found, key=lambda e: self._order(e, model))
            raise self._translate(first, model, len(found) - 1) from None
        except MixoptError as problem:  # a class of ours, used as a field, refused its values
            place = self._place_of(problem.where)
            where = self.where(place) if place else f"{self.path}: {problem.where}"
            raise self._error(problem.what, where=where, hint=problem.hint) from None

    def _order(self, found: Mapping[str, Any], model: type[M]) -> tuple[bool, int]:
        """Unknown keys come first: what else is wrong may follow from them. Then by line."""
        loc: Place = found["loc"]
        unknown = found["type"] in UNKNOWN and loc[-1] not in _keys_at(model, loc[:-1])
        return not unknown, self._lines[tuple(self._known(loc))]

    def _walk(self, node: yaml.Node, place: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                key = getattr(key_node, "value", "")
                if not isinstance(key, str) or key == "<<":  # a merge is no key of its own
                    continue
                if (*place, key) in self._lines:
                    first = self._lines[(*place, key)]
                    raise self._error(
                        "the key is there twice",
                        where=f"{self.path}:{line}: {'.'.join(map(str, (*place, key)))}",
                        hint=f"Rename or remove this one or the one on line {first}",
                    )
                self._lines[(*place, key)] = line
                self._walk(value_node, (*place, key))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._lines[(*place, index)] = item.start_mark.line + 1
                self._walk(item, (*place, index))

    def _known(self, place: Place) -> Iterator[str | int]:
        """The parts of a pydantic `loc` that are in the file: union tags drop out."""
        known: Place = ()
        for part in place:
            part = part if isinstance(part, int) else str(part)
            if (*known, part) in self._lines:
                known = (*known, part)
                yield part

    def _place_of(self, key: str) -> Place:
        """The only place whose last key is that of `key`, if there is just one."""
        last = key.rsplit(".", 1)[-1]
        places = [place for place in self._lines if place and place[-1] == last]
        return places[0] if len(places) == 1 else ()

    def _translate(self, found: Mapping[str, Any], model: type[M], others: int) -> MixoptError:
        loc: Place = found["loc"]
        place = tuple(self._known(loc))
        hint = ""
        if found["type"] in UNKNOWN:
            what = "there is no such key"
            known = _keys_at(model, loc[:-1])
            near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]!r}?" if near else f"Choose from {', '.join(known)}"
        elif found["type"] == "missing":
            what, place, hint = "is missing", (*place, loc[-1]), "Add it"
        elif isinstance(ours := found.get("ctx", {}).get("error"), MixoptError):
            what, hint = ours.what, ours.hint
            inside = (*place, *ours.where.split(".")) if ours.where else place
            if inside in self._lines:
                place = inside
            elif ours.where:
                what = f"{ours.where}: {what}"
        elif isinstance(ours, ValueError):
            what = str(ours).rstrip(".")
        elif found["type"] in ("model_type", "dict_type"):
            known = _keys_at(model, loc)
            what = f"keys with values belong here, it is {found['input']!r}"
            hint = f"Write {{{known[0]}: …}}; keys are {', '.join(known)}" if known else ""
        else:
            what = plain_words(found["type"], str(found["msg"]), found.get("ctx", {}))
            if not isinstance(found["input"], dict | list):
                what += f", it is {found['input']!r}"
            if found["type"] == "finite_number" and found["input"] == math.inf:
                hint = "For no limit, write null where the key allows it"
        if others:
            what += f" (and {others} more problem{'s' * (others > 1)})"
        return self._error(what, where=self.where(place), hint=hint)


class Values(Document):
    """Settings given in Python, checked as those of a file are: errors name keys, not lines.

    Args:
        values: as a file would hold them.
        name: what errors begin with, where those of a file name it.
    """

    def __init__(
        self, values: Mapping[str, Any], name: str, error: type[MixoptError] = StudyError
    ) -> None:
        self.path, self.values, self._error = name, values, error
        self._lines, self._overrides = {(): 0}, {}
        self._number(values, ())

    def where(self, place: Place = ()) -> str:
        """`name: key` of the deepest part of `place`."""
        return f"{self.path}: {'.'.join(map(str, place))}" if place else self.path

    def _number(self, values: Any, place: Place) -> None:
        """Number all keys in their order, so that the first problem is reported."""
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(values, Mapping):
            items = values.items()
        elif isinstance(values, list | tuple):
            items = enumerate(values)
        for key, value in items:
            self._lines[(*place, key)] = len(self._lines)
            self._number(value, (*place, key))


def _keys_at(model: type[pydantic.BaseModel], place: Place) -> list[str]:
    """Names of the fields that `model` has at `place`, from its JSON schema."""
    schema = model.model_json_schema()
    here = list(_alternatives(schema, schema))
    for part in place:
        there: list[dict[str, Any]] = []
        for option in here:
            found = option.get("properties", {}).get(part) or option.get(
                "items" if isinstance(part, int) else "additionalProperties"
            )
            if isinstance(found, dict):
                there.extend(_alternatives(found, schema))
        here = there or here  # a union's tag is no key: stay
    return sorted({name for option in here for name in option.get("properties", {})})


def _alternatives(part: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object schemas that `part` may be: references followed, unions opened."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]]
    yield part
    for union in ("anyOf", "oneOf", "allOf"):
        for option in part.get(union, []):
            yield from _alternatives(option, schema)
