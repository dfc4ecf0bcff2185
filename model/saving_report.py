"""What saving took in a run, and how often it should have saved for that."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vdsgen.spec.checkpoint_interval import best_steps
from vdsgen.spec.plan import Plan
from vdsgen.units import GIB

MIB = 1024**2


def saving_figures(
    saves: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
    plan: Plan,
    step_seconds: float,
    every_steps: int,
) -> dict[str, Any] | None:
    """`saving` of summary.json; None where nothing was saved. `saves` and `metrics` are of all the run."""
    if not saves:
        return None
    blocking = [save["blocking_seconds"] for save in saves]
    background = [save["background_seconds"] for save in saves]
    trained_seconds = sum(step["step_seconds"] for step in metrics)
    figures = {
        "saves": len(saves),
        "every_steps": every_steps,
        "checkpoint_bytes": saves[-1]["bytes"],
        "blocking_seconds": statistics.median(blocking),
        "background_seconds": statistics.median(background),
        "total_blocking_seconds": sum(blocking),
        "fraction": sum(blocking) / (trained_seconds + sum(blocking)),
        "between_failures_seconds": None,
        "best_every_steps": None,
    }
    between = between_failures_seconds(plan)
    if between is not None:
        best = best_steps(step_seconds, figures["blocking_seconds"], between, most_steps=10**9)
        # A save waits for the one before.
        best = max(best, int(figures["background_seconds"] / step_seconds) + 1 if any(background) else 1)
        figures |= {"between_failures_seconds": between, "best_every_steps": best}
    return figures


def between_failures_seconds(plan: Plan) -> float | None:
    """Of the planned job, as the lab says; None where it does not."""
    pool, gpus = plan.inputs.pool, plan.parallel.world_size
    if pool.failures is None:
        return None
    nodes = len(plan.nodes) or -(-gpus // pool.gpus_per_node)
    return pool.failures.seconds_between(gpus, nodes)


def saving_lines(figures: Mapping[str, Any] | None) -> list[str]:
    """The same for people."""
    if figures is None:
        return []
    written = ""
    if figures["background_seconds"]:
        written = f" (and written beside training in {figures['background_seconds']:.2f} s)"
    count = figures["saves"]
    lines = [
        f"Saving: {count} {'checkpoint' if count == 1 else 'checkpoints'} of "
        f"{_size(figures['checkpoint_bytes'])}, training waited {figures['blocking_seconds']:.2f} s for "
        f"each{written}: {figures['fraction']:.1%} of the run"
    ]
    if figures["best_every_steps"] is not None:
        hours = figures["between_failures_seconds"] / 3600
        lines.append(
            f"  every {figures['every_steps']} steps; with a failure every {hours:.1f} h and these times, "
            f"every {figures['best_every_steps']} cost least"
        )
    return lines


def _size(number_bytes: int) -> str:
    return f"{number_bytes / GIB:.2f} GiB" if number_bytes >= GIB else f"{number_bytes / MIB:.1f} MiB"
