"""When something is moved out of the GPU, where to, and whether its host has room."""

from __future__ import annotations

from typing import Any

import pytest

from tests.planner.examples import GIB, experiment, pool, profile, workload
from vdsgen.errors import NoPlanFitsError
from vdsgen.planner import words
from vdsgen.planner.choices.offload import offload_choices
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.host_memory import FLASH, HOST_MEMORY, host_miss
from vdsgen.planner.plan import make_plan
from vdsgen.planner.search import Search, search
from vdsgen.planner.text import plan_text
from vdsgen.planner.workload import Workload
from vdsgen.spec.lab import Nvme
from vdsgen.spec.plan import Plan

FLASH_DRIVE = Nvme(path="/flash", capacity_gib=100, read_gb_per_second=6.0, write_gb_per_second=3.0)


def planned(blocks: int, hidden: int, gpus: int, memory_gib: float, **changes: Any) -> Plan:
    on_pool: dict[str, Any] = {key: changes.pop(key) for key in ("host_memory_gib", "nvme") if key in changes}
    lab = pool(gpus, memory_gib).model_copy(update=on_pool)
    return make_plan(experiment(blocks, hidden, **changes), lab, profile(blocks, hidden))


def run(on: Workload) -> Search:
    return search(on, whole_pool_layouts(on))


def test_offload_wins_where_nothing_else_fits() -> None:
    """2 B parameters on one GPU: 16 bytes each are more than it has."""
    on_gpu = {"offload_optimizer": "none", "offload_parameters": "none"}
    with pytest.raises(NoPlanFitsError):
        planned(24, 2048, 1, 16.0, constraints=on_gpu)
    plan = planned(24, 2048, 1, 16.0)
    assert plan.zero.offload_optimizer == "cpu"
    stage = plan.stages[0]
    assert stage.memory.peak_bytes <= 16 * GIB
    assert stage.host_bytes > 16 * plan.model.parameters
    assert plan.predicted.split is not None and plan.predicted.split.offload_seconds > 0


def test_offload_loses_where_everything_fits() -> None:
    plan = planned(8, 1024, 4, 24.0)
    assert (plan.zero.offload_optimizer, plan.zero.offload_parameters) == ("none", "none")
    assert not plan.activation_checkpointing.offload
    assert plan.stages[0].host_bytes == plan.stages[0].nvme_bytes == 0


def test_activations_are_offloaded_where_they_are_what_is_too_large() -> None:
    """Small weights, long clips: every block's input is kept, and takes more than the optimizer's states."""
    long = {"frames": 256, "global_batch_size": 1}
    kept = {"offload_activations": False}
    plan = planned(16, 1024, 1, 11.0, **long)
    assert (plan.zero.offload_optimizer, plan.activation_checkpointing.offload) == ("none", True)
    assert plan.activation_checkpointing.interval > 0
    assert plan.stages[0].host_bytes > 0
    # The other way out is slower, and with a little less memory there is none.
    other = planned(16, 1024, 1, 11.0, constraints=kept, **long)
    assert other.zero.offload_optimizer == "cpu"
    assert other.predicted.step_seconds > plan.predicted.step_seconds
    with pytest.raises(NoPlanFitsError):
        planned(16, 1024, 1, 6.8, constraints=kept, **long)
    assert planned(16, 1024, 1, 6.8, **long).activation_checkpointing.offload


@pytest.mark.parametrize(
    ("zero", "flash", "expected"),
    [
        (0, True, {("none", "none")}),
        (1, True, {("none", "none"), ("cpu", "none")}),
        (2, False, {("none", "none"), ("cpu", "none")}),
        (3, False, {("none", "none"), ("cpu", "none"), ("cpu", "cpu")}),
        (
            3,
            True,
            {("none", "none"), ("cpu", "none"), ("cpu", "cpu")}
            | {("nvme", parameters) for parameters in ("none", "cpu", "nvme")},
        ),
    ],
)
def test_each_stage_moves_what_the_engine_lets_it(
    zero: int, flash: bool, expected: set[tuple[str, str]]
) -> None:
    lab = pool(2, 0.2).model_copy(update={"nvme": FLASH_DRIVE if flash else None})
    on = workload(8, 1024, on=lab)
    settings = run(workload(8, 1024)).ranked[0].settings._replace(
        zero_stage=zero, data_parallel_size=2, activation_checkpoint_interval=0
    )  # fmt: skip
    if zero == 0:
        settings = settings._replace(gradient_accumulation_dtype=settings.dtype)
    found = list(offload_choices(on, settings, (0, 1, 4)))
    assert {(one.offload_optimizer, one.offload_parameters) for one, _ in found} == expected
    for one, intervals in found:
        assert intervals == ((1, 4) if one.offload_activations else (0, 1, 4))
    moved = [
        (one.offload_optimizer != "none") + (one.offload_parameters != "none") + one.offload_activations
        for one, _ in found
    ]
    assert moved[0] == 0


