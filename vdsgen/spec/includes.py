"""Files that a lab file names and that become part of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vdsgen.errors import InputError, Problem
from vdsgen.spec.shown import shown
from vdsgen.spec.source import KeyPath, Node, Source
from vdsgen.spec.yaml_source import read_yaml


def include_calibrations(source: Source, folder: Path) -> None:
    """Puts the content of every calibration file in the place of its path; what is wrong in it
    is then reported at its place in that file.

    Relative paths start at `folder`. Raises InputError where a file cannot be read.
    """
    problems: list[Problem] = []
    for path, node in _with_calibration(source):
        entry = (node.entries or {}).get("calibration")
        if entry is None or not isinstance(entry[1].value, str):
            continue
        place, written = entry
        file = folder / str(written.value)
        try:
            if _is_special(file):
                raise InputError([Problem("is no regular file", str(file))])
            read = read_yaml(file).root
        except InputError as error:
            problems += [
                source.problem(
                    (*path, "calibration"),
                    f"{written.value}: {problem.message}",
                    remedy="write the file with `vdsgen calibrate --out FILE`",
                )
                if problem.line is None
                else problem
                for problem in error.problems
            ]
        else:
            if read.entries is None:  # a text would pass for one more path
                problems.append(
                    source.problem(
                        (*path, "calibration"),
                        f"{written.value}: holds {shown(read.plain())}, should hold a mapping",
                        remedy="write the file with `vdsgen calibrate --out FILE`",
                    )
                )
                continue
            assert node.entries is not None
            node.entries["calibration"] = (place, read)
    if problems:
        raise InputError(problems)


def _is_special(file: Path) -> bool:
    """A pipe or a device: whoever opens one that a lab file names may wait for ever."""
    try:
        return file.exists() and not file.is_file() and not file.is_dir()
    except (OSError, ValueError):  # which reading it says better
        return False


def _with_calibration(source: Source) -> Iterator[tuple[KeyPath, Node]]:
    """The pools and their groups."""
    pools = source.find(("pools",))
    for index, pool in enumerate((pools.items or []) if pools is not None else []):
        yield ("pools", index), pool
        groups = source.find(("pools", index, "groups"))
        for at, group in enumerate((groups.items or []) if groups is not None else []):
            yield ("pools", index, "groups", at), group
