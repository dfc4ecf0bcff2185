"""DeepSpeed as the judge of configs: builds its engine from each, and trains a step, in one warmed process.

    python -m tests.review.lint.oracle_worker WORLD_SIZE [--compile] < CASES > OUTCOMES

A case is a line {"text": config, "stages": of a PipelineModule, 0 for none, "client_optimizer": bool}.
An outcome is a line: null where DeepSpeed took the config, else {"error", "phase", "frame"}: what it
raised, whether it did so in `initialize` or in the first `step`, and its innermost own line. This process is
one rank of a process group whose others do not exist (vdsgen/verify/fake_rank.py); fp16 is declared
supported, as a GPU would. Each case runs in a fork of it, so that none sees what another left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch

LONGEST_SECONDS = 20
MOST_MICRO_BATCHES = 16
"""That are worth running: configs of more train a step of fewer."""
SIZE = 8


def judge(path: Path, stages: int, client_optimizer: bool) -> dict[str, Any] | None:
    """Null where the engine initialises and steps."""
    phase = "initialize"
    try:
        engine, module = build(path, stages, client_optimizer)
        phase = "step"
        inputs = torch.ones(2, SIZE, dtype=next(module.parameters()).dtype)
        if stages:
            train_pipeline(engine, inputs)
        else:
            train(engine, inputs)
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}", "phase": phase, "frame": _frame(error)}
    return None


def build(path: Path, stages: int, client_optimizer: bool = False) -> tuple[Any, Any]:
    import deepspeed
    from deepspeed.pipe import PipelineModule

    torch.manual_seed(0)
    layers = [torch.nn.Linear(SIZE, SIZE) for _ in range(4)]
    if stages:
        loss = torch.nn.functional.mse_loss
        module: Any = PipelineModule(layers=layers, num_stages=stages, loss_fn=loss)
    else:
        module = torch.nn.Sequential(*layers)
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters) if client_optimizer else None
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, model_parameters=parameters, config=str(path)
    )
    return engine, module


def train(engine: Any, inputs: torch.Tensor) -> None:
    """A step."""
    micro_batches = engine.gradient_accumulation_steps()
    if micro_batches > MOST_MICRO_BATCHES:
        micro_batches = 1
        if engine.managed_gradient_accumulation():  # else step() ends it anyway
            engine.set_gradient_accumulation_boundary(True)
    for _ in range(micro_batches):
        engine.backward(engine(inputs).float().square().mean())
        engine.step()


def train_pipeline(engine: Any, inputs: torch.Tensor) -> None:
    """A step of this rank's stage, the first: what its neighbour would send is zeros. The dynamic loss scale,
    among others, is read in a step and not before."""
    engine.micro_batches = min(engine.micro_batches, MOST_MICRO_BATCHES)
    engine.train_batch(itertools.repeat((inputs, torch.zeros_like(inputs))))


def _frame(error: BaseException) -> str:
    """file:line of the innermost frame in DeepSpeed."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name = frame.filename.rpartition("/deepspeed/")
        if name[1]:
            return f"{name[2]}:{frame.lineno}"
    return ""


def without_compiling() -> None:
    """Configs that need an operator of DeepSpeed's own are then left unjudged: building one takes minutes."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    def refuse(builder: Any, verbose: bool = True) -> None:
        raise RuntimeError("operators are not compiled here")

    OpBuilder.jit_load = refuse


def warm(folder: Path) -> None:
    """Imports and builds what configs ask for, so that forks find it; none runs backward, which threads."""
    adam = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
    fused = {"type": "Adam", "params": {"lr": 1e-3}}
    offload = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    for number, config in enumerate(
        [
            {"optimizer": adam, "bf16": {"enabled": True}},
            {"optimizer": adam, "zero_optimization": {"stage": 1}},
            {"optimizer": adam, "zero_optimization": {"stage": 3}},
            {"optimizer": fused, "fp16": {"enabled": True}},
            {"optimizer": fused, "zero_optimization": offload},
            {"optimizer": {"type": "Lion"}, "zero_optimization": offload},
            {"optimizer": {"type": "Adagrad"}, "zero_optimization": offload},
        ]
    ):
        path = folder / f"warm{number}.json"
        path.write_text(json.dumps({"train_micro_batch_size_per_gpu": 1, **config}))
        with contextlib.suppress(Exception):
            build(path, 0)


def in_fork(case: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.chdir(folder)
            path = folder / "config.json"
            path.write_bytes(case["text"].encode("utf-8", "surrogatepass"))
            outcome = judge(path, case["stages"], case["client_optimizer"])
            os.write(writing, json.dumps(outcome).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], LONGEST_SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
            return {"error": f"no answer in {LONGEST_SECONDS} s", "phase": "hang", "frame": ""}
        with os.fdopen(reading, "rb", closefd=False) as stream:
            answer = stream.read()
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    if not answer:
        return {"error": f"the process ended with status {status}", "phase": "crash", "frame": ""}
    told: dict[str, Any] | None = json.loads(answer)
    return told


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine prints is no answer
    from vdsgen.verify.fake_rank import join_fake_group

    # Muon compiles its arithmetic, which takes longer than all the rest.
    os.environ.update(DS_ACCELERATOR="cpu", TORCHDYNAMO_DISABLE="1")
    os.environ.update(CROSS_RANK="0", CROSS_SIZE="1")  # DeepSpeed's launcher sets them: this node, of so many
    join_fake_group(0, int(sys.argv[1]))
    if "--compile" not in sys.argv:
        without_compiling()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm(folder)
        for line in sys.stdin:
            print(json.dumps(in_fork(json.loads(line), folder)), file=answers, flush=True)


if __name__ == "__main__":
    main()
