"""One rank that trains a tiny model on the real engine from its start or from a checkpoint, one case after
another on the same process group.

Reads {"cases": [...], "folder": ...} from standard input and prints, as its last line, a result a case. A
case has `name`, `config`, `steps` (to come to), where it is resumed `source` (the case whose checkpoint it
goes on from), and what it leaves: `save_at` (a step to save a checkpoint after, with all states beside it).
`sizes` are of another model; with `adapters` it is one of diffusers that trains adapters alone. With
`by_deepspeed` the source, which a case before has converted, is loaded by DeepSpeed's own loader.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor

from tests.model.checkpoint_worker import rendered_of, trained
from tests.model.families.engine_worker import mean_square
from tests.model.families.tiny import TINY
from tests.model.layout_worker import GEOMETRY, MODEL, SEED, start_nowhere_at_zero
from vdsgen.model import checkpoint
from vdsgen.model.adamw_8bit import moment_of
from vdsgen.model.build import build_engine
from vdsgen.model.console import is_first_rank
from vdsgen.model.distributed import init_distributed
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.export.tensor_shares import splits_of
from vdsgen.model.families.layer_specs import diffusers_layer_specs
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
from vdsgen.model.pipeline import Batch, PlannedPipelineModule, SequentialModel
from vdsgen.model.universal import resume
from vdsgen.model.universal.convert import universal_of
from vdsgen.spec.checkpoints import CheckpointRecord
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.training import Lora, Saving
from vdsgen.spec.universal import UNIVERSAL

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
            name: tensor if (split := splits[name]) is None else split.whole([of[name] for of in of_share])
            for name, tensor in of_share[0].items()
        }
    return found


def frozen_weights(engine: TrainingEngine) -> dict[str, Tensor]:
    """Of this rank's layers, whole where ZeRO-3 partitions them."""
    found = {}
    for name, parameter in engine.engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            if not parameter.requires_grad:
                found[name] = parameter.detach().clone()
    return found


def of_all_ranks(mine: dict[str, Tensor]) -> dict[str, Tensor]:
    ranks: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(ranks, mine)
    return {name: tensor for rank in ranks for name, tensor in rank.items()}


def adam_steps(engine: TrainingEngine) -> int:
    states = base_optimizer(engine.engine).state
    return int(next((state["step"] for state in states.values() if state), 0))


def compared(engine: TrainingEngine, saved: dict[str, Any]) -> dict[str, Any]:
    """How many tensors there are of each kind, those that are not the saved ones to the last bit, and how far
    off these are at most (of the tensor's largest magnitude)."""
    now = all_states(engine)
    counts = {key: len(tensors) for key, tensors in now.items()}
    other, furthest = [], 0.0
    frozen = frozen_weights(engine)
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
        "frozen": len(frozen),
        "same_frozen": all(torch.equal(tensor, saved["frozen"][name]) for name, tensor in frozen.items()),
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


def splits_of_ranks(record: CheckpointRecord, rendered: Rendered) -> dict[str, Split]:
    """Of the tests' model, which has no experiment around it."""
    size = record.layout.tensor_parallel_size
    return splits_of(MODEL, GEOMETRY, size) if size > 1 else {}


def adapted_engine(config: dict[str, Any], seed: int) -> TrainingEngine:
    """A tiny model of diffusers with adapters, as build_engine builds it."""
    specs = diffusers_layer_specs(TINY["wan"], seed, Lora(rank=3))
    stages = config["pipeline"]["stages"]
    if stages > 1:
        cuts = [round(len(specs) * stage / stages) for stage in range(stages + 1)]
        module: torch.nn.Module = PlannedPipelineModule(specs, cuts, [0] * stages, mean_square)
    else:
        with deepspeed.zero.Init(
            config_dict_or_path=config, enabled=config["zero_optimization"]["stage"] == 3
        ):
            module = SequentialModel(specs, 0, mean_square)
    trained_ones = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=module, model_parameters=trained_ones, config=config)
    return TrainingEngine(engine)


