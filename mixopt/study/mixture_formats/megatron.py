"""A data blend of Megatron-LM and NeMo: weights and path prefixes in turn (megatron-core 0.16.1).

    pretrain_gpt.py --data-args-path blend.txt …

NeMo's `PreTrainingDataModule(paths=…)` takes the same words as a list.
"""

from __future__ import annotations

from mixopt.core.errors import StudyError
from mixopt.study.mixture_formats.base import Blend, MixtureFormat


class Megatron(MixtureFormat):
    """A line per domain: its weight and the prefix of its files.

    Megatron draws sequences of one length, so weights of sequences are weights of tokens. It splits
    the file at white space, so there is no comment in it.
    """

    path_is = "the prefix of the .bin and .idx files that Megatron's preprocess_data.py writes"

    def text(self, blend: Blend) -> str:
        """The lines.

        Raises:
            StudyError: a path has white space, at which Megatron would cut it.
        """
        for domain in blend.used:
            if len(domain.path_or_placeholder.split()) != 1:
                raise StudyError(
                    "a path in Megatron's blend holds no white space",
                    where=f"{domain.name}={domain.path}",
                    hint="Link it under another name",
                )
        return "".join(f"{d.weight!r} {d.path_or_placeholder}\n" for d in blend.used)
