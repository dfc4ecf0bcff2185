"""Linear layers in 8 bits: never unasked, faster where the GPU has the format alone, and said to be so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.planner.examples import pool
from tests.planner.examples import workload as example
from tests.render.plans import plan_of, small_experiment
from vdsgen.catalog.load import gpus, models
from vdsgen.catalog.profiles import profile_for
from vdsgen.errors import InputError, VdsgenError
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.facts import facts
from vdsgen.planner.linear_reason import exactly, linear_reason
from vdsgen.planner.plan_settings import sections_of
from vdsgen.planner.search import Candidate, search
from vdsgen.planner.workload import Workload
from vdsgen.render.engine_config import engine_config
from vdsgen.rules.registry import all_rules, forbidding_rules
from vdsgen.rules.rule import violations
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Precision
from vdsgen.spec.trainer_section import linear_precision_of

PINS: dict[str, Any] = {
    "pipeline_parallel_size": 1,
    "data_parallel_size": 4,
    "zero_stage": 1,
    "micro_batch_size": 1,
    "activation_checkpoint_interval": 0,
}


def on(gpu: str, **training: Any) -> tuple[Workload, Candidate]:
    """Four of the 14 B model's blocks on four such GPUs, with as much memory as it takes."""
    figures = gpus()[gpu].figures
    if figures.memory_gib is not None:
        figures = figures.model_copy(update={"memory_gib": 1000.0})
    sizes = models()["vdt-14b"].sizes.model_copy(update={"depth": 4})
    profile = profile_for(models()["vdt-14b"].sizes)
    assert profile is not None
    profile = profile.model_copy(update={"layers": ("embed", *["block"] * 4, "final")})
    experiment = Experiment.model_validate(
        {
            "name": "example",
            "model": sizes,
            "data": {
                "videos": "clips", "frames": 49, "height": 480, "width": 832,
                "latents": {
                    "codec": "autoencoder", "path": "vae", "channels": 16, "spatial_factor": 8,
                    "temporal_factor": 4,
                },
                "text_encoder": {"path": "text", "max_tokens": 226},
            },
            "training": {"global_batch_size": 4, "steps": 100, **training},
            "constraints": PINS,
        }
    )  # fmt: skip
    workload = Workload(experiment, pool().model_copy(update={"gpu": figures}), gpu, profile)
    return workload, search(workload, whole_pool_layouts(workload)).ranked[0]


def step(workload: Workload, winner: Candidate) -> float:
    return workload.times.step(winner.placed.settings, winner.placed.partition).step_seconds


@pytest.mark.parametrize("gpu", ["h100-80gb-sxm", "rtx-4090", "rtx-3090"])
def test_plans_are_exact_unless_asked(gpu: str) -> None:
    workload, winner = on(gpu)
    assert workload.costed is workload.profile
    assert sections_of(winner.settings, workload.experiment.training)["precision"].linear == "exact"
    assert linear_reason(workload, winner) == ""
    assert facts(workload, winner.settings).precision.linear == "exact"
    assert "linear" not in workload.experiment.training.model_dump_json()


@pytest.mark.parametrize(
    ("gpu", "kind", "faster"),
    [
        ("h100-80gb-sxm", "fp8", True),
        ("rtx-4090", "fp8", True),
        ("rtx-4090", "int8", True),
        ("rtx-3090", "int8", True),
        ("rtx-3090", "fp8", False),
        ("mi300x", "fp8", False),
    ],
)
def test_is_called_faster_where_the_gpu_has_it_alone(gpu: str, kind: str, faster: bool) -> None:
    workload, winner = on(gpu, linear_precision=kind)
    assert (step(workload, winner) < step(exactly(workload), winner)) == faster
    sentence = linear_reason(workload, winner)
    assert f"multiply in {kind}" in sentence and "docs/low_precision.md" in sentence
    assert ("emulated" in sentence) != faster
    seen = facts(workload, winner.settings)
    assert violations(seen, forbidding_rules()) == [], "what is asked for is planned"
    hurts = {one.rule.id for one in violations(seen, all_rules())}
    assert ("linear-precision-on-gpu" in hurts) != faster


def test_needs_no_less_memory_and_keeps_the_same_activations() -> None:
    workload, winner = on("h100-80gb-sxm", linear_precision="fp8")
    exact, bounds = exactly(workload), (winner.settings, 0, 0, workload.layers)
    own, plain = workload.memory(*bounds), exact.memory(*bounds)
    assert plain.peak_bytes < own.peak_bytes < 1.05 * plain.peak_bytes
    for part in ("parameters_bytes", "gradients_bytes", "optimizer_bytes"):
        assert getattr(own, part) == getattr(plain, part)


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_travels_to_the_trainer(kind: Any) -> None:
    precision = Precision(dtype="bf16", gradient_accumulation_dtype="fp32", linear=kind)
    config = engine_config(plan_of(precision=precision), small_experiment(linear_precision=kind))
    assert config["vdsgen"] == {"linear_precision": kind}
    assert linear_precision_of(config) == kind
    assert linear_precision_of(engine_config(plan_of(), small_experiment())) == "exact"


def test_what_is_no_precision_is_refused() -> None:
    with pytest.raises(VdsgenError, match="linear_precision is 'fp4'") as refusal:
        linear_precision_of({"vdsgen": {"linear_precision": "fp4"}})
    assert refusal.value.remedy == "use exact, int8, fp8"


def test_what_was_not_traced_is_refused() -> None:
    """Blocks of the example are wide enough: here they hold a convolution, whose FLOPs are not told apart."""
    unknown = example(linear_precision="int8")
    block = unknown.profile.layer_types["block"]
    convolved = block.model_copy(update={"parameter_shapes": ((16, 16, 3, 3, 3), *block.parameter_shapes)})
    types = unknown.profile.layer_types | {"block": convolved}
    unknown = replace(unknown, profile=unknown.profile.model_copy(update={"layer_types": types}))
    with pytest.raises(InputError, match="what linear layers in int8 bring is not known") as refusal:
        whole_pool_layouts(unknown)
    (problem,) = refusal.value.problems
    assert problem.key == "training.linear_precision"
    assert problem.remedy == "leave training.linear_precision out"
