"""One process that traces cases in turn, as a rank that is real or that is not.

python -m tests.verify.rank KIND RANK WORLD_SIZE PORT CASES.json OUT.json

KIND: `gpu`, as `vdsgen verify` traces; `fake`, the same with a processor's kernels; `real`, on tensors with
contents, with ranks that exist.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from vdsgen.model.pipeline import Batch
from vdsgen.profile.live_bytes import LiveBytes
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.run import Layout, layout_of
from vdsgen.verify import fake_rank, stage
from vdsgen.verify.exchange import exchange_of
from vdsgen.verify.figures import StageTrace


def main(kind: str, rank: int, world_size: int, port: int, cases: Path, out: Path) -> None:
    torch.set_num_threads(1)
    if kind == "real":
        join_real_group(rank, world_size, port)
    else:
        fake_rank.join_fake_group(rank, world_size)
    answers = [traced(kind, case).model_dump(mode="json") for case in json.loads(cases.read_text())]
    out.write_text(json.dumps(answers))


def join_real_group(rank: int, world_size: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )
    from vdsgen.model.distributed import init_distributed

    init_distributed()


def traced(kind: str, case: dict[str, Any]) -> StageTrace:
    model, geometry = Vdt(**case["model"]), Geometry(**case["geometry"])
    given = (case["config"], model, geometry, case["stage"])
    counted = stage.traced_micro_batches
    if case.get("all_micro_batches"):
        stage.traced_micro_batches = all_micro_batches
    try:
        if kind == "gpu":
            return stage.trace_without_memory(*given, _silent)
        books = LiveBytes()
        if kind == "real":
            with books, patch.object(stage, "empty_batches", noisy_batches):
                return stage.trace_rank(*given, books, _silent)
        layout = layout_of(case["config"])
        micro = case["config"]["train_micro_batch_size_per_gpu"]
        exchange = exchange_of(model, geometry, micro, layout.dtype, layout.partition, case["stage"])
        with (
            patch.object(fake_rank, "as_on_gpu", tuple),
            fake_rank.without_memory(books, exchange),
        ):
            return stage.trace_rank(*given, books, _silent)
    finally:
        stage.traced_micro_batches = counted
        from deepspeed.utils import groups

        groups.mpu = None  # a pipeline leaves it, and a plain engine would fail on it


_empty_batches = stage.empty_batches


def noisy_batches(*arguments: Any) -> Iterator[Batch]:
    """With contents: memory that is not set may hold no numbers. Keeps no batch itself."""
    return map(_with_noise, _empty_batches(*arguments))


def _with_noise(batch: Batch) -> Batch:
    inputs, target = batch
    for tensor in (*inputs, target):
        if tensor.is_floating_point():
            tensor.normal_()
    return batch


def all_micro_batches(layout: Layout, gradient_accumulation_steps: int) -> int:
    return gradient_accumulation_steps


def _silent(share: float) -> None: ...


if __name__ == "__main__":
    kind, rank, world_size, port, cases, out = sys.argv[1:]
    main(kind, int(rank), int(world_size), int(port), Path(cases), Path(out))
