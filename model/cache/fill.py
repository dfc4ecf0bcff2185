"""Encoding what is missing, in as many processes as there are: one calls `fill` in each, wherever they run.

Entries are dealt into LOCKS lots by what they are made of. A process takes a lot's lock, looks again at
what is there, encodes the rest, and gives the lock back when the shard that holds it is on the disk. So
processes that know nothing of each other share the work, and one that dies leaves what it had not written
to the others.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vdsgen.errors import VdsgenError
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.encoders import Encoders, MakeEncoders, Tensors
from vdsgen.model.cache.locks import Lock, held, use_lock
from vdsgen.model.cache.needs import ClipNeed, TextNeed
from vdsgen.model.cache.shards import Manifest, write_shard
from vdsgen.model.cache.store import Store, open_store
from vdsgen.model.data.decode import decode_clip
from vdsgen.model.data.picture import fit
from vdsgen.model.data.video import VideoError
from vdsgen.model.heartbeat import HEART

LOCKS = 1024
FLUSH_SECONDS = 300.0
"""A shard is closed after so long, however little it holds: what an interruption loses at most."""
DECODED_AHEAD = 2
"""Clips that are decoded while one is encoded."""
POLL_SECONDS = 0.2
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Need = ClipNeed | TextNeed


@dataclass(frozen=True)
class Work:
    """What is missing, and how it is made: the same in every process that takes part."""

    folder: Path
    clips: Sequence[ClipNeed]
    texts: Sequence[TextNeed]
    make_encoders: MakeEncoders
    dtype: str
    """Of stored latents, as the experiment has it."""
    shard_bytes: int

    @property
    def entries(self) -> int:
        return len(self.clips) + len(self.texts)


@dataclass
class Made:
    """What one process has done."""

    entries: int = 0
    stored_bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """File -> why it cannot be decoded."""


def _tell_nobody(_done: int) -> None:
    pass


def fill(
    work: Work,
    device: str,
    worker: int = 0,
    workers: int = 1,
    progress: Callable[[int], None] = _tell_nobody,
) -> Made:
    """Encodes what nobody else does. Returns when everything that can be made is there.

    `progress` is told how many of the entries this process has made. Raises VdsgenError where encoders
    cannot be loaded, or latents do not fit the element type that they are to be stored in.
    """
    made = Made()
    with held(use_lock(work.folder).path, shared=True):
        store = open_store(work.folder, make=True)
        contents = Contents(work.folder)
        for needs in (work.texts, work.clips):
            if needs:
                # Encoders anew for each part: captions' are gone before clips' are loaded.
                encoders = work.make_encoders(device)
                _Filler(work, store, contents, encoders, made, progress).run(needs, worker / workers)
                del encoders
        contents.save()
    return made


class _Filler:
    """One part of the work in one process."""

    def __init__(
        self,
        work: Work,
        store: Store,
        contents: Contents,
        encoders: Encoders,
        made: Made,
        progress: Callable[[int], None],
    ) -> None:
        self._work, self._store, self._contents = work, store, contents
        self._encoders, self._made, self._progress = encoders, made, progress
        self._held: list[Lock] = []
        self._open: dict[str, Tensors] = {}
        self._made_of: dict[str, str] = {}
        self._open_bytes = 0
        self._opened = 0.0

    def run(self, needs: Sequence[Need], offset: float) -> None:
        """`offset` in [0, 1): where to begin, so that processes do not start with the same lots."""
        lots: dict[int, list[Need]] = defaultdict(list)
        for need in needs:
            lots[_lot(need)].append(need)
        order = sorted(lots)
        first = int(offset * len(order))
        try:
            waiting = [lot for lot in (*order[first:], *order[:first]) if not self._take(lot, lots[lot])]
            self._flush()
            while waiting:
                # Somebody else has these: they are done, or left undone, when their locks are free.
                still = [lot for lot in waiting if not self._take(lot, lots[lot])]
                self._flush()
                if len(still) == len(waiting):
                    time.sleep(POLL_SECONDS)
                waiting = still
        finally:
            self._release()

    def _take(self, lot: int, needs: list[Need]) -> bool:
        lock = Lock(self._store.folder / "locks" / f"{lot:04d}")
        if not lock.take():
            return False
        self._held.append(lock)
        self._store.refresh()
        missing = [need for need in needs if need.key not in self._store]
        for need, tensors in self._encoded(missing):
            self._add(need, tensors)
        if not self._open:
            self._release()
        return True

    def _encoded(self, needs: list[Need]) -> Iterator[tuple[Need, Tensors]]:
        clips = [need for need in needs if isinstance(need, ClipNeed)]
        for need in needs:
            if isinstance(need, TextNeed):
                yield need, self._encoders.encode_text(need.caption)
        for clip, pixels in _decoded(clips):
            if isinstance(pixels, VideoError):
                self._made.failed[clip.file] = pixels.reason
                continue
            tensors = self._encoders.encode_clip(pixels)
            yield clip, {name: self._stored(name, tensor, clip) for name, tensor in tensors.items()}

    def _stored(self, name: str, tensor: torch.Tensor, need: ClipNeed) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        stored = tensor.to(_DTYPES[self._work.dtype])
        if not bool(stored.isfinite().all()):
            whole = bool(tensor.isfinite().all())
            raise VdsgenError(
                f"{need.file}: {name} is {'too large for ' + self._work.dtype if whole else 'not finite'}",
                remedy="set data.cache.dtype: bf16 or fp32" if whole else "check the encoder's weights",
            )
        return stored

    def _add(self, need: Need, tensors: Tensors) -> None:
        if not self._open:
            self._opened = time.monotonic()
        self._open[need.key] = tensors
        self._made_of[need.key] = need.file if isinstance(need, ClipNeed) else need.caption[:80]
        self._open_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        self._made.entries += 1
        self._progress(self._made.entries)
        HEART.come_on()
        late = time.monotonic() - self._opened > FLUSH_SECONDS
        if self._open_bytes >= self._work.shard_bytes or late:
            self._flush()

    def _flush(self) -> None:
        """Writes the open shard. Lots that it holds parts of stay locked until all of them is written."""
        if self._open:
            manifest = self._written()
            self._contents.remember(self._store.file(manifest.name), manifest.sha256)
            self._store.add(manifest)
            self._made.stored_bytes += manifest.size_bytes
            self._open, self._made_of, self._open_bytes = {}, {}, 0
        self._release()

    def _written(self) -> Manifest:
        try:
            return write_shard(self._store.shards, self._open, self._made_of)
        except OSError as error:
            raise VdsgenError(
                f"{self._store.shards} cannot be written to: {error.strerror or error}",
                remedy="make room there, or name another data.cache.folder; what was written before stays",
            ) from error

    def _release(self) -> None:
        for lock in self._held:
            lock.release()
        self._held.clear()


def _lot(need: Need) -> int:
    """All windows of a file are in one lot: whoever decodes one has the file in memory."""
    digits = need.content if isinstance(need, ClipNeed) else need.key
    return int(digits[:8], 16) % LOCKS


def _decoded(needs: Sequence[ClipNeed]) -> Iterator[tuple[ClipNeed, torch.Tensor | VideoError]]:
    """Each clip's pixels, uint8 (3, T, H, W), in order; threads decode the next ones meanwhile."""
    with ThreadPoolExecutor(DECODED_AHEAD, thread_name_prefix="decode") as pool:
        ahead: list[tuple[ClipNeed, Future[torch.Tensor | VideoError]]] = []
        remaining = iter(needs)
        try:
            while True:
                for need in islice(remaining, DECODED_AHEAD - len(ahead)):
                    ahead.append((need, pool.submit(_pixels, need)))
                if not ahead:
                    return
                need, pixels = ahead.pop(0)
                yield need, pixels.result()
        finally:
            for _, pixels in ahead:
                pixels.cancel()


def _pixels(need: ClipNeed) -> torch.Tensor | VideoError:
    size = need.size
    try:
        video = decode_clip(
            need.file,
            need.start,
            size.frames,
            need.frame_rate,
            transform=lambda picture: fit(picture, size.height, size.width),
        )
    except VideoError as error:
        return error
    if need.flipped:
        video = video[:, :, ::-1]
    return torch.from_numpy(np.ascontiguousarray(video.transpose(3, 0, 1, 2)))
