"""A mixture as JSON and as CSV, for whoever reads neither of the other formats."""

from __future__ import annotations

import json

import polars as pl

from mixopt.io.csv_files import csv_bytes
from mixopt.study.mixture_formats.base import Blend, MixtureFormat


class Json(MixtureFormat):
    """One object: the study, the budget, and per domain weight, tokens and epochs."""

    def text(self, blend: Blend) -> str:
        """The object, indented."""
        values = {
            "study": blend.study,
            "candidate": blend.candidate,
            "budget_tokens": blend.budget,
            "corpus_hash": blend.corpus,
            "domains": {
                d.name: {
                    "weight": d.weight,
                    "tokens": d.tokens,
                    "available_tokens": d.available,
                    "epochs": d.epochs,
                }
                for d in blend.domains
            },
        }
        return json.dumps(values, indent=2) + "\n"


class Csv(MixtureFormat):
    """A row per domain: `domain`, `weight`, `tokens`, `available_tokens`, `epochs`."""

    def text(self, blend: Blend) -> str:
        """The table with a header."""
        frame = pl.DataFrame(
            {
                "domain": [d.name for d in blend.domains],
                "weight": [d.weight for d in blend.domains],
                "tokens": [d.tokens for d in blend.domains],
                "available_tokens": [d.available for d in blend.domains],
                "epochs": [d.epochs for d in blend.domains],
            }
        )
        return csv_bytes(frame).decode()
