"""An interleaved dataloader of torchtitan, which is configured in Python (torchtitan 0.3.0)."""

from __future__ import annotations

from mixopt.study.mixture_formats.base import Blend, MixtureFormat

MODULE = "torchtitan.hf_datasets.text_datasets"


class Torchtitan(MixtureFormat):
    """`InterleavedHuggingFaceTextDataLoader.Config`; its sources are packed: weights are of tokens.

    torchtitan knows datasets by names in lower case that its `DATASETS` lists.
    """

    path_is = "what the loader of the domain's entry in torchtitan's DATASETS reads"

    def text(self, blend: Blend) -> str:
        """Python that defines `dataloader`."""
        sources = "".join(
            f"        HFDataSource(dataset={d.name.lower()!r}, "
            f"dataset_path={d.path_or_placeholder!r}, weight={d.weight!r}),\n"
            for d in blend.used
        )
        return (
            f"{blend.comment()}"
            f"# Every dataset needs an entry in {MODULE}.DATASETS.\n"
            f"from {MODULE} import (\n"
            "    HFDataSource,\n"
            "    InterleavedHuggingFaceTextDataLoader,\n"
            ")\n\n"
            "dataloader = InterleavedHuggingFaceTextDataLoader.Config(\n"
            f"    sources=[\n{sources}    ],\n"
            f"    seed={blend.seed},\n"
            ")\n"
        )
