"""Checkpoints that are whole or are not there: saved by the engine, vouched for by a record written last.

A checkpoint is DeepSpeed's own (runtime/engine.py:4869), which any DeepSpeed program can load. It is read
back without running anything that a file may name (safe_loading.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed import comm as dist

from vdsgen.errors import VdsgenError
from vdsgen.files import sync_directory, write_atomically
from vdsgen.model import corrections
from vdsgen.model.console import is_first_rank, say_first
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.masters import are_shared_out, trainable
from vdsgen.model.optimizer_settings import put_in_force, settings_in_force
from vdsgen.model.safe_loading import only_plain_data
from vdsgen.model.soundness import last_sound, vouch
from vdsgen.model.universal.resume import resume_elsewhere
from vdsgen.model.universal.states import TRAINED
from vdsgen.spec.checkpoints import CHECKPOINTS, RECORD, CheckpointRecord, read_checkpoints, tag_of
from vdsgen.spec.continuing import check_continues, needs_conversion
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.run_plans import plan_of_checkpoint
from vdsgen.spec.training import Saving
from vdsgen.spec.universal import UNIVERSAL

WRITER_SAYS = ("PytorchStreamWriter", "inline_container")
"""One of them is in the message of every error of torch's writer (caffe2/serialize/inline_container.cc)."""


class CheckpointError(VdsgenError):
    """A checkpoint could not be written: no fault of the input."""

    exit_code = 1


def save(engine: TrainingEngine, run: Path, step: int, rendered: Rendered, saving: Saving) -> Path:
    """Write the checkpoint of `step`, then move `latest` to it, then delete what `saving` does not keep.

    Collective. An interruption at any point leaves the earlier checkpoints and `latest` as they were.
    Raises CheckpointError where a file cannot be written.
    """
    target = run / CHECKPOINTS / tag_of(step)
    with failures_named(target):
        write_files(engine, target, step)
        complete(target, step, rendered, saving)
    return target


@contextmanager
def failures_named(target: Path) -> Iterator[None]:
    """What goes wrong inside with a file of `target` is a CheckpointError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save's own failures are RuntimeErrors, and so is the loss of another rank.
        if isinstance(error, RuntimeError) and not any(part in str(error) for part in WRITER_SAYS):
            raise
        raise unwritten(target, str(error)) from error


def unwritten(target: Path, reason: str) -> CheckpointError:
    """Torch's writer does not say that a disk is full: what is free stands beside its words."""
    free_mib = shutil.disk_usage(target.parent).free // 1024**2
    return CheckpointError(
        f"the checkpoint {target} could not be written: {reason} ({free_mib:,} MiB are free)",
        remedy="free space, then --resume continues from the last complete one",
    )


def write_files(engine: TrainingEngine, target: Path, step: int) -> None:
    """Every rank's files, by the engine's checkpoint engine: written when this returns, or handed to its
    writer. Collective."""
    if is_first_rank() and target.exists():
        _remove(target)
    dist.barrier()
    engine.engine.save_checkpoint(
        str(target.parent), tag=target.name, client_state=_client_state(engine, step), save_latest=False
    )
    _save_errors(engine, target)
    _save_average(engine, target)


def complete(
    target: Path, step: int, rendered: Rendered, saving: Saving, hashes: Mapping[str, str] | None = None
) -> CheckpointRecord:
    """All ranks' files are written: the record, then `latest`, then what goes. Collective.

    `hashes` are of files that are known to be on the disk."""
    # DeepSpeed ends with a barrier where it writes `latest`; here the ranks must be told apart from it.
    dist.barrier()
    record = vouch(target, step, rendered, hashes or {})
    if is_first_rank():
        write_atomically(target.parent / "latest", target.name.encode())
        sync_directory(target.parent)
        run = target.parents[1]
        _delete_old(run, saving)
        shutil.rmtree(run / UNIVERSAL, ignore_errors=True)  # what was converted to come here
    dist.barrier()
    say_first(f"Saved {target}")
    return record


