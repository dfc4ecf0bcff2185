"""What goes from one stage to the next."""

from __future__ import annotations

from tests.cost.test_communication import settings
from tests.cost.test_step import PARTITIONS
from tests.planner.examples import workload
from vdsgen.cost.step import StepTimeModel


def test_a_text_condition_is_one_more_tensor_between_stages() -> None:
    plain = workload(8, 512)
    geometry = plain.geometry._replace(text_tokens=16)
    with_text = StepTimeModel(plain.profile, geometry, plain.pool)
    assert (
        with_text.step(settings(2, 2), PARTITIONS[2]).transfer_seconds
        > plain.times.step(settings(2, 2), PARTITIONS[2]).transfer_seconds
    )
