"""One rank of a checkpoint test: trains a tiny model on the real engine, saves, and resumes in a new engine.

Reads {"cases": [...], "folder": ...} from standard input and prints, as its last line, a result a case.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from tests.model.layout_worker import GEOMETRY, MODEL, SEED, batches
from vdsgen.errors import VdsgenError
from vdsgen.model import checkpoint
from vdsgen.model.build import build_engine
from vdsgen.model.console import is_first_rank
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.masters import base_optimizer
from vdsgen.model.saves import Saves, read_saves
from vdsgen.spec.checkpoints import damage, read_checkpoints, sha256_of
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.run import layout_of
from vdsgen.spec.training import Saving

OTHER_SETTINGS = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3}


def rendered_of(config: dict[str, Any], plan_sha256: str = "0" * 64) -> Rendered:
    """What saving and resuming look at: the config and its layout."""
    empty: Any = None
    return Rendered(
        path=Path("plan"), plan=empty, plan_sha256=plan_sha256, experiment=empty, ds_config=config,
        layout=layout_of(config), hosts={},
    )  # fmt: skip


def trained(engine: TrainingEngine, config: dict[str, Any], first: int, last: int) -> list[list[float]]:
    """Losses, gradient norms, loss scales and learning rates of steps `first` to `last`; a new iterator
    begins at the right sample."""
    micro, accumulation = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    data = batches(engine, micro, accumulation)
    for _ in range(first * accumulation):
        next(data)
    figures = []
    for _ in range(first, last):
        rate = engine.learning_rate
        figures.append([engine.train_step(data), engine.global_grad_norm, engine.loss_scale, rate])
    return figures


def run_case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    if case.get("allow_fp16"):
        from deepspeed.accelerator import get_accelerator

        get_accelerator().is_fp16_supported = lambda: True
    config, run = case["config"], folder / case["name"]
    rendered = rendered_of(config)
    engine = build_engine(config, MODEL, GEOMETRY, SEED)
    trained(engine, config, 0, 1)
    checkpoint.save(engine, run, 1, rendered, Saving(keep=2))
    trained(engine, config, 1, 2)
    checkpoint.save(engine, run, 2, rendered, Saving(keep=2))
    beside = SavedBeside(engine, run.with_name(f"{run.name}-asynchronous"), rendered)
    # Predicting, as the sample video does, must leave no trace.
    engine.predict(tuple(x[:1] for x in next(batches(engine, 1, 1))[0]))
    straight = trained(engine, config, 2, 4)
    asynchronous = beside.finished(run / "checkpoints" / "step-00000002")
    checkpoint.save(engine, run, 4, rendered, Saving(keep=2))
    kept = [record.step for record in read_checkpoints(run)[0].values()]
    if is_first_rank():
        # The newest is damaged: the one before is resumed.
        next((run / "checkpoints" / "step-00000004").glob("*model_states.pt")).write_bytes(b"")
    torch.distributed.barrier()
    again = build_engine(config, MODEL, GEOMETRY, SEED)
    step = checkpoint.resume(again, run, rendered)
    resumed = trained(again, config, step, 4)
    return {
        "straight": straight, "resumed": resumed, "step": step, "kept": kept,
        "other settings": settings_after_resuming(again, run, rendered),
        "latest": (run / "checkpoints" / "latest").read_text(), "asynchronous": asynchronous,
        "tensor_bytes": tensor_bytes(run / "checkpoints" / "step-00000002"),
        "obeying": obeying_files_refused(again, run, rendered),
        "parameters": [getattr(one, "ds_numel", one.numel()) for one in engine.engine.module.parameters()],
    }  # fmt: skip


class SavedBeside:
    """The checkpoint of the second step, written while training goes on."""

    def __init__(self, engine: TrainingEngine, run: Path, rendered: Rendered) -> None:
        self._engine, self._run, self._own = engine, run, engine.engine.checkpoint_engine
        self._saves = Saves(engine, run, rendered, Saving(asynchronous=True), 0)
        self._saves.save(2)
        self.complete_at_once = [record.step for record in read_checkpoints(run)[0].values()]

    def finished(self, synchronous: Path) -> dict[str, Any]:
        """Steps later. Compared with the checkpoint that was written while training waited."""
        self._saves.finish()
        self._saves.after_step()
        self._engine.engine.checkpoint_engine = self._own
        ((folder, record),) = read_checkpoints(self._run)[0].items()
        names = sorted(str(path.relative_to(synchronous)) for path in synchronous.rglob("*.pt"))
        return {
            "complete at once": self.complete_at_once, "sound": damage(folder, record) is None,
            "same files": names == sorted(record.files),
            "different": [name for name in names if not same_contents(synchronous / name, folder / name)],
            "notes": [line["step"] for line in read_saves(self._run)],
        }  # fmt: skip


def tensor_bytes(folder: Path) -> int:
    """Of all tensors' storages in a checkpoint's files, each once a file."""
    return sum(sum(_storages(torch.load(path, weights_only=False)).values()) for path in folder.rglob("*.pt"))


def _storages(state: Any) -> dict[int, int]:
    """Bytes by address."""
    if isinstance(state, torch.Tensor):
        storage = state.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    found: dict[int, int] = {}
    parts = state.values() if isinstance(state, dict) else state
    for part in parts if isinstance(state, dict | list | tuple) else ():
        found |= _storages(part)
    return found


def same_contents(one: Path, other: Path) -> bool:
    """Whether two files of torch's hold the same, tensors to the last bit."""
    return _same(torch.load(one, weights_only=False), torch.load(other, weights_only=False))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and (one.dtype, one.shape, one.requires_grad) == (other.dtype, other.shape, other.requires_grad)
            and torch.equal(one, other)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one).__module__.startswith("deepspeed"):
        return type(one) is type(other) and _same(vars(one), vars(other))
    return bool(one == other)


