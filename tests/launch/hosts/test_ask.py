"""What a host says that is no answer is refused in a sentence."""

from __future__ import annotations

import pytest

from vdsgen.launch.hosts.ask import HostError, _read


@pytest.mark.parametrize("text", ["", "x", "[1]", "null", "[" * 100_000, '{"a": 1'])
def test_what_no_probe_says_is_refused(text: str) -> None:
    with pytest.raises(HostError, match="no probe says"):
        _read(text)


def test_an_answer_is_an_object() -> None:
    assert _read('{"a": 1}') == {"a": 1}
