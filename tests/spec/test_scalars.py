from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.spec.scalars import ScalarError, plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "2024-01-01", "12:30:45", "1_000", "0b1", "1e", "e5", ".", "=", "nan"]
)
def test_what_yaml_1_1_would_convert_stays_text(text: str) -> None:
    assert plain_scalar(text) == text


@pytest.mark.parametrize(
    "text", [".inf", "-.INF", ".NaN", "1e999", "0123", "-012", "9" * 5000, "0x" + "f" * 99]
)
def test_numbers_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(ScalarError):
        plain_scalar(text)


@given(st.text(max_size=30) | st.from_regex(r"[-+0-9.eExob_]{1,50}", fullmatch=True))
def test_any_text_has_a_value_that_json_can_hold_or_is_refused(text: str) -> None:
    try:
        value = plain_scalar(text)
    except ScalarError:
        return
    assert not isinstance(value, float) or math.isfinite(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_as_python_writes_them_come_back(number: float) -> None:
    assert plain_scalar(repr(number)) == number
