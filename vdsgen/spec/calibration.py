"""What `vdsgen calibrate` measured: figures of one pool that replace the catalogue's and the cost model's."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from vdsgen.spec.base import NonNegativeFloat, PositiveFloat, PositiveInt, Spec, SpecError
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.step_factors import StepFactors


class Spread(Spec):
    """A figure that was measured several times."""

    median: NonNegativeFloat
    low: NonNegativeFloat
    """First quartile."""
    high: NonNegativeFloat
    """Third quartile."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise SpecError("median", f"{self.median} does not lie between {self.low} and {self.high}")
        return self


class PositiveSpread(Spread):
    """A rate or a duration: above zero."""

    median: PositiveFloat


Measured = PositiveFloat | PositiveSpread
"""A plain number, or one with its quartiles."""


def middle(figure: Measured | Spread | float) -> float:
    """The median of a figure with a spread; a plain number itself."""
    return figure.median if isinstance(figure, Spread) else figure


class MatrixRate(Spec):
    """One shape of matrix product: (rows x depth) times (depth x columns)."""

    dtype: Dtype
    rows: PositiveInt
    columns: PositiveInt
    depth: PositiveInt
    tflops: Measured


class AttentionRate(Spec):
    """Attention of sequences of one length to themselves."""

    dtype: Dtype
    length: PositiveInt
    head_size: PositiveInt
    forward_tflops: Measured
    backward_tflops: Measured
    """Of the five products that backward needs."""


class LayerRate(Spec):
    """One block of the bundled model: what is left of its time beside its matrix products and attention.

    `block_microseconds` are what this rate was derived from: a record, not used for planning.
    """

    dtype: Dtype
    tokens: PositiveInt
    """Clips x frames x patches."""
    forward_gb_per_second: Measured
    """Element-wise work."""
    backward_gb_per_second: Measured
    forward_block_microseconds: Measured
    backward_block_microseconds: Measured


class CollectiveRate(Spec):
    """A collective among all ranks at once."""

    ranks: int = Field(ge=2)
    bandwidth_gb_per_second: Measured
    """What one link of a ring would carry: volume x steps / ranks over the time."""
    latency_microseconds: NonNegativeFloat | Spread
    """Of the smallest message, the whole collective."""


class EngineRate(Spec):
    """Python of the engine, beside the layers' own operators, at one ZeRO stage."""

    zero_stage: int = Field(ge=0, le=3)
    micro_batch_microseconds: NonNegativeFloat | Spread
    """A parameter tensor in each micro-batch: hooks, adding up, reducing."""
    step_microseconds: NonNegativeFloat | Spread
    """A parameter tensor in each step: norms, copies, the optimizer's bookkeeping."""


class Calibration(Spec):
    """Figures measured on this pool; they replace estimates. All are optional, and may be plain numbers."""

    fp32_matmul_tflops: Measured | None = None
    """Matrix rate at a large product."""
    fp16_matmul_tflops: Measured | None = None
    bf16_matmul_tflops: Measured | None = None
    matrix_rates: tuple[MatrixRate, ...] = ()
    """By shape: interpolated between."""
    attention_rates: tuple[AttentionRate, ...] = ()
    memory_bandwidth_gb_per_second: Measured | None = None
    optimizer_bandwidth_gb_per_second: Measured | None = None
    """Fused AdamW, 28 bytes a parameter."""
    layer_rates: tuple[LayerRate, ...] = ()
    kernel_microseconds: Measured | None = None
    """Dispatch of one operator: a block of a few tokens over its operators."""
    engine_rates: tuple[EngineRate, ...] = ()
    gather_microseconds: NonNegativeFloat | Spread | None = None
    """ZeRO-3: a parameter tensor that is gathered, in each micro-batch, beside the collective itself."""
    pipeline_microseconds: NonNegativeFloat | Spread | None = None
    """A pipeline's stage in each micro-batch: its instructions and buffers."""
    link_bandwidth_gb_per_second: Measured | None = None
    """Point to point, all ranks sending and receiving at once."""
    link_latency_microseconds: NonNegativeFloat | Spread | None = None
    all_reduce: CollectiveRate | None = None
    all_gather: CollectiveRate | None = None
    reduce_scatter: CollectiveRate | None = None
    busy_ranks: PositiveInt | None = None
    """Ranks that computed at once while rates were measured: no more than there are cores."""
    alone_speedup: Measured | None = None
    """How much faster a rank computes while all others wait."""
    crowded_slowdown: Measured | None = None
    """How much more processor time a rank takes where ranks outnumber the cores: taking turns empties the
    caches."""
    clip_seconds: Measured | None = None
    """One loader process reads, decodes and prepares one clip."""
    host_link_bandwidth_gb_per_second: Measured | None = None
    """Between an accelerator and pinned memory of its host."""
    host_memory_bandwidth_gb_per_second: Measured | None = None
    checkpoint_write_gb_per_second: Measured | None = None
    """All ranks of the node saving at once: written, on the disk, and hashed."""
    step_factors: StepFactors | None = None
    """What `vdsgen ablate` learned from whole steps, on top of these rates."""
