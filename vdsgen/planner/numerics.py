"""Which number formats a plan may use, the preferred one first."""

from __future__ import annotations

from vdsgen.cost.rates import Rates, peak_rate_tflops
from vdsgen.cost.settings import Settings
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.training import Training


def dtypes(training: Training, pool: Pool) -> tuple[Dtype, ...]:
    """The formats to search.

    auto: bf16 where the GPU has it, else fp16, else fp32; and fp32 besides where it is no slower (a
    processor). A pinned precision is taken as it is; a rule says so where the GPU lacks it.
    """
    if training.precision != "auto":
        return (training.precision,)
    gpu = pool.gpu
    assert isinstance(gpu, Gpu), "the GPU is resolved before plans are made"
    halves: tuple[Dtype, ...] = ("bf16", "fp16")
    for half in halves:
        if peak_rate_tflops(gpu, half) is not None:
            half_rate = Rates.of(pool, half).matmul_flops_per_second
            fp32_rate = Rates.of(pool, "fp32").matmul_flops_per_second
            return (half, "fp32") if fp32_rate >= half_rate else (half,)
    return ("fp32",)


def accumulation_dtype(training: Training, dtype: Dtype, zero_stage: int) -> Dtype:
    """What gradients accumulate in.

    auto: fp32 for bf16 where the engine allows it (ZeRO 1 and more), since bf16 keeps 8 bits of a sum and
    the engine itself warns of it (runtime/engine.py:2318); fp16 stays fp16, as its gradients are scaled.
    """
    choice = training.gradient_accumulation_dtype
    if choice == "fp32":
        return "fp32"
    if choice == "auto" and dtype == "bf16" and zero_stage >= 1:
        return "fp32"
    return dtype


def sets_aside(experiment: Experiment, settings: Settings) -> bool:
    """Whether a candidate adds up gradients in bf16 that nobody asked for."""
    asked = (
        experiment.training.gradient_accumulation_dtype != "auto" or experiment.constraints.zero_stage == 0
    )
    return not asked and adds_up_inexactly(settings)


def adds_up_inexactly(settings: Settings) -> bool:
    """Whether a step adds up several micro-batches' gradients in bf16."""
    inexact = settings.dtype == "bf16" and settings.gradient_accumulation_dtype == "bf16"
    return inexact and settings.gradient_accumulation_steps > 1
