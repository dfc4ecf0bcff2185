"""Pages of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click

from docs.site.markdown import cell, code, docstring, fence, table
from vdsgen.cli.main import COMMANDS, INTERRUPTED, cli
from vdsgen.errors import NoPlanFitsError, VdsgenError

INTRODUCTION = """\
# Commands

`vdsgen COMMAND --help` says the same in a terminal. These pages are made from the commands themselves.

"""

EXIT_CODES = f"""\
## Exit codes

Of every command; `vdsgen launch` besides has [those of a run](../training.md#while-it-runs).

| code | |
|---|---|
| 0 | done; nothing was found |
| 1 | something was found: a difference, a stale file, a rule that is broken, a figure out of tolerance |
| {VdsgenError.exit_code} | bad input: what, where and what to do, on standard error |
| {NoPlanFitsError.exit_code} | no plan fits; the nearest miss, and what would fit |
| {INTERRUPTED} | control-C |

With `--json`, standard output is one JSON document and nothing else; notes and progress are on standard error.
"""


def command_pages() -> dict[str, str]:
    """Every command's page and their index, by path below the site's sources."""
    context = click.Context(cli, info_name="vdsgen")
    pages: dict[str, str] = {}
    for name in COMMANDS:
        found = cli.get_command(context, name)
        assert found is not None
        pages |= pages_of(name, found)
    rows = [
        (f"[`vdsgen {name}`](commands/{name}.md)", cell(help_text))
        for name, (_, help_text) in COMMANDS.items()
    ]
    pages["reference/commands.md"] = INTRODUCTION + table(["command", "does"], rows) + "\n" + EXIT_CODES
    return pages


def pages_of(name: str, command: click.Command) -> dict[str, str]:
    """Of one command, and of those within it."""
    return {
        f"reference/commands/{'/'.join(words)}.md": _page(words, one)
        for words, one in _with_subcommands((name,), command)
    }


def _with_subcommands(
    words: tuple[str, ...], command: click.Command
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=words[-1])
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _with_subcommands((*words, name), found)


def _page(words: tuple[str, ...], command: click.Command) -> str:
    path = " ".join(("vdsgen", *words))
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    help_text = inspect.cleandoc(command.help or "").replace("\b\n", "").split("\f")[0]
    options = [row for parameter in command.get_params(context) if (row := _row(parameter, context))]
    parts = [f"# vdsgen {' '.join(words)}\n", fence(usage), docstring(help_text)]
    if isinstance(command, click.Group):
        inner = {name: command.get_command(context, name) for name in command.list_commands(context)}
        parts.append(
            table(
                ["command", "does"],
                [
                    (f"[`{path} {name}`]({words[-1]}/{name}.md)", cell(one.get_short_help_str(200)))
                    for name, one in inner.items()
                    if one is not None and not one.hidden
                ],
            )
        )
    if options:
        parts += ["## Options\n", table(["option", "value", "default", "meaning"], options)]
    return "\n".join(parts)


def _row(parameter: click.Parameter, context: click.Context) -> tuple[str, str, str, str] | None:
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return None
    names = ", ".join(code(name) for name in (*parameter.opts, *parameter.secondary_opts))
    required = "required" if parameter.required else ""
    notes = (
        "; may be given more than once"
        if parameter.multiple and "repeat" not in (parameter.help or "")
        else ""
    )
    return (
        names,
        _value(parameter, context),
        required or _default(parameter),
        cell((parameter.help or "") + notes),
    )


def _value(option: click.Option, context: click.Context) -> str:
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice) and option.metavar is None:
        return ", ".join(map(code, option.type.choices))
    if isinstance(option.type, click.IntRange | click.FloatRange) and option.metavar is None:
        return _range(option.type)
    return code(option.make_metavar(ctx=context))


def _range(kind: click.IntRange | click.FloatRange) -> str:
    least = "" if kind.min is None else f", {'>' if kind.min_open else '≥'} {kind.min:g}"
    most = "" if kind.max is None else f", {'<' if kind.max_open else '≤'} {kind.max:g}"
    return f"{'whole number' if isinstance(kind, click.IntRange) else 'number'}{least}{most}"


def _default(option: click.Option) -> str:
    """What is taken where the option is not given; nothing where that is no value."""
    shown: Any = option.to_info_dict().get("default")
    if isinstance(option.show_default, str):
        return cell(option.show_default)
    if shown is None or callable(shown) or shown is False or shown in ((), []) or not _is_plain(shown):
        return ""
    return code(str(shown))


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)
