"""When a step's gradients come to be: whole at once, or layer by layer in the first backward.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.activations import LayerBytes
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
    """From the start of the second on, or from its last layer on, until the optimizer has stepped."""
    grows_again: bool = False
    """Whether every later backward too adds `by_layer`, to what there was after the first."""


def gradient_growth(
    states: ModelStates, settings: Settings, trainable_parameters: Sequence[int]
) -> GradientGrowth:
    """The stage whose layers have these trainable parameters.

    * torch's AdamW, FP16_UnfusedOptimizer and ZeRO-1 leave gradients with their parameters (`param.grad`, or
      `grad_accum`, zero/stage_1_and_2.py:1234), which forgets them after the step (set_to_none).
    * ZeRO-2 makes this rank's buffer whole when a micro-batch's first bucket is reduced (:2192, or :1268 in
      fp32; of the rank whose share comes last in the stage, which is first in backward); sums in the
      model's dtype have a second one in each later backward.
    * BF16_Optimizer (bf16_optimizer.py:191) and ZeRO-3 (zero/stage3.py:791) keep one buffer for good.
    """
    full = states.gradients_bytes
    engine = engine_optimizer(settings)
    accumulation = settings.gradient_accumulation_dtype
    if engine == "BF16_Optimizer" or settings.zero_stage == 3:
        return GradientGrowth(full, full, (), full, full)
    if settings.zero_stage == 2:
        doubled = accumulation == settings.dtype and settings.gradient_accumulation_steps > 1
        once = full // 2 if doubled and full else full
        reduced = _first_reduced(trainable_parameters, settings.reduce_bucket_elements)
        if reduced is None:
            return GradientGrowth(0, once, (), once, full)
        by_layer = [0] * len(trainable_parameters)
        by_layer[reduced] = once
        return GradientGrowth(0, 0, tuple(by_layer), once, full, doubled)
    element_bytes = BYTES_PER_ELEMENT[accumulation]
    own = tuple([element_bytes * count for count in trainable_parameters])
    return GradientGrowth(0, 0, own, full, full)


def _first_reduced(trainable_parameters: Sequence[int], bucket_elements: int) -> int | None:
    """The layer in whose backward the bucket is filled, so that the gradient of the layer before finds none
    (zero/stage_1_and_2.py:1426); None where that happens within the last layer."""
    elements = 0
    for index in range(len(trainable_parameters) - 1, -1, -1):
        if elements + trainable_parameters[index] > bucket_elements:
            return None if elements == 0 else index + 1
        elements += trainable_parameters[index]
    return 0


def with_reduction(layers: Sequence[LayerBytes], momentary: Sequence[int]) -> tuple[LayerBytes, ...]:
    """The layers, where accumulating or reducing their gradients needs more for a moment than the layers
    themselves (`model_states.momentary_bytes`). When a weight's gradient is there, the layer has freed about
    as much as flows."""
    return tuple(
        [
            layer._replace(backward_transient=max(layer.backward_transient, extra))
            for layer, extra in zip(layers, momentary, strict=True)
        ]
    )
