"""How fast a node's ranks save where runs will lie: files of tensors, on the disk, hashed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vdsgen.profile.calibrate_samples import Samples
from vdsgen.profile.calibrate_shapes import CHECKPOINT, CHECKPOINT_BYTES
from vdsgen.spec.checkpoints import sha256_of

TENSORS = 32
ROUNDS = 5


def storage_samples(folder: Path, rank: int, all_begin: Callable[[], None]) -> Samples:
    """Seconds that this rank takes to save as all ranks do, written, flushed and hashed. Raises OSError where
    the folder cannot hold it; nothing is left there."""
    elements = CHECKPOINT_BYTES // TENSORS // 4
    tensors = [torch.full((elements,), float(index)) for index in range(TENSORS)]
    path = folder / f".vdsgen-calibrate-{os.getpid()}-{rank}.pt"
    seconds = []
    try:
        for _ in range(ROUNDS):
            all_begin()
            began = time.perf_counter()
            torch.save(tensors, path)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            sha256_of(path)
            seconds.append(time.perf_counter() - began)
            path.unlink()
    finally:
        path.unlink(missing_ok=True)
    return {CHECKPOINT: seconds}
