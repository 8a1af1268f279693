"""The sources file: what `mixopt corpus build` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mixopt.core.errors import CorpusError
from mixopt.corpus.manifest import NAME
from mixopt.io import yaml_lines


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TokenizerSettings(_Settings):
    """A byte-level BPE trained on the corpus, or a `tokenizer.json` that exists.

    Attributes:
        vocabulary: tokens of the trained tokenizer, end-of-text included.
        sample_megabytes: text per domain that it is trained on.
        file: a `tokenizer.json` to use instead; relative to the sources file.
        end_of_text: the token of `file` that closes a document; found by its usual names if
            not given.
    """

    vocabulary: Annotated[int, Field(ge=257, le=1 << 20)] = 32_768
    sample_megabytes: Annotated[float, Field(gt=0)] = 10.0
    file: Path | None = None
    end_of_text: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizerSettings:
        if self.file and self.model_fields_set & {"vocabulary", "sample_megabytes"}:
            raise ValueError("a given `file` is not trained: leave out its training settings")
        return self


class DomainSettings(_Settings):
    """Where a domain's text is.

    Attributes:
        files: paths, globs, folders or fsspec URLs; one or a list; relative to the sources file.
        source: format (`jsonl`, `parquet`, `text`, `tokens`, `package.module:Name`); found by the
            files' endings if not given.
        text: field or column that holds the text.
        on_error: what a broken document does: `stop` the build, or be counted and `skip`ped.
        target: validation only: nothing of it, nor a document equal to one of it, is trained on.
        options: further settings of the source.
    """

    files: list[str]
    source: str | None = None
    text: str = "text"
    on_error: Literal["stop", "skip"] = "stop"
    target: bool = False
    options: dict[str, Any] = {}

    @field_validator("files", mode="before")
    @classmethod
    def _listed(cls, files: object) -> object:
        return [files] if isinstance(files, str) else files


class SourcesFile(_Settings):
    """A whole sources file.

    Attributes:
        domains: name → where its text is; the order is the corpus' order.
        tokenizer: how text becomes tokens.
        validation: share of every training domain's documents that is held out.
    """

    domains: Annotated[dict[str, DomainSettings], Field(min_length=1)]
    tokenizer: TokenizerSettings = TokenizerSettings()
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.05

    @field_validator("domains")
    @classmethod
    def _named_for_files(cls, domains: dict[str, DomainSettings]) -> dict[str, DomainSettings]:
        for name in domains:
            if not NAME.fullmatch(name):
                raise ValueError(f"domain {name!r} may hold only letters, digits and . _ -")
        if all(domain.target for domain in domains.values()):
            raise ValueError("every domain is a target: there is nothing to train on")
        return domains


def load_sources(path: Path) -> SourcesFile:
    """The sources file at `path`.

    Raises:
        CorpusError: naming the line and what to do.
    """
    return yaml_lines.load(path, SourcesFile, CorpusError)