def tiny_batches(engine: TrainingEngine, micro: int, accumulation: int, first_step: int) -> Iterator[Batch]:
    """Micro-batches of this rank for the model of diffusers: the same global batch in every layout."""
    inputs = TINY["wan"].inputs()
    ranks, rank = engine.data_parallel_size, engine.data_parallel_rank
    for number in itertools.count(first_step * accumulation):
        first = (number * ranks + rank) * micro
        rows = [index % len(inputs[0]) for index in range(first, first + micro)]
        targets = [
            torch.randn(inputs[0].shape[1:], generator=torch.Generator().manual_seed(index))
            for index in range(first, first + micro)
        ]
        yield tuple(x[rows] for x in inputs), torch.stack(targets)


def train_on(engine: TrainingEngine, case: dict[str, Any], first: int, last: int) -> list[list[float]]:
    config = case["config"]
    if not case.get("adapters"):
        return trained(engine, config, first, last)
    micro, accumulation = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
    data, figures = tiny_batches(engine, micro, accumulation, first), []
    for _ in range(first, last):
        rate = engine.learning_rate
        figures.append([engine.train_step(data), engine.global_grad_norm, engine.loss_scale, rate])
    return figures


CONVERTING: list[float] = []
"""Seconds that each conversion has taken, or finding it made."""


def timed_universal_of(*arguments: Any) -> Path:
    began = time.monotonic()
    target = universal_of(*arguments)
    CONVERTING.append(time.monotonic() - began)
    return target


def resumed(engine: TrainingEngine, case: dict[str, Any], run: Path) -> int:
    if not case.get("by_deepspeed"):
        return checkpoint.resume(engine, run, rendered_of(case["config"]))
    (folder,) = (run / UNIVERSAL).iterdir()
    path, state = engine.engine.load_checkpoint(str(folder.parent), tag=folder.name)
    assert path is not None, folder
    return int(state["vdsgen_step"])


def run_case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    if "fp16" in case["config"]:
        from deepspeed.accelerator import get_accelerator

        get_accelerator().is_fp16_supported = lambda: True
    config = case["config"]
    # A resumed engine begins with other weights than it has to go on with.
    seed = SEED + 1 if "source" in case else SEED
    adapted = case.get("adapters", False)
    model = MODEL.model_copy(update=case.get("sizes", {}))
    engine = adapted_engine(config, seed) if adapted else build_engine(config, model, GEOMETRY, seed)
    answer: dict[str, Any] = {"optimizer": type(engine.engine.optimizer).__name__}
    step = 0
    if "source" in case:
        run = folder / case["source"]
        began = time.monotonic()
        step = resumed(engine, case, run)
        answer["resume_seconds"] = time.monotonic() - began
        answer["convert_seconds"] = CONVERTING.pop() if CONVERTING else None
        answer |= compared(engine, torch.load(run / "states.pt", weights_only=True))
    figures = []
    if "save_at" in case:
        figures = train_on(engine, case, step, case["save_at"])
        step, run = case["save_at"], folder / case["name"]
        checkpoint.save(engine, run, step, rendered_of(config), Saving(keep=2))
        frozen = of_all_ranks(frozen_weights(engine))
        content = {"states": all_states(engine), "frozen": frozen, "scalars": scalars(engine)}
        if is_first_rank():
            torch.save(content, run / "states.pt")
        torch.distributed.barrier()
    answer["figures"] = figures + train_on(engine, case, step, case["steps"])
    return answer


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    start_nowhere_at_zero()
    resume.splits_of_ranks = splits_of_ranks
    resume.universal_of = timed_universal_of  # type: ignore[attr-defined, assignment]
    init_distributed()  # the tiny models are built without build_engine
    results = [run_case(case, Path(job["folder"])) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
