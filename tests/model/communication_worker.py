"""One rank of a communication test: trains a tiny model and counts what its collectives send.

Reads {"cases": [...]} from standard input: a name, a config, a number of steps. Prints, as its last line, a
result a case: losses, norms, weights, and the bytes of the last step, or what the engine refused it with.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.comm import comm
from deepspeed.utils import groups

from tests.model.layout_worker import GEOMETRY, MODEL, SEED, batches, start_nowhere_at_zero, weights
from vdsgen.model.build import build_engine
from vdsgen.model.distributed import init_distributed

SMALL_BYTES = 1024
"""Losses, norms and flags are not counted."""
SENDS = {
    # collective -> (argument that is all of the data, times that a ring sends it, less one rank's share)
    "all_reduce": (0, 2),
    "reduce_scatter_tensor": (1, 1),
    "all_gather_into_tensor": (0, 1),
    "all_to_all_single": (0, 1),
}


class Sent:
    """Bytes that this rank sends, by (collective, dtype, ranks of the group)."""

    def __init__(self) -> None:
        self.bytes: Counter[tuple[str, str, int]] = Counter()
        for name, (whole, passes) in SENDS.items():
            setattr(comm.cdb, name, self._counted(getattr(comm.cdb, name), name, whole, passes))

    def _counted(self, send: Callable[..., Any], name: str, whole: int, passes: int) -> Callable[..., Any]:
        keywords = ("output_tensor", "input_tensor") if name != "all_to_all_single" else ("output", "input")

        @wraps(send)
        def counted(*args: Any, **kwargs: Any) -> Any:
            tensor = args[whole] if len(args) > whole else kwargs[keywords[whole]]
            group = kwargs.get("group", args[2] if name == "all_reduce" and len(args) > 2 else None)
            ranks = comm.get_world_size(group=group)
            volume = tensor.numel() * tensor.element_size()
            if volume >= SMALL_BYTES:
                key = (name, str(tensor.dtype).removeprefix("torch."), ranks)
                self.bytes[key] += passes * (ranks - 1) * volume // ranks
            return send(*args, **kwargs)

        return counted

    def take(self) -> list[list[Any]]:
        """Since the last time."""
        taken = [[*key, volume] for key, volume in sorted(self.bytes.items()) if volume]
        self.bytes.clear()
        return taken


def run_case(case: dict[str, Any], sent: Sent) -> dict[str, Any]:
    config = case["config"]
    get_accelerator().is_fp16_supported = lambda: "fp16" in config
    groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None  # of the case before
    try:
        engine = build_engine(config, MODEL, GEOMETRY, SEED)
        data = batches(
            engine, config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
        )
        steps = []
        for _ in range(case["steps"]):
            sent.take()
            steps.append([engine.train_step(data), engine.global_grad_norm])
    except Exception as error:  # what the engine says is the answer
        return {"refused": f"{type(error).__name__}: {error}"}
    return {
        "steps": steps,
        "sent": sent.take(),
        "parameters": sum(getattr(p, "ds_numel", p.numel()) for p in engine.engine.module.parameters()),
        "optimizer": type(engine.engine.optimizer).__name__,
        "weights": weights(engine),
        "errors_bytes": sum(
            error.numel() * error.element_size()
            for errors in (engine.compressor.errors if engine.compressor else ())
            for error in errors
        ),
    }


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    start_nowhere_at_zero()
    init_distributed()
    sent = Sent()
    results = [run_case(case, sent) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
