"""From plain data parallelism to a plan, one measure after the other: what each takes off the fullest GPU."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.planner.baseline import naive_baseline
from vdsgen.planner.search import Candidate
from vdsgen.planner.workload import Workload
from vdsgen.spec.explanations import Waterfall, WaterfallStep

MEASURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("precision", ("dtype",)),
    ("sharding (ZeRO)", ("zero_stage", "gradient_accumulation_dtype")),
    (
        "checkpointing",
        (
            "activation_checkpoint_interval",
            "stage_checkpoint_intervals",
            "stage_plain_layers",
            "stage_selective_layers",
        ),
    ),
    ("packed activations", ("activation_compression",)),
    ("activation offload", ("offload_activations",)),
    ("offload (ZeRO)", ("offload_optimizer", "offload_parameters")),
    (
        "communication",
        (
            "communication_dtype",
            "gradient_compression",
            "zero_quantized_weights",
            "zero_quantized_gradients",
            "hierarchical_partition_size",
            "reduce_bucket_elements",
            "allgather_bucket_elements",
        ),
    ),
    ("micro-batch", ("micro_batch_size", "gradient_accumulation_steps")),
)
"""After the layout, in the order they are taken; with the settings that each decides. What saves memory comes
before what spends it."""


class _Held(NamedTuple):
    """The fullest GPU at its peak, and the step."""

    peak_bytes: int
    by_component: dict[str, int]
    step_seconds: float


def waterfall(workload: Workload, winner: Candidate) -> Waterfall:
    """The steps' savings add up to the difference of the two peaks, as a whole and by component.

    What the engine refuses halfway is taken together with the measure after it.
    """
    naive = naive_baseline(workload).settings
    first = before = _held(workload, naive, winner)
    steps, pending = [], []
    for measure, settings in _one_by_one(naive, winner.settings):
        pending.append(measure)
        try:
            after = _held(workload, settings, winner)
        except ValueError:
            continue
        steps.append(_step(", ".join(pending), before, after))
        before, pending = after, []
    assert not pending, "a plan that the engine refuses"
    return Waterfall(
        naive_bytes=first.peak_bytes,
        naive_by_component=first.by_component,
        naive_step_seconds=first.step_seconds,
        steps=tuple(steps),
        plan_bytes=before.peak_bytes,
        plan_by_component=before.by_component,
        saved_fraction=1 - before.peak_bytes / first.peak_bytes,
    )


def _one_by_one(naive: Settings, goal: Settings) -> Iterator[tuple[str, Settings]]:
    """Each measure that the plan takes, and the settings with it and all before it."""
    settings = naive
    for measure, reached in (
        *_layouts(naive, goal),
        *((measure, {name: getattr(goal, name) for name in names}) for measure, names in MEASURES),
    ):
        changed = settings._replace(**reached)
        if changed != settings:
            settings = changed
            yield measure, settings
    assert settings == goal, "a setting that no measure decides"


def _layouts(naive: Settings, goal: Settings) -> Iterator[tuple[str, dict[str, int]]]:
    """Fewer GPUs, then stages, then shared layers: micro-batches stay as they are, and the global batch."""
    samples = (
        goal.micro_batch_size * goal.gradient_accumulation_steps * goal.data_parallel_size
    ) // naive.micro_batch_size
    stages, shared = goal.pipeline_parallel_size, goal.tensor_parallel_size * goal.sequence_parallel_size
    for measure, data, changes in (
        ("fewer GPUs", goal.data_parallel_size * stages * shared, {}),
        ("pipeline", goal.data_parallel_size * shared, {"pipeline_parallel_size": stages}),
        (
            "tensor and sequence parallel",
            goal.data_parallel_size,
            {
                "tensor_parallel_size": goal.tensor_parallel_size,
                "sequence_parallel_size": goal.sequence_parallel_size,
            },
        ),
    ):
        steps = max(1, samples // data)
        yield measure, {"data_parallel_size": data, "gradient_accumulation_steps": steps, **changes}


def _held(workload: Workload, settings: Settings, winner: Candidate) -> _Held:
    """Raises ValueError for settings that the engine refuses."""
    same = settings.pipeline_parallel_size == winner.settings.pipeline_parallel_size
    boundaries = winner.placed.partition if same else (0, workload.layers)
    stages = [(stage, start, stop) for stage, (start, stop) in enumerate(pairwise(boundaries))]
    memories = [workload.memory(settings, *stage) for stage in stages]
    fullest = max(range(len(stages)), key=lambda stage: memories[stage].peak_bytes)
    moment = workload.timeline(settings, *stages[fullest]).peak()
    parts = moment.components() | {"reserve": memories[fullest].reserve_bytes}
    return _Held(
        sum(parts.values()),
        {name: size for name, size in parts.items() if size},
        workload.times.step(settings, boundaries).step_seconds,
    )


def _step(measure: str, before: _Held, after: _Held) -> WaterfallStep:
    names = [*before.by_component, *(name for name in after.by_component if name not in before.by_component)]
    saved = {name: before.by_component.get(name, 0) - after.by_component.get(name, 0) for name in names}
    return WaterfallStep(
        measure=measure,
        saved_bytes=before.peak_bytes - after.peak_bytes,
        saved_by_component={name: size for name, size in saved.items() if size},
        peak_bytes=after.peak_bytes,
        step_seconds=after.step_seconds,
    )
