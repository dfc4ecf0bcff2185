"""Writes a checkpoint of any layout of ranks in DeepSpeed's universal format, by all ranks side by side.

A folder a parameter, `zero/<name>`, holds `fp32.pt`, `exp_avg.pt`, `exp_avg_sq.pt` ({"param": tensor}) and
`step.pt`, as `deepspeed.checkpoint.ds_to_universal` writes them, and DeepSpeed's engine loads them with
`checkpoint.load_universal`. That tool is for states that ZeRO shares out, with fp32 moments and no frozen
weights; it runs code that a file may hold, and on one machine alone. What DeepSpeed's format has no place for
lies beside: averages of weights in `ema/`, and in `training.json` what is not a parameter's.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed import __version__ as deepspeed_version
from deepspeed import comm as dist
from torch import Tensor

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.model.agreement import everybodys, known_to_all
from vdsgen.model.console import is_first_rank, say_first
from vdsgen.model.export.stored import AVERAGE_FILE, Stored, averaged_weights, load, trained_weights
from vdsgen.model.export.tensor_shares import joined
from vdsgen.model.layers.tensor_parallel import Split
from vdsgen.model.universal.states import MOMENTS, WEIGHT, OptimizerStates, optimizer_states
from vdsgen.spec.checkpoints import RECORD, CheckpointRecord, damage, sha256_of, shared_out
from vdsgen.spec.universal import (
    AVERAGES,
    PARAMETERS,
    PROGRESS,
    UNIVERSAL,
    Progress,
    UniversalRecord,
    read_universal,
)

SECONDS_BETWEEN_LINES = 5.0
Splits = Mapping[str, Split]


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint, tensor by tensor."""

    parameters: Mapping[str, Mapping[str, Stored]]
    """All of the model's, by the training module's names: `fp32`, and MOMENTS of those that train."""
    averages: Mapping[str, Stored]
    progress: Progress

    @property
    def sizes_bytes(self) -> dict[str, int]:
        """Of each parameter's folders."""
        return {
            name: sum(one.size_bytes for one in stored.values())
            + (self.averages[name].size_bytes if name in self.averages else 0)
            for name, stored in self.parameters.items()
        }


def universal_of(run: Path, folder: Path, record: CheckpointRecord, splits: Splits) -> Path:
    """The checkpoint in universal format: converted now, or found sound from an earlier start that did not
    come to its next checkpoint. Collective. `splits` say how the checkpoint's tensor ranks share parameters.

    Raises VdsgenError where a file cannot be read or written."""
    target = run / UNIVERSAL / folder.name
    source_sha256 = known_to_all(lambda: sha256_of(folder / RECORD))
    if _is_sound(target, source_sha256):
        say_first(f"Found {target}, which an earlier start has converted")
        return target
    began = time.monotonic()
    try:
        size_bytes = _convert(folder, record, target, splits, source_sha256)
    except OSError as error:
        raise VdsgenError(
            f"{folder} could not be converted for another layout, into {target}: {error}",
            remedy="free space; what is half converted there is not used",
        ) from error
    seconds = time.monotonic() - began
    say_first(f"Converted {folder} for any layout: {size_bytes / 1e9:.3g} GB, {seconds:.1f} s")
    return target


def _is_sound(target: Path, source_sha256: str) -> bool:
    found = known_to_all(lambda: read_universal(target))
    if found is None or found.source_sha256 != source_sha256:
        return False
    ranks, rank = dist.get_world_size(), dist.get_rank()
    return not any(everybodys(lambda: damage(target, found, rank, ranks)))


def _convert(folder: Path, record: CheckpointRecord, target: Path, splits: Splits, source_sha256: str) -> int:
    """Returns the bytes written."""
    source = source_of(folder, record, splits)
    sizes = source.sizes_bytes
    known_to_all(lambda: _make_room(target, sum(sizes.values())))
    mine = shared_out(sizes, dist.get_world_size())[dist.get_rank()]
    said = _Progress(sum(sizes[name] for name in mine), sum(sizes.values()))
    files: dict[str, tuple[int, str]] = {}
    for part in everybodys(lambda: _written(source, mine, target, said)):
        files |= part
    if is_first_rank():
        content = UniversalRecord(
            **{
                **record.model_dump(),
                "files": {name: size for name, (size, _) in sorted(files.items())},
                "sha256": {name: sha256 for name, (_, sha256) in sorted(files.items())},
            },
            source_sha256=source_sha256,
        )
        write_atomically(target / RECORD, (content.model_dump_json(indent=2) + "\n").encode())
    dist.barrier()
    return sum(size for size, _ in files.values())


