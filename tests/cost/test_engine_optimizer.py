"""Which optimizer the engine takes, and what it refuses."""

from __future__ import annotations

import pytest

from tests.cost.test_communication import settings
from vdsgen.cost.engine_optimizer import engine_optimizer


def test_what_the_engine_refuses_is_refused() -> None:
    pipeline = settings(2, 2, 0, dtype="fp16", gradient_accumulation_dtype="fp16")
    with pytest.raises(ValueError, match="ZeRO-2 with a pipeline: refused"):
        engine_optimizer(pipeline._replace(zero_stage=2))
    with pytest.raises(ValueError, match="fp32 sums of fp16 gradients without ZeRO: refused"):
        engine_optimizer(pipeline._replace(gradient_accumulation_dtype="fp32"))
