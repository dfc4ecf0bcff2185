"""Ablations and their results, made by hand."""

from __future__ import annotations

from typing import Any

from tests.render.plans import pool_of
from vdsgen.ablate.records import Ablation, PlanEntry, PredictedCosts, RefusedPlan, RunEnded

MIB = 1024**2


def entry(name: str, *, speed: float = 2.0, **changes: Any) -> PlanEntry:
    """A plan that is predicted to train `speed` samples a second, eight a step."""
    step = 8 / speed
    parts = changes.pop("parts_seconds", {"compute_seconds": 0.75 * step, "reduction_seconds": 0.25 * step})
    return PlanEntry(
        **{
            "name": name,
            "asked_for": "top:3",
            "fingerprint": name.ljust(64, "f"),
            "plan_sha256": "p" * 64,
            "settings": {"pipeline_parallel_size": 2},
            "partition": (0, 3, 6),
            "global_batch_size": 8,
            "planners_choice": False,
            "edited": False,
            "predicted": PredictedCosts(
                step_seconds=step,
                samples_per_second=speed,
                peak_memory_bytes_by_stage=(100 * MIB, 80 * MIB),
                parts_seconds=parts,
            ),
            **changes,
        }
    )


def ablation(*plans: PlanEntry, steps: int = 3, refused: tuple[RefusedPlan, ...] = ()) -> Ablation:
    return Ablation(
        generator="vdsgen 0.0.0",
        experiment="small",
        experiment_sha256="e" * 64,
        lab_sha256="1" * 64,
        profile_sha256="f" * 64,
        pool=pool_of(1, 4),
        steps=steps,
        plans=plans,
        refused=refused,
    )


def ran(name: str, round_number: int, *step_seconds: float, **changes: Any) -> RunEnded:
    """A run that ended well, without waiting for clips."""
    return RunEnded(
        **{
            "plan": name,
            "round": round_number,
            "status": "ok",
            "exit_code": 0,
            "wall_seconds": 20.0,
            "step_seconds": step_seconds,
            "data_seconds": tuple(0.0 for _ in step_seconds),
            "peak_memory_bytes_by_stage": (90 * MIB, 84 * MIB),
            "memory_meaning": "tensors",
            **changes,
        }
    )


def failed(
    name: str, round_number: int, status: Any = "failed", error: str = "error: rank 0 died"
) -> RunEnded:
    return RunEnded(plan=name, round=round_number, status=status, exit_code=1, wall_seconds=3.0, error=error)
