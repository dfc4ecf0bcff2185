"""Putting aside what a start left that came to no checkpoint, so that the run can begin anew:

    python -m vdsgen.launch.aside RUN N

renames what the trainer would refuse to write over: `metrics.jsonl` becomes `metrics.jsonl.before-restart-N`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vdsgen.spec.checkpoints import CHECKPOINTS

LEFT = ("metrics.jsonl", "validation.jsonl", "alarms.jsonl", "saves.jsonl", CHECKPOINTS)
"""What a start writes step by step; the rest is written whole, by every start again."""


def put_aside(run: Path, number: int) -> list[Path]:
    """The new names. Raises OSError."""
    moved = []
    for name in LEFT:
        left = run / name
        if left.exists():
            moved.append(left.rename(_free(run, name, number)))
    return moved


def _free(run: Path, name: str, number: int) -> Path:
    """Nothing is overwritten: an earlier launch may have used the number."""
    while (path := run / f"{name}.before-restart-{number}").exists():
        number += 1
    return path


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2 or not arguments[1].isdecimal():
        print("usage: python -m vdsgen.launch.aside RUN N", file=sys.stderr)
        return 2
    put_aside(Path(arguments[0]), int(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
