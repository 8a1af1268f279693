"""Parquet: one document a row, its text in one column, read a few row groups' pages at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mixopt.corpus.files import InputFile
from mixopt.corpus.sources.base import Document, OnBroken, Source
from mixopt.errors import CorpusError

ROWS = 256  # rows in memory at once


class Parquet(Source):
    """Documents from a text column of `.parquet` files."""

    def documents(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        """One document a row; an absent (null) text is named by file and row."""
        with self.open(file) as raw:
            try:
                table = pq.ParquetFile(pa.PythonFile(raw, mode="r"))
            except (pa.ArrowException, OSError) as error:
                raise CorpusError(
                    f"is not Parquet: {error}", where=file.url, mend="Fetch or write it again"
                ) from error
            self._check_column(table.schema_arrow, file.url)
            row = 0
            try:
                for batch in table.iter_batches(batch_size=ROWS, columns=[self.text]):
                    for value in batch.column(0).to_pylist():
                        row += 1
                        if value is None:
                            on_broken(CorpusError("holds no text", where=f"{file.url}:{row}"))
                        else:
                            yield value
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise CorpusError(
                    f"cannot be read on: {error}",
                    where=f"{file.url}:{row + 1}",
                    mend="Fetch or write it again",
                ) from error

    def _check_column(self, schema: pa.Schema, url: str) -> None:
        if self.text not in schema.names:
            raise CorpusError(
                f"has no column {self.text!r}",
                where=url,
                mend=f"Set `text:` to one of {', '.join(schema.names)}",
            )
        kind = schema.field(self.text).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(value) or pa.types.is_large_string(value) or _is_view(value)):
            raise CorpusError(
                f"column {self.text!r} holds {kind}, not text",
                where=url,
                mend="Set `text:` to the column with the text",
            )


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind))
