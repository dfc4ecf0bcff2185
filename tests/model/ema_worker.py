"""One rank of a test of averaged weights: trains a tiny model on the real engine, with and without them.

Reads {"cases": [...], "folder": ...} from standard input and prints, as its last line, a result a case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor

from tests.model.checkpoint_worker import rendered_of, trained
from tests.model.layout_worker import GEOMETRY, MODEL, SEED, batches, held_out_clips
from vdsgen.model import checkpoint
from vdsgen.model.build import build_engine
from vdsgen.model.console import is_first_rank
from vdsgen.model.ema import decay_at
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.export.safetensors_folder import write_folder
from vdsgen.model.export.stored import averaged_weights, trained_weights
from vdsgen.model.export.tensor_shares import joined, splits_of
from vdsgen.model.folder import CLASS_NAME, NO_NAME, STEM, VdtFolder
from vdsgen.model.layers.tensor_parallel import TensorRanks
from vdsgen.model.masters import Slice, master_tensors, shapes_of, slices_of, trainable, whole_parameters
from vdsgen.model.validation import held_out_losses
from vdsgen.spec.checkpoints import read_checkpoints
from vdsgen.spec.run import layout_of
from vdsgen.spec.training import Ema, Saving


def whole_weights(engine: TrainingEngine) -> dict[str, Tensor]:
    """This rank's layers' parameters, whole where ZeRO-3 partitions them."""
    found = {}
    for name, parameter in trainable(engine.engine):
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            found[name] = parameter.detach().clone()
    return found


def put_together(engine: TrainingEngine, tensors: list[Tensor]) -> dict[str, Tensor]:
    """What the data ranks of this one's layers hold, as whole parameters."""
    group = engine.engine.data_parallel_group
    parts: list[Any] = [None] * torch.distributed.get_world_size(group)
    mine = ([tensor.cpu() for tensor in tensors], slices_of(engine.engine))
    torch.distributed.all_gather_object(parts, mine, group=group)
    slices = [[[Slice(*one) for one in of_tensor] for of_tensor in part[1]] for part in parts]
    return whole_parameters([part[0] for part in parts], slices, shapes_of(engine.engine))


def exported(
    engine: TrainingEngine, saved: Path, weights: dict[str, Tensor], averages: dict[str, Tensor]
) -> dict[str, bool]:
    """Whether the checkpoint's files, read without the engine, hold what this rank's layers have, or of what
    tensor-parallel ranks share its part."""
    record = read_checkpoints(saved.parent.parent)[0][saved]
    size = record.layout.tensor_parallel_size
    splits = splits_of(MODEL, GEOMETRY, size) if size > 1 else {}
    stored = joined([trained_weights(saved, record, rank) for rank in range(size)], splits)
    averaged = joined([averaged_weights(saved, record, rank) for rank in range(size)], splits)
    ranks = TensorRanks(size, torch.distributed.get_rank() % size)

    def part(name: str, whole: Tensor) -> Tensor:
        return splits[name].share(whole, ranks) if name in splits else whole

    out = saved.parent.parent.parent / f"{saved.parent.parent.name} exported"
    if is_first_rank():
        content = {"_class_name": CLASS_NAME, **MODEL.model_dump(mode="json", exclude=NO_NAME)}
        write_folder(out, content, stored, STEM, file_bytes=60_000)
    torch.distributed.barrier()
    return {
        "stored": all(torch.equal(part(name, stored[name].read()), weights[name]) for name in weights),
        "stored_averages": all(
            torch.equal(part(name, averaged[name].read()), averages[name]) for name in averages
        ),
        "stored_all": len(stored) == len(averaged) == len(VdtFolder(out)._files),
    }


def started(config: dict[str, Any], engine: TrainingEngine, weights: dict[str, Tensor], out: Path) -> bool:
    """Whether a new run that starts from the exported folder has these weights, and predicts the same."""
    inputs = tuple(x[:2] for x in next(batches(engine, 2, 1))[0])
    new = build_engine(config, MODEL, GEOMETRY, SEED + 1, start_from=out)
    alike = same(whole_weights(new), weights)
    return alike and torch.equal(new.predict(inputs), engine.predict(inputs))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run_case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    if case.get("allow_fp16"):
        from deepspeed.accelerator import get_accelerator

        get_accelerator().is_fp16_supported = lambda: True
    config, settings = case["config"], case["ema"]
    averaging = {**config, "vdsgen": {"ema": settings}}
    plain = trained(build_engine(config, MODEL, GEOMETRY, SEED), config, 0, 4)

    engine = build_engine(averaging, MODEL, GEOMETRY, SEED)
    assert engine.average is not None
    dtype = next(iter(whole_weights(engine).values())).dtype
    expected = put_together(engine, master_tensors(engine.engine))
    losses: list[Any] = []
    answer: dict[str, Any] = {"optimizer": type(engine.engine.optimizer).__name__, "place": "", "exact": []}
    micro = config["train_micro_batch_size_per_gpu"]
    for step in range(1, 5):
        losses += trained(engine, config, step - 1, step)
        masters = put_together(engine, master_tensors(engine.engine))
        weights = whole_weights(engine)
        answer["masters_round_to_weights"] = same({n: m.to(dtype) for n, m in masters.items()}, weights)
        if step % settings["every_steps"] == 0:
            decay = decay_at(Ema(**settings), step)
            expected = {name: torch.lerp(expected[name], masters[name], 1 - decay) for name in masters}
        found = put_together(engine, engine.average.tensors)
        answer["exact"].append(all(torch.allclose(found[n], expected[n], atol=1e-7) for n in expected))
        with engine.averaged():
            inside = whole_weights(engine)
            answer["average_is_in_place"] = same({n: f.to(dtype) for n, f in found.items()}, inside)
            answer["differs"] = not same(inside, weights)
            held = held_out_losses(engine, held_out_clips(GEOMETRY), layout_of(config), micro)
        answer["back_again"] = same(whole_weights(engine), weights)
        answer["held_out"] = held.tolist()
        if step == 2:
            rendered = rendered_of(averaging)
            saved = checkpoint.save(engine, folder / case["name"], step, rendered, Saving(keep=2))
            answer |= exported(engine, saved, weights, found)
            answer["started"] = started(averaging, engine, weights, folder / f"{case['name']} exported")
    answer["place"] = engine.average.tensors[0].device.type
    answer["same_training"] = losses == plain

    answer["files"] = sorted(path.name for path in (folder / case["name"]).rglob("ema_rank_*.pt"))

    again = build_engine(averaging, MODEL, GEOMETRY, SEED)
    assert again.average is not None
    resumed_at = checkpoint.resume(again, folder / case["name"], rendered_of(averaging))
    answer["resumed"] = trained(again, config, resumed_at, 4) == losses[2:]
    answer["resumed_average"] = all(
        torch.equal(one, other)
        for one, other in zip(again.average.tensors, engine.average.tensors, strict=True)
    )
    return answer


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    results = [run_case(case, Path(job["folder"])) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
