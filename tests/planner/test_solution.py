"""Time and price to a solution follow from the step, in the plan and in what is printed."""

from __future__ import annotations

import pytest

from tests.cost.unequal import gpu
from tests.planner.examples import experiment, pool, profile
from vdsgen.planner.plan import make_plan
from vdsgen.planner.tables import speed_table
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import NodeGroup, Pool
from vdsgen.spec.plan import Plan


def with_clips(clips: int) -> Experiment:
    plain = experiment(8)
    return plain.model_copy(update={"data": plain.data.model_copy(update={"clips": clips})})


def rows(plan: Plan, of: Experiment) -> dict[str, str]:
    return {row[0]: row[1] for row in speed_table(plan, of.training).rows}


def test_a_pass_over_the_dataset_takes_its_clips_over_the_speed() -> None:
    of = with_clips(100_000)
    plan = make_plan(of, pool(price_per_gpu_hour=0.5), profile(8))
    passed, predicted = plan.predicted.dataset, plan.predicted
    assert passed is not None
    assert passed.clips == 100_000
    assert passed.seconds == pytest.approx(100_000 * predicted.step_seconds / 16)
    assert predicted.price_per_hour == 0.5 * plan.parallel.world_size
    assert passed.price == pytest.approx(predicted.price_per_hour * passed.seconds / 3600)
    shown = rows(plan, of)
    hours, unit = shown["100,000 videos"].split()
    assert float(hours) == pytest.approx(passed.seconds / 60, abs=0.5)
    assert unit == "min"
    assert shown["price"].startswith("2.00 an hour, ")
    assert shown["price"].endswith(f"{passed.price:.2f} for 100,000 videos")


def test_without_a_size_or_a_price_nothing_is_made_up() -> None:
    plan = make_plan(experiment(8), pool(), profile(8))
    assert plan.predicted.dataset is None
    assert plan.predicted.price_per_hour is None
    assert not {"price", "100,000 videos"} & set(rows(plan, experiment(8)))


def test_every_gpu_costs_what_its_group_says() -> None:
    def priced(first: float | None, second: float | None) -> Pool:
        return Pool(
            name="example", intra_node=pool().intra_node, inter_node=pool(nodes=2).inter_node,
            host_memory_gib=128.0, gpu=gpu(), gpus_per_node=2,
            groups=(NodeGroup(price_per_gpu_hour=first), NodeGroup(price_per_gpu_hour=second)),
        )  # fmt: skip

    pins = {"pipeline_parallel_size": 2, "data_parallel_size": 2}
    both = make_plan(experiment(8, constraints=pins), priced(1.0, 3.0), profile(8))
    assert both.predicted.price_per_hour == 2 * 1.0 + 2 * 3.0
    assert (
        make_plan(experiment(8, constraints=pins), priced(1.0, None), profile(8)).predicted.price_per_hour
        is None
    )
