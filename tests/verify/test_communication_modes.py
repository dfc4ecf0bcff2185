"""Reduced, compressed and twice shared communication, and averages of weights, traced without memory: what
they hold is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cost.engine_cases import PERSISTENCE_THRESHOLD
from tests.verify.cases import GEOMETRY, MODEL, as_case, settings_of, trace
from tests.verify.test_modes import UPPER_BOUND, is_bound
from vdsgen.catalog.load import models
from vdsgen.catalog.profiles import profile_for
from vdsgen.cost import engine_defaults
from vdsgen.cost.memory import MemoryModel, stage_memory
from vdsgen.cost.settings import Settings
from vdsgen.spec.trainer_section import COMPRESSION, EMA, SECTION, STATE_DTYPE
from vdsgen.verify.figures import StageTrace, compare

pytestmark = pytest.mark.slow

STAGES = 2
STAGE = 1


def mode(zero_stage: int, dtype: Any, sums: Any, **changes: Any) -> Settings:
    return settings_of(STAGES, 2, zero_stage, (dtype, sums), 1)._replace(**changes)


MODES = (
    mode(0, "bf16", "bf16", gradient_compression="int8"),
    mode(1, "bf16", "fp32", gradient_compression="int8"),
    mode(1, "fp16", "fp16", gradient_compression="int8"),
    mode(0, "fp32", "fp32", gradient_compression="int8"),
    mode(0, "fp32", "fp32", communication_dtype="bf16"),
    mode(1, "fp32", "fp32", communication_dtype="bf16"),
    mode(1, "bf16", "fp32", ema="accelerator"),
    mode(0, "fp32", "fp32", ema="accelerator"),
    mode(1, "fp16", "fp16", ema="cpu"),
    mode(1, "bf16", "fp32", int8_moments=True),
    mode(0, "fp32", "fp32", int8_moments=True),
)


SECOND_COPY = settings_of(1, 4, 3, ("bf16", "fp32"), 0)._replace(hierarchical_partition_size=2)


def case(settings: Settings) -> dict[str, Any]:
    found = as_case(settings, STAGE if settings.pipeline_parallel_size == STAGES else 0)
    if settings.hierarchical_partition_size > 1:
        ranks = settings.hierarchical_partition_size
        found["config"]["zero_optimization"]["zero_hpz_partition_size"] = ranks
    if settings.communication_dtype is not None:
        found["config"]["communication_data_type"] = settings.communication_dtype
    if settings.gradient_compression != "none":
        found["config"][SECTION] = {COMPRESSION: settings.gradient_compression}
    if settings.int8_moments:
        found["config"][SECTION] = {STATE_DTYPE: "int8"}
        found["config"]["zero_allow_untested_optimizer"] = True
    if settings.ema != "none":
        found["config"][SECTION] = {EMA: {"device": settings.ema}}
    return found


def unplanned(settings: Settings, answer: StageTrace) -> list[str]:
    """What was traced and is not planned."""
    demo = profile_for(models()["vdt-demo"].sizes)
    assert demo is not None
    profile = demo.model_copy(update={"layers": ("embed", *("block",) * MODEL.depth, "final")})
    memory = stage_memory(profile, GEOMETRY, settings, answer.stage, range(*answer.layers), 80 * 2**30)
    outside = MemoryModel(profile, GEOMETRY).outside_bytes(settings, answer.stage, *answer.layers)
    return [
        f"{settings.record()}: {row.component} planned {row.planned_bytes}, traced {row.traced_bytes} "
        f"({row.ratio})"
        for row in compare(memory.spec(), answer, negligible_bytes=0, planned_host_bytes=outside.host_bytes)
        if not (row.within or (is_bound(settings, row) and 1 <= (row.ratio or 1) <= UPPER_BOUND))
    ]


def test_what_was_held_is_what_is_planned(tmp_path: Path) -> None:
    (answers,) = trace("gpu", [(2 * STAGE, [case(settings) for settings in MODES])], 2 * STAGES, tmp_path)
    wrong = [unplanned(settings, answer) for settings, answer in zip(MODES, answers, strict=True)]
    assert not any(wrong), wrong


def test_a_second_copy_of_the_parameters_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_defaults, "STAGE3_PARAM_PERSISTENCE_THRESHOLD", PERSISTENCE_THRESHOLD)
    plain = SECOND_COPY._replace(hierarchical_partition_size=1)
    ((without, copied),) = trace("gpu", [(0, [case(plain), case(SECOND_COPY)])], 4, tmp_path)
    assert copied.parameters_bytes > without.parameters_bytes
    assert not unplanned(SECOND_COPY, copied)
