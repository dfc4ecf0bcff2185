"""Plans to report on: small ones, and one of 64 stages."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.planner.examples import experiment, pool, profile
from vdsgen.planner.plan import make_plan
from vdsgen.planner.resolve import workload_of
from vdsgen.report.plan.subject import PlanSubject, read_subjects

RENDERED = Path(__file__).parents[2] / "examples/rendered"


@cache
def deep_subject(stages: int = 64, micro_batches: int = 256) -> PlanSubject:
    """A pipeline with one GPU a stage on nodes of eight."""
    nodes = max(1, stages // 8)
    blocks = stages + 2
    wanted = experiment(
        blocks=blocks,
        global_batch_size=micro_batches,
        constraints={
            "pipeline_parallel_size": stages,
            "micro_batch_size": 1,
            "activation_checkpoint_interval": 1,
            "zero_stage": 1,
        },
    )
    gpus = pool(stages // nodes, nodes=nodes)
    known = profile(blocks)
    plan = make_plan(wanted, gpus, known)
    return PlanSubject("", plan, workload_of(wanted, gpus, known, plan.nodes))


def example(name: str) -> PlanSubject:
    """One of the rendered examples."""
    (subject,) = read_subjects([RENDERED / name])
    return subject


def pair(first: str, second: str) -> list[PlanSubject]:
    """Two of them, side by side."""
    return read_subjects([RENDERED / first, RENDERED / second])
