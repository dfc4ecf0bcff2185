"""What sending fewer bytes brings, or would bring, a plan; one sentence."""

from __future__ import annotations

from math import inf

from vdsgen.cost.settings import Settings
from vdsgen.planner.choices.communication import LEVELS, communication_choices
from vdsgen.planner.place import Placed, place, place_faster
from vdsgen.planner.search import Candidate
from vdsgen.planner.words import gib, percent, seconds
from vdsgen.planner.workload import Workload
from vdsgen.spec.training import Training

WEIGHS = 0.02
"""Share of the step from which on gradients and parameters between data ranks are worth a sentence."""


def communication_reason(workload: Workload, winner: Candidate) -> str:
    """The sentence; empty where the plan sends what the engine does by itself, in little time.

    For a plan that sends less, what the exact one would take. For one that does not, what the best permitted
    or forbidden way would bring, and what to write to get it; or that there is none.
    """
    settings = winner.settings
    plain = exactly(settings)
    if settings != plain:
        words = sending_words(settings)
        return (
            f"{words[0].upper()}{words[1:]}: sent as the engine does by itself, "
            f"{_beside(workload, plain, winner)}."
        )
    spent = winner.time.reduction_seconds + winner.time.gather_seconds
    if settings.sequence_data_parallel_size == 1 or spent < WEIGHS * winner.time.step_seconds:
        return ""
    head = (
        f"Gradients and parameters between data ranks take {seconds(spent)} of the step "
        f"({percent(spent / winner.time.step_seconds)})"
    )
    best = _best_other(workload, winner)
    if best is None:
        return f"{head}; {_nothing_words(settings)}."
    other, level, step = best
    permitted = level == workload.experiment.training.communication_precision
    if permitted or step >= winner.time.step_seconds:
        return f"{head}; {sending_words(other)} would not help: {_step_words(step, winner)}."
    return (
        f"{head}; with training.communication_precision: {level}, {sending_words(other)}, "
        f"{_step_words(step, winner)}."
    )


def exactly(settings: Settings) -> Settings:
    """The same, sending what the engine sends by itself."""
    defaults = Settings._field_defaults
    return settings._replace(
        communication_dtype=defaults["communication_dtype"],
        gradient_compression=defaults["gradient_compression"],
        zero_quantized_weights=defaults["zero_quantized_weights"],
        zero_quantized_gradients=defaults["zero_quantized_gradients"],
        hierarchical_partition_size=defaults["hierarchical_partition_size"],
    )


def sending_words(settings: Settings) -> str:
    """How a candidate sends less; empty where it does not."""
    parts = []
    if settings.communication_dtype is not None:
        parts.append(f"gradients reduced in {settings.communication_dtype}")
    if settings.gradient_compression != "none":
        parts.append(f"gradients exchanged in {settings.gradient_compression} with error feedback")
    if settings.hierarchical_partition_size > 1:
        parts.append(
            f"a second copy of the parameters over {settings.hierarchical_partition_size} GPUs of a node "
            f"(ZeRO++ hpZ)"
        )
    if settings.zero_quantized_weights:
        parts.append("parameters gathered in int8 (ZeRO++ qwZ)")
    if settings.zero_quantized_gradients:
        parts.append("gradients reduced in int4 (ZeRO++ qgZ)")
    return " and ".join(parts)


def _nothing_words(settings: Settings) -> str:
    if settings.zero_stage == 2:
        return (
            "the engine has no compression at ZeRO-2, and the trainer compresses only what is reduced once "
            "a step"
        )
    return "no way to send less is legal here"


def _best_other(workload: Workload, winner: Candidate) -> tuple[Settings, str, float] | None:
    """The fastest way that fits and sends less, the least permission it takes, and its seconds a step."""
    found: dict[Settings, str] = {}
    for level in LEVELS:
        permitted = _with_level(workload, level)
        for settings in communication_choices(permitted, winner.settings):
            if settings != winner.settings:
                found.setdefault(settings, level)
    best: tuple[Settings, str, float] | None = None
    for settings, level in found.items():  # the least permission first
        placed = place_faster(workload, settings, best[2] if best else inf)
        if placed is not None:
            step = workload.times.step(placed.settings, placed.partition).step_seconds
            if best is None or step < best[2]:
                best = (settings, level, step)
    return best


def _with_level(workload: Workload, level: str) -> Workload:
    training = Training.model_validate(
        workload.experiment.training.model_dump() | {"communication_precision": level}
    )
    experiment = workload.experiment.model_copy(update={"training": training})
    return Workload(experiment, workload.pool, workload.gpu_name, workload.profile)


def _beside(workload: Workload, other: Settings, winner: Candidate) -> str:
    """What another way of sending would take, beside the plan."""
    outcome = place(workload, other)
    if not isinstance(outcome, Placed):
        return f"it needs {gib(outcome.over_bytes)} more than there is"
    return _step_words(workload.times.step(outcome.settings, outcome.partition).step_seconds, winner)


def _step_words(step: float, winner: Candidate) -> str:
    mine = winner.time.step_seconds
    if abs(step / mine - 1) < 0.001:
        return f"the step takes {seconds(step)}, as long as this plan's"
    slower = "slower" if step > mine else "faster"
    return f"the step takes {seconds(step)}, {percent(abs(step / mine - 1))} {slower} than this plan's"
