"""The `vdsgen` command: its subcommands are imported when they are called, and errors end here."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any

import click

from vdsgen import __version__
from vdsgen.errors import InputError, VdsgenError

COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("vdsgen.cli.plan", "Print the best plan for a lab, its memory and time, and why it won."),
    "generate": ("vdsgen.cli.generate", "Plan, and render the files that training runs from."),
    "check": (
        "vdsgen.cli.check",
        "Fail if rendered directories are stale or were edited by hand; render them anew.",
    ),
    "diff": ("vdsgen.cli.diff", "Say what a change does to memory, speed and numerics."),
    "git": (
        "vdsgen.cli.git",
        "Show changes of rendered directories in git diff; hooks that keep them fresh.",
    ),
    "ci": ("vdsgen.cli.ci", "Review configurations in pull and merge requests."),
    "report": ("vdsgen.cli.report", "Write one HTML file about a plan, or two side by side."),
    "lint": ("vdsgen.cli.lint", "Say what is wrong with a DeepSpeed config, whoever wrote it."),
    "verify": ("vdsgen.cli.verify", "Prove a plan's memory: every stage on tensors without memory."),
    "cache": ("vdsgen.cli.cache", "Encode clips and captions once, into the cache that training reads."),
    "preflight": ("vdsgen.cli.preflight", "Look at every host of a job before it starts, and rehearse it."),
    "launch": ("vdsgen.cli.launch", "Train what a rendered directory says."),
    "watch": ("vdsgen.cli.watch", "Show a run in the terminal: progress, curves, memory, alarms."),
    "export": ("vdsgen.cli.export", "Write a checkpoint's weights as a folder that others load."),
    "ablate": ("vdsgen.cli.ablate", "Run plans for a few steps each, and rank them by what is measured."),
    "profile": ("vdsgen.cli.profile", "Trace a model's layers into a layer profile."),
    "calibrate": ("vdsgen.cli.calibrate", "Measure this machine into a lab fragment."),
    "scan": ("vdsgen.cli.scan", "Write a lab file from the hardware that is there."),
    "validate": ("vdsgen.cli.validate", "Predict what others measured on GPUs, and print the errors."),
    "catalog": ("vdsgen.cli.catalog", "List the GPUs, links, models and rules that are built in."),
}
"""Name -> (module that holds it as `command`, short help). `--help` reads this and imports nothing."""

GARBAGE_COLLECTION_THRESHOLD = 200_000
"""New objects between two collections; Python's own is 700."""

INTERRUPTED = 130
"""What a shell reports for a program ended by control-C: 128 + SIGINT."""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when the subcommand is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command), f"{COMMANDS[cmd_name][0]}.command is no click command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; an error that a user can put right is printed, and sets the exit code."""
        try:
            return super().invoke(ctx)
        except VdsgenError as error:
            print_error(error)
            ctx.exit(error.exit_code)
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.filename is None:
                raise
            click.echo(f"error: {printable(str(error.filename))}: {error.strerror}", err=True)
            ctx.exit(VdsgenError.exit_code)


def print_error(error: VdsgenError) -> None:
    """One `error:` a problem, on standard error."""
    parts = error.problems if isinstance(error, InputError) else (error,)
    for part in parts:
        click.echo(f"error: {printable(str(part))}", err=True)


def printable(text: str) -> str:
    """Without what a terminal would obey, or show as something else: files and their content may hold it."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="vdsgen", message="%(prog)s %(version)s")
def cli() -> None:
    """Plan, render, launch and review DeepSpeed configurations for video diffusion training."""


def main() -> None:
    """Run the command line and exit: 0, 1 for findings, 2 for bad input, 3 where no plan fits."""
    # Imports and plans make many small objects that live to the end: looking for garbage among them took
    # a seventh of `vdsgen plan`.
    gc.set_threshold(GARBAGE_COLLECTION_THRESHOLD)
    # Otherwise pydantic reads the metadata of every installed distribution in search of plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        status = cli.main(prog_name="vdsgen", standalone_mode=False)
        # The end of the process frees what is left: Python would first look for garbage in all of it.
        gc.freeze()
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) has left. Python flushes standard output once more on its way out:
        # let that go nowhere (docs.python.org/3/library/signal.html, "Note on SIGPIPE").
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
