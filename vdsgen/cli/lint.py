"""`vdsgen lint`: what is wrong with a DeepSpeed config, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.review.lint.context import Context
    from vdsgen.review.lint.finding import Linted
    from vdsgen.spec.plan import Plan

STANDARD_INPUT = "-"


@click.command()
@click.argument("configs", metavar="CONFIG...", nargs=-1, required=True)
@click.option(
    "--plan",
    "plan_path",
    metavar="PLAN",
    type=click.Path(path_type=Path),
    help="The plan.json it was rendered from: its model, GPUs and settings count. Default: one beside a "
    "ds_config.json.",
)
@click.option(
    "--world-size", metavar="N", type=click.IntRange(min=1), help="Number of ranks that are started."
)
@click.option(
    "--pipeline-stages",
    metavar="N",
    type=click.IntRange(min=0),
    help="Stages of the PipelineModule that the training code makes; 0: it makes none.",
)
@click.option("--accelerator", metavar="NAME", help="What it runs on, as DeepSpeed says: cuda, cpu, xpu, ...")
@click.option("--auto-filled", is_flag=True, help='Transformers or Accelerate fill in "auto" first.')
@click.option("--fix", is_flag=True, help="Write what can be repaired, and show what is left.")
@click.option("--patch", is_flag=True, help="Print the repairs as a JSON patch (RFC 6902), and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "sarif"]),
    default="text",
    help="sarif: for code review tools.",
)
def command(
    configs: tuple[str, ...], plan_path: Path | None, world_size: int | None, pipeline_stages: int | None,
    accelerator: str | None, auto_filled: bool, fix: bool, patch: bool, as_json: bool, form: str,
) -> None:  # fmt: skip
    """Check DeepSpeed configs, whoever wrote them; - reads standard input.

    Exits with 0 where no error or warning is found, 1 where one is, and 2 where a file cannot be read.
    """
    from vdsgen.errors import InputError
    from vdsgen.review.lint.context import Context
    from vdsgen.review.lint.planned import read_plan
    from vdsgen.review.lint.run import lint, read_file

    if patch and (fix or len(configs) > 1):
        raise click.UsageError("--patch prints the repairs of one file, and --fix writes them.")
    if fix and STANDARD_INPUT in configs:
        raise click.UsageError("--fix writes files, and standard input is none.")
    given = None if plan_path is None else read_plan(plan_path)
    files: list[Linted] = []
    problems = []
    for name in configs:
        try:
            content = sys.stdin.buffer.read() if name == STANDARD_INPUT else read_file(Path(name))
            found = (given, plan_path) if given is not None else _plan_beside(name)
            context = Context(
                plan=found[0], plan_folder=None if found[1] is None else found[1].parent,
                world_size=world_size, pipeline_stages=pipeline_stages, accelerator=accelerator,
                auto_filled=auto_filled,
            )  # fmt: skip
            linted = lint(content, "<stdin>" if name == STANDARD_INPUT else name, context)
            if fix:
                linted = _fixed(Path(name), linted, context)
        except InputError as error:
            problems += list(error.problems)
            continue
        files.append(linted)
    if patch and files:
        _print_patch(files[0])
    elif files:
        _print(files, "json" if as_json else form)
    if problems:
        raise InputError(problems)
    worth = any(linted.count("error") + linted.count("warning") for linted in files)
    click.get_current_context().exit(1 if worth else 0)


def _plan_beside(name: str) -> tuple[Plan | None, Path | None]:
    """The plan of a rendered directory that the config lies in, if it does."""
    from vdsgen.errors import VdsgenError
    from vdsgen.review.lint.planned import read_plan

    path = Path(name).parent / "plan.json"
    if Path(name).name != "ds_config.json" or not path.is_file():
        return None, None
    try:
        return read_plan(path), path
    except VdsgenError:
        return None, None


def _fixed(path: Path, linted: Linted, context: Context) -> Linted:
    """Writes all repairs, each round on what the last one left; what cannot be repaired is returned."""
    from vdsgen.files import write_atomically
    from vdsgen.review.lint.repair import repaired

    after, operations = repaired(linted, context)
    if operations:
        write_atomically(path, after.document.text.encode("utf-8", "surrogatepass"))
        count = len(operations)
        click.echo(f"{path}: {count} change{'' if count == 1 else 's'} written", err=True)
    return after


def _print_patch(linted: Linted) -> None:
    import json

    from vdsgen.review.lint.patch import all_fixes

    click.echo(json.dumps([dict(one) for one in all_fixes(linted.document, linted.findings)[1]], indent=2))


def _print(files: list[Linted], form: str) -> None:
    if form == "text":
        import os

        from vdsgen.review.lint.text import as_text

        click.echo(as_text(files, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ), nl=False)
        return
    import json

    if form == "sarif":
        from vdsgen.review.lint.sarif import as_sarif

        click.echo(json.dumps(as_sarif(files), indent=2))
        return
    from vdsgen.review.lint.as_json import as_document

    click.echo(json.dumps(as_document(files), indent=2))
