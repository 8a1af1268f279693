"""The interval of a normal distribution that mixopt reports."""

from __future__ import annotations

NORMAL_90 = 1.6449  # standard deviations to either side of the mean that hold 90 %
