"""Parquet: one document a row, its text in one column, read a few row groups' pages at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mixopt.core.errors import CorpusError
from mixopt.corpus.files import InputFile
from mixopt.corpus.sources.base import Document, OnBroken, Source, decode

ROWS = 256  # rows in memory at once
TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,  # text whose writer did not call it so
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


class Parquet(Source):
    """Documents from a column of `.parquet` files that holds text, or its UTF-8 bytes."""

    def documents(self, file: InputFile, on_broken: OnBroken) -> Iterator[Document]:
        """One document a row; one that is absent (null) or not UTF-8 is named by file and row.

        Where a row group cannot be read, each of its rows that did not come is broken.
        """
        with self.open(file) as raw:
            try:
                table = pq.ParquetFile(pa.PythonFile(raw, mode="r"))
            except (pa.ArrowException, OSError) as error:
                raise CorpusError(
                    f"is not Parquet: {error}", where=file.url, hint="Fetch or write it again"
                ) from error
            self._check_column(table.schema_arrow, file.url)
            row = 0
            for group in range(table.num_row_groups):
                end = row + table.metadata.row_group(group).num_rows
                try:
                    for batch in table.iter_batches(ROWS, [group], [self.text]):
                        for value in _values(batch.column(0)):
                            row += 1
                            yield from _document(value, f"{file.url}:{row}", on_broken)
                except (pa.ArrowException, OSError) as error:
                    for lost in range(row + 1, end + 1):
                        on_broken(_unreadable(error, f"{file.url}:{lost}", row + 1, end))
                row = end

    def _check_column(self, schema: pa.Schema, url: str) -> None:
        if self.text not in schema.names:
            raise CorpusError(
                f"has no column {self.text!r}",
                where=url,
                hint=f"Set `text:` to one of {', '.join(schema.names)}",
            )
        kind = schema.field(self.text).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_kind(value) for is_kind in TEXT):
            raise CorpusError(
                f"column {self.text!r} holds {kind}, not text",
                where=url,
                hint="Set `text:` to the column with the text",
            )


def _values(column: pa.Array) -> list[bytes | None]:
    """The column's bytes: to text they go one by one, as one bad value would cost its batch."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return values


def _document(value: bytes | None, where: str, on_broken: OnBroken) -> Iterator[str]:
    try:
        if value is None:
            raise CorpusError(
                "holds no text", where=where, hint="Leave such rows out with `on_error: skip`"
            )
        text = decode(value, where)
    except CorpusError as error:
        on_broken(error)
    else:
        yield text


def _unreadable(error: Exception, where: str, first: int, last: int) -> CorpusError:
    return CorpusError(
        f"cannot be read, nor can any of the rows {first:,} to {last:,}: {error}",
        where=where,
        hint="Fetch or write the file again, or leave the rows out with `on_error: skip`",
    )
