"""The folder of a cache: which entries it holds, where, and whether they are whole.

FOLDER/cache.json       what the folder is
FOLDER/shards/          shards and their manifests (shards.py)
FOLDER/files.txt        hashes of files (content.py)
FOLDER/locks/           locks (locks.py)
FOLDER/progress/        what is being encoded right now
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.shards import (
    MANIFEST_SUFFIX,
    SUFFIX,
    DamageError,
    Manifest,
    read_manifest,
)

FORMAT = 1
MARK, MARK_FORMAT = "cache.json", "vdsgen latent cache"
DAMAGED_SUFFIX, SUSPECT_SUFFIX = ".damaged", ".suspect"
"""A manifest whose shard is damaged, and an empty file beside a shard that somebody could not read."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where an entry lies."""

    shard: str
    """Name without suffix."""
    crc: int


class Store:
    """What a cache holds, as this process knows it; `refresh` learns what others have added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = folder / "shards"
        self.manifests: dict[str, Manifest] = {}
        self.damaged: dict[str, str] = {}
        """Name of a shard -> what is wrong with it."""
        self._entries: dict[str, Located] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def keys(self) -> set[str]:
        return set(self._entries)

    def located(self, key: str) -> Located:
        return self._entries[key]

    def file(self, shard: str) -> Path:
        return self.shards / (shard + SUFFIX)

    def refresh(self) -> None:
        """Reads manifests that are new here, and compares the sizes of their shards."""
        for name in sorted(self._names() - self.manifests.keys() - self.damaged.keys()):
            try:
                self.add(self._whole(name))
            except DamageError as error:
                self.damaged[name] = error.reason
            except FileNotFoundError:  # pruned meanwhile
                continue

    def _names(self) -> set[str]:
        try:
            names = os.listdir(self.shards)  # noqa: PTH208 - asked for very often
        except FileNotFoundError:
            return set()
        return {
            name.removesuffix(MANIFEST_SUFFIX)
            for name in names
            if name.endswith(MANIFEST_SUFFIX) and name[0] != "."
        }

    def _whole(self, name: str) -> Manifest:
        manifest = read_manifest(self.shards / (name + MANIFEST_SUFFIX))
        path = self.file(name)
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            raise DamageError(path, "is missing") from None
        if size_bytes != manifest.size_bytes:
            raise DamageError(path, f"has {size_bytes} bytes, should have {manifest.size_bytes}")
        return manifest

    def add(self, manifest: Manifest) -> None:
        self.manifests[manifest.name] = manifest
        for key, crc in manifest.checksums.items():
            self._entries[key] = Located(manifest.name, crc)

    def verify(self, names: Iterable[str], contents: Contents) -> dict[str, str]:
        """Of these shards those whose bytes are not what was written, and what is wrong with each. Bytes that
        `contents` remembers are not read again, unless a reader has found something wrong."""
        wrong: dict[str, str] = {}
        chosen = sorted(names)
        for name in chosen:
            if self._suspect(name).exists():
                contents.forget(self.file(name))
        found = contents.of_all(self.file(name) for name in chosen)
        for name, digest in zip(chosen, found, strict=True):
            if isinstance(digest, OSError):
                wrong[name] = f"cannot be read ({digest.strerror})"
            elif digest != self.manifests[name].sha256:
                wrong[name] = "has other bytes than were written"
        return wrong

    def retire(self, damaged: dict[str, str]) -> None:
        """From now on what these shards hold is not there, for nobody. The files stay, since somebody may be
        reading what is whole in them; pruning removes them."""
        for name in damaged:
            manifest = self.shards / (name + MANIFEST_SUFFIX)
            if manifest.exists():
                manifest.replace(manifest.with_suffix(DAMAGED_SUFFIX))
            self._suspect(name).unlink(missing_ok=True)
            self.forget(name)

    def forget(self, name: str) -> None:
        self.damaged.pop(name, None)
        gone = self.manifests.pop(name, None)
        for key in gone.checksums if gone is not None else ():
            if key in self._entries and self._entries[key].shard == name:
                del self._entries[key]

    def suspect(self, name: str) -> None:
        """Has the next start look at all bytes of a shard."""
        self._suspect(name).touch()

    def _suspect(self, name: str) -> Path:
        return self.shards / (name + SUSPECT_SUFFIX)


def open_store(folder: Path, *, make: bool) -> Store:
    """With all that is there. `make`: the folder need not exist.

    Raises VdsgenError where the folder is something else, or of another version.
    """
    mark = folder / MARK
    if not mark.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise VdsgenError(
                f"data.cache.folder: {folder} is no cache of latents, and not empty",
                remedy="name a new or an empty folder",
            )
        if make:
            content = {"format": MARK_FORMAT, "version": FORMAT}
            write_atomically(mark, (json.dumps(content) + "\n").encode())
    else:
        _check_mark(mark)
    store = Store(folder)
    if make:
        store.shards.mkdir(exist_ok=True)
    store.refresh()
    return store


def _check_mark(mark: Path) -> None:
    try:
        found = json.loads(mark.read_bytes())
        kind, version = found["format"], found["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VdsgenError(f"{mark} is no mark of a cache of latents") from error
    if (kind, version) != (MARK_FORMAT, FORMAT):
        raise VdsgenError(
            f"{mark.parent} is a cache of version {version}, this vdsgen writes version {FORMAT}",
            remedy="name another folder under data.cache.folder",
        )
