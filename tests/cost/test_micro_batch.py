"""What a micro-batch adds to a step: recomputation runs forwards again, of the layers that recompute."""

from __future__ import annotations

import pytest

from tests.cost.test_communication import settings
from tests.cost.test_step import MODEL, PARTITIONS


def test_checkpointing_runs_every_forward_once_more() -> None:
    plain = MODEL.step(settings(1, 4), PARTITIONS[1])
    checkpointed = MODEL.step(settings(1, 4, activation_checkpoint_interval=3), PARTITIONS[1])
    forward = 4 * plain.stages[0].forward_seconds
    assert checkpointed.recompute_seconds == pytest.approx(forward)
    assert checkpointed.step_seconds - plain.step_seconds == pytest.approx(forward)
    assert checkpointed.model_flops == plain.model_flops


def test_plain_layers_do_not_run_again() -> None:
    """The last 4 of 10 in one process; of stages of 5 the last one and none, where the second does not
    recompute at all."""
    plain = MODEL.step(settings(1, 4), PARTITIONS[1])
    partly = settings(1, 4).with_interval(3, 4)
    forward = 4 * sum(MODEL.forward_seconds(partly)[:6])
    found = MODEL.step(partly, PARTITIONS[1])
    assert found.recompute_seconds == pytest.approx(forward)
    assert found.step_seconds - plain.step_seconds == pytest.approx(forward)
    assert MODEL.step_seconds(partly, PARTITIONS[1]) == pytest.approx(found.step_seconds)
    staged = settings(2, 2).with_intervals((1, 0), (1, 0))
    forward = staged.gradient_accumulation_steps * sum(MODEL.forward_seconds(staged)[:4])
    assert MODEL.step(staged, PARTITIONS[2]).recompute_seconds == pytest.approx(forward / 2)
