"""Two plans of one lab that differ: what each choice of the one would do to the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.planner.again import changed
from vdsgen.planner.explanations.families import Family, nearest
from vdsgen.planner.search import Candidate
from vdsgen.planner.words import checkpoint_words, communication_words, layout_words, offload_words
from vdsgen.planner.workload import Workload
from vdsgen.spec.explanations import NearestMiss

LAYOUT = (
    "pipeline_parallel_size",
    "data_parallel_size",
    "tensor_parallel_size",
    "sequence_parallel_size",
)
OFFLOAD = ("offload_optimizer", "offload_parameters", "offload_activations")


class Difference(NamedTuple):
    """One choice that two plans make differently."""

    choice: str
    one: str
    other: str
    other_with_ones: NearestMiss | None
    """The other plan's experiment with this choice pinned as in the one; beside the other plan. None where
    nothing can pin it."""
    one_with_others: NearestMiss | None
    """Likewise the other way round, beside the one plan."""


class Planned(NamedTuple):
    """A plan, and what it was made for."""

    workload: Workload
    candidate: Candidate


def differences(one: Planned, other: Planned) -> Iterator[Difference]:
    """In the order of a plan's sections; what is the same in both is left out."""
    for choice, names in (
        ("layout", LAYOUT),
        ("ZeRO stage", ("zero_stage",)),
        ("micro-batch", ("micro_batch_size",)),
        ("checkpointing", ("activation_checkpoint_interval",)),
        ("precision", ("dtype",)),
        ("offload", OFFLOAD),
        ("communication", ()),
    ):
        ones, others = _words(choice, one.candidate.settings), _words(choice, other.candidate.settings)
        if ones != others:
            yield Difference(
                choice, ones, others, _with(other, one, choice, names), _with(one, other, choice, names)
            )


def _words(choice: str, settings: Settings) -> str:
    return {
        "layout": layout_words(settings),
        "ZeRO stage": f"ZeRO-{settings.zero_stage}",
        "micro-batch": f"micro-batch {settings.micro_batch_size}",
        "checkpointing": checkpoint_words(settings),
        "precision": settings.dtype,
        "offload": ", ".join(offload_words(settings)) or "nothing offloaded",
        "communication": communication_words(settings) or "gradients sent as they are",
    }[choice]


def _with(mine: Planned, theirs: Planned, choice: str, names: tuple[str, ...]) -> NearestMiss | None:
    """My experiment with their choice; accumulation steps follow where layouts or micro-batches change."""
    if not names:
        return None
    experiment, settings = mine.workload.experiment, theirs.candidate.settings
    if choice == "precision":
        training = experiment.training.model_copy(update={"precision": settings.dtype})
        experiment = experiment.model_copy(update={"training": training})
    else:
        pins: dict[str, Any] = {name: getattr(settings, name) for name in names}
        if choice == "checkpointing":
            # Their interval would have every layer recomputed whole.
            pins["recompute"] = "selective" if settings.stage_selective_layers else "full"
            if settings.stage_selective_layers:
                pins["activation_checkpoint_interval"] = None
        if choice == "layout":
            pins["micro_batch_size"] = None
        if choice in ("layout", "micro-batch"):
            pins["gradient_accumulation_steps"] = None
        constraints = experiment.constraints.model_copy(update=pins)
        experiment = experiment.model_copy(update={"constraints": constraints})
    workload = changed(mine.workload, experiment=experiment)
    return nearest(Family(choice, workload, None, lambda _: True), mine.candidate)
