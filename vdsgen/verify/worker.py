"""One stage in a process of its own: DeepSpeed keeps its groups in globals.

python -m vdsgen.verify.worker DIR STAGE DATA_RANK ANSWER

Writes ANSWER: a StageTrace, or {"error", "remedy"} (exit code 2) where the input is wrong. Standard output
has one line for each bit of progress, a number from 0 to 1; what the engine says goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.spec.plan import Plan

BAD_INPUT, REFUSED = 2, 1


def main(directory: Path, stage: int, data_rank: int, answer: Path) -> int:
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        answer.write_text(_trace(directory, stage, data_rank, progress.write))
    except VdsgenError as error:
        answer.write_text(json.dumps({"error": error.message, "remedy": error.remedy}))
        return BAD_INPUT
    except Exception as error:  # whatever the engine raises for a config that it does not take
        answer.write_text(json.dumps({"error": f"{type(error).__name__}: {error}", "remedy": None}))
        raise
    return 0


def _trace(directory: Path, stage: int, data_rank: int, write: Callable[[str], object]) -> str:
    import torch

    torch.set_num_threads(1)
    from vdsgen.spec.architecture import Vdt
    from vdsgen.spec.diffusers_model import DiffusersModel
    from vdsgen.spec.geometry import geometries_of
    from vdsgen.spec.rendered import read_rendered
    from vdsgen.verify.stage import trace_stage

    rendered = read_rendered(directory)
    experiment = rendered.experiment
    assert isinstance(experiment.model, Vdt | DiffusersModel), "checked before workers start"
    model = experiment.model
    if isinstance(model, DiffusersModel):
        model = model.model_copy(update={"weights": None})  # shapes are all that is traced
    # Of several sizes the one with most patches: it needs most memory (docs/memory.md).
    geometry = max(geometries_of(experiment.data, model), key=lambda one: one.frames * one.patches)

    def report(share: float) -> None:
        write(f"{share:.3f}\n")

    trace = trace_stage(
        rendered.ds_config,
        model,
        geometry,
        stage,
        data_rank,
        report,
        experiment.training.lora if experiment.training.method == "lora" else None,
        _emulated_in(rendered.plan),
    )
    return trace.model_dump_json()


def _emulated_in(plan: Plan) -> int | None:
    """Bytes of an element of what the plan's GPUs emulate fp8 products in; None where they do not."""
    from vdsgen.catalog import resolve_gpu
    from vdsgen.cost.eight_bit import emulated_in

    if plan.precision.linear == "exact":
        return None
    gpus = [resolve_gpu(gpu) for gpu in plan.inputs.pool.kinds]
    return emulated_in(plan.precision.linear, plan.precision.dtype, gpus)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
