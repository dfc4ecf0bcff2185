"""What one GPU sustains: peaks times efficiencies, or what a calibration measured.

Sources of the efficiencies: /docs/planner.md, "Where the time figures come from".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from vdsgen.cost.efficiency import attention_efficiency, matrix_efficiency, softmax_share
from vdsgen.cost.measured import MeasuredRates
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.linear_precision import EightBit, LinearPrecision

MATMUL_EFFICIENCY = 0.80
"""Share of the dense peak rate that the library's best shapes sustain in bf16.

Median of seven accelerators, github.com/stas00/ml-engineering, compute/accelerator/README.md @b9e2972,
"Maximum Achievable Matmul FLOPS comparison table": A100 SXM 86.9 %, GH200 83.6 %, A100 PCIe 81.1 %, H100 SXM
80.3 %, MI325X 60.4 %, MI300X 51.4 %, MI250X 76.7 % (its older table). A card that is hot or short of power
stays below it.
"""

ATTENTION_EFFICIENCY = 0.74
"""Share of what tiles and exponentials allow (cost/efficiency.py) that flash attention 2 sustains.

Median of three cards, long sequences, head size 128: A100 184 TFLOP/s forward, of 250 that 312 and one
exponential a score allow (github.com/liangan1/GPU_travel, performance/flash-attn); RTX 4090 169 forward and
125 backward, 135 together, of 155 (github.com/apache/tvm, tl_doc/flash_perf.md); H100 35 % of 989 (arXiv
2407.08608, abstract), of 482.
"""

BANDWIDTH_EFFICIENCY = 0.867
"""Share of the peak memory bandwidth that streaming kernels reach.

