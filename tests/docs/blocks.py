"""Commands in a page's code blocks, with what the page shows of their output."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
FENCE = re.compile(
    r"^(?P<notes>(?:<!--[^\n]*-->\n)*)(?P<indent> *)```(?P<language>[a-z]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
INDENTED = re.compile(r"(?<=\n\n)(?:    [^\n]*\n)+")
NOTE = re.compile(r"<!-- (run|file): ?([^\n]*?) ?-->|<!-- (run) -->")
SHELL_LANGUAGES = ("", "console", "bash", "sh")
PROGRAMS = re.compile(r"(?:vdsgen|make|python -m|\./vdsgen) ")
"""What a line without a prompt starts with where it is a command."""
SYNOPSIS = re.compile(r"(?<![\w=./-])[A-Z][A-Z_]{2,}(?![\w=.-])|\[--|\.\.\.(?!\w)")
"""A command that says how it is called: words in capitals stand for values."""


class Command(NamedTuple):
    """One command of a page."""

    page: str
    line: int
    text: str
    """Continued lines are joined; comments and prompts are gone."""
    output: str | None
    """What the page shows below it; None where it shows nothing."""
    output_line: int
    """Where that begins."""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def is_synopsis(self) -> bool:
        return SYNOPSIS.search(self.text) is not None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """What people read: the README, examples and every page of docs/."""
    return [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def commands_of(path: Path) -> list[Command]:
    """In the page's order."""
    text = path.read_text("utf-8")
    name = path.relative_to(ROOT).as_posix()
    found: list[Command] = []
    for block in FENCE.finditer(text):
        if block["language"] in SHELL_LANGUAGES:
            found += _in_block(name, _line(text, block.start("body")), block["body"], block["language"])
    without = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for block in INDENTED.finditer(without):
        found += _in_block(name, _line(without, block.start()), block[0].replace("\n    ", "\n")[4:], "")
    return sorted(found, key=lambda command: command.line)


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _in_block(page: str, first: int, body: str, language: str) -> Iterator[Command]:
    lines = body.splitlines()
    prompted = any(line.startswith("$ ") for line in lines)
    if not prompted and not any(PROGRAMS.match(line) for line in lines):
        return
    number = 0
    while number < len(lines):
        begins, line = number, lines[number]
        number += 1
        if not (line.startswith("$ ") if prompted else PROGRAMS.match(line)):
            continue
        text = line.removeprefix("$ ")
        while text.endswith("\\") or (
            not prompted and number < len(lines) and lines[number].startswith("    ")
        ):
            text = f"{text.removesuffix(chr(92)).rstrip()} {lines[number].strip()}"
            number += 1
        output, shown_from = None, first + number
        if prompted:
            end = next((at for at in range(number, len(lines)) if lines[at].startswith("$ ")), len(lines))
            output = "".join(f"{one}\n" for one in lines[number:end]) or None
            number = end
        yield Command(page, first + begins, _without_comment(text), output, shown_from)


def _without_comment(text: str) -> str:
    """A shell's comment at the end is for people."""
    return re.sub(r"\s+#\s.*$", "", text)


def files_of(path: Path) -> list[tuple[str, str]]:
    """(name, content) of the blocks that a note above them says are files: `<!-- file: lab.yaml -->`."""
    found = []
    for block in FENCE.finditer(path.read_text("utf-8")):
        for note in NOTE.finditer(block["notes"]):
            if note[1] == "file":
                found.append((note[2], block["body"]))
    return found
