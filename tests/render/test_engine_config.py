"""The rendered sections against DeepSpeed's own classes."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.render.plans import plan_of, pool_of, small_experiment
from vdsgen.catalog.engine_keys import keys_that_are_read
from vdsgen.catalog.trainer_keys import READ_BY_THE_TRAINER
from vdsgen.cost import engine_defaults
from vdsgen.errors import VdsgenError
from vdsgen.render.engine_config import (
    engine_config,
    pipeline_section,
    uses_bf16_optimizer,
)
from vdsgen.render.engine_keys import unread_keys
from vdsgen.render.render import render_plan
from vdsgen.spec.lab import Nvme
from vdsgen.spec.optimization import Schedule
from vdsgen.spec.plan import ActivationCheckpointing, Plan
from vdsgen.spec.trainer_section import own_schedule
from vdsgen.spec.training import Training


def legal_plans() -> list[Plan]:
    """Every engine mode: pipeline or not, each ZeRO stage that it allows, blocks whole or shared, each
    precision; and samples shared."""
    plans = []
    modes = [(1, 0, 1), (1, 1, 1), (1, 2, 1), (1, 3, 1), (2, 0, 1), (2, 1, 1), (1, 3, 2), (2, 1, 2)]
    for pipeline, stage, tensor in modes:
        for dtype, accumulation in itertools.product(["fp32", "bf16", "fp16"], ["model", "fp32"]):
            if accumulation == "fp32" and (stage == 0 or dtype == "fp32"):
                continue
            plans.append(
                plan_of(
                    pipeline=pipeline,
                    data=4 // pipeline,
                    tensor=tensor,
                    zero_stage=stage,
                    dtype=dtype,
                    accumulation_dtype=dtype if accumulation == "model" else accumulation,
                )
            )
    sequence = plan_of(pipeline=2, data=2, sequence=2, zero_stage=1, dtype="bf16", accumulation_dtype="fp32")
    offloaded = with_activations(plans[-1], interval=1, offload=True)
    kept = with_activations(
        plans[-1], interval=2, plain_layers=(1, 0), selective_layers=(1, 2), compression="fp8"
    )
    return [*plans, offloaded, kept, sequence]


def with_activations(plan: Plan, **changes: Any) -> Plan:
    return plan.model_copy(update={"activation_checkpointing": ActivationCheckpointing(**changes)})


def plan_id(plan: Plan) -> str:
    precision = plan.precision
    parallel = plan.parallel
    sequence = parallel.sequence_parallel_size
    return (
        f"pp{parallel.pipeline_parallel_size}-tp{parallel.tensor_parallel_size}"
        f"{f'-sp{sequence}' if sequence > 1 else ''}-zero{plan.zero.stage}-{precision.dtype}"
        f"-{precision.gradient_accumulation_dtype}"
        f"{'-offloaded' if plan.activation_checkpointing.offload else ''}"
        f"{'-selective' if plan.activation_checkpointing.selective_layers else ''}"
    )


def test_the_trainers_own_keys_are_none_of_the_engines() -> None:
    assert READ_BY_THE_TRAINER[""].isdisjoint(keys_that_are_read(""))
    for section in ("pipeline",):
        assert READ_BY_THE_TRAINER[section].isdisjoint(keys_that_are_read(f"/{section}"))


def test_unread_keys_are_found_with_the_nearest_that_is_read() -> None:
    config = {"gradient_cliping": 1.0, "bf16": {}, "pipeline": {"stages": 2, "base_seed": True}}
    assert unread_keys(config) == [
        ("gradient_cliping", "gradient_clipping"),
        ("pipeline.base_seed", None),
    ]


@pytest.mark.parametrize("plan", legal_plans(), ids=plan_id)
def test_deepspeed_loads_the_rendered_file_and_reads_the_planned_values(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed import comm
    from deepspeed.runtime.config import DeepSpeedConfig

    class Topology:
        def get_data_parallel_world_size(self) -> int:
            return plan.parallel.data_parallel_size

    monkeypatch.setattr(comm, "get_rank", lambda: 0)
    path = tmp_path / "ds_config.json"
    path.write_bytes(render_plan(plan, small_experiment())["ds_config.json"])
    config = DeepSpeedConfig(json.loads(path.read_bytes()), mpu=Topology())
    assert config.train_batch_size == plan.batch.global_batch_size
    assert config.gradient_accumulation_steps == plan.batch.gradient_accumulation_steps
    assert config.zero_optimization_stage == plan.zero.stage
    assert config.float16_config.enabled == (plan.precision.dtype == "fp16")
    assert config.bfloat16_config.enabled == (plan.precision.dtype == "bf16")
    if plan.precision.dtype == "fp16":
        assert config.float16_config.initial_dynamic_scale() == plan.precision.initial_loss_scale
        assert config.float16_config.loss_scale_window == plan.precision.loss_scale_window
        assert config.float16_config.dynamic_loss_scale_args()["min_scale"] == 1
    assert (config.grad_accum_dtype or plan.precision.dtype) == plan.precision.gradient_accumulation_dtype
    assert config.pipeline["stages"] == plan.parallel.pipeline_parallel_size
    assert config.pipeline["use_reentrant"] is False
    zero = json.loads(path.read_text())["zero_optimization"]
    if "reduce_bucket_size" in zero:
        assert config.zero_config.reduce_bucket_size == plan.zero.reduce_bucket_elements
    if plan.zero.stage == 3:
        assert not config.zero_config.overlap_comm


@pytest.mark.parametrize("plan", legal_plans(), ids=plan_id)
def test_bucket_sizes_are_given_only_where_an_optimizer_has_them(plan: Plan) -> None:
    zero = engine_config(plan, small_experiment())["zero_optimization"]
    bf16_optimizer = uses_bf16_optimizer(plan)
    assert ("reduce_bucket_size" in zero) == (plan.zero.stage > 0 and not bf16_optimizer)
    assert ("allgather_bucket_size" in zero) == (plan.zero.stage in (1, 2) or bf16_optimizer)
    assert any(key.startswith("stage3_") for key in zero) == (plan.zero.stage == 3)


def offloading_plan(stage: int, optimizer: str, parameters: str = "none", **changes: Any) -> Plan:
    plan = plan_of(pipeline=1, data=4, zero_stage=stage, dtype="bf16", accumulation_dtype="fp32", **changes)
    offload = {"offload_optimizer": optimizer, "offload_parameters": parameters}
    return plan.model_copy(update={"zero": plan.zero.model_copy(update=offload)})


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offload_to_the_host_is_written_as_deepspeed_reads_it(stage: int) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    plan = offloading_plan(stage, "cpu", "cpu" if stage == 3 else "none")
    zero = engine_config(plan, small_experiment())["zero_optimization"]
    read = DeepSpeedZeroConfig(**zero)
    assert (read.offload_optimizer.device, read.offload_optimizer.pin_memory) == ("cpu", True)
    assert (read.offload_param is not None and read.offload_param.device == "cpu") == (stage == 3)
    assert read.contiguous_gradients
    assert "reduce_bucket_size" in zero, "with its states on the host, bf16 at stage 1 has ZeRO's optimizer"


def test_offload_to_nvme_names_the_pools_path_and_the_buffers_that_are_planned() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    flash = Nvme(path="/flash", capacity_gib=1000.0, read_gb_per_second=3.0, write_gb_per_second=2.0)
    plan = offloading_plan(3, "nvme", "nvme", pool=pool_of(1, 4, nvme=flash))
    read = DeepSpeedZeroConfig(**engine_config(plan, small_experiment())["zero_optimization"])
    assert str(read.offload_optimizer.nvme_path) == str(read.offload_param.nvme_path) == "/flash"
    assert read.offload_optimizer.buffer_count == engine_defaults.NVME_OPTIMIZER_BUFFERS
    assert read.offload_param.buffer_count == engine_defaults.NVME_PARAMETER_BUFFERS
    assert read.offload_param.buffer_size == engine_defaults.NVME_PARAMETER_BUFFER_ELEMENTS
    assert read.offload_param.max_in_cpu == engine_defaults.NVME_MAX_PARAMETERS_IN_HOST


def test_offload_to_nvme_in_a_pool_without_says_so() -> None:
    with pytest.raises(VdsgenError, match="pool 'pool' has none"):
        engine_config(offloading_plan(3, "nvme"), small_experiment())


def rates(
    kind: Any,
    warmup_steps: int,
    steps: int,
    final_fraction: float = 0.0,
    decay_from_step: int | None = None,
) -> list[float]:
    """The learning rate, of peak 1, that the engine's own scheduler gives each of `steps` steps; or the
    training entrypoint's, where the engine has none."""
    import torch
    from deepspeed.runtime import lr_schedules

    from vdsgen.model.learning_rate import scheduler_for

    training = Training(
        global_batch_size=1,
        steps=steps,
        optimizer={"learning_rate": 1.0},  # type: ignore[arg-type]
        schedule=Schedule(
            type=kind,
            warmup_steps=warmup_steps,
            final_fraction=final_fraction,
            decay_from_step=decay_from_step,
        ),
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.9, 0.95))
    config = engine_config(plan_of(), small_experiment(**training.model_dump()))
    scheduler: Any = None
    if (section := config.get("scheduler")) is not None:
        scheduler = getattr(lr_schedules, section["type"])(optimizer, **section["params"])
    elif (made := scheduler_for(own_schedule(config))) is not None:
        scheduler = made(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        if scheduler is not None:
            scheduler.step()
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    return seen


def test_constant_rate_without_warm_up_is_the_peak_from_the_first_step() -> None:
    assert rates("constant", 0, 5) == [1.0] * 5


def test_linear_decay_without_warm_up_starts_at_the_peak() -> None:
    assert rates("linear", 0, 5) == pytest.approx([5 / 5, 4 / 5, 3 / 5, 2 / 5, 1 / 5])


def test_cosine_decay_without_warm_up_starts_at_the_peak() -> None:
    expected = [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert rates("cosine", 0, 6) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_warm_up_rises_by_equal_steps_from_zero(kind: str) -> None:
    assert rates(kind, 4, 20)[:6] == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1.0], abs=0.02)


