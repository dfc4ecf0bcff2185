"""Checkpoints that are whole or are not there: saved by the engine, vouched for by a record written last.

A checkpoint is DeepSpeed's own (runtime/engine.py:4869), which any DeepSpeed program can load. It is read
back without running anything that a file may name (safe_loading.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from deepspeed import comm as dist

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.model import corrections
from vdsgen.model.console import is_first_rank, say_first
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.safe_loading import only_plain_data
from vdsgen.model.soundness import last_sound, vouch
from vdsgen.spec.checkpoints import CHECKPOINTS, RECORD, read_checkpoints, tag_of
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.training import Saving

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
    folder = run / CHECKPOINTS
    target = folder / tag_of(step)
    if is_first_rank() and target.exists():
        _remove(target)
    dist.barrier()
    try:
        engine.engine.save_checkpoint(
            str(folder), tag=target.name, client_state={"vdsgen_step": step}, save_latest=False
        )
        _save_errors(engine, target)
        _save_average(engine, target)
        # DeepSpeed ends with a barrier where it writes `latest`; here the ranks must be told apart from it.
        dist.barrier()
        vouch(target, step, rendered)
        if is_first_rank():
            write_atomically(folder / "latest", target.name.encode())
            _delete_old(run, saving)
    except (OSError, RuntimeError) as error:
        # torch.save's own failures are RuntimeErrors, and so is the loss of another rank.
        if isinstance(error, RuntimeError) and not any(part in str(error) for part in WRITER_SAYS):
            raise
        raise CheckpointError(
            f"the checkpoint {target} could not be written: {error}",
            remedy="free space, then --resume continues from the last complete one",
        ) from error
    dist.barrier()
    say_first(f"Saved {target}")
    return target


def resume(engine: TrainingEngine, run: Path, rendered: Rendered) -> int:
    """Load the last sound checkpoint and return its step. Collective.

    Raises VdsgenError where there is none, or it was made with another layout.
    """
    folder, record = last_sound(run)
    if record.layout != rendered.layout:
        raise VdsgenError(
            f"{folder} was made with another layout than {rendered.path} asks for:\n"
            f"  checkpoint: {record.layout}\n"
            f"  now:        {rendered.layout}",
            remedy="resume with the rendered directory that the run was started with",
        )
    if record.plan_sha256 != rendered.plan_sha256:
        say_first(f"warning: the plan has changed since {folder} was written; its layout has not")
    with only_plain_data(folder, engine.engine):
        loaded = corrections.load_checkpoint(engine.engine, folder)
    if not loaded:
        raise VdsgenError(f"DeepSpeed could not load {folder}; its warnings are in the rank's log")
    _load_errors(engine, folder)
    _load_average(engine, folder)
    return record.step


def _errors_file(folder: Path) -> Path:
    """This rank's own: what compressing its gradients has lost so far."""
    return folder / f"gradient_errors_rank_{dist.get_rank():05d}.pt"


def _save_errors(engine: TrainingEngine, folder: Path) -> None:
    if engine.compressor is not None:
        torch.save(engine.compressor.state(), _errors_file(folder))


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
        torch.save(engine.average.state(), average_file(folder, dist.get_rank()))


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
