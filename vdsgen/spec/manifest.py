"""`vdsgen.yaml`: which experiment and which lab each rendered directory of a tree comes from."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from vdsgen.spec.base import Name, PathText, SpecWithOptions

MANIFEST = "vdsgen.yaml"
"""Its name; it lies in the tree's root."""


def _relative(path: str) -> str:
    if PurePosixPath(path).is_absolute():
        raise ValueError("is a path of one machine; one relative to this file is needed")
    return path


def _below(path: str) -> str:
    if ".." in PurePosixPath(_relative(path)).parts:
        raise ValueError("leads out of the tree; directories are rendered below this file")
    return path


RelativePath = Annotated[PathText, AfterValidator(_relative)]
PathBelow = Annotated[PathText, AfterValidator(_below)]


class Rendering(SpecWithOptions):
    """One experiment on one lab, as `vdsgen generate` is told. Paths start at this file."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"pools", "set", "also", "templates"})

    experiment: RelativePath
    lab: RelativePath
    out: PathBelow
    """The rendered directory; of several pools, one below it for each."""
    pools: tuple[Name, ...] = ()
    """Of the lab; all that there are, and that something fits, unless given."""
    set: tuple[str, ...] = ()
    """Changes to keys of the experiment: `KEY=VALUE`."""
    also: tuple[Literal["accelerate", "megatron", "diffusion-pipe"], ...] = ()
    """Files for other trainers too."""
    templates: RelativePath | None = None
    """A folder with templates of the lab's own."""


class Manifest(SpecWithOptions):
    """`vdsgen.yaml`"""

    rendered: tuple[Rendering, ...]
