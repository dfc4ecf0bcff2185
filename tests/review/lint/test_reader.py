"""The reader takes what DeepSpeed's reader takes, makes the same of it, and knows where everything stands."""

from __future__ import annotations

import random
from typing import Any

import hjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.errors import InputError
from vdsgen.review.lint.document import Document, pointer
from vdsgen.review.lint.reader import DEEPEST, read_document

TOKENS = (
    *"{}[],:",
    '"a"',
    '"b"',
    "'c'",
    "'''x\n  y'''",
    "key",
    "true",
    "false",
    "null",
    "1",
    "-2",
    "3.5",
    "1e5",
    "1e20",
    "007",
    "NaN",
    "\n",
    " ",
    "\t",
    "#c\n",
    "//x\n",
    "/*y*/",
    '"\\u0041"',
    '"\\n"',
    "\\",
    '"',
    "5e8",
    "-",
    "1.",
    "Infinity",
    '"\\ud83d\\ude00"',
    "\r\n",
    "''",
    "'''",
    "\ufeff",
    "é",
    "2.0",
    "-0",
    "1e400",
)


def theirs(text: str) -> Any:
    """What hjson makes of it; None where it, or DeepSpeed behind it, raises."""
    try:
        made = hjson.loads(text, object_pairs_hook=dict)
    except Exception:
        return None
    return made if isinstance(made, dict) else None


def ours(text: str) -> Any:
    try:
        return read(text).plain
    except InputError:
        return None


def read(text: str) -> Document:
    return read_document(text.encode("utf-8", "surrogatepass"), "config.json")


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_what_hjson_reads(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(5000):
        text = "".join(rng.choices(TOKENS, k=rng.randrange(1, 14)))
        text = "{" + text + "}" if rng.random() < 0.5 else text
        assert repr(ours(text)) == repr(theirs(text)), text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(config=st.dictionaries(st.text(max_size=8), values, max_size=5), indent=st.sampled_from([None, 1, 4]))
@settings(max_examples=200, deadline=None)
def test_json_is_read_as_it_is_and_each_place_is_the_value_s(
    config: dict[str, Any], indent: int | None
) -> None:
    import json

    document = read(json.dumps(config, indent=indent))
    assert document.loose == []
    assert document.plain == json.loads(json.dumps(config), parse_float=whole)
    for key in config:
        entry = document.entry((key,))
        assert entry is not None
        assert json.loads(document.text[entry.start : entry.key_end]) == key
        assert (
            json.loads(document.text[entry.value.start : entry.value.end], parse_float=whole)
            == entry.value.plain()
        )


def whole(text: str) -> float | int:
    """As hjson: whole numbers below 1e10 are integers."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1e10 else value


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ('{"a": 1', 1, 8, "the file ends"),
        ('{\n "a": "x\n}', 2, 9, "inside text"),
        (
            '{"a": 1 "b" 2}',
            1,
            15,
            "a key is expected\n  -> see line 1, column 7: is a quote or a comma missing",
        ),
        ('{"a"\n: 1, "b" 2}', 2, 10, "no colon"),
        ('{"a": }', 1, 7, "where a value is expected"),
        ('{"a": [1, 2', 1, 7, "an array without an end"),
        ('{"a": 1} x', 1, 10, "follows the end"),
        ("[1, 2]", 1, 1, "an array"),
        ("17", 1, 1, "one value"),
        ('{"a": "\\q"}', 1, 8, "no escape"),
        ('{"a": "\\u00"}', 1, 8, "four hexadecimal"),
        ("{/* }", 1, 2, "comment without an end"),
        ('{"a": 1e999}', 1, 7, "too large"),
        ('{"a": ' + "9" * 5000 + "}", 1, 7, "5000 digits"),
        ('{"a": ' * 200 + "1" + "}" * 200, 1, 6 * DEEPEST + 1, f"deeper than {DEEPEST}"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    problem = caught.value.problems[0]
    assert (problem.file, problem.line, problem.column) == ("config.json", line, column), problem
    assert words in f"{problem.message}\n  -> {problem.remedy}"
    assert len(str(problem)) < 300


def test_bytes_that_are_no_utf_8_are_told_with_their_place() -> None:
    with pytest.raises(InputError, match=r"config\.json:2:3: no JSON: byte 0xff is no UTF-8"):
        read_document(b'{\n "\xff": 1}', "config.json")


def test_what_only_hjson_takes_is_noted_at_its_place() -> None:
    document = read("{\n a: 1 # one\n 'b': two\n \"c\": 3,\n}")
    noted = {(loose.what, document.place(loose.offset).line) for loose in document.loose}
    assert noted == {
        ("a key without quotes", 2), ("a comment", 2), ("a missing comma", 2), ("single quotes", 3),
        ("text without quotes", 3), ("a missing comma", 3), ("a comma behind the last entry", 4),
    }  # fmt: skip
    assert document.plain == {"a": 1, "b": "two", "c": 3}


def test_lines_end_as_on_any_system() -> None:
    for end in ("\n", "\r\n", "\r"):
        document = read(f'{{{end}  "a":{end}    7{end}}}')
        assert document.nearest(("a",)) == (3, 5, 1)
        assert document.line(3) == "    7"


def test_a_missing_key_is_told_at_its_parent() -> None:
    document = read('{"a": {"b": 1}}')
    assert document.nearest(("a", "c")) == document.nearest(("a",), at_key=True) == (1, 2, 3)
    assert document.nearest(("x", "y")) == (1, 1, 1)
    assert pointer(("a/b", "c~d", 0)) == "/a~1b/c~0d/0"
