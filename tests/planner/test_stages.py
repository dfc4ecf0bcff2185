"""How few layers a stage recomputes, against trying every number of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planner.examples import GIB, pool, workload
from vdsgen.cost.settings import Settings
from vdsgen.planner.stages import KEPT, Stages, Way
from vdsgen.planner.workload import Workload

BLOCKS = 14
LAYERS = BLOCKS + 2


def fits(
    on: Workload, engine: Settings, way: Way, stage: int, start: int, stop: int, limit_bytes: int
) -> bool:
    """With any interval."""
    plain = stop - start - way.recomputed if way.recomputed else 0
    for interval in range(1, max(1, way.whole) + 1) if way.recomputed else (0,):
        one = engine.with_interval(interval, plain, way.selective)
        if on.memory(one, stage, start, stop).peak_bytes <= limit_bytes:
            return True
    return False


def ways(layers: int, *, selective: bool) -> list[Way]:
    """Of any two of kept, selective and whole layers."""
    found = [Way(whole) for whole in range(layers + 1)]
    if selective:
        found += [Way(0, kept) for kept in range(1, layers + 1)]
        found += [Way(whole, layers - whole) for whole in range(1, layers)]
    return found


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_stage_recomputes_as_little_as_it_must(data: st.DataObject) -> None:
    """Whatever was asked before: answers bound each other."""
    stages = data.draw(st.sampled_from([1, 2, 4]))
    engine = Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=data.draw(st.sampled_from([1, 2])),
        zero_stage=data.draw(st.sampled_from([0, 1] if stages > 1 else [0, 1, 2, 3])),
        micro_batch_size=data.draw(st.integers(1, 3)),
        gradient_accumulation_steps=data.draw(st.integers(1, 6)),
        activation_checkpoint_interval=0,
        dtype="bf16",
        gradient_accumulation_dtype="bf16",
        reduce_bucket_elements=10**6,
        allgather_bucket_elements=10**6,
    )
    selective = data.draw(st.booleans())
    frames = data.draw(st.sampled_from([16, 64]))
    on = workload(BLOCKS, 512, on=pool(8, 4.0), frames=frames, selective=selective)
    spans = []
    for _ in range(6):
        stage = data.draw(st.integers(0, stages - 1))
        start = 0 if stage == 0 else data.draw(st.integers(1, LAYERS - 2))
        is_last = stage == stages - 1
        spans.append((stage, start, LAYERS if is_last else data.draw(st.integers(start + 1, LAYERS - 1))))
    plain = max(on.memory(engine, *span).peak_bytes for span in spans)
    again = min(on.memory(engine.with_interval(1), *span).peak_bytes for span in spans)
    limit = min(int(4.0 * GIB), again + int((plain - again) * data.draw(st.floats(-0.05, 1.0))))
    found = Stages(on, engine, plain=True, recomputed=True, limit_bytes=limit)
    for span in spans:
        way, layers = found.way(*span), span[2] - span[1]
        fitting = [
            found.busy_seconds(one, *span)
            for one in ways(layers, selective=selective)
            if fits(on, engine, one, *span, limit)
        ]
        if way is None:
            assert not fitting
            continue
        assert found.busy_seconds(way, *span) == pytest.approx(min(fitting), rel=1e-12)
        if way != KEPT:
            interval, plainly = found.interval(way, *span), layers - way.recomputed
            one = engine.with_interval(interval, plainly, way.selective)
            assert on.memory(one, *span).peak_bytes <= limit
