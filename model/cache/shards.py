"""One file of the cache: many entries as safetensors, and beside it a manifest that says what it must hold.

NAME.safetensors appears under its name when it is whole, and NAME.json after it: a shard without a
manifest was interrupted, and counts for nothing. NAME is the hash of the bytes, so two writers of the same
bytes write the same file. Reading asks for single tensors: files are never mapped, since a mapped file
that is cut off later kills the process that reads it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.model.cache.encoders import Tensors
from vdsgen.model.data.reading import read_at

SUFFIX, MANIFEST_SUFFIX = ".safetensors", ".json"
_MOST_HEADER_BYTES = 100_000_000
"""As the safetensors library has it."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class DamageError(VdsgenError):
    """A shard is not what its manifest says. `reason` follows the file's name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} {reason}", remedy="`vdsgen cache` makes again what was in it; so does the next start"
        )
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamageError], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a shard must hold."""

    name: str
    size_bytes: int
    sha256: str
    checksums: Mapping[str, int]
    """CRC-32 of each entry's tensors, by the entry's key."""
    made_of: Mapping[str, str]
    """For people: the file or the beginning of the caption that each entry was made of."""


def write_shard(folder: Path, entries: Mapping[str, Tensors], made_of: Mapping[str, str]) -> Manifest:
    """Returns when the shard and its manifest are on the disk. Raises OSError."""
    tensors = {
        f"{key}/{name}": tensor.contiguous()
        for key, parts in entries.items()
        for name, tensor in parts.items()
    }
    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    manifest = Manifest(
        name=digest[:32],
        size_bytes=len(content),
        sha256=digest,
        checksums={key: checksum(parts) for key, parts in entries.items()},
        made_of=made_of,
    )
    write_atomically(folder / (manifest.name + SUFFIX), content)
    values = {
        "bytes": manifest.size_bytes,
        "sha256": manifest.sha256,
        "entries": {key: [crc, made_of.get(key, "")] for key, crc in manifest.checksums.items()},
    }
    write_atomically(folder / (manifest.name + MANIFEST_SUFFIX), json.dumps(values).encode())
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Raises DamageError where it is no manifest, OSError where it cannot be read."""
    try:
        values = json.loads(path.read_bytes())
        entries = {str(key): (int(crc), str(of)) for key, (crc, of) in values["entries"].items()}
        return Manifest(
            name=path.name.removesuffix(MANIFEST_SUFFIX),
            size_bytes=int(values["bytes"]),
            sha256=str(values["sha256"]),
            checksums={key: crc for key, (crc, _) in entries.items()},
            made_of={key: of for key, (_, of) in entries.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamageError(path, "is no manifest of a shard") from error


def checksum(tensors: Tensors) -> int:
    """CRC-32 of the bytes of all tensors, in the order of their names."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(memoryview(_bytes_of(tensors[name])), crc)
    return crc


def _bytes_of(tensor: torch.Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


class ShardFile:
    """A shard that is open for reading."""

    def __init__(self, path: Path) -> None:
        """Raises DamageError where the file is cut off, no shard, or not there."""
        self.path = path
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DamageError(path, f"cannot be read ({error.strerror})") from error
        try:
            self._tensors, self._data_begins = _header(path, self._descriptor)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def read(self, key: str, crc: int) -> Tensors:
        """The tensors of an entry, by name. Raises DamageError where they are not those that were written."""
        names = self._tensors.get(key)
        if names is None:
            raise DamageError(self.path, f"lacks the entry {key}")
        tensors = {name: self._tensor(*place) for name, place in names.items()}
        if checksum(tensors) != crc:
            raise DamageError(self.path, f"has other bytes in the entry {key} than were written")
        return tensors

    def _tensor(self, dtype: torch.dtype, shape: tuple[int, ...], start: int, stop: int) -> torch.Tensor:
        try:
            content = read_at(self._descriptor, stop - start, self._data_begins + start)
        except OSError as error:
            raise DamageError(self.path, f"cannot be read ({error.strerror})") from error
        if len(content) != stop - start:
            raise DamageError(self.path, "is cut off")
        if not content:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(bytearray(content), dtype=dtype).view(shape)


_Place = tuple[torch.dtype, tuple[int, ...], int, int]
"""Element type, shape, and where the bytes lie: the first, and one past the last."""


def _header(path: Path, descriptor: int) -> tuple[dict[str, dict[str, _Place]], int]:
    """Where each tensor lies, by entry and name; and where the data begin
    (huggingface.co/docs/safetensors, "Format")."""
    size_bytes = os.fstat(descriptor).st_size
    head = read_at(descriptor, 8, 0)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else _MOST_HEADER_BYTES + 1
    if length > min(_MOST_HEADER_BYTES, size_bytes - 8):
        raise DamageError(path, "is cut off, or no shard")
    places: dict[str, dict[str, _Place]] = {}
    try:
        for full_name, facts in json.loads(read_at(descriptor, length, 8)).items():
            key, _, name = full_name.partition("/")
            if full_name == "__metadata__":
                continue
            dtype, shape = _DTYPES[facts["dtype"]], tuple(int(edge) for edge in facts["shape"])
            start, stop = (int(offset) for offset in facts["data_offsets"])
            if min(shape, default=0) < 0 or stop - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(full_name)
            if not 0 <= start <= stop <= size_bytes - 8 - length:
                raise ValueError(full_name)
            places.setdefault(key, {})[name] = (dtype, shape, start, stop)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamageError(path, "has a damaged header") from error
    return places, 8 + length
