"""Locks that a killed compile leaves behind, on which every later start would wait silently for ever."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdsgen.spec.run import section_of


def extensions_folder(environment: Mapping[str, str]) -> Path:
    """Where torch and DeepSpeed build operators (torch/utils/cpp_extension.py, get_default_build_root)."""
    chosen = environment.get("TORCH_EXTENSIONS_DIR")
    cache = environment.get("XDG_CACHE_HOME")
    return Path(chosen) if chosen else (Path(cache) if cache else Path.home() / ".cache") / "torch_extensions"


def stale_locks(folder: Path) -> list[Path]:
    """Locks below `folder` that no process on this machine holds, of this user's.

    A compile keeps its lock file open from its creation to its removal (torch/utils/file_baton.py:34,61), so
    a lock that no process has open is left from one that was killed. Only one's own processes can be looked
    into: others' locks are left out.
    """
    found = [*folder.glob("*/lock"), *folder.glob("*/*/lock")] if folder.is_dir() else []
    mine = [path for path in found if path.is_file() and path.stat().st_uid == os.getuid()]
    held = _open_files() if mine else set()
    return sorted(path for path in mine if path.exists() and _identity(path) not in held)


def compiles_operators(ds_config: Mapping[str, Any]) -> bool:
    """Whether DeepSpeed builds operators at the start of such a run: for every optimizer of its own
    (runtime/engine.py:2476-2590; torch's is asked for by `torch_adam`), and for offload to NVMe
    (swap_tensor/partitioned_optimizer_swapper.py:31). Offload to host memory with torch's compiles nothing.
    """
    optimizer = section_of(ds_config, "optimizer")
    zero = section_of(ds_config, "zero_optimization")
    offloads = any(
        section_of(zero, key).get("device") == "nvme" for key in ("offload_optimizer", "offload_param")
    )
    own = bool(optimizer) and not section_of(optimizer, "params").get("torch_adam", False)
    return own or offloads


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _open_files() -> set[tuple[int, int]]:
    """Device and inode of every file that a process of this user has open."""
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(_identity(descriptor))
        except OSError:
            continue
    return found
