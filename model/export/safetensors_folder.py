"""Folders of `config.json` and safetensors, in several files where they are large: as diffusers has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.model.export.stored import Weights

FILE_BYTES = 5 * 10**9
"""Most bytes a file, and in memory at a time; diffusers' own default is 10 GB."""


def write_folder(
    out: Path,
    config: Mapping[str, Any],
    weights: Weights,
    stem: str,
    *,
    config_name: str = "config.json",
    metadata: Mapping[str, str] | None = None,
    file_bytes: int = FILE_BYTES,
) -> list[Path]:
    """Writes OUT/STEM.safetensors, or STEM-00001-of-0000N.safetensors with their index, and OUT/CONFIG_NAME.
    The config comes last: a folder with it is complete. `metadata` is put into each file. Raises VdsgenError
    where OUT holds something."""
    from safetensors.torch import save_file

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise VdsgenError(f"{out} exists and is no empty folder", remedy="name a new one")
    out.mkdir(parents=True, exist_ok=True)
    parts = in_files(weights, file_bytes)
    names = [f"{stem}.safetensors"]
    if len(parts) > 1:
        names = [f"{stem}-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        # A file at a time: the model is never in memory as a whole.
        tensors = {key: weights[key].read().contiguous() for key in part}
        save_file(tensors, str(out / name), metadata={"format": "pt", **(metadata or {})})
        (out / name).chmod(0o644)  # as the other files: safetensors leaves it to its owner alone
    if len(parts) > 1:
        index = {
            "metadata": {"total_size": sum(one.size_bytes for one in weights.values())},
            "weight_map": {key: name for name, part in zip(names, parts, strict=True) for key in part},
        }
        _write_json(out / f"{stem}.safetensors.index.json", index)
    _write_json(out / config_name, config)
    return [out / name for name in names]


def in_files(weights: Weights, file_bytes: int) -> list[list[str]]:
    """Names of the tensors of each file, in their order; a tensor that is larger has a file of its own."""
    parts: list[list[str]] = [[]]
    room = file_bytes
    for name, one in weights.items():
        if one.size_bytes > room and parts[-1]:
            parts.append([])
            room = file_bytes
        parts[-1].append(name)
        room -= one.size_bytes
    return parts


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
