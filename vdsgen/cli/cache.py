"""`vdsgen cache`: encode clips and captions before training does, and look after what is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdsgen.model.cache.command import CacheReport
    from vdsgen.spec.experiment import Experiment

NAMED_AT_MOST = 20


@click.command()
@click.argument(
    "inputs", metavar="DIR_OR_EXPERIMENT...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of an experiment; repeatable.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes; default: one a GPU, else one a core, 8 at most.",
)
@click.option(
    "--check", "only_check", is_flag=True, help="Read every byte, write nothing; exit 1 if not whole."
)
@click.option("--prune", "pruning", is_flag=True, help="Remove what none of the inputs needs.")
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document.")
def command(
    inputs: tuple[Path, ...],
    overrides: tuple[str, ...],
    workers: int | None,
    only_check: bool,
    pruning: bool,
    as_document: bool,
) -> None:
    """Encode the clips and captions of rendered directories or experiment files into their caches
    (data.cache), as far as they are not there.

    Training does so by itself at its start; this is for doing it beforehand, on other machines, or by several
    machines at once: any number may work on one folder. What is damaged is made again. Exits with 0, with
    1 if
    --check finds something missing or damaged, with 2 for bad input. Needs torch.
    """
    from importlib.util import find_spec

    from vdsgen.errors import VdsgenError

    if only_check and (pruning or workers is not None):
        raise click.UsageError("--check writes nothing: it goes with neither --prune nor --workers.")
    experiments = [_experiment(path, overrides) for path in inputs]
    for path, experiment in zip(inputs, experiments, strict=True):
        if experiment.data.cache is None:
            raise VdsgenError(
                f"{path}: data.cache is not set, there is nothing to encode into",
                remedy="add `cache: {folder: FOLDER}` to the data section, or --set data.cache.folder=FOLDER",
            )
    if find_spec("torch") is None:
        raise VdsgenError(
            "encoding needs torch, which is not installed", remedy="pip install 'vdsgen[train]'"
        )
    reports = _run(experiments, workers, only_check=only_check, pruning=pruning)
    if as_document:
        import json

        click.echo(json.dumps([_document(report) for report in reports], indent=2))
    else:
        for report in reports:
            click.echo(_text(report, only_check=only_check))
    failed = only_check and not all(report.complete for report in reports)
    click.get_current_context().exit(1 if failed else 0)


def _experiment(path: Path, overrides: Sequence[str]) -> Experiment:
    """Of a rendered directory or an experiment file, its model resolved."""
    from vdsgen.catalog.resolve import resolve_experiment
    from vdsgen.cli.plan import problems_placed
    from vdsgen.errors import VdsgenError
    from vdsgen.spec.load import load_experiment

    file = path / "train.yaml" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise VdsgenError(
            f"{path} is no rendered directory: it has no train.yaml",
            remedy="name one, or an experiment file",
        )
    with problems_placed(file, overrides):
        return resolve_experiment(load_experiment(file, overrides))


def _run(
    experiments: Sequence[Experiment], workers: int | None, *, only_check: bool, pruning: bool
) -> list[CacheReport]:
    import contextlib
    import sys

    from vdsgen.cli.progress import ProgressLine

    # Libraries that encoders need print while they are imported; our standard output carries the result.
    with contextlib.redirect_stdout(sys.stderr):
        from vdsgen.model.cache.command import check_caches, fill_caches

        progress = ProgressLine("Reading" if only_check else "Encoding")
        try:
            if only_check:
                return check_caches(experiments, progress)
            return fill_caches(experiments, workers, progress, pruning=pruning)
        finally:
            progress.erase()


def _text(report: CacheReport, *, only_check: bool) -> str:
    whole = f"{report.there} of {report.needed} entries are there"
    lines = [f"{report.folder}: {whole}" + ("" if only_check else f", {report.made.entries} were made")]
    if not only_check and report.made.entries:
        lines[0] += f" in {report.seconds:.1f} s"
    lines += [f"  damaged: {path} {reason}" for path, reason in report.damaged.items()]
    left_out = list(report.unreadable.items())
    lines += [f"  left out: {path}: {reason}" for path, reason in left_out[:NAMED_AT_MOST]]
    if len(left_out) > NAMED_AT_MOST:
        lines.append(f"  left out: {len(left_out) - NAMED_AT_MOST} more")
    shards = "1 shard" if report.shards == 1 else f"{report.shards} shards"
    lines.append(f"  {shards}, {report.stored_bytes / 2**20:.1f} MiB")
    if report.pruned is not None:
        pruned = report.pruned
        lines.append(
            f"  removed {pruned.entries} entries that nothing here needs and {pruned.leftovers} leftovers: "
            f"{pruned.freed_bytes / 2**20:.1f} MiB"
        )
    elif report.unused:
        lines.append(
            f"  {report.unused} entries are not needed here; --prune removes them: name every experiment "
            "whose entries are to stay"
        )
    if only_check and not report.complete:
        lines.append("  -> `vdsgen cache` without --check makes what is missing and what is damaged")
    return "\n".join(lines)


def _document(report: CacheReport) -> dict[str, object]:
    return {
        "folder": str(report.folder),
        "needed": report.needed,
        "there": report.there,
        "made": report.made.entries,
        "damaged": report.damaged,
        "left_out": report.unreadable,
        "shards": report.shards,
        "stored_bytes": report.stored_bytes,
        "unused": report.unused,
        "removed": None if report.pruned is None else report.pruned.entries,
        "complete": report.complete,
    }
