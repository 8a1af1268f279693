"""A mixture in the formats of other trainers: one file a format; see `base`."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS: Mapping[str, str] = {
    "csv": "mixopt.study.mixture_formats.plain:Csv",
    "datasets": "mixopt.study.mixture_formats.datasets:InterleaveDatasets",
    "json": "mixopt.study.mixture_formats.plain:Json",
    "levanter": "mixopt.study.mixture_formats.levanter:Levanter",
    "megatron": "mixopt.study.mixture_formats.megatron:Megatron",
    "mosaicml": "mixopt.study.mixture_formats.mosaicml:MosaicStreams",
    "olmo-core": "mixopt.study.mixture_formats.olmo_core:OlmoCore",
    "torchtitan": "mixopt.study.mixture_formats.torchtitan:Torchtitan",
}