@pytest.mark.parametrize(("kind", "end"), [("linear", 2 / 16), ("cosine", 0.01)])
def test_decay_behind_a_warm_up_falls_to_almost_nothing(kind: str, end: float) -> None:
    after = rates(kind, 4, 20)[6:]
    assert after == sorted(after, reverse=True)
    assert after[-1] <= end + 1e-9


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("warmup_steps", [0, 10])
def test_decay_ends_at_the_fraction_that_is_asked_for(kind: str, warmup_steps: int) -> None:
    found = rates(kind, warmup_steps, 200, final_fraction=0.2)[warmup_steps + 2 :]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1, abs=0.02)
    assert found[-1] == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("warmup_steps", "rising"), [(0, 10), (3, 3), (20, 20)])
@pytest.mark.parametrize("lowest", [0.0, 0.1])
def test_one_cycle_goes_up_and_down_again(warmup_steps: int, rising: int, lowest: float) -> None:
    steps, falling = 20, 20 - rising
    up = [lowest + (1 - lowest) * k / rising for k in range(rising)]
    down = [lowest + (1 - lowest) * k / falling for k in range(falling, 0, -1)]
    assert rates("one_cycle", warmup_steps, steps, lowest) == pytest.approx([*up, *down])


def test_inverse_square_roots_fall_from_the_end_of_the_warm_up() -> None:
    expected = [min(k / 4, math.sqrt(4 / k)) for k in range(1, 31)]
    assert rates("inverse_sqrt", 4, 30) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warmup_steps", [0, 4])
