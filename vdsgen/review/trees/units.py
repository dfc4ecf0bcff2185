"""What can be compared within a side's files: rendered directories, and DeepSpeed JSONs outside of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from vdsgen.errors import VdsgenError
from vdsgen.review.directory import rendered_directory
from vdsgen.review.side import Side, plain_config
from vdsgen.review.snapshot import NEEDED, RENDERED_FILES, Snapshot
from vdsgen.review.trees.files import Files, folders

TELLING = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "zero_optimization",
    "gradient_accumulation_steps",
)
"""Keys of which a DeepSpeed config has one at least."""
MOST_CONFIG_BYTES = 1024**2


@dataclass(frozen=True, eq=False)
class Unit:
    """A rendered directory, or one DeepSpeed JSON."""

    files: Files
    path: str
    """Of the folder, or of the file."""
    parts: Mapping[str, str]
    """File name -> path, of all that belongs to it."""
    rendered: bool

    @property
    def label(self) -> str:
        return self.files.label_of(self.path)

    @property
    def shown_path(self) -> str:
        return self.path or self.files.label or "."

    @cached_property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """Equal for equal content."""
        return tuple(sorted((name, self.files.oids[path]) for name, path in self.parts.items()))

    @cached_property
    def contents(self) -> Mapping[str, bytes]:
        """File name -> content."""
        read = self.files.read(list(self.parts.values()))
        return {name: read[path] for name, path in self.parts.items() if path in read}

    @cached_property
    def side(self) -> Side:
        """Raises VdsgenError where a file cannot be read as what it is."""
        if self.rendered:
            return rendered_directory(Snapshot(self.label, self.contents))
        (content,) = self.contents.values() or (b"",)
        return plain_config(self.label, content)

    @property
    def is_config(self) -> bool:
        """Whether a JSON is a DeepSpeed config at all."""
        return self.rendered or self.files.named or _is_config(next(iter(self.contents.values()), b""))


def units_of(files: Files) -> dict[str, Unit]:
    """Path -> unit. JSON files outside of rendered directories may still be something else (`is_config`)."""
    found: dict[str, Unit] = {}
    for folder, names in folders(files.oids).items():
        prefix = f"{folder}/" if folder else ""
        if set(NEEDED) <= set(names):
            parts = {name: prefix + name for name in names if name in RENDERED_FILES}
            found[folder] = Unit(files, folder, parts, rendered=True)
            continue
        for name in names:
            if name.endswith(".json") or files.named:
                found[prefix + name] = Unit(files, prefix + name, {name: prefix + name}, rendered=False)
    return found


def _is_config(content: bytes) -> bool:
    if len(content) > MOST_CONFIG_BYTES or not any(key.encode() in content for key in TELLING):
        return False
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        try:
            value = plain_config("", content).ds_config
        except VdsgenError:
            return False
    return isinstance(value, dict) and any(key in value for key in TELLING)