@pytest.mark.parametrize(
    "pins",
    [
        {"offload_optimizer": "cpu"},
        {"offload_optimizer": "cpu", "offload_parameters": "cpu"},
        {"offload_parameters": "cpu", "offload_optimizer": "none"},
        {"offload_activations": True},
        {"offload_activations": False},
    ],
    ids=str,
)
def test_pins_are_honoured(pins: dict[str, Any]) -> None:
    result = run(workload(8, 512, constraints=pins))
    assert result.ranked
    for candidate in result.ranked:
        for key, value in pins.items():
            assert getattr(candidate.settings, key) == value


def test_a_host_without_room_is_a_miss_in_words() -> None:
    pins: dict[str, Any] = {"zero_stage": 3, "micro_batch_size": 1, "activation_checkpoint_interval": 1}
    pins["offload_optimizer"] = "cpu"
    with pytest.raises(NoPlanFitsError) as caught:
        planned(24, 2048, 1, 16.0, host_memory_gib=20.0, constraints=pins)
    assert "of a node's host memory" in str(caught.value)
    needed = str(caught.value.remedy).split("use nodes with ")[1].split()
    assert needed[1:5] == ["GiB", "of", "host", "memory"]
    enough = float(needed[0])
    assert planned(24, 2048, 1, 16.0, host_memory_gib=enough, constraints=pins).zero.stage == 3


def test_ranks_of_a_node_share_its_memory_and_its_flash() -> None:
    lab = pool(2, 16.0, nodes=2).model_copy(update={"host_memory_gib": 1.0, "nvme": FLASH_DRIVE})
    on = workload(8, 1024, on=lab)
    layout = run(workload(8, 1024)).ranked[0].settings._replace(data_parallel_size=4, zero_stage=3)
    assert host_miss(on, layout, (0, on.layers)) is None
    moved = layout._replace(offload_optimizer="cpu")
    short = host_miss(on, moved, (0, on.layers))
    assert short is not None and (short.resource, short.capacity_bytes) == (HOST_MEMORY, GIB)
    one = on.outside(moved, 0, 0, on.layers).host_bytes
    assert one < short.needed_bytes / 2 < one + 10**9
    staged = moved._replace(
        zero_stage=1, pipeline_parallel_size=4, data_parallel_size=1, offload_optimizer="cpu"
    )
    short = host_miss(on, staged, (0, 1, 2, 6, on.layers))
    assert short is not None
    third, fourth = (on.outside(staged, 2, 2, 6).host_bytes, on.outside(staged, 3, 6, on.layers).host_bytes)
    assert third + fourth < short.needed_bytes < third + fourth + 10**9
    small = FLASH_DRIVE.model_copy(update={"capacity_gib": 0.5})
    roomy = lab.model_copy(update={"host_memory_gib": 900.0, "nvme": small})
    short = host_miss(workload(8, 1024, on=roomy), layout._replace(offload_optimizer="nvme"), (0, on.layers))
    assert short is not None and short.resource == FLASH


def test_what_is_moved_is_in_words_and_tables() -> None:
    lab, of = pool(1, 16.0), experiment(24, 2048)
    plan = make_plan(of, lab, profile(24, 2048))
    text = plan_text(plan, Workload(of, lab, "example-gpu", profile(24, 2048)))
    assert "optimizer states in host memory" in text
    assert "Offloaded by each rank" in text
    assert words.offload_words(run(workload(4, 256)).ranked[0].settings) == []
