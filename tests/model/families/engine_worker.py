"""One rank that trains tiny diffusers models on DeepSpeed's real engine, one case after another.

Reads {"cases": [...]} from standard input; prints, as its last line, a list with one result a case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from torch import Tensor

from tests.model.families.stages import SEED
from tests.model.families.tiny import TINY, Inputs, Tiny
from vdsgen.model.distributed import init_distributed
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.families.layer_specs import DiffusersLayer, diffusers_layer_specs
from vdsgen.model.pipeline import PlannedPipelineModule, SequentialModel

STEPS = 3
ADAMW = {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-3, "weight_decay": 0.1}
"""A large epsilon keeps rounding errors of small gradients from becoming steps."""


CLIPPING = 1.0


def figures_of(parameter: Tensor) -> list[float]:
    """Sum and norm."""
    value = parameter.detach().double()
    return [float(value.sum()), float(value.norm())]


def mean_square(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean()


def micro_batches(tiny: Tiny) -> Iterator[tuple[Inputs, Tensor]]:
    """One sample each, the samples of the tiny inputs in turn."""
    inputs = tiny.inputs()
    index = 0
    while True:
        sample = tuple(x[index % len(x)].unsqueeze(0) for x in inputs)
        channels = tiny.config.get("out_channels") or tiny.config["in_channels"]
        shape = (1, channels, *inputs[0].shape[2:])
        yield sample, torch.randn(shape, generator=torch.Generator().manual_seed(index))
        index += 1


def built_engine(case: dict[str, Any]) -> TrainingEngine:
    tiny = TINY[case["tiny"]]
    zero, interval = case["zero"], case.get("interval", 0)
    world = torch.distributed.get_world_size()
    stages = len(case["partition"]) - 1
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2 * stages // world,
        "optimizer": {"type": "AdamW", "params": {**ADAMW, "torch_adam": True}},
        "gradient_clipping": CLIPPING,
        "steps_per_print": 1_000_000,
        "zero_optimization": {"stage": zero},
        "pipeline": {"activation_checkpoint_interval": interval, "use_reentrant": False},
    }
    specs = diffusers_layer_specs(tiny, SEED)
    if stages > 1:
        module: torch.nn.Module = PlannedPipelineModule(
            specs, case["partition"], [interval] * stages, mean_square
        )
    else:
        with deepspeed.zero.Init(config_dict_or_path=config, enabled=zero == 3):
            module = SequentialModel(specs, interval, mean_square)
    engine, *_ = deepspeed.initialize(model=module, model_parameters=list(module.parameters()), config=config)
    return TrainingEngine(engine)


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    engine = built_engine(case)
    batches = micro_batches(TINY[case["tiny"]])
    if not engine.pipelined:  # data ranks take turns
        batches = (
            b for i, b in enumerate(batches) if i % engine.data_parallel_size == engine.data_parallel_rank
        )
    held = sum(p.numel() for p in engine.engine.module.parameters())
    losses = [engine.train_step(batches) for _ in range(STEPS)]
    prediction = engine.predict(next(micro_batches(TINY[case["tiny"]]))[0])
    weights: dict[str, Any] = {}
    for layer in engine.engine.module.modules():
        if isinstance(layer, DiffusersLayer):
            for own, p in layer.named_parameters():
                with deepspeed.zero.GatheredParameters([p], enabled=hasattr(p, "ds_id")):
                    weights[layer.diffusers_names[own]] = figures_of(p)
    return {
        "losses": losses,
        "prediction": prediction.flatten().tolist(),
        "weights": weights,
        "held_when_built": held,
    }


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    init_distributed()
    results = [run_case(case) for case in job["cases"]]
    print(flush=True)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
