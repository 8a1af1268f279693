"""How a table writes numbers: decimal mark, groups of thousands, percent signs, missing values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

MISSING = frozenset(
    {
        *("", "nan", "na", "n/a", "n.a.", "null", "none", "nil", "<na>", "-", "--", "–", "—"),
        *("#n/a", "#div/0!", "#value!", "#num!", "#ref!", "#name?", "#null!"),  # a spreadsheet's
    }
)
PERCENT = re.compile(r"(.*\d[.,]?)\s*%")
SPACES = " '’\u00a0\u2009\u202f"  # between thousands, whatever the decimal mark is
OTHER = {".": ",", ",": "."}


@dataclass(frozen=True)
class Numerals:
    """The way in which one table writes numbers.

    Attributes:
        decimal: what separates decimals, `.` or `,`.
        grouped: whether the other mark is known to separate thousands: a cell such as `1,234.5` or
            `1,234,567` can be read no other way.
    """

    decimal: str = "."
    grouped: bool = False

    @classmethod
    def of(cls, texts: Iterable[str], delimiter: str) -> Numerals:
        """The numerals of a table's cells, which `delimiter` separates.

        A comma separates decimals where a cell can be read no other way; between cells that commas
        do not separate also where all could be thousands, for so such tables are written.
        """
        digits = [_digits(text) for text in texts]
        if not any("," in text for text in digits):  # most tables: a point, and no groups
            return cls()
        point = any(_is_decimal(text, ".") for text in digits)
        comma = any(_is_decimal(text, ",") for text in digits)
        unclear = any(_is_group(text, ",") for text in digits)
        if delimiter == ",":
            decimal = "," if comma and not point else "."
        else:
            decimal = "," if comma or (unclear and not point) else "."
        proven = any(_is_grouped(text, decimal) for text in digits)
        return cls(decimal, proven or (decimal == "." and point))

    def value(self, text: str) -> float:
        """`text` as a number; NaN if it is not one."""
        if self.decimal == "." and not math.isnan(number := _float(text)):
            return number  # nearly always
        digits = _digits(text)
        if _grouping(self.decimal, SPACES + OTHER[self.decimal]).fullmatch(digits):
            digits = re.sub(rf"[{SPACES}{OTHER[self.decimal]}]", "", digits)
        number = _float(digits.replace(",", ".") if self.decimal == "," else digits)
        return number / 100 if PERCENT.fullmatch(text) else number

    def is_unclear(self, text: str) -> bool:
        """Whether `text` may be a thousand times another number, such as `1,234`."""
        mark = OTHER[self.decimal]
        return not self.grouped and mark in text and _is_group(_digits(text), mark)


def is_missing(text: str) -> bool:
    """Whether a cell is empty or a mark of a missing value, such as `n/a`."""
    return text.lower() in MISSING


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _digits(text: str) -> str:
    percent = PERCENT.fullmatch(text) if "%" in text else None
    return percent[1] if percent else text


def _is_group(digits: str, mark: str) -> bool:
    """`1,234`: a group of thousands, or three decimals."""
    return bool(re.fullmatch(rf"[-+]?[1-9]\d{{0,2}}[{mark}]\d{{3}}", digits))


def _is_decimal(digits: str, mark: str) -> bool:
    """`0,5`, `12,34`, `3,6165`: decimals, and no thousands. `1.234,5` too."""
    plain = re.fullmatch(rf"[-+]?\d+[{mark}]\d+(?:[eE][-+]?\d+)?", digits)
    grouped = _grouping(mark, SPACES + OTHER[mark]).fullmatch(digits)
    return bool(plain and not _is_group(digits, mark)) or bool(grouped and mark in digits)


def _is_grouped(digits: str, decimal: str) -> bool:
    """`1,234.5` or `1,234,567`, of which the other mark than `decimal` separates thousands."""
    other = OTHER[decimal]
    return bool(
        _grouping(decimal, other).fullmatch(digits)
        and (decimal in digits or digits.count(other) > 1)
    )


def _grouping(decimal: str, marks: str) -> re.Pattern[str]:
    """Digits in groups of three, one and the same of `marks` between them."""
    return re.compile(rf"[-+]?[1-9]\d{{0,2}}([{marks}])\d{{3}}(?:\1\d{{3}})*(?:[{decimal}]\d*)?")
