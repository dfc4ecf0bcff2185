"""Builds DeepSpeed engines from configurations, in one process, and says what each raised.

    python -m tests.rules.engine_probe < CASES.json > OUTCOMES.json

A case is {"config": ds_config, "pipeline": null or a number of stages, "lacks": dtypes that the device
is said not to support}. An outcome is null where two steps trained, else "ErrorType: message".
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any

import torch


def outcome(case: dict[str, Any]) -> str | None:
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from deepspeed.pipe import PipelineModule

    accelerator = get_accelerator()
    lacks = case.get("lacks", [])
    accelerator.is_fp16_supported = lambda: "fp16" not in lacks
    accelerator.is_bf16_supported = lambda: "bf16" not in lacks
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 8) for _ in range(2)]
    try:
        if case.get("pipeline"):
            module: Any = PipelineModule(
                layers=layers, num_stages=case["pipeline"], loss_fn=torch.nn.functional.mse_loss
            )
        else:
            module = torch.nn.Sequential(*layers)
        engine, *_ = deepspeed.initialize(
            model=module, model_parameters=list(module.parameters()), config=case["config"]
        )
        dtype = next(module.parameters()).dtype
        for _ in range(2):
            if case.get("pipeline"):
                engine.train_batch(iter([(torch.ones(2, 8, dtype=dtype), torch.ones(2, 8, dtype=dtype))] * 8))
            else:
                for _ in range(engine.gradient_accumulation_steps()):
                    engine.backward(engine(torch.ones(2, 8, dtype=dtype)).float().square().mean())
                    engine.step()
        engine.destroy()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )  # fmt: skip
    cases = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        from vdsgen.model.distributed import init_distributed

        init_distributed()
        outcomes = [outcome(case) for case in cases]
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
