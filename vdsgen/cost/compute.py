"""Seconds that a GPU computes: matrix products at the matrix rate, everything else at memory bandwidth.

Sources of the efficiencies: /docs/planner.md, "Where the time figures come from".
"""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.experiment import Dtype
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.profile import LayerCosts, ModelProfile

MATMUL_EFFICIENCY = 0.51
"""Share of the dense peak rate that training's matrix products reach.

Median hardware FLOP utilisation (recomputation counted) of eight published runs: llm-foundry
scripts/train/benchmarking/README.md @8c8dd48, full training in bf16 on one node of 8 GPUs with
sequences of 2,048 to 8,192 tokens. H100: MPT-13B 39.79 %, MPT-7B 46.44 % and 49.52 %, MPT-3B 40.31 %;
A100: MPT-30B 52.50 % and 73.74 %, MPT-13B 74.76 % and 59.57 %. These include kernels that are not matrix
products and some communication, so the rate of matrix products alone is underestimated and plans lean to
the slow side. `vdsgen calibrate` replaces it by a measurement.
"""

ATTENTION_EFFICIENCY = 0.40
"""Share of the dense peak rate inside attention.

Median hardware FLOP utilisation of the same source's six runs with 32,768 tokens and more, where attention
is most of the work: H100 MPT-13B 42.24 %, MPT-7B 41.25 % and 38.00 %, MPT-3B 38.41 % and 35.71 %; A100
MPT-13B 68.80 %. Temporal attention over a few frames does worse; it is a small share of the FLOPs.
"""

BANDWIDTH_EFFICIENCY = 0.867
"""Share of the peak memory bandwidth that streaming kernels reach.

Device-to-device copies on H100 SXM: 2,903 GB/s of 3,350 (github.com/aigatech/vpbenchmarking, "Memory
Bandwidth, Single Node").
"""

BACKWARD_MATMUL_FACTOR = 2.0
"""A matrix product's backward is two products of the same size: by its input and by its weight."""
BACKWARD_ATTENTION_FACTOR = 2.5
"""Five products instead of two, since the scores are computed again (arXiv 2307.08691, section 4.1)."""

TERA = 1e12
GB = 1e9


class Rates(NamedTuple):
    """What one GPU sustains."""

    matmul_flops_per_second: float
    attention_flops_per_second: float
    bytes_per_second: float
    peak_flops_per_second: float
    """The catalogue's dense peak in this dtype: what utilisation is relative to."""

    @classmethod
    def of(cls, pool: Pool, dtype: Dtype) -> Rates:
        """Sustained rates of a pool's GPU, its name resolved; measured figures replace estimates.

        A processor's catalogue figures are rates that were reached, so no efficiency is applied to them.
        Raises ValueError where the GPU has no such precision (a rule rejects those first).
        """
        gpu = pool.gpu
        assert isinstance(gpu, Gpu), "the GPU is resolved before costs are asked for"
        peak_tflops = peak_rate_tflops(gpu, dtype)
        if peak_tflops is None:
            raise ValueError(f"pool {pool.name}: its GPU has no {dtype} rate")
        is_processor = gpu.memory_gib is None
        peak = peak_tflops * TERA
        matmul = peak if is_processor else peak * MATMUL_EFFICIENCY
        attention = peak if is_processor else peak * ATTENTION_EFFICIENCY
        bandwidth = gpu.memory_bandwidth_gb_per_second * GB * (1.0 if is_processor else BANDWIDTH_EFFICIENCY)
        if pool.calibration is not None:
            measured = {
                "fp32": pool.calibration.fp32_matmul_tflops,
                "fp16": pool.calibration.fp16_matmul_tflops,
                "bf16": pool.calibration.bf16_matmul_tflops,
            }[dtype]
            if measured is not None:
                attention *= measured * TERA / matmul
                matmul = measured * TERA
            if pool.calibration.memory_bandwidth_gb_per_second is not None:
                bandwidth = pool.calibration.memory_bandwidth_gb_per_second * GB
        return cls(matmul, attention, bandwidth, peak)


def peak_rate_tflops(gpu: Gpu, dtype: Dtype) -> float | None:
    """Dense peak rate in this dtype; None where the GPU does not support it."""
    return {"fp32": gpu.fp32_tflops, "fp16": gpu.fp16_tflops, "bf16": gpu.bf16_tflops}[dtype]


class LayerTimes(NamedTuple):
    """One micro-batch through one layer."""

    forward_seconds: float
    backward_seconds: float
    """Without recomputation."""
    model_flops: float
    """Forward and backward, recomputation not counted."""

    def slowed(self, factor: float) -> LayerTimes:
        """The same work in `factor` times the time."""
        return self._replace(
            forward_seconds=factor * self.forward_seconds, backward_seconds=factor * self.backward_seconds
        )


def layer_times(costs: LayerCosts, micro_batch_size: int, geometry: Geometry, rates: Rates) -> LayerTimes:
    """Sum of the three kinds of work, each at its own rate.

    They add up, rather than overlap, since kernels run one after another on one stream.
    Ignored: launch latency, and matrix products too small to fill the GPU.
    """
    matmul = costs.matmul_flops.at(micro_batch_size, geometry)
    attention = costs.attention_flops.at(micro_batch_size, geometry)
    matmul_seconds = matmul / rates.matmul_flops_per_second
    attention_seconds = attention / rates.attention_flops_per_second
    return LayerTimes(
        forward_seconds=matmul_seconds
        + attention_seconds
        + costs.forward_traffic_bytes.at(micro_batch_size, geometry) / rates.bytes_per_second,
        backward_seconds=BACKWARD_MATMUL_FACTOR * matmul_seconds
        + BACKWARD_ATTENTION_FACTOR * attention_seconds
        + costs.backward_traffic_bytes.at(micro_batch_size, geometry) / rates.bytes_per_second,
        model_flops=(1 + BACKWARD_MATMUL_FACTOR) * matmul + (1 + BACKWARD_ATTENTION_FACTOR) * attention,
    )


def costs_of(profile: ModelProfile, layer_type: str, dtype: Dtype) -> LayerCosts:
    """A layer type's costs at the element width of this dtype."""
    layer = profile.layer_types[layer_type]
    return layer.half if BYTES_PER_ELEMENT[dtype] == 2 else layer.single


def accumulation_seconds(trainable_parameters: int, settings: Settings, rates: Rates) -> float:
    """Adding one micro-batch's gradients to those of the step: read both, write the sum.

    Nothing where a step has one micro-batch in the model's own dtype: autograd then keeps the gradient.
    """
    accumulated = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    if settings.gradient_accumulation_steps == 1 and accumulated == settings.element_bytes:
        return 0.0
    return trainable_parameters * (settings.element_bytes + 2 * accumulated) / rates.bytes_per_second


def optimizer_seconds(updated_parameters: int, settings: Settings, rates: Rates) -> float:
    """One AdamW step over the parameters that this rank updates, bound by memory bandwidth.

    Bytes a parameter: gradient norm (read the accumulated gradient), its cast to fp32 where it is not
    (read, write 4), clipping (read 4, write 4), fused AdamW (read gradient, parameter and two moments,
    write the last three: 28), and the copy to half precision (read 4, write 2).
    """
    accumulated = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    traffic = accumulated + 8 + 28
    if accumulated != 4:
        traffic += accumulated + 4
    if settings.element_bytes != 4:
        traffic += 4 + settings.element_bytes
    return updated_parameters * traffic / rates.bytes_per_second
