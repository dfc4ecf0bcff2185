"""Runs the commands of pages again and writes what they print into them.

    python -m tests.update_docs [PAGE...]

Those that tests/docs/test_commands.py runs, where the page shows their output. A line `[...]` stands for what
is left out; what comes after it is found by its first line, with today's figures.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.docs.blocks import ROOT, commands_of
from tests.docs.running import Outcome, begin, renewed, run, runs_here


def updated(page: str, folder: Path) -> str:
    """The page with today's output; its commands run in `folder`."""
    begin(page, folder)
    lines = (ROOT / page).read_text("utf-8").split("\n")
    outcome: Outcome | None = None
    found = []
    for command in filter(runs_here, commands_of(ROOT / page)):
        outcome = run(command, outcome)
        if command.output is not None:
            try:
                found.append((command, renewed(command.output, outcome.output)))
            except ValueError as error:
                raise SystemExit(f"{command.place}: {error}: write it anew\n{outcome.output}") from None
    for command, text in reversed(found):
        assert command.output is not None
        begins = command.output_line - 1
        lines[begins : begins + command.output.count("\n")] = text.rstrip("\n").split("\n")
    return "\n".join(lines)


def main(pages: list[str]) -> None:
    known = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("**/*.md")]
    for page in pages or ["README.md", *sorted(known)]:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            text = updated(page, Path(folder))
            os.chdir(ROOT)
        if text != (ROOT / page).read_text("utf-8"):
            (ROOT / page).write_text(text, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
