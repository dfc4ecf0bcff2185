"""One rank: measures every case it is given, in turn.

python -m tests.cost.rank RANK WORLD_SIZE PORT CASES.json OUT.json
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import torch


def main(rank: int, world_size: int, port: int, cases: Path, out: Path) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )
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
        answers.append(measure_activations(case) if "model" in case else measure_states(case))
        gc.collect()
    out.write_text(json.dumps(answers))


if __name__ == "__main__":
    rank, world_size, port, cases, out = sys.argv[1:]
    main(int(rank), int(world_size), int(port), Path(cases), Path(out))
