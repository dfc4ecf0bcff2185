from __future__ import annotations

import pytest

from tests.render.plans import plan_of, pool_of
from vdsgen.model.saving_report import saving_figures, saving_lines
from vdsgen.spec.checkpoint_interval import daly_seconds
from vdsgen.spec.failures import Failures
from vdsgen.spec.plan import Plan

METRICS = [{"step_seconds": 2.0} for _ in range(10)]
MIB = 1024**2


def save(step: int, blocking: float, background: float = 0.0) -> dict[str, float]:
    return {
        "step": step, "bytes": 100 * MIB, "blocking_seconds": blocking, "background_seconds": background
    }  # fmt: skip


def failing_plan(nodes: int = 1, **failures: float) -> Plan:
    pool = pool_of(nodes, 4 // nodes, failures=Failures(**failures) if failures else None)
    return plan_of(pool=pool)


def test_what_saving_took_is_a_share_of_the_run() -> None:
    found = saving_figures([save(5, 1.0), save(10, 3.0)], METRICS, failing_plan(), 2.0, 5)
    assert found is not None
    assert (found["saves"], found["checkpoint_bytes"], found["blocking_seconds"]) == (2, 100 * MIB, 2.0)
    assert found["fraction"] == 4 / 24
    assert found["best_every_steps"] is None
    assert saving_lines(found) == [
        "Saving: 2 checkpoints of 100.0 MiB, training waited 2.00 s for each: 16.7% of the run"
    ]


def test_the_measured_time_says_how_often_to_save() -> None:
    plan = failing_plan(mean_hours_between_failures_per_gpu=40.0)
    found = saving_figures([save(5, 3.0)], METRICS, plan, 2.0, 5)
    assert found is not None
    assert found["between_failures_seconds"] == 36000.0
    assert found["best_every_steps"] == pytest.approx(daly_seconds(3.0, 36000.0) / 2.0, abs=1)
    assert (
        f"every 5 steps; with a failure every 10.0 h and these times, every {found['best_every_steps']}"
        in (saving_lines(found)[1])
    )
    by_node = failing_plan(nodes=2, mean_hours_between_failures_per_node=40.0)
    found = saving_figures([save(5, 3.0)], METRICS, by_node, 2.0, 5)
    assert found is not None and found["between_failures_seconds"] == 72000.0


def test_saves_beside_training_are_no_closer_than_they_are_written() -> None:
    plan = failing_plan(mean_hours_between_failures_per_gpu=0.1)
    found = saving_figures([save(5, 0.1, 60.0)], METRICS, plan, 2.0, 5)
    assert found is not None
    assert found["best_every_steps"] == 31
    assert "(and written beside training in 60.00 s)" in saving_lines(found)[0]


def test_a_run_that_saved_nothing_says_nothing() -> None:
    assert saving_figures([], METRICS, failing_plan(), 2.0, 5) is None
    assert saving_lines(None) == []
