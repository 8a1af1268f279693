"""The `data` section of Levanter, which marin uses too (marin-levanter 0.2.20)."""

from __future__ import annotations

from mixopt.study.mixture_formats.base import Blend, MixtureFormat, yaml_text


class Levanter(MixtureFormat):
    """`LmDataConfig`: a component per domain and `train_weights` of sequences of one length."""

    path_is = "the file or glob of the domain's training text (train_urls)"

    def text(self, blend: Blend) -> str:
        """The section; `tokenizer` and `cache_dir` are for the user to add."""
        components = {
            d.name: {"source": {"type": "url", "train_urls": [d.path_or_placeholder]}}
            for d in blend.used
        }
        weights = {d.name: d.weight for d in blend.used}
        data = {"components": components, "train_weights": weights}
        return blend.comment() + yaml_text({"data": data})
