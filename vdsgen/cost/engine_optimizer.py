"""Which optimizer the engine wraps around torch's AdamW, and which combinations it refuses.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from typing import Literal

from vdsgen.cost.settings import Settings

EngineOptimizer = Literal[
    "AdamW",
    "FP16_UnfusedOptimizer",
    "BF16_Optimizer",
    "DeepSpeedZeroOptimizer",
    "DeepSpeedZeroOptimizer_Stage3",
]
"""Class names of `engine.optimizer`."""


def engine_optimizer(settings: Settings) -> EngineOptimizer:
    """The engine's choice (engine.py:2294-2325, `_do_optimizer_sanity_check`).

    Raises ValueError where the engine does (NotImplementedError or an assertion there), and where it would
    ignore what is asked: it reads offload of the optimizer from ZeRO-1 on (:2688, :2772), and offload of
    parameters at ZeRO-3 alone (:2773).
    """
    stage, dtype, accumulation = settings.zero_stage, settings.dtype, settings.gradient_accumulation_dtype
    pipelined = settings.pipeline_parallel_size > 1
    if stage >= 2 and pipelined:
        raise ValueError(f"ZeRO-{stage} with a pipeline: refused (pipe/engine.py:76)")
    if settings.offload_optimizer != "none" and stage == 0:
        raise ValueError("offload of the optimizer without ZeRO: refused, it is ignored (engine.py:2688)")
    if settings.int8_moments and settings.offload_optimizer != "none":
        raise ValueError("moments in int8 with an offloaded optimizer: refused (vdsgen/model/build.py)")
    if settings.offload_parameters != "none" and stage != 3:
        raise ValueError(f"offload of parameters with ZeRO-{stage}: refused, it is ignored (engine.py:2773)")
    if stage == 0 and accumulation != dtype:
        raise ValueError(f"{accumulation} sums of {dtype} gradients without ZeRO: refused (engine.py:2323)")
    if stage == 0 and dtype == "fp32":
        return "AdamW"
    if stage == 0:
        return "BF16_Optimizer" if dtype == "bf16" and pipelined else "FP16_UnfusedOptimizer"
    # NVMe takes the CPU path of ZeRO-1 and 2, but here the engine asks for `cpu` alone (:2306, :1567).
    if stage == 1 and (dtype, accumulation) == ("bf16", "fp32") and settings.offload_optimizer != "cpu":
        return "BF16_Optimizer"
    return "DeepSpeedZeroOptimizer" if stage <= 2 else "DeepSpeedZeroOptimizer_Stage3"