def settings_after_resuming(engine: TrainingEngine, run: Path, rendered: Rendered) -> dict[str, Any]:
    """What an engine goes by that was built with other settings than the checkpoint was trained with."""
    optimizer = engine.engine.optimizer
    for group in base_optimizer(engine.engine).param_groups:
        group.update(OTHER_SETTINGS)
    others = [
        (holder, name, value)
        for holder, name, value in [
            (optimizer, "clip_grad", 0.25),
            (getattr(optimizer, "loss_scaler", None), "scale_window", 7),
            (getattr(optimizer, "loss_scale_config", None), "scale_window", 7),
        ]
        if getattr(holder, name, None) is not None
    ]
    for holder, name, value in others:
        setattr(holder, name, value)
    scale = engine.loss_scale
    checkpoint.resume(engine, run, rendered)
    found = {key: base_optimizer(engine.engine).param_groups[0][key] for key in OTHER_SETTINGS}
    scaler = getattr(optimizer, "loss_scaler", None) or getattr(optimizer, "loss_scale_config", None)
    return found | {
        "betas": list(found["betas"]), "rate": engine.learning_rate, "scale": (scale, engine.loss_scale),
        "clip_grad": getattr(optimizer, "clip_grad", None), "window": getattr(scaler, "scale_window", None),
    }  # fmt: skip


class Obeyed:
    """Whoever unpickles it and does what the file says makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return (open, (str(self.made), "w"))


def obeying_files_refused(engine: TrainingEngine, run: Path, rendered: Rendered) -> str:
    """What is said of a checkpoint each of whose files names a function, with hashes as they should be; ends
    with `made` where the function was called."""
    folder, made = run / "checkpoints" / "step-00000002", run / "made"
    torch.distributed.barrier()  # the other ranks have read what they compare
    if is_first_rank():
        record = json.loads((folder / "complete.json").read_bytes())
        for name in record["files"]:
            torch.save(Obeyed(made), folder / name)
            record["files"][name] = (folder / name).stat().st_size
            record["sha256"][name] = sha256_of(folder / name)
        (folder / "complete.json").write_text(json.dumps(record | {"record_sha256": None}))
    torch.distributed.barrier()
    try:
        checkpoint.resume(engine, run, rendered)
        said = "nothing was refused"
    except VdsgenError as error:
        said = str(error)
    return said + (" made" if made.exists() else "")


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    assert os.environ["WORLD_SIZE"] == "2"
    results = [run_case(case, Path(job["folder"])) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
