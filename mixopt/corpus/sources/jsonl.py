"""JSON lines, plain or compressed: one object a line, its text in one field."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from mixopt.core.errors import CorpusError
from mixopt.corpus.files import InputFile, lines
from mixopt.corpus.sources.base import Document, OnBroken, Source, decode

SKIP = "Correct the line, or leave such out with `on_error: skip`"


class JsonLines(Source):
    """Documents from `.jsonl`, `.jsonl.gz` or `.jsonl.zst`; blank lines are passed over."""

    def documents(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        """One document a line; a broken line is named by file and number."""
        with self.open(file) as raw:
            for number, line in enumerate(lines(raw, file.url), start=1):
                where = f"{file.url}:{number}"
                content = line.removeprefix(codecs.BOM_UTF8).strip()
                if not content:
                    continue
                if number == 1:
                    _check_no_array(content, file.url)
                try:
                    text = self._text(line, where)
                except CorpusError as error:
                    on_broken(error)
                else:
                    yield text

    def _text(self, line: bytes, where: str) -> str:
        try:
            record = json.loads(decode(line, where))
        except json.JSONDecodeError as error:
            what = f"is not JSON: {error.msg} at column {error.colno}"
            raise CorpusError(what, where=where, hint=SKIP) from None
        except RecursionError:
            raise CorpusError("is nested too deeply", where=where, hint=SKIP) from None
        if not isinstance(record, dict):
            raise CorpusError("is no JSON object", where=where, hint=SKIP)
        if self.text not in record:
            known = ", ".join(map(repr, list(record)[:8])) or "none"
            raise CorpusError(
                f"has no field {self.text!r}",
                where=where,
                hint=f"Set `text:` to the field with the text; this line has {known}",
            )
        text = record[self.text]
        if not isinstance(text, str):
            what = f"field {self.text!r} holds {type(text).__name__}, not text"
            raise CorpusError(what, where=where, hint=SKIP)
        if b"\\u" in line:  # only an escape can smuggle in half a character
            try:
                text.encode()
            except UnicodeEncodeError as error:
                what = f"holds half a character (a lone surrogate) at {error.start}"
                raise CorpusError(what, where=where, hint=SKIP) from None
        return text


def _check_no_array(first: bytes, url: str) -> None:
    """Raises where a file's first line begins an array of objects: its lines are no documents."""
    if first == b"[" or re.match(rb"\[\s*[\[{]", first):
        raise CorpusError(
            "is one JSON array, not one JSON object a line",
            where=url,
            hint="Convert the file: `jq -c '.[]' FILE.json > FILE.jsonl`",
        )
