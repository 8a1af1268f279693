"""Sources of documents, one file a format. A user's own is `package.module:Name`."""

from mixopt.corpus.sources.base import Document, OnBroken, Source, find_source, infer_source

__all__ = ["Document", "OnBroken", "Source", "find_source", "infer_source"]
