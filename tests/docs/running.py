"""Runs a page's commands in its order, as its reader would, and compares their output with what it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from tests.docs.blocks import ROOT, Command, commands_of, files_of
from tests.docs.elsewhere import COMMANDS
from vdsgen.cli.main import cli

LEFT_OUT = "[...]"
READING = ("cat", "grep", "head", "ls", "mkdir", "cp", "git", "sed", "tail")
"""Programs that a page may run besides vdsgen: they read what a command wrote, or make room for it."""
EXIT_STATUS = "echo $?"
FINDERS = ("check", "diff", "lint", "validate")
"""Commands that exit with 1 where they find something."""
GIVEN = {
    "README.md": {"ds_config.json": "examples/rendered/article-1.5b@four-24gb/ds_config.json"},
    "docs/index.md": {"ds_config.json": "examples/rendered/article-1.5b@four-24gb/ds_config.json"},
}
"""Page -> files that its reader has, by what stands for them here."""


class Outcome(NamedTuple):
    """What a command printed, standard output and error as a terminal shows them, and its exit code."""

    output: str
    code: int


def elsewhere(command: Command) -> bool:
    return any(entry.matches(command) for entry in COMMANDS)


def measures(command: Command) -> bool:
    """Programs that measure for minutes, and `make`: looked at, not run (test_each_is_as_it_stands)."""
    return command.words[0] in ("make", "python")


def runs_here(command: Command) -> bool:
    return not (command.is_synopsis or elsewhere(command) or measures(command))


def begin(page: str, folder: Path) -> None:
    """The reader's directory: the repository's examples, data of its tests that commands name, and the files
    that the page shows."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    for word in {
        word for command in commands_of(ROOT / page) if runs_here(command) for word in command.words
    }:
        if word.startswith("tests/") and (ROOT / word).is_dir() and ".." not in word:
            shutil.copytree(ROOT / word, folder / word, dirs_exist_ok=True)
    for name, source in GIVEN.get(page, {}).items():
        shutil.copyfile(ROOT / source, folder / name)
    for name, text in files_of(ROOT / page):
        path = folder / name
        assert path.resolve().is_relative_to(folder.resolve()), f"{page}: {name} is outside"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run(command: Command, before: Outcome | None) -> Outcome:
    """In the working directory; `before` is the outcome of the command before it."""
    if command.text == EXIT_STATUS:
        assert before is not None, f"{command.place}: no command before it"
        return Outcome(f"{before.code}\n", 0)
    program, *arguments = command.words
    if program == "vdsgen":
        result = CliRunner(env={"COLUMNS": "100"}).invoke(cli, arguments, catch_exceptions=False)
        return Outcome(result.output, result.exit_code)
    assert program in READING, f"{command.place}: {program} is none of {', '.join(READING)}"
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        ["bash", "-c", command.text],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    return Outcome(done.stdout, done.returncode)


def expected_codes(command: Command) -> tuple[int, ...]:
    """What the page says of the exit code: an error that it shows is one, all else is none."""
    if command.output is not None and re.search(r"^error: ", command.output, re.MULTILINE):
        return (2, 3)
    name = command.words[1] if len(command.words) > 1 else ""
    return (0, 1) if name in FINDERS else (0,)


def shows(pasted: str, output: str) -> bool:
    """Whether `pasted` is the output with lines left out where it says so."""
    return differing_line(pasted, output) is None


def differing_line(pasted: str, output: str) -> str | None:
    """The first line of a page that the output does not have where the page has it."""
    lines, at, free = [line.rstrip() for line in output.splitlines()], 0, False
    for shown in (line.rstrip() for line in pasted.rstrip("\n").splitlines()):
        if shown == LEFT_OUT:
            free = True
            continue
        if free:
            at = next((n for n in range(at, len(lines)) if lines[n] == shown), len(lines))
        if at >= len(lines) or lines[at] != shown:
            return shown
        at, free = at + 1, False
    left = [line for line in lines[at:] if line]
    return f"(the output goes on with {left[0]!r})" if left and not free else None


def renewed(pasted: str, output: str) -> str:
    """`output`, abridged as `pasted` is. Raises ValueError where a part of the page has no place in it."""
    if LEFT_OUT not in pasted.splitlines():
        return output
    lines, at, made = output.splitlines(), 0, list[str]()
    parts = [part.strip("\n").splitlines() for part in re.split(r"^\[\.\.\.\]$", pasted, flags=re.MULTILINE)]
    for number, part in enumerate(parts):
        if number:
            made.append(LEFT_OUT)
        if not part:
            continue
        begins = at if number == 0 else _place(part[0], lines, at)
        ends = len(lines) if number == len(parts) - 1 else begins + len(part)
        made += lines[begins:ends]
        at = ends
    return "".join(f"{line.rstrip()}\n" for line in made)


def _place(line: str, lines: list[str], begin: int) -> int:
    """Where a part of the page begins now: at the same line, or at one with other figures."""
    for same in (str.rstrip, _without_figures):
        for number in range(begin, len(lines)):
            if same(lines[number]) == same(line):
                return number
    raise ValueError(f"no line {line!r} in the output")


def _without_figures(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[\d.,]*\d", "0", line)).strip()
