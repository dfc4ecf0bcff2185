"""What a plain YAML scalar means: the core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3.2).

So `1e-4` is a number, and `yes`, `no`, `on` and `2024-01-01` are text: PyYAML alone, which follows
YAML 1.1, reads them as text, booleans and a date.
"""

from __future__ import annotations

import math
import re

from vdsgen.spec.source import Scalar

_NULL = re.compile(r"|~|null|Null|NULL")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o([0-7]+)")
_HEXADECIMAL = re.compile(r"0x([0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")

MAX_DIGITS = 40
"""Longer whole numbers are refused: nothing here is that large, and reading them takes long."""


class ScalarError(ValueError):
    """A scalar that no reading of is safe; the message says what to write instead."""


def plain_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar.

    Raises ScalarError for numbers that are not finite, absurdly long or ambiguous.
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f"{text} is not a finite number")
    whole = _INTEGER.fullmatch(text) or _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text)
    if whole:
        return _whole_number(text)
    if _FLOAT.fullmatch(text):
        return _float(text)
    return text


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ScalarError(f"a number of {len(text)} digits is too long")
    if _LEADING_ZERO.fullmatch(text):
        raise ScalarError(
            f"{text} is octal in YAML 1.1 and decimal in YAML 1.2: write it without the leading zero, "
            f"or in quotes if it is text"
        )
    if octal := _OCTAL.fullmatch(text):
        return int(octal[1], 8)
    if hexadecimal := _HEXADECIMAL.fullmatch(text):
        return int(hexadecimal[1], 16)
    return int(text)


def _float(text: str) -> float:
    shown = text if len(text) <= MAX_DIGITS else f"{text[:MAX_DIGITS]}..."
    number = float(text)
    if not math.isfinite(number):
        raise ScalarError(f"{shown} is too large for a number")
    return number
