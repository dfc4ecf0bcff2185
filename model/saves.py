"""Saving in the course of a run: when a checkpoint is due it is written, at once or while training goes on,
and what it took is noted in saves.jsonl."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from deepspeed import comm as dist

from vdsgen.errors import VdsgenError
from vdsgen.model import checkpoint
from vdsgen.model.agreement import everybodys
from vdsgen.model.background_writer import BackgroundCheckpointEngine, BackgroundSave
from vdsgen.model.console import is_first_rank
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.json_lines import LinesFile, as_line, read_lines
from vdsgen.model.metrics import DivergedError
from vdsgen.spec.checkpoints import CHECKPOINTS, tag_of
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.run import SAVES
from vdsgen.spec.training import Saving

FILE = SAVES


@dataclass(frozen=True, slots=True)
class SaveMetrics:
    """One complete checkpoint."""

    step: int
    bytes: int
    """Of all its files."""
    blocking_seconds: float
    """In which no step was trained."""
    background_seconds: float
    """In which files were written beside training, on the rank that took longest; 0 where training waited."""


@dataclass(frozen=True, slots=True)
class _Pending:
    step: int
    target: Path
    blocking_seconds: float
    own: BackgroundSave


class Saves:
    """A run's checkpoints. Every method is collective: call it on all ranks alike.

    Where `saving.asynchronous` says so, `save` returns once everything is copied. The record and `latest`
    follow in the `after_step` that finds all ranks' files on the disk; a save waits for the one before."""

    def __init__(
        self, engine: TrainingEngine, run: Path, rendered: Rendered, saving: Saving, resumed_step: int
    ) -> None:
        self._engine, self._run, self._rendered, self._saving = engine, run, rendered, saving
        self._resumed_step = resumed_step
        self._pending: _Pending | None = None
        self._writer: BackgroundCheckpointEngine | None = None
        if saving.asynchronous:
            # DeepSpeed 0.19.8 makes its own from the config; `checkpoint_engine` is what it saves through.
            self._writer = BackgroundCheckpointEngine(engine.engine._config)
            engine.engine.checkpoint_engine = self._writer
        self._file: LinesFile | None = None
        if is_first_rank() and (run / FILE).exists():
            self._file = LinesFile(run / FILE, resumed_step=resumed_step)

    @property
    def is_writing(self) -> bool:
        """Whether a save is under way."""
        return self._pending is not None

    def save(self, step: int) -> None:
        """The checkpoint of `step`. Raises CheckpointError where a file of it, or of the one before, could
        not be written."""
        began = time.perf_counter()
        self.finish()
        target = self._run / CHECKPOINTS / tag_of(step)
        if self._writer is None:
            with checkpoint.failures_named(target):
                checkpoint.write_files(self._engine, target, step)
                record = checkpoint.complete(target, step, self._rendered, self._saving)
            self._note(SaveMetrics(step, sum(record.files.values()), time.perf_counter() - began, 0.0))
            return
        self._writer.begin(target)
        with checkpoint.failures_named(target):
            checkpoint.write_files(self._engine, target, step)
        own = self._writer.end()
        self._pending = _Pending(step, target, time.perf_counter() - began, own)

    def after_step(self) -> None:
        """Completes the save under way where all ranks have written their files: one number from each."""
        if self._pending is None:
            return
        done = torch.tensor([self._pending.own.done.is_set()], dtype=torch.int32, device=self._engine.device)
        dist.all_reduce(done, op=dist.ReduceOp.MIN)
        if done.item():
            self._complete(self._pending, waited_seconds=0.0)

    def finish(self) -> None:
        """Waits for the save under way, and completes it. Raises CheckpointError where it cannot be."""
        if self._pending is not None:
            began = time.perf_counter()
            self._pending.own.done.wait()
            dist.barrier()
            self._complete(self._pending, waited_seconds=time.perf_counter() - began)

    def _complete(self, pending: _Pending, waited_seconds: float) -> None:
        began = time.perf_counter()
        self._pending = None
        try:
            seconds = max(everybodys(lambda: _finished(pending)))
        except VdsgenError as error:
            raise checkpoint.unwritten(pending.target, error.message) from error
        with checkpoint.failures_named(pending.target):
            record = checkpoint.complete(
                pending.target, pending.step, self._rendered, self._saving, pending.own.hashes
            )
        waited_seconds += time.perf_counter() - began
        self._note(
            SaveMetrics(
                pending.step, sum(record.files.values()), pending.blocking_seconds + waited_seconds, seconds
            )
        )

    def _note(self, metrics: SaveMetrics) -> None:
        if is_first_rank():
            self._file = self._file or LinesFile(self._run / FILE, resumed_step=self._resumed_step)
            self._file.write(as_line(asdict(metrics)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes nothing after an error of one rank: others are somewhere else by then. Training diverges
        on all alike."""
        if isinstance(error, DivergedError):
            self.finish()
        if self._file is not None:
            self._file.close()


def _finished(pending: _Pending) -> float:
    """Seconds that this rank's files took. Raises VdsgenError where one could not be written."""
    if pending.own.error is not None:
        raise VdsgenError(f"rank {dist.get_rank()}, {pending.own.error}")
    return pending.own.seconds


def read_saves(run: Path) -> list[dict[str, Any]]:
    return read_lines(run / FILE)
