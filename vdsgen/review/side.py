"""One side of a diff: a rendered directory, or a DeepSpeed JSON of any origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdsgen.errors import InputError, Problem
from vdsgen.review.directory import RenderedDirectory, json_object, rendered_directory
from vdsgen.review.lint.reader import read_document
from vdsgen.review.snapshot import read_bytes, snapshot_of_folder

DS_CONFIG = "ds_config.json"


@dataclass(frozen=True, slots=True)
class PlainConfig:
    """A DeepSpeed JSON without a plan."""

    label: str
    """Its path, or `REVISION:PATH`."""
    ds_config: Mapping[str, Any]
    content: bytes

    @property
    def config_file(self) -> str:
        """What messages call the JSON."""
        return self.label


Side = RenderedDirectory | PlainConfig


def plain_config(label: str, content: bytes) -> PlainConfig:
    """Reads as DeepSpeed does: comments and stray commas pass. Raises InputError with line and column where
    it could not, and where a key is given twice, which it refuses."""
    document = read_document(content, label)
    # DeepSpeed's reader takes any YAML for an object without braces.
    if any(loose.what == "no braces around the whole" for loose in document.loose):
        remedy = "name a rendered directory or a DeepSpeed JSON; put braces around one without"
        raise InputError([Problem("no JSON: no braces around the whole", label, remedy=remedy)])
    if not document.loose:
        return PlainConfig(label, json_object(content, label), content)
    return PlainConfig(label, document.plain, content)


def alone(side: Side) -> PlainConfig:
    """The DeepSpeed JSON of a side, without its plan: what can be compared with a plain one."""
    if isinstance(side, PlainConfig):
        return side
    return PlainConfig(side.config_file, side.ds_config, side.files[DS_CONFIG])


def read_side(path: Path) -> Side:
    """A rendered directory, the one that a ds_config.json or plan.json lies in, or else a DeepSpeed JSON.

    Raises VdsgenError or InputError where it is none of these.
    """
    if path.is_dir():
        return rendered_directory(snapshot_of_folder(path))
    if path.name in (DS_CONFIG, "plan.json") and path.is_file():
        around = snapshot_of_folder(path.parent)
        if not around.missing:
            return rendered_directory(around)
    if not path.exists():
        remedy = "name a rendered directory or a DeepSpeed JSON"
        raise InputError([Problem("does not exist", str(path), remedy=remedy)])
    return plain_config(str(path), read_bytes(path))