def test_inverse_square_roots_fall_from_the_step_that_is_given(warmup_steps: int) -> None:
    rise = [min(1, k / warmup_steps) if warmup_steps else 1 for k in range(1, 31)]
    expected = [rise[k - 1] / math.sqrt(max(k / 10, 1)) for k in range(1, 31)]
    assert rates("inverse_sqrt", warmup_steps, 30, decay_from_step=10) == pytest.approx(expected, rel=1e-12)


def test_the_trainers_own_schedule_goes_on_where_it_was() -> None:
    import torch

    from vdsgen.model.learning_rate import InverseSqrt

    def made() -> InverseSqrt:
        return InverseSqrt(
            torch.optim.SGD([torch.zeros(1)], lr=0.3), Schedule(type="inverse_sqrt", warmup_steps=3)
        )

    straight, again = made(), made()
    for _ in range(7):
        straight.step()
    again.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    for _ in range(3):
        assert again.optimizer.param_groups[0]["lr"] == straight.optimizer.param_groups[0]["lr"]
        assert again.get_last_lr() == straight.get_last_lr()
        straight.step()
        again.step()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"schedule": {"type": "linear"}}, "which DeepSpeed has"),
        ({"schedule": {"type": "inverse_sqrt"}}, r"vdsgen\.schedule: .*needs a step"),
        ({"schedule": {"type": "inverse_sqrt", "warmup": 3}}, r"vdsgen\.schedule\.warmup"),
    ],
)
def test_a_schedule_that_is_none_of_the_trainers_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(VdsgenError, match=message):
        own_schedule({"vdsgen": section})


def test_two_schedules_at_once_are_refused() -> None:
    both = {
        "vdsgen": {"schedule": {"type": "inverse_sqrt", "warmup_steps": 3}},
        "scheduler": {"type": "WarmupLR", "params": {}},
    }
    with pytest.raises(VdsgenError, match=r"both scheduler and vdsgen\.schedule set the learning rate"):
        own_schedule(both)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"type": "constant", "final_fraction": 0.1}, "means nothing for a constant rate"),
        ({"type": "inverse_sqrt", "warmup_steps": 2, "final_fraction": 0.1}, "falls without end"),
        ({"type": "inverse_sqrt"}, "needs a step that its decay begins at"),
        ({"type": "inverse_sqrt", "warmup_steps": 9, "decay_from_step": 8}, "before the end of the warm-up"),
        ({"type": "cosine", "decay_from_step": 8}, "means nothing for type cosine"),
    ],
)
def test_keys_that_do_nothing_for_a_schedule_are_refused(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**schedule)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "one_cycle"])
@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 3])
@pytest.mark.parametrize("steps", [3, 4])
def test_the_shortest_runs_have_a_schedule_too(kind: str, warmup_steps: int, steps: int) -> None:
    assert all(0 <= rate <= 1 for rate in rates(kind, warmup_steps, steps))


def test_stages_with_intervals_of_their_own_are_written_out() -> None:
    by_stage = ActivationCheckpointing(interval=2, stage_intervals=(2, 0))
    section = pipeline_section(plan_of(pipeline=2, activation_checkpointing=by_stage))
    assert section["stage_checkpoint_intervals"] == [2, 0]
    assert section["activation_checkpoint_interval"] == 2
    assert "stage_checkpoint_intervals" not in pipeline_section(plan_of(pipeline=2))
