"""Whether commands and options that pages name exist, without running them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from tests.docs.blocks import ROOT, Command
from vdsgen.cli.main import cli

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SPAN = re.compile(r"`((?:vdsgen|python -m) [^`]+)`")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def problem(command: Command) -> str | None:
    """What is wrong with a command as it stands; of a synopsis, its command and options alone."""
    words = command.text.split() if command.is_synopsis else command.words
    if words[0] == "vdsgen":
        return named_problem(command.text) if command.is_synopsis else _vdsgen_problem(words[1:])
    if words[:2] == ["python", "-m"]:
        return _module_problem(words[2], command.text)
    if words[0] == "make":
        targets = TARGET.findall((ROOT / "Makefile").read_text("utf-8"))
        return None if words[1] in targets else f"the Makefile has no {words[1]}"
    return None


def named_problem(text: str) -> str | None:
    """Of words that need be no whole command, such as `vdsgen launch --resume` in a sentence."""
    if text.startswith("python -m "):
        return _module_problem(text.split()[2], text)
    path, command = _command(text.split()[1:])
    if isinstance(command, str):
        return command
    there = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    there |= {"--help", "--version"}
    unknown = [name for name in OPTION.findall(text) if name not in there]
    return f"{path} has no {', '.join(unknown)}" if unknown else None


def _command(words: list[str]) -> tuple[str, click.Command | str]:
    """The innermost command that words name, or what is wrong with them."""
    found: click.Command = cli
    path = "vdsgen"
    for word in words:
        if not isinstance(found, click.Group) or not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        inner = found.get_command(click.Context(found, info_name=path), word)
        if inner is None:
            return path, f"{path} has no command {word}"
        path, found = f"{path} {word}", inner
    return path, found


def _vdsgen_problem(words: list[str]) -> str | None:
    path, command = _command(words)
    if isinstance(command, str):
        return command
    arguments = words[len(path.split()) - 1 :]
    context = click.Context(command, info_name=path)
    try:
        values, left, _ = command.make_parser(context).parse_args(list(arguments))
        if left:
            return f"{path} takes no more words: {' '.join(left)}"
        for parameter in command.params:
            given = values.get(parameter.name or "")
            if parameter.required and given in (None, ()):
                return f"{path} needs {parameter.get_error_hint(context)}"
            if given is not None and isinstance(
                parameter.type, click.Choice | click.IntRange | click.FloatRange
            ):
                parameter.type_cast_value(context, given)
    except click.UsageError as error:
        return f"{path}: {error.format_message()}"
    return None


def _module_problem(module: str, text: str) -> str | None:
    """A program of this repository: there, with a `main` part, and with the options that are given."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    if module.partition(".")[0] not in ("tests", "vdsgen", "docs"):
        return None
    if not path.is_file():
        return f"no module {module}"
    source = path.read_text("utf-8")
    if '__name__ == "__main__"' not in source:
        return f"{module} cannot be run"
    unknown = [name for name in OPTION.findall(text) if f'"{name}"' not in source]
    return f"{module} has no {', '.join(unknown)}" if unknown else None


def spans(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of commands within sentences."""
    text = path.read_text("utf-8")
    for match in SPAN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield f"{path.relative_to(ROOT)}:{line}", " ".join(match[1].split())
