"""The files of an ablation's directory, as specs: `ablation.json`, `runs.jsonl` and `results.jsonl`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from vdsgen.spec.base import Name, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Spec
from vdsgen.spec.lab import Pool

Status = Literal["ok", "out_of_memory", "failed"]


class PredictedCosts(Spec):
    """What the planner says of one plan."""

    step_seconds: PositiveFloat
    samples_per_second: PositiveFloat
    peak_memory_bytes_by_stage: tuple[NonNegativeInt, ...]
    """On each GPU, without the reserve: what the trainer's counters see."""
    parts_seconds: dict[str, NonNegativeFloat]
    """The step by part, as the time model has it without factors of earlier ablations."""


class PlanEntry(Spec):
    """One plan of the set."""

    name: Name
    """Folder below `plans/` and `runs/`."""
    asked_for: str
    """The part of --plans that it comes from."""
    fingerprint: str
    """SHA-256 of what a run follows from: engine settings, hosts and experiment."""
    plan_sha256: str
    """Of plan.json's bytes."""
    settings: dict[str, Any]
    """The engine settings, as the cost functions take them."""
    partition: tuple[NonNegativeInt, ...]
    """First layer of each stage, and one past the last layer."""
    global_batch_size: PositiveInt
    planners_choice: bool
    """It is the plan that `vdsgen plan` gives for the experiment and lab."""
    edited: bool
    """ds_config.json is not what its plan renders to: what is predicted is the plan as it was."""
    predicted: PredictedCosts


class RefusedPlan(Spec):
    """What was asked for, and why it is not run."""

    asked_for: str
    reason: str


class Ablation(Spec):
    """`ablation.json`: what is measured. Written first, and compared when the command is given again."""

    schema_version: Literal[1] = 1
    generator: str
    experiment: Name
    experiment_sha256: str
    lab_sha256: str
    profile_sha256: str
    pool: Pool
    steps: PositiveInt
    """Timed steps of one run, the warm-up not counted."""
    plans: tuple[PlanEntry, ...]
    refused: tuple[RefusedPlan, ...]


class RunStarted(Spec):
    """A line of `runs.jsonl`: a plan's ranks are about to start."""

    event: Literal["started"] = "started"
    plan: Name
    round: PositiveInt
    launch_id: str
    """Marks every process of the launch on this machine."""


class RunEnded(Spec):
    """A line of `runs.jsonl`: a plan has run for its steps, or failed to."""

    event: Literal["ended"] = "ended"
    plan: Name
    round: PositiveInt
    status: Status
    exit_code: NonNegativeInt
    wall_seconds: NonNegativeFloat
    """Starting and ending the ranks included."""
    step_seconds: tuple[PositiveFloat, ...] = ()
    """Timed steps, in their order."""
    data_seconds: tuple[NonNegativeFloat, ...] = ()
    """Part of each in which a rank waited for clips."""
    peak_memory_bytes_by_stage: tuple[NonNegativeInt, ...] = ()
    memory_meaning: str = ""
    """What the peak counts: tensors on a GPU, resident memory of a process."""
    error: str = ""
    """The last lines that tell why it failed."""


JournalLine = Annotated[RunStarted | RunEnded, Field(discriminator="event")]


class MeasuredCosts(Spec):
    """What the runs of one plan measured."""

    rounds: PositiveInt
    """Runs that ended well."""
    step_seconds: PositiveFloat
    """Median of the rounds' medians."""
    step_seconds_quartiles: tuple[PositiveFloat, PositiveFloat]
    """Lower and upper, over the timed steps of all rounds."""
    round_step_seconds: tuple[PositiveFloat, ...]
    """Each round's median: how the machine drifted."""
    samples_per_second: PositiveFloat
    data_wait_seconds: NonNegativeFloat
    """Of a step: median of the rounds' medians."""
    peak_memory_bytes_by_stage: tuple[NonNegativeInt, ...]
    """The highest of all rounds."""
    memory_meaning: str


class Result(Spec):
    """A line of `results.jsonl`: one plan, what was predicted and what was measured so far."""

    plan: PlanEntry
    status: Status | Literal["pending"]
    measured: MeasuredCosts | None
    """None before its first run, and where none ended well."""
    error: str = ""
