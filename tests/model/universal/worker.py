"""One rank that trains a tiny model on the real engine from its start or from a checkpoint, one case after
another on the same process group.

Reads {"cases": [...], "folder": ...} from standard input and prints, as its last line, a result a case. A
case has `name`, `config`, `steps` (to come to), where it is resumed `source` (the case whose checkpoint it
goes on from), and what it leaves: `save_at` (a step to save a checkpoint after, with all states beside it).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.model.checkpoint_worker import rendered_of, trained
from tests.model.layout_worker import GEOMETRY, MODEL, SEED, start_nowhere_at_zero
from vdsgen.model import checkpoint
from vdsgen.model.adamw_8bit import moment_of
from vdsgen.model.build import build_engine
from vdsgen.model.console import is_first_rank
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.export.tensor_shares import splits_of
from vdsgen.model.layers.tensor_parallel import Split, split_of
from vdsgen.model.masters import (
    Slice,
    base_optimizer,
    master_tensors,
    shapes_of,
    slices_of,
    stepped_tensors,
    trainable,
    whole_parameters,
)
from vdsgen.model.universal import resume
from vdsgen.spec.checkpoints import CheckpointRecord
from vdsgen.spec.training import Saving

KEYS = ("fp32", "exp_avg", "exp_avg_sq")


def flat_states(engine: TrainingEngine) -> dict[str, list[Tensor]]:
    """What this rank's optimizer holds: for each kind of state the flat tensors, in slices_of's order."""
    inner = engine.engine
    states = [base_optimizer(inner).state[one] for one in stepped_tensors(inner)]
    found = {"fp32": [tensor.clone() for tensor in master_tensors(inner)]}
    for moment, key in enumerate(KEYS[1:]):
        found[key] = [
            moment_of(state, moment, 0, master.numel()).clone().float() if state else torch.zeros_like(master)
            for state, master in zip(states, found["fp32"], strict=True)
        ]
    if engine.average is not None:
        found["ema"] = [tensor.clone() for tensor in engine.average.tensors]
    return found


def all_states(engine: TrainingEngine) -> dict[str, dict[str, Tensor]]:
    """Kind of state -> every trained parameter of the whole model, put together of what all ranks hold in
    memory. Collective."""
    inner = engine.engine
    splits = {name: split_of(one) for name, one in trainable(inner)}
    ranks: list[Any] = [None] * torch.distributed.get_world_size()
    tensor_rank = inner.mpu.get_slice_parallel_rank() if inner.mpu is not None else 0
    mine = (flat_states(engine), slices_of(inner), shapes_of(inner), tensor_rank, splits)
    torch.distributed.all_gather_object(ranks, mine)
    shares = sorted({rank[3] for rank in ranks})
    found: dict[str, dict[str, Tensor]] = {}
    for key in ranks[0][0]:
        of_share = []
        for share in shares:
            own = [rank for rank in ranks if rank[3] == share]
            shapes = {name: shape for rank in own for name, shape in rank[2].items()}
            slices = [[[Slice(*one) for one in of_tensor] for of_tensor in rank[1]] for rank in own]
            of_share.append(whole_parameters([rank[0][key] for rank in own], slices, shapes))
        splits = {name: split for rank in ranks for name, split in rank[4].items()}
        found[key] = {
            name: tensor if splits[name] is None else splits[name].whole([of[name] for of in of_share])
            for name, tensor in of_share[0].items()
        }
    return found


def adam_steps(engine: TrainingEngine) -> int:
    states = base_optimizer(engine.engine).state
    return int(next((state["step"] for state in states.values() if state), 0))


def compared(engine: TrainingEngine, saved: dict[str, Any]) -> dict[str, Any]:
    """How many tensors there are of each kind, those that are not the saved ones to the last bit, and how far
    off these are at most (of the tensor's largest magnitude)."""
    now = all_states(engine)
    counts = {key: len(tensors) for key, tensors in now.items()}
    other, furthest = [], 0.0
    for key, tensors in saved["states"].items():
        for name, tensor in tensors.items():
            if key not in now:
                continue
            mine = now[key][name]
            if not torch.equal(mine, tensor):
                other.append(f"{key} {name}")
                scale = float(tensor.abs().max()) or 1.0
                furthest = max(furthest, float((mine - tensor).abs().max()) / scale)
    return {
        "counts": counts,
        "other": other,
        "furthest": furthest,
        "same_names": all(now[key].keys() == saved["states"][key].keys() for key in KEYS),
        "adam_steps": adam_steps(engine),
        "same_scalars": saved["scalars"] == scalars(engine),
    }


def scalars(engine: TrainingEngine) -> dict[str, Any]:
    inner = engine.engine
    return {
        "steps": inner.global_steps,
        "samples": inner.global_samples,
        "skipped": inner.skipped_steps,
        "rate": engine.learning_rate,
        "loss_scale": engine.loss_scale,
        "average": None if engine.average is None else engine.average.state()["steps"],
    }


def splits_of_ranks(record: CheckpointRecord, _rendered: Any) -> dict[str, Split]:
    """Of the tests' model, which has no experiment around it."""
    size = record.layout.tensor_parallel_size
    return splits_of(MODEL, GEOMETRY, size) if size > 1 else {}


def run_case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    if "fp16" in case["config"]:
        from deepspeed.accelerator import get_accelerator

        get_accelerator().is_fp16_supported = lambda: True
    config, rendered = case["config"], rendered_of(case["config"])
    engine = build_engine(config, MODEL, GEOMETRY, case.get("seed", SEED))
    answer: dict[str, Any] = {"optimizer": type(engine.engine.optimizer).__name__}
    step = 0
    if "source" in case:
        run = folder / case["source"]
        began = time.monotonic()
        step = checkpoint.resume(engine, run, rendered)
        answer["resume_seconds"] = time.monotonic() - began
        answer |= compared(engine, torch.load(run / "states.pt", weights_only=True))
    figures = []
    if "save_at" in case:
        figures = trained(engine, config, step, case["save_at"])
        step, run = case["save_at"], folder / case["name"]
        checkpoint.save(engine, run, step, rendered, Saving(keep=2))
        content = {"states": all_states(engine), "scalars": scalars(engine)}
        if is_first_rank():
            torch.save(content, run / "states.pt")
        torch.distributed.barrier()
    answer["figures"] = figures + trained(engine, config, step, case["steps"])
    return answer


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    start_nowhere_at_zero()
    resume.splits_of_ranks = splits_of_ranks
    results = [run_case(case, Path(job["folder"])) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
