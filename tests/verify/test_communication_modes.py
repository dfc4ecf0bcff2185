"""Reduced, compressed and twice shared communication, traced without memory: what it holds is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.verify.cases import GEOMETRY, MODEL, PARTITIONS, as_case, settings_of, trace
from tests.verify.test_modes import UPPER_BOUND, is_bound
from vdsgen.catalog.load import models
from vdsgen.catalog.profiles import profile_for
from vdsgen.cost.memory import stage_memory
from vdsgen.cost.settings import Settings
from vdsgen.spec.compression import KEY, SECTION
from vdsgen.verify.figures import compare

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
)


def case(settings: Settings) -> dict[str, Any]:
    found = as_case(settings, STAGE)
    if settings.communication_dtype is not None:
        found["config"]["communication_data_type"] = settings.communication_dtype
    if settings.gradient_compression != "none":
        found["config"][SECTION] = {KEY: settings.gradient_compression}
    return found


def test_what_was_held_is_what_is_planned(tmp_path: Path) -> None:
    cases = [case(settings) for settings in MODES]
    (answers,) = trace("gpu", [(2 * STAGE, cases)], 2 * STAGES, tmp_path)
    layers = range(*PARTITIONS[STAGES][STAGE : STAGE + 2])
    demo = profile_for(models()["vdt-demo"].sizes)
    assert demo is not None
    profile = demo.model_copy(update={"layers": ("embed", *("block",) * MODEL.depth, "final")})
    wrong = []
    for settings, answer in zip(MODES, answers, strict=True):
        memory = stage_memory(profile, GEOMETRY, settings, STAGE, layers, 80 * 2**30)
        wrong += [
            f"{settings.record()}: {row.component} planned {row.planned_bytes}, traced {row.traced_bytes} "
            f"({row.ratio})"
            for row in compare(memory.spec(), answer, negligible_bytes=0)
            if not (row.within or (is_bound(settings, row) and 1 <= (row.ratio or 1) <= UPPER_BOUND))
        ]
    assert not wrong, "\n".join(wrong)
