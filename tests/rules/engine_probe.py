"""Builds DeepSpeed engines from configurations, in one process, and says what each raised or made of them.

    python -m tests.rules.engine_probe < CASES.json > OUTCOMES.json

A case is an object; all keys are optional:

- config: ds_config, of an ordinary module or of a PipelineModule with `pipeline` stages (or with a
  `topology` of pipeline x data ranks, a `method` of partitioning, or `dual` for DualPipeV)
- lacks: dtypes that the device is said not to support
- client: the training code brings "optimizer", "scheduler" or both
- parameters: false for an engine without an optimizer
- world, devices: what torch.distributed and the accelerator are said to have
- call: an expression that is evaluated in place of building an engine, with the modules that it names
- steps: how many steps to train (0)
- reads: expressions on `engine`, evaluated at the end

An outcome is {"error": null or "ErrorType: message", "reads": [...]}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    try:
        with pretended(case):
            if "call" in case:
                scope = {
                    name: importlib.import_module(path) for name, path in case.get("modules", {}).items()
                }
                with contextlib.ExitStack() as stack:
                    for module in scope.values():
                        stack.enter_context(mock.patch.dict(vars(module)))  # undoes what it sets
                    value = eval(case["call"], {"config": case.get("config"), **scope})
                return {"error": None, "reads": [value if isinstance(value, bool | int | str) else None]}
            engine = build(case)
            train(engine, case)
            known = {"engine": engine, "torch": torch, "folder": tempfile.mkdtemp()}
            reads = [eval(expression, known) for expression in case.get("reads", [])]
            engine.destroy()
            return {"error": None, "reads": [read if is_plain(read) else str(read) for read in reads]}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "reads": []}


def is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


@contextlib.contextmanager
def pretended(case: dict[str, Any]) -> Iterator[None]:
    """The device and the world that the case asks for."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    lacks = case.get("lacks", [])
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            mock.patch.object(type(accelerator), "is_fp16_supported", lambda self: "fp16" not in lacks)
        )
        stack.enter_context(
            mock.patch.object(type(accelerator), "is_bf16_supported", lambda self: "bf16" not in lacks)
        )
        if "devices" in case:
            stack.enter_context(
                mock.patch.object(type(accelerator), "device_count", lambda self: case["devices"])
            )
        if "world" in case:
            world = case["world"]
            stack.enter_context(
                mock.patch.object(deepspeed.comm, "get_world_size", lambda *args, **kwargs: world)
            )
        yield


def build(case: dict[str, Any]) -> Any:
    import deepspeed

    module = made_module(case)
    parameters = [one for one in module.parameters() if one.requires_grad]
    client = case.get("client", [])
    optimizer = torch.optim.AdamW(parameters, lr=1e-3) if "optimizer" in client else None
    scheduler = None
    if "scheduler" in client:
        stand_in = optimizer or torch.optim.AdamW(parameters, lr=1e-3)
        scheduler = torch.optim.lr_scheduler.ConstantLR(stand_in)
    engine, *_ = deepspeed.initialize(
        model=module,
        model_parameters=parameters,
        optimizer=optimizer,
        lr_scheduler=scheduler,
        config=json.loads(json.dumps(case["config"])),
    )
    return engine


def made_module(case: dict[str, Any]) -> Any:
    from deepspeed.pipe import PipelineModule
    from deepspeed.runtime.pipe.topology import PipeDataParallelTopology

    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 8) for _ in range(2)]
    loss = torch.nn.functional.mse_loss
    method = case.get("method", "uniform")
    if case.get("dual"):
        from deepspeed.runtime.pipe.dualpipev import DualPipeVModule

        return DualPipeVModule(layers=layers, num_stages=1, loss_fn=loss, partition_method=method)
    if "topology" in case:
        pipe, data = case["topology"]
        return PipelineModule(
            layers=layers, topology=PipeDataParallelTopology(num_pp=pipe, num_dp=data), loss_fn=loss
        )
    if case.get("pipeline"):
        return PipelineModule(
            layers=layers, num_stages=case["pipeline"], loss_fn=loss, partition_method=method
        )
    if case.get("experts"):
        from deepspeed.moe.layer import MoE

        return torch.nn.Sequential(layers[0], MoE(hidden_size=8, expert=layers[1], num_experts=1))
    return torch.nn.Sequential(*layers)


def train(engine: Any, case: dict[str, Any]) -> None:
    dtype = next(engine.module.parameters()).dtype
    for _ in range(case.get("steps", 0)):
        if case.get("pipeline"):
            engine.train_batch(iter([(torch.ones(2, 8, dtype=dtype), torch.ones(2, 8, dtype=dtype))] * 8))
        else:
            for _ in range(engine.gradient_accumulation_steps()):
                engine.backward(engine(torch.ones(2, 8, dtype=dtype)).float().square().mean())
                engine.step()


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )  # fmt: skip
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine prints is no outcome
    from vdsgen.model.distributed import init_distributed

    init_distributed()
    outcomes = [outcome(case) for case in json.load(sys.stdin)]
    json.dump(outcomes, answers)
    answers.flush()


if __name__ == "__main__":
    main()
