"""The report of one plan, or of two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vdsgen.planner.words import duration, percent, rate, seconds
from vdsgen.report.page import page
from vdsgen.report.plan.memory import memory_section
from vdsgen.report.plan.simulated_trace import trace_of
from vdsgen.report.plan.subject import PlanSubject, read_subjects
from vdsgen.report.section import Fact, Report, Section, Subject

Progress = Callable[[float], None]
"""Is told the share done."""


def plan_report(directories: Sequence[Path], progress: Progress | None = None) -> bytes:  # noqa: ARG001
    """The page of these rendered directories, one or two. Raises VdsgenError where one is none."""
    subjects = read_subjects(list(directories))
    return page(report_of(subjects))


def plan_trace(directory: Path) -> bytes:
    """The schedule of a rendered directory's step, with what each stage holds. Raises VdsgenError where it is
    none."""
    (subject,) = read_subjects([directory])
    return trace_of(subject)


def report_of(subjects: Sequence[PlanSubject], further: Sequence[Section] = ()) -> Report:
    """`further` sections follow those of the plans."""
    names = list(dict.fromkeys(subject.name for subject in subjects))
    return Report(
        title=" and ".join(names) if len(names) > 1 else names[0],
        subjects=[_headline(subject) for subject in subjects],
        sections=[memory_section(subjects), *further],
        footer=[_origin(subject) for subject in subjects],
    )


def _headline(subject: PlanSubject) -> Subject:
    plan, predicted = subject.plan, subject.plan.predicted
    facts = [
        Fact("a step", seconds(predicted.step_seconds)),
        Fact("throughput", f"{rate(predicted.samples_per_second)} samples/s"),
        Fact(
            "utilisation",
            percent(predicted.model_flops_utilization),
            "of the GPUs' peak, recomputation not counted",
        ),
    ]
    if predicted.dataset is not None:
        facts.append(
            Fact(
                "one pass over the clips",
                duration(predicted.dataset.seconds),
                f"{predicted.dataset.clips:,} clips",
            )
        )
    return Subject(name=subject.name, facts=facts, words=f"{plan.parallel.world_size} GPUs")


def _origin(subject: PlanSubject) -> str:
    inputs = subject.plan.inputs
    hashes = f"experiment {inputs.experiment_sha256[:12]}, lab {inputs.lab_sha256[:12]}"
    return f"{subject.prefix}{subject.plan.generator}; {hashes}"
