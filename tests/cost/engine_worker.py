"""A real DeepSpeed engine on this rank: builds the configuration it is given around a model that is nearly
all parameters, trains it two steps, and reports the bytes that the engine held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from vdsgen.profile.engine_bytes import owners
from vdsgen.profile.live_bytes import LiveBytes

WIDTH = 191
LAYERS = 33
"""Odd numbers: nothing divides by the number of ranks, and a share ends within a parameter."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure_states(case: dict[str, Any]) -> dict[str, Any]:
    """The bytes that one configuration holds, in the second of two steps."""
    tracker = LiveBytes()
    with tracker:
        engine = build(case)
        seen = watch(engine, tracker)
        step = pipeline_step(engine, case) if case["stages"] > 1 else plain_step(engine, case)
        step()
        tracker.forget_peaks()
        with tracker.phase("compute"):
            step()
    peaks = {name: tracker.peak_of(name) for name in ("compute", "reduce", "step")}
    result = {
        "stage": engine.stage_id if case["stages"] > 1 else 0,
        "optimizer": type(engine.optimizer).__name__,
        "shapes": [list(getattr(p, "ds_shape", p.shape)) for p in engine.module.parameters()],
        "peaks": peaks,
        "checksum": checksum(engine),
        **seen,
    }
    engine.destroy()
    forget_groups()
    return result


class Layer(nn.Module):
    """A residual linear layer of odd sizes: the model is nearly all parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.linear(x).tanh()
        return out


def build(case: dict[str, Any]) -> Any:
    """The engine, on `case["config"]` as the renderer would write it."""
    import deepspeed
    from deepspeed.pipe import LayerSpec, PipelineModule

    torch.manual_seed(0)
    if case["stages"] > 1:
        module: nn.Module = PipelineModule(
            [LayerSpec(Layer) for _ in range(LAYERS)],
            num_stages=case["stages"],
            loss_fn=nn.functional.mse_loss,
            partition_method="uniform",
        )
    else:
        with deepspeed.zero.Init(config_dict_or_path=case["config"], enabled=case["zero_stage"] == 3):
            module = nn.Sequential(*[Layer() for _ in range(LAYERS)])
    engine, *_ = deepspeed.initialize(model=module, config=case["config"])
    return engine


def watch(engine: Any, tracker: LiveBytes) -> dict[str, Any]:
    """Marks the engine's reduction and its optimizer step as phases; at the start of the reduction, that
    is with all gradients there, notes who owns how much. Returns where the notes go."""
    from deepspeed.runtime.pipe import schedule
    from deepspeed.runtime.pipe.engine import PipelineEngine

    seen: dict[str, Any] = {}

    def reduce(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        seen["live_bytes"] = tracker.live_bytes
        seen["bytes"] = owners(engine)
        with tracker.phase("reduce"):
            return original(*args, **kwargs)

    def step(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with tracker.phase("step"):
            return original(*args, **kwargs)

    if isinstance(engine, PipelineEngine):
        reduce_grads, optimizer_step = engine._exec_reduce_grads, engine._exec_optimizer_step
        engine._INSTRUCTION_MAP = {
            **engine._INSTRUCTION_MAP,
            schedule.ReduceGrads: lambda _, *args, **kwargs: reduce(reduce_grads, *args, **kwargs),
            schedule.OptimizerStep: lambda _, *args, **kwargs: step(optimizer_step, *args, **kwargs),
        }
    else:
        allreduce, take_step = engine.allreduce_gradients, engine._take_model_step
        engine.allreduce_gradients = lambda *args, **kwargs: reduce(allreduce, *args, **kwargs)
        engine._take_model_step = lambda *args, **kwargs: step(take_step, *args, **kwargs)
    return seen


def pipeline_step(engine: Any, case: dict[str, Any]) -> Callable[[], Any]:
    data = batches(case)
    return lambda: engine.train_batch(data)


def plain_step(engine: Any, case: dict[str, Any]) -> Callable[[], Any]:
    data = batches(case)

    def step() -> None:
        for _ in range(engine.gradient_accumulation_steps()):
            inputs, target = next(data)
            engine.backward(nn.functional.mse_loss(engine(inputs), target))
            engine.step()

    return step


def batches(case: dict[str, Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    dtype = DTYPES[case["dtype"]]
    generator = torch.Generator().manual_seed(1)
    while True:
        yield (
            torch.randn(1, WIDTH, generator=generator).to(dtype),
            torch.randn(1, WIDTH, generator=generator).to(dtype),
        )


def checksum(engine: Any) -> float:
    """Sum of squares of this rank's master weights' half or full precision copies, padding left out."""
    if any(hasattr(parameter, "ds_tensor") for parameter in engine.module.parameters()):
        return 0.0
    return sum(float(p.data.double().square().sum()) for p in engine.module.parameters())


def forget_groups() -> None:
    """What a pipeline's engine leaves in DeepSpeed's modules, a plain one would find and fail on."""
    from deepspeed.utils import groups

    groups.mpu = None
