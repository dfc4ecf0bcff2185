"""What DeepSpeed saves of one pipeline stage, in bytes of tensors: files have some KiB more each.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.averages import AVERAGE, averaged_elements
from vdsgen.cost.engine_optimizer import EngineOptimizer, engine_optimizer
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.spec.quantized_moments import moment_bytes

MASTER = 4
MOMENTS = 8
COMPRESSION_ERRORS = 2
"""Bytes an element of what int8 gradients have lost, twice: of what is sent, and of the rank's chunk
(model/compression.py)."""


class SavedBytes(NamedTuple):
    """Of the ranks of one stage, those of one data-parallel group."""

    first_rank_bytes: int
    """The first data-parallel rank writes the weights as well."""
    other_ranks_bytes: int
    """Each of them."""

    def of_group(self, ranks: int) -> int:
        return self.first_rank_bytes + (ranks - 1) * self.other_ranks_bytes


def saved_bytes(sizes: StageSizes, settings: Settings) -> SavedBytes:
    """Weights in the model's dtype, frozen ones too, by the first data-parallel rank (pipe/module.py:622,
    engine.py:5403), and each rank's share of master weights and moments (engine.py:5564).

    ZeRO-3's weights are in the masters; of frozen ones each rank writes its part (engine.py:5025). Without
    ZeRO the first rank writes the whole optimizer beside the weights (:5020); BF16_Optimizer shares states
    out all the same, and its first rank writes its share there too.
    """
    optimizer = engine_optimizer(settings)
    elements, width = averaged_elements(sizes, settings, optimizer), settings.element_bytes
    states = _state_bytes(sizes, settings, optimizer, elements)
    frozen = sizes.parameters - sizes.trainable_parameters
    weights = width * sizes.parameters
    average = AVERAGE * elements if settings.ema != "none" else 0
    match optimizer:
        case "AdamW" | "FP16_UnfusedOptimizer":
            first, other = weights + states + average, 0
        case "DeepSpeedZeroOptimizer_Stage3":
            other = states + average + width * -(-frozen // settings.sequence_data_parallel_size)
            first = other
        case _:
            other = states + average
            twice = states if settings.zero_stage == 0 else 0
            first = weights + other + twice
    errors = _compression_bytes(sizes, settings)
    return SavedBytes(first + errors, other + errors)


def _state_bytes(sizes: StageSizes, settings: Settings, optimizer: EngineOptimizer, elements: int) -> int:
    """Master weights and moments of one rank; fp32 without ZeRO has no masters (engine.py:2315)."""
    masters = 0 if optimizer == "AdamW" else MASTER * elements
    if not settings.int8_moments:
        return masters + MOMENTS * elements
    if optimizer in ("AdamW", "FP16_UnfusedOptimizer"):
        return masters + sum(moment_bytes(numel) * count for numel, count in sizes.counts)
    return masters + moment_bytes(elements)


def _compression_bytes(sizes: StageSizes, settings: Settings) -> int:
    if settings.gradient_compression == "none":
        return 0
    elements, ranks = sizes.trainable_parameters, settings.sequence_data_parallel_size
    return COMPRESSION_ERRORS * (elements + -(-elements // ranks))
