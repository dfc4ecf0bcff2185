"""When a step's gradients come to be: whole at once, or layer by layer in the first backward.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.cost.state_bytes import ModelStates


class GradientGrowth(NamedTuple):
    """Bytes on one stage as a step goes: gradients, and the buffers that they are reduced through."""

    before_bytes: int
    """Until the first backward adds to it."""
    first_by_layer: tuple[int, ...]
    """What the first backward adds with each of the stage's layers, from the last to the first."""
    between_bytes: int
    """In forwards after the first backward, and when a later backward starts."""
    later_by_layer: tuple[int, ...]
    """What every later backward adds."""
    full_bytes: int
    """When the last gradients are reduced, and until the optimizer has stepped."""
    always_bytes: int
    """Buckets and gathers, in any backward."""
    bucket_bytes: int
    """A bucket that is there from a micro-batch's first gradient to its last."""
    gathered_by_layer: tuple[int, ...] = ()
    """ZeRO-3 under checkpointing: each layer's weights, all of which a recomputed segment holds until its
    backward has used them (autograd saves views of them, which their release does not free)."""
    gathered_bytes: int = 0
    """How much of them `always_bytes` has room for."""

    def segment_bytes(self, begin: int, end: int) -> int:
        """Gathered weights of the segment of the stage's layers begin to end - 1, beyond `always_bytes`."""
        return max(0, sum(self.gathered_by_layer[begin:end]) - self.gathered_bytes)

    @property
    def first_growth(self) -> Sequence[int]:
        """Gradients and bucket by layer, in the first backward."""
        return self._with_bucket(self.first_by_layer)

    @property
    def later_growth(self) -> Sequence[int]:
        """The same in every later backward."""
        return self._with_bucket(self.later_by_layer)

    def _with_bucket(self, by_layer: tuple[int, ...]) -> Sequence[int]:
        if not self.bucket_bytes:
            return by_layer
        return (*by_layer[:-1], by_layer[-1] + self.bucket_bytes)


def gradient_growth(
    states: ModelStates,
    settings: Settings,
    trainable_parameters: Sequence[int],
    parameters: Sequence[int] | None = None,
) -> GradientGrowth:
    """The stage whose layers train these parameters, and have those (the same, where none are frozen).

    * torch's AdamW, FP16_UnfusedOptimizer and ZeRO-1 leave gradients with their parameters (`param.grad`, or
      `grad_accum`, zero/stage_1_and_2.py:1234), which forgets them after the step (set_to_none).
    * ZeRO-2 makes this rank's buffer whole when a bucket is reduced that has gradients of its share: at the
      worst the first that is full (:1422, :2192, or :1268 in fp32). Sums in the model's dtype take a second
      one in every later micro-batch (:1045), until it is added to the first.
    * BF16_Optimizer (bf16_optimizer.py:191) and ZeRO-3 (zero/stage3.py:791) keep one buffer for good.
    """
    full = states.gradients_bytes
    accumulation = settings.gradient_accumulation_dtype
    running = states.communication_bytes
    nothing = (0,) * len(trainable_parameters)
    constant = GradientGrowth(full, nothing, full, nothing, full, running, 0)
    if settings.zero_stage == 2 and settings.offload_optimizer == "none":
        bucket = settings.reduce_bucket_elements
        doubled = accumulation == settings.dtype and settings.gradient_accumulation_steps > 1
        once = full // 2 if doubled else full
        first = tuple(_at_first_full(trainable_parameters, bucket, once))
        later = tuple(_at_first_full(trainable_parameters, bucket, full - once))
        return GradientGrowth(0, first, once, later, full, 0, running)
    if settings.zero_stage == 3 and _gathers(settings):
        parameters = trainable_parameters if parameters is None else parameters
        weights = tuple([settings.element_bytes * count for count in parameters])
        return constant._replace(
            gathered_by_layer=weights, gathered_bytes=_room_bytes(settings, sum(parameters))
        )
    if settings.zero_stage >= 2 or engine_optimizer(settings) == "BF16_Optimizer":
        return constant
    element_bytes = BYTES_PER_ELEMENT[accumulation]
    by_layer = tuple([element_bytes * count for count in trainable_parameters])
    return GradientGrowth(0, by_layer, full, nothing, full, running, 0)


def _gathers(settings: Settings) -> bool:
    """Whether ZeRO-3 gathers what a recomputed segment then holds: a share that is the whole parameter is no
    copy."""
    shared = settings.sequence_data_parallel_size > 1 or settings.offload_parameters != "none"
    return shared and settings.checkpoints


def _room_bytes(settings: Settings, parameters: int) -> int:
    """Gathered and gathered ahead, as zero_3_states.py counts them."""
    live = max(defaults.STAGE3_MAX_LIVE_PARAMETERS, defaults.STAGE3_MAX_REUSE_DISTANCE)
    ahead = defaults.STAGE3_PREFETCH_BUCKET_ELEMENTS
    return settings.element_bytes * (min(parameters, live) + min(parameters, ahead))


def _at_first_full(trainable_parameters: Sequence[int], bucket_elements: int, amount: int) -> list[int]:
    """All of `amount` with the layer before whose backward, from the last layer on, the first bucket is full:
    a gradient that finds no room in it has it reduced (zero/stage_1_and_2.py:1426), so that the layer which
    overfills it sees all of `amount` already. With the last one to come where no bucket is ever full."""
    by_layer = [0] * len(trainable_parameters)
    elements = filled = 0
    for index in range(len(by_layer) - 1, -1, -1):
        elements += trainable_parameters[index]
        if elements > bucket_elements:
            filled = min(index + 1, len(by_layer) - 1)
            break
    by_layer[filled] = amount
    return by_layer