def resume(engine: TrainingEngine, run: Path, rendered: Rendered) -> int:
    """Load the last sound checkpoint, whatever layout wrote it, and return its step. Collective.

    Raises VdsgenError where there is none, or `rendered` would train another run.
    """
    folder, record = last_sound(run)
    before = plan_of_checkpoint(run, record)
    if before is not None:
        for sentence in check_continues(before, rendered):
            say_first(f"warning: {sentence}")
    settings = settings_in_force(engine.engine)
    if record.layout != rendered.layout or needs_conversion(before, rendered):
        resume_elsewhere(engine, run, folder, record, rendered)
        put_in_force(engine.engine, settings)
        return record.step
    if record.plan_sha256 != rendered.plan_sha256:
        say_first(f"warning: the plan has changed since {folder} was written; its layout has not")
    with only_plain_data(folder, engine.engine):
        loaded = corrections.load_checkpoint(engine.engine, folder)
    if not loaded:
        raise VdsgenError(f"DeepSpeed could not load {folder}; its warnings are in the rank's log")
    put_in_force(engine.engine, settings)
    _load_errors(engine, folder)
    _load_average(engine, folder)
    return record.step


def _client_state(engine: TrainingEngine, step: int) -> dict[str, Any]:
    """Beside DeepSpeed's own. Optimizers that are not shared out number what they train, and name nothing."""
    state: dict[str, Any] = {"vdsgen_step": step}
    if not are_shared_out(engine.engine):
        state[TRAINED] = [name for name, _ in trainable(engine.engine)]
    return state


def _errors_file(folder: Path) -> Path:
    """This rank's own: what compressing its gradients has lost so far."""
    return folder / f"gradient_errors_rank_{dist.get_rank():05d}.pt"


def _save_errors(engine: TrainingEngine, folder: Path) -> None:
    if engine.compressor is not None:
        engine.engine.checkpoint_engine.save(engine.compressor.state(), str(_errors_file(folder)))


def _load_errors(engine: TrainingEngine, folder: Path) -> None:
    if engine.compressor is None:
        return
    path = _errors_file(folder)
    if path.is_file():
        engine.compressor.restore(torch.load(path, weights_only=True), engine.device)
    else:
        engine.compressor.restore([], engine.device)
        say_first(f"warning: {folder} was written without compressed gradients; their errors start at zero")


def average_file(folder: Path, rank: int) -> Path:
    """What `rank` holds of the weights' average. Where every data rank holds all of it, the first one's."""
    return folder / f"ema_rank_{rank:05d}.pt"


def _keeper(engine: TrainingEngine) -> int:
    """The rank whose file holds this rank's average."""
    assert engine.average is not None, "no average is kept"
    if engine.average.is_shared_out:
        return int(dist.get_rank())
    return int(torch.distributed.get_process_group_ranks(engine.engine.data_parallel_group)[0])


def _save_average(engine: TrainingEngine, folder: Path) -> None:
    if engine.average is not None and _keeper(engine) == dist.get_rank():
        path = average_file(folder, dist.get_rank())
        engine.engine.checkpoint_engine.save(engine.average.state(), str(path))


def _load_average(engine: TrainingEngine, folder: Path) -> None:
    if engine.average is None:
        return
    path = average_file(folder, _keeper(engine))
    if path.is_file():
        # Not mapped from the file: it may be deleted while the run goes on.
        engine.average.restore(torch.load(path, map_location="cpu", weights_only=True))
    else:
        engine.average.restore(None)
        say_first(f"warning: {folder} was written without averaged weights (EMA): their average starts there")


def _delete_old(run: Path, saving: Saving) -> None:
    complete, _ = read_checkpoints(run)
    written = {folder: (folder / RECORD).stat().st_mtime for folder in complete}
    for old in list(complete)[: -saving.keep]:
        hours = (max(written.values()) - written[old]) / 3600
        if saving.keep_hours is None or hours > saving.keep_hours:
            _remove(old)


def _remove(folder: Path) -> None:
    """The record first: an interruption then leaves a half-written checkpoint, not a damaged one."""
    (folder / RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder)
