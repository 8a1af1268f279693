"""Streams of MosaicML Streaming and LLM Foundry as YAML (mosaicml-streaming 0.13.0).

    StreamingDataset(streams=[Stream(**stream) for stream in values["streams"].values()], …)

LLM Foundry reads the same under `train_loader.dataset.streams`.
"""

from __future__ import annotations

from mixopt.study.mixture_formats.base import Blend, MixtureFormat, yaml_text


class MosaicStreams(MixtureFormat):
    """The arguments of a `Stream` per domain: where it is, and its proportion of the samples."""

    path_is = "the folder or URL of the domain's MDS shards, of samples of one length"

    def text(self, blend: Blend) -> str:
        """The streams by name; a URL is `remote`, a folder `local`."""
        comment = (
            "# Proportions are of samples: equal to the weights if all samples have one length.\n"
            f"# epoch_size: {blend.budget} / tokens per sample\n"
        )
        streams = {
            d.name: {
                "remote" if "://" in d.path_or_placeholder else "local": d.path_or_placeholder,
                "proportion": d.weight,
            }
            for d in blend.used
        }
        return blend.comment() + comment + yaml_text({"streams": streams})
