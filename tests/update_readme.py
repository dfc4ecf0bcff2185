"""Runs the README's planning commands again and writes what they print into it.

    python -m tests.update_readme

Only blocks below a line `<!-- run -->` are run: a prompt, the command, its output. A line `[...]` stands for
lines that are left out; what comes before and after it must be there.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- run -->\n```console\n\$ )([^\n]+)\n(.*?)(```)", re.DOTALL)
LEFT_OUT = "[...]"


def output_of(command: str) -> str:
    """Standard output and error of a `vdsgen` command, run in the repository's root."""
    from vdsgen.cli.main import cli

    program, *arguments = shlex.split(command)
    assert program == "vdsgen", f"the README runs {program}, not vdsgen"
    return CliRunner().invoke(cli, arguments, catch_exceptions=False).output


def abridged(output: str, pasted: str) -> str:
    """`output` with the same lines left out as in `pasted`.

    Raises ValueError where the lines around a gap are not in the output.
    """
    if LEFT_OUT not in pasted:
        return output
    head, _, tail = pasted.partition(f"{LEFT_OUT}\n")
    lines, last = output.splitlines(), tail.splitlines()[0] if tail.strip() else None
    kept = lines[: len(head.splitlines())]
    if last is None:
        return "\n".join([*kept, LEFT_OUT]) + "\n"
    starts = [index for index, line in enumerate(lines) if line == last]
    if not starts:
        raise ValueError(f"no line {last!r} in the output")
    return "\n".join([*kept, LEFT_OUT, *lines[starts[-1] :]]) + "\n"


def fresh(text: str) -> str:
    """The README with today's output."""
    return BLOCK.sub(
        lambda match: f"{match[1]}{match[2]}\n{abridged(output_of(match[2]), match[3])}{match[4]}", text
    )


if __name__ == "__main__":
    import os

    os.chdir(ROOT)
    README.write_text(fresh(README.read_text(encoding="utf-8")), encoding="utf-8")
