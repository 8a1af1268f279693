"""Numbers as people read them: the one place where counts and errors become text."""

from __future__ import annotations

import math
from collections.abc import Iterable

SIZES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float, digits: int = 3) -> str:
    """A count of tokens, parameters or FLOPs in short.

    Args:
        value: the count.
        digits: significant ones to show, from 1,000 on.

    >>> count(600), count(1_500_000), count(20e9)
    ('600', '1.5M', '20B')
    >>> count(999_950), count(12_345_678, digits=4)
    ('1M', '12.35M')
    """
    rounded = float(f"{value:.{digits}g}")
    for size, suffix in SIZES:
        if abs(rounded) >= size:
            return f"{rounded / size:.{digits}g}{suffix}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """A duration in short.

    >>> duration(4.25), duration(42), duration(210), duration(7560)
    ('4.2 s', '42 s', '3.5 min', '2.1 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def bytes_text(size: float) -> str:
    """Bytes of memory or disk.

    >>> bytes_text(2_470_000_000), bytes_text(156_776)
    ('2.47 GB', '0.157 MB')
    """
    unit, name = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
    return f"{size / unit:,.3g} {name}"


def signed(value: float, decimals: int = 4) -> str:
    """A difference with its sign: a true minus, as wide as a plus.

    >>> signed(-0.24109), signed(0.5, 1)
    ('−0.2411', '+0.5')
    """
    return f"{value:+.{decimals}f}".replace("-", "−")


def p_text(p: float, digits: int = 3) -> str:
    """A p-value to `digits` digits; `< 0.001` below that, for it is never 0.

    >>> p_text(0.0054612), p_text(0.0), p_text(0.04004, digits=4)
    ('0.00546', '< 0.001', '0.04004')
    """
    return "< 0.001" if p < 1e-3 else f"{p:.{digits}g}"


def flops(value: float) -> str:
    """A number of floating-point operations, as papers write it.

    >>> flops(7.813e12), flops(0)
    ('7.8e12 FLOPs', '0 FLOPs')
    """
    if not value:
        return "0 FLOPs"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)} FLOPs"


def plus_minus(value: float, half_width: float, decimals: int = 4) -> str:
    """A value and half the width of its interval, with as many decimals.

    >>> plus_minus(2.71828, 0.01)
    '2.7183 ± 0.0100'
    """
    return f"{value:.{decimals}f} ± {half_width:.{decimals}f}"


def with_error(value: float, error: float) -> str:
    """A value and its standard error, to the error's second digit.

    Returns:
        A dash where there is no value, the value to four digits where there is no error.

    >>> with_error(2.71828, 0.0123), with_error(2.71828, math.nan), with_error(math.nan, 0.1)
    ('2.718 ± 0.012', '2.718', '–')
    """
    if not math.isfinite(value):
        return "–"
    if not math.isfinite(error):
        return f"{value:.4g}"
    if error == 0:
        return f"{value:.4g} ± 0"
    return plus_minus(value, error, max(0, 1 - math.floor(math.log10(error))))


def numbered(names: Iterable[str]) -> list[str]:
    """`names`, those that several have with a number each.

    >>> numbered(["law", "seed", "seed"])
    ['law', 'seed 1', 'seed 2']
    """
    names = list(names)
    return [
        f"{name} {names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]
