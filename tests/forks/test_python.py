"""What forks start in Python's place."""

from __future__ import annotations

import sys

import pytest

from tests.forks.python import module_of


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ([sys.executable, "-m", "a.b", "-m", "c"], ("a.b", ["-m", "c"])),
        ((sys.executable, "-u", "-m", "a"), ("a", [])),
        ([sys.executable, "-c", "pass"], None),
        ([sys.executable], None),
        (["ls", "-m", "a"], None),
        ("python -m a", None),
        ([], None),
    ],
)
def test_only_modules_of_this_interpreter_are_forked(argv: object, found: object) -> None:
    assert module_of(argv) == found
