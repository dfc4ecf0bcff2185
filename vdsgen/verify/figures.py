"""What a traced stage held, and how it compares with the plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vdsgen.spec.base import NonNegativeFloat, NonNegativeInt, PositiveInt, Spec
from vdsgen.spec.plan import StageMemory

Component = Literal[
    "parameters", "gradients", "optimizer", "activations", "workspace", "communication", "peak", "host"
]
Phase = Literal["compute", "reduce", "step"]

TOLERANCES: dict[Component, float] = {
    "parameters": 0.01,
    "gradients": 0.01,
    "optimizer": 0.01,
    "activations": 0.03,
    "workspace": 0.05,
    "communication": 0.05,
    "peak": 0.05,
    "host": 0.01,
}
"""Of the traced bytes."""
NEGLIGIBLE_FRACTIONS: dict[Component, float] = {
    **dict.fromkeys(TOLERANCES, 0.001),
    # They count only as parts of the peak, and where they are far from deciding it plans round them.
    "workspace": 0.01,
    "communication": 0.01,
}
"""Of the stage's traced peak: a component that is off by less is right, however small it is itself."""
NEGLIGIBLE_BYTES = 2**20
"""So is one that is off by less than this: plans leave out rotary tables, timesteps and text embeddings."""


class StageTrace(Spec):
    """Bytes that one rank of a stage held in a step after its first, and what tracing it took; or the most of
    several ranks."""

    stage: NonNegativeInt
    data_ranks: tuple[NonNegativeInt, ...]
    layers: tuple[NonNegativeInt, NonNegativeInt]
    """First pipeline layer, and one past the last."""
    optimizer_class: str
    """Of `engine.optimizer`."""
    micro_batches: PositiveInt
    """Of the traced step."""
    parameters_bytes: NonNegativeInt
    gradients_bytes: NonNegativeInt
    """At the end of the step's last backward."""
    optimizer_bytes: NonNegativeInt
    activations_bytes: NonNegativeInt
    """The most, while micro-batches run, of all that is neither states nor communication: what reducing a
    bucket holds for a moment is among it."""
    workspace_bytes: NonNegativeInt
    """The most beyond states while the optimizer steps, and while gradients are reduced after a backward."""
    communication_bytes: NonNegativeInt
    """The most, while micro-batches run, of reduce buckets and gathered parameters that stay for a while."""
    host_bytes: NonNegativeInt = 0
    """The most of what offload keeps in host memory. The other figures are the device's."""
    peak_bytes: NonNegativeInt
    """Of all tensors, kernels' temporaries included."""
    peak_phase: Phase
    build_peak_bytes: NonNegativeInt
    """While the engine was built."""
    seconds: NonNegativeFloat
    resident_bytes: NonNegativeInt
    """The most that the tracing process held in real memory."""


def fullest(traces: Sequence[StageTrace]) -> StageTrace:
    """The most that any of a stage's ranks holds, component by component: what a plan must have room for."""
    peak = max(traces, key=lambda trace: trace.peak_bytes)
    largest = {
        name: max(getattr(trace, name) for trace in traces)
        for name in StageTrace.model_fields
        if name.endswith("_bytes")
    }
    return peak.model_copy(
        update={
            **largest,
            "data_ranks": tuple(rank for trace in traces for rank in trace.data_ranks),
            "seconds": sum(trace.seconds for trace in traces),
        }
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One component of one stage."""

    stage: int
    component: Component
    planned_bytes: int
    traced_bytes: int
    tolerance: float
    negligible_bytes: int

    @property
    def ratio(self) -> float | None:
        """Planned over traced; None where nothing was traced."""
        return self.planned_bytes / self.traced_bytes if self.traced_bytes else None

    @property
    def within(self) -> bool:
        off = abs(self.planned_bytes - self.traced_bytes)
        return off <= max(self.tolerance * self.traced_bytes, self.negligible_bytes)


def planned_bytes(memory: StageMemory, component: Component) -> int:
    """As the trace counts: the peak is of tensors, without the reserve."""
    if component == "peak":
        return memory.peak_bytes - memory.reserve_bytes
    return int(getattr(memory, f"{component}_bytes"))


def compare(
    memory: StageMemory,
    trace: StageTrace,
    negligible_bytes: int = NEGLIGIBLE_BYTES,
    *,
    planned_host_bytes: int = 0,
) -> list[Row]:
    """Planned beside traced, component by component; host memory where offload is planned or traced."""
    return [
        Row(
            stage=trace.stage,
            component=component,
            planned_bytes=planned_host_bytes if component == "host" else planned_bytes(memory, component),
            traced_bytes=int(getattr(trace, f"{component}_bytes")),
            tolerance=tolerance,
            negligible_bytes=max(negligible_bytes, round(NEGLIGIBLE_FRACTIONS[component] * trace.peak_bytes)),
        )
        for component, tolerance in TOLERANCES.items()
        if component != "host" or planned_host_bytes or trace.host_bytes
    ]


def all_within(rows: Iterable[Row]) -> bool:
    return all(row.within for row in rows)
