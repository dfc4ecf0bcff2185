"""One rank: measures every case it is given, in turn.

python -m tests.cost.rank RANK WORLD_SIZE PORT CASES.json OUT.json
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(rank: int, world_size: int, port: int, cases: Path, out: Path) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )
    import torch
    import torch._dynamo  # a mode like LiveBytes needs it, and inside zero.Init its import fails

    torch.set_num_threads(1)
    from deepspeed.accelerator import get_accelerator

    from tests.cost.activation_worker import measure_activations
    from tests.cost.engine_worker import measure_states
    from vdsgen.model.distributed import init_distributed

    get_accelerator().is_fp16_supported = lambda: True
    init_distributed()
    gc.freeze()  # what imports left behind need not be searched after every case
    answers = []
    for case in json.loads(cases.read_text()):
        measure = measure_activations if "model" in case else measure_states
        answers.append(refusal(measure, case) if case.get("may_refuse") else measure(case))
        gc.collect()
    out.write_text(json.dumps(answers))


def refusal(measure: Callable[[dict[str, Any]], dict[str, Any]], case: dict[str, Any]) -> dict[str, Any]:
    """What `measure` answers, or the message with which the engine refuses, on all ranks alike."""
    from tests.cost.engine_worker import forget_groups

    try:
        return measure(case)
    except (AssertionError, NotImplementedError, ValueError, RuntimeError) as error:
        forget_groups()
        return {"refused": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    rank, world_size, port, cases, out = sys.argv[1:]
    main(int(rank), int(world_size), int(port), Path(cases), Path(out))