Device-to-device copies on H100 SXM: 2,903 GB/s of 3,350 (github.com/aigatech/vpbenchmarking, "Memory
Bandwidth, Single Node").
"""

KERNEL_SECONDS = 8e-6
"""Python, autograd and dispatch of one operator: eager kernels cannot follow one another faster.

Measured by this project: a block of the bundled model with 8 tokens on one core of an AMD EPYC server
(Zen 5), torch 2.13: 9.6 microseconds an operator forward, 6.8 backward.
"""

BACKWARD_ATTENTION_FACTOR = 2.5
"""Five products instead of two, since the scores are computed again (arXiv 2307.08691, section 4.1)."""
PLAIN_HEAD_SIZE = 128
"""Of attention whose shape a profile does not say."""

TERA = 1e12
GB = 1e9
MICROSECONDS = 1e-6


class Rates(NamedTuple):
    """What one GPU sustains."""

    matmul_flops_per_second: float
    """Products of full tiles and waves."""
    attention_flops_per_second: float
    """Long sequences, were softmax free."""
    bytes_per_second: float
    peak_flops_per_second: float
    """The catalogue's dense peak in this dtype: what utilisation is relative to."""
    flops_per_exponential: float = 0.0
    """Matrix FLOPs in the time of one exponential."""
    multiprocessors: int | None = None
    kernel_seconds: float = 0.0
    dispatch_adds_up: bool = False
    """A processor dispatches and computes in one thread; a GPU computes while the host dispatches ahead."""
    adamw_bytes_per_second: float | None = None
    """None: as `bytes_per_second`."""
    measured: MeasuredRates = MeasuredRates()
    eight_bit_speedups: Mapping[EightBit, float] = MappingProxyType({})
    """Of products in 8 bits, over those in this dtype; without an entry they are emulated in it."""
    training_fraction: float = 1.0
    """Of these rates, what a layer within a training step keeps (lab.py, Gpu) where none was measured."""

    @classmethod
    def of(cls, pool: Pool, dtype: Dtype) -> Rates:
        """Sustained rates of a pool's GPU, its name resolved; measured figures replace estimates.

        A processor's catalogue figures are rates that were reached, so no efficiency is applied to them.
        Raises ValueError where the GPU has no such precision (a rule rejects those first).
        """
        gpu = pool.gpu
        assert isinstance(gpu, Gpu), "the GPU is resolved before costs are asked for"
        assert not isinstance(pool.calibration, str), "the lab file's reader puts figures in a path's place"
        peak_tflops = peak_rate_tflops(gpu, dtype)
        if peak_tflops is None:
            raise ValueError(f"pool {pool.name}: its GPU has no {dtype} rate")
        peak = peak_tflops * TERA
        rates = _processor_rates(gpu, peak) if gpu.memory_gib is None else _gpu_rates(gpu, peak)
        rates = rates._replace(eight_bit_speedups=eight_bit_speedups(gpu, dtype))
        return rates if pool.calibration is None else _calibrated(rates, pool.calibration, dtype)

    def product_seconds(
        self,
        rows: int,
        columns: int,
        depth: int,
        element_bytes: int,
        precision: LinearPrecision = "exact",
    ) -> float:
        """One matrix product: the later of computing it and of moving its three matrices. In 8 bits the GPU
        is taken to reach the same share of a higher peak."""
        speedup = 1.0 if precision == "exact" else self.eight_bit_speedups.get(precision, 1.0)
        flops = 2 * rows * columns * depth / speedup
        measured = self.measured.matrix_flops_per_second(rows, columns, depth)
        if measured is not None:
            return flops / measured
        efficiency = 1.0
        if not self.dispatch_adds_up:
            efficiency = matrix_efficiency(rows, columns, depth, self.multiprocessors)
        in_8_bits = precision != "exact" and precision in self.eight_bit_speedups
        operand_bytes = 1 if in_8_bits else element_bytes
        moved = (rows * depth + depth * columns) * operand_bytes + rows * columns * element_bytes
        return max(flops / (self.matmul_flops_per_second * efficiency), moved / self.bytes_per_second)

    def attention_seconds(
        self, flops: float, query_length: float, key_length: float, sequences: float, head_size: int
    ) -> tuple[float, float]:
        """(forward, backward) of one attention operator; `sequences` are times heads, `flops` forward's."""
        measured = self.measured.attention_flops_per_second(max(query_length, key_length), head_size)
        backward = BACKWARD_ATTENTION_FACTOR * flops
        if measured is not None:
            return flops / measured[0], backward / measured[1]
        efficiency = 1.0
        if not self.dispatch_adds_up:
            efficiency = attention_efficiency(
                query_length, key_length, sequences, head_size,
                self.flops_per_exponential, self.multiprocessors,
            )  # fmt: skip
        rate = self.attention_flops_per_second * efficiency
        return flops / rate, backward / rate

    def plain_attention_flops_per_second(self) -> float:
        """Long sequences of ordinary heads."""
        return self.attention_flops_per_second * softmax_share(PLAIN_HEAD_SIZE, self.flops_per_exponential)

    def element_wise_bytes_per_second(self, tokens: int) -> tuple[float, float]:
        """(forward, backward) of a layer's work that is no matrix product."""
        return self.measured.element_wise_bytes_per_second(tokens) or (
            self.bytes_per_second,
            self.bytes_per_second,
        )


def _processor_rates(gpu: Gpu, peak: float) -> Rates:
    return Rates(
        matmul_flops_per_second=peak,
        attention_flops_per_second=peak,
        bytes_per_second=gpu.memory_bandwidth_gb_per_second * GB,
        peak_flops_per_second=peak,
        kernel_seconds=KERNEL_SECONDS,
        dispatch_adds_up=True,
    )


def _gpu_rates(gpu: Gpu, peak: float) -> Rates:
    warp_peak = peak * gpu.warp_matrix_fraction
    exponentials = gpu.special_function_tera_per_second
    return Rates(
        matmul_flops_per_second=peak * MATMUL_EFFICIENCY,
        attention_flops_per_second=warp_peak * ATTENTION_EFFICIENCY,
        bytes_per_second=gpu.memory_bandwidth_gb_per_second * GB * BANDWIDTH_EFFICIENCY,
        peak_flops_per_second=peak,
        flops_per_exponential=0.0 if exponentials is None else warp_peak / (exponentials * TERA),
        multiprocessors=gpu.multiprocessors,
        kernel_seconds=KERNEL_SECONDS,
        training_fraction=gpu.training_fraction,
    )


def _calibrated(rates: Rates, calibration: Calibration, dtype: Dtype) -> Rates:
    """Attention that was not measured keeps its distance to the matrix rate."""
    matmul = {
        "fp32": calibration.fp32_matmul_tflops,
        "fp16": calibration.fp16_matmul_tflops,
        "bf16": calibration.bf16_matmul_tflops,
    }[dtype]
    changes: dict[str, object] = {"measured": MeasuredRates.of(calibration, dtype)}
    if matmul is not None:
        faster = middle(matmul) * TERA / rates.matmul_flops_per_second
        changes["matmul_flops_per_second"] = rates.matmul_flops_per_second * faster
        changes["attention_flops_per_second"] = rates.attention_flops_per_second * faster
        if rates.dispatch_adds_up:  # a processor's peak is the rate that was reached
            changes["peak_flops_per_second"] = middle(matmul) * TERA
    if calibration.memory_bandwidth_gb_per_second is not None:
        changes["bytes_per_second"] = middle(calibration.memory_bandwidth_gb_per_second) * GB
    if calibration.optimizer_bandwidth_gb_per_second is not None:
        changes["adamw_bytes_per_second"] = middle(calibration.optimizer_bandwidth_gb_per_second) * GB
    if calibration.kernel_microseconds is not None:
        changes["kernel_seconds"] = middle(calibration.kernel_microseconds) * MICROSECONDS
    return rates._replace(**changes)  # type: ignore[arg-type]


def eight_bit_speedups(gpu: Gpu, dtype: Dtype) -> dict[EightBit, float]:
    """Of the formats that the trainer multiplies linear layers in on this GPU (model/low_precision): peak
    rate over that of the model's dtype. fp8's kernels put out bf16 alone. A processor's figures are rates
    that were reached, and it has none in 8 bits."""
    peak = peak_rate_tflops(gpu, dtype)
    if peak is None or gpu.memory_gib is None:
        return {}
    found: dict[EightBit, float] = {}
    if gpu.fp8_tflops is not None and gpu.fp8_format == "ocp" and dtype == "bf16":
        found["fp8"] = gpu.fp8_tflops / peak
    if gpu.int8_tflops is not None:
        found["int8"] = gpu.int8_tflops / peak
    return found


def peak_rate_tflops(gpu: Gpu, dtype: Dtype) -> float | None:
    """Dense peak rate in this dtype; None where the GPU does not support it."""
    return {"fp32": gpu.fp32_tflops, "fp16": gpu.fp16_tflops, "bf16": gpu.bf16_tflops}[dtype]