def source_of(folder: Path, record: CheckpointRecord, splits: Splits) -> Source:
    """Raises VdsgenError where a file cannot be read, or states are not in the checkpoint's own files."""
    if any(name.startswith("offloaded_tensors/") for name in record.files):
        raise VdsgenError(
            f"{folder} holds states as DeepSpeed offloaded them to NVMe, which only the same layout reads",
            remedy="resume with the layout that it was written by",
        )
    ranks = range(record.layout.tensor_parallel_size)
    weights = [trained_weights(folder, record, rank) for rank in ranks]
    states = [
        optimizer_states(folder, record, {name: one.shape for name, one in of_rank.items()}, rank)
        for rank, of_rank in enumerate(weights)
    ]
    parameters = {
        name: {WEIGHT: Stored(one.shape, torch.float32, _as_fp32(one))}
        for name, one in joined(weights, splits).items()
    }
    for key in (WEIGHT, *MOMENTS):
        trained = [
            {name: stored[key] for name, stored in state.parameters.items() if key in stored}
            for state in states
        ]
        for name, one in joined(trained, splits).items():
            parameters[name][key] = one
    averages: dict[str, Stored] = {}
    average_steps = None
    average_file = next((name for name in sorted(record.files) if AVERAGE_FILE.fullmatch(name)), None)
    if average_file is not None:
        averages = joined([averaged_weights(folder, record, rank) for rank in ranks], splits)
        average_steps = int(load(folder / average_file)["steps"])
    return Source(parameters, averages, _progress(record, states[0], average_steps))


def _as_fp32(one: Stored) -> Callable[[], Tensor]:
    return lambda: one.read().float()


def _progress(record: CheckpointRecord, states: OptimizerStates, average_steps: int | None) -> Progress:
    common = states.common
    return Progress(
        step=record.step,
        samples=int(common.get("global_samples", 0)),
        skipped_steps=int(common["skipped_steps"]),
        optimizer_steps=states.steps,
        learning_rate=states.learning_rate,
        schedule=common.get("lr_scheduler") or {},
        loss_scaling=dict(states.loss_scaling),
        average_steps=average_steps,
    )


def _make_room(target: Path, size_bytes: int) -> None:
    """An empty folder in the place of whatever is in the run's folder for converted checkpoints."""
    shutil.rmtree(target.parent, ignore_errors=True)
    target.mkdir(parents=True)
    free_bytes = shutil.disk_usage(target).free
    if free_bytes < size_bytes:
        raise VdsgenError(
            f"converting the checkpoint takes {size_bytes / 1e9:.3g} GB in {target.parent}, "
            f"{free_bytes / 1e9:.3g} GB are free",
            remedy="free space; the converted copy goes after the next checkpoint",
        )


class _Progress:
    """Says now and then how far the first rank is with its own share: all have as much to do."""

    def __init__(self, own_bytes: int, all_bytes: int) -> None:
        self._own_bytes, self._all_bytes = own_bytes, all_bytes
        self._done_bytes = 0
        self._said_at = time.monotonic()

    def add(self, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        if time.monotonic() - self._said_at > SECONDS_BETWEEN_LINES:
            self._said_at = time.monotonic()
            share = self._done_bytes / max(1, self._own_bytes)
            say_first(f"Converting for another layout: {share:.0%} of {self._all_bytes / 1e9:.3g} GB")


def _written(source: Source, names: list[str], target: Path, said: _Progress) -> dict[str, tuple[int, str]]:
    """(size, SHA-256) of each file that this rank writes, by its path below `target`."""
    files: dict[str, tuple[int, str]] = {}

    def write(path: str, content: Any) -> None:
        # Through memory: torch's own writer tells of a full disk in errors of no kind.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_bytes(path, buffer.getbuffer())

    def write_bytes(path: str, content: memoryview) -> None:
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        files[path] = (len(content), hashlib.sha256(content).hexdigest())

    for name in names:
        stored = source.parameters[name]
        for key, one in stored.items():
            write(f"{PARAMETERS}/{name}/{key}.pt", {"param": one.read()})
        if len(stored) > 1:
            write(f"{PARAMETERS}/{name}/step.pt", torch.tensor(float(source.progress.optimizer_steps)))
        if name in source.averages:
            write(f"{AVERAGES}/{name}.pt", {"param": source.averages[name].read()})
        said.add(sum(one.size_bytes for one in stored.values()))
    if is_first_rank():
        for path, content in _for_deepspeed(source.progress).items():
            write(path, content)
        progress = source.progress.model_dump_json(indent=2) + "\n"
        write_bytes(PROGRESS, memoryview(progress.encode()))
    return files


def _for_deepspeed(progress: Progress) -> dict[str, Any]:
    """What DeepSpeed's own loader reads besides: the optimizer's groups, once as ZeRO-1 and ZeRO-2 look for
    them (base_optimizer.py:332) and once as ZeRO-3 does (zero/stage3.py:3653), and the engine's counters in
    files by the names that pipelines and ZeRO-3 look for."""
    groups = [{"lr": progress.learning_rate}]
    step = torch.tensor(float(progress.optimizer_steps))
    counters = {
        "module": None,
        "lr_scheduler": dict(progress.schedule) or None,
        "global_steps": progress.step,
        "global_samples": progress.samples,
        "skipped_steps": progress.skipped_steps,
        "dp_world_size": 1,
        "mp_world_size": 1,
        "ds_version": deepspeed_version,
        "vdsgen_step": progress.step,
    }
    return {
        f"{PARAMETERS}/optimizer_state.pt": {
            "param_groups": groups,
            "ds_version": deepspeed_version,
            "optimizer_state_dict": {"state": {0: {"step": step}}, "param_groups": groups},
        },
        "mp_rank_00_model_states.pt": counters,
        "zero_pp_rank_0_mp_rank_00_model_states.pt": counters,
    }
