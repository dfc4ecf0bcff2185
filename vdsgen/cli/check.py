"""`vdsgen check`: fail if rendered directories are stale or were edited by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdsgen.cli.options import review_options

if TYPE_CHECKING:
    from vdsgen.review.trees.check import CheckedTree
    from vdsgen.review.trees.fix import Adopted, Fixed
    from vdsgen.spec.experiment import Experiment
    from vdsgen.spec.lab import Pool
    from vdsgen.spec.plan import Plan


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--fix", "fixing", is_flag=True, help="Render anew what is not fresh.")
@click.option(
    "--adopt",
    is_flag=True,
    help="With --fix: write edits of ds_config.json that can be overrides into the experiment.",
)
@click.option(
    "--force", is_flag=True, help="With --fix: also what was edited by hand; edited files are kept aside."
)
@click.option(
    "--templates",
    "template_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The templates of your own that they were rendered with.",
)
@review_options
@click.option("-v", "--verbose", is_flag=True, help="Every directory by name, and the lines that differ.")
def command(
    paths: Sequence[Path],
    fixing: bool,
    adopt: bool,
    force: bool,
    template_dir: Path | None,
    form: str,
    as_json: bool,
    verbose: bool,
) -> None:
    """Plan again from what the rendered directories in and below each PATH come from, and compare their files
    with the result.

    They come from what the nearest vdsgen.yaml names (docs/reviewing.md), else from what they record
    themselves. Exits with 0 if all are the same to the byte; with 1 if not, and shows whether they are out
    of date, edited by hand, made by another version or orphaned; with 2 where one cannot be checked. With
    --fix the exit code is that of what is left.
    """
    from vdsgen.cli.generate import checked_templates
    from vdsgen.cli.progress import ProgressLine
    from vdsgen.review.trees.check import TreeCheck
    from vdsgen.review.trees.fix import adopt as adopt_edits
    from vdsgen.review.trees.fix import fix as fix_tree

    if (adopt or force) and not fixing:
        raise click.UsageError(f"--{'adopt' if adopt else 'force'} goes with --fix.")
    checked_templates(template_dir)
    progress = ProgressLine("Planning")
    checking = TreeCheck(plan_again, template_dir, progress)
    adopted: list[Adopted] = []
    fixed: list[Fixed] = []
    try:
        tree = checking(paths)
        if adopt:
            adopted = adopt_edits(tree, checking.plan, template_dir)
            tree = checking(paths)
        if fixing:
            fixed = fix_tree(tree, checking.plan, force=force)
            tree = checking(paths)
    finally:
        progress.erase()
    _alone_and_broken(tree, paths)
    _show(tree, paths, adopted, fixed, "json" if as_json else form, verbose=verbose)
    click.get_current_context().exit(tree.exit_code)


def _alone_and_broken(tree: CheckedTree, paths: Sequence[Path]) -> None:
    """Raises VdsgenError for what is no rendered directory and has none below it, and for a single one that
    cannot be read."""
    if not tree.directories and not tree.manifests:
        from vdsgen.review.directory import read_directory

        for path in paths:
            read_directory(path)
    if len(tree.directories) == 1 and tree.directories[0].error is not None:
        raise tree.directories[0].error


def _show(
    tree: CheckedTree,
    paths: Sequence[Path],
    adopted: Sequence[Adopted],
    fixed: Sequence[Fixed],
    form: str,
    *,
    verbose: bool,
) -> None:
    from vdsgen.review.trees.text import fixed_text, single_text, title_of, tree_text

    if form == "json":
        from vdsgen.render.serialise import pretty_json
        from vdsgen.review.trees.document import tree_document

        click.echo(pretty_json(tree_document(tree, adopted, fixed)), nl=False)
        return
    if form == "markdown":
        from vdsgen.review.trees.document import tree_markdown

        click.echo(tree_markdown(tree, title_of(paths)), nl=False)
        return
    click.echo(fixed_text(adopted, fixed), nl=False)
    only = tree.directories[0] if len(tree.directories) == 1 else None
    if only is not None and only.checked is not None and only.path in paths:
        click.echo(single_text(only, only.checked), nl=False)
        return
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    click.echo(tree_text(tree, title_of(paths), colour=colour, verbose=verbose), nl=False, color=colour)


def plan_again(experiment: Experiment, pool: Pool) -> Plan:
    """As `vdsgen generate` plans."""
    from vdsgen.catalog.resolve import resolve_experiment
    from vdsgen.cli.profiles import find_profile
    from vdsgen.planner.plan import make_plan

    resolved = resolve_experiment(experiment)
    return make_plan(resolved, pool, find_profile(resolved))
