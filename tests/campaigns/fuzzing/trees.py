"""Changes to a tree of dictionaries and lists, and to the text it is written as."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

from tests.campaigns.fuzzing.values import any_value, number, scalar

Place = tuple[Any, Any]
"""A container and a key or index of it."""


def places(tree: Any) -> list[Place]:
    """Every value below the root."""
    found: list[Place] = []
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        keys: Sequence[Any] = (
            list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        )
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found


def changed(rng: random.Random, tree: Any, keys: tuple[str, ...], *, gentle: bool) -> Any:
    """A copy with a few places changed. `gentle`: only numbers move a little, so that much of it is still
    taken."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        found = places(tree)
        if not found:
            return tree
        if gentle:
            numbers = [place for place in found if _is_number(place[0][place[1]])]
            container, key = rng.choice(numbers or found)
            container[key] = _near(rng, container[key])
        else:
            _change(rng, found, keys)
    return tree


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _near(rng: random.Random, value: Any) -> Any:
    if not _is_number(value):
        return value
    moved = rng.choice((value + 1, value * 2, value // 2, value - 1, value * 4, value * 10))
    return moved if isinstance(value, float) else int(moved)


def _change(rng: random.Random, found: list[Place], keys: tuple[str, ...]) -> None:
    container, key = rng.choice(found)
    what = rng.randrange(10)
    if what < 4:
        container[key] = scalar(rng)
    elif what == 4:
        del container[key]
    elif what == 5:
        container[key] = any_value(rng, keys)
    elif what == 6 and isinstance(container, dict):
        container[rng.choice(keys)] = any_value(rng, keys)
    elif what == 6:
        container.insert(key, copy.deepcopy(container[key]))
    elif what == 7:
        other, at = rng.choice(found)
        container[key] = copy.deepcopy(other[at])
    elif what == 8:
        container[key] = rng.choice(
            ([container[key]], {"a": container[key]}, str(container[key]), number(rng))
        )
    elif isinstance(container, dict):
        container[str(scalar(rng))] = container.pop(key)
    else:
        container[key] = _near(rng, container[key])


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes changed without regard to what they mean."""
    what = rng.randrange(12)
    at = rng.randrange(len(content) + 1)
    if what == 0:
        return content[:at]
    if what == 1:
        return content[:at] + rng.randbytes(rng.randrange(1, 5)) + content[at:]
    if what == 2:
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if what == 3:
        return (
            content[:at]
            + rng.choice((b"\x00", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J"))
            + content[at:]
        )
    if what == 4:
        return rng.choice(
            (b"", b"\n", b"\x00" * 40, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", rng.randbytes(200), b"#\n" * 9)
        )
    if what == 5:
        return b"\xef\xbb\xbf" + content
    if what == 6:
        return content.replace(
            b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\n\t", b"\x0b\n", b"\xe2\x80\xa8"))
        )
    lines = content.split(b"\n")
    line = rng.randrange(len(lines))
    if what == 7:
        del lines[line]
    elif what == 8:
        lines.insert(line, lines[rng.randrange(len(lines))])
    elif what == 9:
        lines[line] = rng.choice((b"  ", b"\t", b" ")) + lines[line]
    elif what == 10:
        lines[line] = lines[line].lstrip()
    else:
        other = rng.randrange(len(lines))
        lines[line], lines[other] = lines[other], lines[line]
    return b"\n".join(lines)
