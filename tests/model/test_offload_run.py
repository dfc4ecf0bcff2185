"""A plan that keeps optimizer states and activations in host memory, from the planner to a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.model.training import launch, write_clips
from vdsgen.cli.main import cli
from vdsgen.model.metrics import read_metrics
from vdsgen.spec.plan import Plan

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
PINS = {
    "zero_stage": "1",
    "micro_batch_size": "2",
    "activation_checkpoint_interval": "1",
    "offload_optimizer": "cpu",
    "offload_activations": "true",
}
STEPS = 3


def test_a_rendered_plan_with_offload_trains_in_the_memory_that_is_planned(tmp_path: Path) -> None:
    """Two stages x two data ranks. On a processor, what is offloaded is in the same memory as all else: a
    rank holds what is planned for its device and for its host together. Buckets that never fill are planned
    whole, and stay partly untouched."""
    settings = {
        "training.steps": str(STEPS),
        "training.schedule.warmup_steps": "0",
        "training.saving.every_steps": str(STEPS),
        "training.sampling.steps": "1",
        "data.videos": str(write_clips(tmp_path / "clips")),
        **{f"constraints.{key}": value for key, value in PINS.items()},
    }
    arguments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    demo = [str(EXAMPLES / "experiments/cpu-demo.yaml"), "--lab", str(EXAMPLES / "labs/cpu-demo.yaml")]
    made = CliRunner().invoke(cli, ["generate", *demo, *arguments, "--out", str(tmp_path / "plan")])
    assert made.exit_code == 0, made.output
    config = json.loads((tmp_path / "plan/ds_config.json").read_text())
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert config["pipeline"]["offload_activations"] is True

    finished = launch(tmp_path / "plan", tmp_path / "run")
    assert finished.code == 0, finished.shown
    losses = [metrics["loss"] for metrics in read_metrics(tmp_path / "run")]
    assert len(losses) == STEPS and losses[-1] < losses[0]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    plan = Plan.model_validate_json((tmp_path / "plan/plan.json").read_bytes())
    for stage, measured in zip(plan.stages, summary["measured"]["peak_memory_bytes_by_stage"], strict=True):
        assert stage.host_bytes > 0
        device = stage.measured_bytes(on_processor=False)
        assert 0.75 * device < measured < 1.02 * (device + stage.host_bytes)
