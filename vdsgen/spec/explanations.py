"""Why a plan is as it is, in numbers: what binds it, what more would buy, what came near, what it saves."""

from __future__ import annotations

from typing import Any, Literal

from vdsgen.spec.base import NonNegativeFloat, NonNegativeInt, PositiveInt, Spec

Resource = Literal[
    "gpu_speed",
    "gpu_memory",
    "host_memory",
    "intra_node",
    "inter_node",
    "host_link",
    "global_batch",
    "blocks",
    "gpus",
    "nodes",
    "pin",
]


class Binding(Spec):
    """What twice as much of one resource would win."""

    resource: Resource
    detail: str
    """Who uses it, in numbers, for people."""
    samples_per_second: NonNegativeFloat
    """With twice as much of it; `blocks`: were all stages equally long."""
    gain_fraction: float
    """Of the plan's samples a second."""
    planned_again: bool
    """False: this plan as it is, so at least this much; of `gpu_memory` its settings one change away."""


class Purchase(Spec):
    """What the next one of something would buy, planned again."""

    resource: Resource
    change: str
    samples_per_second: NonNegativeFloat | None
    """None: no plan is possible then."""
    gain_fraction: float | None
    plan: str
    """What would be planned otherwise, in few words."""
    added_gib: NonNegativeFloat | None = None
    """Of `gpu_memory` and `host_memory`: the smallest increase that wins anything."""


class NearestMiss(Spec):
    """A family of candidates that lost, at its best."""

    family: str
    outcome: Literal["slower", "out_of_memory", "inexact_sums", "refused"]
    detail: str
    """For people: both sides in numbers."""
    settings: dict[str, Any] | None = None
    """Of the nearest candidate; null where demands contradict each other."""
    missing_bytes: NonNegativeInt | None = None
    stage: NonNegativeInt | None = None
    component: str | None = None
    """The largest of what does not fit."""
    peak_bytes: NonNegativeInt | None = None
    """Of the fullest GPU, where it fits."""
    extra_seconds: float | None = None
    """A step, over the plan's."""
    cause: str | None = None
    """The part of the step that takes most longer."""
    cause_seconds: float | None = None


class LossSplit(Spec):
    """Seconds of a step beyond what equally efficient GPUs would need; they add up to all of it. Negative:
    better than one GPU does it."""

    bubble_seconds: float
    """Filling and draining a pipeline: too few micro-batches for its stages."""
    imbalance_seconds: float
    """Stages that wait for a longer one."""
    links_seconds: float
    """Transfers, gradient reduction, parameter gathers."""
    batch_seconds: float
    """Forward and backward: smaller micro-batches are computed less efficiently (and ranks that share the
    cores of a processor take turns)."""
    recompute_seconds: float
    optimizer_seconds: float
    other_seconds: float
    """Offload, waiting for data, fixed overhead."""


class ScalePoint(Spec):
    """The best plan of some GPUs, or of one layout of them."""

    gpus: PositiveInt
    layout: str
    plan: str
    step_seconds: NonNegativeFloat
    samples_per_second: NonNegativeFloat
    efficiency_fraction: NonNegativeFloat
    """Of so many times the speed of one GPU (of the fewest GPUs that fit)."""
    loss: LossSplit
    links: tuple[str, ...] = ()
    """What each link carries in a step, and for how long, for people."""


class Mend(Spec):
    """The smallest change of one thing that brings a layout's efficiency to the aim, or the best tried."""

    layout: str
    change: str
    efficiency_fraction: NonNegativeFloat
    reaches_aim: bool


class Scaling(Spec):
    """Why more GPUs, or a pipeline, are not faster, where they are not."""

    base_gpus: PositiveInt
    """What efficiencies are relative to: the fewest GPUs with a plan."""
    aim_fraction: NonNegativeFloat
    gpus_without_plan: tuple[PositiveInt, ...]
    """Numbers of GPUs that nothing fits, or that the batch cannot be shared over."""
    points: tuple[ScalePoint, ...]
    layouts: tuple[ScalePoint, ...]
    """Of all GPUs."""
    mends: tuple[Mend, ...]


class WaterfallStep(Spec):
    """One measure, and what it takes off the fullest GPU at its peak (negative: what it adds)."""

    measure: str
    saved_bytes: int
    saved_by_component: dict[str, int]
    """At the peak's moment; adds up to `saved_bytes`."""
    peak_bytes: NonNegativeInt
    """With this measure and those before it."""
    step_seconds: NonNegativeFloat
    """Likewise, were memory no matter."""


class Waterfall(Spec):
    """From plain data parallelism to the plan, one measure after the other; the parts add up."""

    naive_bytes: NonNegativeInt
    naive_by_component: dict[str, int]
    naive_step_seconds: NonNegativeFloat
    steps: tuple[WaterfallStep, ...]
    plan_bytes: NonNegativeInt
    plan_by_component: dict[str, int]
    saved_fraction: float


class Explanations(Spec):
    """`bindings` and `waterfall` are in every plan; the others where they were asked for (`--explain`)."""

    bindings: tuple[Binding, ...]
    """Those that win most first."""
    waterfall: Waterfall
    purchases: tuple[Purchase, ...] = ()
    nearest_misses: tuple[NearestMiss, ...] = ()
    scaling: Scaling | None = None
