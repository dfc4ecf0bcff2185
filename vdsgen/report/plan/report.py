"""The report of one plan, or of two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vdsgen.planner.words import duration, gib, percent, rate, seconds, settings_words
from vdsgen.report.page import page
from vdsgen.report.plan.capacity import capacity_section
from vdsgen.report.plan.checkpointing import checkpointing_section
from vdsgen.report.plan.choice import choice_section
from vdsgen.report.plan.differences import differences_section
from vdsgen.report.plan.gantt import schedule_section
from vdsgen.report.plan.memory import memory_section
from vdsgen.report.plan.precision import precision_section
from vdsgen.report.plan.simulated_trace import trace_of
from vdsgen.report.plan.step_time import step_time_section
from vdsgen.report.plan.subject import PlanSubject, read_subjects
from vdsgen.report.plan.topology import topology_section
from vdsgen.report.section import Fact, Report, Section, Subject

Progress = Callable[[float], None]
"""Is told the share done."""


def plan_report(
    directories: Sequence[Path], progress: Progress | None = None, *, every_alternative: bool = False
) -> bytes:
    """The page of these rendered directories, one or two. Raises VdsgenError where one is none."""
    subjects = read_subjects(list(directories))
    return page(report_of(subjects, progress=progress, every_alternative=every_alternative))


def plan_trace(directory: Path) -> bytes:
    """The schedule of a rendered directory's step, with what each stage holds. Raises VdsgenError where it is
    none."""
    (subject,) = read_subjects([directory])
    return trace_of(subject)


def report_of(
    subjects: Sequence[PlanSubject],
    further: Sequence[Section] = (),
    progress: Progress | None = None,
    *,
    every_alternative: bool = False,
) -> Report:
    """`further` sections follow those of the plans."""
    names = list(dict.fromkeys(subject.name for subject in subjects))
    sections = [
        differences_section(subjects),
        memory_section(subjects),
        capacity_section(subjects),
        schedule_section(subjects),
        step_time_section(subjects),
        checkpointing_section(subjects),
        topology_section(subjects),
        precision_section(subjects),
        choice_section(subjects, progress, every=every_alternative),
    ]
    return Report(
        title=" and ".join(names),
        subjects=[_headline(subject) for subject in subjects],
        sections=[*(section for section in sections if section is not None), *further],
        footer=[_origin(subject) for subject in subjects],
    )


def _headline(subject: PlanSubject) -> Subject:
    plan, predicted = subject.plan, subject.plan.predicted
    fullest = max(plan.stages, key=lambda stage: stage.memory.peak_bytes / stage.capacity_bytes)
    fits = fullest.memory.peak_bytes <= fullest.capacity_bytes
    facts = [
        Fact(
            "memory",
            "fits" if fits else "does not fit",
            f"{gib(fullest.memory.peak_bytes)} of {gib(fullest.capacity_bytes)} on the fullest GPU",
            "good" if fits else "bad",
        ),
        Fact(
            "a step takes",
            seconds(predicted.step_seconds),
            f"{plan.batch.global_batch_size:,} samples, micro-batch {plan.batch.micro_batch_size} x "
            f"{plan.batch.gradient_accumulation_steps}",
        ),
        Fact(
            "samples a second",
            rate(predicted.samples_per_second),
            f"on {plan.parallel.world_size} {'GPU' if plan.parallel.world_size == 1 else 'GPUs'}",
        ),
        Fact(
            "utilisation",
            percent(predicted.model_flops_utilization),
            "of the GPUs' peak; recomputation not counted",
        ),
    ]
    if predicted.dataset is not None:
        facts.append(
            Fact(
                "one pass",
                duration(predicted.dataset.seconds),
                f"over {predicted.dataset.clips:,} clips"
                + ("" if predicted.dataset.price is None else f", for {predicted.dataset.price:,.2f}"),
            )
        )
    if predicted.price_per_hour is not None:
        per_thousand = 1000 * predicted.price_per_hour / 3600 / predicted.samples_per_second
        facts.append(
            Fact(
                "cost",
                f"{predicted.price_per_hour:.4g} an hour",
                f"{per_thousand:.3g} for 1,000 samples, in the lab's currency",
            )
        )
    return Subject(
        name=subject.name,
        facts=facts,
        words=f"{subject.workload.gpus_text}: {settings_words(subject.settings)}; "
        f"{plan.model.parameters:,} parameters in {plan.model.layers} layers.",
    )


def _origin(subject: PlanSubject) -> str:
    inputs = subject.plan.inputs
    hashes = f"experiment {inputs.experiment_sha256[:12]}, lab {inputs.lab_sha256[:12]}"
    return f"{subject.prefix}{subject.plan.generator}; {hashes}"
