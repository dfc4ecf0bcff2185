"""Averages of weights and moments in eight bits, in bytes; tests/verify traces them in every mode."""

from __future__ import annotations

import pytest

from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.model_states import model_states
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.quantized_moments import moment_bytes, work_bytes

SIZES = StageSizes(1_200_000, 1_000_001, 500_000, ((1, 1), (500_000, 2)))
"""1,000,001 trainable elements, 200,000 frozen ones less one."""


def settings(zero_stage: int, dtype: Dtype, sums: Dtype, pipeline: int = 1) -> Settings:
    return Settings(
        pipeline_parallel_size=pipeline,
        data_parallel_size=4,
        zero_stage=zero_stage,
        micro_batch_size=1,
        gradient_accumulation_steps=1,
        activation_checkpoint_interval=0,
        dtype=dtype,
        gradient_accumulation_dtype=sums,
        reduce_bucket_elements=1000,
        allgather_bucket_elements=1000,
    )


MODES = [
    (settings(0, "fp32", "fp32"), "AdamW", 1_000_001),
    (settings(0, "bf16", "bf16"), "FP16_UnfusedOptimizer", 1_000_001),
    (settings(0, "bf16", "bf16", pipeline=2), "BF16_Optimizer", 250_002),
    (settings(1, "fp16", "fp16"), "DeepSpeedZeroOptimizer", 250_002),
    (settings(3, "bf16", "bf16"), "DeepSpeedZeroOptimizer_Stage3", 250_001),
]
"""With the elements that a rank's optimizer steps, padded to 2 x 4 flat, or each parameter to 4."""


@pytest.mark.parametrize(("mode", "optimizer", "elements"), MODES, ids=[name for _, name, _ in MODES])
def test_an_average_takes_four_bytes_of_each_stepped_element(
    mode: Settings, optimizer: str, elements: int
) -> None:
    assert engine_optimizer(mode) == optimizer
    plain = model_states(SIZES, mode)
    beside = model_states(SIZES, mode._replace(ema="accelerator"))
    assert beside == plain._replace(optimizer_bytes=plain.optimizer_bytes + 4 * elements)
    away = model_states(SIZES, mode._replace(ema="cpu"))
    assert away == plain._replace(host_bytes=4 * elements)


def test_an_average_goes_where_the_weights_are() -> None:
    mode = settings(2, "bf16", "fp32")._replace(offload_optimizer="cpu")
    plain, averaged = model_states(SIZES, mode), model_states(SIZES, mode._replace(ema="accelerator"))
    assert averaged == plain._replace(host_bytes=plain.host_bytes + 4 * 250_002)


@pytest.mark.parametrize(("mode", "optimizer", "elements"), MODES, ids=[name for _, name, _ in MODES])
def test_moments_in_eight_bits_take_a_quarter(mode: Settings, optimizer: str, elements: int) -> None:
    plain, rounded = model_states(SIZES, mode), model_states(SIZES, mode._replace(int8_moments=True))
    whole = optimizer in ("AdamW", "FP16_UnfusedOptimizer")
    moments = 2 * moment_bytes(500_000) + moment_bytes(1) if whole else moment_bytes(elements)
    assert rounded.optimizer_bytes == plain.optimizer_bytes - 8 * elements + moments
    assert moments < 0.26 * 8 * elements
    assert rounded.step_bytes == plain.step_bytes + work_bytes(500_000 if whole else elements)


def test_moments_in_eight_bits_are_not_offloaded() -> None:
    mode = settings(2, "bf16", "fp32")._replace(offload_optimizer="cpu", int8_moments=True)
    with pytest.raises(ValueError, match="moments in int8 with an offloaded optimizer"):
        model_states(SIZES, mode)


def test_stepping_large_tensors_takes_a_piece_at_a_time() -> None:
    assert work_bytes(100 * 2**22) == 21 * 2**22
    assert work_bytes(100) == 400
    assert moment_bytes(100) == 800
