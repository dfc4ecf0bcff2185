"""Files that a lab file names and that become part of it."""

from __future__ import annotations

from pathlib import Path

from vdsgen.errors import InputError
from vdsgen.spec.source import Source
from vdsgen.spec.yaml_source import read_yaml


def include_calibrations(source: Source, folder: Path) -> None:
    """Puts the content of each pool's calibration file in the place of its path; what is wrong in it is
    then reported at its place in that file.

    Relative paths start at `folder`. Raises InputError where a file cannot be read.
    """
    pools = source.find(("pools",))
    problems = []
    for index, pool in enumerate((pools.items or []) if pools is not None else []):
        entry = (pool.entries or {}).get("calibration")
        if entry is None or not isinstance(entry[1].value, str):
            continue
        place, node = entry
        try:
            pool.entries["calibration"] = (place, read_yaml(folder / node.value).root)  # type: ignore[index,operator]
        except InputError as error:
            problems += [
                source.problem(
                    ("pools", index, "calibration"),
                    f"{node.value}: {problem.message}",
                    remedy="write the file with `vdsgen calibrate --out FILE`",
                )
                if problem.line is None
                else problem
                for problem in error.problems
            ]
    if problems:
        raise InputError(problems)
