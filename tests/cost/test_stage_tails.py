"""What stages do besides their micro-batches: how often they reduce, and what waits for offload."""

from __future__ import annotations

import pytest

from tests.cost.test_communication import settings
from tests.cost.test_step import MODEL, PARTITIONS
from vdsgen.cost.step import StepTimeModel


def test_zero_2_reduces_after_every_micro_batch() -> None:
    once = MODEL.step(settings(1, 4, 1), PARTITIONS[1])
    often = MODEL.step(settings(1, 4, 2), PARTITIONS[1])
    assert often.reduction_seconds == pytest.approx(4 * once.reduction_seconds)


def test_offloaded_activations_cost_what_is_waited_for() -> None:
    kept = settings(1, 4, 2, activation_checkpoint_interval=4)
    on_gpu = MODEL.step(kept, PARTITIONS[1])
    offloaded = MODEL.step(kept._replace(offload_activations=True), PARTITIONS[1])
    assert on_gpu.offload_seconds == 0.0 < offloaded.offload_seconds
    assert offloaded.recompute_seconds == on_gpu.recompute_seconds
    assert isinstance(MODEL, StepTimeModel)
    last = MODEL.whole.transfers.hidden_bytes(kept.micro_batch_size, kept.dtype)[0]
    seconds = last / MODEL.hardware.host(kept).link_bytes_per_second
    assert offloaded.offload_seconds >= kept.gradient_accumulation_steps * seconds


def test_offloaded_states_cost_traffic_and_the_processors_time() -> None:
    on_gpu = MODEL.step(settings(1, 4, 2), PARTITIONS[1])
    offloaded = MODEL.step(settings(1, 4, 2, offload_optimizer="cpu"), PARTITIONS[1])
    assert on_gpu.offload_seconds == 0.0 < offloaded.offload_seconds
    assert offloaded.optimizer_seconds > on_gpu.optimizer_seconds
    assert offloaded.compute_seconds == on_gpu.compute_seconds
