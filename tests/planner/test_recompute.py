"""What plans do with selective recomputation, and with pins on it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.planner.examples import experiment, pool, profile, workload
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.search import Search, search
from vdsgen.spec.plan import Plan

PINS: dict[str, Any] = {"pipeline_parallel_size": 1, "micro_batch_size": 4, "zero_stage": 1}


def run(memory_gib: float, activation_precision: str = "exact", **constraints: Any) -> Search:
    of: dict[str, Any] = {"constraints": constraints, "activation_precision": activation_precision}
    on = workload(14, 1024, on=pool(2, memory_gib), selective=True, frames=64, **of)
    return search(on, whole_pool_layouts(on))


def seconds(found: Search) -> float:
    return found.ranked[0].time.step_seconds


def test_where_memory_is_short_products_are_kept_first() -> None:
    """Then layers are recomputed whole."""
    plenty, less, little = (run(memory, **PINS) for memory in (48.0, 24.0, 12.0))
    kinds = [one.ranked[0].settings for one in (plenty, less, little)]
    assert not kinds[0].checkpoints
    assert kinds[1].stage_selective_layers and kinds[1].whole_layers(0, 16) == 0
    assert kinds[2].whole_layers(0, 16) > 0 and kinds[2].stage_selective_layers
    assert seconds(plenty) < seconds(less) < seconds(little)


@pytest.mark.parametrize("memory_gib", [12.0, 7.5])
def test_what_is_pinned_is_done_and_no_pin_is_faster(memory_gib: float) -> None:
    free, full = run(memory_gib), run(memory_gib, recompute="full")
    assert seconds(free) < seconds(full)
    assert all(not one.settings.stage_selective_layers for one in full.ranked)
    selective = run(12.0, recompute="selective")
    assert seconds(selective) >= seconds(run(12.0)) * (1 - 1e-9)
    for one in selective.ranked:
        stages = range(one.settings.pipeline_parallel_size)
        held = [b - a for a, b in zip(one.placed.partition, one.placed.partition[1:], strict=False)]
        assert all(one.settings.whole_layers(stage, held[stage]) == 0 for stage in stages)


def test_plans_record_and_explain_it() -> None:
    on = experiment(14, 1024, frames=64, constraints={"pipeline_parallel_size": 1})
    plan = make_plan(on, pool(2, 12.0), profile(14, 1024, selective=True))
    kept = plan.activation_checkpointing.selective_layers
    assert (
        kept and settings_of(Plan.model_validate_json(plan.model_dump_json())).stage_selective_layers == kept
    )
    (reason,) = [one for one in plan.reasons if one.startswith("Layers that keep")]
    assert "with every layer recomputed whole the plan takes" in reason
    assert plan.predicted.split is not None and plan.predicted.split.recompute_seconds > 0


def test_activations_are_packed_where_they_may_be_and_that_is_faster() -> None:
    exact, packed = run(16.0, **PINS), run(16.0, "int8", **PINS)
    assert not any(one.settings.packs for one in exact.ranked)
    assert packed.ranked[0].settings.activation_compression == "int8"
    assert seconds(packed) < seconds(exact)
    # Where nothing need be recomputed, nothing is packed.
    assert not run(48.0, "int8", **PINS).ranked[0].settings.packs


def test_a_pin_packs_whatever_is_permitted() -> None:
    found = run(24.0, activation_compression="fp8", **PINS)
    assert {one.settings.activation_compression for one in found.ranked} == {"fp8"}
    assert not any(
        one.settings.packs for one in run(9.0, "int8", activation_compression="none", **PINS).ranked
    )
