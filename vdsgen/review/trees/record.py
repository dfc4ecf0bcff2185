"""`vdsgen generate --record`: what a directory was rendered from, noted in its tree's manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.render.serialise import pretty_yaml
from vdsgen.review.trees.entries import read_manifest
from vdsgen.spec.manifest import MANIFEST, Manifest, Rendering
from vdsgen.spec.text_file import read_text
from vdsgen.spec.yaml_source import parse_yaml

HEAD = """\
# Which experiment and lab each rendered directory below comes from: `vdsgen check` compares them, and
# `vdsgen generate --manifest` renders them all.
rendered:
"""


def rendering_of(
    manifest: Path,
    experiment: Path,
    lab: Path,
    out: Path,
    pools: Sequence[str],
    overrides: Sequence[str],
    template_dir: Path | None,
    also: Sequence[str],
) -> Rendering:
    """The entry, its paths beside the manifest. Raises VdsgenError where it cannot be one."""
    if manifest.name != MANIFEST:
        raise VdsgenError(f"{manifest} has another name than {MANIFEST}, which `vdsgen check` looks for")

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path.absolute(), manifest.parent.absolute())).as_posix()

    values: dict[str, Any] = {
        "experiment": relative(experiment),
        "lab": relative(lab),
        "out": relative(out),
        "pools": tuple(pools),
        "set": tuple(overrides),
        "also": tuple(also),
        "templates": None if template_dir is None else relative(template_dir),
    }
    try:
        return Rendering(**values)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        message = str(detail["msg"]).removeprefix("Value error, ")
        key, given = ".".join(map(str, detail["loc"])), values.get(str(detail["loc"][0]))
        raise VdsgenError(f"{manifest}: {key} {given!r} {message}") from error


def record_rendering(manifest: Path, rendering: Rendering) -> str:
    """Adds the entry, or puts it in the place of the one with the same `out`; returns what was done. Comments
    elsewhere in the file stay. Raises VdsgenError or OSError."""
    entry = rendering.model_dump(mode="json")
    if not manifest.exists():
        write_atomically(manifest, (HEAD + _item(entry)).encode())
        return "written"
    known = read_manifest(manifest).rendered
    if rendering in known:
        return "says so already"
    if any(os.path.normpath(one.out) == os.path.normpath(rendering.out) for one in known):
        raise VdsgenError(
            f"{manifest} says that {rendering.out} comes from something else",
            remedy="change its entry there, or choose another --out",
        )
    text = read_text(manifest)
    added = f"{text.rstrip()}\n{_item(entry)}"
    expected = (*known, rendering)
    try:
        written = Manifest.model_validate_json(json.dumps(parse_yaml(added, str(manifest)).plain()))
    except (VdsgenError, ValidationError):
        written = None
    if written is None or written.rendered != expected:
        raise VdsgenError(
            f"{manifest} is written so that no program can add to it", remedy=f"add by hand:\n{_item(entry)}"
        )
    write_atomically(manifest, added.encode())
    return "entry added"


def _item(entry: dict[str, Any]) -> str:
    lines = pretty_yaml(entry).rstrip("\n").split("\n")
    return "".join(f"  {'- ' if number == 0 else '  '}{line}\n" for number, line in enumerate(lines))
