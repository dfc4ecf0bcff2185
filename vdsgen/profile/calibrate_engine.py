"""What the engine costs a processor: real DeepSpeed steps of a model so small that nothing else counts."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch

from vdsgen.model.build import build_engine
from vdsgen.model.engine import TrainingEngine
from vdsgen.profile.calibrate_samples import Device, Samples
from vdsgen.profile.calibrate_shapes import (
    ENGINE_BLOCKS,
    ENGINE_CASES,
    ENGINE_MICRO_BATCHES,
    SPECK,
    EngineCase,
)
from vdsgen.profile.trace import empty_inputs
from vdsgen.spec.architecture import Vdt

WARM_UP_STEPS = 2
STEPS = 6
SMALL = Vdt(
    name="small",
    in_channels=8,
    patch_size=1,
    hidden_size=16,
    depth=ENGINE_BLOCKS,
    heads=2,
    mlp_hidden_size=32,
    condition="class",
    classes=4,
)


def engine_samples(ranks: int, device: Device) -> Samples:
    """Seconds of one step by case and number of micro-batches. All ranks call it."""
    samples: Samples = {}
    for case in ENGINE_CASES:
        if ranks % case.stages:
            continue
        for micro_batches in ENGINE_MICRO_BATCHES:
            engine = _engine(case, ranks, micro_batches)
            batches = _batches(engine)
            seconds = []
            for _ in range(WARM_UP_STEPS + STEPS):
                start = device.clock()
                engine.train_step(batches)
                seconds.append(device.clock() - start)
            samples[f"engine {case.name} {micro_batches}"] = seconds[WARM_UP_STEPS:]
            del engine, batches
            gc.collect()
    return samples


def _engine(case: EngineCase, ranks: int, micro_batches: int) -> TrainingEngine:
    data = ranks // case.stages
    layers = SMALL.depth + 2
    zero: dict[str, Any] = {"stage": case.zero_stage}
    if case.zero_stage > 0:
        zero |= {"overlap_comm": False, "contiguous_gradients": case.zero_stage >= 2}
    if case.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = 0 if case.gathers else 10**9
    config = {
        "train_batch_size": data * micro_batches,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "pipeline": {
            "stages": case.stages,
            "partition": [layers * stage // case.stages for stage in range(case.stages + 1)],
        },
        "zero_optimization": zero,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True, "fused": True}},
        "gradient_clipping": 1.0,
        "steps_per_print": 10**9,
    }
    return build_engine(config, SMALL, SPECK, seed=0)


def _batches(engine: TrainingEngine) -> Iterator[Any]:
    """The same micro-batch again and again."""
    inputs = tuple(torch.zeros_like(x) for x in empty_inputs(SMALL, 1, SPECK, "embed", torch.float32))
    target = torch.zeros_like(inputs[0])
    while engine.needs_data:
        yield inputs, target
