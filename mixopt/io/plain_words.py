"""What pydantic says of a value that does not fit, in the words of a YAML file's reader."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

WHOLE, NUMBER, TEXT = "must be a whole number", "must be a number", "must be text"
TRUTH, LIST, KEYS = "must be true or false", "must be a list: [a, b]", "must have keys with values"
# pydantic's types of errors → what is said of the value; {…} are values of the error's context
WORDS = {
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_parsing_size": "is too large a number",
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": TRUTH,
    "bool_parsing": TRUTH,
    "string_type": TEXT,
    "string_unicode": TEXT,
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "list_type": LIST,
    "tuple_type": LIST,
    "set_type": LIST,
    "iterable_type": LIST,
    "too_short": "must have at least {min_length} of them, has {actual_length}",
    "too_long": "must have at most {max_length} of them, has {actual_length}",
    "dict_type": KEYS,
    "mapping_type": KEYS,
    "invalid_key": "has a key that is no text; put it in quotes",
    "none_required": "must be null",
}
PATTERNS = {  # of the study file's texts
    "^[^:]+:[^:]+$": "must be package.module:name",
    "^[^/:]+$": "must be without / and :",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "must be of letters, digits and . _ -, a letter or digit first",
}


def plain_words(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """What is wrong with a value, without a full stop.

    >>> plain_words("int_parsing", "Input should be a valid integer, unable to parse …", {})
    'must be a whole number'

    Args:
        kind: pydantic's type of the error.
        message: pydantic's own; of kinds that no setting has it is reworded as far as it goes.
        context: of the error.
    """
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return PATTERNS.get(pattern, f"must match the pattern {pattern}")
    if kind in WORDS:
        short = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
        return WORDS[kind].format_map(short)
    text = re.sub(r"\b(?:[A-Z]\w+ )?(?:[Ii]nput )?should\b", "must", message).rstrip(".")
    return text[:1].lower() + text[1:]
