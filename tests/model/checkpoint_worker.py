"""One rank of a checkpoint test: trains a tiny model on the real engine, saves, and resumes in a new engine.

Reads {"cases": [...], "folder": ...} from standard input and prints, as its last line, a result a case.
"""

from __future__ import annotations

import dataclasses
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
from vdsgen.spec.checkpoints import read_checkpoints, sha256_of
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.run import layout_of
from vdsgen.spec.training import Saving


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
    # Predicting, as the sample video does, must leave no trace.
    engine.predict(tuple(x[:1] for x in next(batches(engine, 1, 1))[0]))
    straight = trained(engine, config, 2, 4)
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
        "latest": (run / "checkpoints" / "latest").read_text(),
        "refused": refusal(again, run, rendered),
        "obeying": obeying_files_refused(again, run, rendered),
    }  # fmt: skip


class Obeyed:
    """Whoever unpickles it and does what the file says makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return (open, (str(self.made), "w"))


def obeying_files_refused(engine: TrainingEngine, run: Path, rendered: Rendered) -> str:
    """What is said of a checkpoint each of whose files names a function, hashes and all as they should be;
    ends
    with `made` where the function was called."""
    folder, made = run / "checkpoints" / "step-00000002", run / "made"
    if is_first_rank():
        record = json.loads((folder / "complete.json").read_bytes())
        for name in record["files"]:
            torch.save(Obeyed(made), folder / name)
            record["files"][name] = (folder / name).stat().st_size
            record["sha256"][name] = sha256_of(folder / name)
        (folder / "complete.json").write_text(json.dumps(record))
    torch.distributed.barrier()
    try:
        checkpoint.resume(engine, run, rendered)
        said = "nothing was refused"
    except VdsgenError as error:
        said = str(error)
    return said + (" made" if made.exists() else "")


def refusal(engine: TrainingEngine, run: Path, rendered: Rendered) -> str:
    """What is said to a config with another layout."""
    other = rendered.layout.model_copy(update={"zero_stage": 3 - rendered.layout.zero_stage})
    try:
        checkpoint.resume(engine, run, dataclasses.replace(rendered, layout=other))
    except VdsgenError as error:
        return str(error)
    return ""


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    assert os.environ["WORLD_SIZE"] == "2"
    results = [run_case(case, Path(job["folder"])) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
