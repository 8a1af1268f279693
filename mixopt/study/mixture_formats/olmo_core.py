"""A source mixture of OLMo-core: `SourceMixtureList` as YAML (ai2-olmo-core 3.0.0)."""

from __future__ import annotations

import math

from mixopt.study.mixture_formats.base import Blend, MixtureFormat, yaml_text


class OlmoCore(MixtureFormat):
    """The list of sources with their target ratios of the tokens.

    OLMo-core reads token files without a header, as the corpus has them: where no other path is
    given, a source is the corpus' own file, if the study has a corpus.
    """

    def text(self, blend: Blend) -> str:
        """The sources, with what `SourceMixtureDatasetConfig` asks for besides as a comment."""
        comment = (
            f"# SourceMixtureDatasetConfig(source_list=…, requested_tokens={blend.budget}, …)\n"
        )
        if blend.dtype:
            comment += (
                f"# The corpus' own files hold {blend.dtype} tokens of the corpus' tokenizer.\n"
            )
        sources = [
            {
                "source_name": d.name,
                "target_ratio": d.weight,
                "paths": [d.path or d.shard or d.path_or_placeholder],
                # up, or the tokens asked for would not be there
                "max_repetition_ratio": max(1.0, math.ceil(d.epochs * 100) / 100),
            }
            for d in blend.used
        ]
        return blend.comment() + comment + yaml_text({"sources": sources})
