"""Memory that a step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
import sys

# glibc's names for them in malloc.h, and the largest value it takes for the second
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, LARGEST_REUSED = 1 << 30, 1 << 25


def keep_freed_memory() -> bool:
    """Ask the C library to reuse freed blocks instead of giving them back; whether it will.

    Otherwise the tensors of each step are fresh pages that the system fills with zeros first, 5 to
    10 % of a small model's step. For the rest of the process; without effect where the C library
    is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and mallopt(M_MMAP_THRESHOLD, LARGEST_REUSED))
