"""JSON patches put into a text mean what RFC 6902 says, and touch nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.review.lint.patch import PatchError, parts, patched
from vdsgen.review.lint.reader import read_document

keys = st.sampled_from(["a", "b", "c", "d/e", "f~g", ""])
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["x", "y,z", '"', "{"])
objects = st.recursive(
    st.dictionaries(keys, scalars, max_size=4),
    lambda inner: st.dictionaries(keys, scalars | inner | st.lists(scalars, max_size=2), max_size=4),
    max_leaves=8,
)


@st.composite
def operations(draw: st.DrawFn) -> dict[str, Any]:
    path = "".join(
        "/" + key.replace("~", "~0").replace("/", "~1")
        for key in draw(st.lists(keys, min_size=1, max_size=2))
    )
    kind = draw(st.sampled_from(["add", "remove", "replace", "move"]))
    if kind == "move":
        new = draw(keys).replace("~", "~0").replace("/", "~1")
        return {"op": "move", "from": path, "path": f"{path.rpartition('/')[0]}/{new}"}
    return {"op": kind, "path": path, **({} if kind == "remove" else {"value": draw(scalars | objects)})}


def applied(value: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """RFC 6902 on plain objects. Raises KeyError, TypeError where the operation does not fit."""
    value = json.loads(json.dumps(value))
    *way, last = parts(operation["path"])
    node: Any = value
    for part in way:
        node = node[part]
    if not isinstance(node, dict):
        raise TypeError
    if operation["op"] == "remove":
        del node[last]
    elif operation["op"] == "move":
        old = parts(operation["from"])[-1]
        if last in node:
            raise KeyError(last)
        node[last] = node.pop(old)
    elif operation["op"] == "replace":
        node[last]
        node[last] = operation["value"]
    else:
        node[last] = operation["value"]
    return value


@given(value=objects, operation=operations(), indent=st.sampled_from([None, 1, 2, "\t"]))
@settings(max_examples=400, deadline=None)
def test_text_is_patched_as_rfc_6902_says(
    value: dict[str, Any], operation: dict[str, Any], indent: Any
) -> None:
    document = read_document(json.dumps(value, indent=indent).encode(), "x")
    try:
        expected = applied(value, operation)
    except (KeyError, TypeError):
        with pytest.raises(PatchError):
            patched(document, [operation])
        return
    after = patched(document, [operation])
    assert json.loads(after.text) == expected
    assert after.loose == []


def test_lines_that_a_patch_does_not_touch_stay() -> None:
    text = '{\n  "a": 1,   # one\n  "b": {"c": [1,\n 2]},\n\n  "d": 4\n}\n'
    document = read_document(text.encode(), "x")
    assert patched(document, [{"op": "remove", "path": "/d"}]).text == text.replace(',\n\n  "d": 4', "")
    assert patched(document, [{"op": "replace", "path": "/d", "value": 5}]).text == text.replace("4", "5")
    added = patched(document, [{"op": "add", "path": "/e", "value": {"f": 1}}]).text
    assert added == text.replace('"d": 4', '"d": 4,\n  "e": {\n    "f": 1\n  }')
