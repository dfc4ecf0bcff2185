"""When a step's gradients come to be: whole at once, or layer by layer in the first backward.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.model_states import ModelStates, engine_optimizer
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings


class GradientGrowth(NamedTuple):
    """Bytes of gradients on one stage as a step goes."""

    before_bytes: int
    """Until the first backward starts."""
    at_first_bytes: int
    """When it starts."""
    by_layer: tuple[int, ...]
    """What the first backward adds with each of the stage's layers; empty where nothing grows."""
    after_first_bytes: int
    """From the end of the first backward to the start of the second."""
    full_bytes: int
    """From the start of the second on, until the optimizer has stepped."""


def gradient_growth(
    states: ModelStates, settings: Settings, trainable_parameters: Sequence[int]
) -> GradientGrowth:
    """The stage whose layers have these trainable parameters.

    * torch's AdamW, FP16_UnfusedOptimizer and ZeRO-1 leave gradients with their parameters (`param.grad`, or
      `grad_accum`, zero/stage_1_and_2.py:1234), which forgets them after the step (set_to_none).
    * ZeRO-2 makes this rank's buffer whole with the first gradient of a micro-batch (:2192, or :1268 in
      fp32); sums in the model's dtype have a second one from the second micro-batch on.
    * BF16_Optimizer (bf16_optimizer.py:191) and ZeRO-3 (zero/stage3.py:791) keep one buffer for good.
    """
    full = states.gradients_bytes
    engine = engine_optimizer(settings)
    accumulation = settings.gradient_accumulation_dtype
    if engine == "BF16_Optimizer" or settings.zero_stage == 3:
        return GradientGrowth(full, full, (), full, full)
    if settings.zero_stage == 2:
        doubled = accumulation == settings.dtype and settings.gradient_accumulation_steps > 1
        once = full // 2 if doubled else full
        return GradientGrowth(0, once, (), once, full)
    element_bytes = BYTES_PER_ELEMENT[accumulation]
    by_layer = tuple([element_bytes * count for count in trainable_parameters])
    if sum(by_layer) != full:  # they are not the parameters' own: offloaded
        return GradientGrowth(full, full, (), full, full)
    return GradientGrowth(0, 0, by_layer, full, full)
